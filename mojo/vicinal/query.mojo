"""Answering queries: one or many, through the graph or by a scan of all rows."""
from vicinal.code_space import Estimate, ExactBytes
from vicinal.codes import EXACT, ROTATED, STORED_ROWS
from vicinal.candidates import Candidates, entry_of
from vicinal.index import DONE, STOPPED, Index
from vicinal.memory import Ptr, allocate, at, release
from vicinal.parallel import Body, Team, Watch
from vicinal.scratch import Scratch
from vicinal.rotation import padded_dim
from vicinal.search import LOOK_AHEAD, fetch_row, item_bytes_of, search_graph
from vicinal.space import COSINE, FINE, Query, Rows, Space, SpaceTask, in_space, inspect_row

comptime LEAST_RERANKED = 32
"""Candidates measured again when distances are estimates; three times k if that is more."""
comptime PIECE = 8
"""Queries of a piece."""


def scan[S: Space](rows: Rows, begin: Int, end: Int, query: Query, mut nearest: Candidates):
    """Measures rows begin .. end-1 and keeps the nearest."""
    for row in range(begin, end):
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

    def run(self, begin: Int, end: Int, worker: Int):
        """Answers queries begin .. end-1."""
        for i in range(begin, end):
            self.answer(i, self.scratches[unsafe_offset=worker][])

    def answer(self, i: Int, mut scratch: Scratch):
        """Finds the nearest rows of one query and writes its line of the result."""
        ref index = self.index[]
        var given = at[Scalar[Self.S.Q]](self.queries).unsafe_offset(i * index.dim)
        var query = Query(Int(given), 1)
        comptime if Self.S.metric == COSINE:
            _ = inspect_row[Self.S, Self.S.Q](given, index.dim, query.norm)
        comptime if Self.S.T.is_floating_point():
            # a copy on a cache line: no vector load straddles two
            var vector = scratch.work(2 * padded_dim(index.dim))
            var elements = given.unsafe_bitcast[Float32]()
            for j in range(index.dim):
                vector[unsafe_offset=j] = elements[unsafe_offset=j] * query.norm
            query.address = Int(vector)
        var width = max(self.k, self.ef)
        if index.exact(width):
            scratch.beam.reset(min(self.k, max(index.count, 1)))
            scan[Self.S](index.rows(), 0, index.count, query, scratch.beam)
            self.write[Self.S.value](i, scratch.beam)
            return
        ref codes = index.codes[]
        if codes.kind == STORED_ROWS:
            search_graph[Self.S](index.graph, index.rows(), query, scratch, width)
            self.write[Self.S.value](i, scratch.beam)
            return
        var prepared = Query(scratch.room(codes.query_bytes()), 1)
        var rows = codes.rows(index.rows())
        if codes.kind == EXACT:
            comptime if Self.S.metric != COSINE:
                comptime Exact = ExactBytes[Self.S.metric, Self.S.T == DType.int8]
                var exact = codes.prepare[Self.S.Q](
                    at[Scalar[Self.S.Q]](query.address), at[UInt8](prepared.address), scratch.work(0)
                )
                search_graph[Exact](index.graph, rows, prepared, scratch, width)
                if exact:
                    self.write[Exact.value](i, scratch.beam)
                    return
        else:
            comptime if Self.S.T.is_floating_point():
                _ = codes.prepare[Self.S.Q](
                    at[Scalar[Self.S.Q]](query.address),
                    at[UInt8](prepared.address),
                    scratch.work(0).unsafe_offset(padded_dim(index.dim)),
                )
                if codes.kind == ROTATED:
                    search_graph[Estimate[4]](index.graph, rows, prepared, scratch, width)
                else:
                    search_graph[Estimate[8]](index.graph, rows, prepared, scratch, width)
        rerank[Self.S](index.rows(), query, scratch, max(LEAST_RERANKED, 3 * self.k), self.k)
        self.write[Self.S.value](i, scratch.chosen)

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
def rerank[S: Space](rows: Rows, query: Query, mut scratch: Scratch, count: Int, k: Int):
    """Measures the best candidates of the beam again from the stored rows; leaves the k nearest in `scratch.chosen`."""
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
        var team = Team(min(self.threads, (self.count + PIECE - 1) // PIECE))
        var scratches = allocate[Ptr[Scratch]](team.size())
        for i in range(team.size()):
            scratches[unsafe_offset=i] = index.shelf.take()
        var answer = Answer[S](
            self.index, self.queries, self.k, self.ef, self.ids, self.distances, scratches
        )
        if not team.run(self.count, PIECE, answer, self.watch[]):
            self.status = STOPPED
        for i in range(team.size()):
            index.shelf.put(scratches[unsafe_offset=i])
        release(scratches)


def search_many[V: Watch](
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
