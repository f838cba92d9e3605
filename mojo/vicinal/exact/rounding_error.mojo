"""From inner products to a safe test: which rows of a tile could be among the k nearest.

A tile gives the inner product of a row and a query, rounded in another order than the kernels of `kernels/space.mojo` round. A row
is passed over only if its distance *by those kernels* is certainly above the k-th best so far; all others are measured by
them. So the outcome is the same as that of measuring every row, and the rounding below decides only how many are measured.

Notation: u = 2**-24 is the unit roundoff of float32, g(n) = n u / (1 - n u) bounds the relative error of n roundings in a
row (Higham, "Accuracy and Stability of Numerical Algorithms", chapter 3), |.| is the Euclidean norm. A sum of products in
which each term passes n roundings is off by at most g(n) |x| |q|, by the Cauchy-Schwarz inequality.

- The tile: at most `BLOCK_WORDS` additions in a chain, one for each block, one product (where there is no fused
  multiply-add) and one rounding of each factor (centring or scaling): n = block + blocks + 3.
- The kernels: chains of dim / (4 W) additions, at most 3 more for what is left, 2 + log2(W) to join the lanes, one
  product, one difference for l2: m = dim / (4 W) + 12.
- e = n + m + 12 roundings, enlarged by 2 %, cover both, the norms and the few operations here.

Squared l2. Rows and queries are moved by one centre c, which leaves distances alone but makes norms, and with them errors,
small where data lies far from the origin. With x = row - c, q = query - c, and N(v) the norm squared as the kernel finds it,

    |x - q|**2 >= N(x) (1 - e) + N(q) (1 - e) - 2 dot        since 2 |x| |q| <= |x|**2 + |q|**2

so a row is passed over if a - 2 dot > t with a = N(x) (1 - e) and t = kth (1 + e) - N(q) (1 - e), kth being the k-th best.

Inner product. The query is scaled by s = 1 / |q|. The kernel's -dot is at least (-dot - e |x|) / s, so with a = -e |x| and
t = kth s a row is passed over if a - dot > t. Cosine over float types is the same with rows scaled to length 1, too.

Where products underflow, also with subnormals switched off by the process, each is off by at most 2**-126: `TINY` for each
dimension, on the safe side.

Integers. Sums are exact, so for l2 and the inner product a - f dot + b *is* the kernel's key, modulo 2**32, and rows that
tie with the k-th best, being later ones, are passed over as well. For cosine the kernel's two products with reciprocal norms
are off by 4 u.
"""
from std.math import sqrt
from std.memory import bitcast

from vicinal.exact.tile import BLOCK_WORDS, Sum, block_words, query_bias, row_bias
from vicinal.kernels.candidates import EMPTY_ENTRY, key_of
from vicinal.kernels.distance import sum_floats, sum_ints
from vicinal.kernels.metric import Product, SquaredDifference
from vicinal.kernels.products import W
from vicinal.kernels.space import COSINE, L2, Query, Space, float_of_key
from vicinal.system.memory import Ptr, at

comptime UNIT = 1.0 / 16777216.0
"""The unit roundoff of float32, u."""
comptime TINY = 5.0e-38
"""What underflow may lose in each dimension: 4 * 2**-126."""
comptime SLACK = 1.0 / 4194304.0
"""More than one rounding to float32, relative."""
comptime Level[S: Space] = DType.int32 if exact_keys[S]() else DType.float32
"""Type of the two sides of the test."""


@always_inline
def exact_keys[S: Space]() -> Bool:
    """Tells whether the test compares integer keys, not floats."""
    return not S.T.is_floating_point() and S.metric != COSINE


def relative_error(dim: Int) -> Float64:
    """Returns e of the module's text."""
    var block = min(block_words(dim), BLOCK_WORDS)
    var roundings = block + (dim + block - 1) // block + 3 + dim // (4 * W) + 12 + 12
    return 1.02 * UNIT * Float64(roundings)


@fieldwise_init
struct QueryBound(TrivialRegisterPassable):
    """A query's side of the test."""

    var slope: Float64
    """Of t = slope * kth + offset, for floats."""
    var offset: Float64
    var bias: Int32
    """The b of the test for integers."""
    var scale: Float32
    """What the query is multiplied by when it is packed."""

    @staticmethod
    def of[S: Space](query: Query, dim: Int, centre: Ptr[Float32]) -> QueryBound:
        """Finds the side of one query.

        Safety:
            The query and, for l2 over float types, the centre must have `dim` elements.
        """
        var elements = at[Scalar[S.Q]](query.address)
        var tiny = TINY * Float64(dim)
        var error = relative_error(dim)
        comptime if S.T.is_floating_point():
            var floats = elements.unsafe_bitcast[Float32]()
            comptime if S.metric == L2:
                var norm = sum_floats[SquaredDifference, DType.float32, DType.float32](
                    floats, centre, dim
                )
                return QueryBound(1 + error, tiny - Float64(norm) * (1 - error), 0, 1)
            elif S.metric == COSINE:  # has unit length already
                return QueryBound(1, tiny, 0, 1)
            else:
                var norm = sum_floats[Product, DType.float32, DType.float32](floats, floats, dim)
                # tinier queries have lost their norm to underflow: all their rows are measured
                if norm < 1e-30:
                    return QueryBound(0, 1e30, 0, 1)
                var scale = 1 / sqrt(norm)
                return QueryBound(Float64(scale), tiny * (1 + Float64(scale)), 0, scale)
        else:
            var bytes = elements.unsafe_bitcast[Scalar[S.T]]()
            var bias = query_bias[S.T](bytes, dim)
            comptime if S.metric == COSINE:
                var length = 1 / Float64(query.norm)
                return QueryBound(length, 16 * UNIT * length, bias, 1)
            elif S.metric == L2:  # keys of l2 start at the smallest integer
                var norm = bitcast[DType.int32, 1](
                    sum_ints[Product, S.T](bytes, bytes, dim) ^ 0x80000000
                )
                return QueryBound(0, 0, norm - 2 * bias, 1)
            else:  # the key of uint8 is 2**31 - 1 - dot
                return QueryBound(0, 0, Int32(0x7FFFFFFF if S.T == DType.uint8 else 0) - bias, 1)

    @always_inline
    def level[S: Space](self, bound: Int64) -> Scalar[Level[S]]:
        """Returns t for the k-th best entry so far, which is EMPTY_ENTRY if there are fewer."""
        comptime if exact_keys[S]():
            var key = key_of(bound)
            if bound != EMPTY_ENTRY and key != Int32.MIN:
                key -= 1  # a later row of the same distance loses
            return rebind[Scalar[Level[S]]](key)
        else:
            if bound == EMPTY_ENTRY:
                return Scalar[Level[S]].MAX
            var t = Float64(float_of_key(key_of(bound))) * self.slope + self.offset
            return rebind[Scalar[Level[S]]](Float32(t + abs(t) * SLACK))


@always_inline
def row_bound[
    S: Space, *, unit: Bool
](row: Ptr[Scalar[S.T]], dim: Int, norm: Float32, centre: Ptr[Float32], error: Float32) -> Scalar[
    Sum[S.T]
]:
    """Returns a row's side of the test, a.

    Parameters:
        S: The space.
        unit: Whether rows are scaled to unit length when they are packed.

    Args:
        row: The row.
        dim: Its dimension.
        norm: Its reciprocal norm, used if `unit`.
        centre: What packing subtracts, for l2 over float types.
        error: The bound e of the module's notation.

    Safety:
        The row and, where it is used, the centre must have `dim` elements.
    """
    comptime T = S.T
    comptime if T.is_floating_point():
        comptime if S.metric == L2:
            var squared = sum_floats[SquaredDifference, T, DType.float32](row, centre, dim)
            return rebind[Scalar[Sum[T]]](squared * (1 - error))
        elif unit:
            if norm < 0:  # not packed as it should be, see `to_unit`: always measured
                return rebind[Scalar[Sum[T]]](Float32(-1e30))
            return rebind[Scalar[Sum[T]]](-error - Float32(TINY) * Float32(dim) * norm)
        else:
            # the norm squared may have lost TINY in each dimension
            var squared = sum_floats[Product, T, T](row, row, dim) + Float32(TINY) * Float32(dim)
            return rebind[Scalar[Sum[T]]](-error * sqrt(squared))
    else:
        var bias = row_bias[T](row, dim)
        comptime if S.metric == L2:
            var squared = bitcast[DType.int32, 1](sum_ints[Product, T](row, row, dim))
            return rebind[Scalar[Sum[T]]](squared - 2 * bias)
        else:  # cosine adds to the inner product, the inner product's key subtracts it
            return rebind[Scalar[Sum[T]]](bias if S.metric == COSINE else -bias)
