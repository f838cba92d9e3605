"""Exact 8-bit codes against plain sums, bit for bit; which kind of codes is chosen, and how large codes are."""
from std.memory import bitcast
from std.utils.numerics import nan
from std.random import random_si64, random_ui64, seed
from std.testing import TestSuite, assert_equal, assert_true

from vicinal.kernels.convert import from_float, to_float
from vicinal.kernels.products import W
from vicinal.kernels.space import COSINE, IP, L2, MetricSpace, Query, Rows
from vicinal.kernels.stored_type import STORED, STORED_TYPES, is_float, row_stride
from vicinal.quantization.choice import AUTO, choose_kind
from vicinal.quantization.code_products import CODE_LINE, dot_bytes
from vicinal.quantization.code_space import U8Codes
from vicinal.quantization.code_table import (
    U8,
    RABITQ4,
    SQ8,
    NO_CODES,
    Codes,
    code_stride,
    is_bytes,
)
from vicinal.quantization.rotation import padded_dim
from vicinal.system.memory import Ptr, allocate, allocate_zeroed, release

comptime DIMS: List[Int] = [1, 63, 64, 65, 127, 128, 129, 223, 1000]


# ---- sums of products


def check_dot_bytes[X: DType, Y: DType, turn: UInt8](bytes: Int, extreme: Bool) raises:
    """Compares one combination of types with a plain sum."""
    var row = allocate[UInt8](bytes)
    var other = allocate[UInt8](bytes)
    # of the bytes, turned and read as either type, the one whose products are largest
    var largest = UInt8(255 if X == DType.uint8 else 128) ^ turn
    var sum: Int64 = 0
    for i in range(bytes):
        row[unsafe_offset=i] = largest if extreme else UInt8(random_ui64(0, 255))
        other[unsafe_offset=i] = UInt8(random_ui64(0, 255))
        if extreme:
            other[unsafe_offset=i] = 255 if Y == DType.uint8 else 128
        var x = bitcast[X, 1](row[unsafe_offset=i] ^ turn)
        sum += Int64(x) * Int64(bitcast[Y, 1](other[unsafe_offset=i]))
    # 65,536 products of 255 and 255 need all 32 bits
    assert_equal(
        dot_bytes[X, Y, turn](row, other, bytes).reduce_add(),
        sum.cast[DType.int32](),
        String(t"{X} {Y} {bytes}"),
    )
    release(row)
    release(other)


def test_dot_bytes() raises:
    seed(3)
    for bytes in [64, 128, 192, 256, 1024, 65536]:
        for extreme in [False, True]:
            comptime for x in range(2):
                comptime for y in range(2):
                    comptime X = DType.int8 if x == 0 else DType.uint8
                    comptime Y = DType.int8 if y == 0 else DType.uint8
                    check_dot_bytes[X, Y, 0](bytes, extreme)
                    check_dot_bytes[X, Y, 0x80](bytes, extreme)


# ---- exact codes


struct Sample[T: DType](Movable):
    """Rows as an index stores them."""

    var rows: Rows
    var count: Int
    var bytes: Ptr[UInt8]

    def __init__(out self, count: Int, dim: Int):
        """Makes zero rows."""
        comptime dtype = code_of[Self.T]()
        var stride = row_stride(dim, dtype)
        self.bytes = allocate_zeroed[UInt8](count * stride + CODE_LINE)
        self.rows = Rows(Int(self.bytes), stride, dim, 0)
        self.count = count

    def __deinit__(deinit self):
        release(self.bytes)

    def row(self, i: Int) -> Ptr[Scalar[Self.T]]:
        """Returns row i."""
        return self.rows.row[Self.T](i)

    def fill_whole(self, low: Int, high: Int):
        """Writes whole numbers; the first three rows hold the lowest, the highest, and both by turns.
        """
        for i in range(self.count):
            for j in range(self.rows.dim):
                var value = Int(random_si64(Int64(low), Int64(high)))
                if i < 3:
                    value = low if i == 0 or (i == 2 and j % 2 == 0) else high
                self.row(i)[unsafe_offset=j] = Scalar[Self.T](Float32(value))


def code_of[T: DType]() -> Int:
    """Returns the number of a stored type."""
    comptime for i in range(len(STORED)):
        comptime stored = STORED[i]
        if stored == T:
            return i
    return -1


def encoded[T: DType](metric: Int, sample: Sample[T]) raises -> Codes:
    """Returns codes of all rows of a sample."""
    var dim = sample.rows.dim
    var codes = Codes(U8, metric, code_of[T](), dim, 0)
    assert_true(codes.grow(sample.count))
    _ = codes.centre_on[T](sample.rows, 0, sample.count)
    var work = allocate[Float32](padded_dim(dim))
    for row in range(sample.count):
        codes.encode[T](sample.rows, row, work)
    release(work)
    codes.count = sample.count
    return codes^


def exact_distance[
    metric: Int, T: DType
](a: Ptr[Scalar[T]], b: Ptr[Scalar[T]], dim: Int) -> Float32:
    """Returns the distance of whole numbers by a plain sum, rounded once."""
    var sum: Int64 = 0
    for i in range(dim):
        var x = Int64(Float32(a[unsafe_offset=i]))
        var y = Int64(Float32(b[unsafe_offset=i]))
        comptime if metric == L2:
            sum += (x - y) * (x - y)
        else:
            sum += x * y
    comptime if metric == L2:
        return Float32(sum)
    return Float32(1 - Float64(sum))


def check_exact[metric: Int, T: DType](dim: Int, count: Int) raises:
    """Compares keys and distances of exact codes with plain sums and with the keys of the stored rows.
    """
    comptime S = MetricSpace[metric, T]
    comptime E = U8Codes[metric, T == DType.int8]
    var label = String(t"metric {metric}, dtype {T}, {dim} dimensions")
    var sample = Sample[T](count, dim)
    if T == DType.int8:
        sample.fill_whole(-128, 127)
    else:
        sample.fill_whole(0, 255)
    var codes = encoded[T](metric, sample)
    var rows = codes.rows(sample.rows)
    var prepared = allocate[UInt8](codes.query_bytes())
    var room = allocate[UInt8](4 * dim + 128)
    var vector = allocate[Scalar[S.Q]](dim)
    for a in range(count):
        for i in range(dim):
            vector[unsafe_offset=i] = sample.row(a)[unsafe_offset=i].cast[S.Q]()
        codes.prepare[S.Q](vector, prepared, prepared.unsafe_bitcast[Float32]())
        var query = Query(Int(prepared), 1)
        var own = E.query_of_row(rows, a, Int(room))
        for b in range(count):
            var key = E.key(query, rows, b)
            assert_equal(E.key(own, rows, b), key, label)
            var four = E.keys(own, rows, 0, b, a, count - 1)
            assert_equal(four[1], key, label)
            assert_equal(four[3], E.key(own, rows, count - 1), label)
            assert_equal(
                E.value(key), exact_distance[metric, T](sample.row(a), sample.row(b), dim), label
            )
            comptime if not T.is_floating_point():
                assert_equal(S.key(Query(Int(vector), 1), sample.rows, b), key, label)
    release(prepared)
    release(room)
    release(vector)


def test_exact_codes() raises:
    seed(5)
    comptime for metric in [L2, IP]:
        comptime for i in range(len(STORED)):
            comptime T = STORED[i]
            for dim in materialize[DIMS]():
                check_exact[metric, T](dim, 9)


def test_exact_codes_of_the_largest_dimension() raises:
    seed(6)
    comptime for metric in [L2, IP]:
        check_exact[metric, DType.uint8](65536, 4)
        check_exact[metric, DType.int8](65536, 4)


def check_is_bytes[T: DType](count: Int) raises:
    """Checks one odd value at each place, in whole vectors and behind them."""
    var row = allocate[Scalar[T]](count)
    for i in range(count):
        row[unsafe_offset=i] = from_float[T, 1](Float32(i * 37 % 256))
    assert_true(is_bytes[T](row, count))
    for i in range(count):
        var before = row[unsafe_offset=i]
        for value in [Float32(0.5), -1, 256, 1e30, -1e30, 254.9375, 1e-30, nan[DType.float32]()]:
            row[unsafe_offset=i] = from_float[T, 1](value)
            var held = to_float[T, 1](row[unsafe_offset=i])  # another number in a short type
            var whole = held >= 0 and held <= 255 and Float32(Int32(held)) == held
            assert_equal(is_bytes[T](row, count), whole, String(t"{value} at {i} of {count}"))
        for value in [Float32(0), 255, 17, -0.0]:
            row[unsafe_offset=i] = from_float[T, 1](value)
            assert_true(is_bytes[T](row, count))
        row[unsafe_offset=i] = before
    release(row)


def test_is_bytes() raises:
    for count in [1, W - 1, W, W + 1, 70]:
        check_is_bytes[DType.float32](count)
        check_is_bytes[DType.float16](count)
        check_is_bytes[DType.bfloat16](count)


# ---- choice and size


def test_choice() raises:
    for metric in [L2, IP, COSINE]:
        for dtype in range(STORED_TYPES):
            var whole = metric != COSINE
            var integers = not is_float(dtype)
            for dim in [1, 31, 32, 95, 96, 1000]:
                var wanted = RABITQ4 if dim >= 96 else (SQ8 if dim >= 32 else NO_CODES)
                if integers:
                    wanted = U8 if whole else NO_CODES
                assert_equal(choose_kind(AUTO, metric, dtype, dim, False), wanted)
                if whole:
                    assert_equal(choose_kind(AUTO, metric, dtype, dim, True), U8)
                for kind in [NO_CODES, U8, SQ8, RABITQ4]:
                    assert_equal(choose_kind(1 + kind, metric, dtype, dim, True), kind)


def test_size() raises:
    for dim in materialize[DIMS]():
        var lines = (dim + 63) // 64
        assert_equal(code_stride(U8, dim), 64 * lines)
        assert_equal(code_stride(SQ8, dim), 64 * lines)
        assert_equal(code_stride(RABITQ4, dim), 64 * ((lines + 1) // 2))


def main() raises:
    TestSuite.discover_tests[__functions_in_module()]().run()
