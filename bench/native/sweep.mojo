"""Searches at several widths: recall, speed, latency and work."""
from std.time import perf_counter_ns

from arrays import Matrix
from exact import reason, search_rows
from options import dtype_names, metric_names
from questions import Questions
from recall import check_truth, recall
from report import INDEX_NAME, Record, Report, cell, fixed, median
from vicinal.exact.request import SearchRequest
from vicinal.exact.scan import RowSource
from vicinal.index.first_use import know_ids
from vicinal.index.vector_index import Index
from vicinal.kernels.stored_type import is_float
from vicinal.search.batch import search_many
from vicinal.system.memory import Column
from vicinal.system.outcome import DONE
from vicinal.system.parallel import Unwatched
from vicinal.walk.scratch import DISTANCES, HOPS


@fieldwise_init
struct Work(TrivialRegisterPassable):
    """What searches and insertions have done so far."""

    var distances: Int
    """Distances measured on the way through the graph."""
    var hops: Int
    """Nodes expanded."""


def work_of(index: Index) -> Work:
    """Returns the counts of all scratches; nobody may be searching."""
    return Work(index.readers.count(DISTANCES), index.readers.count(HOPS))


struct Width(Copyable, Movable):
    """What was measured at one search width."""

    var ef: Int
    var rates: List[Float64]
    """Queries per second of each round, one by one."""
    var batch_rates: List[Float64]
    """The same for a batch on all threads asked for."""
    var latencies: List[Float64]
    """Microseconds of each query of each round."""
    var work: Work
    """Of one round."""
    var recall: Float64

    def __init__(out self, ef: Int):
        """Begins with nothing."""
        self.ef = ef
        self.rates = List[Float64]()
        self.batch_rates = List[Float64]()
        self.latencies = List[Float64]()
        self.work = Work(0, 0)
        self.recall = 0


struct Answers(Movable):
    """Room for what an index answers, and the ways to ask it."""

    var ids: Matrix
    var distances: Column

    def __init__(out self, asked: Questions) raises:
        """Makes room."""
        self.ids = asked.room()
        self.distances = Column()
        if not self.distances.grow(asked.count * asked.k * 4):
            raise Error(t"{asked.queries.label}: no memory for {asked.count} x {asked.k} distances")

    def ask(
        mut self, mut index: Index, asked: Questions, first: Int, count: Int, ef: Int, threads: Int
    ) raises:
        """Searches for `count` queries from `first` on in one call."""
        var bytes = index.dim * (4 if is_float(index.dtype) else 1)
        var watch = Unwatched()
        var status = search_many(
            index,
            SearchRequest(
                asked.queries.data.address + first * bytes,
                count,
                asked.k,
                ef,
                self.ids.data.ptr[Int64]().unsafe_offset(first * asked.k),
                self.distances.ptr[Float32]().unsafe_offset(first * asked.k),
                threads,
            ),
            watch,
        )
        if status != DONE:
            raise Error(
                t"{asked.queries.label}: row {first + status.code // 8} {reason(status.code % 8)}"
            )

    def round(mut self, mut index: Index, asked: Questions, mut width: Width) raises:
        """Asks all queries, one by one on this thread, then at once on all threads."""
        var before = work_of(index)
        var start = perf_counter_ns()
        var last = start
        for i in range(asked.count):
            self.ask(index, asked, i, 1, width.ef, 1)
            var now = perf_counter_ns()
            width.latencies.append(Float64(now - last) / 1e3)
            last = now
        width.rates.append(Float64(asked.count) * 1e9 / Float64(last - start))
        var after = work_of(index)
        width.work = Work(after.distances - before.distances, after.hops - before.hops)
        start = perf_counter_ns()
        self.ask(index, asked, 0, asked.count, width.ef, asked.threads)
        width.batch_rates.append(Float64(asked.count) * 1e9 / Float64(perf_counter_ns() - start))


def rows_of_ids(mut index: Index, ids: Matrix, width: Int) raises -> Matrix:
    """Returns the rows of the first `width` ids of each line, -1 where there is none."""
    var watch = Unwatched()
    if know_ids(index, watch) != DONE:
        raise Error(t"{ids.label}: no memory for the table of ids")
    var rows = Matrix(ids.label, DType.int64, ids.rows, width)
    rows.make_room(ids.rows * width * 8)
    for i in range(ids.rows):
        for j in range(width):
            var id = ids.data.ptr[Int64]()[unsafe_offset=i * ids.dim + j]
            rows.data.ptr[Int64]()[unsafe_offset=i * width + j] = Int64(index.row_of(id))
    return rows^


def find_truth(mut index: Index, asked: Questions) raises -> Matrix:
    """Returns the true neighbours as row numbers: out of a file, else by exact search."""
    if asked.truth.rows > 0:
        var rows = rows_of_ids(index, asked.truth, asked.k)
        check_truth(rows, asked, index.count)
        return rows^
    var rows = asked.room()
    var source = RowSource(index.rows(), index.count, False)
    var stamps = search_rows(
        index.metric, index.dtype, source, False, "index", asked, asked.threads, False, rows
    )
    print(
        t"truth    by exact search of all rows in"
        t" {fixed(Float64(stamps[1] - stamps[0]) / 1e9, 3)} s"
    )
    return rows^


def walked_on(index: Index) -> String:
    """Returns what searches measure on their way through the graph."""
    var names: List[String] = ["stored rows", "u8", "sq8", "rabitq4"]
    return names[index.codes[].kind]


def run_sweep(mut index: Index, asked: Questions, data: String, report: Report) raises:
    """Prints one line for each search width.

    All widths take their turn in each round, so that a drift of the machine meets them alike; the
    first pass, at the largest width, warms caches and is not counted.
    """
    var widths = List[Width]()
    var widest = 0
    for ef in asked.widths:
        widths.append(Width(ef))
        widest = max(widest, ef)
    var answers = Answers(asked)
    var start = perf_counter_ns()
    answers.ask(index, asked, 0, 1, widest, 1)
    print(
        t"first    query took {fixed(Float64(perf_counter_ns() - start) / 1e3, 1)} us at ef"
        t" {widest}"
    )
    var truth = find_truth(index, asked)
    answers.ask(index, asked, 0, asked.count, widest, 1)
    for round in range(asked.rounds):
        for ref width in widths:
            answers.round(index, asked, width)
            if round == 0:
                var found = rows_of_ids(index, answers.ids, asked.k)
                width.recall = recall(index.metric, index.dtype, index.rows(), asked, found, truth)
    print(t"walk     on {walked_on(index)}")
    print(
        t"search   k {asked.k}, {asked.count} queries, {asked.rounds} rounds, median; latency and"
        t" work of one-by-one calls"
    )
    var title = (
        cell("ef", 8) + cell("recall@" + String(asked.k), 11) + cell("QPS", 9) + cell("p50 us", 9)
    )
    title += cell("p95 us", 9) + cell("p99 us", 9) + cell("distances", 11) + cell("hops", 8)
    print(title + cell("batch QPS, " + String(asked.threads) + " thr.", 20))
    for ref width in widths:
        _show(index, width, asked, data, report)


def _show(index: Index, width: Width, asked: Questions, data: String, report: Report) raises:
    """Prints a line and adds two records, of one-by-one calls and of the batch."""
    # a scan of all rows is not counted: it measures each
    var scans = index.snapshot().exact(max(width.ef, asked.k))
    var distances = Float64(width.work.distances) / Float64(asked.count)
    if scans:
        distances = Float64(index.count)
    var hops = Float64(width.work.hops) / Float64(asked.count)
    var one = _record(index, width, asked, data, "one", 1)
    one.spread("qps", width.rates)
    var line = cell(width.ef, 8) + cell(width.recall, 4, 11) + cell(median(width.rates), 0, 9)
    line += one.latencies(width.latencies, 9)
    one.number("distances_per_query", distances)
    one.number("hops_per_query", hops)
    report.put(one)
    line += cell(distances, 1, 11) + (cell("scan", 8) if scans else cell(hops, 1, 8))
    var batch = _record(index, width, asked, data, "batch", asked.threads)
    batch.spread("qps", width.batch_rates)
    report.put(batch)
    print(line + cell(median(width.batch_rates), 0, 20))


def _record(
    index: Index, width: Width, asked: Questions, data: String, mode: String, threads: Int
) -> Record:
    var record = index_record("search", index, data)
    record.text("mode", mode)
    record.text("walked_on", walked_on(index))
    record.whole("threads", threads)
    record.whole("ef", width.ef)
    record.whole("k", asked.k)
    record.whole("queries", asked.count)
    record.number("recall", width.recall)
    return record^


def index_record(kind: String, index: Index, data: String) -> Record:
    """Starts a record about an index."""
    var record = Record.of(kind)
    record.text("data", data)
    record.text("index", INDEX_NAME)
    record.whole("rows", index.count)
    record.whole("dim", index.dim)
    record.text("metric", metric_names()[index.metric])
    record.text("dtype", dtype_names()[index.dtype])
    record.whole("M", index.graph[].M)
    record.whole("ef_construction", index.ef_construction)
    record.whole("seed", index.seed)
    return record^
