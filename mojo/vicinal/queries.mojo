"""Answering the queries of one call: all are checked, then threads share them."""
from std.atomic import Ordering, fence

from vicinal.flat import search_exact
from vicinal.index import DONE, STOPPED, Index
from vicinal.interleave import LANES, lanes_for
from vicinal.memory import Ptr, allocate, at, release
from vicinal.parallel import Team, Watch
from vicinal.query import PIECE, Answer, undone_of
from vicinal.scan import Source
from vicinal.scratch import Scratch
from vicinal.shared import seen
from vicinal.space import FINE, Space, SpaceTask, in_space, inspect_row

comptime TILED = 8
"""From so many queries on, a scan of all rows measures several rows and queries together."""
comptime SCAN_WORK = 1 << 24
"""Products of a scan, a few milliseconds of them, from which on its rows are cut into pieces between which the watch is asked."""
comptime THREAD_WORK = 1 << 21
"""Products that are worth a thread of their own."""
comptime SCAN_BYTES = 64 << 20
"""Scratch of such a scan."""


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
        if index.exact(max(self.k, self.ef)) and (
            self.count >= TILED or self.count * seen(index.count) * index.dim >= SCAN_WORK
        ):
            if self.scan_all[S]():
                return
        var team = Team(min(self.threads, (self.count + PIECE - 1) // PIECE))
        var lanes = min(lanes_for(index.walked_bytes()), self.count)
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
        var scratch = index.shelf.take()  # not used: it shows that somebody reads
        var version = index.marks.now()
        var count = seen(index.count)
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
        index.shelf.put(scratch)
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
