"""What building has cost so far: nanoseconds of each phase, and how much was done.

The clock is read a few times a round, by the thread that made the call; what workers do is counted in their scratches.
"""
from vicinal.system.clock import now
from vicinal.system.memory import Ptr, allocate_zeroed, missing, release
from vicinal.walk.scratch import Scratch

comptime STORE = 0
"""Rows are checked and stored."""
comptime ENCODE = 1
"""Codes are chosen, made and tried."""
comptime SORT = 2
"""Duplicates are told from other rows."""
comptime SEARCH = 3
"""New rows find their links."""
comptime LINK_BACK = 4
"""Their neighbours get links to them."""
comptime FILL = 5
"""Free slots are filled."""
comptime REPAIR = 6
"""Rows that go lose their links, and all others are made reachable."""
comptime PHASES = 7
comptime ROWS = 7
"""Rows linked."""
comptime ROUNDS = 8
comptime DISTANCES = 9
"""Distances measured by walks."""
comptime HOPS = 10
"""Nodes that walks expanded."""
comptime SELECTIONS = 11
"""Times that links were selected for a new row, once for each of its levels."""
comptime PRUNES = 12
"""Full blocks from which a link back pushed others out."""
comptime BLOCKS = 13
"""Blocks of links that were looked at for links to rows that go."""
comptime ENTRIES = 14


struct BuildStatistics(Movable):
    """Sums over the changes of an index since it was made or opened, those included that were taken back.
    """

    var numbers: Ptr[Int]

    def __init__(out self):
        """Starts at zero."""
        self.numbers = allocate_zeroed[Int](ENTRIES)

    def __deinit__(deinit self):
        release(self.numbers)

    def failed(self) -> Bool:
        """Tells whether memory was refused: nothing may be counted then."""
        return missing(self.numbers)

    def add(self, entry: Int, count: Int):
        """Adds to one of the numbers; only a writer does."""
        self.numbers[unsafe_offset=entry] += count

    def of(self, entry: Int) -> Int:
        """Returns one of the numbers."""
        return self.numbers[unsafe_offset=entry]

    def add_elapsed(self, phase: Int, since: Int) -> Int:
        """Adds the time since a moment to a phase, and returns the present moment."""
        var time = now()
        self.add(phase, time - since)
        return time

    def count_work(self, scratches: Ptr[Ptr[Scratch]], workers: Int, sign: Int):
        """Adds what scratches have counted over their lives, or with sign -1 takes it off: once before the work and once after
        it.
        """
        for i in range(workers):
            ref scratch = scratches[unsafe_offset=i][]
            self.add(DISTANCES, sign * scratch.distances)
            self.add(HOPS, sign * scratch.hops)
            self.add(SELECTIONS, sign * scratch.selections)
            self.add(PRUNES, sign * scratch.prunes)
