"""The random rotation is orthogonal, mixes every element into every other, and depends on its seed alone."""
from std.math import sqrt
from std.random import random_float64, seed
from std.testing import TestSuite, assert_almost_equal, assert_equal, assert_true

from vicinal.quantization.rotation import Rotation, padded_dim
from vicinal.system.memory import Ptr, allocate, allocate_zeroed, release

comptime DIMS: List[Int] = [1, 63, 64, 65, 127, 128, 129, 192, 223, 256, 384, 784, 1000]


def random_vector(dim: Int) -> Ptr[Float32]:
    """Returns random floats, zero behind `dim`."""
    var v = allocate_zeroed[Float32](padded_dim(dim))
    for i in range(dim):
        v[unsafe_offset=i] = Float32(random_float64(-1, 1))
    return v


def dot(a: Ptr[Float32], b: Ptr[Float32], count: Int) -> Float64:
    """Returns the inner product."""
    var sum = Float64(0)
    for i in range(count):
        sum += a[unsafe_offset=i].cast[DType.float64]() * b[unsafe_offset=i].cast[DType.float64]()
    return sum


def test_rotation_keeps_lengths_and_inner_products() raises:
    seed(1)
    for dim in materialize[DIMS]():
        var rotation = Rotation(dim, 7)
        var size = padded_dim(dim)
        assert_equal(rotation.size, size)
        for _ in range(20):
            var x = random_vector(dim)
            var y = random_vector(dim)
            var xx = dot(x, x, size)
            var yy = dot(y, y, size)
            var xy = dot(x, y, size)
            rotation.rotate(x)
            rotation.rotate(y)
            assert_almost_equal(dot(x, x, size), xx, rtol=1e-5)
            assert_almost_equal(dot(y, y, size), yy, rtol=1e-5)
            assert_almost_equal(dot(x, y, size), xy, atol=1e-5 * sqrt(xx * yy))
            release(x)
            release(y)


def test_rotation_is_a_matrix_that_mixes_everything() raises:
    for dim in [64, 128, 192, 320]:
        var rotation = Rotation(dim, 3)
        var columns = allocate_zeroed[Float32](dim * dim)
        var largest = Float32(0)
        for i in range(dim):
            var column = columns.unsafe_offset(i * dim)
            column[unsafe_offset=i] = 1
            rotation.rotate(column)
            for j in range(dim):
                largest = max(largest, abs(column[unsafe_offset=j]))
        for i in range(dim):
            for j in range(i + 1):
                var product = dot(
                    columns.unsafe_offset(i * dim), columns.unsafe_offset(j * dim), dim
                )
                assert_almost_equal(product, Float64(1 if i == j else 0), atol=1e-5)
        # a random direction has its largest coordinate near sqrt(2 ln(dim**2) / dim): 0.5 at 64
        assert_true(largest < 0.75, String(t"{dim} dimensions: {largest}"))
        release(columns)


def test_rotation_depends_on_the_seed_alone() raises:
    seed(2)
    for dim in materialize[DIMS]():
        var size = padded_dim(dim)
        var turned = List[Ptr[Float32]]()
        var x = random_vector(dim)
        for given in [5, 5, 6]:
            var copy = allocate[Float32](size)
            for i in range(size):
                copy[unsafe_offset=i] = x[unsafe_offset=i]
            Rotation(dim, given).rotate(copy)
            turned.append(copy)
        var differ = 0
        for i in range(size):
            assert_equal(turned[0][unsafe_offset=i], turned[1][unsafe_offset=i])
            differ += Int(turned[0][unsafe_offset=i] != turned[2][unsafe_offset=i])
        assert_true(differ > size // 2)
        for copy in turned:
            release(copy)
        release(x)


def main() raises:
    TestSuite.discover_tests[__functions_in_module()]().run()
