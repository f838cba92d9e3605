"""Copies: the table against a search through all rows, rings against lists, expanded results against sorting."""
from std.random import random_ui64, seed
from std.testing import TestSuite, assert_equal, assert_false, assert_true

from vicinal.kernels.candidates import Candidates, entry_of, node_of
from vicinal.kernels.space import Rows
from vicinal.rows.duplicates import REPRESENTATIVE, Duplicates
from vicinal.rows.equal_rows import ABSENT, BEYOND, SINGLE, EqualRows
from vicinal.rows.row_states import PENDING
from vicinal.rows.row_targets import TargetRows
from vicinal.rows.same_bytes import same_row
from vicinal.rows.visibility import NEVER_VISIBLE, RowStates, Visibility
from vicinal.system.memory import Ptr, allocate_zeroed, no_block, release
from vicinal.system.pages import PageUse
from vicinal.system.parallel import Team, Unwatched

comptime ROWS = 700


struct Bytes(Movable):
    """Rows of few different values."""

    var values: Ptr[UInt8]
    var rows: Rows

    def __init__(out self, stride: Int, kinds: Int):
        self.values = allocate_zeroed[UInt8](ROWS * stride)
        self.rows = Rows(Int(self.values), stride, stride, 0)
        for row in range(ROWS):
            var kind = Int(random_ui64(0, UInt64(kinds - 1)))
            self.values[unsafe_offset=row * stride + kind % stride] = UInt8(1 + kind // stride)

    def __deinit__(deinit self):
        release(self.values)

    def first_like(self, row: Int, present: List[Bool]) -> Int:
        """Returns the first row present that equals another, or -1."""
        for other in range(row):
            if present[other] and same_row(self.rows, other, row):
                return other
        return -1


def test_table_finds_equal_rows() raises:
    seed(1)
    for stride in [1, 3, 7, 8, 9, 31, 32, 33, 64, 100]:
        for kinds in [1, 40, 5000]:
            var sample = Bytes(stride, min(kinds, 200 * stride))
            var duplicates = Duplicates()
            var present = List[Bool](length=ROWS, fill=False)
            for row in range(ROWS):
                var found = duplicates.representative(sample.rows, row)
                assert_equal(found, sample.first_like(row, present))
                present[row] = found < 0
                if row % 5 == 4:  # some rows leave again
                    var gone = Int(random_ui64(0, UInt64(row)))
                    duplicates.forget(sample.rows, gone)
                    present[gone] = False


def test_all_workers_find_what_one_finds() raises:
    seed(3)
    var unwatched = Unwatched()
    var beyond = 0
    for kinds in [1, 30, 3000]:
        for workers in [1, 3]:
            var sample = Bytes(16, kinds)
            var states = RowStates()
            assert_true(states.prepare(ROWS, 0))
            for row in range(100, ROWS, 7):
                states.set(row, PENDING)  # goes, and takes no part
            var one = Duplicates()
            var all = Duplicates()
            for row in range(100):  # there before
                assert_equal(
                    one.representative(sample.rows, row), all.representative(sample.rows, row)
                )
            var equal = EqualRows(
                all,
                sample.rows,
                PageUse.in_memory(),
                TargetRows.from_row(100),
                ROWS - 100,
                states.address(),
                no_block[UInt32](),
                Team(workers),
                unwatched,
            )
            assert_false(equal.failed or equal.ended)
            for i in range(ROWS - 100):
                var row = 100 + i
                var answer = equal.answers[unsafe_offset=i]
                if states.of(row) == PENDING:
                    assert_equal(answer, ABSENT)
                    continue
                beyond += Int(answer == BEYOND)
                var found = -1 if answer == SINGLE else Int(answer)
                if answer == BEYOND:
                    found = all.representative(sample.rows, row)
                assert_equal(found, one.representative(sample.rows, row))
            assert_equal(all.held, one.held)
            assert_true(all.shrink())
            for row in range(ROWS):
                assert_equal(all.find(sample.rows, row), one.find(sample.rows, row))
            _ = equal^
            _ = states^
    assert_true(beyond > 0, "some rows leave their region, or that was not tried")


def test_failed_additions_are_forgotten() raises:
    seed(2)
    var sample = Bytes(5, 300)
    var duplicates = Duplicates()
    var present = List[Bool](length=ROWS, fill=False)
    for row in range(300):
        present[row] = duplicates.representative(sample.rows, row) < 0
    for row in range(300, 600):
        _ = duplicates.representative(sample.rows, row)
    for row in range(300, 600):
        duplicates.forget(sample.rows, row)
    for row in range(300, ROWS):
        var found = duplicates.representative(sample.rows, row)
        assert_equal(found, sample.first_like(row, present))
        present[row] = found < 0


def test_of_equal_rows_the_one_with_copies_is_found() raises:
    """Rows that a file of version 1 holds twice are both linked; copies were looked for behind the first of them.
    """
    var sample = Bytes(4, 1)  # all rows are equal
    for first in range(4):
        var duplicates = Duplicates()
        assert_true(duplicates.grow(6))
        duplicates.append(3, 4)
        duplicates.append(3, 5)
        duplicates.seen = first
        assert_true(duplicates.catch_up(sample.rows, 6, 0))
        assert_equal(duplicates.find(sample.rows, 4), 3)
        assert_equal(duplicates.seen, 6)


def test_rings() raises:
    seed(3)
    var sample = Bytes(2, 60)
    var duplicates = Duplicates()
    assert_true(duplicates.grow(ROWS))
    var rings = List[List[Int]](length=ROWS, fill=List[Int]())
    var all = 0
    for row in range(ROWS):
        var representative = duplicates.representative(sample.rows, row)
        if representative >= 0:
            duplicates.append(representative, row)
            rings[representative].append(row)
            all += 1
    assert_equal(duplicates.count, all)
    for row in range(ROWS):
        var num_duplicates = False
        for ring in rings:
            num_duplicates = num_duplicates or row in ring
        assert_equal(duplicates.is_duplicate(row), num_duplicates)
    var found = Candidates()
    var expanded = Candidates()
    for k in [1, 2, 10, 100, ROWS]:
        found.reset(20)
        var wanted = List[Int64]()
        for row in range(ROWS):
            if duplicates.is_duplicate(row) or found.size == 20:
                continue
            var key = Int32(random_ui64(0, 5))
            found.insert(entry_of(key, row))
            wanted.append(entry_of(key, row))
            for copy in rings[row]:
                wanted.append(entry_of(key, copy))
        sort(wanted)
        duplicates.expand(found, expanded, k, Visibility.of_all(ROWS))
        assert_equal(expanded.size, min(k, len(wanted)))
        for i in range(expanded.size):
            assert_equal(expanded.entries[unsafe_offset=i], wanted[i])


def test_rings_get_shorter() raises:
    """Copies that go are hidden at once, then taken out; the others stay, in their order."""
    seed(5)
    var sample = Bytes(2, 60)
    for share in [1, 30, 70, 100]:
        var duplicates = Duplicates()
        assert_true(duplicates.grow(ROWS))
        var states = RowStates()
        assert_true(states.prepare(ROWS, 0))
        var rings = List[List[Int]](length=ROWS, fill=List[Int]())
        var left = 0
        for row in range(ROWS):
            var representative = duplicates.representative(sample.rows, row)
            assert_equal(
                duplicates.find(sample.rows, row), row if representative < 0 else representative
            )
            if representative >= 0:
                duplicates.append(representative, row)
                if Int(random_ui64(0, 99)) < share:
                    states.set(row, PENDING)
                    states.stamp(row, NEVER_VISIBLE)
                else:
                    rings[representative].append(row)
                    left += 1
        var found = Candidates()
        var expanded = Candidates()
        for cut in range(2):
            for row in range(ROWS):
                if duplicates.is_duplicate(row) or duplicates.find(sample.rows, row) != row:
                    continue
                assert_equal(duplicates.stays(row, states.address()), len(rings[row]) > 0)
                found.reset(1)
                found.insert(entry_of(5, row))
                var visible = states.visibility(UInt64(ROWS))
                duplicates.sweep(visible, found)
                duplicates.expand(found, expanded, ROWS, visible)
                assert_equal(expanded.size, 1 + len(rings[row]))
                for i in range(len(rings[row])):
                    assert_equal(expanded.node(1 + i), rings[row][i])
            if cut == 0:
                for row in range(ROWS):
                    if not duplicates.is_duplicate(row):
                        duplicates.shorten(row, states.address())
        assert_equal(duplicates.count, left)
        _ = states^


def test_rings_of_a_damaged_file() raises:
    """Whatever stands in them, only rows that exist come out, and it ends."""
    seed(4)
    var states = RowStates()
    assert_true(states.prepare(ROWS, 0))
    for row in range(ROWS):
        states.set(row, PENDING)
    var duplicates = Duplicates()
    assert_true(duplicates.grow(ROWS))
    duplicates.count = 1
    var found = Candidates()
    var expanded = Candidates()
    for _ in range(200):
        for row in range(ROWS):
            duplicates.next.ptr[UInt32]()[unsafe_offset=row] = UInt32(
                random_ui64(0, UInt64(UInt32.MAX))
            )
        found.reset(5)
        for i in range(5):
            found.insert(entry_of(Int32(i), Int(random_ui64(0, ROWS - 1))))
        duplicates.expand(found, expanded, 50, Visibility.of_all(ROWS))
        for i in range(expanded.size):
            assert_true(node_of(expanded.entries[unsafe_offset=i]) < ROWS)
        var row = Int(random_ui64(0, ROWS - 1))
        _ = duplicates.stays(row, states.address())
        duplicates.shorten(row, states.address())
    _ = states^


def test_copies_put_in_anywhere_are_in_order() raises:
    """Places of removed rows are used again, so that a new copy may have to go before others."""
    seed(6)
    for in_file in range(2):  # whose rings may be in any order until they are put in order
        var duplicates = Duplicates()
        assert_true(duplicates.grow(ROWS))
        var rows = List[Int]()
        for row in range(1, ROWS):
            rows.append(row)
        for i in range(len(rows) - 1, 0, -1):
            rows.swap_elements(i, Int(random_ui64(0, UInt64(i))))
        if in_file == 1:
            var next = duplicates.next.ptr[UInt32]()
            for i in range(len(rows)):
                next[unsafe_offset=rows[i]] = UInt32(rows[(i + 1) % len(rows)])
            next[] = UInt32(rows[len(rows) - 1]) | REPRESENTATIVE
            duplicates.count = len(rows)
            duplicates.in_order = False
            assert_true(duplicates.put_in_order())
        else:
            for row in rows:
                duplicates.append(0, row)
        var last = duplicates.last_of(0, ROWS)
        var copy = duplicates.first_of(last, ROWS)
        for row in range(1, ROWS):
            assert_equal(copy, row)
            copy = duplicates.after(copy, last, ROWS)
        assert_equal(copy, -1)
        assert_equal(duplicates.count, ROWS - 1)


def test_a_walk_through_a_ring_that_gets_shorter() raises:
    """Wherever in the ring a search is when copies are taken out, it meets all that stay once, and comes to an end.
    """
    comptime COPIES = 12
    seed(7)
    for _ in range(300):
        var duplicates = Duplicates()
        assert_true(duplicates.grow(ROWS))
        var states = RowStates()
        assert_true(states.prepare(ROWS, 0))
        for copy in range(1, COPIES + 1):
            duplicates.append(0, copy)
            if random_ui64(0, 1) == 0:
                states.set(copy, PENDING)
        var steps = Int(random_ui64(0, COPIES))
        var last = duplicates.last_of(0, ROWS)
        var copy = duplicates.first_of(last, ROWS)
        var met = List[Int]()
        for step in range(ROWS):
            if step == steps:
                duplicates.shorten(0, states.address())
            if copy < 0:
                break
            met.append(copy)
            copy = duplicates.after(copy, last, ROWS)
        assert_equal(copy, -1)
        var next = 0
        for wanted in range(1, COPIES + 1):
            if states.of(wanted) == PENDING:
                continue
            while next < len(met) and met[next] < wanted:
                next += 1
            assert_true(next < len(met) and met[next] == wanted)
        for i in range(1, len(met)):
            assert_true(met[i] > met[i - 1], "no copy is met twice")
        _ = states^


def main() raises:
    TestSuite.discover_tests[__functions_in_module()]().run()
