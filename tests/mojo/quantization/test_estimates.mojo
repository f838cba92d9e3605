"""Estimating codes against their formula in float64, and against true distances of real vectors."""
from std.math import sqrt
from std.random import random_float64, random_ui64, seed
from std.reflection import source_location
from std.testing import TestSuite, assert_almost_equal, assert_equal, assert_true

from vicinal.kernels.convert import to_float
from vicinal.kernels.space import IP, L2, Query, Rows, float_of_key
from vicinal.quantization.code_products import CODE_LINE, dot_nibbles
from vicinal.quantization.code_space import (
    BetweenCodes,
    Estimate,
    EstimateConstants,
    PreparedEstimate,
)
from vicinal.quantization.code_table import RABITQ4, SQ8, Codes
from vicinal.quantization.rotation import padded_dim
from vicinal.system.memory import Ptr, allocate, allocate_zeroed, at, release

comptime DIMS: List[Int] = [1, 63, 64, 65, 127, 128, 129, 223, 1000]


def dot(a: Ptr[Float32], b: Ptr[Float32], count: Int) -> Float64:
    """Returns the inner product."""
    var sum = Float64(0)
    for i in range(count):
        sum += a[unsafe_offset=i].cast[DType.float64]() * b[unsafe_offset=i].cast[DType.float64]()
    return sum


def test_dot_nibbles() raises:
    seed(4)
    for bytes in [64, 128, 192, 1024]:
        for extreme in [False, True]:
            check_nibbles(bytes, extreme)


def check_nibbles(bytes: Int, extreme: Bool) raises:
    """Compares with a plain sum, of the products that fill most bits if `extreme`."""
    for value in [UInt8(127), 128]:
        var row = allocate[UInt8](bytes)
        var query = allocate[UInt8](2 * bytes)
        for i in range(bytes):
            row[unsafe_offset=i] = 255 if extreme else UInt8(random_ui64(0, 255))
        for i in range(2 * bytes):
            query[unsafe_offset=i] = value if extreme else UInt8(random_ui64(0, 255))
        var sum: Int64 = 0
        for i in range(2 * bytes):
            var value = Int64(value_at(row, i, 4))
            sum += value * Int64(query[unsafe_offset=i].cast[DType.int8]())
        assert_equal(Int64(dot_nibbles(row, query, bytes).reduce_add()), sum)
        release(row)
        release(query)


def value_at(code: Ptr[UInt8], i: Int, bits: Int) -> Int:
    """Returns the value of dimension i of a code: 4 bits hold 0..63 of each 128 low, 64..127 high.
    """
    if bits == 8:
        return Int(code[unsafe_offset=i])
    var byte = Int(code[unsafe_offset=i // 128 * 64 + i % 64])
    return byte % 16 if i % 128 < 64 else byte // 16


struct Sample(Movable):
    """Rows of float32, one behind the other."""

    var rows: Rows
    var count: Int
    var floats: Ptr[Float32]

    def __init__(out self, count: Int, dim: Int):
        """Makes zero rows."""
        self.floats = allocate_zeroed[Float32](count * dim)
        self.rows = Rows(Int(self.floats), 4 * dim, dim, 0)
        self.count = count

    def __deinit__(deinit self):
        release(self.floats)

    def row(self, i: Int) -> Ptr[Float32]:
        """Returns row i."""
        return self.rows.row[DType.float32](i)


def encoded(kind: Int, metric: Int, sample: Sample, given_seed: Int) raises -> Codes:
    """Returns codes of all rows of a sample."""
    var codes = Codes(kind, metric, 0, sample.rows.dim, given_seed)
    assert_true(codes.grow(sample.count))
    _ = codes.centre_on[DType.float32](sample.rows, 0, sample.count)
    var work = allocate[Float32](padded_dim(sample.rows.dim))
    for row in range(sample.count):
        codes.encode[DType.float32](sample.rows, row, work)
    release(work)
    codes.count = sample.count
    return codes^


def real_vectors(name: String, count: Int, dim: Int, bits: Int) raises -> Sample:
    """Reads the first rows of a .npy file of float16 (`bits` 16) or uint8 under tests/data."""
    var here = String(source_location().file_name())
    var root = String(here[byte = 0 : here.rfind("mojo/quantization/test_estimates.mojo")])
    with open(root + "data/" + name, "r") as file:
        var head = file.read_bytes(10)
        assert_equal(Int(head[0]), 0x93)
        var length = Int(head[8]) + 256 * Int(head[9])
        _ = file.read_bytes(length)
        var bytes = file.read_bytes(count * dim * bits // 8)
        assert_equal(len(bytes), count * dim * bits // 8)
        var sample = Sample(count, dim)
        for i in range(count):
            for j in range(dim):
                var place = bytes.unsafe_ptr().unsafe_offset((i * dim + j) * bits // 8)
                if bits == 16:
                    sample.row(i)[unsafe_offset=j] = to_float[DType.float16, 1](
                        place.unsafe_bitcast[Float16]()[]
                    )
                else:
                    sample.row(i)[unsafe_offset=j] = Float32(Int(place[]))
        return sample^


struct Errors(Movable):
    """What estimates are off by, one query after the other."""

    var scaled: List[Float64]
    """Errors of inner products of residual and query, in units of the product of their lengths."""
    var relative: List[Float64]
    """Errors of squared distances in units of the true ones; none for ip."""

    def __init__(out self):
        """Makes empty lists."""
        self.scaled = List[Float64]()
        self.relative = List[Float64]()


def mean(values: List[Float64]) -> Float64:
    """Returns the mean."""
    var sum = Float64(0)
    for value in values:
        sum += value
    return sum / Float64(len(values))


def flood(values: List[Float64]) -> Float64:
    """Returns the root of the mean square."""
    var sum = Float64(0)
    for value in values:
        sum += value * value
    return sqrt(sum / Float64(len(values)))


def measure[
    bits: Int
](sample: Sample, queries: Sample, metric: Int, given_seed: Int) raises -> Errors:
    """Compares estimates with their formula, in float64 from the bytes of codes and queries, and with true distances.
    """
    comptime MIDDLE = Float64(7.5) if bits == 4 else Float64(127.5)
    var dim = sample.rows.dim
    var size = padded_dim(dim)
    var codes = encoded(RABITQ4 if bits == 4 else SQ8, metric, sample, given_seed)
    var rows = codes.rows(sample.rows)
    var lengths = List[Float64]()
    var o = allocate[Float32](size)
    for row in range(sample.count):
        for i in range(size):
            o[unsafe_offset=i] = 0
        for i in range(dim):
            o[unsafe_offset=i] = sample.row(row)[unsafe_offset=i] - codes.centre[unsafe_offset=i]
        lengths.append(sqrt(dot(o, o, dim)))
        if bits == 4:
            codes.rotation.rotate(o)
        check_code[bits](metric, rows, row, o, size)
    var prepared = allocate[UInt8](codes.query_bytes())
    var errors = Errors()
    for q in range(queries.count):
        var given = queries.row(q)
        codes.prepare[DType.float32](given, prepared, o)
        var header = prepared.unsafe_bitcast[PreparedEstimate]()[]
        var bytes = prepared.unsafe_offset(CODE_LINE).unsafe_bitcast[Int8]()
        # what a query adds to all of its distances is left out of the keys
        var length2 = dot(given, given, dim)
        var left_out = -dot(codes.centre, given, dim)
        if metric == L2:
            left_out = length2 + 2 * left_out + dot(codes.centre, codes.centre, dim)
            length2 = left_out
        for row in range(sample.count):
            var code = rows.row[DType.uint8](row)
            var product = Float64(0)
            for i in range(size):
                var u = Float64(value_at(code, i, bits)) - MIDDLE
                product += u * Float64(bytes[unsafe_offset=i])
            var constants = at[EstimateConstants](rows.norms)[unsafe_offset=row]
            var add = Float64(constants.add)
            var wanted = add + Float64(constants.rescale) * Float64(header.scale) * product
            var key = Estimate[bits].key(Query(Int(prepared), 1), rows, row)
            var estimate = Float64(float_of_key(key))
            var unit = lengths[row] * sqrt(length2)
            assert_almost_equal(estimate, wanted, atol=1e-5 * (unit + abs(add)))
            var truth = Float64(0)
            for i in range(dim):
                var x = Float64(sample.row(row)[unsafe_offset=i])
                var y = Float64(given[unsafe_offset=i])
                truth += (x - y) * (x - y) if metric == L2 else -x * y
            var error = estimate + left_out - truth
            errors.scaled.append(error / unit / Float64(-2 if metric == L2 else 1))
            if metric == L2:
                errors.relative.append(error / truth)
    release(prepared)
    release(o)
    return errors^


def check_code[bits: Int](metric: Int, rows: Rows, row: Int, o: Ptr[Float32], size: Int) raises:
    """Checks a code against the residual it stands for: order, direction, constants."""
    comptime MIDDLE = Float64(7.5) if bits == 4 else Float64(127.5)
    var code = rows.row[DType.uint8](row)
    var along = Float64(0)
    var squared = Float64(0)
    for i in range(size):
        var value = value_at(code, i, bits)
        var u = Float64(value) - MIDDLE
        along += u * Float64(o[unsafe_offset=i])
        squared += u * u
        # a larger element never has a smaller value
        for j in range(max(i - 5, 0), i):
            var other = value_at(code, j, bits)
            assert_true(other <= value or o[unsafe_offset=j] >= o[unsafe_offset=i])
            assert_true(other >= value or o[unsafe_offset=j] <= o[unsafe_offset=i])
    for i in range(size, (size + 127) // 128 * 128 if bits == 4 else size):
        assert_equal(value_at(code, i, bits), 0)
    var constants = at[EstimateConstants](rows.norms)[unsafe_offset=row]
    var norm2 = dot(o, o, size)
    # how far the code points along the residual
    assert_true(along / sqrt(squared * norm2) > (0.985 if bits == 4 else 0.9995))
    if metric == L2:
        assert_almost_equal(Float64(constants.add), norm2, rtol=1e-5)
        assert_almost_equal(Float64(constants.rescale), -2 * norm2 / along, rtol=1e-5)
    else:
        assert_equal(constants.add, 0)
        assert_almost_equal(Float64(constants.rescale), -norm2 / along, rtol=1e-5)


def check_errors[bits: Int](rows: Sample, queries: Sample, metric: Int) raises:
    """Checks that estimates are right on average and as near as they were measured to be."""
    var errors = measure[bits](rows, queries, metric, 1)
    var off = flood(errors.scaled)
    var label = String(t"{bits} bits, metric {metric}, mean {mean(errors.scaled)}, spread {off}")
    # measured: 0.100 to 0.106 with 4 bits, 0.009 to 0.010 with 8
    assert_true(off * sqrt(Float64(rows.rows.dim)) < (0.12 if bits == 4 else 0.012), label)
    assert_true(abs(mean(errors.scaled)) < off / 10, label)
    if metric == L2:
        var relative = mean(errors.relative)
        assert_true(abs(relative) < (5e-4 if bits == 4 else 5e-5), String(t"{label}, {relative}"))


def test_estimates_on_real_vectors() raises:
    var strings = real_vectors("minilm-4k/base.npy", 600, 384, 16)
    var text_queries = real_vectors("minilm-4k/queries.npy", 20, 384, 16)
    var pictures = real_vectors("sift-ngt-5k/base_u8.npy", 600, 128, 8)
    var picture_queries = real_vectors("sift-ngt-5k/queries_u8.npy", 20, 128, 8)
    for metric in [L2, IP]:
        check_errors[4](strings, text_queries, metric)
        check_errors[8](strings, text_queries, metric)
        check_errors[4](pictures, picture_queries, metric)
        check_errors[8](pictures, picture_queries, metric)


def test_estimates_are_unbiased_over_rotations() raises:
    comptime ROTATIONS = 60
    var rows = real_vectors("sift-ngt-5k/base_u8.npy", 40, 128, 8)
    var queries = real_vectors("sift-ngt-5k/queries_u8.npy", 5, 128, 8)
    var sums = List[Float64](length=200, fill=0)
    var squares = List[Float64](length=200, fill=0)
    for given_seed in range(ROTATIONS):
        var errors = measure[4](rows, queries, L2, given_seed)
        for pair in range(200):
            sums[pair] += errors.scaled[pair]
            squares[pair] += errors.scaled[pair] * errors.scaled[pair]
    # of 200 means about ten are further from zero than twice their standard error, none than five times
    var far = 0
    for pair in range(200):
        var error = abs(sums[pair]) / sqrt(squares[pair])
        far += Int(error > 2)
        assert_true(error < 5, String(t"pair {pair}: {error}"))
    assert_true(far < 25, String(far))


def test_estimates_in_every_dimension() raises:
    seed(8)
    for dim in materialize[DIMS]():
        var rows = Sample(40, dim)
        var queries = Sample(3, dim)
        for i in range(dim):
            for row in range(40):
                rows.row(row)[unsafe_offset=i] = Float32(random_float64(-1, 3))
            for q in range(3):
                queries.row(q)[unsafe_offset=i] = Float32(random_float64(-1, 3))
        for metric in [L2, IP]:
            # formula, constants and order of values are checked on the way
            assert_true(flood(measure[4](rows, queries, metric, 2).scaled) < 0.03)
            assert_true(flood(measure[8](rows, queries, metric, 2).scaled) < 0.01)


def test_rows_at_the_centre() raises:
    var rows = Sample(5, 100)
    for row in range(5):
        for i in range(100):
            rows.row(row)[unsafe_offset=i] = Float32(i) / 4
    comptime for bits in [4, 8]:
        var codes = encoded(RABITQ4 if bits == 4 else SQ8, L2, rows, 1)
        var prepared = allocate[UInt8](codes.query_bytes())
        var query = allocate_zeroed[Float32](padded_dim(100))
        var work = allocate[Float32](padded_dim(100))
        for given in [rows.row(0), query]:
            codes.prepare[DType.float32](given, prepared, work)
            for row in range(5):
                var key = Estimate[bits].key(Query(Int(prepared), 1), codes.rows(rows.rows), row)
                assert_equal(float_of_key(key), 0)
        release(prepared)
        release(query)
        release(work)


def check_between[bits: Int](codes: Codes, sample: Sample) raises:
    """Checks the distance between rows known by their codes against its formula in float64, whichever of the two is made a query.
    """
    var size = padded_dim(sample.rows.dim)
    var rows = codes.rows(sample.rows)
    var middle = 7.5 if bits == 4 else 127.5
    # whole numbers stand for centred values: with 8 bits they are half a step too low
    var shift = 0.0 if bits == 4 else 0.5
    var constants = codes.constants.ptr[EstimateConstants]()
    var room = allocate[UInt8](4 * size + CODE_LINE)
    for a in range(sample.count):
        var query = BetweenCodes[bits].query_of_row(rows, a, Int(room))
        for b in range(sample.count):
            var product = Float64(0)
            for i in range(size):
                var u = Float64(value_at(rows.row[DType.uint8](b), i, bits)) - middle
                var v = Float64(value_at(rows.row[DType.uint8](a), i, bits)) - middle - shift
                product += u * v
            var first = constants[unsafe_offset=a]
            var second = constants[unsafe_offset=b]
            var expected = Float64(first.add) + Float64(second.add)
            expected -= Float64(first.rescale) * Float64(second.rescale) * product / 2
            var scale = Float64(first.add) + Float64(second.add)
            var key = BetweenCodes[bits].key(query, rows, b)
            var found = Float64(float_of_key(key))
            assert_almost_equal(found, expected, atol=1e-5 * scale, rtol=0)
            var last = sample.count - 1
            var four = BetweenCodes[bits].keys(query, rows, a, 0, b, last)
            assert_equal(four[2], key)
            assert_equal(four[3], BetweenCodes[bits].key(query, rows, last))
            # and near the true distance
            var true_distance = Float64(0)
            for i in range(sample.rows.dim):
                var x = sample.row(a)[unsafe_offset=i] - sample.row(b)[unsafe_offset=i]
                true_distance += x.cast[DType.float64]() ** 2
            assert_almost_equal(expected, true_distance, atol=0.1 * scale, rtol=0)
    release(room)


def test_between_codes() raises:
    seed(9)
    for dim in materialize[DIMS]():
        var rows = Sample(12, dim)
        for row in range(12):
            for i in range(dim):
                rows.row(row)[unsafe_offset=i] = Float32(random_float64(-1, 3))
        check_between[4](encoded(RABITQ4, L2, rows, 3), rows)
        check_between[8](encoded(SQ8, L2, rows, 3), rows)


def main() raises:
    TestSuite.discover_tests[__functions_in_module()]().run()
