"""Exact search over stored rows equals a plain scan by the kernel; its parts are right by themselves."""
from std.random import random_float64, random_si64, random_ui64, seed
from std.testing import TestSuite, assert_equal, assert_true

from vicinal.exact.flat import search_exact
from vicinal.exact.request import SearchRequest
from vicinal.exact.scan import RowSource
from vicinal.exact.tile import (
    BLOCK_ROWS,
    BLOCK_WORDS,
    PANEL_QUERIES,
    PANEL_ROWS,
    TILE,
    Sum,
    block_words,
    multiply,
    pack_query,
    pack_rows,
    query_bias,
    row_bias,
    words_of,
)
from vicinal.exact.topk import TopK
from vicinal.kernels.candidates import EMPTY_ENTRY, entry_of, key_of, node_of
from vicinal.kernels.in_space import SpaceTask, in_given_space
from vicinal.kernels.products import W
from vicinal.kernels.inspect_row import inspect_row
from vicinal.kernels.space import COSINE, METRICS, Query, Rows, Space
from vicinal.kernels.stored_type import STORED_TYPES, row_stride
from vicinal.system.memory import Ptr, allocate, allocate_zeroed, release
from vicinal.system.outcome import DONE, Outcome, STOPPED
from vicinal.system.parallel import Team, Unwatched, Watch


def fill[T: DType](p: Ptr[Scalar[T]], count: Int):
    """Writes random values; small whole numbers, so that ties occur and sums of floats are exact.
    """
    for i in range(count):
        comptime if T == DType.uint8:
            p[unsafe_offset=i] = Scalar[T](random_ui64(0, 255))
        elif T == DType.int8:
            p[unsafe_offset=i] = Scalar[T](random_si64(-128, 127))
        else:
            p[unsafe_offset=i] = Scalar[T](random_si64(-4, 4))


def test_topk_keeps_the_smallest() raises:
    seed(1)
    for k in [1, 2, 10, 255, 256, 257, 300, 1000, 5000]:
        var top = TopK(k)
        var count = 3000
        var taken = List[Int64]()
        for row in range(count):
            var entry = entry_of(Int32(random_si64(-500, 500)), row)
            taken.append(entry)
            if entry < top.bound():
                top.insert(entry)
        sort(taken)
        var found = top.finish()
        assert_equal(found, min(k, count))
        for i in range(found):
            assert_equal(top.entry(i), taken[i])
        assert_equal(top.bound(), taken[k - 1] if k <= count else EMPTY_ENTRY)


def test_topk_with_the_smallest_entry() raises:
    for k in [1, 300]:
        var top = TopK(k)
        top.insert(entry_of(Int32.MIN, 0))
        assert_equal(top.finish(), 1)
        assert_equal(key_of(top.entry(0)), Int32.MIN)
        assert_equal(node_of(top.entry(0)), 0)


def check_tiles[T: DType](dim: Int, count: Int) raises:
    """Multiplies packed rows and queries and compares with plain sums."""
    comptime Q = DType.float32 if T.is_floating_point() else T
    var rows = allocate[Scalar[T]](count * dim)
    var queries = allocate[Scalar[Q]](PANEL_QUERIES * dim)
    fill(rows, count * dim)
    fill(queries, PANEL_QUERIES * dim)
    var words = words_of[T](dim)
    var step = block_words(words)
    assert_true(step <= BLOCK_WORDS and step % W == 0)
    var packed = allocate[Scalar[Sum[T]]](BLOCK_ROWS * BLOCK_WORDS)
    var packed_queries = allocate_zeroed[Scalar[Sum[T]]](PANEL_QUERIES * words)
    var sums = allocate[Scalar[Sum[T]]](BLOCK_ROWS // PANEL_ROWS * TILE)
    var nothing = allocate[Float32](1)
    for q in range(PANEL_QUERIES):
        pack_query[T, Q, centred=False](
            queries.unsafe_offset(q * dim), dim, 1, nothing, q, 1, packed_queries
        )
    var view = Rows(Int(rows), dim * (4 if T == DType.float32 else 1), dim, 0)
    for first in range(0, words, step):
        var here = min(step, words - first)
        pack_rows[T, centred=False, scaled=False](
            view, 0, count, first, here, nothing, nothing, packed
        )
        var padded = (here + W - 1) // W * W
        for r in range((count + PANEL_ROWS - 1) // PANEL_ROWS):
            multiply[T](
                packed.unsafe_offset(r * padded * PANEL_ROWS),
                packed_queries.unsafe_offset(first * PANEL_QUERIES),
                here,
                sums.unsafe_offset(r * TILE),
                first != 0,
            )
    for q in range(PANEL_QUERIES):
        for row in range(count):
            var sum: Int64 = 0
            for i in range(dim):
                sum += Int64(rows[unsafe_offset=row * dim + i]) * Int64(
                    queries[unsafe_offset=q * dim + i]
                )
            var got = Int64(
                sums[unsafe_offset=row // PANEL_ROWS * TILE + q * PANEL_ROWS + row % PANEL_ROWS]
            )
            comptime if not T.is_floating_point():
                got += Int64(row_bias[T](rows.unsafe_offset(row * dim), dim))
                got += Int64(
                    query_bias[T](queries.unsafe_bitcast[Scalar[T]]().unsafe_offset(q * dim), dim)
                )
            assert_equal(got, sum)
    release(rows)
    release(queries)
    release(packed)
    release(packed_queries)
    release(sums)
    release(nothing)


def test_tiles() raises:
    seed(2)
    for dim in [1, 2, 3, 4, 5, W - 1, W, W + 1, 4 * W, 4 * W + 3, 255, 257, 1000]:
        for count in [1, W, PANEL_ROWS + 1, BLOCK_ROWS]:
            check_tiles[DType.float32](dim, count)
            check_tiles[DType.int8](dim, count)
            check_tiles[DType.uint8](dim, count)


@fieldwise_init
struct Compare(SpaceTask):
    """Searches stored rows and compares with a plain scan."""

    var dtype: Int
    var dim: Int
    var count: Int
    var num_queries: Int
    var k: Int
    var threads: Int
    var max_bytes: Int
    var wrong: Int
    """Places that differ."""

    def run[S: Space](mut self):
        """Does it in one space."""
        var stride = row_stride(self.dim, self.dtype)
        var bytes = allocate_zeroed[UInt8](self.count * stride)
        var norms = allocate[Float32](self.count)
        var rows = Rows(Int(bytes), stride, self.dim, Int(norms) if S.needs_norms else 0)
        for row in range(self.count):
            var p = rows.row[S.T](row)
            comptime if S.T.is_floating_point():
                for i in range(self.dim):
                    p[unsafe_offset=i] = Float32(random_float64(-0.2, 0.3)).cast[S.T]()
            else:
                fill(p, self.dim)
            comptime if S.needs_norms:
                p[] = 100
                _ = inspect_row[S, S.T](p, self.dim, norms[unsafe_offset=row])
        var queries = allocate[Scalar[S.Q]](self.num_queries * self.dim)
        for i in range(self.num_queries * self.dim):
            comptime if S.T.is_floating_point():
                queries[unsafe_offset=i] = Scalar[S.Q](random_float64(-0.2, 0.3))
            else:
                fill(queries.unsafe_offset(i), 1)
                if i % self.dim == 0:
                    queries[unsafe_offset=i] = 100
        var ids = allocate[Int64](self.num_queries * self.k)
        var distances = allocate[Float32](self.num_queries * self.k)
        var watch = Unwatched()
        var team = Team(self.threads)
        var status = search_exact[S](
            RowSource(rows, self.count, False),
            False,
            SearchRequest(Int(queries), self.num_queries, self.k, self.k, ids, distances, 1),
            team,
            self.max_bytes,
            watch,
        )
        if status != DONE:
            self.wrong += 1
        for q in range(self.num_queries):
            self.compare[S](
                rows,
                queries.unsafe_offset(q * self.dim),
                ids.unsafe_offset(q * self.k),
                distances.unsafe_offset(q * self.k),
            )
        release(bytes)
        release(norms)
        release(queries)
        release(ids)
        release(distances)

    def compare[
        S: Space
    ](mut self, rows: Rows, given: Ptr[Scalar[S.Q]], ids: Ptr[Int64], distances: Ptr[Float32]):
        """Compares the result of one query."""
        var query = Query(Int(given), 1)
        comptime if S.metric == COSINE:
            _ = inspect_row[S, S.Q](given, self.dim, query.norm)
            comptime if S.T.is_floating_point():
                for i in range(self.dim):
                    given[unsafe_offset=i] = given[unsafe_offset=i] * query.norm.cast[S.Q]()
        var entries = List[Int64]()
        for row in range(self.count):
            entries.append(entry_of(S.key(query, rows, row), row))
        sort(entries)
        for i in range(self.k):
            var id: Int64 = -1
            var distance = Float32.MAX
            if i < self.count:
                id = Int64(node_of(entries[i]))
                distance = S.value(key_of(entries[i]))
            if ids[unsafe_offset=i] != id or distances[unsafe_offset=i] != distance:
                self.wrong += 1


def test_equals_a_plain_scan() raises:
    seed(3)
    for metric in range(METRICS):
        for dtype in range(STORED_TYPES):
            for dim in [1, W, 37, 300]:
                for num_queries in [1, 6, 20]:
                    var task = Compare(
                        dtype,
                        dim,
                        290,
                        num_queries,
                        300 if dim == 37 else 9,
                        num_queries % 3 + 1,
                        1 << 24,
                        0,
                    )
                    in_given_space(metric, dtype, task)
                    if dim == 37:
                        task.max_bytes = 1
                        in_given_space(metric, dtype, task)
                    assert_equal(
                        task.wrong, 0, String(t"metric {metric}, dtype {dtype}, {dim} dimensions")
                    )


struct Impatient(Watch):
    """Ends the call at once."""

    def __init__(out self):
        """Makes the watch."""
        pass

    def proceed(mut self, done: Int) -> Bool:
        """Says no."""
        return False

    def advance(mut self, base: Int):
        """Takes no note."""
        pass

    def conclude(mut self, done: Int) -> Bool:
        """Keeps what was done."""
        return True


@fieldwise_init
struct Stopped(SpaceTask):
    """Searches with a watch that ends the call."""

    var num_queries: Int
    var status: Outcome

    def run[S: Space](mut self):
        """Does it in one space."""
        var rows = allocate_zeroed[Float32](1000)
        var ids = allocate[Int64](self.num_queries)
        var distances = allocate[Float32](self.num_queries)
        var watch = Impatient()
        self.status = search_exact[S](
            RowSource(Rows(Int(rows), 4, 1, 0), 1000, False),
            True,
            SearchRequest(Int(rows), self.num_queries, 1, 1, ids, distances, 1),
            Team(1),
            1 << 20,
            watch,
        )
        release(rows)
        release(ids)
        release(distances)


def test_a_watch_ends_the_call() raises:
    for num_queries in [1, 50]:
        var task = Stopped(num_queries, DONE)
        in_given_space(0, 0, task)
        assert_equal(task.status, STOPPED)


def main() raises:
    TestSuite.discover_tests[__functions_in_module()]().run()
