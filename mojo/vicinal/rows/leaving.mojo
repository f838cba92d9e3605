"""Removed rows that are being taken out of the graph, a slice of its blocks at a time, and how far that has come.

A pass goes over all blocks once. It is spread over the changes that come while it lasts, so that none of them waits for all of it;
the rows keep their links and their places until it is through. Nothing of it is in a file: an index that is opened begins again.
"""
from vicinal.rows.row_states import PENDING
from vicinal.system.memory import Ptr, allocate_zeroed, at, missing, no_block, release

comptime ALL = Int.MAX


struct Leaving(Movable):
    """One pass at a time."""

    var marks: Ptr[UInt8]
    """A byte for each row that there was when the pass began, not 0 for those that leave."""
    var rows: Int
    """Bytes of it; 0 while there is no pass."""
    var count: Int
    """Rows that leave."""
    var next_row: Int
    """Rows below it have blocks of level 0 that lead to none of them."""
    var next_ordinal: Int
    """The same of ordinals and the levels above."""

    def __init__(out self):
        """Makes no pass."""
        self.marks = no_block[UInt8]()
        self.rows = 0
        self.count = 0
        self.next_row = 0
        self.next_ordinal = 0

    def __deinit__(deinit self):
        release(self.marks)

    @always_inline
    def under_way(self) -> Bool:
        """Tells whether there is a pass."""
        return self.rows != 0

    def begin(mut self, states: Int, rows: Int) -> Bool:
        """Begins a pass for all rows that are pending; returns False when memory is out."""
        self.end()
        self.marks = allocate_zeroed[UInt8](rows)
        if missing(self.marks):
            return False
        self.rows = rows
        for row in range(rows):
            if at[UInt8](states)[unsafe_offset=row] == PENDING:
                self.marks[unsafe_offset=row] = 1
                self.count += 1
        return True

    def keep(mut self, row: Int):
        """Takes a row out of those that leave."""
        if row >= 0 and self.holds(row):
            self.marks[unsafe_offset=row] = 0
            self.count -= 1

    @always_inline
    def holds(self, row: Int) -> Bool:
        """Tells whether a row leaves."""
        return row < self.rows and self.marks[unsafe_offset=row] != 0

    def restart(mut self):
        """Lets the pass go over all blocks again: some that it has done may have changed since."""
        self.next_row = 0
        self.next_ordinal = 0

    def end(mut self):
        """Ends the pass."""
        release(self.marks)
        self.marks = no_block[UInt8]()
        self.rows = 0
        self.count = 0
        self.restart()


@fieldwise_init
struct Blocks(TrivialRegisterPassable):
    """Which blocks one step of a pass goes over."""

    var first_ordinal: Int
    """The first ordinal whose levels above 0 are looked at."""
    var last_ordinal: Int
    """The one behind the last."""
    var first_row: Int
    """The first row whose block of level 0 is looked at."""
    var last_row: Int
    """The one behind the last."""
    var again: Ptr[UInt32]
    """Rows that have got links since the pass went over them; their blocks on all levels."""
    var num_again: Int
    """Their number."""

    @staticmethod
    def all(ordinals: Int, rows: Int) -> Blocks:
        """Returns all blocks."""
        return Blocks(0, ordinals, 0, rows, at[UInt32](64), 0)

    def count(self) -> Int:
        """Returns how many ordinals and rows that are, those that are looked at again counted once.
        """
        return (
            self.last_ordinal - self.first_ordinal + self.last_row - self.first_row + self.num_again
        )

    @staticmethod
    def from_slice(
        leaving: Leaving, ordinals: Int, rows: Int, budget: Int, again: Ptr[UInt32], num_again: Int
    ) -> Blocks:
        """Returns the next `budget` ordinals and rows of a pass, ordinals first."""
        var last_ordinal = ordinals
        if ordinals - leaving.next_ordinal > budget:
            last_ordinal = leaving.next_ordinal + budget
        var left = budget - (last_ordinal - leaving.next_ordinal)
        var last_row = rows
        if rows - leaving.next_row > left:
            last_row = leaving.next_row + left
        return Blocks(
            leaving.next_ordinal, last_ordinal, leaving.next_row, last_row, again, num_again
        )
