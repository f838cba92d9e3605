"""Loops over all rows ask their watch between pieces, and end when it says so."""
from std.testing import TestSuite, assert_equal, assert_false, assert_true

from vicinal.exact.request import SearchRequest
from vicinal.index.first_use import CHUNK, KnownIds, KnownStrings, catch_up
from vicinal.index.vector_index import Index
from vicinal.kernels.space import L2
from vicinal.quantization.code_table import NO_CODES
from vicinal.search.batch import SCAN_WORK, search_many
from vicinal.system.memory import allocate, release
from vicinal.system.outcome import DONE, Outcome, STOPPED
from vicinal.system.parallel import Unwatched, Watch
from vicinal.update.add import add_rows


struct Counting(Watch):
    """Counts how often it is asked, and ends the work after some times."""

    var asked: Int
    var most: Int

    def __init__(out self, most: Int):
        self.asked = 0
        self.most = most

    def proceed(mut self, done: Int) -> Bool:
        self.asked += 1
        return self.asked <= self.most

    def advance(mut self, base: Int):
        pass

    def conclude(mut self, done: Int) -> Bool:
        return True


def filled(rows: Int, dim: Int, exact_below: Int, first_id: Int = 0) raises -> Index:
    """Makes an index of float32 rows that are all different."""
    var index = Index(L2, 0, dim, 4, 4, 1, exact_below, 1 + NO_CODES)
    var source = allocate[Float32](rows * dim)
    var ids = allocate[Int64](rows)
    for row in range(rows):
        ids[unsafe_offset=row] = Int64(first_id + row)
        for j in range(dim):
            source[unsafe_offset=row * dim + j] = Float32(row if j == 0 else j)
    var watch = Unwatched()
    assert_equal(add_rows(index, Int(source), Int(ids), rows, 2, watch), DONE)
    release(source)
    release(ids)
    return index^


def scan(mut index: Index, k: Int, mut watch: Counting) -> Outcome:
    """Searches for one query of zeros."""
    var query = allocate[Float32](index.dim)
    for j in range(index.dim):
        query[unsafe_offset=j] = 0
    var ids = allocate[Int64](k)
    var distances = allocate[Float32](k)
    var status = search_many(index, SearchRequest(Int(query), 1, k, k, ids, distances, 1), watch)
    release(query)
    release(ids)
    release(distances)
    return status


def test_a_scan_for_one_query_asks_between_pieces() raises:
    var dim = 256
    var rows = SCAN_WORK // dim + 1
    var index = filled(rows, dim, rows + 1)
    var patient = Counting(1 << 30)
    assert_equal(scan(index, 10, patient), DONE)
    assert_true(patient.asked >= 8)
    var hasty = Counting(3)
    assert_equal(scan(index, 10, hasty), STOPPED)
    assert_equal(hasty.asked, 4)


def test_ids_are_learnt_in_pieces() raises:
    var rows = 3 * CHUNK + 5
    var index = filled(rows, 1, rows + 1, first_id=7)
    for most in [0, 1, 3, 5, 7]:
        var hasty = Counting(most)
        var known = KnownIds()
        assert_equal(known.learn(index, hasty), STOPPED)
        assert_equal(hasty.asked, most + 1)
    var watch = Counting(1 << 30)
    var known = KnownIds()
    assert_equal(known.learn(index, watch), DONE)
    assert_equal(watch.asked, 8)
    assert_false(known.automatic)
    index.ids.known = False
    index.ids.map.clear()
    known.give(index)
    for row in [0, 1, CHUNK, rows - 1]:
        assert_equal(index.row_of(Int64(row + 7)), row)
    assert_equal(index.row_of(6), -1)
    assert_equal(index.row_of(Int64(rows + 7)), -1)


def test_ids_that_are_row_numbers_need_no_table() raises:
    var index = filled(2 * CHUNK, 1, 4 * CHUNK)
    var watch = Counting(1 << 30)
    var known = KnownIds()
    assert_equal(known.learn(index, watch), DONE)
    assert_true(known.automatic)
    assert_equal(known.map.room, 0)
    assert_equal(watch.asked, 2)


def test_copies_are_caught_up_in_pieces() raises:
    var rows = 2 * CHUNK + 3
    var index = filled(rows, 2, rows + 1)
    index.graph[].linked = rows  # as if it had a graph and was just opened
    var hasty = Counting(1)
    assert_equal(catch_up(index, hasty), STOPPED)
    assert_equal(index.duplicates.seen, CHUNK)
    var watch = Counting(1 << 30)
    assert_equal(catch_up(index, watch), DONE)
    assert_equal(watch.asked, 2)
    assert_equal(index.duplicates.seen, rows)
    var stored = index.rows()
    for row in [0, CHUNK, rows - 1]:
        assert_true(index.duplicates.find(stored, row) >= 0)
    assert_equal(catch_up(index, watch), DONE)
    assert_equal(watch.asked, 2)


def test_strings_are_learnt_in_pieces() raises:
    var index = Index(L2, 0, 1, 4, 4, 1, 1000, 1 + NO_CODES)
    ref strings = index.ids.strings
    strings.used = True
    var count = CHUNK + 9
    for number in range(count):
        var name = String(number)
        assert_equal(strings.add(Int(name.unsafe_ptr()), name.byte_length()), number)
        _ = name^
    strings.held = 0
    strings.room = 0
    for most in [0, 1, 2, 3]:
        var hasty = Counting(most)
        var known = KnownStrings()
        assert_equal(known.learn(strings, hasty), STOPPED)
    var watch = Counting(1 << 30)
    var known = KnownStrings()
    assert_equal(known.learn(strings, watch), DONE)
    assert_equal(watch.asked, 4)
    known.give(strings)
    assert_equal(strings.held, count)
    for number in [0, 1, CHUNK, count - 1]:
        var name = String(number)
        assert_equal(strings.find(Int(name.unsafe_ptr()), name.byte_length()), number)
        _ = name^


def main() raises:
    TestSuite.discover_tests[__functions_in_module()]().run()
