"""Rows above level 0 look again for their links once many rows have come after them.

Rows that came early chose their links among few, and what came later links to them only where it is near. So a heap of rows that came
in a call of its own, among the first, is found from few places: of 200 clusters, one a call, up to three were found by no search at ef 64.
An addition to a larger graph lets some of the older rows that reach level 1, about as many as it brings new ones, search again on all
their levels; what is found joins the links that they have, the best are kept, and those chosen link back.

Above level 0 so does each row that loses a link when rows are taken out (`leaving_rows`): few rows stand for all
there, and what lies behind a row that goes tells little of where else a way would lead. The same is true of long links on level 0:
what lies behind a cluster that goes as a whole is that cluster. So rows that lose a long link look again there.
"""
from vicinal.construct.link_measure import prune
from vicinal.construct.prune import considered, room_for
from vicinal.construct.replaced_blocks import (
    AddReplacementBackEdges,
    ReplacedBlocks,
    WriteReplacements,
    drop_patches,
    lacks_any,
    new_patches,
)
from vicinal.construct.work import LinkWork
from vicinal.graph.links import EMPTY
from vicinal.graph.undo import STRIPES
from vicinal.kernels.any_distance import AnyDistance, AnyLink
from vicinal.kernels.candidates import entry_of
from vicinal.rows.row_states import stays
from vicinal.system.hash import mix
from vicinal.system.memory import Ptr, missing
from vicinal.system.outcome import NO_MEMORY, Outcome
from vicinal.system.parallel import Body, Unwatched
from vicinal.walk.beam_search import descend, search_level
from vicinal.walk.scratch import Scratch

comptime ALL_LEVELS = 0
comptime UPPER_LEVELS = 1
comptime BASE_LEVEL = 2
"""On which levels is looked: all that an ordinal has, those above 0, or level 0 alone."""


@fieldwise_init
struct LookAgain(Body):
    """First step, with the graph standing still: finds the links of some ordinals. Item p does those with ordinal % STRIPES == p.
    """

    var work: LinkWork
    var nodes: Ptr[UInt32]
    """The ordinals, with BASE_LEVEL the rows, each once."""
    var count: Int
    var levels: Int
    """ALL_LEVELS, UPPER_LEVELS or BASE_LEVEL."""
    var patches: Ptr[ReplacedBlocks]

    def run(self, begin: Int, end: Int, worker: Int):
        """Goes through all of them once for each owner."""
        ref scratch = self.work.scratch(worker)[]
        for part in range(begin, end):
            for i in range(self.count):
                var node = Int(self.nodes[unsafe_offset=i])
                if node % STRIPES == part:
                    self.look(node, part, scratch)

    def look(self, node: Int, part: Int, mut scratch: Scratch):
        """Does one on all its levels, the highest first."""
        ref graph = self.work.graph[]
        var row = node if self.levels == BASE_LEVEL else graph.row_of(node)
        if not stays(self.work.states, row) or graph.absent(row):
            return  # a free row or a copy
        var highest = 0
        if self.levels != BASE_LEVEL:
            highest = min(graph.level_of(node), graph.top())
        var room = scratch.room(AnyLink.query_bytes(self.work.rows))
        if scratch.failed():
            return
        var query = AnyLink.query_of_row(self.work.rows, row, room)
        var start = descend(
            graph,
            self.work.rows,
            query,
            scratch,
            graph.ordinals,
            graph.linked,
            graph.entry,
            highest,
        )
        for level in range(highest, 0, -1):
            search_level[False](
                graph,
                self.work.rows,
                query,
                scratch,
                level,
                graph.ordinals,
                start,
                self.work.ef_construction,
            )
            if scratch.failed():
                return
            start = scratch.beam.node(0)
            self.choose[False](level, node, part, scratch)
        if self.levels == UPPER_LEVELS:
            return
        search_level[True](
            graph,
            self.work.rows,
            query,
            scratch,
            0,
            graph.linked,
            graph.row_of(start),
            self.work.ef_construction,
        )
        if scratch.failed():
            return
        self.choose[True](0, row, part, scratch)

    def choose[base_layer: Bool](self, level: Int, node: Int, part: Int, mut scratch: Scratch):
        """Notes the best of what was found and of the links that are there."""
        ref graph = self.work.graph[]
        ref beam = scratch.beam
        ref offered = scratch.pruning_candidates
        var block = graph.links(level, node)
        var cap = graph.cap(level)
        offered.reset(beam.size + cap)
        var room = scratch.room(AnyLink.query_bytes(self.work.rows))
        if scratch.failed():
            return
        var used = 0
        while used < cap and block[unsafe_offset=used] != EMPTY:
            used += 1
        for i in range(beam.size):
            var other = beam.node(i)
            if other != node and stays(self.work.states, graph.row_at(level, other)):
                offered.insert(beam.entries[unsafe_offset=i] & ~1)
        var query = AnyLink.query_of_row(self.work.rows, graph.row_at(level, node), room)
        for i in range(used):
            var other = Int(block[unsafe_offset=i])
            var known = False
            for j in range(offered.size):
                known = known or offered.node(j) == other
            if not known:
                var key = AnyDistance.key(query, self.work.rows, graph.row_at(level, other))
                offered.insert(entry_of(key, other))
        var kept = prune(
            graph,
            self.work.rows,
            level,
            offered.entries,
            considered(graph, self.work.rows, level, offered),
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
def look_again(work: LinkWork, nodes: Ptr[UInt32], count: Int, levels: Int = ALL_LEVELS) -> Outcome:
    """Lets ordinals, or rows, look again for their links.

    Args:
        work: What it is done with.
        nodes: The ordinals, with BASE_LEVEL the rows, each once.
        count: Their number.
        levels: ALL_LEVELS, UPPER_LEVELS or BASE_LEVEL.

    Returns:
        DONE; or NO_MEMORY, and then the caller undoes.
    """
    ref team = work.team[]
    ref log = work.log[]
    var patches = new_patches()
    if missing(patches):
        log.fail()
        return NO_MEMORY
    var unwatched = Unwatched()
    _ = team.run(STRIPES, 1, LookAgain(work, nodes, count, levels, patches), unwatched)
    if not lacks_any(work, patches):
        _ = team.run(STRIPES, 1, WriteReplacements(work, patches, True), unwatched)
    if not log.failed():
        _ = team.run(STRIPES, 1, AddReplacementBackEdges(work, patches), unwatched)
    _ = work.out_of_memory()
    drop_patches(patches)
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
