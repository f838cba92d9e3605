"""The table of metric x stored type: how a query meets a row, and what the number means.

Distances travel through search and build as 32-bit integer keys whose order is the order of the distances: one kind of
beam serves float and integer types, and integer distances are compared exactly.
"""
from std.memory import bitcast

from vicinal.kernels.convert import to_float
from vicinal.kernels.distance import different_bits, jaccard_distance, sum_floats, sum_ints
from vicinal.kernels.metric import Product, SquaredDifference
from vicinal.kernels.stored_type import dtype_code
from vicinal.system.memory import Ptr, at
from vicinal.system.prefetch import CACHE_LINE, prefetch_line

comptime L2 = 0
comptime IP = 1
comptime COSINE = 2
comptime METRICS = 3
"""Metrics over every stored type."""
comptime HAMMING = 3
"""Bits that differ, over uint8 alone, each of which holds eight: the squared distance of vectors of bits, and handled as that."""
comptime JACCARD = 4
"""Over packed bits, too: the share of the bits set in either of two rows that are set in one only."""
comptime KEY_MAX: Int32 = 0x7FFFFFFF
comptime SQUARED_ALPHA = 7
"""In fifths: a link may stay if it is not nearer to another link than to the centre by a factor of 1.4 (squared distances).

Vamana's alpha (DiskANN, NeurIPS 2019). Over 1, ef 16: recall .940 to .961 on SIFT, .970 to .982 on Fashion-MNIST at the same
time for a search and a build; 1.4 was no better. Inner products likewise, ef 64: recall .686 to .725 for gaussian rows of 128
dimensions, .971 to .992 for MiniLM rows of uneven lengths asked by titles.
"""


@always_inline
def prefetch_row(rows: Rows, row: Int):
    """Asks for a whole row."""
    var address = rows.base + row * rows.stride
    for offset in range(0, rows.stride, CACHE_LINE):
        prefetch_line(address + offset)


@fieldwise_init
struct Constants(TrivialRegisterPassable):
    """Where the constants of rows are, which are read when a row is measured."""

    var address: Int
    var bytes: Int
    """Of a row; 0 if it has none."""


@always_inline
def prefetch_measured(rows: Rows, constants: Constants, row: Int):
    """Asks for all that is read when a row is measured: the row, and its constants where there are any.
    """
    prefetch_row(rows, row)
    if constants.bytes != 0:
        prefetch_line(constants.address + row * constants.bytes)


@fieldwise_init
struct Rows(TrivialRegisterPassable):
    """Stored rows as kernels see them."""

    var base: Int
    """Address of row 0."""
    var stride: Int
    """Bytes from one row to the next."""
    var dim: Int
    """Elements of a row."""
    var norms: Int
    """Address of the constants of the rows, such as their float32 reciprocal norms; 0 if they have none. Rows of `Measure.rows` have the
    address of a table in its place."""

    @always_inline
    def row[T: DType](self, row: Int) -> Ptr[Scalar[T]]:
        """Returns the start of a row.

        Safety:
            The row must exist.
        """
        return at[Scalar[T]](self.base + row * self.stride)

    @always_inline
    def norm(self, row: Int) -> Float32:
        """Returns the reciprocal norm of a row."""
        return at[Float32](self.norms)[unsafe_offset=row]


@fieldwise_init
struct Query(TrivialRegisterPassable):
    """A query as kernels see it: float32 elements for float types, the stored type for integers."""

    var address: Int
    """Address of the elements."""
    var norm: Float32
    """Reciprocal norm; used only where the space has `needs_norms`."""


@always_inline
def key_of_float[n: Int = 1](distance: SIMD[DType.float32, n]) -> SIMD[DType.int32, n]:
    """Maps floats to integers of the same order."""
    var bits = bitcast[DType.int32, n](distance)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@always_inline
def float_of_key(key: Int32) -> Float32:
    """Inverts `key_of_float`."""
    return bitcast[DType.float32, 1](key ^ ((key >> 31) & 0x7FFFFFFF))


@always_inline
def occludes(a: Float32, b: Float32) -> Bool:
    """Tells whether SQUARED_ALPHA / 5 times one distance is below another."""
    return a * (Float32(SQUARED_ALPHA) / 5) < b


@always_inline
def occludes_whole(a: Int32, b: Int32) -> Bool:
    """Tells the same of keys of exact squared distances, in integers."""
    var first = bitcast[DType.uint32, 1](a) ^ 0x80000000
    var second = bitcast[DType.uint32, 1](b) ^ 0x80000000
    return SQUARED_ALPHA * UInt64(first) < 5 * UInt64(second)


trait QueryDistance:
    """What a search needs to know: how far a row is from a query."""

    comptime batched: Bool
    """Whether `keys` takes less time than four times `key`."""
    comptime constant_bytes: Int
    """Bytes at `Rows.norms` that belong to a row, and are read with it."""

    @staticmethod
    def key(query: Query, rows: Rows, row: Int) -> Int32:
        """Measures a query against a row."""
        ...

    @staticmethod
    def keys(query: Query, rows: Rows, a: Int, b: Int, c: Int, d: Int) -> SIMD[DType.int32, 4]:
        """Measures a query against four rows, with the same results as `key`."""
        ...

    @staticmethod
    def farthest(query: Query, rows: Rows, near: Int32, times: Float32) -> Int32:
        """Returns the largest key that may stand for no more than so many times the distance of another; of ip the largest of all.
        """
        ...


trait RowsAsQueries:
    """How rows are made queries."""

    @staticmethod
    def query_bytes(rows: Rows) -> Int:
        """Returns the bytes that a query made of a row takes, in whole cache lines; 0 if it is the row itself.
        """
        ...

    @staticmethod
    def query_of_row(rows: Rows, row: Int, room: Int) -> Query:
        """Makes a query of a row.

        Args:
            rows: The rows.
            row: Which.
            room: Address of `query_bytes` on a 64-byte boundary.

        Returns:
            The query, which may use both.
        """
        ...


trait SymmetricDistance(QueryDistance, RowsAsQueries):
    """What linking rows needs besides: how far two rows are from each other."""

    comptime many_links: Bool
    """Whether rows should select more links than elsewhere."""
    comptime exact: Bool
    """False if distances are estimates, so that an exact copy of a row need not be the nearest to it."""

    @staticmethod
    def occludes(a: Int32, b: Int32) -> Bool:
        """Tells whether SQUARED_ALPHA / 5 times the distance of key `a` is below that of key `b`.

        For ip, where a multiple of a distance means nothing, whether the product is larger by as large a share.
        """
        ...


trait Space(SymmetricDistance):
    """A metric over a stored type."""

    comptime metric: Int
    comptime T: DType
    comptime Q: DType
    comptime needs_norms: Bool
    comptime bits: Int
    """Bits of an element where rows are stored as codes alone, else 0: what is stored is no array of `T` then."""
    comptime code: Int
    """Code of the stored type."""

    @staticmethod
    def value(key: Int32) -> Float32:
        """Returns the distance that a key stands for."""
        ...


struct MetricSpace[metric_: Int, stored: DType](Space):
    """The space of one metric over one stored type.

    Cosine over float types expects rows and queries of unit length (`add` sees to it); over integers it divides the exact
    inner product by both norms.
    """

    comptime metric = Self.metric_
    comptime T = Self.stored
    comptime many_links = Self.metric_ == IP
    comptime exact = True
    comptime batched = False
    comptime constant_bytes = 4 if Self.needs_norms else 0
    comptime Q = DType.float32 if Self.stored.is_floating_point() else Self.stored
    comptime needs_norms = Self.metric_ == COSINE and not Self.stored.is_floating_point()
    comptime squares = Self.metric_ == L2 or Self.metric_ == HAMMING
    comptime bits = 0
    comptime code = dtype_code[Self.stored]()

    @staticmethod
    @always_inline
    def key(query: Query, rows: Rows, row: Int) -> Int32:
        """Measures a query against a row."""
        var a = at[Scalar[Self.Q]](query.address)
        var b = rows.row[Self.T](row)
        comptime if Self.T.is_floating_point():
            comptime if Self.metric == L2:
                return key_of_float(sum_floats[SquaredDifference, Self.Q, Self.T](a, b, rows.dim))
            else:  # 0 - dot, not -dot: a negative zero would sort before zero
                return key_of_float(0 - sum_floats[Product, Self.Q, Self.T](a, b, rows.dim))
        else:
            var other = a.unsafe_bitcast[Scalar[Self.T]]()
            comptime if Self.metric == JACCARD:
                return key_of_float(
                    jaccard_distance(
                        other.unsafe_bitcast[UInt8](), b.unsafe_bitcast[UInt8](), rows.dim
                    )
                )
            comptime if Self.metric == HAMMING:
                var bits = different_bits(
                    other.unsafe_bitcast[UInt8](), b.unsafe_bitcast[UInt8](), rows.dim
                )
                return bitcast[DType.int32, 1](bits ^ 0x80000000)
            comptime if Self.metric == L2:
                return bitcast[DType.int32, 1](
                    sum_ints[SquaredDifference, Self.T](other, b, rows.dim) ^ 0x80000000
                )
            var dot = sum_ints[Product, Self.T](other, b, rows.dim)
            comptime if Self.metric == COSINE:
                var exact = Float32(dot) if Self.T == DType.uint8 else Float32(
                    bitcast[DType.int32, 1](dot)
                )
                return key_of_float(0 - exact * query.norm * rows.norm(row))
            elif Self.T == DType.uint8:
                return bitcast[DType.int32, 1](~dot ^ 0x80000000)
            else:
                return -bitcast[DType.int32, 1](dot)

    @staticmethod
    @always_inline
    def keys(query: Query, rows: Rows, a: Int, b: Int, c: Int, d: Int) -> SIMD[DType.int32, 4]:
        """Measures a query against four rows."""
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
        comptime if Self.metric == IP:
            return Int32.MAX
        else:
            # rounding must not rule out what is as near
            return max(near, Self._key_of(Self.value(near) * times))

    @staticmethod
    @always_inline
    def query_bytes(rows: Rows) -> Int:
        """Returns the bytes that a query made of a row takes."""
        return 0 if Self.Q == Self.T else (4 * rows.dim + 63) // 64 * 64

    @staticmethod
    @always_inline
    def query_of_row(rows: Rows, row: Int, room: Int) -> Query:
        """Makes a query of a row; float types other than float32 are widened."""
        var norm = Float32(1)
        comptime if Self.needs_norms:
            norm = rows.norm(row)
        comptime if Self.Q == Self.T:
            return Query(Int(rows.row[Self.T](row)), norm)
        else:
            var stored = rows.row[Self.T](row)
            for i in range(rows.dim):
                at[Float32](room)[unsafe_offset=i] = to_float[Self.T, 1](stored[unsafe_offset=i])
            return Query(room, norm)

    @staticmethod
    @always_inline
    def occludes(a: Int32, b: Int32) -> Bool:
        """Tells whether SQUARED_ALPHA / 5 times the distance of key `a` is below that of key `b`.
        """
        comptime if Self.metric == IP:
            var other = Self.product(b)
            return 5 * (Self.product(a) - other) > Float32(SQUARED_ALPHA - 5) * abs(other)
        elif Self.squares and not Self.T.is_floating_point():
            return occludes_whole(a, b)
        else:
            return occludes(Self.value(a), Self.value(b))

    @staticmethod
    @always_inline
    def product(key: Int32) -> Float32:
        """Returns the inner product that a key of ip stands for."""
        comptime if Self.T.is_floating_point():
            return 0 - float_of_key(key)
        elif Self.T == DType.uint8:
            return Float32(~(bitcast[DType.uint32, 1](key) ^ 0x80000000))
        else:
            return -Float32(key)

    @staticmethod
    @always_inline
    def value(key: Int32) -> Float32:
        """Returns the distance that a key stands for: squared L2, 1 - dot, 1 - cosine, bits, or a share of them.
        """
        comptime if Self.metric == JACCARD:
            return float_of_key(key)
        comptime if Self.T.is_floating_point() or Self.needs_norms:
            comptime if Self.metric == L2:
                return float_of_key(key)
            elif Self.metric == IP:
                return 1 + float_of_key(key)
            else:  # rounding must not make a distance negative
                return max(Float32(0), 1 + float_of_key(key))
        else:
            comptime if Self.squares:
                return Float32(bitcast[DType.uint32, 1](key) ^ 0x80000000)
            elif Self.T == DType.uint8:
                return Float32(1 - Float64(~(bitcast[DType.uint32, 1](key) ^ 0x80000000)))
            else:
                return Float32(1 + Float64(key))

    @staticmethod
    @always_inline
    def _key_of(value: Float32) -> Int32:
        """Inverts `value`, but for rounding; not of ip."""
        comptime if Self.metric == JACCARD:
            return key_of_float(value)
        comptime if Self.T.is_floating_point() or Self.needs_norms:
            return key_of_float(value if Self.metric == L2 else value - 1)
        else:
            # the largest float below 2**32
            return bitcast[DType.int32, 1](UInt32(min(value, Float32(4294967040))) ^ 0x80000000)
