"""What walks and the choice of links call for a hop of rows: loops that are compiled for each way of measuring."""
from vicinal.kernels.candidates import entry_of
from vicinal.kernels.space import (
    Constants,
    Query,
    QueryDistance,
    Rows,
    SymmetricDistance,
    prefetch_measured,
)
from vicinal.system.memory import Ptr


trait HopDistance:
    """What a walk needs to know in every hop."""

    @staticmethod
    def measure(query: Query, rows: Rows, nodes: Ptr[Int64], count: Int, fetched: Int):
        """Makes entries of rows, which carry a table as those of `Measure.rows`; see `measure_rows`.
        """
        ...

    @staticmethod
    def constants(rows: Rows) -> Constants:
        """Returns where the constants of rows are."""
        ...

    @staticmethod
    def farthest(query: Query, rows: Rows, near: Int32, times: Float32) -> Int32:
        """Returns the key of so many times the distance of a key."""
        ...


@always_inline
def measure_rows[
    S: QueryDistance
](query: Query, rows: Rows, nodes: Ptr[Int64], count: Int, fetched: Int):
    """Makes entries of rows.

    Args:
        query: What to measure them against.
        rows: The rows.
        nodes: Which rows; receives their entries.
        count: Their number.
        fetched: How many rows were asked for already; while one is measured, the one as many places behind it is asked for.
    """
    var constants = Constants(rows.norms, S.constant_bytes)
    var done = 0
    comptime if S.batched:
        while done + 4 <= count:
            for i in range(done + fetched, min(done + fetched + 4, count)):
                prefetch_measured(rows, constants, Int(nodes[unsafe_offset=i]))
            var four = nodes.unsafe_load[width=4](done)
            var keys = S.keys(query, rows, Int(four[0]), Int(four[1]), Int(four[2]), Int(four[3]))
            nodes.unsafe_store(done, keys.cast[DType.int64]() << 32 | four << 1)
            done += 4
    for i in range(done, count):
        if i + fetched < count:
            prefetch_measured(rows, constants, Int(nodes[unsafe_offset=i + fetched]))
        var node = Int(nodes[unsafe_offset=i])
        nodes[unsafe_offset=i] = entry_of(S.key(query, rows, node), node)


def none_occludes[
    S: SymmetricDistance
](queries: Ptr[Query], count: Int, rows: Rows, row: Int, key: Int32) -> Bool:
    """Tells whether none of some rows `occludes` a candidate for a link.

    Args:
        queries: The rows that are linked already, made queries.
        count: Their number.
        rows: The rows.
        row: The candidate.
        key: Its distance from the centre.
    """
    for j in range(count):
        if S.occludes(S.key(queries[unsafe_offset=j], rows, row), key):
            return False
    return True
