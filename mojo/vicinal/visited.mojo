"""The visited set of one worker: a byte per node that holds the number of the search that saw it, so that a reset is free."""
from std.memory import unsafe_memset_zero

from vicinal.memory import Ptr, allocate_zeroed, release


struct Visited(Movable):
    """Marks nodes 0 .. count-1; node `count` always counts as seen, so ids clamped to it are skipped.
    """

    var marks: Ptr[UInt8]
    """One mark a node; a node is seen when its mark equals `epoch`."""
    var room: Int
    """Marks allocated."""
    var epoch: UInt8
    """The number of the current search, 1..255."""

    def __init__(out self):
        """Makes an empty set."""
        self.marks = allocate_zeroed[UInt8](64)
        self.room = 64
        self.epoch = 0

    def __deinit__(deinit self):
        release(self.marks)

    def reset(mut self, count: Int):
        """Forgets all marks and makes room for `count` nodes."""
        if count + 1 > self.room:
            release(self.marks)
            self.room = count + count // 4 + 64
            self.marks = allocate_zeroed[UInt8](self.room)
            self.epoch = 0
        elif (
            self.epoch == 255
        ):  # numbers are used up: marks of old searches must not come back to life
            unsafe_memset_zero(self.marks, self.room)
            self.epoch = 0
        self.epoch += 1
        self.marks[unsafe_offset=count] = self.epoch

    @always_inline
    def first_visit(self, node: Int) -> Bool:
        """Marks a node and tells whether this search had not seen it."""
        var seen = self.marks[unsafe_offset=node]
        self.marks[unsafe_offset=node] = self.epoch
        return seen != self.epoch
