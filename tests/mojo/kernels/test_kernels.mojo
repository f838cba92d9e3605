"""Distances equal plain sums in every space, keys keep their order, bad rows are told apart."""
from std.math import sqrt
from std.memory import bitcast
from std.random import random_float64, random_si64, random_ui64, seed
from std.sys import size_of
from std.testing import TestSuite, assert_equal, assert_true

from vicinal.kernels.distance import MAX_DIM
from vicinal.kernels.convert import from_float, is_finite, to_float
from vicinal.kernels.in_space import SpaceTask, in_given_space
from vicinal.kernels.products import W
from vicinal.kernels.inspect_row import inspect_row, to_unit
from vicinal.kernels.space import (
    COSINE,
    IP,
    L2,
    METRICS,
    Query,
    Rows,
    Space,
    float_of_key,
    key_of_float,
)
from vicinal.kernels.stored_type import STORED_TYPES, is_float
from vicinal.system.memory import Ptr, allocate, release
from vicinal.system.outcome import FINE, NOT_FINITE, TOO_LARGE, TOO_SMALL, ZERO_VECTOR

comptime ROWS = 6
comptime GAP = 3
"""Elements between rows that no sum may touch."""
comptime TOLERANCE = 1e-5
"""Of the sum of all |terms|, for float types. The same for all: rows are widened to float32 exactly and summed there."""


def random_element[T: DType]() -> Scalar[T]:
    comptime if T == DType.uint8:
        return Scalar[T](random_ui64(0, 255))
    elif T == DType.int8:
        return Scalar[T](random_si64(-128, 127))
    else:  # mostly positive: inner products above 1, so distances below 0
        return Float32(random_float64(-1, 2)).cast[T]()


def fill[T: DType](p: Ptr[Scalar[T]], dim: Int, unit: Bool):
    """Writes random values, of unit length if asked, and behind them what would spoil a sum."""
    for i in range(dim):
        p[unsafe_offset=i] = random_element[T]()
    comptime if T.is_floating_point():
        if unit:
            var scale = 1 / sqrt(dot(values(p, dim), values(p, dim)))
            for i in range(dim):
                var x = p[unsafe_offset=i].cast[DType.float64]()
                p[unsafe_offset=i] = (x * scale).cast[T]()
    else:
        p[] = 100  # no zero vector
    for i in range(dim, dim + GAP):
        comptime if T.is_floating_point():
            p[unsafe_offset=i] = (Float32(0) / Float32(0)).cast[T]()
        else:
            p[unsafe_offset=i] = 99


def values[T: DType](p: Ptr[Scalar[T]], dim: Int) -> List[Float64]:
    var found = List[Float64]()
    for i in range(dim):
        found.append(p[unsafe_offset=i].cast[DType.float64]())
    return found^


def dot(a: List[Float64], b: List[Float64]) -> Float64:
    var sum = Float64(0)
    for i in range(len(a)):
        sum += a[i] * b[i]
    return sum


def difference(a: List[Float64], b: List[Float64]) -> Float64:
    var sum = Float64(0)
    for i in range(len(a)):
        sum += (a[i] - b[i]) ** 2
    return sum


def distance(metric: Int, a: List[Float64], b: List[Float64], unit: Bool) -> Float64:
    """Returns the distance by its definition; sums of 8-bit integers are exact in float64."""
    if metric == L2:
        return difference(a, b)
    if metric == IP:
        return 1 - dot(a, b)
    if unit:  # up to the rounding of the elements, which must not make a distance negative
        return max(Float64(0), 1 - dot(a, b))
    return 1 - dot(a, b) / (sqrt(dot(a, a)) * sqrt(dot(b, b)))


def allowed(metric: Int, dtype: Int, a: List[Float64], b: List[Float64]) -> Float64:
    """Returns how far a distance may be from the definition."""
    if metric == COSINE:
        return TOLERANCE
    if not is_float(dtype):
        return 0
    var magnitude = Float64(1)
    for i in range(len(a)):
        magnitude += abs(a[i] * b[i])
    return TOLERANCE * (difference(a, b) if metric == L2 else magnitude)


@fieldwise_init
struct CheckDistances(SpaceTask):
    """Measures random rows in one space and compares with the definition."""

    var dtype: Int
    var dim: Int
    var wrong: List[String]
    var negative: Int
    """Distances below 0 that were seen."""

    def run[S: Space](mut self):
        """Does it in one space."""
        comptime T = S.T
        comptime unit = S.metric == COSINE and T.is_floating_point()
        var stride = self.dim + GAP
        var memory = allocate[Scalar[T]](1 + ROWS * stride)
        var norms = allocate[Float32](ROWS)
        var given = allocate[Scalar[S.Q]](1 + self.dim + GAP)
        var room = allocate[UInt8](4 * self.dim + 64)
        # one element behind a cache line: no row is aligned
        var rows = Rows(
            Int(memory.unsafe_offset(1)),
            stride * size_of[Scalar[T]](),
            self.dim,
            Int(norms) if S.needs_norms else 0,
        )
        var stored = List[List[Float64]]()
        for row in range(ROWS):
            fill(rows.row[T](row), self.dim, unit)
            comptime if S.needs_norms:
                _ = inspect_row[S, T](rows.row[T](row), self.dim, norms[unsafe_offset=row])
            stored.append(values(rows.row[T](row), self.dim))
        var elements = given.unsafe_offset(1)
        fill(elements, self.dim, unit)
        var query = Query(Int(elements), 1)
        comptime if S.needs_norms:
            _ = inspect_row[S, S.Q](elements, self.dim, query.norm)
        var asked = values(elements, self.dim)

        var keys = List[Int32]()
        for row in range(ROWS):
            keys.append(S.key(query, rows, row))
            self.compare[S](keys[row], asked, stored[row])
        for a in range(ROWS):
            self.compare_order[S](keys[a], keys[0], asked, stored[a], stored[0])
            for b in range(ROWS):
                var own = S.query_of_row(rows, a, Int(room))
                var key = S.key(own, rows, b)
                self.compare[S](key, stored[a], stored[b])
                var four = S.keys(own, rows, b, a, 0, ROWS - 1)
                if four[0] != key or four[3] != S.key(own, rows, ROWS - 1):
                    self.wrong.append("four rows at once")
        release(memory)
        release(norms)
        release(given)
        release(room)

    def compare[S: Space](mut self, key: Int32, a: List[Float64], b: List[Float64]):
        """Compares one distance."""
        comptime unit = S.metric == COSINE and S.T.is_floating_point()
        var got = Float64(S.value(key))
        var wanted = distance(S.metric, a, b, unit)
        if allowed(S.metric, self.dtype, a, b) == 0:  # rounded once, from the exact number
            wanted = Float64(Float32(wanted))
        if not (abs(got - wanted) <= allowed(S.metric, self.dtype, a, b)):
            self.wrong.append(String(t"{got} instead of {wanted}"))
        if S.metric == COSINE and got < 0:
            self.wrong.append(String(t"cosine distance {got}"))
        self.negative += Int(got < 0)

    def compare_order[
        S: Space
    ](
        mut self,
        key_a: Int32,
        key_b: Int32,
        query: List[Float64],
        a: List[Float64],
        b: List[Float64],
    ):
        """Compares the order of two keys with that of the distances they stand for."""
        comptime unit = S.metric == COSINE and S.T.is_floating_point()
        var to_a = distance(S.metric, query, a, unit)
        var to_b = distance(S.metric, query, b, unit)
        var doubt = allowed(S.metric, self.dtype, query, a) + allowed(
            S.metric, self.dtype, query, b
        )
        if (to_a < to_b - doubt and not key_a < key_b) or (
            to_a > to_b + doubt and not key_a > key_b
        ):
            self.wrong.append(String(t"order of {to_a} and {to_b}"))
        if doubt == 0 and to_a == to_b and key_a != key_b:
            self.wrong.append(String(t"keys of {to_a} differ"))


def test_distances_equal_plain_sums() raises:
    seed(1)
    for metric in range(METRICS):
        for dtype in range(STORED_TYPES):
            var negative = 0
            for dim in [
                1,
                W - 1,
                W,
                W + 1,
                2 * W - 1,
                2 * W,
                2 * W + 1,
                4 * W,
                4 * W + 1,
                8 * W,
                223,
                1024,
            ]:
                var task = CheckDistances(dtype, dim, [], 0)
                in_given_space(metric, dtype, task)
                assert_equal(
                    len(task.wrong),
                    0,
                    String(t"metric {metric}, dtype {dtype}, {dim} dimensions: {task.wrong}"),
                )
                negative += task.negative
            assert_equal(negative > 0, metric == IP)


def test_the_largest_dimension() raises:
    seed(2)
    for metric in range(METRICS):
        for dtype in range(STORED_TYPES):
            var task = CheckDistances(dtype, MAX_DIM, [], 0)
            in_given_space(metric, dtype, task)
            assert_equal(
                len(task.wrong), 0, String(t"metric {metric}, dtype {dtype}: {task.wrong}")
            )


@fieldwise_init
struct Steps(SpaceTask):
    """Measures rows of extreme integers, each with more of them: sums climb to where 32 bits end.
    """

    var low: Int
    """What the query holds."""
    var high: Int
    """What the rows hold more and more of, `low` being the rest."""
    var keys: List[Int32]
    var values: List[Float32]
    var sums: List[Int]
    """Sums that the distances should stem from."""

    def run[S: Space](mut self):
        """Does it in one space of integers."""
        comptime if not S.T.is_floating_point():
            var row = allocate[Scalar[S.T]](MAX_DIM)
            var query = allocate[Scalar[S.Q]](MAX_DIM)
            var norm = Float32(1)
            for i in range(MAX_DIM):
                row[unsafe_offset=i] = Scalar[S.T](self.low)
                query[unsafe_offset=i] = Scalar[S.Q](self.low if S.metric == L2 else self.high)
            var rows = Rows(Int(row), MAX_DIM, MAX_DIM, Int(Pointer(to=norm)))
            comptime STEP = MAX_DIM // 64
            for steps in range(65):
                self.keys.append(S.key(Query(Int(query), 1), rows, 0))
                self.values.append(S.value(self.keys[steps]))
                var many = steps * STEP
                if S.metric == L2:
                    self.sums.append(many * (self.high - self.low) ** 2)
                else:
                    self.sums.append(self.high * (many * self.high + (MAX_DIM - many) * self.low))
                for i in range(many, min(many + STEP, MAX_DIM)):
                    row[unsafe_offset=i] = Scalar[S.T](self.high)
            release(row)
            release(query)


def test_integer_sums_fill_32_bits() raises:
    for dtype in [3, 4]:
        for metric in [L2, IP]:
            var low = -128 if dtype == 3 else 0
            var task = Steps(low, low + 255, [], [], [])
            in_given_space(metric, dtype, task)
            assert_equal(len(task.keys), 65)
            for i in range(65):
                if metric == L2:
                    assert_equal(task.values[i], Float32(task.sums[i]))
                else:
                    assert_equal(task.values[i], Float32(1 - Float64(task.sums[i])))
                if i > 0:
                    var nearer = task.keys[i] < task.keys[i - 1]
                    assert_equal(nearer, metric == IP, String(t"dtype {dtype}, step {i}"))
            if dtype == 4 or metric == L2:
                assert_equal(task.sums[64], 4261478400)  # above 2**31


def test_keys_of_floats() raises:
    # every exponent and a few mantissas of both signs, in ascending order
    var ascending = List[Float32]()
    for exponent in range(254, -1, -1):
        for mantissa in [UInt32(0x7FFFFF), 0x400001, 1, 0]:
            ascending.append(
                bitcast[DType.float32, 1](0x80000000 | UInt32(exponent) << 23 | mantissa)
            )
    for exponent in range(255):
        for mantissa in [UInt32(0), 1, 0x400001, 0x7FFFFF]:
            ascending.append(bitcast[DType.float32, 1](UInt32(exponent) << 23 | mantissa))
    for i in range(len(ascending)):
        var key = key_of_float(ascending[i])
        assert_equal(
            bitcast[DType.uint32, 1](float_of_key(key)), bitcast[DType.uint32, 1](ascending[i])
        )
        if i > 0:
            assert_true(key_of_float(ascending[i - 1]) < key)


@fieldwise_init
struct Verdicts(SpaceTask):
    """Has good and bad rows inspected."""

    var dim: Int
    var wrong: List[String]

    def run[S: Space](mut self):
        """Does it in one space, for rows and for queries."""
        self.inspect[S, S.T]()
        comptime if S.Q != S.T:
            self.inspect[S, S.Q]()

    def inspect[S: Space, T: DType](mut self):
        """Does it for one type of elements."""
        var p = allocate[Scalar[T]](self.dim)
        var cosine = S.metric == COSINE
        comptime if T.is_floating_point():
            var not_a_number = Float32(0) / Float32(0)
            for bad in [not_a_number, Float32.MAX, Float32.MIN]:
                for place in [0, self.dim // 2, self.dim - 1]:
                    self.expect[S](p, 1, place, bad, NOT_FINITE)
            comptime if T != DType.float16:  # whose largest square is far from the bound
                self.expect[S](p, 0, 0, 8.9e18, FINE)
                self.expect[S](p, 0, self.dim - 1, 9e18, TOO_LARGE)
                self.expect[S](p, 3e38, 0, 1, TOO_LARGE)  # the sum overflows, no element does
                self.expect[S](p, 3e38, self.dim - 1, not_a_number, NOT_FINITE)
                var verdict = FINE if cosine else TOO_SMALL
                self.expect[S](p, 0, 0, 1e-17, FINE)
                self.expect[S](p, 2e-19, 0, 0, FINE)
                self.expect[S](p, 0, 0, 1e-20, verdict)  # its square is no normal float32
                self.expect[S](p, 0, self.dim - 1, 1e-36, verdict)
                self.expect[S](p, 0, 0, 3e-39, verdict)  # the reciprocal is no float32
                self.expect[S](p, 1e-40, 0, 1e-40, verdict)
            else:
                self.expect[S](p, 65504, 0, 1, FINE)
                self.expect[S](p, 0, self.dim - 1, 6e-8, FINE)
        self.expect[S](p, 1, 0, 3, FINE)
        self.expect[S](p, 0, self.dim - 1, 1, FINE)
        self.expect[S](p, 0, 0, 0, ZERO_VECTOR if cosine else FINE)
        release(p)

    def expect[
        S: Space, T: DType
    ](mut self, p: Ptr[Scalar[T]], all: Float32, place: Int, one: Float32, verdict: Int):
        """Fills a row with `all`, puts `one` at a place and compares verdict and norm."""
        for i in range(self.dim):
            var value = one if i == place else all
            p[unsafe_offset=i] = value.cast[T]()
            comptime if T == DType.bfloat16:  # processors that cast to it take subnormal numbers for zero
                if is_finite(value):
                    p[unsafe_offset=i] = from_float[T, 1](value)
        var norm = Float32(-7)
        var found = inspect_row[S, T](p, self.dim, norm)
        if found != verdict:
            self.wrong.append(String(t"{all} and {one} at {place}: {found} instead of {verdict}"))
        if S.metric != COSINE:
            if norm != -7:
                self.wrong.append("a norm nobody asked for")
        elif found == FINE:
            var length = sqrt(dot(values(p, self.dim), values(p, self.dim)))
            var first = to_float[T, 1](p[unsafe_offset=place])
            var unit = Float64(to_unit(first, norm))
            if not (abs(unit - Float64(first) / length) < 1e-5):
                self.wrong.append(String(t"norm {norm} of a vector of length {length}"))


def test_verdicts_on_rows() raises:
    for metric in range(METRICS):
        for dtype in range(STORED_TYPES):
            for dim in [2, W - 1, W, 4 * W + 1, 223]:
                var task = Verdicts(dim, [])
                in_given_space(metric, dtype, task)
                assert_equal(
                    len(task.wrong),
                    0,
                    String(t"metric {metric}, dtype {dtype}, {dim} dimensions: {task.wrong}"),
                )


def main() raises:
    TestSuite.discover_tests[__functions_in_module()]().run()
