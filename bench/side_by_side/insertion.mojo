"""Insertion by several threads at once, links set by compare-and-swap: what one thread does with a row.

Each thread takes rows by a ticket and does all that a row needs: it walks, selects, writes the row's own blocks, then sets links back in
the blocks of others, fills the row's free slots and those of up to two older rows. A slot changes by one compare-and-swap from a value
that was read; a failed one is another's success, so the block is read again, at most ATTEMPTS times, and the link left out then. No
claim, no lock, nothing that a thread which stops would hold. Whoever prunes a full block reads all its slots, selects on the copy, puts
the new link into the slot of one that was not selected, and empties the slots of the others: each step is right by itself. So blocks may
have holes until they are `closed`.
"""
from std.atomic import Atomic, Ordering

from shared import (
    AFTER_OWN_LINKS,
    AMONG_LINKS_BACK,
    BEFORE_COMMIT,
    DOUBLES,
    FLICKERS,
    LINE,
    LOST,
    RETRIES,
    SET,
    WHILE_PRUNING,
    Shared,
    raise_entry,
    swap_slot,
    word,
)
from vicinal.construct.fill import LEFT_FREE, NEAREST, NEAREST_AGAIN, THROUGH, FindMissingLinks
from vicinal.construct.prune import considered, own_links, robust_prune, room_for, with_node
from vicinal.construct.work import LinkWork
from vicinal.graph.links import EMPTY, MAX_LEVEL, prefetch_links
from vicinal.kernels.any_distance import AnyRowDistance
from vicinal.kernels.candidates import entry_of
from vicinal.kernels.space import Query, Rows, SymmetricDistance, prefetch_row
from vicinal.system.atomics import load_acquire, slot
from vicinal.system.memory import Ptr
from vicinal.system.parallel import Body
from vicinal.update.linking import LACKING, REFILLED
from vicinal.walk.beam_search import BeamSearch, descend, measure_nodes, search_level
from vicinal.walk.scratch import HOP_ROOM, Scratch

comptime ATTEMPTS = 4
"""Times that a link is tried in a block that others change."""
comptime PICKS = 64
"""Room for the links that a row selects on a level."""


@fieldwise_init
struct InsertSideBySide[S: SymmetricDistance](Body):
    """Links rows, each item a thread that goes on until no row is left."""

    var work: LinkWork
    var measured: Rows
    """The same rows, measured through a pointer."""
    var shared: Ptr[Shared]
    var ordinals: Int
    var nodes: Int

    def run(self, begin: Int, end: Int, worker: Int):
        """Takes calls until none is left."""
        ref shared = self.shared[]
        ref scratch = self.work.scratch(worker)[]
        while True:
            var first = Int(
                Atomic[Int64].fetch_add[ordering=Ordering.RELAXED](
                    shared.next().start, Int64(shared.batch)
                )
            )
            if first >= shared.count:
                return
            var until = min(first + shared.batch, shared.count)
            for number in range(first, until):
                self.insert(number, worker, scratch)
            shared.stop(BEFORE_COMMIT, first)
            shared.commit(first // shared.batch)
            self.look(first // shared.batch, worker)
            _ = Atomic[Int64].fetch_add[ordering=Ordering.SEQUENTIAL](
                shared.done().start, Int64(until - first)
            )

    def look(self, call: Int, worker: Int):
        """Looks twice at calls of the moment: a snapshot must not change."""
        ref shared = self.shared[]
        var moment = word(shared.clock())
        var last = (shared.count - 1) // shared.batch
        var seen = Array[Bool, 8](fill=False)
        for pass_ in range(2):
            for i in range(8):
                var sees = shared.sees(min(call + i, last), moment)
                if pass_ == 0:
                    seen[i] = sees
                elif seen[i] != sees:
                    shared.add(worker, FLICKERS)

    @always_inline
    def picks(self, worker: Int, level: Int) -> Ptr[UInt32]:
        """Returns where the links are that a worker's row selects on a level."""
        return self.shared[].picks.unsafe_offset((worker * (MAX_LEVEL + 2) + level) * PICKS)

    @always_inline
    def copy(self, worker: Int, number: Int) -> Ptr[UInt32]:
        """Returns room for a block."""
        return self.shared[].copies.unsafe_offset((worker * 3 + number) * HOP_ROOM)

    def insert(self, number: Int, worker: Int, mut scratch: Scratch):
        """Links one row."""
        ref graph = self.work.graph[]
        ref shared = self.shared[]
        var row = Int(shared.places[unsafe_offset=number])
        var ordinal = graph.ordinal_of(row)
        var level = 0 if ordinal < 0 else graph.level_of(ordinal)
        var mine = shared.present.unsafe_offset(worker * 2 * LINE)
        Atomic[UInt32].store[ordering=Ordering.SEQUENTIAL](mine.start, UInt32(row))
        self.find(row, ordinal, level, worker, scratch)
        for at_level in range(level + 1):
            var node = row if at_level == 0 else ordinal
            var picks = self.picks(worker, at_level)
            for i in range(PICKS):
                if picks[unsafe_offset=i] == EMPTY:
                    break
                self.put(at_level, node, picks[unsafe_offset=i], worker)
        shared.stop(AFTER_OWN_LINKS, number)
        var emptiest = SIMD[DType.int64, 2](Int64.MAX)
        for at_level in range(level + 1):
            var node = row if at_level == 0 else ordinal
            var picks = self.picks(worker, at_level)
            for i in range(PICKS):
                var target = Int(picks[unsafe_offset=i])
                if target == Int(EMPTY):
                    break
                if i == 1:
                    shared.stop(AMONG_LINKS_BACK, number)
                var used = self.link(at_level, target, node, worker, number, i == 0, scratch)
                if at_level == 0 and used + LACKING <= graph.cap(0):
                    var entry = Int64(used << 32 | target)
                    if entry < emptiest[0]:
                        emptiest = SIMD[DType.int64, 2](entry, emptiest[0])
                    elif entry < emptiest[1]:
                        emptiest[1] = entry
        if ordinal >= 0:
            raise_entry(graph, ordinal)
        Atomic[UInt32].store[ordering=Ordering.SEQUENTIAL](mine.start, EMPTY)
        self.fill(row, NEAREST, True, worker, scratch)
        for i in range(REFILLED):
            if emptiest[i] != Int64.MAX:
                self.fill(Int(emptiest[i] & 0xFFFFFFFF), NEAREST_AGAIN, False, worker, scratch)

    def find(self, row: Int, ordinal: Int, level: Int, worker: Int, mut scratch: Scratch):
        """Selects the links of a row on all its levels."""
        ref graph = self.work.graph[]
        var rows = self.work.rows
        var room = scratch.room(Self.S.query_bytes(rows))
        var query = Self.S.query_of_row(rows, row, room)
        var entry = load_acquire(graph.entry)
        var highest = min(level, graph.level_of(entry))
        for above in range(highest + 1, level + 1):
            self.picks(worker, above)[] = EMPTY
        var node = descend[Self.S](
            graph, rows, query, scratch, self.ordinals, self.nodes, entry, highest
        )
        for above in range(highest, 0, -1):
            search_level[AnyRowDistance, False](
                graph,
                self.measured,
                query,
                scratch,
                above,
                self.ordinals,
                node,
                self.work.ef_construction,
            )
            node = scratch.beam.node(0)
            scratch.beam.arrange()
            self.choose(above, self.picks(worker, above), scratch)
        var walk = BeamSearch[Self.S, True](
            self.work.graph,
            rows,
            query,
            Pointer(to=scratch).unsafe_origin_cast[MutUntrackedOrigin](),
            0,
            self.nodes,
            0,
        )
        walk.begin(graph.row_of(node), self.work.ef_construction)
        _ = scratch.visited.first_visit(row)  # a neighbour that has seen it may lead here
        while walk.collect():
            walk.measure()
        self.look_around(row, worker, query, scratch)
        scratch.beam.arrange()
        self.choose(0, self.picks(worker, 0), scratch)

    def look_around(self, row: Int, worker: Int, query: Query, mut scratch: Scratch):
        """Adds the rows that others link at the moment."""
        ref shared = self.shared[]
        for other in range(shared.workers):
            if other == worker:
                continue
            var near = Atomic[UInt32].load[ordering=Ordering.SEQUENTIAL](
                shared.present.unsafe_offset(other * 2 * LINE).start
            )
            if near == EMPTY or not scratch.visited.first_visit(Int(near)):
                continue
            var found = entry_of(Self.S.key(query, self.work.rows, Int(near)), Int(near))
            scratch.distances += 1
            if found < scratch.beam.worst():
                scratch.beam.insert(found)

    def choose(self, level: Int, picks: Ptr[UInt32], mut scratch: Scratch):
        """Notes the diverse ones of the beam."""
        ref graph = self.work.graph[]
        scratch.selections += 1
        var kept = robust_prune[Self.S](
            graph,
            self.work.rows,
            level,
            scratch.beam.entries,
            considered[Self.S](graph, level, scratch.beam),
            own_links[Self.S](graph, level),
            scratch,
        )
        for i in range(kept):
            picks[unsafe_offset=i] = scratch.selected[unsafe_offset=i]
        picks[unsafe_offset=kept] = EMPTY

    def put(self, level: Int, node: Int, target: UInt32, worker: Int):
        """Puts a link into a free slot, if there is one."""
        ref graph = self.work.graph[]
        var block = graph.links(level, node)
        var i = 0
        while i < graph.cap(level):
            var held = UInt32(slot(block, i))
            if held == target:
                return
            if held == EMPTY and swap_slot(block, i, EMPTY, target):
                self.leave_one(block, i, graph.cap(level), target, worker)
                return
            if held != EMPTY:
                i += 1

    def leave_one(self, block: Ptr[UInt32], at: Int, cap: Int, target: UInt32, worker: Int):
        """Takes a link out again that another thread has put before it."""
        self.shared[].add(worker, SET)
        for i in range(at):
            if UInt32(slot(block, i)) == target:
                self.shared[].add(worker, DOUBLES)
                _ = swap_slot(block, at, target, EMPTY)
                return

    def link(
        self,
        level: Int,
        target: Int,
        node: Int,
        worker: Int,
        number: Int,
        nearest: Bool,
        mut scratch: Scratch,
    ) -> Int:
        """Sets a link target -> node, and returns how many slots of the block are used."""
        ref graph = self.work.graph[]
        ref shared = self.shared[]
        var block = graph.links(level, target)
        var cap = graph.cap(level)
        var seen = self.copy(worker, 0)
        for attempt in range(ATTEMPTS):
            if attempt != 0:
                shared.add(worker, RETRIES)
            var free = -1
            var used = 0
            var there = False
            for i in range(cap):
                var held = UInt32(slot(block, i))
                seen[unsafe_offset=i] = held
                there = there or held == UInt32(node)
                if held != EMPTY:
                    used += 1
                elif free < 0:
                    free = i
            if there:
                return used
            if free >= 0:
                if swap_slot(block, free, EMPTY, UInt32(node)):
                    self.leave_one(block, free, cap, UInt32(node), worker)
                    return used + 1
                continue
            var left = self.prune(level, target, node, block, worker, number, nearest, scratch)
            if left >= 0:
                return left
        shared.add(worker, LOST)
        return cap

    def prune(
        self,
        level: Int,
        target: Int,
        node: Int,
        block: Ptr[UInt32],
        worker: Int,
        number: Int,
        nearest: Bool,
        mut scratch: Scratch,
    ) -> Int:
        """Selects among the links that were read and a new one, and returns how many are left; -1 if others have changed the block.
        """
        ref graph = self.work.graph[]
        ref shared = self.shared[]
        var rows = self.work.rows
        var cap = graph.cap(level)
        var seen = self.copy(worker, 0)
        scratch.prunes += 1
        var room = scratch.room(Self.S.query_bytes(rows))
        var query = Self.S.query_of_row(rows, graph.row_at(level, target), room)
        var fresh = scratch.unvisited
        for i in range(cap + 1):
            var other = node if i == cap else Int(seen[unsafe_offset=i])
            prefetch_row(rows, graph.row_at(level, other))
            fresh[unsafe_offset=i] = Int64(other)
        if level == 0:
            measure_nodes[Self.S, True](graph, rows, query, fresh, cap + 1, cap + 1)
        else:
            measure_nodes[Self.S, False](graph, rows, query, fresh, cap + 1, cap + 1)
        scratch.pruning_candidates.reset(cap + 1)
        for i in range(cap + 1):
            scratch.pruning_candidates.insert(fresh[unsafe_offset=i])
        var kept = robust_prune[Self.S](
            graph,
            rows,
            level,
            scratch.pruning_candidates.entries,
            cap + 1,
            room_for(level, cap),
            scratch,
        )
        if nearest and not Self.S.many_links:
            kept = with_node(scratch.selected, kept, cap, node)
        var wanted = False
        for i in range(kept):
            wanted = wanted or Int(scratch.selected[unsafe_offset=i]) == node
        var used = cap
        for i in range(cap):
            var held = seen[unsafe_offset=i]
            var stays = False
            for j in range(kept):
                stays = stays or scratch.selected[unsafe_offset=j] == held
            if stays:
                continue
            if wanted:
                if swap_slot(block, i, held, UInt32(node)):
                    wanted = False
                    self.leave_one(block, i, cap, UInt32(node), worker)
                    shared.stop(WHILE_PRUNING, number)
            elif i != 0:  # a row whose first slot is empty takes no part
                if swap_slot(block, i, held, EMPTY):
                    used -= 1
        return -1 if wanted else used

    def fill(self, row: Int, nearest: Int, far: Bool, worker: Int, mut scratch: Scratch):
        """Fills free slots of a row by what is two links away."""
        ref graph = self.work.graph[]
        var block = graph.links(0, row)
        var cap = graph.cap(0)
        var mine = self.copy(worker, 1)
        var found = self.copy(worker, 2)
        var used = 0
        for i in range(cap):
            var held = UInt32(slot(block, i))
            found[unsafe_offset=i] = EMPTY
            if held != EMPTY:
                mine[unsafe_offset=used] = held
                used += 1
        if used == 0 or used >= cap - LEFT_FREE:
            return
        self.collect(row, mine, used, nearest, scratch)
        var task = FindMissingLinks[Self.S](self.work, mine, found, far, nearest)
        task.choose(row, mine, used, found, scratch)
        for i in range(cap):
            if found[unsafe_offset=i] == EMPTY:
                break
            self.put(0, row, found[unsafe_offset=i], worker)

    def collect(self, row: Int, mine: Ptr[UInt32], used: Int, nearest: Int, mut scratch: Scratch):
        """Leaves the nearest rows two links away in the beam; `FindMissingLinks.collect` of links that were copied.
        """
        ref graph = self.work.graph[]
        var rows = self.work.rows
        var cap = graph.cap(0)
        var room = scratch.room(Self.S.query_bytes(rows))
        scratch.visited.reset(self.nodes)
        scratch.beam.reset(nearest)
        var query = Self.S.query_of_row(rows, row, room)
        _ = scratch.visited.first_visit(row)
        for i in range(used):
            _ = scratch.visited.first_visit(Int(mine[unsafe_offset=i]))
            prefetch_links(graph, 0, Int(mine[unsafe_offset=i]))
        var waiting = 0
        var through = min(used, THROUGH)
        for i in range(through):
            var next = graph.links(0, Int(mine[unsafe_offset=i]))
            for j in range(cap):
                var other = slot(next, j)
                if other < self.nodes and scratch.visited.first_visit(other):
                    prefetch_row(rows, other)
                    scratch.unvisited[unsafe_offset=waiting] = Int64(other)
                    waiting += 1
            if waiting < HOP_ROOM - cap and i + 1 < through:
                continue
            measure_nodes[Self.S, True](graph, rows, query, scratch.unvisited, waiting, waiting)
            for j in range(waiting):
                var entry = scratch.unvisited[unsafe_offset=j]
                if entry < scratch.beam.worst():
                    scratch.beam.insert(entry)
            waiting = 0
