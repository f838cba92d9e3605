"""How often a long call asks its watch whether to go on: counted, since how long that takes depends on the machine."""
from std.testing import TestSuite, assert_equal, assert_true

from sample_graph import Sample
from vicinal.exact.flat import search_exact
from vicinal.exact.request import SearchRequest
from vicinal.exact.scan import RowSource
from vicinal.graph.undo import UndoLog
from vicinal.kernels.space import L2, MetricSpace, Rows
from vicinal.system.memory import allocate, allocate_zeroed, release
from vicinal.system.outcome import DONE
from vicinal.system.parallel import Team, Watch


struct Steps(Watch):
    """Notes how far the work comes between two questions."""

    var last: Int
    var largest: Int
    var questions: Int

    def __init__(out self):
        self.last = 0
        self.largest = 0
        self.questions = 0

    def proceed(mut self, done: Int) -> Bool:
        """Goes on."""
        self.largest = max(self.largest, done - self.last)
        self.last = done
        self.questions += 1
        return True

    def advance(mut self, base: Int):
        """Takes no note."""
        pass

    def conclude(mut self, done: Int) -> Bool:
        """Keeps what was done."""
        return True


def test_exact_search_asks_after_a_sixteenth() raises:
    comptime ROWS = 20_000
    comptime DIM = 8
    comptime S = MetricSpace[L2, DType.float32]
    var rows = allocate_zeroed[Float32](ROWS * DIM)
    for num_queries in [1, 4, 64, 300]:  # row by row, and in tiles
        var ids = allocate[Int64](num_queries)
        var distances = allocate[Float32](num_queries)
        var watch = Steps()
        var status = search_exact[S](
            RowSource(Rows(Int(rows), 4 * DIM, DIM, 0), ROWS, False),
            True,
            SearchRequest(Int(rows), num_queries, 1, 1, ids, distances, 1),
            Team(1),
            64 << 20,
            watch,
        )
        assert_equal(status, DONE)
        assert_true(watch.questions >= 15)
        assert_true(watch.largest <= ROWS // 16)
        release(ids)
        release(distances)
    release(rows)


def test_linking_asks_in_every_round() raises:
    comptime ROWS = 3000
    var sample = Sample(ROWS, 4)
    var log = UndoLog(sample.graph)
    var watch = Steps()
    assert_equal(sample.link(ROWS, 20, 1, log, watch), DONE)
    # rows of a round are a part of those that are linked: about 16 rounds double a graph
    assert_true(watch.questions >= 100)
    _ = sample^


def main() raises:
    TestSuite.discover_tests[__functions_in_module()]().run()
