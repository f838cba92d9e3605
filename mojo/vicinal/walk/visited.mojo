"""The visited set of one worker: a byte per node that holds the number of the search that saw it, so that a reset is free."""
from std.memory import unsafe_memset_zero

from vicinal.system.memory import Ptr, allocate_zeroed, missing, release


struct Visited(Movable):
    """Marks nodes 0 .. count-1; node `count` always counts as seen, so ids clamped to it are skipped.
    """

    var states: Ptr[UInt8]
    """One mark a node; a node is seen when its mark equals `epoch`."""
    var room: Int
    """Marks allocated."""
    var epoch: UInt8
    """The number of the current search, 1..255."""
    var failed: Bool
    """True once memory was refused. Set from the beginning, nothing may be done but to destroy it; set by `reset`, only nodes below
    `nodes` may be marked, and the search is worth nothing."""

    def __init__(out self):
        """Makes an empty set."""
        self.states = allocate_zeroed[UInt8](64)
        self.room = 64
        self.epoch = 0
        self.failed = missing(self.states)

    def __deinit__(deinit self):
        release(self.states)

    def reset(mut self, count: Int):
        """Forgets all marks and makes room for `count` nodes."""
        if count + 1 > self.room:
            self._make_room(count)
        if self.epoch == 255:  # numbers are used up: marks of old searches must not come back
            unsafe_memset_zero(self.states, self.room)
            self.epoch = 0
        self.epoch += 1
        self.states[unsafe_offset=min(count, self.nodes())] = self.epoch

    def _make_room(mut self, count: Int):
        """Makes new marks for more nodes."""
        var room = count + count // 4 + 64
        var states = allocate_zeroed[UInt8](room)
        if missing(states):
            self.failed = True
            return
        release(self.states)
        self.states = states
        self.room = room
        self.epoch = 0

    @always_inline
    def nodes(self) -> Int:
        """Returns how many nodes there is room for."""
        return self.room - 1

    @always_inline
    def first_visit(self, node: Int) -> Bool:
        """Marks a node and tells whether this search had not seen it."""
        var seen = self.states[unsafe_offset=node]
        self.states[unsafe_offset=node] = self.epoch
        return seen != self.epoch
