"""The beam: a bounded sorted buffer of (distance, node), equal distances in order of node.

An entry is one 64-bit integer: the distance key above, then the node, then one bit that tells whether the node was expanded.
One comparison orders by distance and node together, so results do not depend on the order of insertion.
"""
from std.bit import count_leading_zeros, count_trailing_zeros
from std.memory import pack_bits
from std.sys import simd_width_of

from vicinal.system.memory import Ptr, allocate, missing, release

comptime LANES = simd_width_of[DType.int64]()
comptime EMPTY_ENTRY: Int64 = 0x7FFFFFFFFFFFFFFF
comptime STRAIGHT = 256
"""Up to so many entries an insertion goes through all; above, it looks for its place first."""
comptime SETTLED = 8
"""No fewer of the nearest tell how far it is to rows that matter: one or two alone vary too much."""
comptime SETTLED_WIDTHS = 3
"""From a width of so many times these on, a walk may end before it has expanded all candidates within its width."""
comptime WIDE = 1024
"""Buffers that may hold more take new entries in a second, small one, since moving what lies behind costs more then."""


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


@always_inline
def insert_sorted(entries: Ptr[Int64], size: Int, entry: Int64) -> Int:
    """Puts an entry among sorted ones; behind these there must be one that is not smaller, and room for whole vectors.

    Returns:
        A position before which nothing has changed.

    Performance:
        Every place becomes min(itself, max(the one below, entry)), whole vectors at a time and without a branch that
        depends on data; a third faster than finding the place and moving what is behind it (ef 64, d 128).
    """
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
    return first


@always_inline
def find_open(entries: Ptr[Int64], begin: Int, size: Int) -> Int:
    """Returns the first position from `begin`, or a little before it, whose entry is not expanded; `size` or more if there is none.
    """
    var i = begin // LANES * LANES
    while i < size:
        var states = entries.unsafe_load[width=LANES](i) & 1
        var open = Int(pack_bits(states.eq(0)))
        if open != 0:
            return i + Int(count_trailing_zeros(open))
        i += LANES
    return size


def late_room(limit: Int) -> Int:
    """Returns how many late entries a buffer of a size takes: to insert one and to merge all takes about as long.
    """
    var room = STRAIGHT
    while room * room < 8 * limit:
        room *= 2
    return room


def room_for(limit: Int) -> Int:
    """Returns how many entries are allocated to keep some, slack for whole vectors and late entries included.
    """
    var room = limit + 3 * LANES
    return room if limit <= WIDE else room + late_room(limit) + 3 * LANES


@always_inline
def far_beyond(nearby: Int, width: Int) -> Float32:
    """Returns how many times as far as number `nearby` a candidate is that ends a walk of a width; see `Candidates.end_early`.
    """
    var times = UInt32(256 * width // nearby)
    var doublings = 31 - Int(count_leading_zeros(times))
    # the logarithm in 256ths, by straight lines between powers of 2
    var logarithm = ((doublings - 8) << 8) + (Int(times) << 8 >> doublings) - 256
    return Float32(1024 + 20 + 82 * logarithm // 256) / 1024


struct Candidates(Movable):
    """The nearest nodes seen so far.

    Where more than WIDE may be kept, entries that come once there are many go into a small sorted buffer beside the others, which
    is merged into them when it is full: to keep k entries takes time by k * sqrt(k) then, not by k * k. What counts as held, what
    a new entry must beat and which entry is expanded next are the same at any moment as in one sorted buffer; who reads entries
    must `arrange` them before. A search that has come to its end has done so.
    """

    var entries: Ptr[Int64]
    """Sorted entries, those of `late` apart; from `size` to `limit` they are EMPTY_ENTRY, beyond that anything not smaller than
    the last. While there are late ones, the last place that may be held is the largest of all or EMPTY_ENTRY."""
    var size: Int
    """Entries held, late ones included."""
    var limit: Int
    """Entries that may be held."""
    var width: Int
    """So many of the nearest are expanded; those held behind them only wait to be measured again."""
    var cursor: Int
    """Every entry before this position has been expanded."""
    var allocated: Int
    """Room in `entries`, slack for whole vectors and for late entries included."""
    var late: Int
    """Entries that are not among the others yet; they lie sorted at `late_entries`."""
    var late_cursor: Int
    """The same as `cursor` for these."""
    var settled: Int
    """Once so many of the nearest are expanded, the walk ends before a candidate that is `far` times as far as number `nearby`."""
    var nearby: Int
    var far: Float32
    var bound: Int64
    """New entries beyond it are left out: the walk ends before it expands them."""
    var failed: Bool
    """True once memory was refused. Set from the beginning, nothing may be done but to destroy it; set by `reset`, all goes on with
    fewer entries than were asked for, and whoever uses what it holds has to look here first."""

    def __init__(out self):
        """Makes a buffer that holds nothing; call `reset` before use."""
        self.entries = allocate[Int64](4 * LANES)
        self.allocated = 4 * LANES
        self.size = 0
        self.limit = 0
        self.width = 0
        self.cursor = 0
        self.late = 0
        self.late_cursor = 0
        self.settled = Int.MAX
        self.nearby = 0
        self.far = 0
        self.bound = EMPTY_ENTRY
        self.failed = missing(self.entries)

    def __deinit__(deinit self):
        release(self.entries)

    def reset(mut self, wanted: Int, width: Int = Int.MAX):
        """Empties the buffer and sets how many entries it keeps, fewer if it has `failed`, and how many of them `next` expands.
        """
        var limit = wanted
        if room_for(limit) > self.allocated:
            limit = self._make_room(limit)
        for i in range(0, limit + LANES, LANES):
            self.entries.unsafe_store(i, SIMD[DType.int64, LANES](EMPTY_ENTRY))
        self.size = 0
        self.limit = limit
        self.width = width
        self.cursor = 0
        self.late = 0
        self.nearby = 0
        self.settled = Int.MAX
        self.bound = EMPTY_ENTRY

    @always_inline
    def nearest_known(self) -> Bool:
        """Tells whether there are `nearby` entries."""
        return self.entries[unsafe_offset=self.nearby - 1] != EMPTY_ENTRY

    @always_inline
    def ends_at(self, farthest: Int32) -> Bool:
        """Tells whether the walk ends before the entry at the cursor because it is farther than a key.
        """
        return self.cursor >= self.settled and self.key(self.cursor) > farthest

    @always_inline
    def leave_out_beyond(mut self, farthest: Int32):
        """Lets no entry in any more that the walk would end before: those that are farther than a key and not among the first
        `settled`. Buffers that stay small take entries in less time.
        """
        var bound = Int64(farthest) << 32 | 0xFFFFFFFF
        self.bound = max(bound, self.entries[unsafe_offset=self.settled - 1])

    @always_inline
    def end_beyond(mut self, k: Int, far: Float32, expanded: Int):
        """Lets the walk end once the next candidate is more than `far` times as far as the k nearest, and so many are expanded.

        Preconditions:
            No more than WIDE are held.
        """
        if max(k, SETTLED) > self.limit:  # the whole graph has no more nodes
            return
        self.far = far
        self.nearby = max(k, SETTLED)
        self.settled = min(max(self.nearby, expanded), self.limit)

    @always_inline
    def end_early(mut self, k: Int):
        """Lets the walk end once the next candidate is much farther than the k nearest, and half of the width is expanded.

        How much is 0.02 and 0.08 for each doubling from k to the width, in squared distance: the wider a search, the surer it shall be.
        Whole numbers, so that it is the same on any machine.

        Performance:
            7 to 25 % fewer distances at widths of 32 to 256 and k = 10; what is found is within 0.001 (docs/measurements/ablations.md).
        """
        var nearby = max(k, SETTLED)
        if self.width < SETTLED_WIDTHS * nearby or not nearby <= self.limit <= WIDE:
            return
        self.far = far_beyond(nearby, self.width)
        self.nearby = nearby
        self.settled = min(max(nearby, self.width // 2), self.limit)

    def _make_room(mut self, limit: Int) -> Int:
        """Makes room for so many entries; returns how many there is room for."""
        var room = room_for(limit)
        room += room // 2
        var entries = allocate[Int64](room)
        if missing(entries):
            self.failed = True
            var fewer = self.allocated - 3 * LANES
            if fewer > WIDE:
                fewer = max(WIDE, fewer - late_room(fewer) - 3 * LANES)
            return fewer
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
        self.late = 0

    def narrow(mut self, limit: Int):
        """Lets go of what is beyond `limit` entries and keeps no more from now on; does nothing if it keeps fewer.
        """
        self.arrange()
        self.limit = min(self.limit, limit)
        self.size = min(self.size, self.limit)

    @always_inline
    def widen(mut self):
        """Lets `next` expand all that is held."""
        self.width = self.limit

    @always_inline
    def worst(self) -> Int64:
        """Returns the entry that a new one must beat: EMPTY_ENTRY while there is room."""
        return self.entries[unsafe_offset=self.limit - 1]

    @always_inline
    def insert(mut self, entry: Int64):
        """Inserts an entry smaller than `worst()`."""
        var size = self.size
        if size > STRAIGHT and self.limit > WIDE:
            self.insert_late(entry)
            return
        var entries = self.entries  # a copy: the stores might otherwise change it
        var first = insert_sorted(entries, size, entry)
        self.size = min(size + 1, self.limit)
        if entry <= entries[unsafe_offset=self.cursor]:
            self.cursor = first

    @always_inline
    def next(mut self) -> Int:
        """Marks the nearest unexpanded entry as expanded and returns its node, or -1 when there is none among the `width` nearest.
        """
        if self.late != 0:
            return self.next_of_both()
        var size = min(self.size, self.width)
        var position = find_open(self.entries, self.cursor, size)
        if position >= size:
            return -1
        return self._expand(position)

    @always_inline
    def _expand(mut self, position: Int) -> Int:
        var entry = self.entries[unsafe_offset=position]
        self.entries[unsafe_offset=position] = entry | 1
        self.cursor = position
        return node_of(entry)

    # ---- late entries

    @always_inline
    def late_entries(self) -> Ptr[Int64]:
        """Returns where late entries lie; from `late` on there is anything not smaller than the last.
        """
        return self.entries.unsafe_offset((self.limit // LANES + 3) * LANES)

    @no_inline
    def insert_late(mut self, entry: Int64):
        """Inserts an entry smaller than `worst()` among the late ones."""
        var entries = self.entries
        var late = self.late_entries()
        if self.late == 0:
            self.late_cursor = 0
            for i in range(0, late_room(self.limit) + LANES, LANES):
                late.unsafe_store(i, SIMD[DType.int64, LANES](EMPTY_ENTRY))
        var others = self.size - self.late
        var first = insert_sorted(late, self.late, entry)
        self.late += 1
        self.late_cursor = min(self.late_cursor, first)
        if self.size < self.limit:
            self.size += 1
        elif others > 0 and entries[unsafe_offset=others - 1] > late[unsafe_offset=self.late - 1]:
            others -= 1  # the largest of all has lost its place
        else:
            self.late -= 1
        if self.size == self.limit:
            var largest = late[unsafe_offset=self.late - 1]
            if others > 0:
                largest = max(largest, entries[unsafe_offset=others - 1])
            entries[unsafe_offset=self.limit - 1] = largest
        if self.late == late_room(self.limit):
            self.arrange()

    @no_inline
    def next_of_both(mut self) -> Int:
        """Does what `next` does where there are late entries; these are among the others when there is none.
        """
        var others = self.size - self.late
        var late = self.late_entries()
        var position = find_open(self.entries, self.cursor, others)
        var late_position = find_open(late, self.late_cursor, self.late)
        self.cursor = min(position, others)
        self.late_cursor = min(late_position, self.late)
        if late_position < self.late and (
            position >= others
            or late[unsafe_offset=late_position] < self.entries[unsafe_offset=position]
        ):
            var entry = late[unsafe_offset=late_position]
            if late_position + self._below(entry, others) < self.width:
                late[unsafe_offset=late_position] = entry | 1
                return node_of(entry)
        # late entries that were expanded were nearer than what was open among the others
        elif position < others and position + self.late_cursor < self.width:
            return self._expand(position)
        self.arrange()
        return -1

    @always_inline
    def _below(self, entry: Int64, others: Int) -> Int:
        """Returns how many of the first `others` entries are smaller; does not look where all places are within `width`.
        """
        if self.limit <= self.width:
            return 0
        var low = 0
        var high = others
        while low < high:
            var middle = (low + high) >> 1
            if self.entries[unsafe_offset=middle] < entry:
                low = middle + 1
            else:
                high = middle
        return low

    def arrange(mut self):
        """Puts late entries among the others, so that all can be read in order."""
        if self.late == 0:
            return
        var entries = self.entries
        var late = self.late_entries()
        var i = self.size - self.late - 1
        var j = self.late - 1
        if self.late_cursor < self.late:
            # what is not expanded may come to lie before the cursor
            var low = 0
            var high = min(self.cursor, i + 1)
            while low < high:
                var middle = (low + high) >> 1
                if entries[unsafe_offset=middle] < late[unsafe_offset=self.late_cursor]:
                    low = middle + 1
                else:
                    high = middle
            self.cursor = low
        while j >= 0 and i >= 0:
            var mine = entries[unsafe_offset=i]
            var other = late[unsafe_offset=j]
            entries[unsafe_offset=i + j + 1] = max(mine, other)
            # without a branch: which one is larger cannot be predicted
            var from_mine = Int(mine > other)
            i -= from_mine
            j -= 1 - from_mine
        for rest in range(j + 1):
            entries[unsafe_offset=rest] = late[unsafe_offset=rest]
        self.late = 0

    @always_inline
    def node(self, i: Int) -> Int:
        """Returns the node at position i."""
        return node_of(self.entries[unsafe_offset=i])

    @always_inline
    def key(self, i: Int) -> Int32:
        """Returns the distance key at position i."""
        return key_of(self.entries[unsafe_offset=i])
