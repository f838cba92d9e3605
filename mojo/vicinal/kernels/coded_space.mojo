"""Spaces of rows of which codes alone are kept."""
from vicinal.kernels.metric import Product, SquaredDifference
from vicinal.kernels.row_codes import decode_row, sum_coded
from vicinal.kernels.space import L2, MetricSpace, Query, Rows, Space, key_of_float
from vicinal.kernels.stored_type import CODED_4, CODED_8
from vicinal.system.memory import at


struct CodedSpace[metric_: Int, bits_: Int](Space):
    """The space of one metric over rows of which codes alone are kept, asked for as float32: distances are those of what they decode
    to, which has unit length for cosine.
    """

    comptime Plain = MetricSpace[Self.metric_, DType.float32]
    comptime metric = Self.metric_
    comptime T = DType.float32
    comptime Q = DType.float32
    comptime many_links = Self.Plain.many_links
    comptime exact = True
    comptime batched = False
    comptime constant_bytes = 0
    comptime needs_norms = False
    comptime bits = Self.bits_
    comptime code = CODED_8 if Self.bits_ == 8 else CODED_4

    @staticmethod
    @always_inline
    def key(query: Query, rows: Rows, row: Int) -> Int32:
        """Measures a query against a row."""
        var asked = at[Float32](query.address)
        var stored = rows.row[DType.uint8](row)
        comptime if Self.metric == L2:
            return key_of_float(sum_coded[SquaredDifference, Self.bits](asked, stored, rows.dim))
        else:
            return key_of_float(0 - sum_coded[Product, Self.bits](asked, stored, rows.dim))

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
        return Self.Plain.farthest(query, rows, near, times)

    @staticmethod
    @always_inline
    def query_bytes(rows: Rows) -> Int:
        """Returns the bytes that a query made of a row takes."""
        return (4 * rows.dim + 63) // 64 * 64

    @staticmethod
    def query_of_row(rows: Rows, row: Int, room: Int) -> Query:
        """Makes a query of what a row decodes to."""
        decode_row[Self.bits](rows.row[DType.uint8](row), rows.dim, at[Float32](room))
        return Query(room, 1)

    @staticmethod
    @always_inline
    def occludes(a: Int32, b: Int32) -> Bool:
        """Tells whether SQUARED_ALPHA / 5 times the distance of key `a` is below that of key `b`.
        """
        return Self.Plain.occludes(a, b)

    @staticmethod
    @always_inline
    def value(key: Int32) -> Float32:
        """Returns the distance that a key stands for."""
        return Self.Plain.value(key)
