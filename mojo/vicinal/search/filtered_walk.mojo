"""Walks through the graph that return allowed rows only; read graph and rows, write scratch.

The two-hop walk follows ACORN-1 (arXiv:2403.04871): the beam holds allowed rows, and a neighbour that is not allowed is
looked through to its own neighbours. How much of that is done in a hop is bounded, and depends on how many allowed
neighbours the hop has found already (as in NaviX, arXiv:2506.23397).
"""
from std.bit import count_trailing_zeros
from std.memory import pack_bits

from vicinal.graph.links import SLOTS_PER_LINE, Graph, prefetch_links
from vicinal.kernels.candidates import LANES, SETTLED, SETTLED_WIDTHS, WIDE, far_beyond, node_of
from vicinal.kernels.measure_rows import HopDistance
from vicinal.kernels.space import Query, Rows
from vicinal.search.filter import BEAM, SPARSE_BELOW, TWO_HOP, UNUSUAL, Filter, allows, widened
from vicinal.system.memory import Ptr
from vicinal.walk.beam_search import (
    LOOK_AHEAD,
    BeamSearch,
    Walk,
    clamp_links,
    start_beam_search,
)
from vicinal.walk.scratch import Scratch

comptime ENOUGH = 64
"""Unvisited allowed rows of a hop from which on no further neighbour is looked through; `scratch.HOP_ROOM` has room for them."""
comptime LOOKS = 32
"""Neighbours that a hop looks through at most."""
comptime BLOCKS_AHEAD = 4
"""Blocks of neighbours that are asked for before they are looked through."""
comptime PROBE_HOPS = 16
"""Hops after which it is decided how to go on."""
comptime UNDECIDED = -1
"""The walk is under way."""
comptime COMPLETE = 0
"""The walk was made to its end."""
comptime AGAINST = 1
"""There are too few allowed rows around the query for any walk."""
comptime SPARSE = 2
"""Allowed rows are there, but a plain walk would have to be very wide."""


@fieldwise_init
struct FilteredWalk(Walk):
    """Walks as if there were no filter and collects the nearest allowed rows measured, in `scratch.pruning_candidates`.

    Unless the filter's plan is BEAM, the rows met in the first hops decide whether to go on, and how wide. Then the walk may end
    early, by the distance of the k-th allowed row as `Candidates.end_early` does by that of all.
    """

    var walk: BeamSearch[True]
    """The walk without a filter."""
    var filter: Ptr[Filter]
    """The rows allowed."""
    var width: Int
    """Allowed candidates to be kept while walking."""
    var nearby: Int
    """The walk may end by the distance of so many allowed rows; 0 if it may not."""
    var far: Float32
    """How many times as far the candidate is that ends it."""
    var hops: Int
    """Hops made."""
    var met: Int
    """Allowed rows among those of the first hops."""
    var seen: Int
    """Rows of the first hops."""
    var end: Int
    """COMPLETE, AGAINST or SPARSE once the walk is done."""

    @staticmethod
    def start(
        graph: Ptr[Graph],
        rows: Rows,
        known: Int,
        query: Query,
        scratch: Ptr[Scratch],
        filter: Ptr[Filter],
        k: Int,
        width: Int,
        kept: Int,
        may_end: Bool,
    ) -> Self:
        """Begins a walk.

        Args:
            graph: The links.
            rows: What is measured.
            known: Rows that may be measured; at most `filter.room`.
            query: The prepared query.
            scratch: Buffers of this walk.
            filter: The rows allowed.
            k: Rows wanted.
            width: Allowed candidates to be kept while walking.
            kept: Rows collected.
            may_end: Whether the walk may end early; queries of codes of the first elements may not.

        Returns:
            The walk.
        """
        var usual = widened(width, filter[].matches, filter[].rows)
        var widest = widened(width, 1, SPARSE_BELOW)
        var choose = filter[].plan != BEAM
        var walk = start_beam_search(
            graph, rows, known, query, scratch, min(usual, widest) if choose else usual
        )
        ref found = scratch[].pruning_candidates
        found.reset(kept)
        var first = scratch[].beam.entries[]
        if allows(filter[].nodes, node_of(first)):
            found.insert(first)
        var nearby = max(k, SETTLED)
        if not (may_end and choose and width >= SETTLED_WIDTHS * nearby and nearby <= kept <= WIDE):
            nearby = 0
        var far = far_beyond(nearby, width) if nearby != 0 else Float32(0)
        return Self(walk, filter, width, nearby, far, 0, 0, 0, UNDECIDED)

    @always_inline
    def collect[M: HopDistance](mut self) -> Bool:
        """Expands the nearest candidate; False when the walk is done."""
        if self.end != UNDECIDED:
            return False
        if self.walk.collect[M]() and not (
            self.nearby != 0 and self.hops > PROBE_HOPS and self.is_far[M]()
        ):
            return True
        self.finish()
        return False

    @always_inline
    def is_far[M: HopDistance](self) -> Bool:
        """Tells whether the candidate just expanded is so far that the walk ends before it."""
        ref beam = self.walk.scratch[].beam
        ref found = self.walk.scratch[].pruning_candidates
        if beam.limit > WIDE or found.size < self.nearby or beam.cursor < beam.limit // 2:
            return False
        return beam.key(beam.cursor) > M.farthest(
            self.walk.query, self.walk.rows, found.key(self.nearby - 1), self.far
        )

    @always_inline
    def own(self) -> Ptr[Scratch]:
        """Returns its buffers."""
        return self.walk.scratch

    @always_inline
    def measure[M: HopDistance](mut self):
        """Measures the hop and collects the allowed rows that are near enough."""
        self.walk.measure[M]()
        self.take_hop()
        self.hops += 1
        if self.hops == PROBE_HOPS and self.filter[].plan != BEAM:
            self.decide()

    @always_inline
    def take_hop(mut self):
        """Collects the allowed rows of a hop that are near enough."""
        ref found = self.walk.scratch[].pruning_candidates
        var fresh = self.walk.scratch[].unvisited
        var words = self.filter[].nodes
        var count = self.walk.count
        if self.hops < PROBE_HOPS:
            var met = 0
            for i in range(count):
                met += Int(allows(words, node_of(fresh[unsafe_offset=i])))
            self.met += met
            self.seen += count
        # first what is near enough, of many at once: later few are, and whether one is allowed cannot be foretold
        for i in range(0, count, LANES):
            var better = fresh.unsafe_load[width=LANES](i).lt(
                SIMD[DType.int64, LANES](found.worst())
            )
            var here = count - i
            var mask = Int(pack_bits(better)) & ((1 << here) - 1 if here < LANES else -1)
            while mask != 0:
                var entry = fresh[unsafe_offset=i + Int(count_trailing_zeros(mask))]
                mask &= mask - 1
                if entry < found.worst() and allows(words, node_of(entry)):
                    found.insert(entry)

    @no_inline
    def decide(mut self):
        """Decides by the rows met so far whether to go on, and how wide."""
        ref beam = self.walk.scratch[].beam
        self.walk.scratch[].pruning_candidates.arrange()  # all who end here, or go on with another walk, read what was found
        beam.arrange()
        var filter = self.filter
        if filter[].plan == TWO_HOP:
            self.end = SPARSE
        elif self.met * UNUSUAL * filter[].rows < self.seen * filter[].matches:
            self.end = AGAINST
        elif self.met * SPARSE_BELOW < self.seen:
            self.end = SPARSE if filter[].two_hop_pays else AGAINST
        else:
            beam.narrow(max(widened(self.width, self.met, self.seen), self.width + self.width // 2))

    @no_inline
    def finish(mut self):
        """Decides whether what was found will do."""
        self.walk.scratch[].pruning_candidates.arrange()
        ref filter = self.filter[]
        self.end = COMPLETE
        if filter.plan == BEAM:
            return
        # what was met on the way there counts no more
        ref beam = self.walk.scratch[].beam
        var met = 0
        for i in range(beam.size):
            met += Int(allows(filter.nodes, beam.node(i)))
        if met * UNUSUAL * filter.rows < beam.size * filter.matches:
            self.end = AGAINST


def walk_two_hop(
    graph: Ptr[Graph],
    rows: Rows,
    known: Int,
    query: Query,
    scratch: Ptr[Scratch],
    filter: Filter,
    width: Int,
):
    """Finds allowed rows near a query, best first, by walking over allowed rows only; leaves them in `scratch.beam`.

    It starts from where a plain walk has come to, as a `FilteredWalk` has left it in `scratch`, and from the filter's seeds.

    Args:
        graph: The links.
        rows: What is measured, by `AnyDistance`.
        known: Rows that may be measured; at most `filter.room`.
        query: The prepared query.
        scratch: Buffers of this worker.
        filter: The rows allowed; its list holds the seeds.
        width: Candidates kept.
    """
    var linked = known
    ref beam = scratch[].beam
    ref fresh = scratch[].unvisited
    var start = min(beam.node(0), linked - 1)
    var found = min(scratch[].pruning_candidates.size, ENOUGH)
    for i in range(found):
        fresh[unsafe_offset=i] = scratch[].pruning_candidates.entries[unsafe_offset=i]
    beam.reset(width)
    scratch[].visited.reset(linked)
    if scratch[].failed():
        return
    for i in range(found):
        _ = scratch[].visited.first_visit(node_of(fresh[unsafe_offset=i]))
        if fresh[unsafe_offset=i] < beam.worst():
            beam.insert(fresh[unsafe_offset=i])
    var walk = BeamSearch[True](graph, rows, query, scratch, 0, linked, 0)
    walk.count = _seed(scratch[], filter, linked)
    for i in range(min(walk.count, LOOK_AHEAD)):
        walk.fetch(scratch[].unvisited, i)
    scratch[].distances += walk.count
    walk.measure_apart()
    var node = start
    while node >= 0:
        walk.count = _gather_any(graph[], scratch[], filter, linked, node)
        for i in range(min(walk.count, LOOK_AHEAD)):
            walk.fetch(scratch[].unvisited, i)
        scratch[].distances += walk.count
        scratch[].hops += 1
        walk.measure_apart()
        node = beam.next()


def _seed(mut scratch: Scratch, filter: Filter, linked: Int) -> Int:
    """Puts the seeds into `scratch.unvisited`; returns how many they are."""
    var count = 0
    for i in range(filter.num_listed):
        var row = Int(filter.listed[unsafe_offset=i])
        if row < linked and allows(filter.nodes, row) and scratch.visited.first_visit(row):
            scratch.unvisited[unsafe_offset=count] = Int64(row)
            count += 1
    return count


@always_inline
def _gather_any(graph: Graph, mut scratch: Scratch, filter: Filter, linked: Int, node: Int) -> Int:
    """Does `_gather` for the kind of set that the walk has at the moment."""
    if scratch.visited.sparse:
        return _gather[True](graph, scratch, filter, linked, node)
    return _gather[False](graph, scratch, filter, linked, node)


@no_inline
def _gather[
    sparse: Bool
](graph: Graph, mut scratch: Scratch, filter: Filter, linked: Int, node: Int) -> Int:
    """Finds the unvisited allowed rows that a row leads to, straight or through a neighbour that is not allowed.

    Returns:
        How many there are in `scratch.unvisited`.
    """
    # copies: a store to one of the arrays might otherwise change where the others are
    var states = scratch.visited.states
    var epoch = scratch.visited.epoch
    var links = scratch.links
    var fresh = scratch.unvisited
    var through = scratch.selected
    var words = filter.nodes
    var width = graph.slots_at(0)
    # row number `linked` counts as visited
    var limit = SIMD[DType.uint32, SLOTS_PER_LINE](UInt32(linked))
    var used = clamp_links(graph, 0, node, linked, links)
    var count = 0
    var closed = 0
    for i in range(used):
        var id = Int(links[unsafe_offset=i])
        var allowed = allows(words, id)
        var unseen: Bool
        comptime if sparse:
            unseen = not scratch.visited.has_seen(id)
            if allowed:
                _ = scratch.visited.first_visit(id)
        else:
            unseen = states[unsafe_offset=id] != epoch
            if allowed:
                states[unsafe_offset=id] = epoch
        fresh[unsafe_offset=count] = Int64(id)
        through[unsafe_offset=closed] = UInt32(id)
        count += Int(unseen and allowed)
        closed += Int(unseen and not allowed)
    var most = min(closed, LOOKS)
    for i in range(min(most, BLOCKS_AHEAD)):
        prefetch_links(graph, 0, Int(through[unsafe_offset=i]))
    for i in range(most):
        if count >= ENOUGH:
            break
        if i + BLOCKS_AHEAD < most:
            prefetch_links(graph, 0, Int(through[unsafe_offset=i + BLOCKS_AHEAD]))
        var closed_row = Int(through[unsafe_offset=i])
        # looked through once in a search
        comptime if sparse:
            _ = scratch.visited.first_visit(closed_row)
        else:
            states[unsafe_offset=closed_row] = epoch
        var block = graph.links(0, closed_row)
        for j in range(0, width, SLOTS_PER_LINE):
            links.unsafe_store(j, min(block.unsafe_load[width=SLOTS_PER_LINE](j), limit))
        for j in range(width):
            var id = Int(links[unsafe_offset=j])
            if not allows(words, id):
                continue
            comptime if sparse:
                if not scratch.visited.first_visit(id):
                    continue
            else:
                if states[unsafe_offset=id] == epoch:
                    continue
                states[unsafe_offset=id] = epoch
            fresh[unsafe_offset=count] = Int64(id)
            count += 1
    return count
