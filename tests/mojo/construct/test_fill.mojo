"""Filling free slots equals a direct transcription, for any number of workers; it can be ended and undone."""
from std.random import seed
from std.testing import TestSuite, assert_equal, assert_false, assert_true

from sample_graph import Countdown, Sample
from vicinal.construct.fill import BATCH, NEAREST, THROUGH, refine_new_nodes, left_free
from vicinal.graph.undo import UndoLog
from vicinal.index.invariants import SOUND, check_graph
from vicinal.kernels.candidates import entry_of, node_of
from vicinal.kernels.space import L2, SQUARED_ALPHA
from vicinal.system.memory import allocate, release
from vicinal.system.outcome import DONE
from vicinal.system.parallel import Team, Unwatched, Watch


def fill_all[
    V: Watch
](mut sample: Sample, count: Int, threads: Int, log: UndoLog, mut watch: V) -> Bool:
    """Fills slots of every second row."""
    var places = allocate[UInt32](count)
    for i in range((count + 1) // 2):
        places[unsafe_offset=i] = UInt32(2 * i)
    var team = Team(threads)
    var done = refine_new_nodes(sample.work(team, log, 0), places, (count + 1) // 2, watch)
    _ = team^
    release(places)
    return done == DONE


def expected(sample: Sample, row: Int, cap: Int) -> List[Int]:
    """Returns the links that a row shall have."""
    var links = sample.links(0, row)
    if len(links) == 0:
        return links^
    var order = List[Int64]()
    var seen: List[Int] = [row]
    for link in links:
        seen.append(link)
    var own = sample.links(0, row)
    for i in range(min(THROUGH, len(own))):
        for other in sample.links(0, own[i]):
            if other not in seen:
                seen.append(other)
                order.append(entry_of(Int32(sample.distance(L2, row, other)), other))
    sort(order)
    for i in range(min(NEAREST, len(order))):
        var other = node_of(order[i])
        var good = True
        for link in links:
            var between = SQUARED_ALPHA * sample.distance(L2, other, link)
            good = good and between >= 5 * sample.distance(L2, other, row)
        if good and len(links) < cap - left_free(cap):
            links.append(other)
    return links^


def test_filling_equals_the_rule() raises:
    seed(1)
    comptime ROWS = 900
    comptime assert ROWS < BATCH  # all rows are looked at before any is changed
    for M in [2, 5, 16, 100]:
        var sample = Sample(ROWS, M)
        sample.link_all(ROWS, 20)
        var before = sample.bytes()
        var wanted = List[List[Int]]()
        var longer = 0
        for row in range(ROWS):
            wanted.append(
                expected(sample, row, sample.graph.cap(0)) if row % 2 == 0 else sample.links(0, row)
            )
            longer += len(wanted[row]) - len(sample.links(0, row))
        assert_true(longer > 20, String(longer))
        for threads in [1, 3]:
            var log = UndoLog(sample.graph)
            var watch = Unwatched()
            assert_true(fill_all(sample, ROWS, threads, log, watch))
            for row in range(ROWS):
                assert_equal(sample.links(0, row), wanted[row])
            assert_equal(check_graph(sample.graph, ROWS, False), SOUND)
            log.undo(sample.graph)
            assert_equal(sample.bytes(), before)


def test_filling_can_be_ended() raises:
    seed(2)
    comptime ROWS = 2 * BATCH + 600
    var sample = Sample(ROWS, 4)
    sample.link_all(ROWS, 6)
    var before = sample.bytes()
    for stop in [0, 1]:
        var log = UndoLog(sample.graph)
        var watch = Countdown(stop)
        assert_false(fill_all(sample, ROWS, 2, log, watch))
        log.undo(sample.graph)
        assert_equal(sample.bytes(), before)


def main() raises:
    TestSuite.discover_tests[__functions_in_module()]().run()
