"""Removed rows between the moment that nothing leads to them any more and the moment that no search is at them."""
from vicinal.system.memory import Ptr, no_block, release


struct Unlinked(Movable):
    """A list of rows, pending until the epoch in which searches may have come to them is over; one list at a time.
    """

    var rows: Ptr[UInt32]
    var count: Int
    """Their number; 0 while there is no list."""
    var epoch: Int64
    """Searches that began in it or before may be at the rows."""

    def __init__(out self):
        """Makes an empty list."""
        self.rows = no_block[UInt32]()
        self.count = 0
        self.epoch = 0

    def __deinit__(deinit self):
        release(self.rows)

    def take(mut self, rows: Ptr[UInt32], count: Int, epoch: Int64):
        """Takes over rows; the list must be empty."""
        release(self.rows)
        self.rows = rows
        self.count = count
        self.epoch = epoch

    def row(self, i: Int) -> Int:
        """Returns row number i."""
        return Int(self.rows[unsafe_offset=i])

    def clear(mut self):
        """Empties the list."""
        self.take(no_block[UInt32](), 0, 0)
