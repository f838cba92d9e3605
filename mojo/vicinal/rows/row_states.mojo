"""What becomes of a row: one byte a row, and what it says of the row's part in the graph."""
from std.atomic import Atomic, Ordering

from vicinal.system.memory import at

comptime LIVE: UInt8 = 0
comptime PENDING: UInt8 = 1
"""Removed, but still linked."""
comptime FREE: UInt8 = 2
"""Removed, without links and content."""
comptime LEAVING: UInt8 = 3
"""Being removed by the call under way; there until it takes effect."""
comptime COMING: UInt8 = 4
"""Being written by the call under way; not there until it takes effect."""
comptime HOLDING: UInt8 = 5
"""Removed, but in the graph for good: copies of the row are there, and are found through it."""
comptime ASKED: UInt8 = 6
"""Holding, for a moment, while the copies of rows that leave are gone through."""
comptime BLOCK = 64
"""Marks looked at together."""


@always_inline
def going(mark: UInt8) -> Bool:
    """Tells whether a row has links that are to be taken out."""
    return mark == PENDING or mark == LEAVING


@always_inline
def staying(mark: UInt8) -> Bool:
    """Tells whether a row takes part after the call under way, so that it must be reachable."""
    return mark == LIVE or mark == COMING or mark == HOLDING


@always_inline
def settled(marks: Int, row: Int) -> Bool:
    """Tells whether a row takes part and did so before the call under way; `marks` is 0 if all do.
    """
    if marks == 0:
        return True
    var mark = at[UInt8](marks)[unsafe_offset=row]
    return mark == LIVE or mark == HOLDING


@always_inline
def stays(marks: Int, row: Int) -> Bool:
    """Tells whether a row takes part and stays, so that it must be reachable; `marks` is 0 if all do.
    """
    return marks == 0 or staying(
        Atomic[UInt8].load[ordering=Ordering.RELAXED](at[UInt8](marks).unsafe_offset(row))
    )
