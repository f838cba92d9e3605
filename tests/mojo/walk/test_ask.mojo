"""What is asked for of rows on disk: every page of every row, neighbouring ones together, nothing twice."""
from std.testing import TestSuite, assert_equal, assert_true

from vicinal.kernels.space import Rows
from vicinal.system.memory import Column
from vicinal.system.pages import ReadAhead, page_bytes
from vicinal.walk.ask import TOGETHER, ask_for_selected
from vicinal.walk.scratch import Scratch

comptime ROWS = 6000
comptime STRIDE = 3072


def _asked(numbers: List[Int]) raises -> Tuple[Int, Int]:
    """Returns requests and bytes for rows in the order given."""
    var memory = Column()
    assert_true(memory.grow(ROWS * STRIDE))
    var scratch = Scratch()
    for i in range(len(numbers)):
        scratch.selected[unsafe_offset=i] = UInt32(numbers[i])
    ask_for_selected(Rows(memory.address, STRIDE, STRIDE // 4, 0), scratch, len(numbers))
    for i in range(1, len(numbers)):
        assert_true(scratch.selected[unsafe_offset=i - 1] <= scratch.selected[unsafe_offset=i])
    var told = (scratch.requests, scratch.request_bytes)
    _ = memory^
    return told


def _reference(numbers: List[Int]) raises -> Tuple[Int, Int]:
    """Does the same page by page: a row goes on with a request that ends where it begins, or stays small with it.
    """
    var page = page_bytes()
    var requests = 0
    var bytes = 0
    var start = -1
    var end = -1
    for row in range(ROWS):  # in order, whatever the order of the list
        var wanted = False
        for i in range(len(numbers)):
            wanted = wanted or numbers[i] == row
        if not wanted:
            continue
        var low = row * STRIDE // page * page
        var high = ((row + 1) * STRIDE + page - 1) // page * page
        if start >= 0 and (low <= end or high - start <= TOGETHER):
            bytes += max(high - end, 0)
            end = max(end, high)
        else:
            requests += 1
            bytes += high - low
            start = low
            end = high
    return (requests, bytes)


def _compare(numbers: List[Int]) raises:
    var told = _asked(numbers)
    var wanted = _reference(numbers)
    assert_equal(told[0], wanted[0])
    assert_equal(told[1], wanted[1])


def test_neighbouring_rows_are_one_request() raises:
    var one: List[Int] = [5]
    _compare(one)
    var many: List[Int] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    _compare(many)
    var equal: List[Int] = [7, 7, 7]
    _compare(equal)
    var apart: List[Int] = [0, 5999, 3000]
    _compare(apart)
    var spread: List[Int] = [10, 14, 18, 22, 26, 30]
    _compare(spread)
    var mixed: List[Int] = [5000, 103, 2, 100, 1, 0]
    _compare(mixed)
    if page_bytes() == 4096:
        var told = _asked(mixed)
        assert_equal(told[0], 3)
        assert_equal(told[1], 7 * 4096)


def test_no_rows_are_no_request() raises:
    var told = _asked(List[Int]())
    assert_equal(told[0], 0)
    assert_equal(told[1], 0)


def test_what_is_read_in_order_is_asked_for_once() raises:
    var memory = Column()
    var size = 5 << 20
    assert_true(memory.grow(size))
    var ahead = ReadAhead.of(memory.address, size, True)
    var before = 0
    for offset in range(0, size, 4096):
        ahead.reach(offset)
        assert_true(ahead.asked > offset or ahead.asked == size)
        assert_true(ahead.asked >= before)
        before = ahead.asked
    assert_equal(ahead.asked, size)
    var not_on_disk = ReadAhead.of(memory.address, size, False)
    not_on_disk.reach(0)
    assert_equal(not_on_disk.asked, size)
    _ = memory^


def main() raises:
    TestSuite.discover_tests[__functions_in_module()]().run()
