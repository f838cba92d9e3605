"""Integer dot products of codes with bytes of a query: the loops of spaces over codes."""
from std.memory import bitcast

from vicinal.kernels.products import (
    MOST_SMALL,
    QUADS,
    W,
    ByteVector,
    Pairs,
    Sums,
    add_pairs,
    byte_dot,
    small_dot,
    small_products,
)
from vicinal.system.memory import Ptr

comptime CODE_LINE = 64
"""Codes are padded to it, and a prepared query's header takes as much."""
comptime STEP = 4 * W
"""Bytes of a vector."""
comptime ONES = ByteVector[DType.uint8](1)
comptime ACCUMULATORS = max(CODE_LINE // STEP, 2)


@always_inline
def dot_bytes[
    X: DType, Y: DType, turn: UInt8 = 0
](code: Ptr[UInt8], other: Ptr[UInt8], bytes: Int) -> Sums:
    """Multiplies bytes of a row with bytes of a query or of another row.

    Parameters:
        X: What the row's bytes are once turned: int8 or uint8.
        Y: What the other bytes are.
        turn: What the row's bytes are xored with first.

    Args:
        code: The row's bytes.
        other: The others.
        bytes: Their number, a multiple of CODE_LINE.

    Returns:
        Lanes that add up to the sum of products modulo 2**32.

    Safety:
        Both must have `bytes` bytes.
    """
    var acc = Array[Sums, ACCUMULATORS](fill=Sums(0))
    var i = 0
    while i + ACCUMULATORS * STEP <= bytes:
        comptime for u in range(ACCUMULATORS):
            acc[u] = _byte_step[X, Y, turn](acc[u], code, other, i + u * STEP)
        i += ACCUMULATORS * STEP
    comptime if ACCUMULATORS * STEP > CODE_LINE:
        while i < bytes:
            acc[0] = _byte_step[X, Y, turn](acc[0], code, other, i)
            i += STEP
    var sum = acc[0]
    comptime for u in range(1, ACCUMULATORS):
        sum += acc[u]
    return sum


@always_inline
def _byte_step[
    X: DType, Y: DType, turn: UInt8
](acc: Sums, code: Ptr[UInt8], other: Ptr[UInt8], i: Int) -> Sums:
    var x = code.unsafe_load[width=STEP](i)
    comptime if turn != 0:
        x ^= turn
    var y = other.unsafe_load[width=STEP](i)
    return byte_dot(acc, bitcast[X, STEP](x), bitcast[Y, STEP](y))


@always_inline
def dot_nibbles(code: Ptr[UInt8], query: Ptr[UInt8], bytes: Int) -> Sums:
    """Multiplies 4-bit values of a row with signed bytes of a query.

    The low halves of 64 bytes belong to 64 dimensions, the high halves to the next 64.

    Args:
        code: The row's bytes, two values each.
        query: The query's bytes, twice as many.
        bytes: Bytes of the code, a multiple of CODE_LINE.

    Returns:
        Lanes that add up to the sum of products.

    Safety:
        `code` must have `bytes` bytes and `query` twice as many.
    """
    comptime PARTS = CODE_LINE // STEP
    var low = Sums(0)
    var high = Sums(0)
    for line in range(0, bytes, CODE_LINE):
        var pairs = Pairs(0)
        comptime for part in range(PARTS):
            var v = code.unsafe_load[width=STEP](line + part * STEP)
            var q = query.unsafe_offset(2 * line + part * STEP)
            var q_low = bitcast[DType.int8, STEP](q.unsafe_load[width=STEP](0))
            var q_high = bitcast[DType.int8, STEP](q.unsafe_load[width=STEP](CODE_LINE))
            comptime if QUADS:
                low = small_dot(low, v & 15, q_low)
                high = small_dot(high, v >> 4, q_high)
            else:
                comptime assert 2 * PARTS <= MOST_SMALL
                pairs += small_products(v & 15, q_low) + small_products(v >> 4, q_high)
        comptime if not QUADS:
            low = add_pairs(low, pairs)
    return low + high
