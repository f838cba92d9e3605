"""Schedules of a writer and searches, those with few preemptions; `make sanitize` looks at more, and at broken rules."""
from std.testing import TestSuite, assert_equal, assert_true

from explorer import Scenario, explore, new_explorer, replay
from scenarios import Pins, names, on_heap, world
from vicinal.system.memory import Ptr
from vicinal.system.point import EXPLORED, point

comptime FEW = 1
"""Preemptions."""


struct Lost(Scenario):
    """Two threads count without an atomic operation."""

    var count: Int

    def __init__(out self):
        self.count = 0

    def threads(self) -> Int:
        return 2

    def begin(mut self):
        self.count = 0

    @staticmethod
    def run(it: Ptr[Self], thread: Int):
        for _ in range(2):
            point["read"]()
            var count = it[].count
            point["write"]()
            it[].count = count + 1

    def end(mut self) -> String:
        return "" if self.count == 4 else "counted " + String(self.count)


def test_the_explorer_finds_a_lost_update_and_repeats_it() raises:
    assert_true(EXPLORED, "compiled without -D EXPLORE")
    var scenario = on_heap(Lost())
    assert_equal(explore(new_explorer(0), scenario), "")
    var it = new_explorer(1)
    var found = explore(it, scenario)
    assert_true(found.startswith("counted 2; schedule ["), found)
    var schedule = List[Int]()
    for i in range(len(it[].choices)):
        if it[].choices[i].chosen != 0:
            schedule.append(i)
            schedule.append(it[].choices[i].chosen)
    for _ in range(2):
        assert_equal(replay(new_explorer(1), scenario, schedule), "counted 2")


def test_pins() raises:
    assert_equal(explore(new_explorer(FEW + 1), on_heap(Pins(1))), "")
    assert_equal(explore(new_explorer(FEW), on_heap(Pins(2))), "")


def test_a_writer_and_searches() raises:
    for name in names():
        assert_equal(explore(new_explorer(FEW), on_heap(world(name))), "", name)


def main() raises:
    TestSuite.discover_tests[__functions_in_module()]().run()
