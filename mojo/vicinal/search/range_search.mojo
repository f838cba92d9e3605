"""All rows within a radius: by a scan, or through the graph from what a search finds, as far as there are more.

The walk of a search comes to the query; from there on every row within the radius is expanded until no new one appears. Where
walks go by estimates, those that may be within the radius (`quantization/estimate_error.mojo`) are measured on the stored rows.
"""
from std.atomic import Atomic, Ordering
from std.memory import bitcast

from vicinal.exact.request import SearchRequest
from vicinal.index.vector_index import Index
from vicinal.kernels.any_distance import AnyDistance
from vicinal.kernels.candidates import entry_of, key_of, node_of
from vicinal.kernels.space import L2, Query, Rows, prefetch_row
from vicinal.quantization.estimate_error import EstimateError
from vicinal.rows.row_states import BLOCK
from vicinal.search.answer import Answer, refused
from vicinal.search.filter import EVERYTHING, Filter, FilterChoice, SCAN
from vicinal.search.filtered_scan import ASKED_AT_ONCE
from vicinal.search.stored_space import (
    ON_CODES_BY_FLOATS,
    ON_EXACT_CODES,
    ON_ROWS,
    StoredSpace,
    estimates,
    measured,
)
from vicinal.system.array import GrowableArray
from vicinal.system.atomics import load_acquire
from vicinal.system.memory import Ptr, allocate, at, missing, release
from vicinal.system.outcome import DONE, NO_MEMORY, Outcome, STOPPED
from vicinal.system.pages import ReadAhead
from vicinal.system.parallel import Body, Team, Watch
from vicinal.walk.ask import ask_for_rows, ask_for_selected
from vicinal.walk.beam_search import AT_ONCE, LOOK_AHEAD, start_beam_search
from vicinal.walk.scratch import Scratch, any_failed

comptime LEAST_WIDTH = 48
"""A walk that has found fewer rows within the radius goes on until it is as wide. A search for k rows is never narrower than k; here
nobody has said how many rows there are, and a walk that ended beside them has found none to go on from.
"""
comptime SCAN_FROM = 8
"""Once more than one row in so many is within the radius, a scan of all is faster than a walk from each."""


struct RangeResult(Movable):
    """What a range search found: for each query ids, and distances as the bits of float32."""

    var ids: Ptr[GrowableArray]
    var distances: Ptr[GrowableArray]
    var queries: Int
    var out_of_memory: Int64
    """Not 0 once memory was out for any query: the others need not be answered."""

    def __init__(out self, queries: Int):
        """Makes room for so many queries."""
        self.ids = allocate[GrowableArray](queries)
        self.distances = allocate[GrowableArray](queries)
        self.out_of_memory = Int64(Int(missing(self.ids) or missing(self.distances)))
        self.queries = 0 if self.out_of_memory != 0 else queries
        for i in range(self.queries):
            self.ids.unsafe_offset(i).unsafe_write(GrowableArray())
            self.distances.unsafe_offset(i).unsafe_write(GrowableArray())

    def __deinit__(deinit self):
        for i in range(self.queries):
            self.ids.unsafe_offset(i).unsafe_deinit_pointee()
            self.distances.unsafe_offset(i).unsafe_deinit_pointee()
        release(self.ids)
        release(self.distances)

    @always_inline
    def gone(mut self) -> Ptr[Int64]:
        """Returns the mark that memory is out."""
        return Pointer(to=self.out_of_memory).unsafe_origin_cast[MutUntrackedOrigin]()

    def total(self, i: Int) -> Int:
        """Returns the rows that query i found."""
        return self.ids[unsafe_offset=i].size

    def copy_to(self, ids: Ptr[Int64], distances: Ptr[Float32]):
        """Writes all results, one query after the other."""
        var next = 0
        for i in range(self.queries):
            for j in range(self.total(i)):
                ids[unsafe_offset=next] = self.ids[unsafe_offset=i].at(j)[]
                distances[unsafe_offset=next] = bitcast[DType.float32, 1](
                    Int32(self.distances[unsafe_offset=i].at(j)[])
                )
                next += 1


@fieldwise_init
struct Test(TrivialRegisterPassable):
    """How it is told whether a row that a walk has measured is within the radius."""

    var query: Query
    """The query for the stored rows."""
    var stored: Rows
    """The stored rows, which `AnyDistance` measures."""
    var way: Int
    """What was walked on."""
    var again: Bool
    """Whether rows that may be within the radius are measured as stored."""
    var limit: Int32
    """The largest estimate that such a row can have."""


@fieldwise_init
struct AnswerRange(Body):
    """Finds the rows within the radius of queries that have been checked."""

    var plain: Answer
    """Prepares queries."""
    var radius: Float32
    var choice: FilterChoice
    var result: Ptr[RangeResult]

    def run(self, begin: Int, end: Int, worker: Int):
        """Answers queries begin .. end-1."""
        ref scratch = self.plain.scratches[unsafe_offset=worker][]
        for i in range(begin, end):
            if Atomic[Int64].load[ordering=Ordering.RELAXED](self.result[].gone().start) != 0:
                return
            ref filter = self.choice.of(i)
            ref found = self.result[].distances[unsafe_offset=i]
            self.answer(i, filter, scratch, found)
            ref ids = self.result[].ids[unsafe_offset=i]
            self.finish(filter, found, ids)
            if found.full or ids.full or scratch.failed():
                Atomic[Int64].store[ordering=Ordering.RELAXED](self.result[].gone().start, 1)

    @always_inline
    def within(self, key: Int32) -> Bool:
        """Tells whether a stored row's key is within the radius."""
        return self.plain.stored.value(key) <= self.radius

    def finish(self, filter: Filter, mut found: GrowableArray, mut ids: GrowableArray):
        """Leaves out rows that are not seen or not allowed, sorts, and puts ids and distances in place of rows and keys.
        """
        var all = filter.plan == EVERYTHING
        var kept = 0
        for i in range(found.size):
            var entry = found.at(i)[]
            var row = node_of(entry)
            found.at(kept)[] = entry
            kept += Int(self.choice.snapshot.visible.is_visible(row) and (all or filter.has(row)))
        found.size = kept
        found.sort()
        var known = found.at(0)
        if found.size != 0:
            known = at[Int64](load_acquire(self.plain.index[].ids.column.address))
        for i in range(found.size):
            var entry = found.at(i)[]
            ids.push(known[unsafe_offset=node_of(entry)])
            found.at(i)[] = Int64(bitcast[DType.int32, 1](self.plain.stored.value(key_of(entry))))

    def answer(self, i: Int, filter: Filter, mut scratch: Scratch, mut found: GrowableArray):
        """Finds rows within the radius of query i, allowed or not."""
        scratch.queries += 1
        scratch.reads_from(
            self.choice.snapshot.rows,
            self.choice.snapshot.rows_on_disk,
            self.choice.snapshot.row_file,
            Pointer(to=scratch).unsafe_origin_cast[MutUntrackedOrigin](),
        )
        var query = self.plain.query(i, scratch)
        if scratch.failed():
            return
        var stored = measured(ON_ROWS, self.plain.stored, self.choice.snapshot.rows, scratch.stored)
        if self.choice.snapshot.exact(self.plain.request.ef) or filter.plan == SCAN:
            self.scan(query, stored, filter, scratch, found)
        else:
            self.expand_within(i, query, stored, filter, scratch, found)

    def scan(
        self,
        query: Query,
        rows: Rows,
        filter: Filter,
        mut scratch: Scratch,
        mut found: GrowableArray,
    ):
        """Measures all rows, or those that the filter lists."""
        scratch.scans += 1
        if filter.plan == SCAN:
            scratch.distances += filter.num_listed
            for i in range(filter.num_listed):
                if self.choice.snapshot.rows_on_disk and i % ASKED_AT_ONCE == 0:
                    ask_for_rows(
                        rows,
                        scratch,
                        filter.listed.unsafe_offset(i),
                        min(ASKED_AT_ONCE, filter.num_listed - i),
                    )
                if i + LOOK_AHEAD < filter.num_listed:
                    prefetch_row(rows, Int(filter.listed[unsafe_offset=i + LOOK_AHEAD]))
                self.measure(query, rows, Int(filter.listed[unsafe_offset=i]), found)
            return
        var bound = self.choice.snapshot.visible.bound
        scratch.distances += bound
        var ahead = ReadAhead.of(rows.base, bound * rows.stride, self.choice.snapshot.rows_on_disk)
        var entries = scratch.unvisited
        for row in range(0, bound, AT_ONCE):
            if row % BLOCK == 0:
                ahead.reach(row * rows.stride)
            var count = min(AT_ONCE, bound - row)
            for i in range(count):
                entries[unsafe_offset=i] = Int64(row + i)
            AnyDistance.measure(query, rows, entries, count, count)
            for i in range(count):
                if self.within(key_of(entries[unsafe_offset=i])):
                    found.push(entries[unsafe_offset=i])

    @always_inline
    def measure(self, query: Query, rows: Rows, row: Int, mut found: GrowableArray):
        """Measures a stored row and takes it in if it is within the radius."""
        var key = AnyDistance.key(query, rows, row)
        if self.within(key):
            found.push(entry_of(key, row))

    def expand_within(
        self,
        i: Int,
        query: Query,
        stored: Rows,
        filter: Filter,
        mut scratch: Scratch,
        mut found: GrowableArray,
    ):
        """Walks to query i, then on from every row within the radius."""
        ref space = self.plain.stored
        var way = self.plain.way(i, self.choice.snapshot, scratch)
        if way == ON_EXACT_CODES and space.floats() and self.choice.snapshot.rows_on_disk:
            way = ON_CODES_BY_FLOATS  # whose keys are those of the rows: none has to be measured again
        var known = self.choice.snapshot.known(way != ON_ROWS)
        var rows = stored
        var test = Test(query, stored, way, way > ON_ROWS and space.floats(), Int32.MAX)
        if way != ON_ROWS:
            rows = measured(way, space, self.choice.snapshot.walked(True), scratch.walked)
        var prepared = space.prepare_for(
            way, self.choice.snapshot.codes[], query, self.plain.index[].dim, scratch
        )
        if scratch.failed():
            return
        if estimates(way):
            var error = EstimateError.of_sample(
                space.metric, stored, query, rows, prepared, known, self.choice.snapshot.visible
            )
            test.limit = error.limit_of(self.radius if space.metric == L2 else self.radius - 1)
        var walk = start_beam_search(
            self.choice.snapshot.graph,
            rows,
            known,
            prepared,
            Pointer(to=scratch).unsafe_origin_cast[MutUntrackedOrigin](),
            self.plain.request.ef,
            LEAST_WIDTH,
        )
        var outer = GrowableArray()
        self.take(scratch.beam.entries[], test, found, outer)
        while walk.collect():
            walk.measure_apart()
            self.take_hop(walk.count, test, scratch, found, outer)
        if self.plain.request.ef < LEAST_WIDTH and found.size < LEAST_WIDTH:
            scratch.beam.widen()
            while walk.collect():
                walk.measure_apart()
                self.take_hop(walk.count, test, scratch, found, outer)
        var next = 0
        var beyond = 0
        while True:
            while next < found.size:
                if found.size * SCAN_FROM > self.choice.snapshot.visible.bound:
                    found.size = 0
                    self.scan(query, stored, filter, scratch, found)
                    return
                walk.expand(node_of(found.at(next)[]))
                next += 1
                walk.measure_apart()
                self.take_hop(walk.count, test, scratch, found, outer)
            # then some just outside, as the beam of a search for so many rows would: some are linked from such only
            if beyond == 0:
                outer.sort()
            if beyond >= min(outer.size, 2 * found.size, found.size // 2 + self.plain.request.ef):
                break
            walk.expand(node_of(outer.at(beyond)[]))
            beyond += 1
            walk.measure_apart()
            self.take_hop(walk.count, test, scratch, found, outer)
        found.full = found.full or outer.full
        self.add_duplicates(found)

    def add_duplicates(self, mut found: GrowableArray):
        """Takes in the copies of the rows found."""
        ref duplicates = self.plain.index[].duplicates
        var known = duplicates.known()
        var left = (
            known  # all rings together have no more, but those of a damaged file may have no end
        )
        for i in range(found.size if known != 0 else 0):
            var entry = found.at(i)[]
            var last = duplicates.last_of(node_of(entry), known)
            var copy = duplicates.first_of(last, known)
            while copy >= 0 and left > 0 and not found.full:
                left -= 1
                if copy < self.choice.snapshot.visible.bound:
                    found.push(entry_of(key_of(entry), copy))
                copy = duplicates.after(copy, last, known)

    @always_inline
    def may_be_within(self, entry: Int64, test: Test) -> Bool:
        """Tells whether a row that a walk has measured is within the radius, or may be by its estimate.
        """
        if estimates(test.way):
            return key_of(entry) <= test.limit
        return self.plain.stored.value_on(test.way)(key_of(entry)) <= self.radius

    @no_inline
    def take_hop(
        self,
        count: Int,
        test: Test,
        mut scratch: Scratch,
        mut found: GrowableArray,
        mut outer: GrowableArray,
    ):
        """Takes in the rows of a hop."""
        if test.again and self.choice.snapshot.rows_on_disk:
            var asked = 0
            for i in range(count):
                var entry = scratch.unvisited[unsafe_offset=i]
                scratch.selected[unsafe_offset=asked] = UInt32(node_of(entry))
                asked += Int(self.may_be_within(entry, test))
            ask_for_selected(test.stored, scratch, asked)
        for i in range(count):
            self.take(scratch.unvisited[unsafe_offset=i], test, found, outer)

    def take(self, entry: Int64, test: Test, mut found: GrowableArray, mut outer: GrowableArray):
        """Takes in a row that the walk has measured, into `outer` if it is not within the radius.
        """
        var before = found.size
        if self.may_be_within(entry, test):
            if test.again:
                self.measure(test.query, test.stored, node_of(entry), found)
            else:
                found.push(entry)
        if found.size == before:
            outer.push(entry)


def search_range[
    V: Watch
](
    mut index: Index,
    request: SearchRequest,
    radius: Float32,
    choice: FilterChoice,
    mut result: RangeResult,
    mut watch: V,
) -> Outcome:
    """Finds all rows within a distance of each query.

    Args:
        index: The index; any number of searches and one writer may use it at once.
        request: What is asked: queries, `ef`, the candidates kept on the way to a query, and threads; the rest is not looked at.
        radius: Largest distance, not NaN.
        choice: The filters.
        result: Made for as many queries; receives what is found.
        watch: May end the call early.

    Returns:
        DONE, STOPPED, NO_MEMORY, or the refusal of a query.
    """
    var stored = StoredSpace.named(index.metric, index.dtype)
    var status = refused(stored, request, index.dim)
    if status != DONE:
        return status
    var team = Team(min(request.threads, request.count))
    # under the pin of whoever took the snapshot
    var scratches = allocate[Ptr[Scratch]](team.size())
    if result.out_of_memory != 0 or not index.readers.claim_many(scratches, team.size(), 0):
        release(scratches)
        return NO_MEMORY
    var plain = Answer(
        Pointer(to=index).unsafe_origin_cast[MutUntrackedOrigin](),
        stored,
        request,
        scratches,
        1,
    )
    var answer = AnswerRange(
        plain^,
        radius,
        choice,
        Pointer(to=result).unsafe_origin_cast[MutUntrackedOrigin](),
    )
    if not team.run(request.count, 1, answer, watch):
        status = STOPPED
    elif result.out_of_memory != 0 or any_failed(scratches, team.size()):
        status = NO_MEMORY
    index.readers.release_many(scratches, team.size())
    release(scratches)
    return status
