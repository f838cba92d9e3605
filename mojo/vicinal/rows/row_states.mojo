"""The state of a row, one byte, and what it says of the row's part in the graph."""
from std.atomic import Atomic, Ordering

from vicinal.system.memory import at

comptime LIVE: UInt8 = 0
comptime PENDING: UInt8 = 1
"""Removed, but still linked."""
comptime FREE: UInt8 = 2
"""Removed, without links and content."""
comptime DELETING: UInt8 = 3
"""Being removed by the call under way; there until it takes effect."""
comptime INSERTING: UInt8 = 4
"""Being written by the call under way; not there until it takes effect."""
comptime ANCHOR: UInt8 = 5
"""Removed, but kept in the graph: duplicates of the row are there, and are reached through it."""
comptime CHECKING: UInt8 = 6
"""An anchor, while the call under way looks whether any of its duplicates remains."""
comptime BLOCK = 64
"""States compared together."""


@always_inline
def is_to_be_unlinked(mark: UInt8) -> Bool:
    """Tells whether a row has links that are to be taken out."""
    return mark == PENDING or mark == DELETING


@always_inline
def is_live_after(mark: UInt8) -> Bool:
    """Tells whether a row takes part after the call under way, so that it must be reachable."""
    return mark == LIVE or mark == INSERTING or mark == ANCHOR


@always_inline
def was_live(states: Int, row: Int) -> Bool:
    """Tells whether a row takes part and did so before the call under way; `states` is 0 if all do.
    """
    if states == 0:
        return True
    var mark = at[UInt8](states)[unsafe_offset=row]
    return mark == LIVE or mark == ANCHOR


@always_inline
def stays(states: Int, row: Int) -> Bool:
    """Tells whether a row takes part and stays, so that it must be reachable; `states` is 0 if all do.
    """
    return states == 0 or is_live_after(
        Atomic[UInt8].load[ordering=Ordering.RELAXED](at[UInt8](states).unsafe_offset(row).start)
    )
