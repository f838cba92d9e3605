"""Taking removed rows out of the graph: blocks that lead to them get links to what lies behind them instead.

A block keeps its links to rows that stay. Instead of the others it is offered the rows that can be reached through removed rows
alone, nearest first, and takes those that are nearer to its row than to any link it has; these link back as those chosen at
insertion do, without which 0.02 of recall was lost. Removed rows keep their blocks until all others have been done, so that no
owner of a block reads what another one writes, and searches under way find their way.

Source: FreshDiskANN (arXiv:2105.09613), algorithm 4; but links are kept, not chosen again (which lost 0.03), there are links
back, and several removed rows in a line are looked behind.
"""
from vicinal.construct.fill import left_free
from vicinal.construct.replaced_blocks import (
    AddReplacementBackEdges,
    ReplacedBlocks,
    WriteReplacements,
    drop_patches,
    lacks_any,
    new_patches,
    rows_without_long,
)
from vicinal.construct.work import LinkWork
from vicinal.graph.links import EMPTY
from vicinal.graph.undo import STRIPES
from vicinal.kernels.any_distance import AnyDistance, AnyLink
from vicinal.kernels.candidates import key_of, node_of
from vicinal.kernels.space import SQUARED_ALPHA, Query, prefetch_row
from vicinal.rows.leaving import Blocks
from vicinal.rows.row_states import is_to_be_unlinked
from vicinal.system.array import GrowableArray
from vicinal.system.memory import Ptr, at, missing
from vicinal.system.outcome import NO_MEMORY, Outcome
from vicinal.system.parallel import Body, Watch
from vicinal.walk.beam_search import measure_nodes
from vicinal.walk.scratch import HOP_ROOM, Scratch

comptime PASSED = 64
"""Removed rows that are looked behind from one block: a whole cluster may be gone."""
comptime OFFERED = 200
"""Rows offered to a block, the nearest of those found."""
comptime MANY = 4
"""A block that has lost 1 of 4 links is offered what lies behind its other links besides, as many rows as an insertion meets:
without that, 5,000 SIFT rows of which half went found up to 0.046 less of queries unlike the rows."""
comptime SMALL = 256
"""The same if no more rows than so many can lie there: where rows have few links each of them counts."""
comptime SPARE = 8
"""A patched block keeps 1 of 8 slots free. With as many as at insertion, 6, blocks of M = 4 got no new links at all."""
comptime LONG = Float32(2)
"""A link is long if its distance is more than twice the median of those that are left, as it is between clusters."""
comptime OCCLUDING = Float32(SQUARED_ALPHA) / 5
"""How many times nearer to a link than to the row a candidate must be to be left out, see `space.occludes`."""
comptime FEWEST_LEFT = 2
"""Links whose median says something."""
comptime SAMPLE = 9
"""Links that the median is taken of, spread over the block."""
comptime NONE_LONG = Int32.MAX
"""No key is beyond it."""
comptime ENOUGH = 128
"""Rows measured for a block."""
comptime CHUNK = 1 << 16
"""Rows between looks at the watch."""


@fieldwise_init
struct SelectReplacements(Body):
    """First step, with the graph standing still: finds new links. Item p does the nodes with node % STRIPES == p.
    """

    var work: LinkWork
    var base_layer: Bool
    """Whether nodes are the rows of level 0; ordinals otherwise, on all their levels."""
    var first: Int
    var last: Int
    var blocks: Blocks
    """Its rows that are looked at again are, if there are no others."""
    var patches: Ptr[ReplacedBlocks]
    """What is to become of each owner's blocks."""

    def run(self, begin: Int, end: Int, worker: Int):
        """Does nodes first .. last-1 once for each owner."""
        ref graph = self.work.graph[]
        ref scratch = self.work.scratch(worker)[]
        for part in range(begin, end):
            if self.first == self.last:
                self.look_again(part, scratch)
                continue
            var node = self.first + (part - self.first) % STRIPES
            while node < self.last:
                if self.base_layer:
                    if not self.goes(node):
                        self.patch(0, node, part, scratch)
                elif not self.goes(graph.row_of(node)):
                    for level in range(1, graph.level_of(node) + 1):
                        self.patch(level, node, part, scratch)
                node += STRIPES

    def look_again(self, part: Int, mut scratch: Scratch):
        """Does the rows that have got links since, where the pass does not come to them yet."""
        ref graph = self.work.graph[]
        for i in range(self.blocks.num_again):
            var row = Int(self.blocks.again[unsafe_offset=i])
            if row % STRIPES != part or row >= graph.linked or self.goes(row):
                continue
            if row < self.blocks.first_row:
                self.patch(0, row, part, scratch)
            var ordinal = graph.ordinal_of(row)
            if ordinal >= 0 and ordinal < self.blocks.first_ordinal:
                for level in range(1, graph.level_of(ordinal) + 1):
                    self.patch(level, ordinal, part, scratch)

    @always_inline
    def goes(self, row: Int) -> Bool:
        """Tells whether a row is to lose all links."""
        return self.work.graph[].leaves(row)

    def patch(self, level: Int, node: Int, part: Int, mut scratch: Scratch):
        """Decides what becomes of one block if it leads to rows that go."""
        ref graph = self.work.graph[]
        var block = graph.links(level, node)
        var cap = graph.cap(level)
        var nodes = graph.linked if level == 0 else graph.ordinals
        var used = 0
        var lost = 0
        while used < cap and block[unsafe_offset=used] != EMPTY:
            lost += Int(self.goes(graph.row_at(level, Int(block[unsafe_offset=used]))))
            used += 1
        if lost == 0:
            return
        scratch.visited.reset(nodes)
        if scratch.failed():
            return  # who made the call looks for it, too
        _ = scratch.visited.first_visit(node)
        var picked = scratch.selected
        var passed = scratch.links
        var kept = 0
        var gone = 0
        for i in range(used):
            var link = block[unsafe_offset=i]
            if not scratch.visited.first_visit(Int(link)):
                continue
            if self.goes(graph.row_at(level, Int(link))):
                passed[unsafe_offset=gone] = link
                gone += 1
            else:
                picked[unsafe_offset=kept] = link
                kept += 1
        lost = gone  # each once
        var before = kept
        var wanted = cap - cap // SPARE
        var short = self.short(level, node, passed, lost, kept, scratch)
        if kept < wanted or short != NONE_LONG:
            self.offer(level, node, passed, gone, kept, nodes, scratch)
            if scratch.failed():
                return
            if short != NONE_LONG:
                kept = self.replace_long(level, node, passed, lost, kept, short, scratch)
            kept = self.take(level, kept, wanted, scratch)
        if scratch.failed():
            return
        if kept == 0 and level == 0 and node != graph.row_of(graph.entry):
            picked[] = UInt32(graph.row_of(graph.entry))  # without any link it would not take part
            kept = 1
        self.patches[unsafe_offset=part].append(
            level, node, before, kept, picked, short != NONE_LONG
        )

    def offer(
        self,
        level: Int,
        node: Int,
        passed: Ptr[UInt32],
        first: Int,
        kept: Int,
        nodes: Int,
        mut scratch: Scratch,
    ):
        """Collects in `scratch.pruning_candidates` the nearest rows found behind removed ones, breadth first, and behind the links that
        are kept if many are lost.
        """
        scratch.pruning_candidates.reset(OFFERED)
        var room = scratch.room(AnyLink.query_bytes(self.work.rows))
        if scratch.failed():
            return
        var query = AnyLink.query_of_row(
            self.work.rows, self.work.graph[].row_at(level, node), room
        )
        var gone = first
        var next = 0
        var measured = 0
        while next < min(gone, PASSED) and measured < ENOUGH:
            measured += self.offer_neighbors_of(
                level, query, Int(passed[unsafe_offset=next]), passed, gone, nodes, scratch
            )
            next += 1
        if first * MANY >= first + kept or kept * self.work.graph[].cap(level) <= SMALL:
            for i in range(kept):
                _ = self.offer_neighbors_of(
                    level,
                    query,
                    Int(scratch.selected[unsafe_offset=i]),
                    passed,
                    gone,
                    nodes,
                    scratch,
                )

    @always_inline
    def offer_neighbors_of(
        self,
        level: Int,
        query: Query,
        other: Int,
        passed: Ptr[UInt32],
        mut gone: Int,
        nodes: Int,
        mut scratch: Scratch,
    ) -> Int:
        """Offers what a neighbour leads to, and notes removed rows for later; returns how many rows it measured.
        """
        ref graph = self.work.graph[]
        ref chosen = scratch.pruning_candidates
        var block = graph.links(level, other)
        var fresh = scratch.unvisited
        var measured = 0
        for i in range(graph.cap(level)):
            var behind = Int(block[unsafe_offset=i])
            if behind >= nodes or not scratch.visited.first_visit(behind):
                continue
            var row = graph.row_at(level, behind)
            if self.goes(row):
                if gone < HOP_ROOM:
                    passed[unsafe_offset=gone] = UInt32(behind)
                    gone += 1
                continue
            if is_to_be_unlinked(at[UInt8](self.work.states)[unsafe_offset=row]):
                continue  # the next to go
            prefetch_row(self.work.rows, row)
            fresh[unsafe_offset=measured] = Int64(behind)
            measured += 1
        self.measure(level, query, measured, scratch)
        for i in range(measured):
            var entry = fresh[unsafe_offset=i]
            if entry < chosen.worst():
                chosen.insert(entry)
        return measured

    def short(
        self,
        level: Int,
        node: Int,
        lost: Ptr[UInt32],
        num_lost: Int,
        kept: Int,
        mut scratch: Scratch,
    ) -> Int32:
        """Returns the key beyond which a link of a block is long, NONE_LONG if none of those lost is or none can come in its place.
        """
        var cap = self.work.graph[].cap(level)
        if kept >= most_links(level, cap) or kept < FEWEST_LEFT:
            return NONE_LONG
        var rows = self.work.rows
        var room = scratch.room(AnyLink.query_bytes(rows))
        if scratch.failed():
            return NONE_LONG
        var query = AnyLink.query_of_row(rows, self.work.graph[].row_at(level, node), room)
        var sample = min(kept, SAMPLE)
        var keys = scratch.unvisited
        for i in range(sample):
            keys[unsafe_offset=i] = Int64(scratch.selected[unsafe_offset=i * kept // sample])
        self.measure(level, query, sample, scratch)
        for i in range(sample):
            keys[unsafe_offset=i] = Int64(key_of(keys[unsafe_offset=i]))
        var short = AnyDistance.farthest(query, rows, Int32(middle_of(keys, sample)), LONG)
        for i in range(num_lost):
            keys[unsafe_offset=i] = Int64(lost[unsafe_offset=i])
        self.measure(level, query, num_lost, scratch)
        for i in range(num_lost):
            if key_of(keys[unsafe_offset=i]) > short:
                return short
        return NONE_LONG

    @always_inline
    def measure(self, level: Int, query: Query, count: Int, mut scratch: Scratch):
        """Turns nodes in `scratch.unvisited` into entries."""
        ref graph = self.work.graph[]
        if level == 0:
            measure_nodes[True](graph, self.work.rows, query, scratch.unvisited, count, count)
        else:
            measure_nodes[False](graph, self.work.rows, query, scratch.unvisited, count, count)

    def replace_long(
        self,
        level: Int,
        node: Int,
        lost: Ptr[UInt32],
        num_lost: Int,
        before: Int,
        short: Int32,
        mut scratch: Scratch,
    ) -> Int:
        """Adds one of the rows offered for each link that was lost and was long, and returns the number of links picked.

        Between clusters few links lead out, and nearly every row that one could lead to is nearer to some link than to the row: by the
        rule for others (`take`) none would come in its place, and after a time no walk would find from one cluster to the next.
        """
        ref graph = self.work.graph[]
        var rows = self.work.rows
        var wanted = min(before + num_lost, most_links(level, graph.cap(level)))
        var room = scratch.room(AnyLink.query_bytes(rows))
        var queries = scratch.queries_for(wanted * AnyLink.query_bytes(rows))
        if scratch.failed():
            return before
        var query = AnyLink.query_of_row(rows, graph.row_at(level, node), room)
        var picked = scratch.selected
        var long = 0
        for i in range(num_lost):
            var row = graph.row_at(level, Int(lost[unsafe_offset=i]))
            long += Int(AnyDistance.key(query, rows, row) > short)
        for i in range(before):
            var row = graph.row_at(level, Int(picked[unsafe_offset=i]))
            scratch.prepare[AnyLink](rows, row, i)
        var kept = before
        for i in range(scratch.pruning_candidates.size):
            if kept >= wanted or kept - before >= long:
                break
            var entry = scratch.pruning_candidates.entries[unsafe_offset=i]
            var row = graph.row_at(level, node_of(entry))
            var good = key_of(entry) > short
            var j = 0
            while j < kept and good:
                var key = AnyDistance.key(queries[unsafe_offset=j], rows, row)
                good = key_of(entry) <= AnyDistance.farthest(query, rows, key, OCCLUDING)
                j += 1
            if good:
                picked[unsafe_offset=kept] = UInt32(node_of(entry))
                scratch.prepare[AnyLink](rows, row, kept)
                kept += 1
        return kept

    def take(self, level: Int, before: Int, wanted: Int, mut scratch: Scratch) -> Int:
        """Adds the diverse ones of the rows offered to those picked and returns the number of both.
        """
        ref graph = self.work.graph[]
        var picked = scratch.selected
        var queries = scratch.queries_for(max(wanted, before) * AnyLink.query_bytes(self.work.rows))
        if scratch.failed():
            return before
        for i in range(before):
            scratch.prepare[AnyLink](
                self.work.rows, graph.row_at(level, Int(picked[unsafe_offset=i])), i
            )
        var kept = before
        for i in range(scratch.pruning_candidates.size):
            if kept >= wanted:
                break
            var entry = scratch.pruning_candidates.entries[unsafe_offset=i]
            var row = graph.row_at(level, node_of(entry))
            var diverse = True
            for j in range(kept):
                var key = AnyDistance.key(queries[unsafe_offset=j], self.work.rows, row)
                if key < key_of(entry) or Int(picked[unsafe_offset=j]) == node_of(entry):
                    diverse = False
                    break
            if diverse:
                picked[unsafe_offset=kept] = UInt32(node_of(entry))
                scratch.prepare[AnyLink](self.work.rows, row, kept)
                kept += 1
        return kept


@always_inline
def most_links(level: Int, cap: Int) -> Int:
    """Returns the most links that a block gets here."""
    return cap - left_free(cap) if level == 0 else cap


def middle_of(keys: Ptr[Int64], count: Int) -> Int64:
    """Returns the median of some keys, the lower one of two."""
    for i in range(count):
        var below = 0
        var equal = 0
        for j in range(count):
            below += Int(keys[unsafe_offset=j] < keys[unsafe_offset=i])
            equal += Int(keys[unsafe_offset=j] == keys[unsafe_offset=i])
        if below <= (count - 1) // 2 < below + equal:
            return keys[unsafe_offset=i]
    return 0


@no_inline
def unlink_removed[
    V: Watch
](work: LinkWork, blocks: Blocks, mut without_long: GrowableArray, mut watch: V) -> Outcome:
    """Makes no row that stays lead to a row that goes, those that `graph.leaves` tells.

    Args:
        work: What it is done with; rows have states.
        blocks: The blocks that it is done for.
        without_long: Receives rows that have lost a long link on level 0.
        watch: May end the work early.

    Returns:
        DONE; or STOPPED or NO_MEMORY, and then the caller undoes.
    """
    ref team = work.team[]
    ref log = work.log[]
    var patches = new_patches()
    if missing(patches):
        log.fail()
        return NO_MEMORY
    var finished = True
    for base_layer in range(2):
        var nodes = blocks.last_row if base_layer == 1 else blocks.last_ordinal
        var begin = blocks.first_row if base_layer == 1 else blocks.first_ordinal
        for first in range(begin, nodes, CHUNK):
            var patch = SelectReplacements(
                work, base_layer == 1, first, min(first + CHUNK, nodes), blocks, patches
            )
            finished = finished and watch.proceed(0) and team.run(STRIPES, 1, patch, watch)
    if blocks.num_again != 0:
        var patch = SelectReplacements(work, True, 0, 0, blocks, patches)
        finished = finished and team.run(STRIPES, 1, patch, watch)
    finished = (
        not lacks_any(work, patches)
        and finished
        and team.run(STRIPES, 1, WriteReplacements(work, patches, blocks.num_again != 0), watch)
    )
    var back = AddReplacementBackEdges(work, patches)
    finished = finished and not log.failed() and team.run(STRIPES, 1, back, watch)
    _ = work.out_of_memory()
    rows_without_long(patches, without_long)
    drop_patches(patches)
    return log.outcome(finished)
