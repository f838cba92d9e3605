"""The index: owns the parts, knows its rows by number and by id; nothing clever."""
from std.atomic import Atomic, Ordering
from std.memory import unsafe_memcpy

from vicinal.codes import STORED_ROWS, Codes, drop_codes
from vicinal.copies import Copies
from vicinal.graph import MAX_ROWS, Graph
from vicinal.ids import IdMap
from vicinal.mapped import Mapped
from vicinal.memory import Column, Ptr, allocate, at, release
from vicinal.scratch import Shelf
from vicinal.shared import seen, seen_at
from vicinal.space import COSINE, Rows, inspect_row, is_float, row_stride
from vicinal.tally import Tally
from vicinal.texts import Texts

comptime EXACT_BELOW = 1000
"""Rows from which on the graph pays, and is built, unless a caller says otherwise.

One query at a time, the graph (ef 64) overtook a scan between 500 and 1,300 rows on three real
sets (d 784, 384, 128), and at 1,000 rows was 3.8, 1.5 and 0.8 times as fast.
"""
comptime TUNING_WORDS = 8
"""Words, int64, of one row of `Index.tuning`."""
comptime DONE = 0
comptime STOPPED = -1
"""A watch ended the call; the index is as it was."""
comptime NO_MEMORY = -2
"""Memory, address space or row numbers are out; the index is as it was."""
comptime KNOWN_ID = 4
"""Kind of refusal beside those of `inspect_row`: an id that is present already or twice in its batch."""


struct Index(Movable):
    """Vectors, ids and graph. One writer at a time; searches may run beside it."""

    var metric: Int
    var dtype: Int
    var dim: Int
    var ef_construction: Int
    var seed: Int
    var exact_below: Int
    """The graph is built once there are this many rows; until then search is exact."""
    var count: Int
    """Rows that searches see."""
    var vectors: Column
    """`row_stride` bytes a row."""
    var norms: Column
    """Reciprocal norms, float32; only for cosine over integers."""
    var ids: Column
    """The user's ids, int64."""
    var automatic: Bool
    """True while the id of every row is its number; means nothing unless `ids_known`."""
    var ids_known: Bool
    """False after opening a file, until somebody asks for an id: looking at all of them takes time by size."""
    var map: IdMap
    var graph: Graph
    var quantization: Int
    """What the user asked to walk on: `coding.AUTO`, or 1 + a kind of codes."""
    var codes: Ptr[Codes]
    """What searches walk on; of kind STORED_ROWS until the graph is built."""
    var copies: Copies
    """Rows of the graph's range that hold the same as earlier ones, and are found through those."""
    var unrepaired: Int
    """Rows linked since all rows were last made reachable."""
    var undone: Int64
    """Additions that were taken back; a search that spans one starts again, since row numbers are reused."""
    var ef_search: Int
    """Default search width that the file remembered, 0 for none."""
    var texts: Texts
    """The strings that ids stand for, if rows are named by strings."""
    var tuning: Column
    """Search widths that were found for a wanted recall, rows of TUNING_WORDS int64; the caller's matter."""
    var tunings: Int
    """Rows of it."""
    var shelf: Shelf
    var tally: Tally
    var file: Int
    """Address of the `Mapped` that the columns are views of, 0 if they are the index's own memory."""

    def __init__(
        out self,
        metric: Int,
        dtype: Int,
        dim: Int,
        M: Int,
        ef_construction: Int,
        seed: Int,
        exact_below: Int,
        quantization: Int,
    ):
        """Makes an empty index."""
        self.metric = metric
        self.dtype = dtype
        self.dim = dim
        self.ef_construction = ef_construction
        self.seed = seed
        self.exact_below = exact_below
        self.count = 0
        self.vectors = Column()
        self.norms = Column()
        self.ids = Column()
        self.automatic = True
        self.ids_known = True
        self.map = IdMap()
        self.graph = Graph(M)
        self.quantization = quantization
        self.codes = allocate[Codes](1)
        self.codes.unsafe_write(Codes(STORED_ROWS, metric, dtype, 1, 0))
        self.copies = Copies()
        self.unrepaired = 0
        self.undone = 0
        self.ef_search = 0
        self.texts = Texts()
        self.tuning = Column()
        self.tunings = 0
        self.shelf = Shelf()
        self.tally = Tally()
        self.file = 0

    def __deinit__(deinit self):
        drop_codes(self.codes)
        if self.file != 0:
            var mapped = at[Mapped](self.file)
            mapped.unsafe_deinit_pointee()
            release(mapped)

    def keep_file(mut self, var mapped: Mapped):
        """Takes over the map that the columns are views of; the index is read-only from now on."""
        var kept = allocate[Mapped](1)
        kept.unsafe_write(mapped^)
        self.file = Int(kept)

    @always_inline
    def has_norms(self) -> Bool:
        """Tells whether rows carry reciprocal norms."""
        return self.metric == COSINE and not is_float(self.dtype)

    @always_inline
    def rows(self) -> Rows:
        """Returns the rows as kernels see them."""
        return Rows(
            self.vectors.address, row_stride(self.dim, self.dtype), self.dim, self.norms.address
        )

    @always_inline
    def exact(self, width: Int) -> Bool:
        """Tells whether a search of this width scans all rows: few rows, or so wide that a walk would see most.
        """
        var count = seen(self.count)
        return count < self.exact_below or seen(self.graph.linked) < count or width * 8 >= count

    def walked_row_bytes(self) -> Int:
        """Returns the bytes of what a search measures of a row: its code, or the stored row."""
        ref codes = seen_at(self.codes)[]
        if codes.kind != STORED_ROWS and not codes.in_place():
            return codes.stride
        return row_stride(self.dim, self.dtype)

    def walked_bytes(self) -> Int:
        """Returns the bytes of what a search walks on: links of level 0, and codes or rows."""
        return seen(self.graph.linked) * (self.walked_row_bytes() + self.graph.slots_at(0) * 4)

    def bytes(self) -> Int:
        """Returns the bytes of memory that everything by the row takes."""
        return (
            self.vectors.usable
            + self.norms.usable
            + self.ids.usable
            + self.graph.bytes()
            + self.copies.bytes()
            + self.codes[].memory()
            + self.map.room * 4
            + self.texts.memory()
        )

    def know_ids(mut self):
        """Finds out whether ids are row numbers, and makes the table that finds them if not."""
        if self.ids_known:
            return
        var column = self.ids.ptr[Int64]() if self.count != 0 else at[Int64](64)
        self.automatic = True
        for row in range(self.count):
            if Int(column[unsafe_offset=row]) != row:
                self.automatic = False
                break
        if not self.automatic:
            _ = self.map.extend(column, self.count)
        self.ids_known = True

    def take_ids(mut self, ids: Int, added: Int) -> Int:
        """Writes the ids of rows to be added behind the present ones.

        Args:
            ids: Address of int64 ids, or 0 for automatic ones: row numbers, or one more than the largest id so far.
            added: Number of rows.

        Returns:
            DONE, NO_MEMORY, or 8 * position + KNOWN_ID of the first id that is there already; then nothing has changed.
        """
        var until = self.count + added
        if until > MAX_ROWS or not self.ids.grow(until * 8):
            return NO_MEMORY
        self.know_ids()
        var column = self.ids.ptr[Int64]()
        var new = column.unsafe_offset(self.count)
        var automatic = self.automatic
        if ids != 0:
            unsafe_memcpy(dest=new, src=at[Int64](ids), count=added)
            for i in range(added):
                automatic = automatic and Int(new[unsafe_offset=i]) == self.count + i
        else:
            var next = Int64(self.count) - 1
            if not automatic:
                for row in range(self.count):
                    next = max(next, column[unsafe_offset=row])
                if next > Int64.MAX - Int64(added):
                    return KNOWN_ID  # there are no ids left above the largest
            next += 1
            for i in range(added):
                new[unsafe_offset=i] = next + Int64(i)
        if not automatic:
            var clash = self.map.extend(column, until)
            if clash >= 0:
                self.map.shrink(column, self.count)
                return 8 * max(clash - self.count, 0) + KNOWN_ID
        self.automatic = automatic
        return DONE

    def drop_ids(mut self):
        """Takes back `take_ids` after an addition that failed."""
        _ = Atomic[Int64].fetch_add[ordering=Ordering.ACQUIRE_RELEASE](Pointer(to=self.undone), 1)
        if not self.automatic:
            self.map.shrink(self.ids.ptr[Int64](), self.count)
            var column = self.ids.ptr[Int64]()
            for row in range(self.count):
                if Int(column[unsafe_offset=row]) != row:
                    return
            self.automatic = True
            self.map.shrink(column, 0)

    def row_of(mut self, id: Int64) -> Int:
        """Returns the row of an id, or -1."""
        self.know_ids()
        if self.automatic:
            return Int(id) if id >= 0 and Int(id) < self.count else -1
        var column = self.ids.ptr[Int64]()
        var row = self.map.find(column, id)
        return row if row < self.count else -1
