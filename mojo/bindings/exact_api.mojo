"""Exact search over arrays, and the distance of one pair."""
from bindings.python_api import Args, Fail, Obj, as_int, fail, from_float, from_int, need
from bindings.arrays import INT64, View
from bindings.gil import PythonWatch
from vicinal.exact.flat import MAX_ROWS, search_exact
from vicinal.exact.request import SearchRequest
from vicinal.exact.scan import RowSource
from vicinal.kernels.in_space import SpaceTask, in_given_space, is_compiled, is_space
from vicinal.kernels.products import W
from vicinal.kernels.inspect_row import inspect_row
from vicinal.kernels.space import METRICS, Query, Rows, Space
from vicinal.kernels.stored_type import STORED_TYPES, is_float, item_bytes
from vicinal.system.memory import Ptr, at
from vicinal.system.outcome import DONE, FINE, NO_MEMORY, Outcome, STOPPED
from vicinal.system.pages import AS_USUAL, RANDOM, advise
from vicinal.system.parallel import Team

comptime IN_QUERIES = 1 << 62
"""Added to the kind of refusal for a query."""
comptime THREAD_WORK = 1 << 21
"""Products that are worth a thread of their own."""
comptime THREAD_BYTES = 1 << 21
"""Memory below which fewer threads with tiles do better than more without."""


@fieldwise_init
struct SearchRaw(SpaceTask):
    """Checks the queries, then searches rows as they were given."""

    var source: RowSource
    var request: SearchRequest
    var max_bytes: Int
    var watch: Ptr[PythonWatch]
    var status: Outcome

    def run[S: Space](mut self):
        """Does it in one space."""
        var dim = self.source.rows.dim
        var norm = Float32(1)
        for i in range(self.request.count):
            var found = inspect_row[S, S.Q](
                at[Scalar[S.Q]](self.request.queries).unsafe_offset(i * dim), dim, norm
            )
            if found != FINE:
                self.status = Outcome(Outcome.refusal(i, found).code + IN_QUERIES)
                return
        var worth = 1 + self.source.count * dim * max(self.request.count, 1) // THREAD_WORK
        var team = Team(min(self.request.threads, worth, max(1, self.max_bytes // THREAD_BYTES)))
        self.status = search_exact[S](
            self.source,
            True,
            self.request,
            team,
            self.max_bytes,
            self.watch[],
        )


def exact_search(args: Args, count: Int) raises Fail -> Obj:
    """Implements exact_search(metric, dtype, base, queries, k, threads, max_bytes, out_ids, out_distances[, shared_map]).

    Answers 0, or 8 * row + kind of a row that was refused, 2**62 more if it is a query. `shared_map` is 1 if the base lies in a
    shared mapping of a file, whose pages are then let go once they have been read; 2 if it does not fit the memory besides.
    """
    if count != 10:
        need(count, 9)
    var metric = as_int(args[unsafe_offset=0])
    var dtype = as_int(args[unsafe_offset=1])
    var k = as_int(args[unsafe_offset=4])
    var threads = as_int(args[unsafe_offset=5])
    var max_bytes = as_int(args[unsafe_offset=6])
    var shared_map = as_int(args[unsafe_offset=9]) if count == 10 else 0
    if not is_space(metric, dtype):
        raise fail("ValueError", "unknown metric %zd or dtype %zd", metric, dtype)
    need_space(metric, dtype)
    if k < 1 or threads < 1:
        raise fail("ValueError", "k is %zd, threads is %zd; both must be 1 or more", k, threads)
    var base = View(args[unsafe_offset=2], dtype, 2)
    var queries = View(args[unsafe_offset=3], 0 if is_float(dtype) else dtype, 2)
    var ids = View(args[unsafe_offset=7], INT64, 2, writable=True)
    var distances = View(args[unsafe_offset=8], 0, 2, writable=True)
    var dim = base.dim(1)
    var num_queries = queries.dim(0)
    if queries.dim(1) != dim:
        raise fail("ValueError", "queries have dimension %zd, the base %zd", queries.dim(1), dim)
    if dim < 1 or dim > 65536 or base.dim(0) > MAX_ROWS:
        raise fail(
            "ValueError", "dimension %zd or number of rows %zd is out of range", dim, base.dim(0)
        )
    if (
        ids.dim(0) != num_queries
        or ids.dim(1) != k
        or distances.dim(0) != num_queries
        or distances.dim(1) != k
    ):
        raise fail("ValueError", "results must have shape (%zd, %zd)", num_queries, k)
    var watch = PythonWatch(0, base.dim(0))
    var task = SearchRaw(
        RowSource(
            Rows(base.address(), dim * item_bytes(dtype), dim, 0),
            base.dim(0),
            shared_map == 1 or shared_map == 2,
            shared_map == 2,
        ),
        SearchRequest(
            queries.address(),
            num_queries,
            k,
            k,
            at[Int64](ids.address()),
            at[Float32](distances.address()),
            threads,
        ),
        max_bytes,
        Pointer(to=watch).unsafe_origin_cast[MutUntrackedOrigin](),
        DONE,
    )
    var bytes = base.dim(0) * dim * item_bytes(dtype)
    if shared_map == 2:  # what is read is asked for; nothing else is wanted along with it
        _ = advise(base.address(), bytes, RANDOM)
    in_given_space(metric, dtype, task)
    if shared_map == 2:
        _ = advise(base.address(), bytes, AS_USUAL)
    _ = watch^
    _ = base^
    _ = queries^
    _ = ids^
    _ = distances^
    if task.status == STOPPED:
        raise Fail()  # the watch has set the exception
    if task.status == NO_MEMORY:
        raise fail(
            "MemoryError", "no memory for a search of %zd queries with k = %zd", num_queries, k
        )
    return from_int(task.status.code)


@fieldwise_init
struct MeasurePair(SpaceTask):
    """Measures one query against one row."""

    var a: Int
    var b: Int
    var dim: Int
    var value: Float32

    def run[S: Space](mut self):
        """Finds the norms where the metric needs them, and the distance."""
        var norm_a = Float32(1)
        var norm_b = Float32(1)
        _ = inspect_row[S, S.Q](at[Scalar[S.Q]](self.a), self.dim, norm_a)
        _ = inspect_row[S, S.T](at[Scalar[S.T]](self.b), self.dim, norm_b)
        var norms = norm_b
        var rows = Rows(self.b, 0, self.dim, Int(Pointer(to=norms)))
        self.value = S.value(S.key(Query(self.a, norm_a), rows, 0))
        _ = norms


def need_space(metric: Int, dtype: Int) raises Fail:
    """Raises NotImplementedError for a space that a development build has left out."""
    if not is_compiled(metric, dtype):
        raise fail(
            "NotImplementedError",
            (
                "metric number %zd over dtype number %zd is left out of this development build:"
                " see `tools/native_build.py --spaces`"
            ),
            metric,
            dtype,
        )


def distance(args: Args, count: Int) raises Fail -> Obj:
    """Implements distance(metric, dtype, query[dim], row[dim]) -> float.

    For cosine over float types both vectors are expected to have unit length, as an index stores them.
    """
    need(count, 4)
    var metric = as_int(args[unsafe_offset=0])
    var dtype = as_int(args[unsafe_offset=1])
    if not is_space(metric, dtype):
        raise fail("ValueError", "unknown metric %zd or dtype %zd", metric, dtype)
    need_space(metric, dtype)
    var a = View(args[unsafe_offset=2], 0 if dtype <= 2 else dtype, 1)
    var b = View(args[unsafe_offset=3], dtype, 1)
    if a.dim(0) != b.dim(0):
        raise fail("ValueError", "lengths differ: %zd and %zd", a.dim(0), b.dim(0))
    var task = MeasurePair(a.address(), b.address(), a.dim(0), 0)
    in_given_space(metric, dtype, task)
    _ = a^
    _ = b^
    return from_float(Float64(task.value))


def spaces(args: Args, count: Int) raises Fail -> Obj:
    """Implements spaces() -> int: bit dtype + 5 * metric is set for each space of this build."""
    need(count, 0)
    var bits = 0
    for metric in range(METRICS):
        for dtype in range(STORED_TYPES):
            if is_compiled(metric, dtype):
                bits |= 1 << (dtype + STORED_TYPES * metric)
    return from_int(bits)


def cpu_lanes(args: Args, count: Int) raises Fail -> Obj:
    """Implements cpu_lanes() -> int: float32 lanes of a vector in this build."""
    need(count, 0)
    return from_int(W)
