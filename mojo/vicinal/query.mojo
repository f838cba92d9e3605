"""Answering queries: one or many, through the graph or by a scan of all rows."""
from vicinal.candidates import Candidates, entry_of
from vicinal.index import DONE, STOPPED, Index
from vicinal.memory import Ptr, allocate, at, release
from vicinal.parallel import Body, Team, Watch
from vicinal.scratch import Scratch
from vicinal.search import search_graph
from vicinal.space import COSINE, FINE, Query, Rows, Space, SpaceTask, in_space, inspect_row

comptime PIECE = 8
"""Queries of a piece."""


def scan[S: Space](rows: Rows, begin: Int, end: Int, query: Query, mut nearest: Candidates):
    """Measures rows begin .. end-1 and keeps the nearest."""
    for row in range(begin, end):
        var entry = entry_of(S.key(query, rows, row), row)
        if entry < nearest.worst():
            _ = nearest.insert(entry)


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
            var vector = scratch.widened(index.dim)
            var elements = given.unsafe_bitcast[Float32]()
            for j in range(index.dim):
                vector[unsafe_offset=j] = elements[unsafe_offset=j] * query.norm
            query.address = Int(vector)
        var width = max(self.k, self.ef)
        if index.exact(width):
            scratch.beam.reset(min(self.k, max(index.count, 1)))
            scan[Self.S](index.rows(), 0, index.count, query, scratch.beam)
        else:
            search_graph[Self.S](index.graph, index.rows(), query, scratch, width)
        var found = min(self.k, scratch.beam.size)
        var ids = self.ids.unsafe_offset(i * self.k)
        var distances = self.distances.unsafe_offset(i * self.k)
        var known = index.ids.ptr[Int64]() if found != 0 else ids
        for j in range(found):
            ids[unsafe_offset=j] = known[unsafe_offset=scratch.beam.node(j)]
            distances[unsafe_offset=j] = Self.S.value(scratch.beam.key(j))
        for j in range(found, self.k):
            ids[unsafe_offset=j] = -1
            distances[unsafe_offset=j] = Float32.MAX


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
