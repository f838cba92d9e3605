"""Exact search: as the truth for recall, and as something to measure."""
from std.time import perf_counter_ns

from arrays import Matrix
from options import dtype_names, metric_names
from questions import Questions
from recall import check_truth, recall
from report import INDEX_NAME, Record, Report, cell, median
from vicinal.exact.flat import search_exact
from vicinal.exact.request import SearchRequest
from vicinal.exact.scan import RowSource
from vicinal.kernels.in_space import SpaceTask, in_space
from vicinal.kernels.inspect_row import inspect_row
from vicinal.kernels.space import Rows, Space
from vicinal.kernels.stored_type import item_bytes
from vicinal.system.memory import Column, Ptr, at
from vicinal.system.outcome import DONE, FINE, NOT_FINITE, Outcome, TOO_LARGE
from vicinal.system.parallel import Team, Unwatched

comptime SCRATCH_BYTES = 256 << 20


def reason(kind: Int) -> String:
    """Returns in words why a vector was refused."""
    if kind == NOT_FINITE:
        return "holds NaN or infinity"
    if kind == TOO_LARGE:
        return "is too long: its squared norm must stay below 8e37"
    return "is zero, which has no cosine"


@fieldwise_init
struct SearchExact(SpaceTask):
    """Searches all rows for the nearest of some queries."""

    var source: RowSource
    var raw: Bool
    """True for rows as they were read, False for those of an index."""
    var queries: Int
    var count: Int
    var k: Int
    var threads: Int
    var one_by_one: Bool
    """Whether each query is a search of its own, or all are one."""
    var ids: Ptr[Int64]
    var distances: Ptr[Float32]
    var stamps: List[Int]
    """Nanoseconds at the start and after each search."""
    var refused: Int
    """8 * position + kind of the first query that was refused, or 0."""
    var status: Outcome
    """DONE, or 8 * position + kind of a row that was refused."""

    def run[S: Space](mut self):
        """Does it in one space."""
        var dim = self.source.rows.dim
        var norm = Float32(1)
        for i in range(self.count):
            var kind = inspect_row[S, S.Q](
                at[Scalar[S.Q]](self.queries).unsafe_offset(i * dim), dim, norm
            )
            if kind != FINE:
                self.refused = i * 8 + kind
                return
        var team = Team(self.threads)
        var watch = Unwatched()
        var step = 1 if self.one_by_one else self.count
        self.stamps.append(Int(perf_counter_ns()))
        for first in range(0, self.count, step):
            var status = search_exact[S](
                self.source,
                self.raw,
                SearchRequest(
                    Int(at[Scalar[S.Q]](self.queries).unsafe_offset(first * dim)),
                    step,
                    self.k,
                    self.k,
                    self.ids.unsafe_offset(first * self.k),
                    self.distances.unsafe_offset(first * self.k),
                    team.size(),
                ),
                team,
                SCRATCH_BYTES,
                watch,
            )
            if status != DONE:
                self.status = status
                return
            self.stamps.append(Int(perf_counter_ns()))


def search_rows(
    metric: Int,
    dtype: Int,
    source: RowSource,
    raw: Bool,
    label: String,
    asked: Questions,
    threads: Int,
    one_by_one: Bool,
    mut found: Matrix,
) raises -> List[Int]:
    """Finds the true neighbours of all queries.

    Args:
        metric: Code of the metric.
        dtype: Code of the stored type.
        source: The rows.
        raw: True for rows as they were read, False for those of an index.
        label: Where they come from, for messages.
        asked: The queries.
        threads: Workers.
        one_by_one: Whether each query is a search of its own.
        found: Receives row numbers.

    Returns:
        Nanoseconds at the start and after each search.

    Raises:
        Where the library refuses a vector.
    """
    var distances = Column()
    if not distances.grow(asked.count * asked.k * 4):
        raise Error(t"{asked.queries.label}: no memory for {asked.count} x {asked.k} distances")
    var task = SearchExact(
        source,
        raw,
        asked.queries.data.address,
        asked.count,
        asked.k,
        threads,
        one_by_one,
        found.data.ptr[Int64](),
        distances.ptr[Float32](),
        List[Int](),
        0,
        DONE,
    )
    in_space(metric, dtype, task)
    _ = distances^
    if task.refused != 0:
        raise Error(t"{asked.queries.label}: row {task.refused // 8} {reason(task.refused % 8)}")
    if task.status != DONE:
        raise Error(t"{label}: row {task.status.code // 8} {reason(task.status.code % 8)}")
    return task.stamps.copy()


def run_exact(
    base: Matrix,
    metric: Int,
    dtype: Int,
    asked: Questions,
    data: String,
    report: Report,
) raises:
    """Measures exact search over rows as they were read, one query after the other and all at once.
    """
    var source = RowSource(
        Rows(base.data.address, base.dim * item_bytes(dtype), base.dim, 0), base.rows, False
    )
    if asked.truth.rows > 0:
        check_truth(asked.truth, asked, base.rows)
    print(t"exact    k {asked.k}, {asked.count} queries, {asked.rounds} rounds, median")
    var title = cell("mode", 8) + cell("threads", 9) + cell("QPS", 10)
    title += cell("p50 us", 10) + cell("p95 us", 10) + cell("p99 us", 10) + cell("G dist/s", 10)
    print(title + (cell("recall@" + String(asked.k), 11) if asked.truth.rows > 0 else ""))
    for mode in ["one", "batch"]:
        var one_by_one = mode == "one"
        var threads = 1 if one_by_one else asked.threads
        var found = asked.room()
        var rates = List[Float64]()
        var latencies = List[Float64]()
        for round in range(asked.rounds + 1):
            var stamps = search_rows(
                metric, dtype, source, True, base.label, asked, threads, one_by_one, found
            )
            if round == 0:  # the first one warms caches and memory
                continue
            rates.append(Float64(asked.count) * 1e9 / Float64(stamps[len(stamps) - 1] - stamps[0]))
            for i in range(len(stamps) - 1):
                latencies.append(Float64(stamps[i + 1] - stamps[i]) / 1e3)
        var record = Record.of("exact")
        record.text("data", data)
        record.text("index", INDEX_NAME)
        record.whole("rows", base.rows)
        record.whole("dim", base.dim)
        record.text("metric", metric_names()[metric])
        record.text("dtype", dtype_names()[dtype])
        record.text("mode", String(mode))
        record.whole("threads", threads)
        record.whole("queries", asked.count)
        record.whole("k", asked.k)
        record.spread("qps", rates)
        var line = cell(String(mode), 8) + cell(threads, 9) + cell(median(rates), 0, 10)
        if one_by_one:
            line += record.latencies(latencies, 10)
        else:
            line += cell("", 30)
        line += cell(median(rates) * Float64(base.rows) / 1e9, 3, 10)
        if asked.truth.rows > 0:
            var share = recall(metric, dtype, source.rows, asked, found, asked.truth)
            record.number("recall", share)
            line += cell(share, 4, 11)
        report.put(record)
        print(line)
