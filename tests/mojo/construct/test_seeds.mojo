"""The order of a merge and the seeds of its walks, against what they are by definition."""
from std.random import random_si64, seed
from std.testing import TestSuite, assert_equal, assert_true

from sample_graph import Sample
from vicinal.construct.merge_order import JoinOrder, SourceGraph
from vicinal.rows.row_targets import TargetRows
from vicinal.system.memory import Ptr, allocate, release

comptime THERE = 400
"""Rows of the other index."""
comptime LINKED = 50
"""Rows of this one before the merge."""
comptime FREE = 7
"""Rows among these that are free."""


struct Merge(Movable):
    """A merge of some rows of the other index into free rows and rows behind the last."""

    var other: Sample
    var rows: Ptr[Int64]
    """Rows of the other index that are added."""
    var added: Int
    var free: Ptr[UInt32]
    var places: Ptr[UInt32]
    var count: Int
    var upper: Ptr[UInt8]
    var duplicates: Ptr[UInt32]
    var num_duplicates: Int

    def __init__(out self) raises:
        self.other = Sample(THERE, 4)
        self.other.link_all(THERE, 30)
        self.rows = allocate[Int64](THERE)
        self.added = 0
        for row in range(THERE):
            if row % 9 != 4:  # some are not there any more
                self.rows[unsafe_offset=self.added] = Int64(row)
                self.added += 1
        self.rows[unsafe_offset=3] = -1  # one that is no row, one beyond the last
        self.rows[unsafe_offset=5] = THERE + 2
        self.free = allocate[UInt32](FREE)
        for i in range(FREE):
            self.free[unsafe_offset=i] = UInt32(6 * i + 1)
        self.places = allocate[UInt32](self.added)
        self.upper = allocate[UInt8](self.added)
        self.duplicates = allocate[UInt32](4)
        self.count = 0
        # added row 20 is a copy of row 12, which was there, added row 30 one of added row 10
        self.num_duplicates = 2
        for i in range(self.added):
            if i == 20 or i == 30:
                continue
            self.places[unsafe_offset=self.count] = UInt32(self.row(i))
            self.upper[unsafe_offset=self.count] = UInt8(self.count == 0 or random_si64(0, 9) == 0)
            self.count += 1
        self.duplicates[unsafe_offset=0] = UInt32(self.row(20))
        self.duplicates[unsafe_offset=1] = 12
        self.duplicates[unsafe_offset=2] = UInt32(self.row(30))
        self.duplicates[unsafe_offset=3] = UInt32(self.row(10))

    def __deinit__(deinit self):
        release(self.rows)
        release(self.free)
        release(self.places)
        release(self.upper)
        release(self.duplicates)

    def added_places(self) -> TargetRows:
        return TargetRows(self.free, FREE, LINKED)

    def row(self, i: Int) -> Int:
        return self.added_places().row(i)

    def there(self, row: Int) -> Int:
        """Returns the row of the other index that becomes a row, or -1."""
        for i in range(self.added):
            var there = Int(self.rows[unsafe_offset=i])
            if self.row(i) == row and there < THERE:
                return there
        return -1

    def here(self, there: Int) -> Int:
        """Returns what stands for a row of the other index: what it becomes or is a copy of; -1 if nothing does.
        """
        for i in range(self.added):
            if Int(self.rows[unsafe_offset=i]) == there:
                return 12 if i == 20 else self.row(10 if i == 30 else i)
        return -1

    def order(mut self) -> JoinOrder:
        return JoinOrder(
            SourceGraph(
                Pointer(to=self.other.graph).unsafe_origin_cast[MutUntrackedOrigin](),
                self.rows,
                self.added,
            ),
            self.added_places(),
            self.places,
            self.count,
            self.upper,
            self.duplicates,
            self.num_duplicates,
            LINKED,
        )


def test_places_are_found() raises:
    """A row leads to the number of its place, other rows to none."""
    var merge = Merge()
    var places = merge.added_places()
    for i in range(merge.added):
        assert_equal(places.find(places.row(i)), i)
    for row in [0, 2, 44, LINKED - 1]:
        assert_equal(places.find(row), -1)
    _ = merge^


def test_order() raises:
    """All rows are there once; those in the beginning reach up, come from nowhere or have no neighbour before them, others have one.
    """
    seed(3)
    var merge = Merge()
    var before = List[Int]()
    var upper = List[Int]()
    for i in range(merge.count):
        before.append(Int(merge.places[unsafe_offset=i]))
        if merge.upper[unsafe_offset=i] != 0:
            upper.append(before[i])
    var order = merge.order()
    assert_equal(Int(merge.places[]), before[0])
    assert_true(len(upper) < order.first < merge.count // 2)
    var after = List[Int]()
    var joined = List[Int]()
    for i in range(merge.count):
        var row = Int(merge.places[unsafe_offset=i])
        after.append(row)
        var there = merge.there(row)
        var meets = False
        if there >= 0:
            for link in merge.other.links(0, there):
                meets = meets or link in joined
        if i >= order.first:
            assert_true(meets and row not in upper)
            continue
        assert_true(row in upper or there < 0 or not meets)
        if there >= 0:
            joined.append(there)
    sort(before)
    sort(after)
    assert_equal(before, after)
    _ = order^
    _ = merge^


def test_seeds() raises:
    """A row's seeds are its neighbours that are linked, copies standing for what they are copies of.
    """
    seed(4)
    var merge = Merge()
    var order = merge.order()
    var seeds = order.seeds(200)
    assert_true(seeds.any())
    assert_equal(seeds.width, 50)
    assert_equal(order.seeds(40).width, 32)
    assert_equal(order.seeds(20).width, 20)
    var found = allocate[UInt32](8)
    var duplicates = 0
    for position in range(seeds.first, merge.count):
        var there = merge.there(Int(merge.places[unsafe_offset=position]))
        for done in [seeds.first, position]:
            var expected = List[Int]()
            for link in merge.other.links(0, there):
                var row = merge.here(link)
                var placed = row == 12
                for i in range(done):
                    placed = placed or Int(merge.places[unsafe_offset=i]) == row
                if row >= 0 and placed:
                    expected.append(row)
                    duplicates += Int(row == 12 or row == merge.row(10))
            var count = seeds.placed(position, done, found)
            assert_equal(count, len(expected))
            for i in range(count):
                assert_equal(Int(found[unsafe_offset=i]), expected[i])
    assert_true(duplicates > 0)
    release(found)
    _ = order^
    _ = merge^


def main() raises:
    TestSuite.discover_tests[__functions_in_module()]().run()
