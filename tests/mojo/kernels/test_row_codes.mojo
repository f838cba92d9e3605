"""Rows of codes alone against the slow way: every element by itself, in float64."""
from std.math import sqrt
from std.random import random_float64, random_si64, seed
from std.testing import TestSuite, assert_equal, assert_true

from vicinal.kernels.metric import Product, SquaredDifference
from vicinal.kernels.row_codes import HEADER, code_row_stride, decode_row, encode_row, sum_coded
from vicinal.system.memory import Ptr, allocate, release

comptime MOST = 200


def code_at[bits: Int](row: Ptr[UInt8], i: Int) -> Int:
    """The slow way to a code, by the layout that the module's text tells."""
    comptime if bits == 8:
        return Int(row[unsafe_offset=8 + i])
    else:
        var both = Int(row[unsafe_offset=8 + 16 * (i // 32) + i % 16])
        return both // 16 if i % 32 >= 16 else both % 16


def decoded[bits: Int](row: Ptr[UInt8], i: Int) -> Float64:
    var floats = row.unsafe_bitcast[Float32]()
    var least = floats[unsafe_offset=0].cast[DType.float64]()
    var step = floats[unsafe_offset=1].cast[DType.float64]()
    return least + step * Float64(code_at[bits](row, i))


def check_sums[bits: Int]() raises:
    """Sums over codes are those of the decoded elements, for every length, and read nothing behind them that counts.
    """
    var values = allocate[Float32](MOST)
    var query = allocate[Float32](MOST + 16)
    var into = allocate[Float32](MOST)
    var row = allocate[UInt8](code_row_stride(MOST, bits) + 64)
    for dim in range(1, MOST):
        for i in range(dim):
            values[unsafe_offset=i] = Float32(random_float64(-1, 3))
            query[unsafe_offset=i] = Float32(random_float64(-2, 2))
        for i in range(16):
            query[unsafe_offset=dim + i] = 1e9
        encode_row[bits, False](values, dim, row)
        decode_row[bits](row, dim, into)
        var product = Float64(0)
        var squares = Float64(0)
        var size = Float64(0)
        for i in range(dim):
            var x = decoded[bits](row, i)
            var q = query[unsafe_offset=i].cast[DType.float64]()
            assert_true(abs(x - into[unsafe_offset=i].cast[DType.float64]()) < 1e-6)
            product += x * q
            squares += (x - q) * (x - q)
            size += abs(x * q) + (x - q) * (x - q)
        var found = sum_coded[Product, bits](query, row, dim).cast[DType.float64]()
        assert_true(abs(found - product) <= 1e-5 * size)
        found = sum_coded[SquaredDifference, bits](query, row, dim).cast[DType.float64]()
        assert_true(abs(found - squares) <= 1e-5 * size)
    release(values)
    release(query)
    release(into)
    release(row)


def test_sums_over_codes() raises:
    seed(1)
    check_sums[8]()
    check_sums[4]()


def check_codes[bits: Int]() raises:
    """With 8 bits no element is off by more than half a step; with 4 the squares lost are no more than those of the whole range.
    """
    comptime LEVELS = 255 if bits == 8 else 15
    comptime DIM = 70
    var values = allocate[Float32](DIM)
    var row = allocate[UInt8](code_row_stride(DIM, bits))
    for _ in range(100):
        var low = Float64(1e9)
        var high = Float64(-1e9)
        for i in range(DIM):
            var x = Float32(random_float64(0, 1) * random_float64(-3, 5))
            values[unsafe_offset=i] = x
            low = min(low, x.cast[DType.float64]())
            high = max(high, x.cast[DType.float64]())
        encode_row[bits, False](values, DIM, row)
        var step = (high - low) / Float64(LEVELS)
        var lost = Float64(0)
        var plain = Float64(0)
        for i in range(DIM):
            var x = values[unsafe_offset=i].cast[DType.float64]()
            var off = abs(decoded[bits](row, i) - x)
            comptime if bits == 8:
                assert_true(off <= 0.501 * step)
            lost += off * off
            var whole = low + step * Float64(Int((x - low) / step + 0.5))
            plain += (whole - x) * (whole - x)
        assert_true(lost <= plain * 1.001)
    release(values)
    release(row)


def check_unit[bits: Int]() raises:
    """What a row of unit length decodes to has unit length."""
    comptime DIM = 45
    var values = allocate[Float32](DIM)
    var row = allocate[UInt8](code_row_stride(DIM, bits))
    for _ in range(50):
        var squared = Float64(0)
        for i in range(DIM):
            var x = random_float64(-1, 1)
            values[unsafe_offset=i] = Float32(x)
            squared += x * x
        for i in range(DIM):
            values[unsafe_offset=i] *= Float32(1 / sqrt(squared))
        encode_row[bits, True](values, DIM, row)
        var length = Float64(0)
        for i in range(DIM):
            length += decoded[bits](row, i) * decoded[bits](row, i)
        assert_true(abs(length - 1) < 1e-6)
    release(values)
    release(row)


def test_unit_length() raises:
    seed(3)
    check_unit[8]()
    check_unit[4]()


def check_whole[bits: Int]() raises:
    """Whole numbers within as many steps, equal elements and zeros are kept; equal rows have equal bytes, padding is zero.
    """
    comptime LEVELS = 255 if bits == 8 else 15
    comptime DIM = 37
    var values = allocate[Float32](DIM)
    var into = allocate[Float32](DIM)
    var stride = code_row_stride(DIM, bits)
    var row = allocate[UInt8](2 * stride)
    for round in range(60):
        var least = random_si64(-4000, 4000)
        for i in range(DIM):
            var x = least + random_si64(0, Int64(LEVELS))
            if round == 0:
                x = 0
            elif round == 1:
                x = least
            values[unsafe_offset=i] = Float32(x)
        for i in range(2 * stride):
            row[unsafe_offset=i] = UInt8(i * 7 % 256)
        encode_row[bits, False](values, DIM, row)
        encode_row[bits, False](values, DIM, row.unsafe_offset(stride))
        decode_row[bits](row, DIM, into)
        for i in range(DIM):
            assert_equal(into[unsafe_offset=i], values[unsafe_offset=i])
        for i in range(stride):
            assert_equal(row[unsafe_offset=i], row[unsafe_offset=stride + i])
        comptime if bits == 8:
            for i in range(HEADER + DIM, stride):
                assert_equal(row[unsafe_offset=i], 0)
    release(values)
    release(into)
    release(row)


def test_what_codes_lose() raises:
    seed(2)
    check_codes[8]()
    check_codes[4]()
    check_whole[8]()
    check_whole[4]()


def main() raises:
    TestSuite.discover_tests[__functions_in_module()]().run()
