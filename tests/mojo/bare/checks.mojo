"""What every CPU level must agree on, as one function that needs no more than a few functions of libc.

Compiled for each level, run on this machine or under an emulator: kernels are compared with plain sums, tiles with kernels, and
what must be equal everywhere (graphs over integers, what searches of them find) is handed out as checksums.
"""
from std.math import sqrt
from std.memory import bitcast

from vicinal.exact.request import SearchRequest
from vicinal.graph.links import slots
from vicinal.index.vector_index import Index
from vicinal.kernels.convert import from_float, to_float
from vicinal.kernels.in_space import SpaceTask, in_given_space
from vicinal.kernels.inspect_row import inspect_row
from vicinal.kernels.space import (
    COSINE,
    IP,
    L2,
    METRICS,
    MetricSpace,
    Query,
    Rows,
    Space,
    float_of_key,
)
from vicinal.kernels.stored_type import STORED, STORED_TYPES
from vicinal.quantization.code_products import CODE_LINE, dot_bytes, dot_nibbles
from vicinal.quantization.code_space import (
    BetweenCodes,
    Estimate,
    EstimateConstants,
    PreparedEstimate,
)
from vicinal.quantization.code_table import U8, RABITQ4, SQ8, NO_CODES, Codes
from vicinal.quantization.rotation import padded_dim
from vicinal.search.batch import SearchMany
from vicinal.system.crc import crc32c, crc32c_by_table
from vicinal.system.memory import Ptr, allocate, at, release
from vicinal.system.outcome import DONE
from vicinal.system.parallel import Unwatched
from vicinal.update.add import DoChange
from vicinal.update.transaction import Change

comptime CHECKSUMS = 16
"""Room for them behind the three counts of a `FilterStatistics`."""
comptime TOLERANCE = 1e-5
"""Of the sum of all |terms|, for float types."""


struct Draw(Movable):
    """Random numbers that are the same everywhere (a linear congruential generator, Knuth's MMIX).
    """

    var state: UInt64

    def __init__(out self):
        self.state = 1

    def next(mut self, below: Int) -> Int:
        """Returns a number from 0 to below - 1."""
        self.state = self.state * 6364136223846793005 + 1442695040888963407
        return Int(self.state >> 33) % below

    def element[T: DType](mut self) -> Scalar[T]:
        """Returns any value of an 8-bit type, or a float between -4 and 4."""
        comptime if T.is_floating_point():
            return from_float[T, 1](Float32(self.next(2049) - 1024) / 256)
        else:
            return bitcast[T, 1](UInt8(self.next(256)))


struct FilterStatistics(Movable):
    """Counts comparisons."""

    var made: Int
    var wrong: Int
    var first: Int
    """Where the first difference was; 0 if there was none."""

    def __init__(out self):
        self.made = 0
        self.wrong = 0
        self.first = 0

    def note(mut self, right: Bool, section: Int, place: Int):
        """Notes one comparison."""
        self.made += 1
        if not right:
            self.wrong += 1
            if self.first == 0:
                self.first = section * 10_000_000 + place


# ---- kernels


def wide[T: DType](x: Scalar[T]) -> Float64:
    """Converts exactly."""
    comptime if T.is_floating_point():
        return Float64(to_float[T, 1](x))
    else:
        return Float64(Int(x))


@fieldwise_init
struct CheckDistances(SpaceTask):
    """Compares distances of one space with plain sums."""

    var dtype: Int
    var dim: Int
    var draw: Ptr[Draw]
    var filter_statistics: Ptr[FilterStatistics]

    def run[S: Space](mut self):
        """Does it for random rows, and for the extremes of an 8-bit type."""
        # one element behind a cache line, between values that would spoil a sum
        var row = allocate[Scalar[S.T]](self.dim + 2).unsafe_offset(1)
        var query = allocate[Scalar[S.Q]](self.dim + 2).unsafe_offset(1)
        comptime if S.T.is_floating_point():
            self.fill[S](row, query, 0)
            self.compare[S](row, query)
        else:
            for pattern in range(4):
                self.fill[S](row, query, pattern)
                self.compare[S](row, query)
        release(row.unsafe_offset(-1))
        release(query.unsafe_offset(-1))

    def fill[S: Space](self, row: Ptr[Scalar[S.T]], query: Ptr[Scalar[S.Q]], pattern: Int):
        """Writes a row and a query: 0 random, else each all of the least or the largest value."""
        for i in range(-1, self.dim + 1):
            row[unsafe_offset=i] = self.draw[].element[S.T]()
            query[unsafe_offset=i] = self.draw[].element[S.Q]()
            comptime if not S.T.is_floating_point():
                if pattern != 0:
                    row[unsafe_offset=i] = Scalar[S.T].MAX if pattern & 1 != 0 else Scalar[S.T].MIN
                    query[unsafe_offset=i] = (
                        Scalar[S.Q].MAX if pattern & 2 != 0 else Scalar[S.Q].MIN
                    )
                if i == 0:  # no zero vector
                    row[] = max(row[], 1)
                    query[] = max(query[], 1)
            else:
                if i < 0 or i == self.dim:
                    row[unsafe_offset=i] = from_float[S.T, 1](Float32(1e4))
                    query[unsafe_offset=i] = from_float[S.Q, 1](Float32(1e4))

    def compare[S: Space](self, row: Ptr[Scalar[S.T]], query: Ptr[Scalar[S.Q]]):
        """Compares one distance."""
        var apart = Float64(0)
        var dot = Float64(0)
        var size = Float64(1)
        var squared_row = Float64(0)
        var squared_query = Float64(0)
        for i in range(self.dim):
            var x = wide(row[unsafe_offset=i])
            var y = wide(query[unsafe_offset=i])
            apart += (x - y) * (x - y)
            dot += x * y
            size += abs(x * y)
            squared_row += x * x
            squared_query += y * y
        var norm_row = Float32(1)
        var norm_query = Float32(1)
        comptime if S.needs_norms:
            _ = inspect_row[S, S.T](row, self.dim, norm_row)
            _ = inspect_row[S, S.Q](query, self.dim, norm_query)
        var rows = Rows(Int(row), 0, self.dim, Int(Pointer(to=norm_row)))
        var got = Float64(S.value(S.key(Query(Int(query), norm_query), rows, 0)))
        _ = norm_row
        var wanted = apart
        var allowed = TOLERANCE * (1 + apart)
        comptime if S.metric == COSINE and S.needs_norms:
            wanted = max(Float64(0), 1 - dot / (sqrt(squared_row) * sqrt(squared_query)))
            allowed = TOLERANCE
        elif S.metric != L2:
            wanted = 1 - dot
            allowed = TOLERANCE * size
            comptime if S.metric == COSINE:
                wanted = max(Float64(0), wanted)
        comptime if not S.T.is_floating_point() and not S.needs_norms:
            wanted = Float64(Float32(wanted))  # exact, rounded once
            allowed = 0
        self.filter_statistics[].note(
            abs(got - wanted) <= allowed, 1 + 5 * S.metric + self.dtype, self.dim
        )


def check_bytes[
    X: DType, Y: DType, turn: UInt8
](bytes: Int, mut draw: Draw, mut filter_statistics: FilterStatistics):
    """Compares sums of products of bytes with plain ones."""
    var code = allocate[UInt8](bytes)
    var other = allocate[UInt8](2 * bytes)
    for extreme in range(2):
        for i in range(bytes):
            code[unsafe_offset=i] = UInt8(draw.next(256))
            if extreme == 1:
                code[unsafe_offset=i] = UInt8(255 if X == DType.uint8 else 128) ^ turn
        for i in range(2 * bytes):
            other[unsafe_offset=i] = UInt8(draw.next(256))
            if extreme == 1:
                other[unsafe_offset=i] = 255 if Y == DType.uint8 else 128
        var sum = Int64(0)
        var nibbles = Int64(0)
        for i in range(bytes):
            var x = bitcast[X, 1](code[unsafe_offset=i] ^ turn)
            sum += Int64(x) * Int64(bitcast[Y, 1](other[unsafe_offset=i]))
            var place = i // 64 * 128 + i % 64
            var low = bitcast[DType.int8, 1](other[unsafe_offset=place])
            var high = bitcast[DType.int8, 1](other[unsafe_offset=place + 64])
            nibbles += Int64(code[unsafe_offset=i] & 15) * Int64(low)
            nibbles += Int64(code[unsafe_offset=i] >> 4) * Int64(high)
        var right = (
            dot_bytes[X, Y, turn](code, other, bytes).reduce_add() == sum.cast[DType.int32]()
        )
        filter_statistics.note(right, 20, bytes)
        comptime if X == DType.uint8 and Y == DType.int8 and turn == 0:
            filter_statistics.note(
                Int64(dot_nibbles(code, other, bytes).reduce_add()) == nibbles, 21, bytes
            )
    release(code)
    release(other)


def value_at[bits: Int](code: Ptr[UInt8], i: Int) -> Int:
    """Returns the value of dimension i of a code."""
    comptime if bits == 8:
        return Int(code[unsafe_offset=i])
    else:
        var byte = Int(code[unsafe_offset=i // 128 * 64 + i % 64])
        return byte % 16 if i % 128 < 64 else byte // 16


def check_between[bits: Int](rows: Rows, a: Int, b: Int, mut filter_statistics: FilterStatistics):
    """Compares the estimated distance of two rows with the same sum taken value by value."""
    comptime middle = 7.5 if bits == 4 else 127.5
    comptime shift = 0.0 if bits == 4 else 0.5  # the query's whole numbers are half a step too low
    var product = Float64(0)
    for i in range(rows.dim):
        var u = Float64(value_at[bits](rows.row[DType.uint8](b), i)) - middle
        product += u * (Float64(value_at[bits](rows.row[DType.uint8](a), i)) - middle - shift)
    ref first = at[EstimateConstants](rows.norms)[unsafe_offset=a]
    ref second = at[EstimateConstants](rows.norms)[unsafe_offset=b]
    var both = Float64(first.add) + Float64(second.add)
    var wanted = both - Float64(first.rescale) * Float64(second.rescale) * product / 2
    var room = allocate[UInt8](4 * rows.dim + CODE_LINE)
    var query = BetweenCodes[bits].query_of_row(rows, a, Int(room))
    var got = Float64(float_of_key(BetweenCodes[bits].key(query, rows, b)))
    filter_statistics.note(abs(got - wanted) <= TOLERANCE * both, 32 + bits // 8, rows.dim)
    got = Float64(float_of_key(BetweenCodes[bits].keys(query, rows, a, a, b, a)[2]))
    filter_statistics.note(abs(got - wanted) <= TOLERANCE * both, 34 + bits // 8, rows.dim)
    release(room)


def check_estimates[
    kind: Int, bits: Int
](dim: Int, mut draw: Draw, mut filter_statistics: FilterStatistics):
    """Compares estimated distances with the same sum taken value by value."""
    comptime ROWS = 4
    var floats = allocate[Float32](ROWS * dim)
    for i in range(ROWS * dim):
        floats[unsafe_offset=i] = draw.element[DType.float32]()
    var stored = Rows(Int(floats), 4 * dim, dim, 0)
    var work = allocate[Float32](padded_dim(dim))
    var codes = Codes(kind, L2, 0, dim, 7)
    filter_statistics.note(codes.grow(ROWS), 22, dim)
    for row in range(ROWS):
        codes.encode[DType.float32](stored, row, work)
    var prepared = allocate[UInt8](codes.query_bytes())
    codes.prepare[DType.float32](floats, prepared, work)
    ref header = at[PreparedEstimate](Int(prepared))[]
    var rows = codes.rows(stored)
    for row in range(ROWS):
        var code = rows.row[DType.uint8](row)
        var dot = Int64(0)
        for i in range(codes.query_bytes() - CODE_LINE):
            var q = bitcast[DType.int8, 1](prepared[unsafe_offset=CODE_LINE + i])
            dot += Int64(value_at[bits](code, i)) * Int64(q)
        ref constants = at[EstimateConstants](rows.norms)[unsafe_offset=row]
        var change = Float64(constants.rescale) * Float64(header.scale)
        change *= Float64(dot) - Float64(header.middle)
        var wanted = Float64(constants.add) + change
        var got = Float64(float_of_key(Estimate[bits].key(Query(Int(prepared), 1), rows, row)))
        var allowed = 1e-6 * (abs(Float64(constants.add)) + abs(change) + 1)
        filter_statistics.note(abs(got - wanted) <= allowed, 23 + bits, dim)
        for b in range(ROWS):
            check_between[bits](rows, row, b, filter_statistics)
    _ = codes^  # not before its rows were read
    release(floats)
    release(work)
    release(prepared)


def check_crc(mut draw: Draw, mut filter_statistics: FilterStatistics) -> UInt32:
    """Compares the checksum with the one by tables, and returns one of many bytes."""
    comptime BYTES = 70_000
    var bytes = allocate[UInt8](BYTES)
    for i in range(BYTES):
        bytes[unsafe_offset=i] = UInt8(draw.next(256))
    for size in range(1030):
        filter_statistics.note(
            crc32c(Int(bytes) + 1, size) == crc32c_by_table(Int(bytes) + 1, size), 40, size
        )
    var all = crc32c(Int(bytes), BYTES)
    filter_statistics.note(all == crc32c_by_table(Int(bytes), BYTES), 40, BYTES)
    release(bytes)
    return all


# ---- indexes over integers


struct GrowableArray(Movable):
    """What searches found."""

    var ids: Ptr[Int64]
    var distances: Ptr[Float32]

    comptime QUERIES = 12
    comptime K = 5

    def __init__(out self):
        self.ids = allocate[Int64](Self.QUERIES * Self.K)
        self.distances = allocate[Float32](Self.QUERIES * Self.K)

    def __deinit__(deinit self):
        release(self.ids)
        release(self.distances)

    def search[S: Space](self, mut index: Index, queries: Int, at_once: Int):
        """Searches for all queries, so many in one call."""
        var watch = Unwatched()
        for first in range(0, Self.QUERIES, at_once):
            var task = SearchMany[Unwatched](
                Pointer(to=index).unsafe_origin_cast[MutUntrackedOrigin](),
                SearchRequest(
                    queries + first * index.dim,
                    at_once,
                    Self.K,
                    30,
                    self.ids.unsafe_offset(first * Self.K),
                    self.distances.unsafe_offset(first * Self.K),
                    1,
                ),
                Pointer(to=watch).unsafe_origin_cast[MutUntrackedOrigin](),
                DONE,
            )
            task.run[S]()

    def checksum(self, start: UInt32) -> UInt32:
        """Returns a checksum of ids and distances."""
        var sum = crc32c_by_table(Int(self.ids), Self.QUERIES * Self.K * 8, start)
        return crc32c_by_table(Int(self.distances), Self.QUERIES * Self.K * 4, sum)


def filled[S: Space](dtype: Int, dim: Int, bytes: Int, count: Int, exact: Bool, kind: Int) -> Index:
    """Returns an index of some rows."""
    var watch = Unwatched()
    var index = Index(S.metric, dtype, dim, 8, 40, 3, 1 << 30 if exact else 0, 1 + kind)
    var change = Change()
    _ = change.begin_insert(index, 0, count, False)
    var task = DoChange[Unwatched](
        Pointer(to=index).unsafe_origin_cast[MutUntrackedOrigin](),
        Pointer(to=change).unsafe_origin_cast[MutUntrackedOrigin](),
        bytes,
        1,
        Pointer(to=watch).unsafe_origin_cast[MutUntrackedOrigin](),
        DONE,
    )
    task.run()
    change.commit(index)
    change.finish(index)
    return index^


def check_index[
    metric: Int, T: DType
](dtype: Int, dim: Int, mut draw: Draw, mut filter_statistics: FilterStatistics) -> UInt32:
    """Compares tiles with kernels and codes with rows; returns a checksum of graph and results."""
    comptime S = MetricSpace[metric, T]
    comptime ROWS = 700
    comptime QUERIES = GrowableArray.QUERIES
    comptime PLACE = 50 + 5 * metric
    var bytes = allocate[UInt8]((ROWS + QUERIES) * dim)
    for i in range((ROWS + QUERIES) * dim):
        bytes[unsafe_offset=i] = UInt8(draw.next(256))
    var queries = Int(bytes) + ROWS * dim

    var one_by_one = GrowableArray()
    var tiles = GrowableArray()
    var flat = filled[S](dtype, dim, Int(bytes), ROWS, True, NO_CODES)
    one_by_one.search[S](flat, queries, 1)
    tiles.search[S](flat, queries, QUERIES)
    filter_statistics.note(flat.count == ROWS, PLACE, dim)
    filter_statistics.note(tiles.checksum(0) == one_by_one.checksum(0), PLACE + 1, dim)

    var walked = GrowableArray()
    var index = filled[S](dtype, dim, Int(bytes), ROWS, False, NO_CODES)
    walked.search[S](index, queries, 1)
    filter_statistics.note(index.graph[].linked == ROWS, PLACE, dim)
    var near = 0
    for q in range(QUERIES):
        near += Int(
            walked.ids[unsafe_offset=q * GrowableArray.K]
            == tiles.ids[unsafe_offset=q * GrowableArray.K]
        )
    filter_statistics.note(2 * near > QUERIES, PLACE + 2, dim)  # the walk finds its way
    var links = ROWS * slots(2 * index.graph[].M) * 4
    var graph = crc32c_by_table(index.graph[].links0.address, links)
    _ = index^  # not before the links were read
    comptime if metric != COSINE:
        var coded = GrowableArray()
        var other = filled[S](dtype, dim, Int(bytes), ROWS, False, U8)
        coded.search[S](other, queries, 1)
        filter_statistics.note(other.codes[].kind == U8, PLACE + 3, dim)
        var same = crc32c_by_table(other.graph[].links0.address, links) == graph
        filter_statistics.note(same, PLACE + 3, dim)
        _ = other^
        filter_statistics.note(coded.checksum(0) == walked.checksum(0), PLACE + 4, dim)
    var sum = walked.checksum(tiles.checksum(graph))
    release(bytes)
    return sum


@export
def run_checks(results: Int) abi("C") -> Int:
    """Does all of it.

    Args:
        results: Address of room for 3 + CHECKSUMS int64: comparisons made, differences, where the first was, checksums.

    Returns:
        How many were written.

    Safety:
        The room must be there.
    """
    var draw = Draw()
    var filter_statistics = FilterStatistics()
    var draws = Pointer(to=draw).unsafe_origin_cast[MutUntrackedOrigin]()
    var tallies = Pointer(to=filter_statistics).unsafe_origin_cast[MutUntrackedOrigin]()
    var numbers = at[Int64](results)
    # runtime loops: unrolled ones would be compiled over and over
    for metric in range(METRICS):
        for dtype in range(STORED_TYPES):
            # every length up to past the longest vector, then longer loops with odd ends
            for dim in range(1, 67):
                var task = CheckDistances(dtype, dim, draws, tallies)
                in_given_space(metric, dtype, task)
            var large = CheckDistances(dtype, 65_536 if dtype > 2 else 4099, draws, tallies)
            in_given_space(metric, dtype, large)
            large.dim = 1001
            in_given_space(metric, dtype, large)
            large.dim = 127
            in_given_space(metric, dtype, large)
    for i in range(5):
        var bytes = 65_536 if i == 4 else 64 << i
        check_bytes[DType.uint8, DType.uint8, 0](bytes, draw, filter_statistics)
        check_bytes[DType.int8, DType.int8, 0](bytes, draw, filter_statistics)
        check_bytes[DType.uint8, DType.int8, 0](bytes, draw, filter_statistics)
        check_bytes[DType.int8, DType.uint8, 0](bytes, draw, filter_statistics)
        check_bytes[DType.int8, DType.int8, 0x80](bytes, draw, filter_statistics)
        check_bytes[DType.uint8, DType.int8, 0x80](bytes, draw, filter_statistics)
        check_bytes[DType.uint8, DType.uint8, 0](bytes + 64, draw, filter_statistics)
        check_bytes[DType.uint8, DType.int8, 0](bytes + 64, draw, filter_statistics)
    for dim in range(1, 1002, 143):
        check_estimates[SQ8, 8](dim, draw, filter_statistics)
        check_estimates[RABITQ4, 4](dim, draw, filter_statistics)
    var count = 3
    numbers[unsafe_offset=count] = Int64(check_crc(draw, filter_statistics))
    count += 1
    comptime for metric in [L2, IP, COSINE]:
        comptime for dtype in [3, 4]:
            comptime T = STORED[dtype]
            # packed rows with codes of their own, and rows that are their own codes
            for dim in range(21, 71, 49):
                numbers[unsafe_offset=count] = Int64(
                    check_index[metric, T](dtype, dim, draw, filter_statistics)
                )
                count += 1
    numbers[unsafe_offset=0] = Int64(filter_statistics.made)
    numbers[unsafe_offset=1] = Int64(filter_statistics.wrong)
    numbers[unsafe_offset=2] = Int64(filter_statistics.first)
    return count
