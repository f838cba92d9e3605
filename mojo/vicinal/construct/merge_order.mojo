"""Rows that another index has linked already: walks for their links start where their neighbours there were put.

Some rows are searched for as usual, in the beginning: those that reach level 1 and those that would have no neighbour placed
before them. The walk of any other starts from its neighbours in the other graph, a step or two from where it has to go, and
keeps few candidates. Source: merging of graphs through a join set, as in Apache Lucene (pull request 14331).
"""
from vicinal.graph.links import EMPTY, Graph
from vicinal.rows.row_targets import TargetRows
from vicinal.system.memory import Ptr, allocate, allocate_zeroed, at, missing, release

comptime IS_INSERTED: UInt32 = 0x80000000
"""Set in a turn that is no position: the rest is a row that was linked before the call."""
comptime WIDTH_SHARE = 4
comptime LEAST_WIDTH = 32
"""A walk from neighbours keeps a quarter of ef_construction candidates, or 32. With 32 instead of 50 halves of 10,000 MiniLM rows
took a tenth less time and found 0.001 to 0.003 less at ef 16."""
comptime NEVER = 1 << 62
"""A position that no row has."""


@fieldwise_init
struct SourceGraph(TrivialRegisterPassable):
    """Where rows that are added come from, if they have links there."""

    var graph: Ptr[Graph]
    """The graph of another index, which nobody changes meanwhile."""
    var rows: Ptr[Int64]
    """The row there of each row that is added; any number that is no row stands for none."""
    var count: Int
    """Their number, 0 if the rows come from nowhere."""

    @staticmethod
    def nowhere() -> SourceGraph:
        """Makes the origin of rows that have no links yet."""
        return SourceGraph(at[Graph](64), at[Int64](64), 0)

    @always_inline
    def row(self, i: Int) -> Int:
        """Returns the row of added row i in the other graph, or -1."""
        var row = Int(self.rows[unsafe_offset=i])
        return row if row >= 0 and row < self.graph[].linked else -1


@fieldwise_init
struct StartNodes(TrivialRegisterPassable):
    """What a walk needs to know of the other graph; rows are told apart by their positions in the order of linking.
    """

    var graph: Ptr[Graph]
    """The other graph."""
    var known: Int
    """Rows of it that have a turn."""
    var turns: Ptr[UInt32]
    """For each of these the position of the row that it becomes, or PLACED with a row, or EMPTY."""
    var origins: Ptr[UInt32]
    """For each position from `first` on the row in the other graph."""
    var places: Ptr[UInt32]
    """For each position the row."""
    var first: Int
    """The first position whose row is not searched for as usual."""
    var width: Int
    """Candidates kept by a walk that starts from neighbours."""

    @staticmethod
    def none() -> StartNodes:
        """Makes seeds that no row has."""
        var nothing = at[UInt32](64)
        return StartNodes(at[Graph](64), 0, nothing, nothing, nothing, NEVER, 0)

    @always_inline
    def any(self) -> Bool:
        """Tells whether any row has some."""
        return self.first != NEVER

    def placed(self, position: Int, done: Int, into: Ptr[UInt32]) -> Int:
        """Finds the neighbours of a row that are in the graph by now.

        Args:
            position: The row's, not below `first`.
            done: Positions before it are linked.
            into: Receives the rows; has room for a block of the other graph.

        Returns:
            Their number.
        """
        var block = self.graph[].links(0, Int(self.origins[unsafe_offset=position]))
        var count = 0
        for i in range(self.graph[].cap(0)):
            var other = Int(block[unsafe_offset=i])
            if other >= self.known:
                continue
            var turn = self.turns[unsafe_offset=other]
            if turn == EMPTY or (turn < IS_INSERTED and Int(turn) >= done):
                continue
            var row = turn & ~IS_INSERTED
            if turn < IS_INSERTED:
                row = self.places[unsafe_offset=Int(turn)]
            into[unsafe_offset=count] = row
            count += 1
        return count


struct JoinOrder(Movable):
    """The order in which rows that are linked elsewhere find neighbours placed before them, and what seeds need of it.
    """

    var graph: Ptr[Graph]
    """See `StartNodes`, as for all that follow."""
    var turns: Ptr[UInt32]
    var origins: Ptr[UInt32]
    var places: Ptr[UInt32]
    var first: Int
    var failed: Bool
    """Whether memory was refused: the order is not changed then, and there are no seeds."""

    def __init__(
        out self,
        origin: SourceGraph,
        added: TargetRows,
        places: Ptr[UInt32],
        count: Int,
        upper: Ptr[UInt8],
        duplicates: Ptr[UInt32],
        num_duplicates: Int,
        linked: Int,
    ):
        """Changes the order of `places`.

        Args:
            origin: Where the added rows come from.
            added: Where they are put.
            places: All rows that are to be linked; the first stays the first.
            count: Their number.
            upper: A mark for each of them that reaches level 1; if that was `missing`, so is the order.
            duplicates: Rows that are not linked since they are copies, each followed by the row it is a copy of.
            num_duplicates: Number of copies.
            linked: Rows in the graph before the call.
        """
        self.graph = origin.graph
        self.places = places
        self.turns = allocate[UInt32](origin.graph[].linked)
        self.origins = allocate[UInt32](count)
        self.first = 0
        self.failed = True  # until all of it is there
        var turns = allocate[UInt32](origin.count)  # by the number of the added row
        self.failed = (
            missing(upper)
            or missing(self.turns)
            or missing(self.origins)
            or missing(turns)
            or not self._sort(origin, added, count, upper)
        )
        if self.failed:
            release(turns)
            return
        fill(turns, origin.count)
        for i in range(count):
            var number = added.find(Int(places[unsafe_offset=i]))
            if number >= 0:
                turns[unsafe_offset=number] = UInt32(i)
        for i in range(num_duplicates):
            var number = added.find(Int(duplicates[unsafe_offset=2 * i]))
            var representative = Int(duplicates[unsafe_offset=2 * i + 1])
            if number < 0:
                continue
            if added.find(representative) >= 0:
                turns[unsafe_offset=number] = turns[unsafe_offset=added.find(representative)]
            elif representative < linked:
                turns[unsafe_offset=number] = UInt32(representative) | IS_INSERTED
        fill(self.turns, self.graph[].linked)
        for i in range(origin.count):
            if origin.row(i) >= 0:
                self.turns[unsafe_offset=origin.row(i)] = turns[unsafe_offset=i]
        release(turns)

    def __deinit__(deinit self):
        release(self.turns)
        release(self.origins)

    def _sort(
        mut self, origin: SourceGraph, added: TargetRows, count: Int, upper: Ptr[UInt8]
    ) -> Bool:
        """Brings those to the front that are to be searched for as usual; returns False when memory is out.
        """
        ref graph = self.graph[]
        var joined = allocate_zeroed[UInt8](graph.linked)
        var rest = allocate[UInt32](2 * count)  # rows, each followed by its origin
        if missing(joined) or missing(rest):
            release(joined)
            release(rest)
            return False
        var left = 0
        for i in range(count):
            var row = self.places[unsafe_offset=i]
            var number = added.find(Int(row))
            var there = origin.row(number) if number >= 0 else -1
            if there >= 0 and upper[unsafe_offset=i] == 0 and self._meets(there, joined):
                rest[unsafe_offset=2 * left] = row
                rest[unsafe_offset=2 * left + 1] = UInt32(there)
                left += 1
                continue
            if there >= 0:
                joined[unsafe_offset=there] = 1
            self.places[unsafe_offset=self.first] = row
            self.first += 1
        for i in range(left):
            self.places[unsafe_offset=self.first + i] = rest[unsafe_offset=2 * i]
            self.origins[unsafe_offset=self.first + i] = rest[unsafe_offset=2 * i + 1]
        release(joined)
        release(rest)
        return True

    def _meets(self, row: Int, joined: Ptr[UInt8]) -> Bool:
        """Tells whether a row of the other graph has a neighbour that comes before it."""
        ref graph = self.graph[]
        var block = graph.links(0, row)
        for i in range(graph.cap(0)):
            var other = Int(block[unsafe_offset=i])
            if other < graph.linked and joined[unsafe_offset=other] != 0:
                return True
        return False

    def seeds(self, ef_construction: Int) -> StartNodes:
        """Returns what walks need, as long as this is there."""
        return StartNodes(
            self.graph,
            self.graph[].linked,
            self.turns,
            self.origins,
            self.places,
            self.first,
            max(ef_construction // WIDTH_SHARE, min(ef_construction, LEAST_WIDTH)),
        )


def fill(turns: Ptr[UInt32], count: Int):
    """Sets turns to EMPTY."""
    for i in range(count):
        turns[unsafe_offset=i] = EMPTY
