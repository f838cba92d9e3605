"""The centre of codes is the mean of all rows but a few far ones, whatever their sizes; the reach follows from the others."""
from std.random import random_float64, seed
from std.testing import TestSuite, assert_almost_equal, assert_equal, assert_true

from vicinal.kernels.space import Rows
from vicinal.quantization.code_centre import find_centre
from vicinal.rows.row_states import FREE
from vicinal.system.memory import Ptr, allocate_zeroed, release

comptime DIM = 7


struct GrowableArray(Movable):
    """Rows within -1 .. 1 around 3, some at other places, and what was found of them."""

    var floats: Ptr[Float32]
    var states: Ptr[UInt8]
    var centre: Ptr[Float32]
    var reach: Float32
    var count: Int

    def __init__(out self, count: Int):
        self.floats = allocate_zeroed[Float32](count * DIM)
        self.states = allocate_zeroed[UInt8](count)
        self.centre = allocate_zeroed[Float32](DIM)
        self.reach = -1
        self.count = count
        for i in range(count * DIM):
            self.floats[unsafe_offset=i] = Float32(3 + random_float64(-1, 1))

    def __deinit__(deinit self):
        release(self.floats)
        release(self.states)
        release(self.centre)

    def put(self, row: Int, size: Float32):
        for j in range(DIM):
            self.floats[unsafe_offset=row * DIM + j] = size * (1 + Float32(j) / 100)

    def find(mut self) raises:
        var there = find_centre[DType.float32](
            Rows(Int(self.floats), 4 * DIM, DIM, 0),
            Int(self.states),
            self.count,
            self.centre,
            self.reach,
        )
        assert_true(there)

    def mean(self, first: Int, step: Int = 1) -> List[Float64]:
        var sums = List[Float64](length=DIM, fill=0)
        var taken = 0
        for row in range(first, self.count, step):
            taken += 1
            for j in range(DIM):
                sums[j] += Float64(self.floats[unsafe_offset=row * DIM + j])
        for j in range(DIM):
            sums[j] /= Float64(taken)
        return sums^

    def expect(self, mean: List[Float64]) raises:
        for j in range(DIM):
            assert_almost_equal(Float64(self.centre[unsafe_offset=j]), mean[j], rtol=1e-6)


def test_without_strays_it_is_the_mean() raises:
    seed(1)
    for count in [1, 2, 50, 5000]:
        var it = GrowableArray(count)
        it.find()
        it.expect(it.mean(0))
        if count == 5000:  # the mean squared distance is DIM / 3
            assert_true(it.reach > 16 * 2 and it.reach < 16 * 2.7)


def test_strays_are_left_out() raises:
    """One size, and sizes so different that the largest hide the others at first."""
    seed(2)
    for sizes in [
        [Float32(1e3), 1e3, 1e3, 1e3],
        [Float32(1e18), 1e18, 1e18, 1e18],
        [Float32(-1e15), 1e9, 1e5, 100],
    ]:
        var it = GrowableArray(800)
        for row in range(20):
            it.put(row, sizes[row % 4])
        it.find()
        it.expect(it.mean(20))
        assert_true(it.reach > 16 * 2 and it.reach < 16 * 2.7)


def test_many_are_no_strays() raises:
    seed(3)
    var it = GrowableArray(800)
    for row in range(60):
        it.put(row, 1e4)
    it.find()
    it.expect(it.mean(0))
    assert_equal(it.reach, Float32.MAX)


def test_rows_of_one_place_have_no_reach() raises:
    var it = GrowableArray(100)
    for row in range(100):
        it.put(row, 5)
    it.put(7, 1e6)
    it.find()
    assert_equal(it.reach, Float32.MAX)


def test_removed_rows_take_no_part() raises:
    seed(4)
    var it = GrowableArray(400)
    for row in range(0, 400, 2):
        it.put(row, 50)
        it.states[unsafe_offset=row] = FREE
    it.find()
    it.expect(it.mean(1, 2))
    assert_true(it.reach < Float32.MAX)


def main() raises:
    TestSuite.discover_tests[__functions_in_module()]().run()
