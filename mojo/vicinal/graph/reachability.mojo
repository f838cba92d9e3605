"""Which rows can be reached from the entry point along links of level 0; needs links and row states only."""
from vicinal.graph.links import Graph, prefetch_links
from vicinal.rows.row_states import stays
from vicinal.system.memory import Ptr, allocate, allocate_zeroed, missing, release
from vicinal.system.parallel import Unwatched, Watch

comptime LOOK_EVERY = 4096
"""Rows between looks at the watch."""
comptime AHEAD = 8
"""Rows whose links are asked for before they are looked at."""


struct Reachability(Movable):
    """Rows reached so far from the entry point on level 0."""

    var reached: Ptr[UInt8]
    """A mark a row."""
    var links_in: Ptr[UInt32]
    """Links that lead to each row from rows reached."""
    var queue: Ptr[UInt32]
    """Rows reached, in the order of being reached."""
    var count: Int
    """Rows reached."""

    def __init__(out self, rows: Int):
        """Has reached nothing yet; nothing may be done with it if that `failed`."""
        self.reached = allocate_zeroed[UInt8](rows)
        self.links_in = allocate_zeroed[UInt32](rows)
        self.queue = allocate[UInt32](rows)
        self.count = 0

    def __deinit__(deinit self):
        release(self.reached)
        release(self.links_in)
        release(self.queue)

    def failed(self) -> Bool:
        """Tells whether memory was refused."""
        return missing(self.reached) or missing(self.links_in) or missing(self.queue)

    def flood[V: Watch](mut self, graph: Graph, start: Int, mut watch: V) -> Bool:
        """Reaches all that can be reached from a row; returns False if `watch` ended it."""
        if self.reached[unsafe_offset=start] != 0:
            return True
        self.reached[unsafe_offset=start] = 1
        self.queue[unsafe_offset=self.count] = UInt32(start)
        var next = self.count
        self.count += 1
        while next < self.count:
            if next % LOOK_EVERY == 0 and not watch.proceed(graph.linked):
                return False
            var block = graph.links(0, Int(self.queue[unsafe_offset=next]))
            next += 1
            if next + AHEAD < self.count:
                prefetch_links(graph, 0, Int(self.queue[unsafe_offset=next + AHEAD]))
            for i in range(graph.cap(0)):
                var row = Int(block[unsafe_offset=i])
                if row >= graph.linked:
                    continue
                self.links_in[unsafe_offset=row] += 1
                if self.reached[unsafe_offset=row] == 0:
                    self.reached[unsafe_offset=row] = 1
                    self.queue[unsafe_offset=self.count] = UInt32(row)
                    self.count += 1
        return True

    @always_inline
    def unreached(self, graph: Graph, states: Int, row: Int) -> Bool:
        """Tells whether a row that takes part, and is not about to go, was not reached."""
        return self.reached[unsafe_offset=row] == 0 and stays(states, row) and not graph.absent(row)

    def all_unreached(self, graph: Graph, states: Int) -> Int:
        """Returns how many rows were missed."""
        var count = 0
        for row in range(graph.linked):
            count += Int(self.unreached(graph, states, row))
        return count


def unreachable(graph: Graph, states: Int = 0) -> Int:
    """Returns how many rows that take part cannot be reached from the entry point on level 0, -1 when memory is out.
    """
    if graph.linked == 0:
        return 0
    var flood = Reachability(graph.linked)
    if flood.failed():
        return -1
    var unwatched = Unwatched()
    _ = flood.flood(graph, graph.row_of(graph.entry), unwatched)
    return flood.all_unreached(graph, states)
