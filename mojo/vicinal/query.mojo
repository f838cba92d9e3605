"""Answering a query: through the graph, or by a scan of all rows."""
from std.atomic import Atomic, Ordering, fence

from vicinal.code_space import Estimate, ExactBytes
from vicinal.codes import EXACT, ROTATED, STORED_ROWS, Codes, is_bytes
from vicinal.candidates import Candidates, entry_of
from vicinal.graph import Graph
from vicinal.index import Index
from vicinal.interleave import Errands, run_errands
from vicinal.marks import BLOCK, Sight
from vicinal.memory import Ptr, at
from vicinal.parallel import Body
from vicinal.scratch import Scratch
from vicinal.shared import seen, seen_at
from vicinal.rotation import padded_dim
from vicinal.search import LOOK_AHEAD, Walk, fetch_row, start_walk
from vicinal.space import COSINE, Measure, Query, Rows, Space, inspect_row

comptime LEAST_RERANKED = 32
"""Candidates measured again when distances are estimates; three times k if that is more."""
comptime PIECE = 32
"""Queries of a piece."""


@fieldwise_init
struct Task(TrivialRegisterPassable):
    """A query whose walk is under way."""

    var number: Int
    """Which query."""
    var query: Query
    """For measuring stored rows."""
    var exact: Bool
    """Whether the walk's distances are exact for this query."""
    var prepared: Query
    """For measuring what is walked on."""
    var version: UInt32
    """The version of the rows that the search sees."""


def scan[S: Space](rows: Rows, count: Int, sight: Sight, query: Query, mut nearest: Candidates):
    """Measures the first `count` rows and keeps the nearest of those seen."""
    if sight.marks == 0:
        for row in range(count):
            var entry = entry_of(S.key(query, rows, row), row)
            if entry < nearest.worst():
                nearest.insert(entry)
        nearest.arrange()
        return
    for block in range(0, count, BLOCK):
        var end = min(block + BLOCK, count)
        if sight.none_of(block, end):
            continue
        for row in range(block, end):
            if sight.sees(row):
                var entry = entry_of(S.key(query, rows, row), row)
                if entry < nearest.worst():
                    nearest.insert(entry)
    nearest.arrange()


@always_inline
def known_rows[coded: Bool](index: Index, codes: Codes) -> Int:
    """Returns how many rows a walk may meet; to be asked before the rows are looked up.

    Rows added later may be without such codes, or lie at an address that was not yet known.
    """
    var linked = seen(index.graph.linked)
    comptime if coded:
        return min(linked, seen(codes.count))
    return linked


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
        """Answers queries begin .. end-1, again if rows were freed meanwhile that they may have met; then one at a time, so
        that none waits for quiet longer than it takes itself.
        """
        if self.answer_at_once(begin, end, worker):
            return
        for i in range(begin, end):
            while not self.answer_at_once(i, i + 1, worker):
                pass

    @always_inline
    def answer_at_once(self, begin: Int, end: Int, worker: Int) -> Bool:
        """Answers queries; returns False if an addition was taken back or rows were freed meanwhile.
        """
        var undone = undone_of(self.index[])
        self.answer(begin, end, worker)
        fence[Ordering.ACQUIRE]()
        return undone_of(self.index[]) == undone

    def answer(self, begin: Int, end: Int, worker: Int):
        """Answers queries begin .. end-1."""
        ref index = self.index[]
        var version = index.marks.now()  # before anything else is looked at
        ref codes = seen_at(index.codes)[]
        var scratches = self.scratches.unsafe_offset(worker * self.lanes)
        if index.exact(max(self.k, self.ef)):
            ref scratch = scratches[][]
            for i in range(begin, end):
                self.scan_for(i, self.query(i, scratch), version, scratch)
        elif codes.kind == STORED_ROWS:
            self.walk[Self.S, coded=False](begin, end, version, scratches, codes)
        elif codes.kind == EXACT:
            comptime if Self.S.metric != COSINE:
                # queries that 8 bits hold walk on the codes, others on the rows: rounded they could lose all they are
                var first = begin
                while first < end:
                    var fits = self.fits(first)
                    var last = first + 1
                    while last < end and self.fits(last) == fits:
                        last += 1
                    if fits:
                        self.walk[ExactBytes[Self.S.metric, Self.S.T == DType.int8], coded=True](
                            first, last, version, scratches, codes
                        )
                    else:
                        self.walk[Self.S, coded=False](first, last, version, scratches, codes)
                    first = last
        else:
            comptime if Self.S.T.is_floating_point():
                if codes.kind == ROTATED:
                    self.walk[Estimate[4], coded=True](begin, end, version, scratches, codes)
                else:
                    self.walk[Estimate[8], coded=True](begin, end, version, scratches, codes)

    @always_inline
    def query(self, i: Int, mut scratch: Scratch) -> Query:
        """Returns query i for measuring stored rows: of unit length for cosine, and on a cache line for float types.
        """
        var given = at[Scalar[Self.S.Q]](self.queries).unsafe_offset(i * self.index[].dim)
        var query = Query(Int(given), 1)
        comptime if Self.S.metric == COSINE:
            _ = inspect_row[Self.S, Self.S.Q](given, self.index[].dim, query.norm)
        comptime if Self.S.T.is_floating_point():
            var vector = scratch.work(2 * padded_dim(self.index[].dim))
            var elements = given.unsafe_bitcast[Float32]()
            for j in range(self.index[].dim):
                vector[unsafe_offset=j] = elements[unsafe_offset=j] * query.norm
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

    def walk[
        M: Measure, coded: Bool
    ](self, begin: Int, end: Int, version: UInt32, scratches: Ptr[Ptr[Scratch]], codes: Codes):
        """Answers queries through the graph."""
        var known = known_rows[coded](self.index[], codes)
        var rows = self.index[].rows()  # in this order: rows that come meanwhile may lie elsewhere
        var walks = Walks[Self.S, M, coded](
            Pointer(to=self).unsafe_mut_cast[True]().unsafe_origin_cast[MutUntrackedOrigin](),
            Pointer(to=codes).unsafe_mut_cast[True]().unsafe_origin_cast[MutUntrackedOrigin](),
            codes.rows(rows) if coded else rows,
            known,
            version,
        )
        run_errands(walks, begin, end, scratches, self.lanes)

    @no_inline
    def scan_for(self, i: Int, query: Query, version: UInt32, mut scratch: Scratch):
        """Answers query i by a scan of all rows."""
        ref index = self.index[]
        # not live(): rows may have gone since this version
        var count = seen(index.count)
        scratch.beam.reset(max(min(self.k, count), 1))
        scan[Self.S](index.rows(), count, index.marks.sight(version), query, scratch.beam)
        self.write[Self.S.value](i, scratch.beam)

    @always_inline
    def write_found[
        value: def(Int32) thin -> Float32
    ](self, i: Int, nearest: Candidates, mut room: Candidates, sight: Sight) -> Bool:
        """Writes the result of query i, found through the graph, with the copies of what was found.

        Returns:
            False if there are more rows than were found: beside a writer some may not be reached for a while.
        """
        ref index = self.index[]
        var found = nearest.size
        if seen(index.copies.count) == 0:
            self.write[value](i, nearest)
        else:
            index.copies.expand(nearest, room, self.k, seen(index.count), sight)
            self.write[value](i, room)
            found = room.size
        return found >= self.k or found >= index.live()

    @always_inline
    def write[value: def(Int32) thin -> Float32](self, i: Int, nearest: Candidates):
        """Writes the result of query i."""
        var found = min(self.k, nearest.size)
        var ids = self.ids.unsafe_offset(i * self.k)
        var distances = self.distances.unsafe_offset(i * self.k)
        var known = self.index[].ids.ptr[Int64]() if found != 0 else ids
        for j in range(found):
            ids[unsafe_offset=j] = known[unsafe_offset=nearest.node(j)]
            distances[unsafe_offset=j] = value(nearest.key(j))
        for j in range(found, self.k):
            ids[unsafe_offset=j] = -1
            distances[unsafe_offset=j] = Float32.MAX  # infinity


@fieldwise_init
struct Walks[Stored: Space, M: Measure, coded: Bool](Errands):
    """Queries answered through the graph, by walks on the stored rows or on codes."""

    comptime S = Self.M
    comptime Note = Task

    var answer: Ptr[Answer[Self.Stored]]
    var codes: Ptr[Codes]
    var rows: Rows
    """What is walked on."""
    var known: Int
    """Rows that walks may meet: those that `rows` holds for certain."""
    var version: UInt32
    """The version of the rows that the searches see."""

    def nothing(self) -> Task:
        """Returns no task."""
        return Task(0, Query(0, 1), True, Query(0, 1), 0)

    @always_inline
    def idle(self, scratch: Ptr[Scratch]) -> Walk[Self.S, True]:
        """Returns a walk that is never made."""
        return Walk[Self.S, True](self.graph(), self.rows, Query(0, 1), scratch, 0, 0, 0)

    @always_inline
    def graph(self) -> Ptr[Graph]:
        """Returns the graph."""
        return Pointer(to=self.answer[].index[].graph).unsafe_origin_cast[MutUntrackedOrigin]()

    @always_inline
    def start(self, number: Int, scratch: Ptr[Scratch], mut task: Task) -> Walk[Self.S, True]:
        """Prepares a query and starts its walk."""
        ref answer = self.answer[]
        ref index = answer.index[]
        ref codes = self.codes[]
        var query = answer.query(number, scratch[])
        var prepared = query
        var exact = not Self.coded or codes.kind == EXACT
        comptime if Self.coded:
            prepared = Query(scratch[].room(codes.query_bytes()), 1)
            codes.prepare[Self.Stored.Q](
                at[Scalar[Self.Stored.Q]](query.address),
                at[UInt8](prepared.address),
                scratch[].work(2 * padded_dim(index.dim)).unsafe_offset(padded_dim(index.dim)),
            )
        task = Task(number, query, exact, prepared, self.version)
        return start_walk[Self.S](
            self.graph(),
            self.rows,
            self.known,
            prepared,
            scratch,
            max(answer.k, answer.ef) + index.marks.extra(),
        )

    @always_inline
    def finish(self, task: Task, mut scratch: Scratch):
        """Writes the result of a walk that is done; estimated candidates are measured again first.
        """
        ref answer = self.answer[]
        var sight = answer.index[].marks.sight(task.version)
        var found = sight.marks == 0 or self.sift(task, sight, scratch)
        if found:
            if not task.exact:
                rerank[Self.Stored](
                    answer.index[].rows(),
                    task.query,
                    scratch,
                    max(LEAST_RERANKED, 3 * answer.k),
                    answer.k,
                )
                found = answer.write_found[Self.Stored.value](
                    task.number, scratch.chosen, scratch.beam, sight
                )
            elif Self.coded:
                comptime if Self.Stored.metric != COSINE:
                    comptime Exact = ExactBytes[Self.Stored.metric, Self.Stored.T == DType.int8]
                    found = answer.write_found[Exact.value](
                        task.number, scratch.beam, scratch.chosen, sight
                    )
            else:
                found = answer.write_found[Self.Stored.value](
                    task.number, scratch.beam, scratch.chosen, sight
                )
        if not found:
            answer.scan_for(task.number, task.query, task.version, scratch)

    @no_inline
    def sift(self, task: Task, sight: Sight, mut scratch: Scratch) -> Bool:
        """Takes rows that are not seen out of a walk's result, and walks again if they have taken the places of others.

        In the end the beam holds as many rows that are seen as one of the width asked for would, were the others not there.

        Returns:
            False if a scan of all rows is cheaper than to walk again.
        """
        ref answer = self.answer[]
        ref index = answer.index[]
        var wanted = max(answer.k, answer.ef)
        while True:
            var limit = scratch.beam.limit
            var full = scratch.beam.size == limit
            index.copies.sweep(sight, scratch.beam)
            if scratch.beam.size >= wanted or not full or limit >= wanted + index.marks.shaded:
                return True
            limit = min(4 * limit, wanted + index.marks.shaded)
            if index.exact(limit):
                return False
            var walk = start_walk[Self.S](
                self.graph(),
                self.rows,
                self.known,
                task.prepared,
                Pointer(to=scratch).unsafe_origin_cast[MutUntrackedOrigin](),
                limit,
            )
            while walk.collect():
                walk.measure_apart()


@always_inline
def undone_of(index: Index) -> Int64:
    """Returns the number that tells whether a search must start again."""
    return Atomic[Int64].load[ordering=Ordering.ACQUIRE](Pointer(to=index.undone))


@always_inline
def rerank[S: Space](rows: Rows, query: Query, mut scratch: Scratch, count: Int, k: Int):
    """Measures the best candidates of the beam again from the stored rows; leaves the k nearest in `scratch.chosen`.
    """
    ref chosen = scratch.chosen
    var reranked = min(count, scratch.beam.size)
    chosen.reset(k)
    for i in range(min(LOOK_AHEAD, reranked)):
        fetch_row(rows, scratch.beam.node(i))
    for i in range(reranked):
        if i + LOOK_AHEAD < reranked:
            fetch_row(rows, scratch.beam.node(i + LOOK_AHEAD))
        var row = scratch.beam.node(i)
        var entry = entry_of(S.key(query, rows, row), row)
        if entry < chosen.worst():
            chosen.insert(entry)
    chosen.arrange()
    scratch.reranked += reranked
