"""Which rows can be reached from the entry point along links of level 0; needs links and row states only."""
from std.atomic import Atomic, Ordering

from vicinal.graph.links import Graph, prefetch_links
from vicinal.rows.row_states import stays
from vicinal.system.memory import Ptr, allocate, allocate_zeroed, missing, no_block, release
from vicinal.system.parallel import Body, Team, Unwatched, Watch

comptime LOOK_EVERY = 4096
"""Rows between looks at the watch."""
comptime AHEAD = 8
"""Rows whose links are asked for before they are looked at."""
comptime PIECE = 512
"""Rows that a worker follows the links of at once."""
comptime HELD = 256
"""Rows reached that a worker holds back before it puts them into the queue."""


@fieldwise_init
struct FollowLinks(Body):
    """Follows the links of rows of the queue, and appends those that nobody has reached before.

    In which order they come there depends on the workers, which rows are reached does not.
    """

    var graph: Ptr[Graph]
    var reached: Ptr[UInt8]
    var queue: Ptr[UInt32]
    var first: Int
    """Where in the queue the rows to be followed begin."""
    var end: Ptr[Int64]
    """Where the queue ends."""
    var alone: Bool
    """Whether there is one worker."""

    def run(self, begin: Int, end: Int, worker: Int):
        """Follows rows begin .. end-1 behind `first`."""
        ref graph = self.graph[]
        var linked = graph.linked
        var cap = graph.cap(0)
        var held = Array[UInt32, HELD](fill=0)
        var count = 0
        for i in range(begin, end):
            if i + AHEAD < end:
                prefetch_links(graph, 0, Int(self.queue[unsafe_offset=self.first + i + AHEAD]))
            var block = graph.links(0, Int(self.queue[unsafe_offset=self.first + i]))
            for j in range(cap):
                var row = Int(block[unsafe_offset=j])
                if row >= linked or not self.reach(row):
                    continue
                if count == HELD:
                    self.append(held, count)
                    count = 0
                held[count] = UInt32(row)
                count += 1
        self.append(held, count)

    @always_inline
    def reach(self, row: Int) -> Bool:
        """Marks a row; returns False if it was reached before. Most were, and need no word between workers.
        """
        var mark = self.reached.unsafe_offset(row)
        if Atomic[UInt8].load[ordering=Ordering.RELAXED](mark.start) != 0:
            return False
        if self.alone:
            mark[] = 1
            return True
        var expected = UInt8(0)
        return Atomic[UInt8].compare_exchange[
            success_ordering=Ordering.RELAXED, failure_ordering=Ordering.RELAXED, weak=False
        ](mark.start, expected, 1)

    def append(self, held: Array[UInt32, HELD], count: Int):
        """Puts rows into the queue, which has room for all."""
        var place = Int(
            Atomic[Int64].fetch_add[ordering=Ordering.RELAXED](self.end.start, Int64(count))
        )
        for i in range(count):
            self.queue[unsafe_offset=place + i] = held[i]


@fieldwise_init
struct CountUnreached(Body):
    """Counts rows that were missed."""

    var flood: Ptr[Reachability]
    var graph: Ptr[Graph]
    var states: Int
    var count: Ptr[Int64]

    def run(self, begin: Int, end: Int, worker: Int):
        """Looks at rows begin .. end-1."""
        var missed = 0
        for row in range(begin, end):
            missed += Int(self.flood[].unreached(self.graph[], self.states, row))
        if missed != 0:
            _ = Atomic[Int64].fetch_add[ordering=Ordering.RELAXED](self.count.start, Int64(missed))


struct Reachability(Movable):
    """Rows reached so far from the entry point on level 0."""

    var reached: Ptr[UInt8]
    """A mark a row."""
    var queue: Ptr[UInt32]
    """Rows reached; those whose links lead to others before these."""
    var count: Int
    """Rows reached."""
    var links_in: Ptr[UInt32]
    """Links that lead to each row from rows reached, once somebody wants to know."""

    def __init__(out self, rows: Int):
        """Has reached nothing yet; nothing may be done with it if that `failed`."""
        self.reached = allocate_zeroed[UInt8](rows)
        self.queue = allocate[UInt32](rows)
        self.count = 0
        self.links_in = no_block[UInt32]()

    def __deinit__(deinit self):
        release(self.reached)
        release(self.links_in)
        release(self.queue)

    def failed(self) -> Bool:
        """Tells whether memory was refused."""
        return missing(self.reached) or missing(self.queue)

    def flood[V: Watch](mut self, graph: Graph, start: Int, team: Team, mut watch: V) -> Bool:
        """Reaches all that can be reached from a row; returns False if `watch` ended it.

        Rows as many links away are followed by all workers, then those behind them.
        """
        if self.reached[unsafe_offset=start] != 0:
            return True
        self.reached[unsafe_offset=start] = 1
        self.queue[unsafe_offset=self.count] = UInt32(start)
        var first = self.count
        var end = Int64(first + 1)
        var looked = first
        var before = first
        if not watch.proceed(0):
            return False
        while first < Int(end):
            var rows = Int(end) - first
            if first - looked >= LOOK_EVERY:
                looked = first
                if not watch.proceed(0):
                    return False
            var task = FollowLinks(
                Pointer(to=graph).unsafe_mut_cast[True]().unsafe_origin_cast[MutUntrackedOrigin](),
                self.reached,
                self.queue,
                first,
                Pointer(to=end).unsafe_origin_cast[MutUntrackedOrigin](),
                team.size() == 1,
            )
            first += rows
            if not team.run(rows, PIECE, task, watch):
                return False
        self.count = Int(end)
        if not missing(self.links_in):
            self._count_links(graph, before)
        return True

    def know_links(mut self, graph: Graph) -> Bool:
        """Counts the links that lead to each row, unless that is done; returns False when memory is out.
        """
        if missing(self.links_in):
            self.links_in = allocate_zeroed[UInt32](graph.linked)
            if missing(self.links_in):
                return False
            self._count_links(graph, 0)
        return True

    @always_inline
    def unreached(self, graph: Graph, states: Int, row: Int) -> Bool:
        """Tells whether a row that takes part, and is not about to go, was not reached."""
        return self.reached[unsafe_offset=row] == 0 and stays(states, row) and not graph.absent(row)

    def _count_links(self, graph: Graph, first: Int):
        for i in range(first, self.count):
            var block = graph.links(0, Int(self.queue[unsafe_offset=i]))
            for j in range(graph.cap(0)):
                var row = Int(block[unsafe_offset=j])
                if row < graph.linked:
                    self.links_in[unsafe_offset=row] += 1

    def all_unreached[V: Watch](self, graph: Graph, states: Int, team: Team, mut watch: V) -> Int:
        """Returns how many rows were missed, or -1 if `watch` ended it."""
        var count = Int64(0)
        var task = CountUnreached(
            Pointer(to=self).unsafe_mut_cast[True]().unsafe_origin_cast[MutUntrackedOrigin](),
            Pointer(to=graph).unsafe_mut_cast[True]().unsafe_origin_cast[MutUntrackedOrigin](),
            states,
            Pointer(to=count).unsafe_origin_cast[MutUntrackedOrigin](),
        )
        return Int(count) if team.run(graph.linked, LOOK_EVERY, task, watch) else -1


def unreachable(graph: Graph, states: Int = 0) -> Int:
    """Returns how many rows that take part cannot be reached from the entry point on level 0, -1 when memory is out.
    """
    if graph.linked == 0:
        return 0
    var flood = Reachability(graph.linked)
    if flood.failed():
        return -1
    var unwatched = Unwatched()
    var alone = Team(1)
    _ = flood.flood(graph, graph.row_of(graph.entry), alone, unwatched)
    return flood.all_unreached(graph, states, alone, unwatched)
