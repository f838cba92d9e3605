"""Speed of the kernels, every metric over every stored type, out of caches and main memory."""
from std.benchmark import clobber_memory, keep
from std.ffi import c_int, external_call
from std.sys import size_of
from std.time import perf_counter_ns

from options import Options, dtype_names, metric_names
from report import Record, Report, cell
from vicinal.kernels.convert import from_float
from vicinal.kernels.distance import MAX_DIM
from vicinal.kernels.in_space import SpaceTask, in_space
from vicinal.kernels.products import W
from vicinal.kernels.space import Query, Rows, Space
from vicinal.kernels.stored_type import is_float, item_bytes, row_stride
from vicinal.system.memory import Column, at
from vicinal.system.pointer import copy_items

comptime PATTERN = 1 << 20
"""Bytes of numbers that are drawn; a larger array repeats them."""
comptime TRIES = 100
"""Short pieces that are timed while rows are in a cache; the least disturbed one counts."""
comptime MEMORY_TRIES = 4
comptime PIECE_BYTES = 2 << 20
"""Bytes that a piece reads from a cache, about a tenth of a millisecond."""


def cache_bytes(which: Int, default: Int) -> Int:
    """Returns half of what glibc knows of a cache, so that queries and stacks fit beside the rows.
    """
    var bytes = external_call["sysconf", Int](c_int(which))
    return (bytes if bytes > 0 else default) // 2


@fieldwise_init
struct Fill(SpaceTask):
    """Fills memory with numbers from -1 to 1, or with any integers."""

    var address: Int
    var bytes: Int

    def run[S: Space](mut self):
        """Draws numbers for a piece and repeats them."""
        var first = min(PATTERN, self.bytes)
        var state = UInt64(1)
        comptime if S.T.is_floating_point():
            var items = at[Scalar[S.T]](self.address)
            for i in range(first // size_of[Scalar[S.T]]()):
                state = state * 6364136223846793005 + 1442695040888963407
                items[unsafe_offset=i] = from_float[S.T, 1](
                    Float32(Int32(state >> 32)) / 2147483648.0
                )
        else:
            for i in range(first):
                state = state * 6364136223846793005 + 1442695040888963407
                at[UInt8](self.address)[unsafe_offset=i] = UInt8(state >> 56)
        var filled = first
        while filled < self.bytes:
            var piece = min(filled, self.bytes - filled)
            copy_items(
                dest=at[UInt8](self.address + filled), src=at[UInt8](self.address), count=piece
            )
            filled += piece


@no_inline
def measure_all[S: Space](query: Query, rows: Rows, count: Int) -> Int32:
    """Measures a query against rows 0 .. count-1, in order."""
    var all = Int32(0)
    for row in range(count):
        all ^= S.key(query, rows, row)
    return all


@fieldwise_init
struct TimeKernel(SpaceTask):
    """Finds the time of one distance."""

    var query: Query
    var rows: Rows
    var count: Int
    var pieces: Int
    """Passes over the rows that are timed together."""
    var tries: Int
    var ns: Float64

    def run[S: Space](mut self):
        """Times the kernel of one space."""
        var best = Float64.MAX
        keep(measure_all[S](self.query, self.rows, self.count))
        for _ in range(self.tries):
            var start = perf_counter_ns()
            for _ in range(self.pieces):
                keep(measure_all[S](self.query, self.rows, self.count))
                clobber_memory()
            best = min(best, Float64(perf_counter_ns() - start))
        self.ns = best / Float64(self.pieces * self.count)


struct Arena(Movable):
    """Memory that the rows of all measurements share."""

    var rows: Column
    var query: Column
    var norms: Column

    def __init__(out self, bytes: Int, shortest: Int) raises:
        """Gets memory for `bytes` of rows that are `shortest` bytes long or longer."""
        self.rows = Column()
        self.query = Column()
        self.norms = Column()
        var room = (bytes // shortest + 1) * 4
        if (
            not self.rows.grow(bytes)
            or not self.query.grow(MAX_DIM * 4)
            or not self.norms.grow(room)
        ):
            raise Error(t"--memory-mib: no memory for {bytes} bytes of rows")
        for i in range(room // 4):
            self.norms.ptr[Float32]()[unsafe_offset=i] = 0.01

    def fill(mut self, dtype: Int):
        """Draws rows of a stored type and a query."""
        var rows = Fill(self.rows.address, self.rows.usable)
        in_space(0, dtype, rows)
        # queries of float types are float32
        var query = Fill(self.query.address, self.query.usable)
        in_space(0, 0 if is_float(dtype) else dtype, query)

    def time(self, metric: Int, dtype: Int, dim: Int, bytes: Int, in_memory: Bool) -> Float64:
        """Returns the nanoseconds of one distance when rows of so many bytes are read repeatedly.
        """
        var stride = row_stride(dim, dtype)
        var count = max(1, bytes // stride)
        var task = TimeKernel(
            Query(self.query.address, 0.01),
            Rows(self.rows.address, stride, dim, self.norms.address),
            count,
            1 if in_memory else max(1, PIECE_BYTES // (count * stride)),
            MEMORY_TRIES if in_memory else TRIES,
            0,
        )
        in_space(metric, dtype, task)
        return task.ns


def run_kernels(options: Options, report: Report) raises:
    """Prints ns per distance and GB/s of stored vectors of each kernel asked for.

    Rows are read in order, as an exact scan does: from memory the processor can fetch ahead.
    """
    var metrics = options.choices("metric", metric_names(), [0, 1, 2])
    var dtypes = options.choices("dtype", dtype_names(), [0, 1, 2, 3, 4])
    var dims = options.wholes("dim", [100, 128, 384, 784, 960], 1, MAX_DIM)
    var memory = options.whole("memory-mib", 256, 1, 1 << 20) << 20
    # _SC_LEVEL1_DCACHE_SIZE and _SC_LEVEL2_CACHE_SIZE of glibc
    var sizes: List[Int] = [cache_bytes(188, 32 << 10), cache_bytes(191, 512 << 10), memory]
    var shortest = MAX_DIM
    for dim in dims:
        shortest = min(shortest, dim)
    # one row at least, whatever its length
    var arena = Arena(max(memory, sizes[1], MAX_DIM * 4), shortest)
    print(
        t"kernels: one thread, {W} float32 lanes; {sizes[0] >> 10} KiB of rows for L1,"
        t" {sizes[1] >> 10} KiB for L2, {memory >> 20} MiB for memory, read in order"
    )
    var places: List[String] = ["L1", "L2", "memory"]
    var title = cell("metric", 6) + cell("dtype", 10) + cell("dim", 6)
    for place in range(len(places)):
        title += cell(places[place] + " ns", 10) + cell("GB/s", 7)
    print(title)
    for dtype in dtypes:
        arena.fill(dtype)
        for metric in metrics:
            for dim in dims:
                var line = (
                    cell(metric_names()[metric], 6) + cell(dtype_names()[dtype], 10) + cell(dim, 6)
                )
                for place in range(len(places)):
                    var ns = arena.time(metric, dtype, dim, sizes[place], places[place] == "memory")
                    var rate = Float64(dim * item_bytes(dtype)) / ns
                    line += cell(ns, 2, 10) + cell(rate, 1, 7)
                    var record = Record.of("kernel")
                    record.text("metric", metric_names()[metric])
                    record.text("dtype", dtype_names()[dtype])
                    record.whole("dim", dim)
                    record.text("resident", places[place])
                    record.whole("bytes", sizes[place])
                    record.number("ns", ns)
                    record.number("gb_per_second", rate)
                    report.put(record)
                print(line)
    _ = arena^
