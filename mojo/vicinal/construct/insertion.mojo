"""Insertion in rounds: rows search a graph that stands still, then each target of new links is changed by one owner.

A round holds at most a small share of the rows already linked, and a row sees those of its round that come right before it as well as
what its walk finds: what depends on rows that come one after the other is as if they had come one by one.
Nothing depends on the order in which threads finish: the same rows, seed and parameters give the same links for any
number of threads. Source: batch insertion with prefix doubling, ParlayANN (PPoPP 2024), arXiv:2305.04359.
"""
from vicinal.construct.build_statistics import LINK_BACK, ROUNDS, ROWS, SEARCH
from vicinal.construct.link_measure import LinkMeasure, prune
from vicinal.construct.merge_order import StartNodes
from vicinal.construct.passes import Passes
from vicinal.construct.prune import (
    CONSIDERED,
    considered,
    own_links,
    room_for,
    with_node,
)
from vicinal.construct.round import LARGEST_ROUND, Members, Round
from vicinal.construct.work import LinkWork, NewRows
from vicinal.graph.links import EMPTY
from vicinal.graph.undo import STRIPES
from vicinal.kernels.any_distance import AnyDistance, AnyLink
from vicinal.kernels.candidates import entry_of
from vicinal.kernels.measure_rows import HopDistance
from vicinal.kernels.space import Query, prefetch_row
from vicinal.system.atomics import store_release, publish
from vicinal.system.clock import now
from vicinal.system.memory import Ptr, at
from vicinal.system.outcome import DONE, NO_MEMORY, Outcome, STOPPED
from vicinal.system.parallel import Body, Unwatched, Watch
from vicinal.walk.beam_search import BeamSearch, descend, measure_nodes, search_level
from vicinal.walk.interleaved import (
    MAX_SEARCHES,
    InterleavedSearches,
    run_interleaved,
    walks_in_flight,
)
from vicinal.walk.scratch import Scratch

comptime ROUND_SHARE = 256
"""A round holds 1 / ROUND_SHARE of the rows present: 0.4 %, which costs less than 0.001 of recall."""
comptime SIGHT = 128
"""Rows of its round that a row sees, those right before it: all of a round while there are up to 32,768 rows."""
comptime PIECE = 4 * MAX_SEARCHES
"""Most rows that a worker takes at once."""
comptime PIECES = 8
"""Pieces of a round for each worker, of rows that are walked for one after the other."""
comptime FEW = 4
"""Rounds of no more rows link back on one thread: waking the others would take longer."""


@fieldwise_init
struct FindNeighbors(Body):
    """First half of a round: each new row searches the graph and writes its own links, which nobody follows yet.
    """

    var round: Round
    var done: Int
    """Rows linked by this call in rounds before."""
    var seeds: StartNodes
    """Where else than at the entry point walks can start."""
    var lanes: Int
    """Walks under way at once."""
    var upper_only: Bool
    """Whether nothing is done on level 0."""

    def run(self, begin: Int, end: Int, worker: Int):
        """Does rows number begin .. end-1."""
        at[LinkMeasure](self.round.work.rows.norms)[].find(
            Int(Pointer(to=self)),
            begin,
            end,
            self.round.work.scratches.unsafe_offset(worker * MAX_SEARCHES),
        )

    def no_search(self, scratch: Ptr[Scratch]) -> BeamSearch[True]:
        """Returns a walk that is never made."""
        return BeamSearch[True](
            self.round.work.graph, self.round.work.rows, Query(0, 1), scratch, 0, 0, 0
        )

    @no_inline
    def start(self, number: Int, scratch: Ptr[Scratch]) -> BeamSearch[True]:
        """Selects the links of one row on its upper levels, then starts its walk on level 0."""
        var round = self.round
        ref graph = round.work.graph[]
        var room = scratch[].room(AnyLink.query_bytes(round.work.rows))
        if scratch[].failed():
            scratch[].beam.reset(1)  # nothing in it: the walk is done
            return self.no_search(scratch)
        var query = AnyLink.query_of_row(round.work.rows, round.row(number), room)
        if not self.upper_only:
            self.look_around(number, query, scratch[])
        if self.seeds.any():
            var position = self.done + number
            if position >= self.seeds.first:
                var count = self.seeds.placed(position, self.done, scratch[].selected)
                if count != 0:
                    return self.start_near(count, query, scratch)
        var highest = min(round.level(number), graph.top())
        var node = descend(
            graph,
            round.work.rows,
            query,
            scratch[],
            round.ordinals,
            graph.linked,
            graph.entry,
            highest,
        )
        for level in range(highest, 0, -1):
            search_level[False](
                graph,
                round.work.rows,
                query,
                scratch[],
                level,
                round.ordinals,
                node,
                round.work.ef_construction,
            )
            node = scratch[].beam.node(0)
            self.look_around_above(level, number, query, scratch[])
            self.choose(level, number, scratch[])
        if self.upper_only:
            scratch[].beam.reset(1)  # nothing in it: the walk is done
            return self.no_search(scratch)
        var walk = BeamSearch[True](
            round.work.graph, round.work.rows, query, scratch, 0, graph.linked, 0
        )
        walk.begin(graph.row_of(node), round.work.ef_construction)
        return walk

    def look_around(self, number: Int, query: Query, mut scratch: Scratch):
        """Leaves the nearest rows of the round in `scratch.pruning_candidates`."""
        var round = self.round
        ref chosen = scratch.pruning_candidates
        var first = max(number - SIGHT, 0)
        var fresh = scratch.unvisited
        chosen.reset(CONSIDERED * round.work.graph[].M)
        if scratch.failed():
            return
        for i in range(first, number):
            fresh[unsafe_offset=i - first] = Int64(round.row(i))
        var count = number - first
        # their own walks have just used them, or will
        measure_nodes[True](round.work.graph[], round.work.rows, query, fresh, count, count)
        for i in range(count):
            if fresh[unsafe_offset=i] < chosen.worst():
                chosen.insert(fresh[unsafe_offset=i])
        scratch.distances += count

    def look_around_above(self, level: Int, number: Int, query: Query, mut scratch: Scratch):
        """Adds rows of the round to the beam of a level above 0."""
        var round = self.round
        ref beam = scratch.beam
        for i in range(max(number - SIGHT, 0), number):
            if round.level(i) >= level:
                var key = AnyDistance.key(query, round.work.rows, round.row(i))
                var entry = entry_of(key, round.ordinal(i))
                if entry < beam.worst():
                    beam.insert(entry)
                scratch.distances += 1
        beam.arrange()

    def start_near(self, count: Int, query: Query, scratch: Ptr[Scratch]) -> BeamSearch[True]:
        """Starts a walk on level 0 from the `count` rows in `scratch.selected`, which are candidates whatever it finds.
        """
        var round = self.round
        ref graph = round.work.graph[]
        ref beam = scratch[].beam
        beam.reset(min(self.seeds.width, graph.linked))
        scratch[].visited.reset(graph.linked)
        if scratch[].failed():
            return self.no_search(scratch)
        var fresh = scratch[].unvisited
        var seeds = 0
        for i in range(count):
            var near = Int(scratch[].selected[unsafe_offset=i])
            if scratch[].visited.first_visit(near):
                prefetch_row(round.work.rows, near)
                fresh[unsafe_offset=seeds] = Int64(near)
                seeds += 1
        measure_nodes[True](graph, round.work.rows, query, fresh, seeds, seeds)
        for i in range(seeds):
            var entry = fresh[unsafe_offset=i]
            if entry < beam.worst():
                beam.insert(entry)
            if entry < scratch[].pruning_candidates.worst():
                scratch[].pruning_candidates.insert(entry)
        scratch[].distances += seeds
        return BeamSearch[True](
            round.work.graph, round.work.rows, query, scratch, 0, graph.linked, 0
        )

    @no_inline
    def finish(self, number: Int, mut scratch: Scratch):
        """Selects the links of a row on level 0."""
        if scratch.failed() or self.upper_only:
            return
        if self.seeds.any():
            self.take_start_nodes(scratch)
        else:
            ref beam = scratch.beam
            for i in range(scratch.pruning_candidates.size):
                var entry = scratch.pruning_candidates.entries[unsafe_offset=i]
                if entry >= beam.worst():
                    break
                beam.insert(entry)
            beam.arrange()
        self.choose(0, number, scratch)

    def take_start_nodes(self, mut scratch: Scratch):
        """Adds what the walk has started from, and rows of the round, to what is left of it in the beam, and leaves all in the beam.
        """
        ref beam = scratch.beam
        ref chosen = scratch.pruning_candidates
        for i in range(beam.size):
            var entry = beam.entries[unsafe_offset=i] & ~1
            if entry >= chosen.worst():
                break
            var known = False
            for j in range(chosen.size):
                if chosen.entries[unsafe_offset=j] == entry:
                    known = True
                    break
            if not known:
                chosen.insert(entry)
        beam.reset(chosen.size)
        for i in range(chosen.size):
            beam.insert(chosen.entries[unsafe_offset=i])

    def choose(self, level: Int, number: Int, mut scratch: Scratch):
        """Notes the diverse ones of the beam, and writes them into the row's own block."""
        ref graph = self.round.work.graph[]
        scratch.selections += 1
        var kept = prune(
            graph,
            self.round.work.rows,
            level,
            scratch.beam.entries,
            considered(graph, self.round.work.rows, level, scratch.beam),
            own_links(graph, self.round.work.rows, level),
            scratch,
        )
        var block = graph.links(level, self.round.node(number, level))
        var picked = self.round.selected(number, level)
        for i in range(kept):
            block[unsafe_offset=i] = scratch.selected[unsafe_offset=i]
            picked[unsafe_offset=i] = scratch.selected[unsafe_offset=i]
        if kept < self.round.most_links:
            picked[unsafe_offset=kept] = EMPTY


@fieldwise_init
struct _FindBy[M_: HopDistance](InterleavedSearches):
    """The walks of `FindNeighbors`, by one way of measuring."""

    comptime M = Self.M_
    comptime W = BeamSearch[True]
    comptime State = Int

    var find: Ptr[FindNeighbors]

    def no_state(self) -> Int:
        """Returns no row."""
        return -1

    def no_search(self, scratch: Ptr[Scratch]) -> Self.W:
        """Returns a walk that is never made."""
        return self.find[].no_search(scratch)

    def start(self, number: Int, scratch: Ptr[Scratch], mut note: Int) -> Self.W:
        """Starts the walk of a row."""
        note = number
        return self.find[].start(number, scratch)

    def finish(self, walk: Self.W, number: Int, mut scratch: Scratch):
        """Selects the links of a row on level 0."""
        self.find[].finish(number, scratch)


def find_neighbors[M: HopDistance](find: Int, begin: Int, end: Int, scratches: Ptr[Ptr[Scratch]]):
    """Does rows number begin .. end-1 of the `FindNeighbors` at an address."""
    var searches = _FindBy[M](at[FindNeighbors](find))
    run_interleaved(searches, begin, end, scratches, searches.find[].lanes)


@fieldwise_init
struct AddBackEdges(Body):
    """Second half of a round: the reverse links. Item p changes the blocks of nodes with node % STRIPES == p only.
    """

    var round: Round

    def run(self, begin: Int, end: Int, worker: Int):
        """Goes through the round's rows in order once for each owner."""
        var round = self.round
        ref scratch = round.work.scratches[unsafe_offset=worker * MAX_SEARCHES][]
        for part in range(begin, end):
            for number in range(round.count):
                for level in range(round.level(number) + 1):
                    var node = round.node(number, level)
                    var picked = round.selected(number, level)
                    for i in range(round.most_links):
                        var target = picked[unsafe_offset=i]
                        if target == EMPTY:
                            break
                        if Int(target) % STRIPES == part:
                            self.link(level, Int(target), node, part, scratch, i == 0)

    def link(
        self,
        level: Int,
        target: Int,
        node: Int,
        part: Int,
        mut scratch: Scratch,
        nearest: Bool = False,
    ):
        """Adds one link target -> node, pruning the target's block when it is full.

        The target that is nearest to a new row takes it whatever else it links to: who else would lead to a row far from all? Not
        so with inner products, where one target is nearest to a large part of all rows.
        """
        var rows = self.round.work.rows
        ref graph = self.round.work.graph[]
        var block = graph.links(level, target)
        if not self.round.work.log[].keep(graph, level, target, part):
            return
        var cap = graph.cap(level)
        for i in range(cap):
            if block[unsafe_offset=i] == EMPTY:
                publish(block.unsafe_offset(i), node)
                return
        scratch.prunes += 1
        var centre = graph.row_at(level, target)
        var room = scratch.room(AnyLink.query_bytes(rows))
        if scratch.failed():
            return
        var query = AnyLink.query_of_row(rows, centre, room)
        var fresh = scratch.unvisited
        for i in range(cap + 1):
            var other = node if i == cap else Int(block[unsafe_offset=i])
            prefetch_row(rows, graph.row_at(level, other))
            fresh[unsafe_offset=i] = Int64(other)
        if level == 0:
            measure_nodes[True](graph, rows, query, fresh, cap + 1, cap + 1)
        else:
            measure_nodes[False](graph, rows, query, fresh, cap + 1, cap + 1)
        scratch.pruning_candidates.reset(cap + 1)
        if scratch.failed():
            return
        for i in range(cap + 1):
            scratch.pruning_candidates.insert(fresh[unsafe_offset=i])
        var wanted = room_for(level, cap)
        var kept = prune(
            graph, rows, level, scratch.pruning_candidates.entries, cap + 1, wanted, scratch
        )
        if scratch.failed():
            return
        if nearest and not AnyLink.many_links(rows):
            kept = with_node(scratch.selected, kept, cap, node)
        for i in range(kept):
            publish(block.unsafe_offset(i), Int(scratch.selected[unsafe_offset=i]))
        for i in range(kept, cap):
            publish(block.unsafe_offset(i), Int(EMPTY))


@no_inline
def link_rows[
    V: Watch
](work: LinkWork, new: NewRows, mut watch: V, upper_only: Bool = False) -> Outcome:
    """Links rows, and gives blocks to all rows below `new.until`.

    Args:
        work: What it is done with.
        new: The rows.
        watch: May end the work early.
        upper_only: Whether nothing is done on level 0; all rows reach higher then.

    Returns:
        DONE; or STOPPED or NO_MEMORY, and then the caller undoes.
    """
    ref graph = work.graph[]
    ref team = work.team[]
    ref statistics = work.statistics[]
    var unwatched = Unwatched()
    var passes = Passes(work.seed, new.places, new.count, new.seeds.any())
    var most_links = own_links(graph, work.rows, 0)
    var members = Members(min(new.count, LARGEST_ROUND), most_links)
    if passes.failed or members.failed() or work.log[].failed():
        return NO_MEMORY
    var ordinals = graph.ordinals
    if not graph.reserve(new.until, new.levels, graph.linked):
        return NO_MEMORY
    var done = 0
    var time = now()
    while done < new.count:
        var present = new.present + done
        var size = min(max(present // ROUND_SHARE, 1), LARGEST_ROUND)
        size = min(size, max(passes.end(done) - done, SIGHT), new.count - done)
        var here = passes.places.unsafe_offset(done)
        if not members.take(graph, here, size):
            return NO_MEMORY
        watch.advance(done)
        if not watch.proceed(0):  # rounds of one row are pieces that nobody asks about
            return STOPPED
        var round = Round(
            work, here, members.own, members.starts, members.picks, most_links, size, ordinals
        )
        if present > 0:
            var walked = present * (work.rows.stride + graph.slots_at(0) * 4)
            var lanes = walks_in_flight(walked, MAX_SEARCHES)
            # of small pieces nobody is left with much to do when the others have finished
            var piece = max(min(PIECE, size // (2 * team.size())), 1)
            if lanes == 1:
                piece = max(min(PIECE, size // (PIECES * team.size())), 1)
            var find = FindNeighbors(round, done, new.seeds, lanes, upper_only)
            if not team.run(size, piece, find, watch):
                return STOPPED
            time = statistics.add_elapsed(SEARCH, time)
            var back = AddBackEdges(round)
            _ = team.run(STRIPES, 1 if size > FEW else STRIPES, back, unwatched)
            time = statistics.add_elapsed(LINK_BACK, time)
            if work.out_of_memory():
                return NO_MEMORY
        store_release(graph.linked, new.until)
        ordinals = graph.ordinals
        for i in range(size):
            if round.ordinal(i) >= 0:
                if present == 0:  # the entry point may be that of a graph that is made anew
                    graph.entry = round.ordinal(0)
                graph.raise_entry(round.ordinal(i))
        done += size
        statistics.add(ROUNDS, 1)
        statistics.add(ROWS, size)
    store_release(graph.linked, new.until)
    _ = passes^
    _ = members^
    return DONE
