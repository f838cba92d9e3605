"""The one loop over elements: owns unrolling, widening and the tail; names no metric.

Float types are widened to float32, 8-bit integers to int16 and summed exactly in 32 bits. The largest dimension is 65,536:
65,536 * 255**2 is below 2**32, so a sum taken modulo 2**32 is still the exact one.
"""
from std.math import iota
from std.memory import bitcast
from std.sys import masked_load

from vicinal.convert import to_float
from vicinal.memory import Ptr
from vicinal.metric import Metric, W

comptime MAX_DIM = 65536
comptime UNROLL = 4
"""Independent accumulators: hides the latency of the multiply-add."""


@always_inline
def head[N: Int](count: Int) -> SIMD[DType.bool, N]:
    """Returns a mask of the first `count` lanes, 0 <= count <= N."""
    return iota[DType.int32, N]().lt(SIMD[DType.int32, N](Int32(count)))


@always_inline
def load_head[T: DType, N: Int](p: Ptr[Scalar[T]], count: Int) -> SIMD[T, N]:
    """Loads the first `count` < N items, zero in the other lanes, touching no memory past them."""
    comptime if T == DType.float16 or T == DType.bfloat16:  # a masked load of these may be split into library calls
        return bitcast[T, N](
            masked_load[N](p.unsafe_bitcast[UInt16](), head[N](count), SIMD[DType.uint16, N](0))
        )
    else:
        return masked_load[N](p, head[N](count), SIMD[T, N](0))


@always_inline
def sum_floats[
    Rule: Metric, A: DType, B: DType
](a: Ptr[Scalar[A]], b: Ptr[Scalar[B]], dim: Int) -> Float32:
    """Sums the metric's steps over two rows of float types.

    Safety:
        Both rows must have `dim` elements.
    """
    comptime V = SIMD[DType.float32, W]
    var acc = Array[V, UNROLL](fill=V(0))
    var i = 0
    while i + UNROLL * W <= dim:
        comptime for u in range(UNROLL):
            acc[u] = Rule.step_float(
                acc[u],
                to_float(a.unsafe_load[width=W](i + u * W)),
                to_float(b.unsafe_load[width=W](i + u * W)),
            )
        i += UNROLL * W
    while i + W <= dim:
        acc[0] = Rule.step_float(
            acc[0], to_float(a.unsafe_load[width=W](i)), to_float(b.unsafe_load[width=W](i))
        )
        i += W
    if i < dim:
        acc[1] = Rule.step_float(
            acc[1],
            to_float(load_head[A, W](a.unsafe_offset(i), dim - i)),
            to_float(load_head[B, W](b.unsafe_offset(i), dim - i)),
        )
    return ((acc[0] + acc[1]) + (acc[2] + acc[3])).reduce_add()


@always_inline
def sum_ints[Rule: Metric, T: DType](a: Ptr[Scalar[T]], b: Ptr[Scalar[T]], dim: Int) -> UInt32:
    """Sums the metric's steps over two rows of 8-bit integers, exactly modulo 2**32.

    Safety:
        Both rows must have `dim` elements.
    """
    comptime V = SIMD[DType.int32, W]
    comptime N = 2 * W
    var acc = Array[V, UNROLL](fill=V(0))
    var i = 0
    while i + UNROLL * N <= dim:
        comptime for u in range(UNROLL):
            acc[u] = Rule.step_int(
                acc[u],
                a.unsafe_load[width=N](i + u * N).cast[DType.int16](),
                b.unsafe_load[width=N](i + u * N).cast[DType.int16](),
            )
        i += UNROLL * N
    while i + N <= dim:
        acc[0] = Rule.step_int(
            acc[0],
            a.unsafe_load[width=N](i).cast[DType.int16](),
            b.unsafe_load[width=N](i).cast[DType.int16](),
        )
        i += N
    if i < dim:
        acc[1] = Rule.step_int(
            acc[1],
            load_head[T, N](a.unsafe_offset(i), dim - i).cast[DType.int16](),
            load_head[T, N](b.unsafe_offset(i), dim - i).cast[DType.int16](),
        )
    return bitcast[DType.uint32, 1](((acc[0] + acc[1]) + (acc[2] + acc[3])).reduce_add())
