"""Rows above level 0 look again for their links once many rows have come after them.

Rows that came early chose their links among few, and what came later links to them only where it is near. So a heap of rows that came
in a call of its own, among the first, is found from few places: of 200 clusters, one a call, up to three were found by no search at ef 64.
An addition to a larger graph lets some of the older rows that reach level 1, about as many as it brings new ones, search again on all
their levels; what is found joins the links that they have, the best are kept, and those chosen link back.
"""
from vicinal.construct.prune import considered, robust_prune, room_for
from vicinal.construct.unlink import AddReplacementBackEdges, ReplacedBlocks, WriteReplacements
from vicinal.graph.links import EMPTY, Graph
from vicinal.graph.undo import STRIPES, UndoLog
from vicinal.kernels.candidates import entry_of, node_of
from vicinal.kernels.space import SymmetricDistance, Rows
from vicinal.rows.row_states import stays
from vicinal.system.hash import mix
from vicinal.system.memory import Ptr, allocate, missing, release
from vicinal.system.outcome import NO_MEMORY, Outcome
from vicinal.system.parallel import Body, Team, Unwatched
from vicinal.walk.beam_search import descend, search_level
from vicinal.walk.interleaved import MAX_SEARCHES
from vicinal.walk.scratch import Scratch, any_failed


@fieldwise_init
struct LookAgain[S: SymmetricDistance](Body):
    """First step, with the graph standing still: finds the links of some ordinals. Item p does those with ordinal % STRIPES == p.
    """

    var graph: Ptr[Graph]
    var rows: Rows
    var states: Int
    var scratches: Ptr[Ptr[Scratch]]
    var nodes: Ptr[UInt32]
    """The ordinals, each once."""
    var count: Int
    var width: Int
    """Candidates that a walk keeps."""
    var patches: Ptr[ReplacedBlocks]

    def run(self, begin: Int, end: Int, worker: Int):
        """Goes through all of them once for each owner."""
        ref scratch = self.scratches[unsafe_offset=worker * MAX_SEARCHES][]
        for part in range(begin, end):
            for i in range(self.count):
                var node = Int(self.nodes[unsafe_offset=i])
                if node % STRIPES == part:
                    self.look(node, part, scratch)

    def look(self, node: Int, part: Int, mut scratch: Scratch):
        """Does one on all its levels, the highest first."""
        ref graph = self.graph[]
        if not stays(self.states, graph.row_of(node)) or graph.absent(graph.row_of(node)):
            return  # a free row or a copy
        var highest = min(graph.level_of(node), graph.top())
        var room = scratch.room(Self.S.query_bytes(self.rows))
        if scratch.failed():
            return
        var query = Self.S.query_of_row(self.rows, graph.row_of(node), room)
        var start = descend[Self.S](
            graph,
            self.rows,
            query,
            scratch,
            graph.ordinals,
            graph.linked,
            graph.entry,
            highest,
        )
        for level in range(highest, 0, -1):
            search_level[Self.S, False](
                graph, self.rows, query, scratch, level, graph.ordinals, start, self.width
            )
            if scratch.failed():
                return
            start = scratch.beam.node(0)
            self.choose[False](level, node, part, scratch)
        search_level[Self.S, True](
            graph, self.rows, query, scratch, 0, graph.linked, graph.row_of(start), self.width
        )
        if scratch.failed():
            return
        self.choose[True](0, graph.row_of(node), part, scratch)

    def choose[base_layer: Bool](self, level: Int, node: Int, part: Int, mut scratch: Scratch):
        """Notes the best of what was found and of the links that are there."""
        ref graph = self.graph[]
        ref beam = scratch.beam
        ref offered = scratch.pruning_candidates
        var block = graph.links(level, node)
        var cap = graph.cap(level)
        offered.reset(beam.size + cap)
        var room = scratch.room(Self.S.query_bytes(self.rows))
        if scratch.failed():
            return
        var used = 0
        while used < cap and block[unsafe_offset=used] != EMPTY:
            used += 1
        for i in range(beam.size):
            var other = beam.node(i)
            if other != node and stays(self.states, graph.row_at(level, other)):
                offered.insert(beam.entries[unsafe_offset=i] & ~1)
        var query = Self.S.query_of_row(self.rows, graph.row_at(level, node), room)
        for i in range(used):
            var other = Int(block[unsafe_offset=i])
            var known = False
            for j in range(offered.size):
                known = known or offered.node(j) == other
            if not known:
                var key = Self.S.key(query, self.rows, graph.row_at(level, other))
                offered.insert(entry_of(key, other))
        var kept = robust_prune[Self.S](
            graph,
            self.rows,
            level,
            offered.entries,
            considered[Self.S](graph, level, offered),
            room_for(level, cap),
            scratch,
        )
        if scratch.failed():
            return
        # those that were there come first: they need no link back
        var picked = scratch.links
        var before = 0
        for i in range(kept):
            if holds(block, used, scratch.selected[unsafe_offset=i]):
                picked[unsafe_offset=before] = scratch.selected[unsafe_offset=i]
                before += 1
        var all = before
        for i in range(kept):
            if not holds(block, used, scratch.selected[unsafe_offset=i]):
                picked[unsafe_offset=all] = scratch.selected[unsafe_offset=i]
                all += 1
        self.patches[unsafe_offset=part].append(level, node, before, all, picked)


@always_inline
def holds(block: Ptr[UInt32], used: Int, node: UInt32) -> Bool:
    """Tells whether a node is among links."""
    for i in range(used):
        if block[unsafe_offset=i] == node:
            return True
    return False


@no_inline
def look_again[
    S: SymmetricDistance
](
    mut graph: Graph,
    rows: Rows,
    states: Int,
    nodes: Ptr[UInt32],
    count: Int,
    width: Int,
    team: Team,
    scratches: Ptr[Ptr[Scratch]],
    log: UndoLog,
) -> Outcome:
    """Lets ordinals look again for their links; the result does not depend on the number of threads.

    Args:
        graph: The links; readers may search it meanwhile.
        rows: What is measured, stored rows or codes.
        states: Address of the rows' states, 0 if none has any.
        nodes: The ordinals, each once.
        count: Their number.
        width: Candidates that a walk keeps.
        team: Workers.
        scratches: MAX_SEARCHES for each worker.
        log: Receives what an undo needs, and word of memory that was refused.

    Returns:
        DONE; or NO_MEMORY, and then the caller undoes.
    """
    var shared = Pointer(to=graph).unsafe_origin_cast[MutUntrackedOrigin]()
    var kept_log = Pointer(to=log).unsafe_mut_cast[True]().unsafe_origin_cast[MutUntrackedOrigin]()
    var patches = allocate[ReplacedBlocks](STRIPES)
    if missing(patches):
        log.fail()
        return NO_MEMORY
    for part in range(STRIPES):
        patches.unsafe_offset(part).unsafe_write(ReplacedBlocks())
    var unwatched = Unwatched()
    var look = LookAgain[S](shared, rows, states, scratches, nodes, count, width, patches)
    _ = team.run(STRIPES, 1, look, unwatched)
    for part in range(STRIPES):
        if patches[unsafe_offset=part].failed:
            log.fail()
    if any_failed(scratches, team.size() * MAX_SEARCHES):
        log.fail()
    if not log.failed():
        _ = team.run(STRIPES, 1, WriteReplacements(shared, kept_log, patches), unwatched)
    if not log.failed():
        var back = AddReplacementBackEdges[S](shared, rows, scratches, kept_log, patches)
        _ = team.run(STRIPES, 1, back, unwatched)
    if any_failed(scratches, team.size() * MAX_SEARCHES):
        log.fail()
    for part in range(STRIPES):
        patches.unsafe_offset(part).unsafe_deinit_pointee()
    release(patches)
    return log.outcome(True)


def draw_nodes(nodes: Ptr[UInt32], wanted: Int, ordinals: Int, seed: Int) -> Int:
    """Draws distinct ordinals, at most `wanted`, and returns their number."""
    var count = 0
    for i in range(wanted):
        var node = UInt32(Int(UInt64(mix(seed, i)) % UInt64(ordinals)))
        if not holds(nodes, count, node):
            nodes[unsafe_offset=count] = node
            count += 1
    return count
