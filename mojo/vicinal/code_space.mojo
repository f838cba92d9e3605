"""Spaces over compressed codes: what search measures instead of the stored rows.

All of them take one integer dot product of a row's code with the query's bytes and one or two constants of the row. Codes are
padded with zeros to whole cache lines, so that the loop has no tail. In `Rows`, `stride` is the bytes of a code, `dim` the values
in it and `norms` the address of the constants; a query is a header of one cache line and then its bytes (`PreparedExact`, `PreparedEstimate`).

Sources: the dot form of exact 8-bit distances follows from (x - q)**2 = x**2 + q**2 - 2 x q with q shifted by 128 into a signed
byte; the estimator is that of RaBitQ (SIGMOD 2024, arXiv:2405.12497) and its extension to several bits (arXiv:2409.09913).
"""
from std.memory import bitcast

from vicinal.memory import Ptr, at
from vicinal.metric import W, byte_dot
from vicinal.space import L2, Linker, Measure, Of, Query, Rows, key_of_float

comptime CODE_LINE = 64
"""Codes are padded to it, and a prepared query's header takes as much."""


@always_inline
def dot_bytes[signed_rows: Bool](code: Ptr[UInt8], query: Ptr[UInt8], bytes: Int) -> Int32:
    """Multiplies bytes of a row with bytes of a query; one of the two is signed.

    Parameters:
        signed_rows: True if the row's bytes are the signed ones.

    Args:
        code: The row's bytes.
        query: The query's bytes.
        bytes: Their number, a multiple of CODE_LINE.

    Returns:
        The sum of products modulo 2**32.

    Safety:
        Both must have `bytes` bytes.
    """
    comptime STEP = 4 * W
    comptime UNROLL = 2
    var acc = Array[SIMD[DType.int32, W], UNROLL](fill=SIMD[DType.int32, W](0))
    var i = 0
    while i + UNROLL * STEP <= bytes:
        comptime for u in range(UNROLL):
            acc[u] = _byte_step[signed_rows](acc[u], code, query, i + u * STEP)
        i += UNROLL * STEP
    while i < bytes:
        acc[0] = _byte_step[signed_rows](acc[0], code, query, i)
        i += STEP
    return (acc[0] + acc[1]).reduce_add()


@always_inline
def _byte_step[
    signed_rows: Bool
](acc: SIMD[DType.int32, W], code: Ptr[UInt8], query: Ptr[UInt8], i: Int) -> SIMD[DType.int32, W]:
    var x = code.unsafe_load[width=4 * W](i)
    var q = query.unsafe_load[width=4 * W](i)
    comptime if signed_rows:
        return byte_dot(acc, q, bitcast[DType.int8, 4 * W](x))
    else:
        return byte_dot(acc, x, bitcast[DType.int8, 4 * W](q))


@always_inline
def dot_nibbles(code: Ptr[UInt8], query: Ptr[UInt8], bytes: Int) -> Int32:
    """Multiplies 4-bit values of a row with signed bytes of a query.

    The low halves of 64 bytes belong to 64 dimensions, the high halves to the next 64.

    Args:
        code: The row's bytes, two values each.
        query: The query's bytes, twice as many.
        bytes: Bytes of the code, a multiple of CODE_LINE.

    Returns:
        The sum of products.

    Safety:
        `code` must have `bytes` bytes and `query` twice as many.
    """
    comptime STEP = 4 * W
    var low = SIMD[DType.int32, W](0)
    var high = SIMD[DType.int32, W](0)
    for line in range(0, bytes, CODE_LINE):
        comptime for part in range(CODE_LINE // STEP):
            var v = code.unsafe_load[width=STEP](line + part * STEP)
            var q = query.unsafe_offset(2 * line + part * STEP)
            low = byte_dot(low, v & 15, bitcast[DType.int8, STEP](q.unsafe_load[width=STEP](0)))
            high = byte_dot(
                high, v >> 4, bitcast[DType.int8, STEP](q.unsafe_load[width=STEP](CODE_LINE))
            )
    return (low + high).reduce_add()


@fieldwise_init
struct PreparedExact(TrivialRegisterPassable):
    """Header of a query of exact 8-bit codes."""

    var squared: Int32
    """Squared norm of the query, modulo 2**32."""


@fieldwise_init
struct ExactConstants(TrivialRegisterPassable):
    """Constants of a row of exact 8-bit codes; sums are taken modulo 2**32."""

    var shift: Int32
    """Makes up for the partner's shift by 128: l2 |x|**2 -+ 256 sum(x), ip +-128 sum(x), upper sign for unsigned rows."""
    var squared: Int32
    """Squared norm."""


struct ExactBytes[metric: Int, signed_rows: Bool](Linker):
    """Exact l2 or ip between 8-bit integers, with the keys of `space.Of`: results are the same to the last id.
    """

    comptime T = DType.uint8
    comptime exact = True
    comptime stored = DType.int8 if Self.signed_rows else DType.uint8

    @staticmethod
    @always_inline
    def _key(dot: Int32, shift: Int32, squared: Int32) -> Int32:
        comptime if Self.metric == L2:
            return (shift + squared - 2 * dot) ^ Int32.MIN
        elif Self.signed_rows:
            return -(dot + shift)
        else:
            return ~(dot + shift) ^ Int32.MIN

    @staticmethod
    @always_inline
    def key(query: Query, rows: Rows, row: Int) -> Int32:
        """Measures a prepared query against a row."""
        var dot = dot_bytes[Self.signed_rows](
            rows.row[DType.uint8](row), at[UInt8](query.address + CODE_LINE), rows.stride
        )
        var constants = at[ExactConstants](rows.norms)
        return Self._key(
            dot, constants[unsafe_offset=row].shift, at[PreparedExact](query.address)[].squared
        )

    @staticmethod
    @always_inline
    def key_between(rows: Rows, a: Int, b: Int) -> Int32:
        """Measures two rows against each other."""
        comptime STEP = 4 * W
        var x = rows.row[DType.uint8](a)
        var y = rows.row[DType.uint8](b)
        var acc = SIMD[DType.int32, W](0)
        for i in range(0, rows.stride, STEP):
            var u = x.unsafe_load[width=STEP](i)
            var v = (
                y.unsafe_load[width=STEP](i) ^ 0x80
            )  # from signed to unsigned or back: a shift by 128
            comptime if Self.signed_rows:
                acc = byte_dot(acc, v, bitcast[DType.int8, STEP](u))
            else:
                acc = byte_dot(acc, u, bitcast[DType.int8, STEP](v))
        var constants = at[ExactConstants](rows.norms)
        return Self._key(
            acc.reduce_add(), constants[unsafe_offset=a].shift, constants[unsafe_offset=b].squared
        )

    @staticmethod
    def query_of_row(rows: Rows, row: Int, room: Int) -> Query:
        """Makes a prepared query of a row."""
        var code = rows.row[DType.uint8](row)
        var bytes = at[UInt8](room + CODE_LINE)
        for i in range(0, rows.stride, CODE_LINE):
            bytes.unsafe_store(i, code.unsafe_load[width=CODE_LINE](i) ^ 0x80)
        at[PreparedExact](room)[] = PreparedExact(
            at[ExactConstants](rows.norms)[unsafe_offset=row].squared
        )
        return Query(room, 1)

    @staticmethod
    @always_inline
    def value(key: Int32) -> Float32:
        """Returns the distance that a key stands for."""
        return Of[Self.metric, Self.stored].value(key)


@fieldwise_init
struct PreparedEstimate(TrivialRegisterPassable):
    """Header of a query of estimating codes; see `Estimate`."""

    var scale: Float32
    """What one step of the query's bytes is worth."""
    var middle: Float32
    """Sum of the query's bytes times the middle of the code values."""
    var add: Float32
    """Added to every estimate: what makes those of different queries comparable, 0 where that is not needed."""


@fieldwise_init
struct EstimateConstants(TrivialRegisterPassable):
    """Constants of a row of estimating codes."""

    var add: Float32
    """What does not depend on the query."""
    var rescale: Float32
    """Factor of the inner product of code and query that makes the estimate unbiased."""


struct Estimate[bits: Int](Measure):
    """Estimated distances from codes of 4 or 8 bits: `add + rescale * scale * (dot - middle)`.

    Keys order rows by estimated distance to one query; they mean nothing else, and results are measured again exactly.
    """

    comptime T = DType.uint8

    @staticmethod
    @always_inline
    def key(query: Query, rows: Rows, row: Int) -> Int32:
        """Estimates the distance of a prepared query from a row."""
        var code = rows.row[DType.uint8](row)
        var bytes = at[UInt8](query.address + CODE_LINE)
        var dot: Int32
        comptime if Self.bits == 4:
            dot = dot_nibbles(code, bytes, rows.stride)
        else:
            dot = dot_bytes[False](code, bytes, rows.stride)
        ref header = at[PreparedEstimate](query.address)[]
        ref constants = at[EstimateConstants](rows.norms)[unsafe_offset=row]
        return key_of_float(
            constants.add
            + header.add
            + constants.rescale * (header.scale * (Float32(dot) - header.middle))
        )


struct BetweenCodes[bits: Int](Linker):
    """Estimated l2 (and so cosine) between two rows of codes, both known by their codes only.

    With residuals rebuilt as g (u - m), g = |o|**2 / <u - m, o>, their inner product is estimated by the product of what is
    rebuilt, and |a - b|**2 by |a|**2 + |b|**2 less twice that. One of the two is centred first: 2 (u - m) is a whole number
    that fits a signed byte for 4 bits, and u - m rounded down is one for 8.
    """

    comptime T = DType.uint8
    comptime exact = False
    comptime middle = Float32(7.5) if Self.bits == 4 else Float32(127.5)
    comptime scale = Float32(-0.25) if Self.bits == 4 else Float32(-0.5)
    """Makes g out of the constant -2 g, and half of it where values were doubled."""

    @staticmethod
    @always_inline
    def key(query: Query, rows: Rows, row: Int) -> Int32:
        """Estimates the distance of a row made a query from another."""
        return Estimate[Self.bits].key(query, rows, row)

    @staticmethod
    @always_inline
    def key_between(rows: Rows, a: Int, b: Int) -> Int32:
        """Estimates the distance between two rows."""
        comptime STEP = 4 * W
        comptime ONES = SIMD[DType.uint8, STEP](1)
        var x = rows.row[DType.uint8](a)
        var y = rows.row[DType.uint8](b)
        var dot = SIMD[DType.int32, W](0)
        var sum = SIMD[DType.int32, W](0)
        for i in range(0, rows.stride, STEP):
            var u = x.unsafe_load[width=STEP](i)
            var v = y.unsafe_load[width=STEP](i)
            comptime if Self.bits == 4:
                var low = Self._centred(v & 15)
                var high = Self._centred(v >> 4)
                dot = byte_dot(byte_dot(dot, u & 15, low), u >> 4, high)
                sum = byte_dot(byte_dot(sum, ONES, low), ONES, high)
            else:
                var centred = Self._centred(v)
                dot = byte_dot(dot, u, centred)
                sum = byte_dot(sum, ONES, centred)
        ref first = at[EstimateConstants](rows.norms)[unsafe_offset=a]
        ref second = at[EstimateConstants](rows.norms)[unsafe_offset=b]
        var product = Float32(dot.reduce_add()) - Self._middle(rows, sum.reduce_add())
        return key_of_float(
            first.add + second.add + first.rescale * (second.rescale * Self.scale * product)
        )

    @staticmethod
    def query_of_row(rows: Rows, row: Int, room: Int) -> Query:
        """Makes a prepared query of a row's code."""
        comptime STEP = 4 * W
        comptime ONES = SIMD[DType.uint8, STEP](1)
        var code = rows.row[DType.uint8](row)
        var bytes = at[UInt8](room + CODE_LINE)
        var sum = SIMD[DType.int32, W](0)
        for line in range(0, rows.stride, CODE_LINE):
            comptime for part in range(0, CODE_LINE, STEP):
                var v = code.unsafe_load[width=STEP](line + part)
                comptime if Self.bits == 4:
                    comptime for half in range(2):
                        var centred = Self._centred(v & 15 if half == 0 else v >> 4)
                        bytes.unsafe_store(
                            2 * line + half * CODE_LINE + part,
                            bitcast[DType.uint8, STEP](centred),
                        )
                        sum = byte_dot(sum, ONES, centred)
                else:
                    var centred = Self._centred(v)
                    bytes.unsafe_store(line + part, bitcast[DType.uint8, STEP](centred))
                    sum = byte_dot(sum, ONES, centred)
        ref constants = at[EstimateConstants](rows.norms)[unsafe_offset=row]
        at[PreparedEstimate](room)[] = PreparedEstimate(
            constants.rescale * Self.scale, Self._middle(rows, sum.reduce_add()), constants.add
        )
        return Query(room, 1)

    @staticmethod
    @always_inline
    def _centred(u: SIMD[DType.uint8, 4 * W]) -> SIMD[DType.int8, 4 * W]:
        """Moves code values so that they lie around 0."""
        comptime if Self.bits == 4:
            return bitcast[DType.int8, 4 * W](u * 2 - 15)
        else:
            return bitcast[DType.int8, 4 * W](u - 128)

    @staticmethod
    @always_inline
    def _middle(rows: Rows, sum: Int32) -> Float32:
        """Returns the sum of centred values times the middle of the others; zeros behind a code must not count.
        """
        comptime if Self.bits == 4:
            return Self.middle * Float32(sum + Int32(15 * (2 * rows.stride - rows.dim)))
        else:
            return Self.middle * Float32(sum + Int32(128 * (rows.stride - rows.dim)))
