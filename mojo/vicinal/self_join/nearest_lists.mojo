"""Of each row the nearest others that it has met: sorted lists of one length that any number of threads may add to at once.

What a list holds in the end is the least of all that was ever offered, whatever the order: an entry that comes twice is one, and
who is turned away early would be turned away late as well.
"""
from std.atomic import Atomic, Ordering
from std.sys import simd_width_of

from vicinal.kernels.candidates import EMPTY_ENTRY, key_of
from vicinal.kernels.space import KEY_MAX
from vicinal.system.pages import ask_for_huge_pages
from vicinal.system.prefetch import CACHE_LINE, prefetch_line
from vicinal.system.spin import spin_lock, spin_unlock
from vicinal.system.memory import Ptr, allocate, allocate_zeroed, missing, release

comptime LANES = simd_width_of[DType.int64]()
comptime LOCKS = 1 << 14
"""Rows with the same number modulo it share a lock: a table of 64 KiB stays in the cache."""
comptime ROUND = 8
"""Lists are multiples of it long, on every CPU level."""


struct NearestLists(Movable):
    """Lists of entries of `kernels/candidates.mojo`, whose lowest bit tells whether a row has joined this neighbour with its others.
    """

    var entries: Ptr[Int64]
    var bounds: Ptr[Int32]
    """Of each row the key of its last entry: a larger one is not wanted."""
    var locks: Ptr[Int32]
    var count: Int
    var room: Int
    """Entries of a list."""
    var failed: Bool
    """Whether memory was refused; nothing may be done with it then."""

    def __init__(out self, count: Int, wanted: Int):
        """Makes empty lists of at least `wanted` entries."""
        self.count = count
        self.room = (wanted + ROUND - 1) // ROUND * ROUND
        self.entries = allocate[Int64](count * self.room)
        self.bounds = allocate[Int32](count)
        self.locks = allocate_zeroed[Int32](LOCKS)
        self.failed = missing(self.entries) or missing(self.bounds) or missing(self.locks)
        if not self.failed:
            ask_for_huge_pages(Int(self.entries), count * self.room * 8)
            self.clear()

    def __deinit__(deinit self):
        release(self.entries)
        release(self.bounds)
        release(self.locks)

    def clear(mut self):
        """Empties all lists."""
        for i in range(self.count * self.room):
            self.entries[unsafe_offset=i] = EMPTY_ENTRY
        for row in range(self.count):
            self.bounds[unsafe_offset=row] = KEY_MAX

    @always_inline
    def list(self, row: Int) -> Ptr[Int64]:
        """Returns the entries of a row, nearest first, EMPTY_ENTRY where there are no more."""
        return self.entries.unsafe_offset(row * self.room)

    @always_inline
    def bound(self, row: Int) -> Int32:
        """Returns the largest key that a row may still want; others may be making it smaller."""
        return Atomic[Int32].load[ordering=Ordering.RELAXED](self.bounds.unsafe_offset(row).start)

    @no_inline
    def offer(self, row: Int, entry: Int64) -> Int32:
        """Adds an entry to a list if it is among the least and not there; returns the bound from now on.
        """
        var lock = self.locks.unsafe_offset(row & (LOCKS - 1))
        spin_lock(lock)
        var bound = insert(self.list(row), self.room, entry)
        Atomic[Int32].store[ordering=Ordering.RELAXED](self.bounds.unsafe_offset(row).start, bound)
        spin_unlock(lock)
        return bound

    @always_inline
    def ask(self, row: Int):
        """Asks for a list before it is wanted."""
        var address = Int(self.list(row))
        for offset in range(0, 8 * self.room, CACHE_LINE):
            prefetch_line(address + offset)
        prefetch_line(Int(self.bounds.unsafe_offset(row)))

    def copy(self, row: Int, into: Ptr[Int64]) -> Int32:
        """Copies a list as it is now and returns its bound."""
        var lock = self.locks.unsafe_offset(row & (LOCKS - 1))
        var list = self.list(row)
        spin_lock(lock)
        for i in range(0, self.room, LANES):
            into.unsafe_store(i, list.unsafe_load[width=LANES](i))
        spin_unlock(lock)
        return key_of(into[unsafe_offset=self.room - 1])

    def merge(self, row: Int, other: Ptr[Int64]):
        """Adds what another list holds."""
        var lock = self.locks.unsafe_offset(row & (LOCKS - 1))
        var list = self.list(row)
        spin_lock(lock)
        var bound = key_of(list[unsafe_offset=self.room - 1])
        for i in range(self.room):
            var entry = other[unsafe_offset=i]
            if entry == list[unsafe_offset=i]:
                continue
            if key_of(entry) > bound or entry == EMPTY_ENTRY:
                break
            bound = insert(list, self.room, entry)
        Atomic[Int32].store[ordering=Ordering.RELAXED](self.bounds.unsafe_offset(row).start, bound)
        spin_unlock(lock)


@always_inline
def insert(list: Ptr[Int64], room: Int, entry: Int64) -> Int32:
    """Puts an entry into a sorted list, the last of which goes, unless it is larger than that or there; returns the last one's key.
    """
    if entry < list[unsafe_offset=room - 1]:
        var same = SIMD[DType.int64, LANES](entry | 1)
        for i in range(0, room, LANES):
            if (list.unsafe_load[width=LANES](i) | 1).eq(same).reduce_or():
                return key_of(list[unsafe_offset=room - 1])
        var new = SIMD[DType.int64, LANES](entry)
        var below = SIMD[DType.int64, LANES](Int64.MIN)
        for i in range(0, room, LANES):
            var here = list.unsafe_load[width=LANES](i)
            var shifted = below.join(here).slice[LANES, offset=LANES - 1]()
            list.unsafe_store(i, min(here, max(shifted, new)))
            below = here
    return key_of(list[unsafe_offset=room - 1])
