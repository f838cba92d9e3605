"""The k smallest entries of a long scan, for any k."""
from vicinal.kernels.candidates import EMPTY_ENTRY, Candidates, room_for
from vicinal.system.memory import Ptr, allocate, missing, no_block, release

comptime SORTED_UP_TO = 256
"""Entries that are kept in order at every insertion; more are collected and merged from time to time."""


struct TopK(Movable):
    """Entries of `kernels/candidates.mojo` (distance, row), smallest first.

    Up to SORTED_UP_TO entries one sorted buffer does all: a new entry costs a shift of part of it. For larger k that shift
    would cost k per entry, so new ones collect in a smaller sorted buffer which is merged into the rest when it is full.
    """

    var recent: Candidates
    """All entries, or those not merged yet."""
    var merged: Ptr[Int64]
    """For large k: sorted entries, with room for the recent ones behind them."""
    var size: Int
    """Entries in `merged`."""
    var k: Int
    """Entries wanted."""

    def __init__(out self, k: Int):
        """Makes room for k >= 1 entries; nothing may be done with it if that `failed`."""
        self.recent = Candidates()
        if not self.recent.failed:
            self.recent.reset(TopK.recent_room(k))
        self.merged = no_block[Int64]()
        if k > SORTED_UP_TO:
            self.merged = allocate[Int64](k + TopK.recent_room(k))
        self.size = 0
        self.k = k

    def __deinit__(deinit self):
        release(self.merged)

    def failed(self) -> Bool:
        """Tells whether memory was refused."""
        return self.recent.failed or (self.k > SORTED_UP_TO and missing(self.merged))

    @staticmethod
    def recent_room(k: Int) -> Int:
        """Returns the room of the sorted buffer: more makes insertion dearer, merging rarer."""
        return k if k <= SORTED_UP_TO else min(max(SORTED_UP_TO, k // 16), 4096)

    @staticmethod
    def bytes(k: Int) -> Int:
        """Returns the memory that one takes, at most."""
        var recent = TopK.recent_room(k)
        var room = room_for(recent)
        return 256 + 8 * (room + room // 2) + (8 * (k + recent) if k > SORTED_UP_TO else 0)

    @always_inline
    def bound(self) -> Int64:
        """Returns the entry that a new one must beat: EMPTY_ENTRY while there is room."""
        if self.k <= SORTED_UP_TO:
            return self.recent.worst()
        return self.merged[unsafe_offset=self.k - 1] if self.size == self.k else EMPTY_ENTRY

    @always_inline
    def insert(mut self, entry: Int64):
        """Takes in an entry smaller than `bound()`."""
        if self.k > SORTED_UP_TO and self.recent.size == self.recent.limit:
            self.merge()
            if entry >= self.bound():
                return
        self.recent.insert(entry)

    def merge(mut self):
        """Merges the recent entries into the rest, from the back: no second buffer is needed."""
        self.recent.arrange()
        var i = self.size - 1
        var j = self.recent.size - 1
        var entries = self.recent.entries
        while j >= 0:
            if i < 0:
                for rest in range(j + 1):
                    self.merged[unsafe_offset=rest] = entries[unsafe_offset=rest]
                break
            var mine = self.merged[unsafe_offset=i]
            var other = entries[unsafe_offset=j]
            self.merged[unsafe_offset=i + j + 1] = max(mine, other)
            # without a branch: which one is larger cannot be predicted
            var from_mine = Int(mine > other)
            i -= from_mine
            j -= 1 - from_mine
        self.size = min(self.size + self.recent.size, self.k)
        self.recent.reset(self.recent.limit)

    def finish(mut self) -> Int:
        """Makes `entry` right for all and returns the number of entries."""
        if self.k <= SORTED_UP_TO:
            return self.recent.size
        self.merge()
        return self.size

    @always_inline
    def entry(self, i: Int) -> Int64:
        """Returns the i-th smallest entry; call `finish` before."""
        return (self.recent.entries if self.k <= SORTED_UP_TO else self.merged)[unsafe_offset=i]
