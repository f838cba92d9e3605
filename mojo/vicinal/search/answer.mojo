"""Answering a query: through the graph, or by a scan of all rows."""
from vicinal.index.snapshot import Snapshot
from vicinal.index.vector_index import Index
from vicinal.kernels.candidates import Candidates, entry_of
from vicinal.kernels.space import COSINE, QueryDistance, Query, Rows, Space, inspect_row, to_unit
from vicinal.quantization.code_space import Estimate, U8Codes
from vicinal.quantization.code_table import U8, RABITQ4, NO_CODES, is_bytes
from vicinal.quantization.rotation import padded_dim
from vicinal.rows.row_states import BLOCK
from vicinal.rows.visibility import Visibility
from vicinal.system.atomics import load_acquire
from vicinal.system.memory import Ptr, at
from vicinal.system.pages import ReadAhead
from vicinal.system.parallel import Body
from vicinal.system.point import point, touches
from vicinal.search.remeasure import ask_for_first, kept_for, measure_in_order
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
    var exact: Bool
    """Whether the walk's distances are exact for this query."""
    var prepared: Query
    """For measuring what is walked on."""


def scan[
    S: Space
](rows: Rows, on_disk: Bool, visible: Visibility, query: Query, mut nearest: Candidates):
    """Measures the rows that are seen and keeps the nearest."""
    var ahead = ReadAhead.of(rows.base, visible.bound * rows.stride, on_disk)
    if visible.states == 0:
        for row in range(visible.bound):
            if row % BLOCK == 0:
                ahead.reach(row * rows.stride)
            point["scan a row"]()
            touches["scan a row"](row)
            var entry = entry_of(S.key(query, rows, row), row)
            if entry < nearest.worst():
                nearest.insert(entry)
        nearest.arrange()
        return
    for block in range(0, visible.bound, BLOCK):
        var end = min(block + BLOCK, visible.bound)
        ahead.reach(block * rows.stride)
        if visible.none_of(block, end):
            continue
        for row in range(block, end):
            if visible.is_visible(row):
                point["scan a row"]()
                touches["scan a row"](row)
                var entry = entry_of(S.key(query, rows, row), row)
                if entry < nearest.worst():
                    nearest.insert(entry)
    nearest.arrange()


@fieldwise_init
struct Answer[S: Space](Body):
    """Answers queries that have been checked."""

    var index: Ptr[Index]
    var queries: Int
    var k: Int
    var ef: Int
    var ids: Ptr[Int64]
    var distances: Ptr[Float32]
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
        var kind = snapshot.codes[].kind
        scratches[][].queries += end - begin
        if snapshot.rows_on_disk:
            for lane in range(self.lanes):
                scratches[unsafe_offset=lane][].disk = snapshot.rows.base
        if snapshot.exact(max(self.k, self.ef)):
            ref scratch = scratches[][]
            for i in range(begin, end):
                var query = self.query(i, scratch)
                if scratch.failed():
                    return
                self.scan_for(i, query, snapshot, scratch)
        elif kind == NO_CODES:
            self.walk[Self.S, coded=False](begin, end, snapshot, scratches)
        elif kind == U8:
            comptime if Self.S.metric != COSINE:
                # queries that 8 bits hold walk on the codes, others on the rows: rounded they could lose all they are
                var first = begin
                while first < end:
                    var fits = self.fits(first)
                    var last = first + 1
                    while last < end and self.fits(last) == fits:
                        last += 1
                    if fits:
                        self.walk[U8Codes[Self.S.metric, Self.S.T == DType.int8], coded=True](
                            first, last, snapshot, scratches
                        )
                    else:
                        self.walk[Self.S, coded=False](first, last, snapshot, scratches)
                    first = last
        else:
            comptime if Self.S.T.is_floating_point():
                var first = begin
                while first < end:
                    var served = self.served(first, snapshot, scratches[][])
                    var last = first + 1
                    while last < end and self.served(last, snapshot, scratches[][]) == served:
                        last += 1
                    if not served:
                        self.walk[Self.S, coded=False](first, last, snapshot, scratches)
                    elif kind == RABITQ4:
                        self.walk[Estimate[4], coded=True](first, last, snapshot, scratches)
                    else:
                        self.walk[Estimate[8], coded=True](first, last, snapshot, scratches)
                    first = last

    @always_inline
    def width(self) -> Int:
        """Returns how many candidates are expanded."""
        return max(self.k, self.ef)

    @always_inline
    def kept(self, exact: Bool) -> Int:
        """Returns how many candidates are kept: more than are expanded where those have to be measured again.
        """
        return self.width() if exact else kept_for(self.k, self.width())

    @always_inline
    def query(self, i: Int, mut scratch: Scratch) -> Query:
        """Returns query i for measuring stored rows: of unit length for cosine, and on a cache line for float types. Worth nothing
        if the scratch has failed.
        """
        var given = at[Scalar[Self.S.Q]](self.queries).unsafe_offset(i * self.index[].dim)
        var query = Query(Int(given), 1)
        comptime if Self.S.metric == COSINE:
            _ = inspect_row[Self.S, Self.S.Q](given, self.index[].dim, query.norm)
        comptime if Self.S.T.is_floating_point():
            var vector = scratch.work(2 * padded_dim(self.index[].dim))
            if scratch.failed():
                return query
            var elements = given.unsafe_bitcast[Float32]()
            for j in range(self.index[].dim):
                vector[unsafe_offset=j] = to_unit(elements[unsafe_offset=j], query.norm)
            query.address = Int(vector)
        return query

    @always_inline
    def fits(self, i: Int) -> Bool:
        """Tells whether query i is of whole numbers from 0 to 255, or of 8-bit integers anyway."""
        comptime if Self.S.T.is_floating_point():
            var dim = self.index[].dim
            return is_bytes[Self.S.Q](
                at[Scalar[Self.S.Q]](self.queries).unsafe_offset(i * dim), dim
            )
        return True

    @always_inline
    def served(self, i: Int, snapshot: Snapshot, mut scratch: Scratch) -> Bool:
        """Tells whether estimates serve query i, and not only the stored rows."""
        ref codes = snapshot.codes[]
        if codes.reach == Float32.MAX:
            return True
        var query = self.query(i, scratch)
        return scratch.failed() or codes.serve(at[Float32](query.address))

    def walk[
        M: QueryDistance, coded: Bool
    ](self, begin: Int, end: Int, snapshot: Snapshot, scratches: Ptr[Ptr[Scratch]]):
        """Answers queries through the graph."""
        var walks = PlainSearches[Self.S, M, coded](
            Pointer(to=self).unsafe_mut_cast[True]().unsafe_origin_cast[MutUntrackedOrigin](),
            snapshot,
            snapshot.codes[].rows(snapshot.rows) if coded else snapshot.rows,
            snapshot.known[coded](),
        )
        run_interleaved(walks, begin, end, scratches, self.lanes)

    @no_inline
    def scan_for(self, i: Int, query: Query, snapshot: Snapshot, mut scratch: Scratch):
        """Answers query i by a scan of all rows."""
        scratch.scans += 1
        scratch.distances += snapshot.live
        scratch.beam.reset(max(min(self.k, snapshot.live), 1))
        var rows = snapshot.rows  # copies: stores to the beam might otherwise change them
        var visible = snapshot.visible
        scan[Self.S](rows, snapshot.rows_on_disk, visible, query, scratch.beam)
        self.write[Self.S.value](i, scratch.beam)

    @always_inline
    def write_found[
        value: def(Int32) thin -> Float32
    ](self, i: Int, nearest: Candidates, mut room: Candidates, snapshot: Snapshot) -> Bool:
        """Writes the result of query i, found through the graph, with the copies of what was found.

        Returns:
            False if there are more rows than were found: beside a writer some may not be reached for a while.
        """
        ref duplicates = self.index[].duplicates
        var found = nearest.size
        if duplicates.known() == 0 and not snapshot.hides():
            self.write[value](i, nearest)
        else:
            duplicates.expand(nearest, room, self.k, snapshot.visible)
            self.write[value](i, room)
            found = room.size
        return found >= self.k or found >= snapshot.live

    @always_inline
    def write[value: def(Int32) thin -> Float32](self, i: Int, nearest: Candidates):
        """Writes the result of query i."""
        var found = min(self.k, nearest.size)
        var ids = self.ids.unsafe_offset(i * self.k)
        var distances = self.distances.unsafe_offset(i * self.k)
        var known = at[Int64](load_acquire(self.index[].ids.address)) if found != 0 else ids
        for j in range(found):
            point["read an id"]()
            touches["read an id"](nearest.node(j))
            ids[unsafe_offset=j] = known[unsafe_offset=nearest.node(j)]
            distances[unsafe_offset=j] = value(nearest.key(j))
        for j in range(found, self.k):
            ids[unsafe_offset=j] = -1
            distances[unsafe_offset=j] = Float32.MAX  # infinity


@fieldwise_init
struct PlainSearches[Stored: Space, M: QueryDistance, coded: Bool](InterleavedSearches):
    """Queries answered through the graph, by walks on the stored rows or on codes."""

    comptime S = Self.M
    comptime State = QueryState

    var answer: Ptr[Answer[Self.Stored]]
    var snapshot: Snapshot
    var rows: Rows
    """What is walked on."""
    var known: Int
    """Rows that walks may meet: those that `rows` holds for certain."""

    def no_state(self) -> QueryState:
        """Returns no task."""
        return QueryState(0, Query(0, 1), True, Query(0, 1))

    @always_inline
    def no_search(self, scratch: Ptr[Scratch]) -> BeamSearch[Self.S, True]:
        """Returns a walk that is never made."""
        return BeamSearch[Self.S, True](
            self.snapshot.graph, self.rows, Query(0, 1), scratch, 0, 0, 0
        )

    @always_inline
    def start(
        self, number: Int, scratch: Ptr[Scratch], mut task: QueryState
    ) -> BeamSearch[Self.S, True]:
        """Prepares a query and starts its walk."""
        ref answer = self.answer[]
        ref index = answer.index[]
        ref codes = self.snapshot.codes[]
        var query = answer.query(number, scratch[])
        var prepared = query
        var exact = not Self.coded or codes.kind == U8
        comptime if Self.coded:
            prepared = Query(scratch[].room(codes.query_bytes()), 1)
        if scratch[].failed():
            scratch[].beam.reset(1)  # nothing in it: the walk is done
            return self.no_search(scratch)
        comptime if Self.coded:
            codes.prepare[Self.Stored.Q](
                at[Scalar[Self.Stored.Q]](query.address),
                at[UInt8](prepared.address),
                scratch[].work(2 * padded_dim(index.dim)).unsafe_offset(padded_dim(index.dim)),
            )
        task = QueryState(number, query, exact, prepared)
        var extra = index.states.extra_width()
        return start_beam_search[Self.S](
            self.snapshot.graph,
            self.rows,
            self.known,
            prepared,
            scratch,
            answer.width() + extra,
            answer.kept(exact) + extra,
        )

    @always_inline
    def wait(self, task: QueryState, mut scratch: Scratch) -> Bool:
        """Asks for the rows of a walk that is done, if they may be on disk; others can go on while they come.
        """
        if not self.snapshot.rows_on_disk or task.exact or self.snapshot.hides():
            return False
        return not scratch.failed() and ask_for_first(self.snapshot.rows, scratch, self.answer[].k)

    @always_inline
    def finish(self, task: QueryState, mut scratch: Scratch):
        """Writes the result of a walk that is done; estimated candidates are measured again first.
        """
        ref answer = self.answer[]
        if scratch.failed():
            return  # who made the call looks for it, too
        var found = not self.snapshot.hides() or self.drop_invisible(task, scratch)
        if found:
            if not task.exact:
                _ = measure_in_order[Self.Stored](
                    self.snapshot.rows,
                    self.snapshot.rows_on_disk,
                    task.query,
                    scratch,
                    answer.k,
                )
                found = answer.write_found[Self.Stored.value](
                    task.number, scratch.pruning_candidates, scratch.beam, self.snapshot
                )
            elif Self.coded:
                comptime if Self.Stored.metric != COSINE:
                    comptime Exact = U8Codes[Self.Stored.metric, Self.Stored.T == DType.int8]
                    found = answer.write_found[Exact.value](
                        task.number, scratch.beam, scratch.pruning_candidates, self.snapshot
                    )
            else:
                found = answer.write_found[Self.Stored.value](
                    task.number, scratch.beam, scratch.pruning_candidates, self.snapshot
                )
        if not found:
            answer.scan_for(task.number, task.query, self.snapshot, scratch)

    @no_inline
    def drop_invisible(self, task: QueryState, mut scratch: Scratch) -> Bool:
        """Takes rows that are not seen out of a walk's result, and walks again if they have taken the places of others.

        In the end the beam holds as many rows that are seen as one of the width asked for would, were the others not there.

        Returns:
            False if a scan of all rows is cheaper than to walk again.
        """
        ref answer = self.answer[]
        ref index = answer.index[]
        var wanted = answer.kept(task.exact)
        var spare = wanted - answer.width()
        while True:
            var limit = scratch.beam.limit
            var full = scratch.beam.size == limit
            index.duplicates.sweep(self.snapshot.visible, scratch.beam)
            var found = scratch.beam.size
            var most = min(wanted + load_acquire(index.states.shaded), self.known)
            if found >= wanted or not full or limit >= most:
                return True
            # as many as there would be wanted ones among if their share is what it was so far, and some
            limit = min(max(2 * limit, limit * wanted * 5 // (4 * max(found, 1))), most)
            if self.snapshot.exact(limit):
                return False
            var walk = start_beam_search[Self.S](
                self.snapshot.graph,
                self.rows,
                self.known,
                task.prepared,
                Pointer(to=scratch).unsafe_origin_cast[MutUntrackedOrigin](),
                limit - spare,
                limit,
            )
            while walk.collect():
                walk.measure_apart()
