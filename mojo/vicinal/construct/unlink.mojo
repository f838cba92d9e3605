"""Taking removed rows out of the graph: blocks that lead to them get links to what lies behind them instead.

A block keeps its links to rows that stay. Instead of the others it is offered the rows that can be reached through removed rows
alone, nearest first, and takes those that are nearer to its row than to any link it has; these link back as those chosen at
insertion do, without which 0.02 of recall was lost. Removed rows keep their blocks until all others have been done, so that no
owner of a block reads what another one writes, and searches under way find their way.

Source: FreshDiskANN (arXiv:2105.09613), algorithm 4; but links are kept, not chosen again (which lost 0.03), there are links
back, and several removed rows in a line are looked behind.
"""
from std.ffi import external_call

from vicinal.construct.insertion import AddBackEdges
from vicinal.construct.round import Round
from vicinal.graph.links import EMPTY, Graph
from vicinal.graph.undo import STRIPES, UndoLog
from vicinal.kernels.any_distance import AnyRowDistance
from vicinal.kernels.candidates import entry_of, key_of, node_of
from vicinal.kernels.space import SymmetricDistance, Query, Rows
from vicinal.rows.leaving import Blocks
from vicinal.rows.row_states import is_to_be_unlinked, is_live_after
from vicinal.system.atomics import publish, store_release
from vicinal.system.memory import Ptr, allocate, at, missing, release
from vicinal.system.outcome import NO_MEMORY, Outcome
from vicinal.system.parallel import Body, Team, Watch
from vicinal.walk.interleaved import MAX_SEARCHES
from vicinal.walk.scratch import HOP_ROOM, Scratch, any_failed

comptime HEAD = 4
"""Words before the links of a patch."""
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
comptime ENOUGH = 128
"""Rows measured for a block."""
comptime CHUNK = 1 << 16
"""Rows between looks at the watch."""


@fieldwise_init
struct SelectReplacements(Body):
    """First step, with the graph standing still: finds new links. Item p does the nodes with node % PARTS == p.
    """

    var graph: Ptr[Graph]
    var rows: Rows
    var states: Int
    var scratches: Ptr[Ptr[Scratch]]
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
        ref graph = self.graph[]
        ref scratch = self.scratches[unsafe_offset=worker * MAX_SEARCHES][]
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
        ref graph = self.graph[]
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
        return self.graph[].leaves(row)

    def patch(self, level: Int, node: Int, part: Int, mut scratch: Scratch):
        """Decides what becomes of one block if it leads to rows that go."""
        ref graph = self.graph[]
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
        self.offer(level, node, passed, gone, kept, nodes, scratch)
        if scratch.failed():
            return
        var before = kept
        kept = self.take(level, kept, cap - cap // SPARE, scratch)
        if scratch.failed():
            return
        if kept == 0 and level == 0 and node != graph.row_of(graph.entry):
            picked[] = UInt32(graph.row_of(graph.entry))  # without any link it would not take part
            kept = 1
        self.patches[unsafe_offset=part].append(level, node, before, kept, picked)

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
        var room = scratch.room(AnyRowDistance.query_bytes(self.rows))
        if scratch.failed():
            return
        var query = AnyRowDistance.query_of_row(self.rows, self.graph[].row_at(level, node), room)
        var gone = first
        var next = 0
        var measured = 0
        while next < min(gone, PASSED) and measured < ENOUGH:
            measured += self.offer_neighbors_of(
                level, query, Int(passed[unsafe_offset=next]), passed, gone, nodes, scratch
            )
            next += 1
        if first * MANY >= first + kept or kept * self.graph[].cap(level) <= SMALL:
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
        ref graph = self.graph[]
        ref chosen = scratch.pruning_candidates
        var block = graph.links(level, other)
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
            if is_to_be_unlinked(at[UInt8](self.states)[unsafe_offset=row]):
                continue  # the next to go
            measured += 1
            var entry = entry_of(AnyRowDistance.key(query, self.rows, row), behind)
            if entry < chosen.worst():
                chosen.insert(entry)
        return measured

    def take(self, level: Int, before: Int, wanted: Int, mut scratch: Scratch) -> Int:
        """Adds the diverse ones of the rows offered to those picked and returns the number of both.
        """
        ref graph = self.graph[]
        var picked = scratch.selected
        var queries = scratch.queries_for(
            max(wanted, before) * AnyRowDistance.query_bytes(self.rows)
        )
        if scratch.failed():
            return before
        for i in range(before):
            scratch.prepare[AnyRowDistance](
                self.rows, graph.row_at(level, Int(picked[unsafe_offset=i])), i
            )
        var kept = before
        for i in range(scratch.pruning_candidates.size):
            if kept >= wanted:
                break
            var entry = scratch.pruning_candidates.entries[unsafe_offset=i]
            var row = graph.row_at(level, node_of(entry))
            var diverse = True
            for j in range(kept):
                if AnyRowDistance.key(queries[unsafe_offset=j], self.rows, row) < key_of(entry):
                    diverse = False
                    break
            if diverse:
                picked[unsafe_offset=kept] = UInt32(node_of(entry))
                scratch.prepare[AnyRowDistance](self.rows, row, kept)
                kept += 1
        return kept


struct ReplacedBlocks(Movable):
    """A list of new blocks: level, node, links that are kept, links in all, then the links."""

    var words: Int
    """Address of the list, 0 while it is empty."""
    var used: Int
    """Words."""
    var room: Int
    var failed: Bool
    """Whether memory was refused: the list lacks something."""

    def __init__(out self):
        """Makes an empty list."""
        self.words = 0
        self.used = 0
        self.room = 0
        self.failed = False

    def __deinit__(deinit self):
        external_call["free", NoneType](self.words)

    @always_inline
    def at(self, word: Int) -> Ptr[UInt32]:
        """Returns the block that begins with a word."""
        return at[UInt32](self.words).unsafe_offset(word)

    def append(mut self, level: Int, node: Int, kept: Int, count: Int, links: Ptr[UInt32]):
        """Adds a block."""
        if self.used + HEAD + count > self.room:
            var room = 2 * (self.used + HEAD + count)
            var words = external_call["realloc", Int](self.words, 4 * room)
            if words == 0:
                self.failed = True
                return
            self.words = words
            self.room = room
        var block = self.at(self.used)
        block[unsafe_offset=0] = UInt32(level)
        block[unsafe_offset=1] = UInt32(node)
        block[unsafe_offset=2] = UInt32(kept)
        block[unsafe_offset=3] = UInt32(count)
        for i in range(count):
            block[unsafe_offset=HEAD + i] = links[unsafe_offset=i]
        self.used += HEAD + count


@fieldwise_init
struct WriteReplacements(Body):
    """Second step: item p writes the blocks of nodes with node % PARTS == p."""

    var graph: Ptr[Graph]
    var log: Ptr[UndoLog]
    var patches: Ptr[ReplacedBlocks]

    def run(self, begin: Int, end: Int, worker: Int):
        """Writes blocks, the last slots last to first: no empty slot comes before a used one."""
        ref graph = self.graph[]
        for part in range(begin, end):
            for owner in range(STRIPES):
                ref patches = self.patches[unsafe_offset=owner]
                var word = 0
                while word < patches.used:
                    var patch = patches.at(word)
                    var level = Int(patch[unsafe_offset=0])
                    var node = Int(patch[unsafe_offset=1])
                    var count = Int(patch[unsafe_offset=3])
                    word += HEAD + count
                    # rows are listed with the ordinals that they have above
                    if node % STRIPES != part:
                        continue
                    if not self.log[].keep(graph, level, node, part):
                        return
                    var block = graph.links(level, node)
                    for i in range(count):
                        publish(block.unsafe_offset(i), Int(patch[unsafe_offset=HEAD + i]))
                    for i in range(graph.cap(level) - 1, count - 1, -1):
                        publish(block.unsafe_offset(i), Int(EMPTY))


@fieldwise_init
struct AddReplacementBackEdges[S: SymmetricDistance](Body):
    """Third step: the links back. Item p changes the blocks of nodes with node % PARTS == p."""

    var graph: Ptr[Graph]
    var rows: Rows
    var scratches: Ptr[Ptr[Scratch]]
    var log: Ptr[UndoLog]
    var patches: Ptr[ReplacedBlocks]

    def run(self, begin: Int, end: Int, worker: Int):
        """Goes through all new links once for each owner."""
        ref graph = self.graph[]
        ref scratch = self.scratches[unsafe_offset=worker * MAX_SEARCHES][]
        var none = Round.of_none(self.graph, self.rows, self.scratches)
        var back = AddBackEdges[Self.S](none, self.log)
        for part in range(begin, end):
            for owner in range(STRIPES):
                ref patches = self.patches[unsafe_offset=owner]
                var word = 0
                while word < patches.used:
                    var patch = patches.at(word)
                    var level = Int(patch[unsafe_offset=0])
                    var node = Int(patch[unsafe_offset=1])
                    var count = Int(patch[unsafe_offset=3])
                    for i in range(Int(patch[unsafe_offset=2]), count):
                        var target = Int(patch[unsafe_offset=HEAD + i])
                        if target % STRIPES != part or leads_to(graph, level, target, node):
                            continue
                        back.link(level, target, node, part, scratch)
                    word += HEAD + count


def leads_to(graph: Graph, level: Int, node: Int, target: Int) -> Bool:
    """Tells whether a node links to another."""
    var block = graph.links(level, node)
    for i in range(graph.cap(level)):
        if Int(block[unsafe_offset=i]) == target:
            return True
    return False


@no_inline
def unlink_removed[
    S: SymmetricDistance, V: Watch
](
    mut graph: Graph,
    rows: Rows,
    states: Int,
    blocks: Blocks,
    team: Team,
    scratches: Ptr[Ptr[Scratch]],
    log: UndoLog,
    mut watch: V,
) -> Outcome:
    """Makes no row that stays lead to a row that goes, those that `graph.leaves` tells; the result does not depend on the number of
    threads.

    Args:
        graph: The links; readers may search it meanwhile.
        rows: The rows.
        states: Address of the rows' states.
        blocks: The blocks that it is done for.
        team: Workers.
        scratches: MAX_SEARCHES for each worker.
        log: Receives what an undo needs, and word of memory that was refused.
        watch: May end the work early.

    Returns:
        DONE; or STOPPED or NO_MEMORY, and then the caller undoes.
    """
    var shared = Pointer(to=graph).unsafe_origin_cast[MutUntrackedOrigin]()
    var kept_log = Pointer(to=log).unsafe_mut_cast[True]().unsafe_origin_cast[MutUntrackedOrigin]()
    var patches = allocate[ReplacedBlocks](STRIPES)
    if missing(patches):
        log.fail()
        return NO_MEMORY
    for part in range(STRIPES):
        patches.unsafe_offset(part).unsafe_write(ReplacedBlocks())
    var measured = scratches[][].between.rows[S](rows)
    var finished = True
    for base_layer in range(2):
        var nodes = blocks.last_row if base_layer == 1 else blocks.last_ordinal
        var begin = blocks.first_row if base_layer == 1 else blocks.first_ordinal
        for first in range(begin, nodes, CHUNK):
            var patch = SelectReplacements(
                shared,
                measured,
                states,
                scratches,
                base_layer == 1,
                first,
                min(first + CHUNK, nodes),
                blocks,
                patches,
            )
            finished = finished and watch.proceed(0) and team.run(STRIPES, 1, patch, watch)
    if blocks.num_again != 0:
        var patch = SelectReplacements(
            shared, measured, states, scratches, True, 0, 0, blocks, patches
        )
        finished = finished and team.run(STRIPES, 1, patch, watch)
    if any_failed(scratches, team.size() * MAX_SEARCHES):
        log.fail()
    for part in range(STRIPES):
        if patches[unsafe_offset=part].failed:
            log.fail()
    finished = (
        finished
        and not log.failed()
        and team.run(STRIPES, 1, WriteReplacements(shared, kept_log, patches), watch)
    )
    var back = AddReplacementBackEdges[S](shared, rows, scratches, kept_log, patches)
    finished = finished and not log.failed() and team.run(STRIPES, 1, back, watch)
    if any_failed(scratches, team.size() * MAX_SEARCHES):
        log.fail()
    for part in range(STRIPES):
        patches.unsafe_offset(part).unsafe_deinit_pointee()
    release(patches)
    return log.outcome(finished)


def move_entry(mut graph: Graph, states: Int) -> Int:
    """Makes a row that stays the entry point, one of the highest level.

    Returns:
        -1, or the row of the entry point if it has to be kept: no row that stays reaches level 1.
    """
    var mark = at[UInt8](states)
    if not is_to_be_unlinked(mark[unsafe_offset=graph.row_of(graph.entry)]):
        return -1
    var best = -1
    for ordinal in range(graph.ordinals):
        var row = graph.row_of(ordinal)
        if not is_live_after(mark[unsafe_offset=row]) or graph.absent(row):
            continue
        if best < 0 or graph.level_of(ordinal) > graph.level_of(best):
            best = ordinal
    if best < 0:
        return graph.row_of(graph.entry)
    store_release(graph.entry, best)
    return -1
