"""The beam: a bounded sorted buffer of (distance, node), equal distances in order of node.

An entry is one 64-bit integer: the distance key above, then the node, then one bit that tells whether the node was expanded.
One comparison orders by distance and node together, so results do not depend on the order of insertion.
"""
from std.bit import count_trailing_zeros
from std.memory import pack_bits
from std.sys import simd_width_of

from vicinal.memory import Ptr, allocate, missing, release

comptime LANES = simd_width_of[DType.int64]()
comptime EMPTY_ENTRY: Int64 = 0x7FFFFFFFFFFFFFFF
comptime STRAIGHT = 256
"""Up to so many entries an insertion goes through all; above, it looks for its place first."""


@always_inline
def entry_of(key: Int32, node: Int) -> Int64:
    """Packs a distance and a node (below 2**31), not expanded."""
    return (Int64(key) << 32) | Int64(node << 1)


@always_inline
def key_of(entry: Int64) -> Int32:
    """Returns the distance key of an entry."""
    return Int32(entry >> 32)


@always_inline
def node_of(entry: Int64) -> Int:
    """Returns the node of an entry."""
    return Int((entry & 0xFFFFFFFF) >> 1)


struct Candidates(Movable):
    """The nearest nodes seen so far."""

    var entries: Ptr[Int64]
    """Sorted entries; from `size` to `limit` they are EMPTY_ENTRY, beyond that anything not smaller than the last."""
    var size: Int
    """Entries held."""
    var limit: Int
    """Entries that may be held."""
    var cursor: Int
    """No entry before it is unexpanded; itself it may be anything."""
    var allocated: Int
    """Room in `entries`, slack for whole vectors included."""
    var failed: Bool
    """True once memory was refused. Set from the beginning, nothing may be done but to destroy it; set by `reset`, all goes on with
    fewer entries than were asked for, and whoever uses what it holds has to look here first."""

    def __init__(out self):
        """Makes a buffer that holds nothing; call `reset` before use."""
        self.entries = allocate[Int64](4 * LANES)
        self.allocated = 4 * LANES
        self.size = 0
        self.limit = 0
        self.cursor = 0
        self.failed = missing(self.entries)

    def __deinit__(deinit self):
        release(self.entries)

    def reset(mut self, wanted: Int):
        """Empties the buffer and sets how many entries it keeps, fewer if it has `failed`."""
        var limit = wanted
        if limit + 3 * LANES > self.allocated:
            limit = self._make_room(limit)
        for i in range(0, limit + LANES, LANES):
            self.entries.unsafe_store(i, SIMD[DType.int64, LANES](EMPTY_ENTRY))
        self.size = 0
        self.limit = limit
        self.cursor = 0

    def _make_room(mut self, limit: Int) -> Int:
        """Makes room for so many entries; returns how many there is room for."""
        var room = limit + limit // 2 + 3 * LANES
        var entries = allocate[Int64](room)
        if missing(entries):
            self.failed = True
            return self.allocated - 3 * LANES
        release(self.entries)
        self.entries = entries
        self.allocated = room
        return limit

    def shrink(mut self):
        """Empties the buffer and gives back what is more than the least room, unless that is refused.
        """
        var entries = allocate[Int64](4 * LANES)
        if missing(entries):
            return
        release(self.entries)
        self.entries = entries
        self.allocated = 4 * LANES
        self.size = 0
        self.limit = 0
        self.cursor = 0

    def narrow(mut self, limit: Int):
        """Lets go of what is beyond `limit` entries and keeps no more from now on; does nothing if it keeps fewer.
        """
        self.limit = min(self.limit, limit)
        self.size = min(self.size, self.limit)

    @always_inline
    def worst(self) -> Int64:
        """Returns the entry that a new one must beat: EMPTY_ENTRY while there is room."""
        return self.entries[unsafe_offset=self.limit - 1]

    @always_inline
    def insert(mut self, entry: Int64):
        """Inserts an entry smaller than `worst()`.

        Performance:
            Every place becomes min(itself, max(the one below, entry)), whole vectors at a time and without a branch that
            depends on data; a third faster than finding the place and moving what is behind it (ef 64, d 128).
        """
        # copies: the stores might otherwise change them
        var entries = self.entries
        var size = self.size
        var first = 0
        if size > STRAIGHT:  # vectors that hold smaller entries only need no touch
            var high = size
            while high - first > LANES:
                var middle = (first + high) >> 1
                if entries[unsafe_offset=middle] < entry:
                    first = middle
                else:
                    high = middle
            first = first // LANES * LANES
        var new = SIMD[DType.int64, LANES](entry)
        var below = SIMD[DType.int64, LANES](Int64.MIN)
        for i in range(first, size + 1, LANES):
            var here = entries.unsafe_load[width=LANES](i)
            var shifted = below.join(here).slice[LANES, offset=LANES - 1]()
            entries.unsafe_store(i, min(here, max(shifted, new)))
            below = here
        self.size = min(size + 1, self.limit)
        if entry <= entries[unsafe_offset=self.cursor]:
            self.cursor = 0

    @always_inline
    def next(mut self) -> Int:
        """Marks the nearest unexpanded entry as expanded and returns its node, or -1 when there is none.
        """
        var i = self.cursor // LANES * LANES
        while i < self.size:
            var marks = self.entries.unsafe_load[width=LANES](i) & 1
            var open = Int(pack_bits(marks.eq(0)))
            if open != 0:
                var position = i + Int(count_trailing_zeros(open))
                if position >= self.size:
                    break
                var entry = self.entries[unsafe_offset=position]
                self.entries[unsafe_offset=position] = entry | 1
                self.cursor = position
                return node_of(entry)
            i += LANES
        return -1

    @always_inline
    def node(self, i: Int) -> Int:
        """Returns the node at position i."""
        return node_of(self.entries[unsafe_offset=i])

    @always_inline
    def key(self, i: Int) -> Int32:
        """Returns the distance key at position i."""
        return key_of(self.entries[unsafe_offset=i])
