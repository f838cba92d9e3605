"""Answering queries: one or many, through the graph or by a scan of all rows."""
from std.atomic import Atomic, Ordering, fence

from vicinal.code_space import Estimate, ExactBytes
from vicinal.codes import EXACT, ROTATED, STORED_ROWS, Codes, is_bytes
from vicinal.candidates import Candidates, entry_of
from vicinal.flat import search_exact
from vicinal.graph import MAX_ROWS
from vicinal.index import DONE, STOPPED, Index
from vicinal.marks import BLOCK, Sight
from vicinal.memory import Ptr, allocate, at, release
from vicinal.parallel import Body, Team, Watch
from vicinal.scan import Source
from vicinal.scratch import Scratch
from vicinal.rotation import padded_dim
from vicinal.search import LOOK_AHEAD, fetch_row, Walk, item_bytes_of, start_walk
from vicinal.space import (
    COSINE,
    FINE,
    Measure,
    Query,
    Rows,
    Space,
    SpaceTask,
    in_space,
    inspect_row,
)

comptime LEAST_RERANKED = 32
"""Candidates measured again when distances are estimates; three times k if that is more."""
comptime PIECE = 32
"""Queries of a piece."""
comptime TILED = 8
"""From so many queries on, a scan of all rows measures several rows and queries together."""
comptime THREAD_WORK = 1 << 21
"""Products that are worth a thread of their own."""
comptime SCAN_BYTES = 64 << 20
"""Scratch of such a scan."""
comptime CACHED = 4 << 20
"""Codes and links of no more bytes stay near enough to a core that other searches need not fill the wait."""
comptime LANES = 4
"""Searches that one thread has under way at once in a batch."""


@fieldwise_init
struct Task(TrivialRegisterPassable):
    """A query whose walk is under way."""

    var number: Int
    """Which query."""
    var query: Query
    """For measuring stored rows."""
    var exact: Bool
    """Whether the walk's distances are exact for this query."""
    var version: UInt32
    """The version of the rows that the search sees."""


def scan[S: Space](rows: Rows, count: Int, sight: Sight, query: Query, mut nearest: Candidates):
    """Measures the first `count` rows and keeps the nearest of those seen."""
    if sight.marks == 0:
        for row in range(count):
            var entry = entry_of(S.key(query, rows, row), row)
            if entry < nearest.worst():
                nearest.insert(entry)
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
        ref codes = index.codes[]
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
        """Answers queries through the graph, `lanes` at a time: each waits for memory while the others work.
        """
        ref index = self.index[]
        var rows = codes.rows(index.rows()) if coded else index.rows()
        var lanes = min(self.lanes, end - begin)
        var idle = Walk[M, True](
            Pointer(to=index.graph).unsafe_origin_cast[MutUntrackedOrigin](),
            rows,
            Query(0, 1),
            scratches[],
            0,
            0,
            0,
        )
        var walks_room = Array[Walk[M, True], LANES](fill=idle)
        var tasks_room = Array[Task, LANES](fill=Task(0, Query(0, 1), True, 0))
        var walks = (
            Pointer(to=walks_room)
            .unsafe_bitcast[Walk[M, True]]()
            .unsafe_origin_cast[MutUntrackedOrigin]()
        )
        var at_work = (
            Pointer(to=tasks_room).unsafe_bitcast[Task]().unsafe_origin_cast[MutUntrackedOrigin]()
        )
        var next = begin
        for lane in range(lanes):
            at_work[unsafe_offset=lane] = self.start[M, coded](
                next, version, scratches[unsafe_offset=lane], codes, rows, walks, lane
            )
            next += 1
        var active = lanes
        while active > 0:
            var lane = 0
            while lane < active:
                if walks[unsafe_offset=lane].collect():
                    lane += 1
                    continue
                ref task = at_work[unsafe_offset=lane]
                self.finish[M, coded](task, walks[unsafe_offset=lane], codes)
                if next < end:
                    task = self.start[M, coded](
                        next, version, walks[unsafe_offset=lane].scratch, codes, rows, walks, lane
                    )
                    next += 1
                else:  # the last lane takes this one's place
                    active -= 1
                    walks[unsafe_offset=lane] = walks[unsafe_offset=active]
                    task = at_work[unsafe_offset=active]
            for lane in range(active):
                walks[unsafe_offset=lane].measure()
        _ = walks_room
        _ = tasks_room

    @always_inline
    def start[
        M: Measure, coded: Bool
    ](
        self,
        i: Int,
        version: UInt32,
        scratch: Ptr[Scratch],
        codes: Codes,
        rows: Rows,
        walks: Ptr[Walk[M, True]],
        lane: Int,
    ) -> Task:
        """Prepares query i and starts its walk."""
        ref index = self.index[]
        var query = self.query(i, scratch[])
        var prepared = query
        var exact = True
        comptime if coded:
            prepared = Query(scratch[].room(codes.query_bytes()), 1)
            exact = codes.prepare[Self.S.Q](
                at[Scalar[Self.S.Q]](query.address),
                at[UInt8](prepared.address),
                scratch[].work(2 * padded_dim(index.dim)).unsafe_offset(padded_dim(index.dim)),
            )
        walks[unsafe_offset=lane] = start_walk[M](
            Pointer(to=index.graph).unsafe_origin_cast[MutUntrackedOrigin](),
            rows,
            # rows may have been added since these codes were looked up
            codes.count if coded else MAX_ROWS,
            prepared,
            scratch,
            max(self.k, self.ef) + index.marks.extra(),
        )
        return Task(i, query, exact, version)

    @always_inline
    def finish[M: Measure, coded: Bool](self, task: Task, walk: Walk[M, True], codes: Codes):
        """Writes the result of a walk that is done; estimated candidates are measured again first.
        """
        ref scratch = walk.scratch[]
        var sight = self.index[].marks.sight(task.version)
        if sight.marks != 0 and not self.sift[M, coded](walk, sight, codes):
            self.scan_for(task.number, task.query, task.version, scratch)
        elif not task.exact:
            rerank[Self.S](
                self.index[].rows(), task.query, scratch, max(LEAST_RERANKED, 3 * self.k), self.k
            )
            self.write[Self.S.value](task.number, scratch.chosen)
        elif coded:
            comptime if Self.S.metric != COSINE:
                comptime Exact = ExactBytes[Self.S.metric, Self.S.T == DType.int8]
                self.write[Exact.value](task.number, scratch.beam)
        else:
            self.write[Self.S.value](task.number, scratch.beam)

    @no_inline
    def sift[
        M: Measure, coded: Bool
    ](self, done: Walk[M, True], sight: Sight, codes: Codes) -> Bool:
        """Takes rows that are not seen out of a walk's result, and walks again if they have taken the places of others.

        In the end the beam holds as many rows that are seen as one of the width asked for would, were the others not there.

        Returns:
            False if a scan of all rows is cheaper than to walk again.
        """
        ref index = self.index[]
        ref beam = done.scratch[].beam
        var wanted = max(self.k, self.ef)
        while True:
            var limit = beam.limit
            var full = beam.size == limit
            sight.sweep(beam)
            if beam.size >= wanted or not full or limit >= wanted + index.marks.shaded:
                return True
            limit = min(4 * limit, wanted + index.marks.shaded)
            if index.exact(limit):
                return False
            var walk = start_walk[M](
                done.graph,
                done.rows,
                codes.count if coded else MAX_ROWS,
                done.query,
                done.scratch,
                limit,
            )
            while walk.collect():
                walk.measure()

    @no_inline
    def scan_for(self, i: Int, query: Query, version: UInt32, mut scratch: Scratch):
        """Answers query i by a scan of all rows."""
        ref index = self.index[]
        # not live(): rows may have gone since this version
        scratch.beam.reset(max(min(self.k, index.count), 1))
        scan[Self.S](index.rows(), index.count, index.marks.sight(version), query, scratch.beam)
        self.write[Self.S.value](i, scratch.beam)

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
    var bytes = rows.dim * item_bytes_of[S]()
    chosen.reset(k)
    for i in range(min(LOOK_AHEAD, reranked)):
        fetch_row(rows, scratch.beam.node(i), bytes)
    for i in range(reranked):
        if i + LOOK_AHEAD < reranked:
            fetch_row(rows, scratch.beam.node(i + LOOK_AHEAD), bytes)
        var row = scratch.beam.node(i)
        var entry = entry_of(S.key(query, rows, row), row)
        if entry < chosen.worst():
            chosen.insert(entry)
    scratch.reranked += reranked


@fieldwise_init
struct SearchMany[V: Watch](SpaceTask):
    """Checks all queries, then answers them."""

    var index: Ptr[Index]
    var queries: Int
    var count: Int
    var k: Int
    var ef: Int
    var ids: Ptr[Int64]
    var distances: Ptr[Float32]
    var threads: Int
    var watch: Ptr[Self.V]
    var status: Int

    def run[S: Space](mut self):
        """Does it in one space."""
        ref index = self.index[]
        var norm = Float32(1)
        for i in range(self.count):
            var query = at[Scalar[S.Q]](self.queries).unsafe_offset(i * index.dim)
            var found = inspect_row[S, S.Q](query, index.dim, norm)
            if found != FINE:
                self.status = i * 8 + found
                return
        if self.count >= TILED and index.exact(max(self.k, self.ef)):
            if self.scan_all[S]():
                return
        var team = Team(min(self.threads, (self.count + PIECE - 1) // PIECE))
        var lanes = min(LANES if index.walked_bytes() > CACHED else 1, self.count)
        var few = Array[Int, LANES](fill=0)  # a list of no more needs no allocation
        var scratches = (
            Pointer(to=few).unsafe_bitcast[Ptr[Scratch]]().unsafe_origin_cast[MutUntrackedOrigin]()
        )
        if team.size() * lanes > LANES:
            scratches = allocate[Ptr[Scratch]](team.size() * lanes)
        for i in range(team.size() * lanes):
            scratches[unsafe_offset=i] = index.shelf.take()
        var answer = Answer[S](
            self.index, self.queries, self.k, self.ef, self.ids, self.distances, scratches, lanes
        )
        if not team.run(self.count, PIECE, answer, self.watch[]):
            self.status = STOPPED
        for i in range(team.size() * lanes):
            index.shelf.put(scratches[unsafe_offset=i])
        if team.size() * lanes > LANES:
            release(scratches)
        _ = few

    def scan_all[S: Space](mut self) -> Bool:
        """Measures all rows for many queries at once; returns False if rows were freed meanwhile that it may have met.
        """
        ref index = self.index[]
        var undone = undone_of(index)
        var version = index.marks.now()
        var count = index.count
        var team = Team(min(self.threads, 1 + count * index.dim * self.count // THREAD_WORK))
        self.status = search_exact[S, Self.V, raw=False](
            Source(index.rows(), count, False, index.marks.sight(version)),
            self.queries,
            self.count,
            self.k,
            team,
            SCAN_BYTES,
            self.ids,
            self.distances,
            self.watch[],
        )
        if self.status != DONE or count == 0:
            return True
        var known = index.ids.ptr[Int64]()
        for i in range(self.count * self.k):
            var row = self.ids[unsafe_offset=i]
            if row >= 0:
                self.ids[unsafe_offset=i] = known[unsafe_offset=Int(row)]
        fence[Ordering.ACQUIRE]()
        return undone_of(index) == undone


def search_many[
    V: Watch
](
    mut index: Index,
    queries: Int,
    count: Int,
    k: Int,
    ef: Int,
    ids: Ptr[Int64],
    distances: Ptr[Float32],
    threads: Int,
    mut watch: V,
) -> Int:
    """Finds the k nearest rows of each query.

    Args:
        index: The index; any number of searches and one writer may use it at once.
        queries: Address of count x dim elements: float32 for float types, the stored type for integers.
        count: Number of queries.
        k: Neighbours wanted of each.
        ef: Candidates kept; at least k are.
        ids: Receives count x k ids, nearest first, -1 where there are fewer.
        distances: Receives count x k distances, infinity where there are fewer.
        threads: Workers.
        watch: May end the call early.

    Returns:
        DONE, STOPPED, or 8 * position + kind of a query that was refused.
    """
    var task = SearchMany[V](
        Pointer(to=index).unsafe_origin_cast[MutUntrackedOrigin](),
        queries,
        count,
        k,
        ef,
        ids,
        distances,
        threads,
        Pointer(to=watch).unsafe_origin_cast[MutUntrackedOrigin](),
        DONE,
    )
    in_space(index.metric, index.dtype, task)
    return task.status
