"""Answering queries that may return allowed rows only: always min(k, allowed) of them."""
from vicinal.exact.request import SearchRequest
from vicinal.index.filter_statistics import AFTER_WALK, BY_BEAM, BY_SCAN, BY_TWO_HOP, FILTER_COUNTS
from vicinal.index.vector_index import Index
from vicinal.kernels.measure_rows import HopDistance
from vicinal.kernels.space import Query, Rows
from vicinal.quantization.estimate_error import EstimateError
from vicinal.search.answer import PIECE, Answer, refused
from vicinal.search.filter import EVERYTHING, SCAN, TWO_HOP, Filter, FilterChoice
from vicinal.search.filtered_scan import EachRow, WithinLimit, expand_allowed, scan_allowed
from vicinal.search.filtered_walk import COMPLETE, SPARSE, FilteredWalk, walk_two_hop
from vicinal.search.remeasure import kept_for, measure_in_order
from vicinal.search.stored_space import (
    ON_ROWS,
    StoredSpace,
    WalkTask,
    estimates,
    measured,
    on_codes,
)
from vicinal.system.memory import Ptr, allocate, release
from vicinal.system.outcome import DONE, NO_MEMORY, Outcome, STOPPED
from vicinal.system.parallel import Body, Team, Watch
from vicinal.walk.beam_search import BeamSearch
from vicinal.walk.interleaved import (
    MEMORY_SEARCHES,
    InterleavedSearches,
    run_interleaved,
    walks_in_flight,
)
from vicinal.walk.scratch import Scratch, any_failed

comptime LEAST_SCANNED = 32
"""So few allowed rows are measured one and all."""
comptime Counts = Array[Int, FILTER_COUNTS]


@fieldwise_init
struct FilteredQuery(TrivialRegisterPassable):
    """A query whose walk is under way."""

    var number: Int
    """Which query."""
    var query: Query
    """For measuring stored rows."""
    var prepared: Query
    """For measuring what is walked on."""


@fieldwise_init
struct AnswerFiltered(Body):
    """Answers queries that have been checked, each with its filter, all from the snapshot that the filters were made of.
    """

    var plain: Answer
    """Does what needs no filter."""
    var choice: FilterChoice

    def run(self, begin: Int, end: Int, worker: Int):
        """Answers queries begin .. end-1, neighbouring ones that make walks of one kind side by side.
        """
        var counts = Counts(fill=0)
        var scratches = self.plain.scratches.unsafe_offset(worker * self.plain.lanes)
        ref scratch = scratches[][]
        var snapshot = self.choice.snapshot
        for lane in range(self.plain.lanes):
            scratches[unsafe_offset=lane][].reads_from(
                snapshot.rows, snapshot.rows_on_disk, snapshot.row_file, scratches[]
            )
        var first = begin
        while first < end:
            var last = first + 1
            var plan = self.choice.of(first).plan
            if plan == SCAN:
                scratch.queries += 1
                self.scan(first, scratch, counts)
            elif plan == EVERYTHING:
                while last < end and self.choice.of(last).plan == EVERYTHING:
                    last += 1
                self.plain.answer(first, last, worker, snapshot)
            else:
                var way = self.plain.way(first, snapshot, scratch)
                while (
                    last < end
                    and self.choice.of(last).walks()
                    and self.plain.way(last, snapshot, scratch) == way
                ):
                    last += 1
                scratch.queries += last - first
                self.walk(first, last, way, scratches, counts)
            first = last
        for i in range(FILTER_COUNTS):
            self.plain.index[].filter_statistics.add(i, counts[i])

    def walk(
        self, begin: Int, end: Int, way: Int, scratches: Ptr[Ptr[Scratch]], mut counts: Counts
    ):
        """Answers queries begin .. end-1 through the graph."""
        var walks = _FilteredWalks(
            Pointer(to=self).unsafe_mut_cast[True]().unsafe_origin_cast[MutUntrackedOrigin](),
            way,
            measured(
                way,
                self.plain.stored,
                self.choice.snapshot.walked(way != ON_ROWS),
                scratches[][].walked,
            ),
            begin,
            end,
            scratches,
            Pointer(to=counts).unsafe_origin_cast[MutUntrackedOrigin](),
        )
        on_codes(way, self.plain.stored.metric, self.plain.stored.dtype, walks)

    @always_inline
    def kept(self, way: Int, filter: Filter) -> Int:
        """Returns how many allowed rows a walk, or a scan on codes, collects."""
        var k = self.plain.request.k
        var kept = kept_for(k, self.plain.width(False)) if estimates(way) else k
        return min(kept, filter.matches)

    @no_inline
    def finish(
        self, task: FilteredQuery, walked: Int, way: Int, mut scratch: Scratch, mut counts: Counts
    ):
        """Writes the result of a walk that has ended as `walked` says, or goes on in another way if it has found too little.
        """
        if scratch.failed():
            return  # who made the call looks for it, too
        ref index = self.plain.index[]
        ref filter = self.choice.of(task.number)
        var snapshot = self.choice.snapshot
        var k = self.plain.request.k
        var kept = self.kept(way, filter)
        var own = Pointer(to=scratch).unsafe_origin_cast[MutUntrackedOrigin]()
        var end = walked
        var by = BY_BEAM
        if filter.plan == TWO_HOP or end == SPARSE:
            var width = self.plain.width(not estimates(way))
            walk_two_hop(
                snapshot.graph,
                measured(way, self.plain.stored, snapshot.walked(way != ON_ROWS), scratch.walked),
                snapshot.known(way != ON_ROWS),
                task.prepared,
                own,
                filter,
                max(2 * width, kept),
            )
            swap(scratch.beam, scratch.pruning_candidates)
            end = COMPLETE
            by = BY_TWO_HOP
            if scratch.failed():
                return
        if index.duplicates.known() != 0:
            expand_allowed(index.duplicates, filter, scratch.pruning_candidates, scratch.beam, kept)
        else:
            swap(scratch.beam, scratch.pruning_candidates)
        if end == COMPLETE and scratch.beam.size >= min(k, filter.matches):
            counts[by] += 1
            if estimates(way):
                _ = self.measure_again(task, scratch)
                self.plain.write(task.number, scratch.pruning_candidates, ON_ROWS)
            else:
                self.plain.write(task.number, scratch.beam, way)
            return
        counts[AFTER_WALK] += 1
        self.scan_walked(task, way, scratch, counts)

    def measure_again(self, task: FilteredQuery, mut scratch: Scratch) -> Bool:
        """Measures candidates of the beam on the stored rows, see `measure_in_order`."""
        var snapshot = self.choice.snapshot
        return measure_in_order(
            self.plain.stored.metric,
            self.plain.stored.measured(snapshot.rows, scratch.stored),
            snapshot.rows_on_disk,
            task.query,
            scratch,
            self.plain.request.k,
        )

    def scan(self, i: Int, mut scratch: Scratch, mut counts: Counts):
        """Answers query i by a scan of the allowed rows."""
        ref filter = self.choice.of(i)
        var snapshot = self.choice.snapshot
        var k = self.plain.request.k
        var query = self.plain.query(i, scratch)
        if scratch.failed():
            return  # who made the call looks for it, too
        if (
            snapshot.exact(max(k, self.plain.request.ef))
            # as many rows would be measured again
            or filter.matches <= kept_for(k, LEAST_SCANNED)
            # coded since
            or snapshot.coded < filter.rows
        ):
            var own = Pointer(to=scratch).unsafe_origin_cast[MutUntrackedOrigin]()
            var stored = measured(ON_ROWS, self.plain.stored, snapshot.rows, scratch.stored)
            counts[BY_SCAN] += 1
            scratch.scans += 1
            scratch.distances += filter.matches
            scratch.beam.reset(max(min(k, filter.matches), 1))
            scan_allowed(EachRow(stored, query, own), filter, scratch.selected, scratch.beam)
            self.plain.write(i, scratch.beam, ON_ROWS)
            return
        var way = self.plain.way(i, snapshot, scratch)
        var prepared = self.plain.stored.prepare_for(
            way, snapshot.codes[], query, self.plain.index[].dim, scratch
        )
        if not scratch.failed():
            self.scan_walked(FilteredQuery(i, query, prepared), way, scratch, counts)

    @no_inline
    def scan_walked(self, task: FilteredQuery, way: Int, mut scratch: Scratch, mut counts: Counts):
        """Answers a query by a scan of what walks measure, codes or rows, of the allowed rows."""
        ref filter = self.choice.of(task.number)
        var snapshot = self.choice.snapshot
        var k = self.plain.request.k
        var kept = self.kept(way, filter)
        var own = Pointer(to=scratch).unsafe_origin_cast[MutUntrackedOrigin]()
        var rows = measured(way, self.plain.stored, snapshot.walked(way != ON_ROWS), scratch.walked)
        counts[BY_SCAN] += 1
        scratch.scans += 1
        scratch.distances += filter.matches
        scratch.beam.reset(kept)
        scan_allowed(EachRow(rows, task.prepared, own), filter, scratch.selected, scratch.beam)
        if not estimates(way):
            self.plain.write(task.number, scratch.beam, way)
            return
        if not self.measure_again(task, scratch) and kept < filter.matches:
            # many rows so equally far that estimates do not tell them apart
            var stored = measured(ON_ROWS, self.plain.stored, snapshot.rows, scratch.stored)
            var known = snapshot.known(way != ON_ROWS)
            var error = EstimateError.of_sample(
                self.plain.stored.metric,
                stored,
                task.query,
                rows,
                task.prepared,
                known,
                snapshot.visible,
            )
            scratch.beam.reset(min(k, filter.matches))
            scan_allowed(
                WithinLimit(stored, task.query, rows, task.prepared, error, own),
                filter,
                scratch.selected,
                scratch.beam,
            )
            swap(scratch.beam, scratch.pruning_candidates)
        self.plain.write(task.number, scratch.pruning_candidates, ON_ROWS)


@fieldwise_init
struct _FilteredWalks(WalkTask):
    """Answers queries through the graph, all on the same way."""

    var answer: Ptr[AnswerFiltered]
    var way: Int
    var rows: Rows
    var begin: Int
    var end: Int
    var scratches: Ptr[Ptr[Scratch]]
    var counts: Ptr[Counts]

    def run[M: HopDistance](mut self):
        """Answers them."""
        run_interleaved(
            FilteredSearches[M](self.answer, self.way, self.rows, self.counts),
            self.begin,
            self.end,
            self.scratches,
            self.answer[].plain.lanes,
        )


@fieldwise_init
struct FilteredSearches[M_: HopDistance](InterleavedSearches):
    """Queries answered through the graph, each with its filter, by walks on the stored rows or on codes.
    """

    comptime M = Self.M_
    comptime W = FilteredWalk
    comptime State = FilteredQuery

    var answer: Ptr[AnswerFiltered]
    var way: Int
    var rows: Rows
    """What is walked on."""
    var counts: Ptr[Counts]

    def no_state(self) -> FilteredQuery:
        """Returns no task."""
        return FilteredQuery(0, Query(0, 1), Query(0, 1))

    @always_inline
    def no_search(self, scratch: Ptr[Scratch]) -> Self.W:
        """Returns a walk that is never made."""
        ref choice = self.answer[].choice
        var walk = BeamSearch[True](choice.snapshot.graph, self.rows, Query(0, 1), scratch, 0, 0, 0)
        return Self.W(walk, choice.filters, 0, 0, 0, 0, 0, 0, COMPLETE)

    def start(self, number: Int, scratch: Ptr[Scratch], mut task: FilteredQuery) -> Self.W:
        """Prepares a query and starts its walk."""
        ref answer = self.answer[]
        var snapshot = answer.choice.snapshot
        var asked = answer.plain.prepare(number, self.way, snapshot, scratch[])
        task = FilteredQuery(number, asked.query, asked.prepared)
        if scratch[].failed():
            return self.no_search(scratch)
        ref filter = answer.choice.of(number)
        return Self.W.start(
            snapshot.graph,
            self.rows,
            snapshot.known(self.way != ON_ROWS),
            task.prepared,
            scratch,
            Pointer(to=filter),
            answer.plain.request.k,
            answer.plain.width(not estimates(self.way)),
            answer.kept(self.way, filter),
            self.way == ON_ROWS or snapshot.codes[].walked == answer.plain.index[].dim,
        )

    @always_inline
    def finish(self, walk: Self.W, task: FilteredQuery, mut scratch: Scratch):
        """Writes the result of a walk that is done."""
        self.answer[].finish(task, walk.end, self.way, scratch, self.counts[])


def search_filtered[
    V: Watch
](mut index: Index, request: SearchRequest, choice: FilterChoice, mut watch: V) -> Outcome:
    """Finds the k nearest rows of each query among those that its filter allows.

    Args:
        index: The index; any number of searches and one writer may use it at once.
        request: What is asked; -1 and infinity where fewer rows are allowed.
        choice: The filters.
        watch: May end the call early.

    Returns:
        DONE, STOPPED, NO_MEMORY, or the refusal of a query.
    """
    var stored = StoredSpace.named(index.metric, index.dtype)
    var status = refused(stored, request, index.dim)
    if status != DONE:
        return status
    var team = Team(min(request.threads, (request.count + PIECE - 1) // PIECE))
    var lanes = 1
    if request.count > 1 and not choice.snapshot.rows_on_disk:
        lanes = min(walks_in_flight(index.walked_bytes(), MEMORY_SEARCHES), request.count)
    # under the pin of whoever took the snapshot
    var scratches = allocate[Ptr[Scratch]](team.size() * lanes)
    if not index.readers.claim_many(scratches, team.size() * lanes, 0):
        release(scratches)
        return NO_MEMORY
    var plain = Answer(
        Pointer(to=index).unsafe_origin_cast[MutUntrackedOrigin](),
        stored,
        request,
        scratches,
        lanes,
    )
    if not team.run(request.count, PIECE, AnswerFiltered(plain^, choice), watch):
        status = STOPPED
    elif any_failed(scratches, team.size() * lanes):
        status = NO_MEMORY
    index.readers.release_many(scratches, team.size() * lanes)
    release(scratches)
    return status
