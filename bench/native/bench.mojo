"""The benchmark program: the library measured from Mojo, without Python.

    bench-native kernels
    bench-native build --base base.npy --queries queries.npy --truth gt_ids.npy --save index.vic
    bench-native search --open index.vic --queries queries.npy --truth gt_ids.npy
    bench-native exact --base base.npy --queries queries.npy --truth gt_ids.npy
    bench-native tests/data
"""
from std.os.path import basename, dirname, getsize, isdir
from std.sys import argv, exit, stderr
from std.time import perf_counter_ns

from arrays import Matrix, own_type, read_matrix, stored_as
from exact import reason, run_exact
from files import open_file, save_file
from folder import find_sets
from kernels import run_kernels
from options import Options, dtype_names, metric_names, quantization_names
from questions import Questions
from report import Report, fixed
from sweep import index_record, run_sweep
from phases import show_phases
from vicinal.construct.build_statistics import DISTANCES
from vicinal.index.vector_index import EXACT_BELOW, Index
from vicinal.kernels.space import COSINE
from vicinal.kernels.stored_type import is_float
from vicinal.system.outcome import DONE, NO_MEMORY
from vicinal.system.parallel import MAX_THREADS, Unwatched
from vicinal.update.add import add_rows

comptime USAGE = """usage: bench-native COMMAND [--OPTION VALUE ...]
       bench-native FOLDER [--OPTION VALUE ...]

  kernels   ns per distance and GB/s of every kernel
            --metric --dtype --dim (lists, separated by commas), --memory-mib
  build     builds an index; saves it with --save FILE; searches it with --queries FILE
            --base FILE --metric --dtype --M --ef-construction --seed --exact-below
            --quantization --build-threads (list, --threads unless given; the last one's index is
            saved and searched), and what search takes
  search    searches an index that this program or Python has saved
            --open FILE --queries FILE [--truth FILE] --ef (list) --k --num-queries --rounds
            --threads
  exact     exact search
            --base FILE --queries FILE [--truth FILE] --metric --dtype --k --num-queries
            --rounds --threads
  FOLDER    all of it, for each vector set in a folder or in the folders in it

--json FILE appends JSON lines. Files of vectors end in .npy, .fvecs or .bvecs, truth in .npy or
.ivecs; without truth, exact search finds it. Rows keep the type of their file unless --dtype says
otherwise."""
"""What --help prints."""


def search_options() -> List[String]:
    """Returns the options of every command that searches."""
    return ["queries", "truth", "k", "num-queries", "rounds", "threads", "json"]


def build_options() -> List[String]:
    """Returns the options of every command that builds."""
    var names = search_options()
    names += [
        "ef",
        "metric",
        "dtype",
        "M",
        "ef-construction",
        "seed",
        "exact-below",
        "quantization",
        "build-threads",
    ]
    return names^


def data_name(path: String) raises -> String:
    """Returns the name of a file's folder, or of the file: it stands for the set in records."""
    var folder = basename(dirname(path))
    return folder if folder else path


def read_rows(options: Options, path: String, mut dtype: Int) raises -> Matrix:
    """Reads vectors in the type that is wanted, or their own, and tells its code."""
    var rows = read_matrix("--base", path)
    if options.has("dtype"):
        dtype = options.choice("dtype", dtype_names(), 0)
    else:
        dtype = own_type(rows)
    return stored_as(rows^, dtype)


def quantization(options: Options, metric: Int, dtype: Int) raises -> Int:
    """Returns the code of what the graph is to be walked on.

    Raises:
        Where it needs rows of another kind.
    """
    var wanted = options.choice("quantization", quantization_names(), 0)
    var name = quantization_names()[wanted]
    if name == "u8" and (is_float(dtype) or metric == COSINE):
        raise Error(
            "--quantization: expected l2 or ip over int8 or uint8 for u8; auto finds floats that"
            " fit 8 bits"
        )
    if (name == "sq8" or name == "rabitq4") and not is_float(dtype):
        raise Error(t"--quantization: expected a float type for {name}, got {dtype_names()[dtype]}")
    return wanted


def build(
    rows: Matrix, metric: Int, dtype: Int, options: Options, data: String, report: Report
) raises -> Index:
    """Builds an index once for each number of threads and saves the last if that is asked for; prints and reports how fast.
    """
    var numbers = options.wholes("build-threads", [options.threads()], 1, MAX_THREADS)
    for i in range(len(numbers) - 1):
        _ = build_once(rows, metric, dtype, options, numbers[i], data, report)
    var index = build_once(rows, metric, dtype, options, numbers[len(numbers) - 1], data, report)
    if options.has("save"):
        save(index, options.required("save"), data, report)
    return index^


def build_once(
    rows: Matrix,
    metric: Int,
    dtype: Int,
    options: Options,
    threads: Int,
    data: String,
    report: Report,
) raises -> Index:
    """Builds an index; prints and reports how fast, and what it took."""
    var index = Index(
        metric,
        dtype,
        rows.dim,
        options.whole("M", 16, 2, 128),
        options.whole("ef-construction", 200),
        options.whole("seed", 0, 0, Int.MAX),
        options.whole("exact-below", EXACT_BELOW, 0),
        quantization(options, metric, dtype),
    )
    print(
        t"{data}: {rows.rows} x {rows.dim} {dtype_names()[dtype]}, {metric_names()[metric]}, M"
        t" {index.graph[].M}, ef_construction {index.ef_construction}, seed {index.seed}"
    )
    var watch = Unwatched()
    var start = perf_counter_ns()
    var status = add_rows(index, rows.data.address, 0, rows.rows, threads, watch)
    var seconds = Float64(perf_counter_ns() - start) / 1e9
    if status == NO_MEMORY:
        raise Error(t"{rows.label}: no memory for an index of {rows.rows} rows")
    if status != DONE:
        raise Error(t"{rows.label}: row {status.code // 8} {reason(status.code % 8)}")
    var rate = Float64(rows.rows) / seconds
    var work = Float64(index.build_statistics.of(DISTANCES)) / Float64(rows.rows)
    print(
        t"build    {threads} thread{'' if threads == 1 else 's'}: {fixed(seconds, 3)} s,"
        t" {fixed(rate, 0)} vectors/s, {fixed(work, 0)} distances a row,"
        t" {fixed(Float64(index.bytes()) / 1e6, 1)} MB"
    )
    var record = index_record("build", index, data)
    record.whole("threads", threads)
    record.number("seconds", seconds)
    record.number("vectors_per_second", rate)
    record.number("distances_per_row", work)
    record.whole("bytes", index.bytes())
    show_phases(index.build_statistics, rows.rows, seconds, record)
    report.put(record)
    return index^


def run_build(options: Options, report: Report) raises:
    """Builds, saves and searches an index; reads all files before the long work begins."""
    var path = options.required("base")
    var data = data_name(path)
    var metric = options.choice("metric", metric_names(), 0)
    var dtype = 0
    var rows = read_rows(options, path, dtype)
    if options.has("queries"):
        var asked = Questions(options, rows.dim, dtype, rows.rows)
        var index = build(rows, metric, dtype, options, data, report)
        run_sweep(index, asked, data, report)
        return
    for name in ["truth", "ef", "k", "num-queries", "rounds"]:
        if options.has(String(name)):
            raise Error(t"--{name}: expected together with --queries only")
    _ = build(rows, metric, dtype, options, data, report)


def save(index: Index, path: String, data: String, report: Report) raises:
    """Saves an index, and prints and reports how fast."""
    var start = perf_counter_ns()
    save_file(index, path)
    var seconds = Float64(perf_counter_ns() - start) / 1e9
    var bytes = getsize(path)
    print(t"save     {path}: {fixed(Float64(bytes) / 1e6, 1)} MB, {fixed(seconds * 1e3, 1)} ms")
    var record = index_record("file", index, data)
    record.whole("bytes", bytes)
    record.number("save_seconds", seconds)
    report.put(record)


def run_search(options: Options, report: Report) raises:
    """Opens an index and searches it."""
    var path = options.required("open")
    var start = perf_counter_ns()
    var index = open_file(path)
    var ms = Float64(perf_counter_ns() - start) / 1e6
    if index.count == 0:
        raise Error(t"--open {path}: expected an index with rows, got an empty one")
    print(
        t"{path}: {index.count} x {index.dim} {dtype_names()[index.dtype]},"
        t" {metric_names()[index.metric]}, M {index.graph[].M}, ef_construction"
        t" {index.ef_construction}, seed {index.seed}"
    )
    print(t"open     {fixed(ms, 3)} ms")
    var asked = Questions(options, index.dim, index.dtype, index.count)
    var data = data_name(options.required("queries"))
    var record = index_record("file", index, data)
    record.number("open_ms", ms)
    report.put(record)
    run_sweep(index, asked, data, report)


def run_exact_search(options: Options, report: Report) raises:
    """Measures exact search."""
    var path = options.required("base")
    var metric = options.choice("metric", metric_names(), 0)
    var dtype = 0
    var rows = read_rows(options, path, dtype)
    var asked = Questions(options, rows.dim, dtype, rows.rows)
    print(
        t"{data_name(path)}: {rows.rows} x {rows.dim} {dtype_names()[dtype]},"
        t" {metric_names()[metric]}"
    )
    run_exact(rows, metric, dtype, asked, data_name(path), report)


def run_folder(path: String, words: List[String]) raises:
    """Measures the kernels, then building and both kinds of search on each vector set of a folder.
    """
    var allowed: List[String] = ["k", "num-queries", "rounds", "threads", "ef", "dtype", "M"]
    allowed += ["ef-construction", "build-threads", "memory-mib", "json"]
    var options = Options("a folder", words, allowed)
    var report = Report(options.text("json", ""))
    var sets = find_sets(path)
    run_kernels(options, report)
    for ref each in sets:
        print()
        options.values["base"] = each.base
        options.values["queries"] = each.queries
        options.values["metric"] = each.metric
        _ = options.values.pop("truth", "")
        if each.truth:
            options.values["truth"] = each.truth
        run_build(options, report)
        run_exact_search(options, report)


def run(words: List[String]) raises:
    """Does what the command line asks for."""
    if len(words) == 0:
        raise Error(t"expected a command\n{USAGE}")
    var command = words[0]
    var rest = List[String]()
    for i in range(1, len(words)):
        rest.append(words[i])
    match command:
        case "--help" | "-h" | "help":
            print(USAGE)
        case "kernels":
            var options = Options(command, rest, ["metric", "dtype", "dim", "memory-mib", "json"])
            run_kernels(options, Report(options.text("json", "")))
        case "build":
            var allowed = build_options()
            allowed += ["base", "save"]
            var options = Options(command, rest, allowed)
            run_build(options, Report(options.text("json", "")))
        case "search":
            var allowed = search_options()
            allowed += ["open", "ef"]
            var options = Options(command, rest, allowed)
            run_search(options, Report(options.text("json", "")))
        case "exact":
            var allowed = search_options()
            allowed += ["base", "metric", "dtype"]
            var options = Options(command, rest, allowed)
            run_exact_search(options, Report(options.text("json", "")))
        case _:
            if not isdir(command):
                raise Error(t"expected a command or a folder, got '{command}'\n{USAGE}")
            run_folder(command, rest)


def main():
    """Runs the program; exit status 2 and one message where anything is wrong."""
    var words = List[String]()
    for i in range(1, len(argv())):
        words.append(String(argv()[i]))
    try:
        run(words)
    except error:
        print("bench-native:", error, file=stderr)
        exit(2)
