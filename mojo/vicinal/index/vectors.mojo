"""The stored rows of an index: where they are, and whose memory that is."""
from vicinal.file.posix import close_file
from vicinal.kernels.space import Rows
from vicinal.kernels.stored_type import row_stride
from vicinal.system.atomics import load_acquire
from vicinal.system.memory import Column
from vicinal.system.pages import PageUse
from vicinal.walk.arrivals import RowFile

comptime OWN = 0
"""The rows are in memory of the index, or in its file."""
comptime BORROWED = 1
"""The rows are in memory of somebody else."""
comptime GIVEN_UP = 2
"""They were copied, but searches that began before may still read them there."""


struct Vectors(Movable):
    """The vectors of all rows, and their norms where the metric wants them."""

    var column: Column
    """`row_stride` bytes a row."""
    var norms: Column
    """Reciprocal norms, float32; only for cosine over integers."""
    var borrowed: Int
    """OWN, BORROWED or GIVEN_UP, see `index/borrowed_rows.mojo`."""
    var lent_until: Int64
    """The epoch in which searches may have read rows of somebody else's that were copied since."""
    var on_disk: Bool
    """Whether rows may have to be read from the file: who measures some asks for them first. See `index/residence.mojo`."""
    var give_back: Bool
    """Whether pages of rows that were read are taken out of the process, so that they do not count as its memory; only where the rows are
    in the index's file and nobody else uses the index."""
    var row_file: RowFile
    """How they are read then; a file that is open for that is closed with this."""

    def __init__(out self):
        """Makes a column of none."""
        self.column = Column()
        self.norms = Column()
        self.borrowed = OWN
        self.lent_until = 0
        self.on_disk = False
        self.give_back = False
        self.row_file = RowFile.none()

    def __deinit__(deinit self):
        if self.row_file.file >= 0:
            _ = close_file(self.row_file.file)

    @always_inline
    def rows(self, dim: Int, dtype: Int) -> Rows:
        """Returns the rows as kernels see them."""
        return Rows(
            load_acquire(self.column.address), row_stride(dim, dtype), dim, self.norms.address
        )

    def pages(self, bytes: Int) -> PageUse:
        """Returns what whoever reads many rows, all of which have so many bytes, does about their pages.
        """
        if not self.give_back or self.column.reserved != 0:
            return PageUse(self.on_disk, 0, 0)
        return PageUse(self.on_disk, self.column.address, self.column.address + bytes)

    def owned_bytes(self) -> Int:
        """Returns the bytes of vectors that are not in memory of somebody else."""
        return 0 if self.borrowed == BORROWED else self.column.memory()

    def retired_mark(self) -> Int:
        """Returns a number that changes when a column moves, 0 if none has."""
        return self.column.retired + self.norms.retired

    def free_retired(mut self):
        """Frees memory that columns have moved out of, once nobody reads there."""
        self.column.free_retired()
        self.norms.free_retired()
