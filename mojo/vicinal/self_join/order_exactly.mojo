"""What was kept by codes, measured on the rows: the same distances, to the last bit, as those of an exact search."""
from vicinal.exact.scan import RowSource, Scan, Worker
from vicinal.kernels.candidates import EMPTY_ENTRY, entry_of, key_of, node_of
from vicinal.kernels.convert import to_float
from vicinal.kernels.inspect_row import to_unit
from vicinal.kernels.space import COSINE, Query, Rows, Space, prefetch_row
from vicinal.self_join.nearest_lists import NearestLists
from vicinal.system.memory import Ptr, no_block
from vicinal.system.parallel import Body

comptime AHEAD = 4
"""A row is asked for so many others before it is measured."""


@fieldwise_init
struct OrderExactly[S: Space](Body):
    """Measures and sorts what some rows have kept, and writes the nearest."""

    var rows: Rows
    """As they were given."""
    var norms: Ptr[Float32]
    """Reciprocal norms; for cosine alone."""
    var lists: Ptr[NearestLists]
    var chosen: Ptr[UInt32]
    """The rows whose neighbours are wanted."""
    var places: Ptr[UInt32]
    """Where in the result each of them goes."""
    var k: Int
    var ids: Ptr[Int64]
    var distances: Ptr[Float32]
    var entries: Ptr[Int64]
    """Room for the list of one row for each worker."""
    var queries: Ptr[Float32]
    """Room for one row for each worker."""
    var room: Int
    """Elements of that."""

    def run(self, begin: Int, end: Int, worker: Int):
        """Does it for rows begin .. end-1 of those chosen."""
        var sorted = self.entries.unsafe_offset(worker * self.lists[].room)
        comptime scaled = Self.S.metric == COSINE and Self.S.T.is_floating_point()
        var scan = Scan[Self.S, scaled](
            RowSource(self.rows, self.lists[].count, False),
            True,
            no_block[Query](),
            1,
            no_block[Worker[Self.S]](),
            False,
            no_block[Int64](),
        )
        for i in range(begin, end):
            var row = Int(self.chosen[unsafe_offset=i])
            var list = self.lists[].list(row)
            var query = self.query(row, worker)
            var count = 0
            for j in range(self.lists[].room):
                var kept = list[unsafe_offset=j]
                if kept == EMPTY_ENTRY:
                    break
                var other = node_of(kept)
                var ahead = node_of(list[unsafe_offset=min(j + AHEAD, self.lists[].room - 1)])
                if ahead < self.lists[].count:  # not an empty one
                    prefetch_row(self.rows, ahead)
                var norm = Float32(1)
                comptime if Self.S.metric == COSINE:
                    norm = self.norms[unsafe_offset=other]
                var entry = entry_of(scan.key(query, other, norm), other)
                var place = count
                while place > 0 and sorted[unsafe_offset=place - 1] > entry:
                    sorted[unsafe_offset=place] = sorted[unsafe_offset=place - 1]
                    place -= 1
                sorted[unsafe_offset=place] = entry
                count += 1
            self.write(sorted, count, Int(self.places[unsafe_offset=i]))

    def query(self, row: Int, worker: Int) -> Query:
        """Returns a row as a query, as an exact search makes one."""
        var given = self.rows.row[Self.S.T](row)
        comptime if not Self.S.T.is_floating_point():
            var norm = Float32(1)
            comptime if Self.S.metric == COSINE:
                norm = self.norms[unsafe_offset=row]
            return Query(Int(given), norm)
        elif Self.S.metric != COSINE and Self.S.Q == Self.S.T:
            return Query(Int(given), 1)
        else:
            var copy = self.queries.unsafe_offset(worker * self.room)
            for i in range(self.rows.dim):
                var x = to_float[Self.S.T, 1](given[unsafe_offset=i])
                comptime if Self.S.metric == COSINE:
                    x = to_unit(x, self.norms[unsafe_offset=row])
                copy[unsafe_offset=i] = x
            return Query(Int(copy), 1)

    def write(self, sorted: Ptr[Int64], count: Int, place: Int):
        """Writes the nearest k."""
        var ids = self.ids.unsafe_offset(place * self.k)
        var distances = self.distances.unsafe_offset(place * self.k)
        for i in range(min(count, self.k)):
            ids[unsafe_offset=i] = Int64(node_of(sorted[unsafe_offset=i]))
            distances[unsafe_offset=i] = Self.S.value(key_of(sorted[unsafe_offset=i]))
        for i in range(count, self.k):
            ids[unsafe_offset=i] = -1
            distances[unsafe_offset=i] = Float32.MAX  # infinity
