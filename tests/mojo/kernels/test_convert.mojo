"""Halves convert exactly in both directions: all bit patterns, and all places where rounding turns."""
from std.math import isnan
from std.memory import bitcast
from std.testing import TestSuite, assert_equal, assert_true

from vicinal.kernels.convert import HALF_IN_SOFTWARE, from_float, is_finite, to_float
from vicinal.kernels.products import W


def half_value(bits: UInt16) -> Float64:
    """Returns the finite number that the bits of a float16 stand for."""
    var exponent = Int(bits >> 10 & 31)
    var fraction = Float64(bits & 1023) / 1024
    var magnitude = fraction * 2.0**-14
    if exponent > 0:
        magnitude = (1 + fraction) * 2.0 ** Float64(exponent - 15)
    return -magnitude if bits >> 15 == 1 else magnitude


def test_halves_widen_exactly() raises:
    for bits in range(1 << 16):
        var pattern = UInt16(bits)
        var half = bitcast[DType.float16, 1](pattern)
        var widened = to_float[DType.float16, 1](half)
        var finite = bits & 0x7C00 != 0x7C00
        assert_equal(is_finite(half), finite)
        if finite:
            assert_equal(Float64(widened), half_value(pattern))
            assert_equal(bitcast[DType.uint32, 1](widened) >> 31, UInt32(bits >> 15))  # -0
        elif not HALF_IN_SOFTWARE:
            assert_equal(isnan(widened), bits & 1023 != 0)
            assert_true(isnan(widened) or abs(widened) == Float32.MAX)

        var brain = bitcast[DType.bfloat16, 1](pattern)
        assert_equal(is_finite(brain), bits & 0x7F80 != 0x7F80)
        assert_equal(
            bitcast[DType.uint32, 1](to_float[DType.bfloat16, 1](brain)), UInt32(bits) << 16
        )
    for x in [Float32(0), -1, 3.4e38, 1e-45]:
        assert_true(is_finite(x))
    assert_true(not is_finite(Float32.MAX) and not is_finite(Float32(0) / Float32(0)))


def rounded[T: DType](x: Float32, negative: Bool) -> UInt16:
    """Rounds a number to a half type in a full vector and returns the bits of a lane."""
    var lanes = from_float[T, W](SIMD[DType.float32, W](-x if negative else x))
    return bitcast[DType.uint16, W](lanes)[W - 1]


def next_up(x: Float32) -> Float32:
    return bitcast[DType.float32, 1](bitcast[DType.uint32, 1](x) + 1)


def next_down(x: Float32) -> Float32:
    return bitcast[DType.float32, 1](bitcast[DType.uint32, 1](x) - 1)


def test_rounding_to_halves() raises:
    """Each number comes back; between two neighbours the nearer wins, in the middle the even one.
    """
    for bits in range(0x7C00):
        var below = Float32(half_value(UInt16(bits)))
        # behind the largest number infinity stands where the next one would be
        var above = half_value(UInt16(bits + 1)) if bits < 0x7BFF else 65536.0
        var middle = Float32((Float64(below) + above) / 2)
        for negative in [False, True]:
            var sign = UInt16(0x8000) if negative else UInt16(0)
            assert_equal(rounded[DType.float16](below, negative), sign | UInt16(bits))
            assert_equal(rounded[DType.float16](next_down(middle), negative), sign | UInt16(bits))
            assert_equal(rounded[DType.float16](middle, negative), sign | UInt16(bits + (bits & 1)))
            assert_equal(rounded[DType.float16](next_up(middle), negative), sign | UInt16(bits + 1))
    for bits in range(0x7F80):
        var below = bitcast[DType.float32, 1](UInt32(bits) << 16)
        var middle = bitcast[DType.float32, 1](UInt32(bits) << 16 | 0x8000)
        for negative in [False, True]:
            var sign = UInt16(0x8000) if negative else UInt16(0)
            assert_equal(rounded[DType.bfloat16](below, negative), sign | UInt16(bits))
            assert_equal(rounded[DType.bfloat16](next_down(middle), negative), sign | UInt16(bits))
            assert_equal(
                rounded[DType.bfloat16](middle, negative), sign | UInt16(bits + (bits & 1))
            )
            assert_equal(
                rounded[DType.bfloat16](next_up(middle), negative), sign | UInt16(bits + 1)
            )


def main() raises:
    TestSuite.discover_tests[__functions_in_module()]().run()
