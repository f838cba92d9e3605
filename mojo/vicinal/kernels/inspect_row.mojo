"""Looks at vectors before they are stored or asked for: whether distances to them can be told, and what makes them unit vectors."""
from std.math import sqrt

from vicinal.kernels.convert import HALF_IN_SOFTWARE, is_finite, to_float
from vicinal.kernels.distance import sum_floats, sum_ints
from vicinal.kernels.metric import Product
from vicinal.kernels.space import COSINE, Space
from vicinal.system.memory import Ptr
from vicinal.system.outcome import FINE, NOT_FINITE, TOO_LARGE, TOO_SMALL, ZERO_VECTOR

comptime LARGEST_SQUARED_NORM: Float32 = 8e37
"""Rows below it have all distances finite in float32: (|a| + |b|)**2 <= 4 * 8e37 < 3.4e38."""
comptime LEAST_SQUARE: Float32 = 1e-38
"""Rows whose elements squared are smaller on average, zeros apart, are refused with l2 and ip: squares and products fall out of
float32's range, to zero in the end, and rows would come in the order of their numbers. Above, each is off by 1e-45 at most."""
comptime RAISE: Float32 = 1 << 40
"""What vectors are multiplied by, which is exact, whose reciprocal norm is too large for float32."""


def inspect_row[S: Space, T: DType](p: Ptr[Scalar[T]], dim: Int, mut norm: Float32) -> Int:
    """Checks one vector and finds its reciprocal norm where the metric wants one.

    Args:
        p: The elements.
        dim: Their number.
        norm: Set to 1 / |p| for cosine, as `to_unit` takes it, else left alone.

    Returns:
        FINE, or NOT_FINITE, ZERO_VECTOR, TOO_LARGE or TOO_SMALL.

    Safety:
        `p` must have `dim` elements.
    """
    comptime if T.is_floating_point():
        var squared = sum_floats[Product, T, T](p, p, dim)
        # the first test is also true for NaN; halves widened in software hide their infinities
        if not (squared <= LARGEST_SQUARED_NORM) or (T == DType.float16 and HALF_IN_SOFTWARE):
            for i in range(dim):
                if not is_finite(p[unsafe_offset=i]):
                    return NOT_FINITE
            if not (squared <= LARGEST_SQUARED_NORM):
                return TOO_LARGE
        comptime if S.metric == COSINE:
            return _reciprocal[T](p, dim, squared, norm)
        elif T != DType.float16:  # whose least square is 2**-48
            if squared < LEAST_SQUARE * Float32(dim):
                for i in range(dim):
                    if to_float[T, 1](p[unsafe_offset=i]) != 0:
                        return TOO_SMALL
    else:
        comptime if S.metric == COSINE:
            var squared = sum_ints[Product, T](p, p, dim)
            if squared == 0:
                return ZERO_VECTOR
            norm = Float32(1 / sqrt(Float64(squared)))
    return FINE


def _reciprocal[T: DType](p: Ptr[Scalar[T]], dim: Int, squared: Float32, mut norm: Float32) -> Int:
    """Finds 1 / |p|; sums again in float64 where float32 has lost small elements."""
    if squared > 1e-30:
        norm = 1 / sqrt(squared)
        return FINE
    var sum = Float64(0)
    for i in range(dim):
        var x = to_float[T, 1](p[unsafe_offset=i]).cast[DType.float64]()
        sum += x * x
    if sum == 0:
        return ZERO_VECTOR
    var reciprocal = 1 / sqrt(sum)
    if reciprocal < 1e38:
        norm = Float32(reciprocal)
    else:
        norm = Float32(-reciprocal / RAISE.cast[DType.float64]())
    return FINE


@always_inline
def to_unit(x: Float32, norm: Float32) -> Float32:
    """Returns an element of a vector of unit length, given that of the vector and its reciprocal norm as `inspect_row` finds it.

    One that is too large for float32 comes divided by RAISE, with a minus sign.
    """
    return x * norm if norm > 0 else x * -RAISE * norm
