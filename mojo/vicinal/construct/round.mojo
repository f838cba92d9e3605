"""The rows of a round: what all who work on it share, and the links that they have chosen."""
from vicinal.construct.work import LinkWork
from vicinal.graph.links import EMPTY, Graph
from vicinal.system.memory import Ptr, allocate, at, missing, no_block, release

comptime LARGEST_ROUND = 4096


@fieldwise_init
struct Round(TrivialRegisterPassable):
    """The rows of one round, and what all who work on it share."""

    var work: LinkWork
    var places: Ptr[UInt32]
    """The rows to be linked, none of which a link leads to."""
    var own: Ptr[Int32]
    """The ordinal of each, -1 if it lives on level 0 alone."""
    var starts: Ptr[Int32]
    """Where in `picks` the links of each begin, in blocks of `most_links`."""
    var picks: Ptr[UInt32]
    """The links that each has chosen on its levels, the lowest first, EMPTY behind them. Its own blocks hold the same until other rows
    of the round link to it."""
    var most_links: Int
    """Most links that a row chooses on a level."""
    var count: Int
    """Number of rows."""
    var ordinals: Int
    """Ordinals that were there before."""

    @staticmethod
    def of_none(work: LinkWork) -> Round:
        """Makes a round without rows."""
        var nothing = at[UInt32](64)
        return Round(work, nothing, at[Int32](64), at[Int32](64), nothing, 0, 0, 0)

    @always_inline
    def row(self, i: Int) -> Int:
        """Returns row number i."""
        return Int(self.places[unsafe_offset=i])

    @always_inline
    def ordinal(self, i: Int) -> Int:
        """Returns the ordinal of row number i, or -1."""
        return Int(self.own[unsafe_offset=i])

    @always_inline
    def level(self, i: Int) -> Int:
        """Returns the highest level of row number i."""
        var ordinal = self.ordinal(i)
        return 0 if ordinal < 0 else self.work.graph[].level_of(ordinal)

    @always_inline
    def node(self, i: Int, level: Int) -> Int:
        """Returns what row number i is on one of its levels."""
        return self.row(i) if level == 0 else self.ordinal(i)

    @always_inline
    def selected(self, i: Int, level: Int) -> Ptr[UInt32]:
        """Returns where the links of row number i on a level are, `most_links` slots."""
        var block = Int(self.starts[unsafe_offset=i]) + level
        return self.picks.unsafe_offset(block * self.most_links)


struct Members(Movable):
    """Room for what is noted of the rows of one round after the other."""

    var own: Ptr[Int32]
    """See `Round`, as for all that follow."""
    var starts: Ptr[Int32]
    var picks: Ptr[UInt32]
    var room: Int
    """Blocks that there is room for in `picks`."""
    var most_links: Int
    """Slots of a block."""

    def __init__(out self, most: Int, most_links: Int):
        """Makes room for rounds of at most so many rows, each with so many links; of no use if that `failed`.
        """
        self.own = allocate[Int32](most)
        self.starts = allocate[Int32](most)
        self.picks = no_block[UInt32]()
        self.room = 0
        self.most_links = most_links

    def __deinit__(deinit self):
        release(self.own)
        release(self.starts)
        release(self.picks)

    def failed(self) -> Bool:
        """Tells whether memory was refused when it was made."""
        return missing(self.own) or missing(self.starts)

    def take(mut self, graph: Graph, places: Ptr[UInt32], count: Int) -> Bool:
        """Looks up the rows of a round, none of which has chosen links; returns False when memory is out.
        """
        var blocks = 0
        for i in range(count):
            var ordinal = graph.ordinal_of(Int(places[unsafe_offset=i]))
            self.own[unsafe_offset=i] = Int32(ordinal)
            self.starts[unsafe_offset=i] = Int32(blocks)
            blocks += 1 if ordinal < 0 else 1 + graph.level_of(ordinal)
        if blocks > self.room:
            release(self.picks)
            self.room = blocks + blocks // 4
            self.picks = allocate[UInt32](self.room * self.most_links)
            if missing(self.picks):
                self.room = 0
                return False
        for block in range(blocks):
            self.picks[unsafe_offset=block * self.most_links] = EMPTY
        return True
