"""Reachability: every row can be reached from the entry point along links of level 0.

Pruning can take the last link to a row. A flood from the entry finds such rows; each is linked from the nearest row that
was reached.
"""
from vicinal.graph import EMPTY, Graph, publish
from vicinal.marks import stays
from vicinal.memory import Ptr, allocate, allocate_zeroed, missing, release
from vicinal.parallel import Unwatched, Watch
from vicinal.scratch import Scratch
from vicinal.search import search_level
from vicinal.space import Linker, Rows
from vicinal.undo import PARTS, UndoLog

comptime LOOK_EVERY = 4096
"""Rows between looks at the watch."""
comptime ROUNDS = 16
"""Repairs tried; each but the last may cut off a row whose link it replaces."""


struct Flood(Movable):
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

    def spread[V: Watch](mut self, graph: Graph, start: Int, mut watch: V) -> Bool:
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
    def missed(self, graph: Graph, marks: Int, row: Int) -> Bool:
        """Tells whether a row that takes part, and is not about to go, was not reached."""
        return self.reached[unsafe_offset=row] == 0 and stays(marks, row) and not graph.absent(row)

    def all_missed(self, graph: Graph, marks: Int) -> Int:
        """Returns how many rows were missed."""
        var count = 0
        for row in range(graph.linked):
            count += Int(self.missed(graph, marks, row))
        return count


def unreachable(graph: Graph, marks: Int = 0) -> Int:
    """Returns how many rows that take part cannot be reached from the entry point on level 0, -1 when memory is out.
    """
    if graph.linked == 0:
        return 0
    var flood = Flood(graph.linked)
    if flood.failed():
        return -1
    var unwatched = Unwatched()
    _ = flood.spread(graph, graph.row_of(graph.entry), unwatched)
    return flood.all_missed(graph, marks)


@no_inline
def repair[
    S: Linker, V: Watch
](
    graph: Graph,
    rows: Rows,
    marks: Int,
    ef_construction: Int,
    log: UndoLog,
    mut scratch: Scratch,
    mut watch: V,
) -> Bool:
    """Links every row that cannot be reached from the entry point; readers may search meanwhile.

    Args:
        graph: The links.
        rows: The rows.
        marks: Address of the rows' marks, 0 if none has any; only rows that stay must be reached.
        ef_construction: Candidates kept while searching for reached rows.
        log: Receives what an undo needs, and word of memory that was refused.
        scratch: Buffers.
        watch: May end the work early.

    Returns:
        False if `watch` ended it or memory was refused: then not all rows are reached, and the caller undoes.
    """
    for round in range(ROUNDS):
        var entry = graph.row_of(graph.entry)
        var flood = Flood(graph.linked)
        if flood.failed():
            log.fail()
            return False
        if not flood.spread(graph, entry, watch):
            return False
        if flood.all_missed(graph, marks) == 0:
            break
        for row in range(graph.linked):
            if not flood.missed(graph, marks, row):
                continue
            var room = scratch.room(S.query_bytes(rows))
            if scratch.failed():
                log.fail()
                return False
            # every row found from the entry along level 0 has been reached
            search_level[S, True](
                graph,
                rows,
                S.query_of_row(rows, row, room),
                scratch,
                0,
                graph.linked,
                entry,
                ef_construction << round,
            )
            _attach(graph, row, marks, log, flood, scratch)
            if log.failed() or scratch.failed():
                log.fail()
                return False
            if not flood.spread(graph, row, watch):
                return False
    return True


def _attach(graph: Graph, row: Int, marks: Int, log: UndoLog, flood: Flood, scratch: Scratch):
    """Links a row from the nearest candidate with a free slot, else in place of a link whose row has others.

    Candidates are rows that stay, or the entry point if that is a removed row: nothing else leads to the row for long.
    """
    var entry = graph.row_of(graph.entry)
    var cap = graph.cap(0)
    for i in range(scratch.beam.size):
        var from_row = scratch.beam.node(i)
        if from_row != entry and not stays(marks, from_row):
            continue
        var block = graph.links(0, from_row)
        if block[unsafe_offset=cap - 1] != EMPTY:
            continue
        var free = cap - 1
        while free > 0 and block[unsafe_offset=free - 1] == EMPTY:
            free -= 1
        if log.keep(graph, 0, from_row, from_row % PARTS):
            publish(block.unsafe_offset(free), row)
        return
    for i in range(scratch.beam.size):
        var from_row = scratch.beam.node(i)
        if from_row != entry and not stays(marks, from_row):
            continue
        var block = graph.links(0, from_row)
        for j in range(cap - 1, -1, -1):
            var other = Int(block[unsafe_offset=j])
            if flood.links_in[unsafe_offset=other] > 1:
                if log.keep(graph, 0, from_row, from_row % PARTS):
                    flood.links_in[unsafe_offset=other] -= 1
                    publish(block.unsafe_offset(j), row)
                return
