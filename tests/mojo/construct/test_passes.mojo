"""The order of linking: all rows once, halves of halves, each pass ascending; a row sees those of its round that come before it."""
from std.testing import TestSuite, assert_equal, assert_false, assert_true

from sample_graph import DIM, Sample
from vicinal.construct.insertion import SIGHT
from vicinal.construct.passes import Passes
from vicinal.graph.undo import UndoLog
from vicinal.system.memory import allocate, release
from vicinal.system.outcome import DONE
from vicinal.system.parallel import Unwatched


def test_passes() raises:
    """The last pass has half of the rows, the one before it half as many, spread over all."""
    comptime ROWS = 10_000
    var places = allocate[UInt32](ROWS)
    for i in range(ROWS):
        places[unsafe_offset=i] = UInt32(3 * i + 5)
    var passes = Passes(11, places, ROWS, False)
    assert_false(passes.failed)
    assert_equal(passes.places[], places[])  # the first stays the first
    var seen = List[Bool](length=ROWS, fill=False)
    var begin = 1
    var size = 0
    while begin < ROWS:
        var end = passes.end(begin)
        assert_true(end > begin)
        size = end - begin
        for i in range(begin, end):
            assert_equal(passes.end(i), end)
            if i > begin:
                assert_true(passes.places[unsafe_offset=i] > passes.places[unsafe_offset=i - 1])
            var number = (Int(passes.places[unsafe_offset=i]) - 5) // 3
            assert_false(seen[number])
            seen[number] = True
        begin = end
    assert_true(ROWS * 48 < size * 100 < ROWS * 52)
    var early = 0
    for i in range(ROWS - size, ROWS):
        early += Int(passes.places[unsafe_offset=i] < UInt32(3 * ROWS // 2))
    assert_true(size * 45 < early * 100 < size * 55)
    _ = passes^

    var kept = Passes(11, places, ROWS, True)
    assert_equal(Int(kept.places), Int(places))
    assert_equal(kept.end(0), ROWS)
    _ = kept^
    release(places)


def test_rows_of_a_round_see_each_other() raises:
    """Many equal steps away from all others: each row links to the one before it, which is in its round.
    """
    comptime BEFORE = 256 * 40  # rounds of 40 rows
    comptime CAME = 40
    comptime assert CAME < SIGHT
    for threads in [1, 3]:
        var sample = Sample(BEFORE + CAME, 4)
        for row in range(BEFORE):
            for i in range(DIM):
                var value = sample.values[unsafe_offset=row * DIM + i]
                sample.values[unsafe_offset=row * DIM + i] = value // 4
        for i in range(CAME):
            for j in range(DIM):
                sample.values[unsafe_offset=(BEFORE + i) * DIM + j] = Int8(60 + i)
        sample.link_all(BEFORE, 16)
        var log = UndoLog(sample.graph)
        var watch = Unwatched()
        assert_equal(sample.link(BEFORE + CAME, 16, threads, log, watch), DONE)
        for row in range(BEFORE + 1, BEFORE + CAME):
            assert_true(row - 1 in sample.links(0, row))
            assert_true(row in sample.links(0, row - 1))


def main() raises:
    TestSuite.discover_tests[__functions_in_module()]().run()
