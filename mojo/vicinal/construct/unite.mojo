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
from vicinal.system.memory import Ptr, allocate, allocate_zeroed, at, missing, no_block, release
from vicinal.system.parallel import Body
from vicinal.walk.beam_search import measure_nodes
from vicinal.walk.interleaved import MAX_SEARCHES
from vicinal.walk.scratch import HOP_ROOM, Scratch

comptime PIECE = 64
"""Rows that a worker takes at once."""


@fieldwise_init
struct PartLinks(TrivialRegisterPassable):
    """What one part has linked."""

    var rows: Ptr[UInt32]
    """Its rows, ascending."""
    var links: Ptr[UInt32]
    """The block of each on level 0; links are rows, those that do not exist are passed over."""
    var count: Int
    """Rows of the part."""


struct PartBlocks(Movable):
    """Where the blocks of each row are."""

    var starts: Ptr[UInt32]
    """For each row its first entry in `blocks`, and one past the last."""
    var blocks: Ptr[Int]
    """Addresses of blocks, those of a row in the order of parts."""
    var failed: Bool
    """Whether memory was refused."""
    var broken: Bool
    """Whether a part names a row that does not exist, or one twice."""

    def __init__(out self, parts: Ptr[PartLinks], count: Int, rows: Int, width: Int):
        """Looks through the parts.

        Args:
            parts: The parts.
            count: Their number.
            rows: Rows of the index.
            width: Slots of a block.
        """
        self.starts = allocate_zeroed[UInt32](rows + 1)
        self.blocks = no_block[Int]()
        self.failed = missing(self.starts)
        self.broken = False
        if self.failed:
            return
        var all = 0
        for p in range(count):
            var last = -1
            for i in range(parts[unsafe_offset=p].count):
                var row = Int(parts[unsafe_offset=p].rows[unsafe_offset=i])
                if row <= last or row >= rows:
                    self.broken = True
                    return
                last = row
                self.starts[unsafe_offset=row + 1] += 1
            all += parts[unsafe_offset=p].count
        for row in range(rows):
            self.starts[unsafe_offset=row + 1] += self.starts[unsafe_offset=row]
        self.blocks = allocate[Int](max(all, 1))
        if missing(self.blocks):
            self.failed = True
            return
        for p in range(count):
            for i in range(parts[unsafe_offset=p].count):
                var row = Int(parts[unsafe_offset=p].rows[unsafe_offset=i])
                var place = Int(self.starts[unsafe_offset=row])
                self.blocks[unsafe_offset=place] = Int(
                    parts[unsafe_offset=p].links.unsafe_offset(i * width)
                )
                self.starts[unsafe_offset=row] += 1
        for row in range(rows, 0, -1):  # each start has become the end
            self.starts[unsafe_offset=row] = self.starts[unsafe_offset=row - 1]
        self.starts[] = 0

    def __deinit__(deinit self):
        release(self.starts)
        release(self.blocks)


@fieldwise_init
struct UnitePartLinks(Body):
    """Writes the block of each row on level 0, which nobody else reads or writes meanwhile."""

    var graph: Ptr[Graph]
    var rows: Rows
    """What is measured: stored rows or codes."""
    var places: Ptr[UInt32]
    """The rows to be linked."""
    var parts: Ptr[PartBlocks]
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
        var first = Int(self.parts[].starts[unsafe_offset=row])
        var last = Int(self.parts[].starts[unsafe_offset=row + 1])
        var room = scratch.room(AnyLink.query_bytes(self.rows))
        scratch.visited.reset(graph.rows)
        scratch.beam.reset(max((last - first) * width, 1))
        if scratch.failed():
            return False
        var query = AnyLink.query_of_row(self.rows, row, room)
        _ = scratch.visited.first_visit(row)
        var waiting = 0
        for b in range(first, last):
            var block = at[UInt32](self.parts[].blocks[unsafe_offset=b])
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
