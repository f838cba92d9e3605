"""Links of rows that several graphs have linked: the lists of a row are united, and selected from anew.

Graphs of overlapping parts of the rows meet in the rows that they share: what such a row has near it in one part and in the other becomes
one list, chosen by the rule that chooses links elsewhere. No walk is needed. Source: merged shard graphs of DiskANN (NeurIPS 2019), which
cuts the united list at random.
"""
from vicinal.construct.fill import left_free
from vicinal.construct.link_measure import prune
from vicinal.graph.links import EMPTY, Graph
from vicinal.kernels.any_distance import AnyLink
from vicinal.kernels.space import Query, Rows, prefetch_row
from vicinal.parts.part_lists import PartLists
from vicinal.system.memory import Ptr, at, missing
from vicinal.system.parallel import Body
from vicinal.walk.beam_search import measure_nodes
from vicinal.walk.interleaved import MAX_SEARCHES
from vicinal.walk.scratch import HOP_ROOM, Scratch

comptime PIECE = 64
"""Rows that a worker takes at once."""


@fieldwise_init
struct UnitePartLinks(Body):
    """Writes the block of each row on level 0, which nobody else reads or writes meanwhile."""

    var graph: Ptr[Graph]
    var rows: Rows
    """What is measured: stored rows or codes."""
    var places: Ptr[UInt32]
    """The rows to be linked, all among those whose lists are gathered."""
    var lists: Ptr[PartLists]
    var representatives: Ptr[UInt32]
    """For each row the one that stands for it, EMPTY if that is itself; `missing` if there are no duplicates."""
    var scratches: Ptr[Ptr[Scratch]]

    def run(self, begin: Int, end: Int, worker: Int):
        """Links rows number begin .. end-1."""
        ref scratch = self.scratches[unsafe_offset=worker * MAX_SEARCHES][]
        for i in range(begin, end):
            var row = Int(self.places[unsafe_offset=i])
            if not self.unite(row, scratch):
                return  # who made the call looks for it, too

    def unite(self, row: Int, mut scratch: Scratch) -> Bool:
        """Links one row; returns False when memory is out."""
        ref graph = self.graph[]
        var width = graph.slots_at(0)
        ref lists = self.lists[]
        var first = Int(lists.starts[unsafe_offset=row - lists.first])
        var last = Int(lists.starts[unsafe_offset=row - lists.first + 1])
        var room = scratch.room(AnyLink.query_bytes(self.rows))
        scratch.visited.reset(graph.rows)
        scratch.beam.reset(max((last - first) * width, 1))
        if scratch.failed():
            return False
        var query = AnyLink.query_of_row(self.rows, row, room)
        _ = scratch.visited.first_visit(row)
        var waiting = 0
        for b in range(first, last):
            var block = at[UInt32](lists.blocks[unsafe_offset=b])
            for i in range(width):
                var other = Int(block[unsafe_offset=i])
                if other >= graph.rows:
                    continue
                if not missing(self.representatives):
                    var original = self.representatives[unsafe_offset=other]
                    if original != EMPTY:
                        other = Int(original)
                if not scratch.visited.first_visit(other):
                    continue
                prefetch_row(self.rows, other)
                scratch.unvisited[unsafe_offset=waiting] = Int64(other)
                waiting += 1
                if waiting == HOP_ROOM - 32:
                    self.measure(query, waiting, scratch)
                    waiting = 0
        self.measure(query, waiting, scratch)
        var size = scratch.beam.size
        scratch.selections += 1
        var kept = prune(
            graph,
            self.rows,
            0,
            scratch.beam.entries,
            size,
            graph.cap(0) - left_free(graph.cap(0)),
            scratch,
        )
        if scratch.failed():
            return False
        var own = graph.links(0, row)
        for i in range(kept):
            own[unsafe_offset=i] = scratch.selected[unsafe_offset=i]
        return True

    def measure(self, query: Query, count: Int, mut scratch: Scratch):
        """Adds the rows that wait to the candidates."""
        measure_nodes[True](self.graph[], self.rows, query, scratch.unvisited, count, count)
        scratch.distances += count
        for i in range(count):
            scratch.beam.insert(scratch.unvisited[unsafe_offset=i])
        scratch.beam.arrange()
