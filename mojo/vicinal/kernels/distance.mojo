"""The one loop over elements: owns unrolling, widening and the tail; names no metric.

Float types are widened to float32, 8-bit integers are summed exactly in 32 bits. The largest dimension is 65,536:
65,536 * 255**2 is below 2**32, so a sum taken modulo 2**32 is still the exact one.
"""
from std.bit import pop_count
from std.math import iota
from std.memory import bitcast
from std.sys import CompilationTarget, masked_load

from vicinal.kernels.convert import to_float
from vicinal.kernels.metric import BYTES, Metric
from vicinal.kernels.products import W
from vicinal.system.memory import Ptr

comptime MAX_DIM = 65536
comptime UNROLL = 4
"""Independent accumulators: hides the latency of the multiply-add."""
comptime MASKED_BYTES = CompilationTarget._has_feature["avx512bw"]()


@always_inline
def head[N: Int](count: Int) -> SIMD[DType.bool, N]:
    """Returns a mask of the first `count` lanes, 0 <= count <= N."""
    return iota[DType.int32, N]().lt(SIMD[DType.int32, N](Int32(count)))


@always_inline
def load_head[T: DType, N: Int](p: Ptr[Scalar[T]], count: Int) -> SIMD[T, N]:
    """Loads the first `count` < N items, zero in the other lanes, touching no memory past them."""
    comptime if T == DType.float16 or T == DType.bfloat16:  # a masked load of these may be split into library calls
        return bitcast[T, N](
            masked_load[N](
                p.unsafe_bitcast[UInt16]().start, head[N](count), SIMD[DType.uint16, N](0)
            )
        )
    else:
        return masked_load[N](p.start, head[N](count), SIMD[T, N](0))


@always_inline
def load_rest[T: DType, N: Int](p: Ptr[Scalar[T]], start: Int, dim: Int) -> SIMD[T, N]:
    """Loads what a row of bytes has from `start` on, fewer than N items, in some lanes, zero in the others.

    Without masks for bytes a masked load is a branch for each lane: a row of N items or more has its last N loaded instead
    and those before `start` cleared.
    """
    comptime if not MASKED_BYTES:
        if dim >= N:
            var seen = iota[DType.int8, N]().lt(SIMD[DType.int8, N](Int8(start - (dim - N))))
            return seen.select(SIMD[T, N](0), p.unsafe_load[width=N](dim - N))
    return load_head[T, N](p.unsafe_offset(start), dim - start)


@always_inline
def different_bits(a: Ptr[UInt8], b: Ptr[UInt8], bytes: Int) -> UInt32:
    """Counts the bits that differ between two rows of packed bits.

    By words of the processor: it counts the bits of one in a cycle, and nothing has to be added up across lanes.

    Safety:
        Both rows must have `bytes` bytes.
    """
    var first = UInt64(0)
    var second = UInt64(0)
    var i = 0
    while i + 16 <= bytes:
        var words = bitcast[DType.uint64, 2](
            a.unsafe_load[width=16](i) ^ b.unsafe_load[width=16](i)
        )
        first += pop_count(words[0])
        second += pop_count(words[1])
        i += 16
    while i + 8 <= bytes:
        first += pop_count(
            bitcast[DType.uint64, 1](a.unsafe_load[width=8](i) ^ b.unsafe_load[width=8](i))
        )
        i += 8
    while i < bytes:
        first += pop_count(UInt64(a[unsafe_offset=i] ^ b[unsafe_offset=i]))
        i += 1
    return UInt32(first + second)


@always_inline
def jaccard_distance(a: Ptr[UInt8], b: Ptr[UInt8], bytes: Int) -> Float32:
    """Returns, of the bits set in either of two rows of packed bits, the share set in one only; 0 if none is set.

    Both counts are exact in float32, so that equal shares give equal distances.

    Safety:
        Both rows must have `bytes` bytes.
    """
    var different = UInt64(0)
    var either = UInt64(0)
    var i = 0
    while i + 16 <= bytes:
        var x = bitcast[DType.uint64, 2](a.unsafe_load[width=16](i))
        var y = bitcast[DType.uint64, 2](b.unsafe_load[width=16](i))
        different += pop_count(x[0] ^ y[0]) + pop_count(x[1] ^ y[1])
        either += pop_count(x[0] | y[0]) + pop_count(x[1] | y[1])
        i += 16
    while i + 8 <= bytes:
        var x = bitcast[DType.uint64, 1](a.unsafe_load[width=8](i))
        var y = bitcast[DType.uint64, 1](b.unsafe_load[width=8](i))
        different += pop_count(x ^ y)
        either += pop_count(x | y)
        i += 8
    while i < bytes:
        var x = UInt64(a[unsafe_offset=i])
        var y = UInt64(b[unsafe_offset=i])
        different += pop_count(x ^ y)
        either += pop_count(x | y)
        i += 1
    return Float32(different) / Float32(max(either, 1))


@always_inline
def sum_floats[
    Rule: Metric, A: DType, B: DType, padded: Bool = False
](a: Ptr[Scalar[A]], b: Ptr[Scalar[B]], dim: Int) -> Float32:
    """Sums the metric's steps over two rows of float types, or of bytes that stand for such.

    Parameters:
        Rule: The metric's step.
        A: Type of the first row.
        B: Type of the second.
        padded: Whether zeros lie behind the second row, up to a whole vector.

    Args:
        a: The first row.
        b: The second.
        dim: Their elements.

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
        var rest: SIMD[B, W]
        comptime if padded:
            rest = b.unsafe_load[width=W](i)
        else:
            rest = load_head[B, W](b.unsafe_offset(i), dim - i)
        acc[1] = Rule.step_float(
            acc[1], to_float(load_head[A, W](a.unsafe_offset(i), dim - i)), to_float(rest)
        )
    return ((acc[0] + acc[1]) + (acc[2] + acc[3])).reduce_add()


@always_inline
def sum_ints[Rule: Metric, T: DType](a: Ptr[Scalar[T]], b: Ptr[Scalar[T]], dim: Int) -> UInt32:
    """Sums the metric's steps over two rows of 8-bit integers, exactly modulo 2**32.

    Safety:
        Both rows must have `dim` elements.
    """
    comptime V = SIMD[DType.int32, W]
    comptime N = BYTES
    var acc = Array[V, UNROLL](fill=V(0))
    var i = 0
    while i + UNROLL * N <= dim:
        comptime for u in range(UNROLL):
            acc[u] = Rule.step_int(
                acc[u], a.unsafe_load[width=N](i + u * N), b.unsafe_load[width=N](i + u * N)
            )
        i += UNROLL * N
    while i + N <= dim:
        acc[0] = Rule.step_int(acc[0], a.unsafe_load[width=N](i), b.unsafe_load[width=N](i))
        i += N
    if i < dim:
        acc[1] = Rule.step_int(acc[1], load_rest[T, N](a, i, dim), load_rest[T, N](b, i, dim))
    return bitcast[DType.uint32, 1](((acc[0] + acc[1]) + (acc[2] + acc[3])).reduce_add())
