"""Rows that join each other by their codes find what comparing every pair finds, whoever does it."""
from std.random import random_si64, seed
from std.testing import TestSuite, assert_equal, assert_true

from vicinal.kernels.candidates import EMPTY_ENTRY, entry_of, key_of, node_of
from vicinal.kernels.space import L2, MetricSpace, Rows
from vicinal.self_join.codes import MOST_ELEMENTS, Codes, step_of
from vicinal.self_join.nearest_lists import NearestLists, insert
from vicinal.self_join.partition import Partition
from vicinal.self_join.state import SelfJoin
from vicinal.system.outcome import DONE, STOPPED
from vicinal.system.parallel import Team, Unwatched, Watch

comptime Plain = MetricSpace[L2, DType.float32]


def random_rows(count: Int, dim: Int, spread: Int) -> List[Float32]:
    """Returns rows of small whole numbers, so that some are equal and many are as far as others."""
    var rows = List[Float32]()
    for _ in range(count * dim):
        rows.append(Float32(random_si64(Int64(-spread), Int64(spread))))
    return rows^


def begun(
    rows: List[Float32], count: Int, dim: Int, keep: Int, threads: Int = 1
) raises -> SelfJoin:
    """Returns a join of rows, encoded."""
    var join = SelfJoin(count, dim, L2, keep)
    assert_true(not join.failed())
    var watch = Unwatched()
    var given = Rows(Int(rows.unsafe_ptr()), 4 * dim, dim, 0)
    assert_equal(join.codes.encode[Plain](given, Team(threads), watch), DONE)
    return join^


def apart(codes: Codes, a: Int, b: Int) -> Int32:
    """Returns the squared distance of two codes, element by element."""
    var sum = Int32(0)
    for i in range(codes.dim):
        var gap = Int32(codes.row(a)[unsafe_offset=i]) - Int32(codes.row(b)[unsafe_offset=i])
        sum += gap * gap
    return sum


def nearest_of_all(join: SelfJoin, row: Int) raises -> List[Int64]:
    """Returns the entries that the list of a row should hold: all others compared one by one."""
    var entries = List[Int64]()
    for other in range(join.codes.count):
        if other != row:
            entries.append(entry_of(apart(join.codes, row, other), other))
    sort(entries)
    while len(entries) > join.lists.room:
        _ = entries.pop()
    return entries^


def assert_whole(join: SelfJoin) raises:
    """Asserts that all lists hold the nearest of all rows."""
    for row in range(join.codes.count):
        var wanted = nearest_of_all(join, row)
        for i in range(join.lists.room):
            var found = join.lists.list(row)[unsafe_offset=i]
            if i >= len(wanted):
                assert_equal(found, EMPTY_ENTRY)
            else:
                assert_equal(found & ~1, wanted[i])


def test_codes_are_in_the_order_of_rows() raises:
    """Whole numbers around their mean lose at most half a step for an element."""
    seed(1)
    for dim in [1, 3, 16, 63, 64, 65, 200]:
        var rows = random_rows(100, dim, 100)
        var join = begun(rows, 100, dim, 8)
        for row in range(100):
            var squared = Int32(0)
            for i in range(join.codes.stride):
                var c = Int32(join.codes.row(row)[unsafe_offset=i])
                squared += c * c
                assert_true(i < dim or c == 0)
            assert_equal(join.codes.squared[unsafe_offset=row], squared)
        # the step, from two rows that differ most in one element
        var low = 0
        var high = 0
        for row in range(100):
            if rows[row * dim] < rows[low * dim]:
                low = row
            if rows[row * dim] > rows[high * dim]:
                high = row
        var codes = Float64(join.codes.row(high)[]) - Float64(join.codes.row(low)[])
        var step = Float64(rows[high * dim] - rows[low * dim]) / codes
        assert_true(step > 0.4 and step < 2.0)
        for row in range(1, 100):
            for i in range(dim):
                var gap = Float64(rows[row * dim + i] - rows[i])
                var coded = Float64(join.codes.row(row)[unsafe_offset=i]) - Float64(
                    join.codes.row(0)[unsafe_offset=i]
                )
                # a few may lie beyond the largest code
                assert_true(abs(gap - step * coded) <= 1.6 * step or abs(coded) > 100)


def test_strays_do_not_coarsen_the_step() raises:
    var rows = random_rows(1000, 20, 10)
    for i in range(20):
        rows[300 * 20 + i] = 1e8
    var join = begun(rows, 1000, 20, 8)
    var centre = List[Float32](length=32, fill=0)
    var kinds = 0
    for value in range(-10, 11):
        var seen = False
        for row in range(300):
            seen = seen or rows[row * 20] == Float32(value)
        kinds += Int(seen)
    var codes = List[Int8]()
    for row in range(300):
        var code = join.codes.row(row)[]
        var known = False
        for other in codes:
            known = known or other == code
        if not known:
            codes.append(code)
    assert_equal(len(codes), kinds)
    assert_equal(
        step_of(
            centre.unsafe_ptr().unsafe_origin_cast[MutUntrackedOrigin](),
            1,
            32,
            centre.unsafe_ptr().unsafe_origin_cast[MutUntrackedOrigin](),
            1,
        ),
        1,
    )


def test_one_group_compares_every_pair() raises:
    seed(2)
    for dim in [1, 5, 16, 63, 64, 65, 130, 300, 1100, 2100]:
        for count in [2, 3, 31, 32, 33, 64, 70, 101]:
            var rows = random_rows(count, dim, 3)
            for i in range(dim):  # a copy
                rows[(count - 1) * dim + i] = rows[i]
            var join = begun(rows, count, dim, 10)
            var watch = Unwatched()
            assert_equal(join.join_groups(1000, 4, 0, Team(1), watch), DONE)
            assert_equal(join.pairs, Int64(count * (count - 1) // 2))
            assert_whole(join)


def test_groups_and_threads() raises:
    """All of many groups together: whatever the threads, the same, and nothing that is not so."""
    seed(3)
    var dim = 20
    var count = 700
    var rows = random_rows(count, dim, 4)
    var one = begun(rows, count, dim, 12)
    var three = begun(rows, count, dim, 12, 3)
    var watch = Unwatched()
    for step in range(3):
        assert_equal(one.join_groups(60, 3, step, Team(1), watch), DONE)
        assert_equal(three.join_groups(60, 3, step, Team(3), watch), DONE)
        var fresh = Int64(0)
        var also = Int64(0)
        assert_equal(one.join_neighbours(5, Team(1), watch, fresh), DONE)
        assert_equal(three.join_neighbours(5, Team(3), watch, also), DONE)
        assert_equal(fresh, also)
        assert_equal(one.pairs, three.pairs)
        assert_true(one.pairs < Int64(count * (count - 1)))
        for row in range(count):
            for i in range(one.lists.room):
                var entry = one.lists.list(row)[unsafe_offset=i]
                assert_equal(entry, three.lists.list(row)[unsafe_offset=i])
                assert_true(i == 0 or one.lists.list(row)[unsafe_offset=i - 1] <= entry)
                if entry != EMPTY_ENTRY:
                    assert_true(node_of(entry) != row)
                    assert_equal(key_of(entry), apart(one.codes, row, node_of(entry)))


def test_every_row_is_in_its_groups() raises:
    seed(4)
    var dim = 8
    var count = 1000
    var rows = random_rows(count, dim, 5)
    for row in range(300):  # more copies than a group may have
        for i in range(dim):
            rows[row * dim + i] = 1
    var join = begun(rows, count, dim, 8)
    var partition = Partition()
    var watch = Unwatched()
    var codes = Pointer(to=join.codes).unsafe_origin_cast[MutUntrackedOrigin]()
    assert_equal(partition.make(codes, 50, 3, 7, Team(2), watch), DONE)
    var times = List[Int](length=count, fill=0)
    for group in range(partition.count()):
        var size = partition.size(group)
        assert_true(size > 1 and size <= 200)
        assert_true(group == 0 or size <= partition.size(group - 1))
        for i in range(size):
            times[Int(partition.begin(group)[unsafe_offset=i])] += 1
            if i > 0:
                assert_true(
                    partition.begin(group)[unsafe_offset=i]
                    > partition.begin(group)[unsafe_offset=i - 1]
                )
    var seen = List[Int](length=count, fill=0)
    for i in range(count):
        seen[Int(partition.order[unsafe_offset=i])] += 1
    for row in range(count):
        assert_equal(seen[row], 1)
        assert_true(times[row] <= 3 and times[row] >= 2)  # a group of one is none
    _ = join^


def test_neighbours_of_neighbours_meet() raises:
    """Each row brings together those that were not together: compared with sets made by hand."""
    seed(5)
    var dim = 6
    var count = 200
    var rows = random_rows(count, dim, 6)
    var join = begun(rows, count, dim, 8)
    var watch = Unwatched()
    assert_equal(join.join_groups(30, 1, 0, Team(1), watch), DONE)
    comptime WIDTH = 4
    var before = List[List[Int64]]()
    for row in range(count):
        var entries = List[Int64]()
        for i in range(join.lists.room):
            entries.append(join.lists.list(row)[unsafe_offset=i])
        before.append(entries^)
    # who may be a guest of whom, by hand; of those that come back the list keeps the nearest 8
    var wanted = List[List[Int64]]()
    for row in range(count):
        var entries = before[row].copy()
        wanted.append(entries^)
    for row in range(count):
        var guests = List[Int]()
        for i in range(WIDTH):
            if before[row][i] != EMPTY_ENTRY:
                guests.append(node_of(before[row][i]))
        var back = List[Int64]()
        for other in range(count):
            for i in range(WIDTH):
                var entry = before[other][i]
                if entry != EMPTY_ENTRY and node_of(entry) == row:
                    back.append(entry_of(key_of(entry), other))
        sort(back)
        for i in range(min(8, len(back))):
            var node = node_of(back[i])
            var there = False
            for guest in guests:
                there = there or guest == node
            if not there and len(guests) < 12:
                guests.append(node)
        for a in guests:
            for b in guests:
                if a != b:
                    var entry = entry_of(apart(join.codes, a, b), b)
                    var there = False
                    for known in wanted[a]:
                        there = there or known == entry
                    if not there:
                        wanted[a].append(entry)
    var fresh = Int64(0)
    assert_equal(join.join_neighbours(WIDTH, Team(1), watch, fresh), DONE)
    assert_true(fresh > 0)
    for row in range(count):
        sort(wanted[row])
        for i in range(join.lists.room):
            assert_equal(join.lists.list(row)[unsafe_offset=i] & ~1, wanted[row][i] & ~1)
    # with nothing new, nothing is compared
    for _ in range(6):
        assert_equal(join.join_neighbours(WIDTH, Team(1), watch, fresh), DONE)
    assert_equal(fresh, 0)
    var pairs = join.pairs
    assert_equal(join.join_neighbours(WIDTH, Team(1), watch, fresh), DONE)
    assert_equal(join.pairs, pairs)


def test_lists_keep_the_least_whatever_the_order() raises:
    seed(6)
    var lists = NearestLists(1, 9)
    assert_equal(lists.room, 16)
    var other = NearestLists(1, 9)
    var taken = List[Int64]()
    for row in range(200):
        taken.append(entry_of(Int32(random_si64(0, 50)), row))
    for i in range(200):
        _ = lists.offer(0, taken[i])
        _ = lists.offer(0, taken[i] | 1)  # the same one
        var room = other.room
        assert_equal(
            insert(other.list(0), room, taken[199 - i]), key_of(other.list(0)[unsafe_offset=15])
        )
    sort(taken)
    for i in range(16):
        assert_equal(lists.list(0)[unsafe_offset=i] & ~1, taken[i])
        assert_equal(other.list(0)[unsafe_offset=i], taken[i])
    assert_equal(lists.bound(0), key_of(taken[15]))
    var merged = NearestLists(1, 9)
    for i in range(16, 32):
        _ = merged.offer(0, taken[i])
    merged.merge(0, lists.list(0))
    for i in range(16):
        assert_equal(merged.list(0)[unsafe_offset=i] & ~1, taken[i])
    _ = lists^


struct Never(Watch):
    """Ends everything."""

    def __init__(out self):
        pass

    def proceed(mut self, done: Int) -> Bool:
        return False

    def advance(mut self, base: Int):
        pass

    def conclude(mut self, done: Int) -> Bool:
        return False


def test_a_watch_ends_each_step() raises:
    var rows = random_rows(3000, 4, 50)
    var join = begun(rows, 3000, 4, 8)
    var never = Never()
    var watch = Unwatched()
    var fresh = Int64(0)
    assert_equal(join.join_groups(50, 2, 0, Team(1), never), STOPPED)
    assert_equal(join.join_groups(50, 2, 0, Team(1), watch), DONE)
    assert_equal(join.join_neighbours(4, Team(1), never, fresh), STOPPED)


def test_the_largest_rows_fit() raises:
    """The squared distance of two codes of the most elements is no more than 32 bits hold."""
    assert_true(MOST_ELEMENTS * 254 * 254 < 1 << 31)


def main() raises:
    TestSuite.discover_tests[__functions_in_module()]().run()
