"""The mask of a filter and the list of what a range search found, against the obvious."""
from std.random import random_si64, seed
from std.testing import TestSuite, assert_equal, assert_false, assert_true

from vicinal.index.vector_index import Index
from vicinal.rows.visibility import Visibility
from vicinal.search.filter import Filter, widened
from vicinal.system.array import GrowableArray
from vicinal.system.memory import Ptr, allocate, release
from vicinal.system.outcome import DONE
from vicinal.update.transaction import Change


def flags_of(rows: Int, one_in: Int) -> Ptr[UInt8]:
    """Returns a byte for each row, one in so many of them not zero."""
    var flags = allocate[UInt8](rows)
    for i in range(rows):
        flags[unsafe_offset=i] = UInt8(i % 255 + 1) if random_si64(
            0, Int64(one_in) - 1
        ) == 0 else UInt8(0)
    return flags


def check_list(mut filter: Filter, allowed: List[Int], wanted: Int) raises:
    filter.list_rows(wanted)
    assert_equal(filter.num_listed, wanted)
    for i in range(wanted):
        assert_equal(Int(filter.listed[unsafe_offset=i]), allowed[i * len(allowed) // wanted])


def test_flags() raises:
    seed(1)
    for rows in [0, 1, 63, 64, 65, 128, 1000, 4096]:
        for one_in in [1, 2, 40, 5000]:
            var flags = flags_of(rows, one_in)
            var filter = Filter(rows, 0)
            filter.allow_flags(flags, rows, Visibility.of_all(rows))
            var allowed = List[Int]()
            for row in range(rows):
                assert_equal(filter.has(row), flags[unsafe_offset=row] != 0)
                if flags[unsafe_offset=row] != 0:
                    allowed.append(row)
            assert_false(filter.has(rows))
            assert_equal(filter.matches, len(allowed))
            check_list(filter, allowed, len(allowed))
            for wanted in [1, 7, 32]:
                check_list(filter, allowed, min(wanted, len(allowed)))
            var bits = allocate[UInt8](rows // 8 + 1)
            for i in range(rows // 8 + 1):
                bits[unsafe_offset=i] = 0xFF  # what lies behind the last row must not count
            for row in range(rows):
                if flags[unsafe_offset=row] == 0:
                    bits[unsafe_offset=row // 8] &= ~(UInt8(1) << UInt8(row % 8))
            var packed = Filter(rows, 0)
            packed.allow_bits(bits, rows, Visibility.of_all(rows))
            assert_equal(packed.matches, len(allowed))
            for row in range(rows + 1):
                assert_equal(packed.has(row), filter.has(row))
            release(bits)
            release(flags)


def test_ids() raises:
    var index = Index(0, 0, 2, 16, 200, 0, 1000, 0)
    var given = allocate[Int64](6)
    for i, id in enumerate([10, -3, 7, 40, 41, 42]):
        given[unsafe_offset=i] = Int64(id)
    var change = Change()
    assert_equal(change.begin_insert(index, Int(given), 6, False), DONE)
    index.count = 6
    index.states.publish(1, 6)
    var filter = Filter(5, 6)  # made before the last row came
    for i, id in enumerate([41, 42, 7, 8, 7, 10]):
        given[unsafe_offset=i] = Int64(id)
    filter.allow_ids(index, given, 6)
    assert_equal(filter.matches, 3)
    for row in range(6):
        assert_equal(filter.has(row) if row < 6 else False, row == 0 or row == 2 or row == 4)
    release(given)


def test_widened() raises:
    assert_true(widened(100, 1, 1) >= 100)
    var before = widened(100, 1, 1)
    for share in range(2, 200):
        var now = widened(100, 1, share)
        assert_true(now >= before and now <= 115 * share)
        before = now


def test_sorted() raises:
    seed(2)
    for size in [0, 1, 2, 3, 63, 64, 65, 255, 256, 5000]:
        var found = GrowableArray()
        var sum = Int64(0)
        for _ in range(size):
            found.push(random_si64(-50, 50) << Int64(size % 37))
            sum += found.at(found.size - 1)[]
        found.sort()
        assert_equal(found.size, size)
        for i in range(size):
            sum -= found.at(i)[]
            assert_true(i == 0 or found.at(i - 1)[] <= found.at(i)[])
        assert_equal(sum, 0)


def main() raises:
    TestSuite.discover_tests[__functions_in_module()]().run()
