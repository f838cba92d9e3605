"""Between float32 and the stored float types, without a call into a compiler's run-time library on any CPU level."""
from std.memory import bitcast
from std.sys import CompilationTarget

comptime HALF_IN_SOFTWARE = CompilationTarget.is_x86() and not CompilationTarget._has_feature[
    "f16c"
]()
"""True where a cast of float16 would become a library call for each lane (x86-64-v2)."""


@always_inline
def to_float[T: DType, N: Int](v: SIMD[T, N]) -> SIMD[DType.float32, N]:
    """Widens a float type to float32, exactly (finite values only where float16 is done in software).
    """
    comptime if T == DType.float16 and HALF_IN_SOFTWARE:
        # Exponent and mantissa are moved into place as they stand; the product then corrects the exponent's bias and
        # normalises subnormals.
        var bits = bitcast[DType.uint16, N](v).cast[DType.uint32]()
        var magnitude = bitcast[DType.float32, N]((bits & 0x7FFF) << 13) * Float32(
            5.192296858534828e33
        )  # 2**112
        return bitcast[DType.float32, N](
            bitcast[DType.uint32, N](magnitude) | ((bits & 0x8000) << 16)
        )
    elif T == DType.bfloat16:  # by its bits: the optimiser may narrow arithmetic on a cast back to bfloat16
        return bitcast[DType.float32, N](bitcast[DType.uint16, N](v).cast[DType.uint32]() << 16)
    else:
        return v.cast[DType.float32]()


@always_inline
def from_float[T: DType, N: Int](v: SIMD[DType.float32, N]) -> SIMD[T, N]:
    """Rounds finite float32 values to a stored float type, to nearest, ties to even."""
    var bits = bitcast[DType.uint32, N](v)
    comptime if T == DType.float32:
        return rebind[SIMD[T, N]](v)
    elif T == DType.bfloat16:
        return bitcast[T, N](((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).cast[DType.uint16]())
    elif HALF_IN_SOFTWARE:
        var magnitude = bits & 0x7FFFFFFF
        var normal = ((magnitude + 0xFFF + ((magnitude >> 13) & 1)) >> 13) - (112 << 10)
        # The unit in the last place of 0.5 is that of a subnormal half: the addition rounds.
        var half = SIMD[DType.float32, N](0.5)
        var small = bitcast[DType.uint32, N](bitcast[DType.float32, N](magnitude) + half) - bitcast[
            DType.uint32, N
        ](half)
        var value = magnitude.ge(SIMD[DType.uint32, N](0x38800000)).select(normal, small)  # 2**-14
        return bitcast[T, N]((value | ((bits >> 16) & 0x8000)).cast[DType.uint16]())
    else:
        return v.cast[T]()


@always_inline
def is_finite[T: DType](x: Scalar[T]) -> Bool:
    """Tells whether a stored float is neither infinite nor NaN, from its exponent alone."""
    comptime if T == DType.float32:
        return bitcast[DType.uint32, 1](x) & 0x7F800000 != 0x7F800000
    elif T == DType.float16:
        return bitcast[DType.uint16, 1](x) & 0x7C00 != 0x7C00
    else:
        return bitcast[DType.uint16, 1](x) & 0x7F80 != 0x7F80
