"""Spaces over compressed codes: what search measures instead of the stored rows.

All of them take one integer dot product of a row's code with the query's bytes and one or two constants of the row. Which types
the bytes have is up to the CPU level (`LIKE_SIGNS`), results and what a file holds are not. Codes are padded with
zeros to whole cache lines, so that the loop has no tail. In `Rows`, `stride` is the bytes of a code, `dim` the values in it and
`norms` the address of the constants; a query is a header of one cache line and then its bytes (`PreparedExact`, `PreparedEstimate`).

Sources: the dot form of exact 8-bit distances follows from (x - q)**2 = x**2 + q**2 - 2 x q with q shifted by 128 into a signed
byte; the estimator is that of RaBitQ (SIGMOD 2024, arXiv:2405.12497) and its extension to several bits (arXiv:2409.09913).
"""
from std.memory import bitcast
from std.sys import size_of

from vicinal.kernels.distance import sum_floats
from vicinal.kernels.metric import Product, SquaredDifference
from vicinal.kernels.products import LIKE_SIGNS, W, Sums, add_lanes, small_dot
from vicinal.kernels.space import (
    L2,
    SymmetricDistance,
    QueryDistance,
    MetricSpace,
    Query,
    Rows,
    float_of_key,
    key_of_float,
    occludes,
)
from vicinal.quantization.code_products import CODE_LINE, ONES, STEP, dot_bytes, dot_nibbles
from vicinal.system.memory import at

comptime QUERY_TURN: UInt8 = 0 if LIKE_SIGNS else 0x80
"""What the bytes of an exact query are xored with: a shift by 128, from unsigned to signed or back, where signs must differ."""
comptime ROW_TURN: UInt8 = 0x80 if LIKE_SIGNS else 0
"""The same for unsigned rows of 8-bit estimates, whose queries are signed."""


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


@fieldwise_init
struct PreparedFloats(TrivialRegisterPassable):
    """Header of a query of any floats for exact 8-bit codes; its elements follow a cache line later.
    """

    var dim: Int
    """Elements: codes have more, which are padding."""


struct FloatsOnCodes[metric: Int](QueryDistance):
    """Float queries against rows that are whole numbers from 0 to 255, of which their codes tell all: the sums of `space.MetricSpace`
    in the same order, so that keys are the same to the last bit.
    """

    comptime batched = False
    comptime constant_bytes = 0

    @staticmethod
    @always_inline
    def key(query: Query, rows: Rows, row: Int) -> Int32:
        """Measures a prepared query against a row."""
        var dim = at[PreparedFloats](query.address)[].dim
        var asked = at[Float32](query.address + CODE_LINE)
        var code = rows.row[DType.uint8](row)
        comptime if Self.metric == L2:
            return key_of_float(
                sum_floats[SquaredDifference, DType.float32, DType.uint8, True](asked, code, dim)
            )
        else:
            return key_of_float(
                0 - sum_floats[Product, DType.float32, DType.uint8, True](asked, code, dim)
            )

    @staticmethod
    @always_inline
    def keys(query: Query, rows: Rows, a: Int, b: Int, c: Int, d: Int) -> SIMD[DType.int32, 4]:
        """Measures a prepared query against four rows."""
        return SIMD[DType.int32, 4](
            Self.key(query, rows, a),
            Self.key(query, rows, b),
            Self.key(query, rows, c),
            Self.key(query, rows, d),
        )

    @staticmethod
    @always_inline
    def farthest(query: Query, rows: Rows, near: Int32, times: Float32) -> Int32:
        """Returns the key of so many times the distance of a key."""
        return MetricSpace[Self.metric, DType.float32].farthest(query, rows, near, times)


struct U8Codes[metric: Int, signed_rows: Bool](SymmetricDistance):
    """Exact l2 or ip between 8-bit integers, with the keys of `space.MetricSpace`: results are the same to the last id.
    """

    comptime batched = True
    comptime constant_bytes = size_of[ExactConstants]()
    comptime many_links = Self.metric != L2
    comptime exact = True
    comptime stored = DType.int8 if Self.signed_rows else DType.uint8

    comptime shifted = DType.uint8 if Self.signed_rows else DType.int8
    """Type of bytes that were turned by 0x80."""

    @staticmethod
    @always_inline
    def _key[
        n: Int = 1
    ](dot: SIMD[DType.int32, n], constant: SIMD[DType.int32, n], squared: Int32) -> SIMD[
        DType.int32, n
    ]:
        """Returns the keys of dot products, given the rows' constants and the partner's squared norm.
        """
        comptime if Self.metric == L2:
            return (constant + squared - 2 * dot) ^ Int32.MIN
        elif Self.signed_rows:
            return -(dot + constant)
        else:
            return ~(dot + constant) ^ Int32.MIN

    @staticmethod
    @always_inline
    def _constant(rows: Rows, row: Int) -> Int32:
        """Returns what completes a dot product of a row with a query."""
        var constants = at[ExactConstants](rows.norms)
        comptime if not LIKE_SIGNS:  # the query is shifted by 128
            return constants[unsafe_offset=row].shift
        elif Self.metric == L2:
            return constants[unsafe_offset=row].squared
        else:
            return 0

    @staticmethod
    @always_inline
    def key(query: Query, rows: Rows, row: Int) -> Int32:
        """Measures a prepared query against a row."""
        return Self._key(
            Self._dot(query, rows, row).reduce_add(),
            Self._constant(rows, row),
            at[PreparedExact](query.address)[].squared,
        )

    @staticmethod
    @always_inline
    def keys(query: Query, rows: Rows, a: Int, b: Int, c: Int, d: Int) -> SIMD[DType.int32, 4]:
        """Measures a prepared query against four rows."""
        var dots = add_lanes(
            Self._dot(query, rows, a),
            Self._dot(query, rows, b),
            Self._dot(query, rows, c),
            Self._dot(query, rows, d),
        )
        var constants = SIMD[DType.int32, 4](
            Self._constant(rows, a),
            Self._constant(rows, b),
            Self._constant(rows, c),
            Self._constant(rows, d),
        )
        return Self._key[4](dots, constants, at[PreparedExact](query.address)[].squared)

    @staticmethod
    @always_inline
    def _dot(query: Query, rows: Rows, row: Int) -> Sums:
        """Returns lanes that add up to the product of a prepared query and a row."""
        comptime Y = Self.stored if LIKE_SIGNS else Self.shifted
        return dot_bytes[Self.stored, Y](
            rows.row[DType.uint8](row), at[UInt8](query.address + CODE_LINE), rows.stride
        )

    @staticmethod
    @always_inline
    def farthest(query: Query, rows: Rows, near: Int32, times: Float32) -> Int32:
        """Returns the key of so many times the distance of a key."""
        return MetricSpace[Self.metric, Self.stored].farthest(query, rows, near, times)

    @staticmethod
    @always_inline
    def occludes(a: Int32, b: Int32) -> Bool:
        """Tells whether SQUARED_ALPHA / 5 times the distance of key `a` is below that of key `b`.
        """
        return MetricSpace[Self.metric, Self.stored].occludes(a, b)

    @staticmethod
    @always_inline
    def query_bytes(rows: Rows) -> Int:
        """Returns the bytes that a query made of a row takes."""
        return CODE_LINE + rows.stride

    @staticmethod
    def query_of_row(rows: Rows, row: Int, room: Int) -> Query:
        """Makes a prepared query of a row."""
        var code = rows.row[DType.uint8](row)
        var bytes = at[UInt8](room + CODE_LINE)
        for i in range(0, rows.stride, CODE_LINE):
            bytes.unsafe_store(i, code.unsafe_load[width=CODE_LINE](i) ^ QUERY_TURN)
        at[PreparedExact](room)[] = PreparedExact(
            at[ExactConstants](rows.norms)[unsafe_offset=row].squared
        )
        return Query(room, 1)

    @staticmethod
    @always_inline
    def value(key: Int32) -> Float32:
        """Returns the distance that a key stands for."""
        return MetricSpace[Self.metric, Self.stored].value(key)


@fieldwise_init
struct PreparedEstimate(TrivialRegisterPassable):
    """Header of a query of estimating codes; see `Estimate`."""

    var scale: Float32
    """What one step of the query's bytes is worth."""
    var middle: Float32
    """Sum of the query's bytes times the middle of the code values."""
    var add: Float32
    """Added to every estimate: what makes those of different queries comparable, 0 where that is not needed."""
    var sum: Int32
    """Sum of the query's bytes."""
    var squared: Float32
    """Squared distance of the query from the centre, which estimates leave out; 0 where it is not known."""


@fieldwise_init
struct EstimateConstants(TrivialRegisterPassable):
    """Constants of a row of estimating codes."""

    var add: Float32
    """What does not depend on the query."""
    var rescale: Float32
    """Factor of the inner product of code and query that makes the estimate unbiased."""


struct Estimate[bits: Int](QueryDistance):
    """Estimated distances from codes of 4 or 8 bits: `add + rescale * scale * (dot - middle)`.

    Keys order rows by estimated distance to one query; they mean nothing else, and results are measured again exactly.
    """

    comptime batched = True
    comptime constant_bytes = size_of[EstimateConstants]()

    @staticmethod
    @always_inline
    def key(query: Query, rows: Rows, row: Int) -> Int32:
        """Estimates the distance of a prepared query from a row."""
        ref constants = at[EstimateConstants](rows.norms)[unsafe_offset=row]
        return Self._key(
            query, Self._dot(query, rows, row).reduce_add(), constants.add, constants.rescale
        )

    @staticmethod
    @always_inline
    def keys(query: Query, rows: Rows, a: Int, b: Int, c: Int, d: Int) -> SIMD[DType.int32, 4]:
        """Estimates the distances of a prepared query from four rows."""
        var dots = add_lanes(
            Self._dot(query, rows, a),
            Self._dot(query, rows, b),
            Self._dot(query, rows, c),
            Self._dot(query, rows, d),
        )
        var constants = at[EstimateConstants](rows.norms).unsafe_bitcast[Float32]()
        var ab = constants.unsafe_load[width=2](2 * a).join(constants.unsafe_load[width=2](2 * b))
        var cd = constants.unsafe_load[width=2](2 * c).join(constants.unsafe_load[width=2](2 * d))
        var split = ab.join(cd).deinterleave()
        return Self._key[4](query, dots, split[0], split[1])

    @staticmethod
    @always_inline
    def farthest(query: Query, rows: Rows, near: Int32, times: Float32) -> Int32:
        """Returns the key of so many times the estimated distance of a key, and an error of the estimates more.
        """
        var squared = at[PreparedEstimate](query.address)[].squared
        var margin = squared * (Float32(1) / 32 if Self.bits == 4 else Float32(1) / 512)
        var most = (float_of_key(near) + squared) * times + margin
        return key_of_float(most - squared)

    @staticmethod
    @always_inline
    def _dot(query: Query, rows: Rows, row: Int) -> Sums:
        """Returns lanes that add up to the product of a prepared query and a row."""
        var code = rows.row[DType.uint8](row)
        var bytes = at[UInt8](query.address + CODE_LINE)
        comptime if Self.bits == 4:
            return dot_nibbles(code, bytes, rows.stride)
        else:
            comptime X = DType.int8 if LIKE_SIGNS else DType.uint8
            return dot_bytes[X, DType.int8, ROW_TURN](code, bytes, rows.stride)

    @staticmethod
    @always_inline
    def _key[
        n: Int = 1
    ](
        query: Query,
        dot: SIMD[DType.int32, n],
        add: SIMD[DType.float32, n],
        rescale: SIMD[DType.float32, n],
    ) -> SIMD[DType.int32, n]:
        """Returns the keys of dot products, given the rows' constants."""
        ref header = at[PreparedEstimate](query.address)[]
        var product = dot
        comptime if Self.bits == 8 and ROW_TURN != 0:
            product += 128 * header.sum
        return key_of_float[n](
            add
            + header.add
            + rescale * (header.scale * (product.cast[DType.float32]() - header.middle))
        )


struct BetweenCodes[bits: Int](SymmetricDistance):
    """Estimated l2 (and so cosine) between two rows of codes, both known by their codes only.

    With residuals rebuilt as g (u - m), g = |o|**2 / <u - m, o>, their inner product is estimated by the product of what is
    rebuilt, and |a - b|**2 by |a|**2 + |b|**2 less twice that. One of the two is centred first: 2 (u - m) is a whole number
    that fits a signed byte for 4 bits, and u - m rounded down is one for 8.
    """

    comptime batched = True
    comptime constant_bytes = size_of[EstimateConstants]()
    comptime many_links = False
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
    def keys(query: Query, rows: Rows, a: Int, b: Int, c: Int, d: Int) -> SIMD[DType.int32, 4]:
        """Estimates the distances of a row made a query from four others."""
        return Estimate[Self.bits].keys(query, rows, a, b, c, d)

    @staticmethod
    @always_inline
    def farthest(query: Query, rows: Rows, near: Int32, times: Float32) -> Int32:
        """Returns the key of so many times the estimated distance of a key."""
        return key_of_float(float_of_key(near) * times)

    @staticmethod
    @always_inline
    def occludes(a: Int32, b: Int32) -> Bool:
        """Tells whether SQUARED_ALPHA / 5 times the distance of key `a` is below that of key `b`.
        """
        return occludes(float_of_key(a), float_of_key(b))

    @staticmethod
    @always_inline
    def query_bytes(rows: Rows) -> Int:
        """Returns the bytes that a query made of a row takes."""
        return CODE_LINE + rows.stride * (2 if Self.bits == 4 else 1)

    @staticmethod
    def query_of_row(rows: Rows, row: Int, room: Int) -> Query:
        """Makes a prepared query of a row's code."""
        var code = rows.row[DType.uint8](row)
        var bytes = at[UInt8](room + CODE_LINE)
        var sums = Sums(0)
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
                        sums = small_dot(sums, ONES, centred)
                else:
                    var centred = Self._centred(v)
                    bytes.unsafe_store(line + part, bitcast[DType.uint8, STEP](centred))
                    sums = small_dot(sums, ONES, centred)
        ref constants = at[EstimateConstants](rows.norms)[unsafe_offset=row]
        var sum = sums.reduce_add()
        at[PreparedEstimate](room)[] = PreparedEstimate(
            constants.rescale * Self.scale, Self._middle(rows, sum), constants.add, sum, 0
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
