"""Columns hold what was written while they grow, their readers read on, and they take addresses in proportion."""
from std.testing import TestSuite, assert_equal, assert_false, assert_true

from vicinal.system.memory import (
    GROWTH,
    HUGE_PAGE,
    MAPPED_FROM,
    Column,
    Ptr,
    allocate_zeroed,
    release,
)


def test_a_column_keeps_what_was_written() raises:
    for first in [1, 70_000, 5 << 20]:
        var column = Column()
        assert_true(column.grow(0))
        assert_equal(column.address, 0)
        assert_true(column.grow(first))
        var written = 0
        var bytes = first
        var places = 0
        while bytes <= 24 << 20:
            var before = column.address
            assert_true(column.grow(bytes))
            assert_equal(column.address % 64, 0)
            places += Int(column.address != before)
            assert_true(bytes <= column.usable and column.usable <= column.reserved)
            var p = column.ptr[UInt8]()
            # all that may be used: old bytes as they were written, new ones zero
            for i in range(0, written, 511):
                assert_equal(p[unsafe_offset=i], UInt8(i % 251 + 1))
            var sum = 0
            for i in range(written, column.usable):
                sum += Int(p[unsafe_offset=i])
                p[unsafe_offset=i] = UInt8(i % 251 + 1)
            assert_equal(sum, 0)
            written = column.usable
            bytes += bytes // 3 + 1
        # doublings while it is small; once it is mapped, one move in a growth of GROWTH
        assert_true(places <= (16 if first < MAPPED_FROM else 1))
        var usable = column.usable
        assert_true(column.grow(1))  # it never shrinks
        assert_equal(column.usable, usable)


def test_a_reader_of_the_old_place_reads_on() raises:
    var column = Column()
    var old: List[Ptr[UInt8]] = []
    for bytes in [1000, 5000, 70_000, 300_000, 2_000_000, 40_000_000]:
        assert_true(column.grow(bytes))
        var p = column.ptr[UInt8]()
        assert_equal(p[], UInt8(len(old)))  # what was written last
        assert_equal(p[unsafe_offset=bytes - 1], 0)
        for i in range(len(old)):  # and in each old place what was there when it was left
            assert_equal(old[i][], UInt8(i + 1))
        old.append(p)
        p[] = UInt8(len(old))
    assert_true(column.memory() - column.usable >= 2_375_000)
    column.free_retired()
    assert_equal(column.memory(), column.usable)
    assert_equal(column.ptr[UInt8]()[], 6)
    _ = column^


def test_a_column_takes_addresses_in_proportion() raises:
    for bytes in [1, 100, 10_000, 100_000, 1_000_000, 30_000_000]:
        var column = Column()
        assert_true(column.grow(bytes))
        assert_true(column.usable <= bytes + bytes // 4 + 65_536 * Int(bytes >= 900_000) + 64)
        assert_true(column.reserved <= GROWTH * (bytes + 65_600) + HUGE_PAGE)
        if bytes <= 100_000:
            assert_true(column.reserved <= bytes + 127)


def test_a_column_refuses_what_cannot_be() raises:
    for bytes in [1 << 50, 1 << 60, 1 << 61, 1 << 62, Int.MAX]:
        var column = Column()
        assert_false(column.grow(bytes))
        assert_equal(column.usable, 0)
        assert_true(column.grow(100))  # and goes on
        column.ptr[UInt8]()[unsafe_offset=99] = 7
        var before = (column.address, column.usable, column.reserved)
        assert_false(column.grow(bytes))
        assert_equal(column.address, before[0])
        assert_equal(column.usable, before[1])
        assert_equal(column.reserved, before[2])
        assert_equal(column.ptr[UInt8]()[unsafe_offset=99], 7)
        _ = column^  # a pointer into it does not keep it alive


def test_a_view_gives_nothing_back() raises:
    var memory = allocate_zeroed[UInt8](HUGE_PAGE)
    var column = Column()
    column.view(Int(memory), 1000)
    assert_equal(column.address, Int(memory))
    assert_true(column.grow(1000))
    assert_false(column.grow(1001))
    _ = column^
    memory[unsafe_offset=999] = 1  # still there
    release(memory)


def main() raises:
    TestSuite.discover_tests[__functions_in_module()]().run()
