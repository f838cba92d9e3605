"""What a metric is: one arithmetic step per vector of elements, and what the sum means.

A new metric is one struct here and one entry in `space.mojo`. Sources: the formulas in each docstring.
"""
from std.sys import CompilationTarget, llvm_intrinsic, simd_width_of

comptime W = simd_width_of[DType.float32]()
"""Lanes of a float32 vector: 16, 8 or 4 for x86-64-v4, v3, v2; 4 for Neon."""


@always_inline
def pair_dot(
    acc: SIMD[DType.int32, W], x: SIMD[DType.int16, 2 * W], y: SIMD[DType.int16, 2 * W]
) -> SIMD[DType.int32, W]:
    """Adds the products of neighbouring lanes, two at a time, to 32-bit sums (modulo 2**32).

    Performance:
        One `vpdpwssd` with AVX-512 VNNI, `pmaddwd` and an add on older x86; two `smlal`-like steps elsewhere.
    """
    comptime if CompilationTarget._has_feature["avx512vnni"]() and W == 16:
        return llvm_intrinsic[
            "llvm.x86.avx512.vpdpwssd.512", SIMD[DType.int32, W], has_side_effect=False
        ](acc, x, y)
    elif CompilationTarget.has_avx2() and W == 8:
        return acc + llvm_intrinsic[
            "llvm.x86.avx2.pmadd.wd", SIMD[DType.int32, W], has_side_effect=False
        ](x, y)
    elif CompilationTarget.is_x86() and W == 4:
        return acc + llvm_intrinsic[
            "llvm.x86.sse2.pmadd.wd", SIMD[DType.int32, W], has_side_effect=False
        ](x, y)
    else:
        var products = x.cast[DType.int32]() * y.cast[DType.int32]()
        var halves = products.deinterleave()
        return (
            acc + rebind[SIMD[DType.int32, W]](halves[0]) + rebind[SIMD[DType.int32, W]](halves[1])
        )


@always_inline
def byte_dot(
    acc: SIMD[DType.int32, W], x: SIMD[DType.uint8, 4 * W], y: SIMD[DType.int8, 4 * W]
) -> SIMD[DType.int32, W]:
    """Adds the products of unsigned and signed bytes to 32-bit sums, in some order of the lanes (modulo 2**32).

    Performance:
        One `vpdpbusd` with AVX-512 VNNI; elsewhere widening and two `pair_dot`, since a product of bytes and its
        neighbour overflow the 16 bits of `pmaddubsw`.
    """
    comptime if CompilationTarget._has_feature["avx512vnni"]() and W == 16:
        return llvm_intrinsic[
            "llvm.x86.avx512.vpdpbusd.512", SIMD[DType.int32, W], has_side_effect=False
        ](acc, rebind[SIMD[DType.uint8, 64]](x), rebind[SIMD[DType.int8, 64]](y))
    else:
        var low = pair_dot(
            acc, x.slice[2 * W]().cast[DType.int16](), y.slice[2 * W]().cast[DType.int16]()
        )
        return pair_dot(
            low,
            x.slice[2 * W, offset=2 * W]().cast[DType.int16](),
            y.slice[2 * W, offset=2 * W]().cast[DType.int16](),
        )


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
    def step_int(
        acc: SIMD[DType.int32, W], a: SIMD[DType.int16, 2 * W], b: SIMD[DType.int16, 2 * W]
    ) -> SIMD[DType.int32, W]:
        """Adds the contribution of `2 * W` elements, exactly (modulo 2**32)."""
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
    def step_int(
        acc: SIMD[DType.int32, W], a: SIMD[DType.int16, 2 * W], b: SIMD[DType.int16, 2 * W]
    ) -> SIMD[DType.int32, W]:
        """Adds `(a - b)**2`; differences of 8-bit values fit 16 bits."""
        var difference = a - b
        return pair_dot(acc, difference, difference)


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
    def step_int(
        acc: SIMD[DType.int32, W], a: SIMD[DType.int16, 2 * W], b: SIMD[DType.int16, 2 * W]
    ) -> SIMD[DType.int32, W]:
        """Adds `a * b`."""
        return pair_dot(acc, a, b)
