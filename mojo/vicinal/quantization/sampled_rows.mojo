"""Rows of a sample that are looked at many times: where rows are on disk, copies of them in memory."""

from vicinal.kernels.space import Rows
from vicinal.system.memory import Ptr, allocate, at, missing, release
from vicinal.system.pages import WANTED, PageUse, advise
from vicinal.system.pointer import copy_items

comptime AT_ONCE = 256
"""Rows asked for before the first of them is copied."""


struct SampledRows(Movable):
    """Some rows, those of `numbers`, as rows 0, 1, 2 and so on."""

    var copy: Ptr[UInt8]
    var rows: Rows
    """Without norms."""

    def __init__(out self, stored: Rows, numbers: Ptr[UInt32], count: Int, pages: PageUse):
        """Copies rows; `missing(copy)` tells that memory is out."""
        self.copy = allocate[UInt8](count * stored.stride)
        self.rows = Rows(Int(self.copy), stored.stride, stored.dim, 0)
        for first in range(0, 0 if missing(self.copy) else count, AT_ONCE):
            var until = min(first + AT_ONCE, count)
            for i in range(first, until):
                var row = stored.base + Int(numbers[unsafe_offset=i]) * stored.stride
                _ = advise(row, stored.stride, WANTED)
            for i in range(first, until):
                var row = Int(numbers[unsafe_offset=i])
                copy_items(
                    dest=self.copy.unsafe_offset(i * stored.stride),
                    src=at[UInt8](stored.base + row * stored.stride),
                    count=stored.stride,
                )
                pages.have_read(stored.base, stored.stride, row, row + 1)

    def __deinit__(deinit self):
        release(self.copy)
