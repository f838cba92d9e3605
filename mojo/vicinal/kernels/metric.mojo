"""What a metric is: one arithmetic step per vector of elements, and what the sum means.

A new metric is one struct here and one entry in `kernels/space.mojo`. Sources: the formulas in each docstring.
"""
from vicinal.kernels.products import LIKE_SIGNS, W, Sums, byte_dot, gap, pair_dot

comptime BYTES = 4 * W if LIKE_SIGNS else 2 * W
"""Elements of a step over 8-bit integers: what is multiplied as bytes, or what is widened to a vector."""


trait Metric:
    """One step of a sum over elements, in float32 or in exact integers."""

    comptime is_difference: Bool
    """True for sums of squared differences, False for sums of products."""

    @staticmethod
    def step_float(
        acc: SIMD[DType.float32, W], a: SIMD[DType.float32, W], b: SIMD[DType.float32, W]
    ) -> SIMD[DType.float32, W]:
        """Adds the contribution of `W` elements."""
        ...

    @staticmethod
    def step_int[T: DType](acc: Sums, a: SIMD[T, BYTES], b: SIMD[T, BYTES]) -> Sums:
        """Adds the contribution of `BYTES` elements of an 8-bit type, exactly (modulo 2**32)."""
        ...


struct SquaredDifference(Metric):
    """Sum of `(a - b)**2`: the squared Euclidean distance."""

    comptime is_difference = True

    @staticmethod
    @always_inline
    def step_float(
        acc: SIMD[DType.float32, W], a: SIMD[DType.float32, W], b: SIMD[DType.float32, W]
    ) -> SIMD[DType.float32, W]:
        """Adds `(a - b)**2`."""
        var difference = a - b
        return acc + difference * difference

    @staticmethod
    @always_inline
    def step_int[T: DType](acc: Sums, a: SIMD[T, BYTES], b: SIMD[T, BYTES]) -> Sums:
        """Adds `(a - b)**2`; differences of 8-bit values fit 16 bits, absolute ones 8."""
        comptime if LIKE_SIGNS:
            var apart = gap(rebind[SIMD[T, 4 * W]](a), rebind[SIMD[T, 4 * W]](b))
            return byte_dot(acc, apart, apart)
        else:
            var difference = a.cast[DType.int16]() - b.cast[DType.int16]()
            var pairs = rebind[SIMD[DType.int16, 2 * W]](difference)
            return pair_dot(acc, pairs, pairs)


struct Product(Metric):
    """Sum of `a * b`: the inner product."""

    comptime is_difference = False

    @staticmethod
    @always_inline
    def step_float(
        acc: SIMD[DType.float32, W], a: SIMD[DType.float32, W], b: SIMD[DType.float32, W]
    ) -> SIMD[DType.float32, W]:
        """Adds `a * b`."""
        return acc + a * b

    @staticmethod
    @always_inline
    def step_int[T: DType](acc: Sums, a: SIMD[T, BYTES], b: SIMD[T, BYTES]) -> Sums:
        """Adds `a * b`."""
        comptime if LIKE_SIGNS:
            return byte_dot(acc, rebind[SIMD[T, 4 * W]](a), rebind[SIMD[T, 4 * W]](b))
        else:
            return pair_dot(
                acc,
                rebind[SIMD[DType.int16, 2 * W]](a.cast[DType.int16]()),
                rebind[SIMD[DType.int16, 2 * W]](b.cast[DType.int16]()),
            )
