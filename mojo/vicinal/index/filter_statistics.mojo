"""How filtered searches were answered: numbers that any number of threads add to."""
from std.atomic import Atomic, Ordering

from vicinal.system.memory import Ptr, allocate_zeroed, missing, release

comptime BY_SCAN = 0
"""The rows that the filter allows were all measured."""
comptime BY_BEAM = 1
"""The graph was walked as without a filter; allowed rows were collected on the way."""
comptime BY_TWO_HOP = 2
"""Only allowed rows were walked on, through those that are not."""
comptime AFTER_WALK = 3
"""Scans among BY_SCAN that were made because a walk had found too little."""
comptime FILTER_COUNTS = 4


struct FilterStatistics(Movable):
    """Queries answered in each way since the index was made or opened."""

    var numbers: Ptr[Int64]

    def __init__(out self):
        """Starts at zero."""
        self.numbers = allocate_zeroed[Int64](FILTER_COUNTS)

    def __deinit__(deinit self):
        release(self.numbers)

    def failed(self) -> Bool:
        """Tells whether memory was refused: nothing may be counted then."""
        return missing(self.numbers)

    def add(self, which: Int, count: Int):
        """Adds to one of the numbers."""
        if count != 0:
            _ = Atomic[Int64].fetch_add[ordering=Ordering.RELAXED](
                self.numbers.unsafe_offset(which).start, Int64(count)
            )

    def of(self, which: Int) -> Int:
        """Returns one of the numbers."""
        return Int(
            Atomic[Int64].load[ordering=Ordering.RELAXED](self.numbers.unsafe_offset(which).start)
        )
