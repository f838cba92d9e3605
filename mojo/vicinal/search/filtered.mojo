"""Answering queries that may return allowed rows only: always min(k, allowed) of them."""
from std.bit import count_trailing_zeros

from vicinal.exact.request import SearchRequest
from vicinal.index.filter_statistics import AFTER_WALK, BY_BEAM, BY_SCAN, BY_TWO_HOP, FILTER_COUNTS
from vicinal.index.vector_index import Index
from vicinal.kernels.any_distance import AnyDistance
from vicinal.kernels.candidates import EMPTY_ENTRY, Candidates, entry_of, key_of, node_of
from vicinal.kernels.space import Query, Rows, prefetch_row
from vicinal.quantization.estimate_error import EstimateError
from vicinal.rows.duplicates import Duplicates
from vicinal.search.answer import PIECE, Answer
from vicinal.search.filter import EVERYTHING, Filter, FilterChoice, SCAN, TWO_HOP, WORD
from vicinal.search.filtered_walk import COMPLETE, SPARSE, walk_plain, walk_two_hop
from vicinal.search.remeasure import kept_for, measure_in_order
from vicinal.search.stored_space import ON_ROWS, StoredSpace, estimates, measured
from vicinal.system.memory import Ptr, allocate, release
from vicinal.system.outcome import DONE, FINE, NO_MEMORY, Outcome, STOPPED
from vicinal.system.parallel import Body, Team, Watch
from vicinal.walk.ask import ask_for_rows
from vicinal.walk.beam_search import LOOK_AHEAD
from vicinal.walk.scratch import HOP_ROOM, Scratch, any_failed

comptime LEAST_SCANNED = 32
"""So few allowed rows are measured one and all."""
comptime ASKED_AT_ONCE = 256
"""Rows on disk that a scan of listed ones asks for before it measures them."""
comptime Counts = Array[Int, FILTER_COUNTS]


trait Scanner(TrivialRegisterPassable):
    """Measures rows and keeps the nearest."""

    def scan(self, listed: Ptr[UInt32], count: Int, mut nearest: Candidates):
        """Measures some rows."""
        ...


@fieldwise_init
struct EachRow(Scanner):
    """Measures every row."""

    var rows: Rows
    """Rows that `AnyDistance` measures."""
    var query: Query
    var scratch: Ptr[Scratch]
    """Tells whether the rows are on disk, and counts."""

    def scan(self, listed: Ptr[UInt32], count: Int, mut nearest: Candidates):
        """Measures some rows."""
        for i in range(min(LOOK_AHEAD, count)):
            prefetch_row(self.rows, Int(listed[unsafe_offset=i]))
        var on_disk = self.scratch[].disk == self.rows.base
        for i in range(count):
            if on_disk and i % ASKED_AT_ONCE == 0:
                ask_for_rows(
                    self.rows,
                    self.scratch[],
                    listed.unsafe_offset(i),
                    min(ASKED_AT_ONCE, count - i),
                )
            if i + LOOK_AHEAD < count:
                prefetch_row(self.rows, Int(listed[unsafe_offset=i + LOOK_AHEAD]))
            var row = Int(listed[unsafe_offset=i])
            var entry = entry_of(AnyDistance.key(self.query, self.rows, row), row)
            if entry < nearest.worst():
                nearest.insert(entry)


def scan_allowed[
    F: Scanner
](scanner: F, filter: Filter, piece: Ptr[UInt32], mut nearest: Candidates):
    """Measures all allowed rows.

    Args:
        scanner: What measures.
        filter: The rows allowed.
        piece: Room for HOP rows.
        nearest: Receives the nearest.
    """
    if filter.plan == SCAN:
        scanner.scan(filter.listed, filter.num_listed, nearest)
        nearest.arrange()
        return
    # listed bit by bit: a walk was to have done it
    var count = 0
    for i in range(filter.rows // WORD + 1):
        var bits = filter.words[unsafe_offset=i]
        while bits != 0:
            piece[unsafe_offset=count] = UInt32(i * WORD + Int(count_trailing_zeros(bits)))
            bits &= bits - 1
            count += 1
        if count > HOP_ROOM - WORD:
            scanner.scan(piece, count, nearest)
            count = 0
    scanner.scan(piece, count, nearest)
    nearest.arrange()


def expand_allowed(
    duplicates: Duplicates, filter: Filter, found: Candidates, mut into: Candidates, kept: Int
):
    """Puts the allowed ones of rows that a walk has found, and of their copies, into another buffer.
    """
    into.reset(kept)
    var known = duplicates.known()
    var left = known  # all rings together have no more, but those of a damaged file may have no end
    for i in range(found.size):
        var entry = found.entries[unsafe_offset=i] & ~1
        if entry >= into.worst():
            break
        if filter.has(node_of(entry)):
            into.insert(entry)
        var last = duplicates.last_of(node_of(entry), known)
        var copy = duplicates.first_of(last, known)
        while copy >= 0 and left > 0:
            left -= 1
            var other = entry_of(key_of(entry), copy)
            if other >= into.worst():
                break
            if copy < filter.rows and filter.has(copy):
                into.insert(other)
            copy = duplicates.after(copy, last, known)
    into.arrange()


@fieldwise_init
struct WithinLimit(Scanner):
    """Measures exactly those rows whose estimate does not rule them out; the k nearest are kept. `AnyDistance` measures both.
    """

    var stored: Rows
    var query: Query
    var coded: Rows
    var prepared: Query
    var error: EstimateError

    def scan(self, listed: Ptr[UInt32], count: Int, mut nearest: Candidates):
        """Measures some rows."""
        var limit = Int32.MAX
        if nearest.worst() != EMPTY_ENTRY:
            limit = self.error.limit(key_of(nearest.worst()))
        for i in range(min(LOOK_AHEAD, count)):
            prefetch_row(self.coded, Int(listed[unsafe_offset=i]))
        for i in range(count):
            if i + LOOK_AHEAD < count:
                prefetch_row(self.coded, Int(listed[unsafe_offset=i + LOOK_AHEAD]))
            var row = Int(listed[unsafe_offset=i])
            if AnyDistance.key(self.prepared, self.coded, row) > limit:
                continue
            var entry = entry_of(AnyDistance.key(self.query, self.stored, row), row)
            if entry < nearest.worst():
                nearest.insert(entry)
                if nearest.worst() != EMPTY_ENTRY:
                    limit = self.error.limit(key_of(nearest.worst()))


@fieldwise_init
struct AnswerFiltered(Body):
    """Answers queries that have been checked, each with its filter, all from the snapshot that the filters were made of.
    """

    var plain: Answer
    """Does what needs no filter."""
    var choice: FilterChoice

    def run(self, begin: Int, end: Int, worker: Int):
        """Answers queries begin .. end-1."""
        var counts = Counts(fill=0)
        ref scratch = self.plain.scratches[unsafe_offset=worker][]
        for i in range(begin, end):
            ref filter = self.choice.of(i)
            if filter.plan == EVERYTHING:
                self.plain.answer(i, i + 1, worker, self.choice.snapshot)
                continue
            self.answer(i, filter, scratch, counts)
        for i in range(FILTER_COUNTS):
            self.plain.index[].filter_statistics.add(i, counts[i])

    def answer(self, i: Int, filter: Filter, mut scratch: Scratch, mut counts: Counts):
        """Answers query i."""
        var snapshot = self.choice.snapshot
        scratch.queries += 1
        var own = Pointer(to=scratch).unsafe_origin_cast[MutUntrackedOrigin]()
        scratch.reads_from(snapshot.rows, snapshot.rows_on_disk, snapshot.row_file, own)
        var query = self.plain.query(i, scratch)
        if scratch.failed():
            return  # who made the call looks for it, too
        var width = max(self.plain.request.k, self.plain.request.ef)
        var stored = measured(ON_ROWS, self.plain.stored, snapshot.rows, scratch.stored)
        if filter.plan == SCAN and (
            snapshot.exact(width)
            # as many rows would be measured again
            or filter.matches <= kept_for(self.plain.request.k, LEAST_SCANNED)
            # coded since
            or snapshot.coded < filter.rows
        ):
            counts[BY_SCAN] += 1
            scratch.scans += 1
            scratch.distances += filter.matches
            scratch.beam.reset(max(min(self.plain.request.k, filter.matches), 1))
            scan_allowed(EachRow(stored, query, own), filter, scratch.selected, scratch.beam)
            self.plain.write(i, scratch.beam, ON_ROWS)
        else:
            self.find(i, query, stored, filter, scratch, counts)

    def find(
        self,
        i: Int,
        query: Query,
        stored: Rows,
        filter: Filter,
        mut scratch: Scratch,
        mut counts: Counts,
    ):
        """Finds the nearest allowed rows of query i by the filter's plan and writes them."""
        ref index = self.plain.index[]
        var k = self.plain.request.k
        var snapshot = self.choice.snapshot
        var way = self.plain.way(i, snapshot, scratch)
        var width = self.plain.width(not estimates(way))
        var rows = stored
        if way != ON_ROWS:
            rows = measured(way, self.plain.stored, snapshot.walked(True), scratch.walked)
        var prepared = self.plain.stored.prepare_for(
            way, snapshot.codes[], query, index.dim, scratch
        )
        if scratch.failed():
            return
        var kept = min(kept_for(k, width) if estimates(way) else k, filter.matches)
        var enough = min(k, filter.matches)
        var known = snapshot.known(way != ON_ROWS)
        var graph = snapshot.graph
        var own = Pointer(to=scratch).unsafe_origin_cast[MutUntrackedOrigin]()
        if filter.plan != SCAN:
            var whole = way == ON_ROWS or snapshot.codes[].walked == index.dim
            var end = walk_plain(graph, rows, known, prepared, own, filter, k, width, kept, whole)
            var by = BY_BEAM
            if scratch.failed():
                return
            if filter.plan == TWO_HOP or end == SPARSE:
                walk_two_hop(graph, rows, known, prepared, own, filter, max(2 * width, kept))
                swap(scratch.beam, scratch.pruning_candidates)
                end = COMPLETE
                by = BY_TWO_HOP
                if scratch.failed():
                    return
            if index.duplicates.known() != 0:
                expand_allowed(
                    index.duplicates, filter, scratch.pruning_candidates, scratch.beam, kept
                )
            else:
                swap(scratch.beam, scratch.pruning_candidates)
            if end == COMPLETE and scratch.beam.size >= enough:
                counts[by] += 1
                if estimates(way):
                    _ = measure_in_order(
                        self.plain.stored.metric,
                        stored,
                        snapshot.rows_on_disk,
                        query,
                        scratch,
                        k,
                    )
                    self.plain.write(i, scratch.pruning_candidates, ON_ROWS)
                else:
                    self.plain.write(i, scratch.beam, way)
                return
            counts[AFTER_WALK] += 1
        counts[BY_SCAN] += 1
        scratch.scans += 1
        scratch.distances += filter.matches
        scratch.beam.reset(kept)
        scan_allowed(EachRow(rows, prepared, own), filter, scratch.selected, scratch.beam)
        if not estimates(way):
            self.plain.write(i, scratch.beam, way)
            return
        if (
            not measure_in_order(
                self.plain.stored.metric, stored, snapshot.rows_on_disk, query, scratch, k
            )
            and kept < filter.matches
        ):
            # many rows so equally far that estimates do not tell them apart
            var error = EstimateError.of_sample(
                self.plain.stored.metric, stored, query, rows, prepared, known, snapshot.visible
            )
            scratch.beam.reset(enough)
            scan_allowed(
                WithinLimit(stored, query, rows, prepared, error),
                filter,
                scratch.selected,
                scratch.beam,
            )
            swap(scratch.beam, scratch.pruning_candidates)
        self.plain.write(i, scratch.pruning_candidates, ON_ROWS)


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
    # under the pin of whoever took the snapshot
    var scratches = allocate[Ptr[Scratch]](team.size())
    if not index.readers.claim_many(scratches, team.size(), 0):
        release(scratches)
        return NO_MEMORY
    var plain = Answer(
        Pointer(to=index).unsafe_origin_cast[MutUntrackedOrigin](),
        stored,
        request,
        scratches,
        1,
    )
    if not team.run(request.count, PIECE, AnswerFiltered(plain^, choice), watch):
        status = STOPPED
    elif any_failed(scratches, team.size()):
        status = NO_MEMORY
    index.readers.release_many(scratches, team.size())
    release(scratches)
    return status
