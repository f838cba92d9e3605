"""Ways of measuring that are told at run time: walks, and what makes links, are compiled once, and call for a hop of rows.

Rows carry the address of a table of functions, as `DistanceComputer` does in faiss. What is compiled for each way is in `measure_rows.mojo`.
Walks of what is searched most are compiled for it besides, by `CompiledIn`.
"""
from vicinal.kernels.measure_rows import HopDistance, measure_rows, none_occludes
from vicinal.kernels.space import (
    Constants,
    Query,
    QueryDistance,
    Rows,
    RowsAsQueries,
    SymmetricDistance,
)
from vicinal.system.memory import Ptr, at


comptime KeyFunction = def(Query, Rows, Int) thin -> Int32


struct Measure(Movable):
    """How some rows are measured; `rows` leads to it, so that it must lie in memory that stays (a scratch) while those are in use.

    Not on the stack: the compiler does not see that calls which are given the rows read it there.
    """

    var key: KeyFunction
    var measure: def(Query, Rows, Ptr[Int64], Int, Int) thin -> None
    var farthest: def(Query, Rows, Int32, Float32) thin -> Int32
    var norms: Int
    """What the rows had as `norms`."""
    var constant_bytes: Int

    def __init__(out self):
        """Measures nothing yet."""
        self.key = _no_key
        self.measure = _nothing
        self.farthest = _any_key
        self.norms = 0
        self.constant_bytes = 0

    def rows[M: QueryDistance](mut self, rows: Rows) -> Rows:
        """Returns rows that `AnyDistance` measures as `M` does these."""
        self.key = M.key
        self.measure = measure_rows[M]
        self.farthest = M.farthest
        self.norms = rows.norms
        self.constant_bytes = M.constant_bytes
        return Rows(rows.base, rows.stride, rows.dim, Int(Pointer(to=self)))


def _no_key(query: Query, rows: Rows, row: Int) -> Int32:
    return 0


def _nothing(query: Query, rows: Rows, nodes: Ptr[Int64], count: Int, fetched: Int):
    pass


def _any_key(query: Query, rows: Rows, near: Int32, times: Float32) -> Int32:
    return Int32.MAX


@always_inline
def as_they_were(rows: Rows) -> Rows:
    """Returns rows as they were before `Measure.rows` made them carry a table."""
    return _as_they_were(rows, at[Measure](rows.norms)[].norms)


@always_inline
def _as_they_were(rows: Rows, norms: Int) -> Rows:
    return Rows(rows.base, rows.stride, rows.dim, norms)


struct AnyDistance(HopDistance):
    """Measures rows of `Measure.rows`."""

    @staticmethod
    @always_inline
    def key(query: Query, rows: Rows, row: Int) -> Int32:
        """Measures a query against a row."""
        ref measure = at[Measure](rows.norms)[]
        return measure.key(query, _as_they_were(rows, measure.norms), row)

    @staticmethod
    @always_inline
    def farthest(query: Query, rows: Rows, near: Int32, times: Float32) -> Int32:
        """Returns the key of so many times the distance of a key."""
        ref measure = at[Measure](rows.norms)[]
        return measure.farthest(query, _as_they_were(rows, measure.norms), near, times)

    @staticmethod
    @always_inline
    def constants(rows: Rows) -> Constants:
        """Returns where the constants of rows are."""
        ref measure = at[Measure](rows.norms)[]
        return Constants(measure.norms, measure.constant_bytes)

    @staticmethod
    @always_inline
    def measure(query: Query, rows: Rows, nodes: Ptr[Int64], count: Int, fetched: Int):
        """Makes entries of rows."""
        ref measure = at[Measure](rows.norms)[]
        measure.measure(query, _as_they_were(rows, measure.norms), nodes, count, fetched)


struct CompiledIn[M: QueryDistance](HopDistance):
    """Measures the same rows in one way, without a call: for hops that a call would make longer by some per cent.
    """

    @staticmethod
    @always_inline
    def measure(query: Query, rows: Rows, nodes: Ptr[Int64], count: Int, fetched: Int):
        """Makes entries of rows."""
        measure_rows[Self.M](query, as_they_were(rows), nodes, count, fetched)

    @staticmethod
    @always_inline
    def constants(rows: Rows) -> Constants:
        """Returns where the constants of rows are."""
        return Constants(at[Measure](rows.norms)[].norms, Self.M.constant_bytes)

    @staticmethod
    @always_inline
    def farthest(query: Query, rows: Rows, near: Int32, times: Float32) -> Int32:
        """Returns the key of so many times the distance of a key."""
        return Self.M.farthest(query, as_they_were(rows), near, times)


struct MeasureBetween(Movable):
    """How some rows are measured against each other; `rows` leads to it as to `Measure`."""

    var measure: Measure
    """First, so that its address is this one's."""
    var query_bytes: def(Rows) thin -> Int
    var query_of_row: def(Rows, Int, Int) thin -> Query
    var none_occludes: def(Ptr[Query], Int, Rows, Int, Int32) thin -> Bool
    var occludes: def(Int32, Int32) thin -> Bool
    var many_links: Bool
    var exact: Bool

    def __init__(out self):
        """Measures nothing yet."""
        self.measure = Measure()
        self.query_bytes = _no_bytes
        self.query_of_row = _no_query
        self.none_occludes = _none
        self.occludes = _no
        self.many_links = False
        self.exact = True

    def rows[M: SymmetricDistance](mut self, rows: Rows) -> Rows:
        """Returns rows that `AnyLink` measures as `M` does these."""
        self.query_bytes = M.query_bytes
        self.query_of_row = M.query_of_row
        self.none_occludes = none_occludes[M]
        self.occludes = M.occludes
        self.many_links = M.many_links
        self.exact = M.exact
        return self.measure.rows[M](rows)


def _no_bytes(rows: Rows) -> Int:
    return 0


def _no_query(rows: Rows, row: Int, room: Int) -> Query:
    return Query(0, 1)


def _none(queries: Ptr[Query], count: Int, rows: Rows, row: Int, key: Int32) -> Bool:
    return True


def _no(a: Int32, b: Int32) -> Bool:
    return False


@always_inline
def _between(rows: Rows) -> Ptr[MeasureBetween]:
    return at[MeasureBetween](rows.norms)


struct AnyLink(RowsAsQueries):
    """Measures rows of `MeasureBetween.rows` against each other; `AnyDistance` measures them, too.
    """

    @staticmethod
    @always_inline
    def query_bytes(rows: Rows) -> Int:
        """Returns the bytes that a query made of a row takes."""
        ref between = _between(rows)[]
        return between.query_bytes(_as_they_were(rows, between.measure.norms))

    @staticmethod
    @always_inline
    def query_of_row(rows: Rows, row: Int, room: Int) -> Query:
        """Makes a query of a row."""
        ref between = _between(rows)[]
        return between.query_of_row(_as_they_were(rows, between.measure.norms), row, room)

    @staticmethod
    @always_inline
    def occludes(rows: Rows, a: Int32, b: Int32) -> Bool:
        """Tells whether SQUARED_ALPHA / 5 times the distance of key `a` is below that of key `b`.
        """
        return _between(rows)[].occludes(a, b)

    @staticmethod
    @always_inline
    def many_links(rows: Rows) -> Bool:
        """Tells whether rows select more links than elsewhere."""
        return _between(rows)[].many_links

    @staticmethod
    @always_inline
    def exact(rows: Rows) -> Bool:
        """Tells whether distances are no estimates."""
        return _between(rows)[].exact

    @staticmethod
    @always_inline
    def none_occludes(queries: Ptr[Query], count: Int, rows: Rows, row: Int, key: Int32) -> Bool:
        """Tells whether none of some rows `occludes` a candidate, see `none_occludes`."""
        ref between = _between(rows)[]
        return between.none_occludes(
            queries, count, _as_they_were(rows, between.measure.norms), row, key
        )
