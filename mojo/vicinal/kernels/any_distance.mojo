"""Ways of measuring that are told at run time: what walks that are rarely made, or measure little, is compiled once with them.

A walk is compiled for each way of measuring where a call for every four rows would be felt: searches without a filter and the
linking of new rows. Elsewhere the rows carry the addresses of the functions, as `DistanceComputer` does in faiss.
"""
from vicinal.kernels.space import (
    IP,
    MetricSpace,
    Query,
    QueryDistance,
    RowDistance,
    Rows,
    SymmetricDistance,
)
from vicinal.system.memory import at

comptime KeyFunction = def(Query, Rows, Int) thin -> Int32
comptime FarthestFunction = def(Query, Rows, Int32, Float32) thin -> Int32
comptime KeysFunction = def(Query, Rows, Int, Int, Int, Int) thin -> SIMD[DType.int32, 4]


struct Measure(Movable):
    """How some rows are measured; `rows` leads to it, so that it must lie in memory that stays (a scratch) while
    those are in use.
    """

    var key: KeyFunction
    var keys: KeysFunction
    var farthest: FarthestFunction
    var norms: Int
    """What the rows had as `norms`."""

    def __init__(out self):
        """Measures nothing yet."""
        self.key = _no_key
        self.keys = _no_keys
        self.farthest = _any_key
        self.norms = 0

    def rows[M: QueryDistance](mut self, rows: Rows) -> Rows:
        """Returns rows that `AnyDistance` measures as `M` does these."""
        self.key = M.key
        self.keys = M.keys
        self.farthest = M.farthest
        self.norms = rows.norms
        return Rows(rows.base, rows.stride, rows.dim, Int(Pointer(to=self)))


def _no_key(query: Query, rows: Rows, row: Int) -> Int32:
    return 0


def _no_keys(query: Query, rows: Rows, a: Int, b: Int, c: Int, d: Int) -> SIMD[DType.int32, 4]:
    return 0


def _any_key(query: Query, rows: Rows, near: Int32, times: Float32) -> Int32:
    return Int32.MAX


@always_inline
def _as_they_were(rows: Rows, norms: Int) -> Rows:
    return Rows(rows.base, rows.stride, rows.dim, norms)


struct AnyDistance(QueryDistance):
    """Measures rows of `Measure.rows`."""

    comptime batched = True
    comptime constant_bytes = 0  # unknown until it runs

    @staticmethod
    @always_inline
    def key(query: Query, rows: Rows, row: Int) -> Int32:
        """Measures a query against a row."""
        ref measure = at[Measure](rows.norms)[]
        return measure.key(query, _as_they_were(rows, measure.norms), row)

    @staticmethod
    @always_inline
    def keys(query: Query, rows: Rows, a: Int, b: Int, c: Int, d: Int) -> SIMD[DType.int32, 4]:
        """Measures a query against four rows."""
        ref measure = at[Measure](rows.norms)[]
        return measure.keys(query, _as_they_were(rows, measure.norms), a, b, c, d)

    @staticmethod
    @always_inline
    def farthest(query: Query, rows: Rows, near: Int32, times: Float32) -> Int32:
        """Returns the key of so many times the distance of a key."""
        ref measure = at[Measure](rows.norms)[]
        return measure.farthest(query, _as_they_were(rows, measure.norms), near, times)


struct MeasureBetween(Movable):
    """How some rows are measured against each other; `rows` leads to it as to `Measure`."""

    var measure: Measure
    """First, so that its address is this one's."""
    var query_bytes: def(Rows) thin -> Int
    var query_of_row: def(Rows, Int, Int) thin -> Query

    def __init__(out self):
        """Measures nothing yet."""
        self.measure = Measure()
        self.query_bytes = _no_bytes
        self.query_of_row = _no_query

    def rows[M: RowDistance](mut self, rows: Rows) -> Rows:
        """Returns rows that `AnyRowDistance` measures as `M` does these."""
        self.query_bytes = M.query_bytes
        self.query_of_row = M.query_of_row
        return self.measure.rows[M](rows)


def _no_bytes(rows: Rows) -> Int:
    return 0


def _no_query(rows: Rows, row: Int, room: Int) -> Query:
    return Query(0, 1)


struct AnyRowDistance(RowDistance):
    """Measures rows of `MeasureBetween.rows`, which can be made queries, too."""

    comptime batched = True
    comptime constant_bytes = 0  # unknown until it runs

    @staticmethod
    @always_inline
    def key(query: Query, rows: Rows, row: Int) -> Int32:
        """Measures a query against a row."""
        return AnyDistance.key(query, rows, row)

    @staticmethod
    @always_inline
    def keys(query: Query, rows: Rows, a: Int, b: Int, c: Int, d: Int) -> SIMD[DType.int32, 4]:
        """Measures a query against four rows."""
        return AnyDistance.keys(query, rows, a, b, c, d)

    @staticmethod
    @always_inline
    def farthest(query: Query, rows: Rows, near: Int32, times: Float32) -> Int32:
        """Returns the key of so many times the distance of a key."""
        return AnyDistance.farthest(query, rows, near, times)

    @staticmethod
    def query_bytes(rows: Rows) -> Int:
        """Returns the bytes that a query made of a row takes."""
        ref between = at[MeasureBetween](rows.norms)[]
        return between.query_bytes(_as_they_were(rows, between.measure.norms))

    @staticmethod
    def query_of_row(rows: Rows, row: Int, room: Int) -> Query:
        """Makes a query of a row."""
        ref between = at[MeasureBetween](rows.norms)[]
        return between.query_of_row(_as_they_were(rows, between.measure.norms), row, room)


struct ByPointer[metric: Int](SymmetricDistance):
    """Measures rows of `MeasureBetween.rows` of one metric, whose keys are those of floats, and links by them.
    """

    comptime batched = True
    comptime constant_bytes = 0  # none of these spaces has any
    comptime many_links = Self.metric == IP
    comptime exact = True

    @staticmethod
    @always_inline
    def key(query: Query, rows: Rows, row: Int) -> Int32:
        """Measures a query against a row."""
        return AnyDistance.key(query, rows, row)

    @staticmethod
    @always_inline
    def keys(query: Query, rows: Rows, a: Int, b: Int, c: Int, d: Int) -> SIMD[DType.int32, 4]:
        """Measures a query against four rows."""
        return AnyDistance.keys(query, rows, a, b, c, d)

    @staticmethod
    @always_inline
    def farthest(query: Query, rows: Rows, near: Int32, times: Float32) -> Int32:
        """Returns the key of so many times the distance of a key."""
        return AnyDistance.farthest(query, rows, near, times)

    @staticmethod
    def query_bytes(rows: Rows) -> Int:
        """Returns the bytes that a query made of a row takes."""
        return AnyRowDistance.query_bytes(rows)

    @staticmethod
    def query_of_row(rows: Rows, row: Int, room: Int) -> Query:
        """Makes a query of a row."""
        return AnyRowDistance.query_of_row(rows, row, room)

    @staticmethod
    @always_inline
    def occludes(a: Int32, b: Int32) -> Bool:
        """Tells whether SPREAD times the distance of key `a` is below that of key `b`."""
        return MetricSpace[Self.metric, DType.float32].occludes(a, b)
