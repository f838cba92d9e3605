"""A panel of rows meets panels of others: the tiles of `exact/tile.mojo` over codes that lie anywhere."""

from vicinal.exact.tile import (
    PANEL_QUERIES,
    PANEL_ROWS,
    TILE,
    block_words,
    multiply,
    pack_query,
    pack_rows,
    words_of,
)
from vicinal.kernels.products import W
from vicinal.kernels.space import Rows
from vicinal.self_join.codes import Codes
from vicinal.system.memory import Ptr, allocate, missing, no_block, release
from vicinal.system.pointer import copy_items

comptime T = DType.int8


@always_inline
def panels_of(count: Int) -> Int:
    """Returns how many panels hold so many packed codes."""
    return (count + PANEL_QUERIES - 1) // PANEL_QUERIES


def packed_words(count: Int, dim: Int) -> Int:
    """Returns the words that so many packed codes take."""
    return panels_of(count) * PANEL_QUERIES * words_of[T](dim)


def pack(code: Ptr[Int8], dim: Int, place: Int, panels: Int, packed: Ptr[Int32]):
    """Packs one code into its place among those that a panel of rows will meet."""
    pack_query[T, T, centred=False](code, dim, 1, no_block[Float32](), place, panels, packed)


struct RowPanel(Movable):
    """Up to PANEL_ROWS codes, packed, and one tile of their products with others."""

    var gathered: Ptr[Int8]
    var packed: Ptr[Int32]
    var sums: Ptr[Int32]
    """[PANEL_QUERIES][PANEL_ROWS] inner products."""
    var squared: Ptr[Int32]
    """Of each row, see `Codes`; zero behind the last."""
    var dim: Int
    var stride: Int
    var failed: Bool
    """Whether memory was refused; nothing may be done with it then."""

    def __init__(out self, dim: Int, stride: Int):
        """Makes room for one panel."""
        self.dim = dim
        self.stride = stride
        self.gathered = allocate[Int8](PANEL_ROWS * stride)
        self.packed = allocate[Int32](PANEL_ROWS * ((words_of[T](dim) + W - 1) // W * W))
        self.sums = allocate[Int32](TILE)
        self.squared = allocate[Int32](PANEL_ROWS)
        self.failed = (
            missing(self.gathered)
            or missing(self.packed)
            or missing(self.sums)
            or missing(self.squared)
        )

    def __deinit__(deinit self):
        release(self.gathered)
        release(self.packed)
        release(self.sums)
        release(self.squared)

    def load(mut self, codes: Codes, rows: Ptr[UInt32], count: Int):
        """Packs 1 to PANEL_ROWS rows."""
        for i in range(PANEL_ROWS):
            self.squared[unsafe_offset=i] = 0
        for i in range(count):
            var row = Int(rows[unsafe_offset=i])
            self.squared[unsafe_offset=i] = codes.squared[unsafe_offset=row]
            copy_items(
                dest=self.gathered.unsafe_offset(i * self.stride),
                src=codes.row(row),
                count=self.stride,
            )
        pack_rows[T, centred=False, scaled=False](
            Rows(Int(self.gathered), self.stride, self.dim, 0),
            0,
            count,
            0,
            words_of[T](self.dim),
            no_block[Float32](),
            no_block[Float32](),
            self.packed,
        )

    @always_inline
    def meet(self, others: Ptr[Int32], panels: Int, panel: Int):
        """Finds the products of all rows with one of several packed panels."""
        var words = words_of[T](self.dim)
        var step = block_words(words)
        for first in range(0, words, step):
            var here = min(step, words - first)
            multiply[T](
                self.packed.unsafe_offset(first * PANEL_ROWS),
                others.unsafe_offset(PANEL_QUERIES * (panels * first + panel * here)),
                here,
                self.sums,
                first != 0,
            )
