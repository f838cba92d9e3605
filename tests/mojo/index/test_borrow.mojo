"""Borrowed rows: when they are copied, when their owner gets them back."""
from std.testing import TestSuite, assert_equal, assert_false, assert_true

from vicinal.index.borrowed_rows import (
    FREE_TO_STAY,
    GAPS,
    HAS_ROWS,
    UNIT_LENGTH,
    must_copy,
    returnable,
)
from vicinal.index.vector_index import Index
from vicinal.index.vectors import BORROWED, GIVEN_UP, OWN
from vicinal.system.memory import Ptr, allocate, release
from vicinal.system.outcome import DONE
from vicinal.system.parallel import Unwatched
from vicinal.update.add import do_change
from vicinal.update.transaction import Change

comptime DIM = 8


def add(mut index: Index, rows: Ptr[Float32], count: Int, lent: Bool) raises:
    """Adds rows, which may have to stay where they are."""
    var change = Change()
    assert_equal(change.begin_insert(index, 0, count, False), DONE)
    change.lent = lent
    var watch = Unwatched()
    assert_equal(do_change(index, change, Int(rows), 1, watch), DONE)
    change.commit(index)
    change.finish(index)


def some_rows(count: Int) -> Ptr[Float32]:
    var rows = allocate[Float32](count * DIM)
    for i in range(count * DIM):
        rows[unsafe_offset=i] = Float32((i * 7919) % 1009)
    return rows


def test_rows_are_given_back_when_nobody_reads() raises:
    var rows = some_rows(1200)
    var index = Index(0, 0, DIM, 8, 20, 0, 1000, 0)
    assert_equal(must_copy(index), FREE_TO_STAY)
    add(index, rows, 1200, True)
    assert_equal(index.vectors.borrowed, BORROWED)
    assert_equal(index.rows().base, Int(rows))
    assert_equal(must_copy(index), HAS_ROWS)
    assert_false(returnable(index), "they are in use")
    var reader = index.readers.claim()
    add(index, rows, 3, False)
    assert_equal(index.vectors.borrowed, GIVEN_UP)
    assert_true(index.rows().base != Int(rows))
    for i in range(1200 * DIM):
        assert_equal(index.vectors.column.ptr[Float32]()[unsafe_offset=i], rows[unsafe_offset=i])
    assert_false(returnable(index), "a search has begun before")
    var second = index.readers.claim()  # begins when the rows are elsewhere
    index.readers.release(reader)
    assert_true(returnable(index))
    assert_equal(index.vectors.borrowed, OWN)
    assert_false(returnable(index), "they go back once")
    index.readers.release(second)
    release(rows)
    _ = index^


def test_what_cannot_stay() raises:
    assert_equal(must_copy(Index(2, 0, DIM, 8, 20, 0, 1000, 0)), UNIT_LENGTH)
    assert_equal(must_copy(Index(2, 4, DIM, 8, 20, 0, 1000, 0)), FREE_TO_STAY)
    assert_equal(must_copy(Index(0, 0, 65, 8, 20, 0, 1000, 0)), GAPS)
    assert_equal(must_copy(Index(0, 4, 65, 8, 20, 0, 1000, 0)), GAPS)
    assert_equal(must_copy(Index(0, 1, 65, 8, 20, 0, 1000, 0)), FREE_TO_STAY)


def main() raises:
    TestSuite.discover_tests[__functions_in_module()]().run()
