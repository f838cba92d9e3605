"""The order in which the rows of one call are linked: first a few of them, evenly spread, then twice as many, and so on.

Rows that come one after the other are often each other's neighbours: numbers in sequence, frames of a film, a table that is sorted.
Were they linked in that order, the rows of a round would be the nearest of each other, and none of them would know. In passes
half of what is near a row is in the graph when the row comes, whatever the order. Within a pass rows keep their order, so that
what one walk has brought into the caches is of use to the next: clusters one after the other take 1.5 seconds to link where the same
rows shuffled take 2.2.

Source: insertion in rounds (BRIO) of Amenta, Choi and Rote, SoCG 2003.
"""
from std.bit import count_trailing_zeros

from vicinal.system.hash import mix
from vicinal.system.memory import Ptr, allocate, missing, no_block, release

comptime PASSES = 32
"""Passes at most; of some only few rows, or none."""
comptime FEWEST = 2
"""Calls of fewer rows have one pass, for which nothing is needed."""


struct Passes(Movable):
    """Rows in the order of linking, and where each pass ends."""

    var places: Ptr[UInt32]
    """The rows, those of a pass ascending if all were."""
    var owned: Ptr[UInt32]
    """The same if it is memory of its own."""
    var ends: Array[Int, PASSES]
    """For each pass the position behind its last row."""
    var failed: Bool
    """Whether memory was refused."""

    def __init__(out self, seed: Int, places: Ptr[UInt32], count: Int, sorted: Bool):
        """Draws the pass of each row but the first, which stays the first.

        Args:
            seed: The index's seed.
            places: The rows.
            count: Their number.
            sorted: Whether they are to be kept in the order that they have.
        """
        self.places = places
        self.owned = no_block[UInt32]()
        self.ends = Array[Int, PASSES](fill=count)
        self.failed = False
        if sorted or count < FEWEST:
            return
        self.owned = allocate[UInt32](count)
        self.failed = missing(self.owned)
        if self.failed:
            return
        self.places = self.owned
        var next = Array[Int, PASSES](fill=0)
        for i in range(1, count):
            next[_pass_of(seed, places[unsafe_offset=i])] += 1
        var end = 1
        for i in range(PASSES):
            var size = next[i]
            next[i] = end
            end += size
            self.ends[i] = end
        self.places[] = places[]
        for i in range(1, count):
            var row = places[unsafe_offset=i]
            var part = _pass_of(seed, row)
            self.places[unsafe_offset=next[part]] = row
            next[part] += 1

    def __deinit__(deinit self):
        release(self.owned)

    def end(self, position: Int) -> Int:
        """Returns the end of the pass that a position is in."""
        for i in range(PASSES):
            if position < self.ends[i]:
                return self.ends[i]
        return position


@always_inline
def _pass_of(seed: Int, row: UInt32) -> Int:
    """Draws a pass: the last with probability 1/2, the one before it 1/4."""
    var zeros = Int(count_trailing_zeros(mix(seed, Int(row))))
    return PASSES - 1 - min(zeros, PASSES - 1)
