"""A second look at rows that were linked: free slots of their blocks go to rows two links away.

Selection sees the graph of the moment when a row comes, and leaves slots free that cost a walk nothing but a distance each.
Filled, a walk finds as much in fewer hops: .95 recall in 1.2 times less time on SIFT, .999 in 1.1 times less on
Fashion-MNIST. The new links are not answered by links back.
"""
from vicinal.construct.work import LinkWork
from vicinal.graph.links import EMPTY, SLOTS_PER_LINE, prefetch_links
from vicinal.graph.undo import STRIPES
from vicinal.kernels.any_distance import AnyLink
from vicinal.kernels.candidates import key_of, node_of
from vicinal.kernels.space import prefetch_row
from vicinal.system.atomics import publish
from vicinal.system.memory import Ptr, allocate, missing, release
from vicinal.system.outcome import NO_MEMORY, Outcome
from vicinal.system.parallel import Body, Unwatched, Watch
from vicinal.walk.beam_search import measure_nodes
from vicinal.walk.scratch import HOP_ROOM, Scratch

comptime BATCH = 4096
"""Rows looked at before any of them is changed."""
comptime PIECE = 16
"""Most rows that a worker looks from at once."""
comptime FEW = 64
"""Links of no more rows are written on one thread: another one would take longer to begin."""
comptime NEAREST = 48
"""Candidates kept of a row."""
comptime NEAREST_AGAIN = 24
"""The same of a row whose slots are filled again: half as many candidates replace the links that it has lost as well."""
comptime THROUGH = 8
"""Links that are looked through, the first and nearest; more found no more that mattered."""
comptime FAR_SHARE = 4
"""Rows that come in small calls have at most 1 of 4 slots for what they link to on level 1: of clusters that come one a call, early ones
were found from few places."""
comptime LEFT_FREE = 2
"""Slots left for reverse links of rows to come; one in blocks of a single cache line."""


@always_inline
def left_free(cap: Int) -> Int:
    """Returns how many slots of a block stay free."""
    return min(LEFT_FREE, cap // SLOTS_PER_LINE)


@fieldwise_init
struct FindMissingLinks(Body):
    """Finds what to put into the free slots of rows; changes nothing that others read."""

    var work: LinkWork
    var places: Ptr[UInt32]
    """The rows."""
    var found: Ptr[UInt32]
    """Receives the new links of each row, `cap` slots, EMPTY behind them."""
    var far: Bool
    """Whether rows get links that they have on level 1."""
    var nearest: Int
    """Candidates kept of a row."""

    def run(self, begin: Int, end: Int, worker: Int):
        """Looks from rows number begin .. end-1."""
        var cap = self.work.graph[].cap(0)
        ref scratch = self.work.scratch(worker)[]
        for i in range(begin, end):
            var row = Int(self.places[unsafe_offset=i])
            var found = self.found.unsafe_offset(i * cap)
            var block = self.work.graph[].links(0, row)
            var used = 0
            for j in range(cap):
                found[unsafe_offset=j] = EMPTY
                used += Int(block[unsafe_offset=j] != EMPTY)
            if used > 0 and used < cap - left_free(cap):
                self.collect(row, used, scratch)
                if scratch.failed():
                    return  # who made the call looks for it, too
                self.choose(row, block, used, found, scratch)

    def collect(self, row: Int, used: Int, mut scratch: Scratch):
        """Leaves the nearest rows two links away from a row in the beam."""
        ref graph = self.work.graph[]
        var block = graph.links(0, row)
        var room = scratch.room(AnyLink.query_bytes(self.work.rows))
        scratch.visited.reset(graph.linked)
        scratch.beam.reset(self.nearest)
        if scratch.failed():
            return
        var query = AnyLink.query_of_row(self.work.rows, row, room)
        _ = scratch.visited.first_visit(row)
        for i in range(used):
            _ = scratch.visited.first_visit(Int(block[unsafe_offset=i]))
            prefetch_links(graph, 0, Int(block[unsafe_offset=i]))
        var cap = graph.cap(0)
        var waiting = 0
        var through = min(used, THROUGH)
        for i in range(through):
            var next = graph.links(0, Int(block[unsafe_offset=i]))
            for j in range(cap):
                var other = Int(next[unsafe_offset=j])
                if other < graph.linked and scratch.visited.first_visit(other):
                    prefetch_row(self.work.rows, other)
                    scratch.unvisited[unsafe_offset=waiting] = Int64(other)
                    waiting += 1
            # what waits must have room for another block
            if waiting < HOP_ROOM - cap and i + 1 < through:
                continue
            measure_nodes[True](graph, self.work.rows, query, scratch.unvisited, waiting, waiting)
            for j in range(waiting):
                var entry = scratch.unvisited[unsafe_offset=j]
                if entry < scratch.beam.worst():
                    scratch.beam.insert(entry)
            waiting = 0

    def look_above(
        self, row: Int, block: Ptr[UInt32], used: Int, most: Int, found: Ptr[UInt32]
    ) -> Int:
        """Takes rows that a row links to on level 1, at most `most`, and returns their number."""
        ref graph = self.work.graph[]
        var ordinal = graph.ordinal_of(row)
        if ordinal < 0:
            return 0
        var above = graph.links(1, ordinal)
        var count = 0
        for i in range(graph.cap(1)):
            var node = Int(above[unsafe_offset=i])
            if node >= graph.ordinals or count >= most:
                break
            var other = UInt32(graph.row_of(node))
            var known = Int(other) >= graph.linked or graph.leaves(Int(other))
            for j in range(used):
                known = known or block[unsafe_offset=j] == other
            if not known:
                found[unsafe_offset=count] = other
                count += 1
        return count

    def choose(
        self, row: Int, block: Ptr[UInt32], used: Int, found: Ptr[UInt32], mut scratch: Scratch
    ):
        """Picks of the beam what is not much nearer to a link than to the row (`space.SQUARED_ALPHA`).
        """
        var cap = self.work.graph[].cap(0)
        var wanted = cap - left_free(cap)
        var far = 0
        if self.far:
            far = self.look_above(row, block, used, min(cap // FAR_SHARE, wanted - used), found)
        var kept = used + far
        var bytes = cap * AnyLink.query_bytes(self.work.rows)
        var queries = scratch.queries_for(bytes)
        if scratch.failed():
            return
        for i in range(used):
            scratch.prepare[AnyLink](self.work.rows, Int(block[unsafe_offset=i]), i)
        for i in range(used, kept):
            scratch.prepare[AnyLink](self.work.rows, Int(found[unsafe_offset=i - used]), i)
        for i in range(scratch.beam.size):
            if kept >= wanted:
                break
            var entry = scratch.beam.entries[unsafe_offset=i]
            var good = not self.work.graph[].leaves(node_of(entry))
            # one taken from level 1 may be two links away, too
            for j in range(far):
                good = good and Int(found[unsafe_offset=j]) != node_of(entry)
            if good and AnyLink.none_occludes(
                queries, kept, self.work.rows, node_of(entry), key_of(entry)
            ):
                scratch.prepare[AnyLink](self.work.rows, node_of(entry), kept)
                found[unsafe_offset=kept - used] = UInt32(node_of(entry))
                kept += 1


@fieldwise_init
struct WriteMissingLinks(Body):
    """Writes new links into free slots. Item p changes the blocks of rows with row % STRIPES == p only.
    """

    var work: LinkWork
    var places: Ptr[UInt32]
    var count: Int
    var found: Ptr[UInt32]

    def run(self, begin: Int, end: Int, worker: Int):
        """Writes the links of rows of parts begin .. end-1."""
        ref graph = self.work.graph[]
        var cap = graph.cap(0)
        for part in range(begin, end):
            for i in range(self.count):
                var row = Int(self.places[unsafe_offset=i])
                var new = self.found.unsafe_offset(i * cap)
                if row % STRIPES != part or new[] == EMPTY:
                    continue
                if not self.work.log[].keep(graph, 0, row, part):
                    return
                var block = graph.links(0, row)
                var free = 0
                while block[unsafe_offset=free] != EMPTY:
                    free += 1
                for j in range(cap - free):
                    if new[unsafe_offset=j] == EMPTY:
                        break
                    publish(block.unsafe_offset(free + j), Int(new[unsafe_offset=j]))


def refine_new_nodes[
    V: Watch
](
    work: LinkWork,
    places: Ptr[UInt32],
    count: Int,
    mut watch: V,
    far: Bool = False,
    nearest: Int = NEAREST,
) -> Outcome:
    """Fills free slots on level 0.

    Args:
        work: What it is done with.
        places: Rows that were linked.
        count: Their number.
        watch: May end the work early.
        far: Whether rows get links that they have on level 1, too.
        nearest: Candidates kept of a row.

    Returns:
        DONE; or STOPPED or NO_MEMORY, and then the caller undoes.
    """
    ref team = work.team[]
    ref log = work.log[]
    var found = allocate[UInt32](min(BATCH, count) * work.graph[].cap(0))
    if missing(found):
        log.fail()
        return NO_MEMORY
    var unwatched = Unwatched()
    var done = 0
    while done < count and watch.proceed(0) and not log.failed():
        var here = places.unsafe_offset(done)
        var size = min(BATCH, count - done)
        var piece = max(min(PIECE, size // (4 * team.size())), 1)
        _ = team.run(size, piece, FindMissingLinks(work, here, found, far, nearest), unwatched)
        if work.out_of_memory():
            break
        var parts = 1 if size > FEW else STRIPES
        _ = team.run(STRIPES, parts, WriteMissingLinks(work, here, size, found), unwatched)
        done += size
    release(found)
    return log.outcome(done == count)
