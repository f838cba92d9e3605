"""Answering a query: through the graph, or by a scan of all rows."""
from vicinal.exact.request import SearchRequest
from vicinal.index.snapshot import Snapshot
from vicinal.index.vector_index import Index
from vicinal.kernels.any_distance import AnyDistance
from vicinal.kernels.candidates import WIDE, Candidates
from vicinal.kernels.measure_rows import HopDistance
from vicinal.kernels.space import IP, Query, Rows
from vicinal.search.remeasure import ask_for_first, expanded_for, kept_for, measure_in_order
from vicinal.search.stored_space import (
    ON_ROWS,
    StoredSpace,
    WalkTask,
    estimates,
    measured,
    on_way,
)
from vicinal.system.atomics import load_acquire
from vicinal.system.memory import Ptr, at
from vicinal.system.outcome import DONE, FINE, Outcome
from vicinal.system.parallel import Body
from vicinal.system.point import point, touches
from vicinal.walk.arrivals import Arrivals
from vicinal.walk.beam_search import BeamSearch, start_beam_search
from vicinal.walk.interleaved import InterleavedSearches, run_interleaved
from vicinal.walk.scratch import Scratch

comptime PIECE = 32
"""Queries of a piece."""


@fieldwise_init
struct QueryState(TrivialRegisterPassable):
    """A query whose walk is under way."""

    var number: Int
    """Which query."""
    var query: Query
    """For measuring stored rows."""
    var prepared: Query
    """For measuring what is walked on."""
    var before: Int
    """Distances that its scratch had measured before."""


def refused(stored: StoredSpace, request: SearchRequest, dim: Int) -> Outcome:
    """Checks queries.

    Returns:
        DONE, or the refusal of the first bad one.
    """
    for i in range(request.count):
        var found = stored.inspect(stored.place(request.queries, i, dim), dim)
        if found != FINE:
            return Outcome.refusal(i, found)
    return DONE


@fieldwise_init
struct Answer(Body):
    """Answers queries that have been checked."""

    var index: Ptr[Index]
    var stored: StoredSpace
    var request: SearchRequest
    var scratches: Ptr[Ptr[Scratch]]
    """`lanes` for each worker."""
    var lanes: Int
    """Searches that a worker has under way at once."""

    def run(self, begin: Int, end: Int, worker: Int):
        """Answers queries begin .. end-1, all of them from one snapshot, taken now."""
        ref index = self.index[]
        index.readers.renew(self.scratches[unsafe_offset=worker * self.lanes])
        var snapshot = index.snapshot()
        self.answer(begin, end, worker, snapshot)

    def answer(self, begin: Int, end: Int, worker: Int, snapshot: Snapshot):
        """Answers queries begin .. end-1 from a snapshot."""
        var scratches = self.scratches.unsafe_offset(worker * self.lanes)
        ref scratch = scratches[][]
        scratch.queries += end - begin
        if snapshot.rows_on_disk:
            for lane in range(self.lanes):
                scratches[unsafe_offset=lane][].reads_from(
                    snapshot.rows, True, snapshot.row_file, scratches[]
                )
        if snapshot.exact(max(self.request.k, self.request.ef)):
            for i in range(begin, end):
                var query = self.query(i, scratch)
                if scratch.failed():
                    return
                self.scan_for(i, query, snapshot, scratch)
            return
        var first = begin
        while first < end:
            var way = self.way(first, snapshot, scratch)
            var last = first + 1
            while last < end and self.way(last, snapshot, scratch) == way:
                last += 1
            var walks = _Walks(
                Pointer(to=self).unsafe_mut_cast[True]().unsafe_origin_cast[MutUntrackedOrigin](),
                snapshot,
                way,
                measured(way, self.stored, snapshot.walked(way != ON_ROWS), scratch.walked),
                first,
                last,
                scratches,
            )
            on_way(way, self.stored.metric, self.stored.dtype, walks)
            first = last

    @always_inline
    def width(self, exact: Bool) -> Int:
        """Returns how many candidates are expanded."""
        return max(self.request.k if exact else expanded_for(self.request.k), self.request.ef)

    @always_inline
    def kept(self, exact: Bool) -> Int:
        """Returns how many candidates are kept: more than are expanded where those have to be measured again.
        """
        var width = self.width(exact)
        return width if exact else kept_for(self.request.k, width)

    @always_inline
    def given(self, i: Int) -> Int:
        """Returns the address of query i as it was given."""
        return self.stored.place(self.request.queries, i, self.index[].dim)

    @always_inline
    def query(self, i: Int, mut scratch: Scratch) -> Query:
        """Returns query i for measuring stored rows. Worth nothing if the scratch has failed."""
        return self.stored.query(self.given(i), self.index[].dim, scratch)

    @always_inline
    def way(self, i: Int, snapshot: Snapshot, mut scratch: Scratch) -> Int:
        """Decides what the walk of query i measures."""
        return self.stored.way(self.given(i), self.index[].dim, snapshot, scratch)

    # what follows is once a query, and the same whatever its walk measures

    @no_inline
    def prepare(
        self, number: Int, way: Int, snapshot: Snapshot, mut scratch: Scratch
    ) -> QueryState:
        """Prepares a query for its walk; worth nothing if the scratch has failed."""
        var query = self.query(number, scratch)
        var prepared = self.stored.prepare_for(
            way, snapshot.codes[], query, self.index[].dim, scratch
        )
        return QueryState(number, query, prepared, scratch.distances)

    @no_inline
    def may_end_early(self, way: Int, snapshot: Snapshot) -> Bool:
        """Tells whether distances say that nothing nearer is to come before a walk's last candidate.
        """
        # products have no zero to be near to; rows that are not seen would pass for the nearest; codes of the first
        # elements tell little about how far the others are
        var whole = way == ON_ROWS or snapshot.codes[].walked == self.index[].dim
        return self.stored.metric != IP and whole and not snapshot.hides()

    @no_inline
    def end_early(self, by_rule: Bool, mut scratch: Scratch):
        """Lets a walk that begins end before its last candidate, by the rule that was asked for or by its width.
        """
        if by_rule:
            var rule = self.request.rule
            scratch.beam.end_beyond(self.request.k, rule.factor(), rule.expanded(self.request.ef))
        else:
            scratch.beam.end_early(self.request.k)

    @no_inline
    def finish(self, task: QueryState, way: Int, snapshot: Snapshot, mut scratch: Scratch):
        """Writes the result of a walk that is done; estimated candidates are measured again first.
        """
        if scratch.failed():
            return  # who made the call looks for it, too
        var found = not snapshot.hides() or self.drop_invisible(task, way, snapshot, scratch)
        if found:
            if estimates(way):
                _ = measure_in_order(
                    self.stored.metric,
                    self.stored.measured(snapshot.rows, scratch.stored),
                    snapshot.rows_on_disk,
                    task.query,
                    scratch,
                    self.request.k,
                )
                found = self.write_found(
                    task.number, scratch.pruning_candidates, scratch.beam, ON_ROWS, snapshot
                )
            else:
                found = self.write_found(
                    task.number, scratch.beam, scratch.pruning_candidates, way, snapshot
                )
        if not found:
            self.scan_for(task.number, task.query, snapshot, scratch)
        if self.request.work != 0:
            at[Int64](self.request.work)[unsafe_offset=task.number] = Int64(
                scratch.distances - task.before
            )

    @no_inline
    def drop_invisible(
        self, task: QueryState, way: Int, snapshot: Snapshot, mut scratch: Scratch
    ) -> Bool:
        """Takes rows that are not seen out of a walk's result, and walks again if they have taken the places of others.

        In the end the beam holds as many rows that are seen as one of the width asked for would, were the others not there.

        Returns:
            False if a scan of all rows is cheaper than to walk again.
        """
        ref index = self.index[]
        var known = snapshot.known(way != ON_ROWS)
        var wanted = self.kept(not estimates(way))
        var spare = wanted - self.width(not estimates(way))
        while True:
            var limit = scratch.beam.limit
            var full = scratch.beam.size == limit
            index.duplicates.sweep(snapshot.visible, scratch.beam)
            var found = scratch.beam.size
            var most = min(wanted + load_acquire(index.states.shaded), known)
            if found >= wanted or not full or limit >= most:
                return True
            # as many as there would be wanted ones among if their share is what it was so far, and some
            limit = min(max(2 * limit, limit * wanted * 5 // (4 * max(found, 1))), most)
            if snapshot.exact(limit):
                return False
            var walk = start_beam_search(
                snapshot.graph,
                measured(way, self.stored, snapshot.walked(way != ON_ROWS), scratch.walked),
                known,
                task.prepared,
                Pointer(to=scratch).unsafe_origin_cast[MutUntrackedOrigin](),
                limit - spare,
                limit,
            )
            while walk.collect():
                walk.measure_apart()

    @no_inline
    def scan_for(self, i: Int, query: Query, snapshot: Snapshot, mut scratch: Scratch):
        """Answers query i by a scan of all rows."""
        scratch.scans += 1
        scratch.distances += snapshot.live
        scratch.beam.reset(max(min(self.request.k, snapshot.live), 1))
        var rows = snapshot.rows  # copies: stores to the beam might otherwise change them
        var visible = snapshot.visible
        self.stored.scan(rows, snapshot.rows_on_disk, visible, query, scratch.beam)
        self.write(i, scratch.beam, ON_ROWS)

    def write_found(
        self, i: Int, nearest: Candidates, mut room: Candidates, way: Int, snapshot: Snapshot
    ) -> Bool:
        """Writes the result of query i, found through the graph, with the copies of what was found.

        Returns:
            False if there are more rows than were found: beside a writer some may not be reached for a while.
        """
        ref duplicates = self.index[].duplicates
        var found = nearest.size
        if duplicates.known() == 0 and not snapshot.hides():
            self.write(i, nearest, way)
        else:
            duplicates.expand(nearest, room, self.request.k, snapshot.visible)
            self.write(i, room, way)
            found = room.size
        return found >= self.request.k or found >= snapshot.live

    def write(self, i: Int, nearest: Candidates, way: Int):
        """Writes the result of query i, whose keys are exact and of what was walked on."""
        var found = min(self.request.k, nearest.size)
        var ids = self.request.ids.unsafe_offset(i * self.request.k)
        var distances = self.request.distances.unsafe_offset(i * self.request.k)
        var known = at[Int64](load_acquire(self.index[].ids.column.address)) if found != 0 else ids
        for j in range(found):
            point["read an id"]()
            touches["read an id"](nearest.node(j))
            ids[unsafe_offset=j] = known[unsafe_offset=nearest.node(j)]
        self.stored.values_on(way)(nearest, found, distances)
        for j in range(found, self.request.k):
            ids[unsafe_offset=j] = -1
            distances[unsafe_offset=j] = Float32.MAX  # infinity


@fieldwise_init
struct _Walks(WalkTask):
    """Answers queries through the graph, all on the same way."""

    var answer: Ptr[Answer]
    var snapshot: Snapshot
    var way: Int
    var rows: Rows
    var begin: Int
    var end: Int
    var scratches: Ptr[Ptr[Scratch]]

    def run[M: HopDistance](mut self):
        """Answers them."""
        var searches = PlainSearches[M](
            self.answer,
            self.snapshot,
            self.way,
            self.rows,
            self.snapshot.known(self.way != ON_ROWS),
        )
        run_interleaved(searches, self.begin, self.end, self.scratches, self.answer[].lanes)


@fieldwise_init
struct PlainSearches[M_: HopDistance = AnyDistance](InterleavedSearches):
    """Queries answered through the graph, by walks on the stored rows or on codes."""

    comptime M = Self.M_
    comptime W = BeamSearch[True]
    comptime State = QueryState

    var answer: Ptr[Answer]
    var snapshot: Snapshot
    var way: Int
    var rows: Rows
    """What is walked on."""
    var known: Int
    """Rows that walks may meet: those that `rows` holds for certain."""

    def no_state(self) -> QueryState:
        """Returns no task."""
        return QueryState(0, Query(0, 1), Query(0, 1), 0)

    @always_inline
    def no_search(self, scratch: Ptr[Scratch]) -> Self.W:
        """Returns a walk that is never made."""
        return Self.W(self.snapshot.graph, self.rows, Query(0, 1), scratch, 0, 0, 0)

    def start(self, number: Int, scratch: Ptr[Scratch], mut task: QueryState) -> Self.W:
        """Prepares a query and starts its walk."""
        ref answer = self.answer[]
        task = answer.prepare(number, self.way, self.snapshot, scratch[])
        if scratch[].failed():
            scratch[].beam.reset(1)  # nothing in it: the walk is done
            return self.no_search(scratch)
        var extra = answer.index[].states.extra_width()
        var width = answer.width(not estimates(self.way)) + extra
        var kept = answer.kept(not estimates(self.way)) + extra
        var early = answer.may_end_early(self.way, self.snapshot)
        var held = answer.request.rule.held
        var by_rule = early and held > width and max(held, kept) <= WIDE
        var walk = start_beam_search(
            self.snapshot.graph,
            self.rows,
            self.known,
            task.prepared,
            scratch,
            held if by_rule else width,
            max(held, kept) if by_rule else kept,
        )
        if early:
            answer.end_early(by_rule, scratch[])
        return walk

    @always_inline
    def wait(self, task: QueryState, mut scratch: Scratch) -> Bool:
        """Asks for the rows of a walk that is done, if they may be on disk; others can go on while they come.
        """
        if not self.snapshot.rows_on_disk or not estimates(self.way) or self.snapshot.hides():
            return False
        return not scratch.failed() and ask_for_first(
            self.snapshot.rows, scratch, self.answer[].request.k
        )

    @always_inline
    def has_come(self, task: QueryState, mut scratch: Scratch) -> Bool:
        """Tells whether all rows have come that a ring was asked for."""
        if scratch.lead == 0 or scratch.own_arrivals == 0:
            return False
        ref arrivals = at[Arrivals](scratch.own_arrivals)[]
        if arrivals.requests == 0:
            return False
        if arrivals.waiting[] != 0:
            scratch.ring()[].collect()
        return arrivals.waiting[] == 0

    @always_inline
    def finish(self, walk: Self.W, task: QueryState, mut scratch: Scratch):
        """Writes the result of a walk that is done."""
        self.answer[].finish(task, self.way, self.snapshot, scratch)
