"""The beam equals a sorted list, the visited set a list of flags."""
from std.random import random_si64, random_ui64, seed
from std.testing import TestSuite, assert_equal, assert_false, assert_true

from vicinal.graph.links import MAX_ROWS
from vicinal.kernels.candidates import (
    EMPTY_ENTRY,
    STRAIGHT,
    WIDE,
    Candidates,
    entry_of,
    key_of,
    node_of,
)
from vicinal.kernels.space import KEY_MAX
from vicinal.walk.visited import Visited


struct SortedList(Movable):
    """What a beam is: entries in order, the worst dropped when there are too many."""

    var entries: List[Int64]
    """Not expanded ones; the mark is beside them."""
    var expanded: List[Bool]
    var limit: Int

    def __init__(out self, limit: Int):
        self.entries = []
        self.expanded = []
        self.limit = limit

    def worst(self) -> Int64:
        if len(self.entries) < self.limit:
            return EMPTY_ENTRY
        return self.entries[self.limit - 1]

    def insert(mut self, entry: Int64):
        var place = 0
        while place < len(self.entries) and self.entries[place] < entry:
            place += 1
        self.entries.insert(place, entry)
        self.expanded.insert(place, False)
        if len(self.entries) > self.limit:
            _ = self.entries.pop()
            _ = self.expanded.pop()

    def next(mut self, width: Int = 1 << 30) -> Int:
        for i in range(min(len(self.entries), width)):
            if not self.expanded[i]:
                self.expanded[i] = True
                return node_of(self.entries[i])
        return -1


def compare(mut beam: Candidates, wanted: SortedList) raises:
    """Compares all that the two hold."""
    assert_equal(beam.size, len(wanted.entries))
    beam.arrange()
    assert_equal(beam.size, len(wanted.entries))
    for i in range(beam.size):
        assert_equal(beam.entries[unsafe_offset=i] & ~1, wanted.entries[i])
        assert_equal(beam.entries[unsafe_offset=i] & 1 == 1, wanted.expanded[i])
        assert_equal(beam.key(i), key_of(wanted.entries[i]))
        assert_equal(beam.node(i), node_of(wanted.entries[i]))


def work(mut beam: Candidates, limit: Int, distinct_keys: Int64, every: Int = 16) raises:
    """Fills a beam well beyond its limit, taking nodes out on the way, and compares with the list.
    """
    beam.reset(limit)
    var wanted = SortedList(limit)
    compare(beam, wanted)
    assert_equal(beam.next(), -1)
    var rounds = 2 * limit + 20
    for node in range(rounds):
        # nodes in no order, each once: 7919 is prime and larger than the number of rounds
        var entry = entry_of(
            Int32(random_si64(-distinct_keys, distinct_keys)), node * 7919 % 104729
        )
        assert_equal(beam.worst() | 1, wanted.worst() | 1)
        if entry < beam.worst():
            beam.insert(entry)
            wanted.insert(entry)
        if random_ui64(0, 2) == 0:
            assert_equal(beam.next(), wanted.next())
        if node % every == 0:
            compare(beam, wanted)
    compare(beam, wanted)
    while True:
        var node = wanted.next()
        assert_equal(beam.next(), node)
        if node < 0:
            break
    compare(beam, wanted)


def test_equals_a_sorted_list() raises:
    seed(1)
    var beam = Candidates()  # one for all: nothing of an earlier use may show
    for limit in range(1, 301):
        work(beam, limit, 1 << 30)
    for limit in [300, 1, STRAIGHT - 1, STRAIGHT, STRAIGHT + 1, 2, 1000, 3]:
        work(beam, limit, 1 << 30)


def test_many_entries_that_come_late() raises:
    """Above WIDE entries lie in two buffers, which nobody can tell who asks in the middle of it."""
    seed(3)
    var beam = Candidates()
    for limit in [WIDE, WIDE + 1, 1500, 64, 6000, WIDE + 1]:
        for distinct_keys in [Int64(1 << 30), 3]:
            for every in [1000000, 997, 16]:
                work(beam, limit, distinct_keys, every)


def test_narrowing_keeps_the_nearest() raises:
    seed(4)
    var beam = Candidates()
    for limit in [20, 2000, 5000]:
        for narrower in [5, 1500, 6000]:
            beam.reset(limit)
            var wanted = SortedList(limit)
            for node in range(3 * limit):
                var entry = entry_of(Int32(random_si64(-1 << 30, 1 << 30)), node)
                if entry < beam.worst():
                    beam.insert(entry)
                    wanted.insert(entry)
                if node % 3 == 0:
                    assert_equal(beam.next(), wanted.next())
                if node == 2 * limit:
                    beam.narrow(narrower)
                    wanted.limit = min(limit, narrower)
                    while len(wanted.entries) > wanted.limit:
                        _ = wanted.entries.pop()
                        _ = wanted.expanded.pop()
            compare(beam, wanted)


def test_only_the_nearest_are_expanded() raises:
    """Entries behind the first `width` are kept, but not offered; also where there are two buffers.
    """
    seed(5)
    var beam = Candidates()
    for limit in [20, 300, 1500, 5000]:
        for width in [1, 7, limit // 2, limit - 1, limit, 2 * limit]:
            beam.reset(limit, width)
            var wanted = SortedList(limit)
            for node in range(3 * limit):
                var entry = entry_of(Int32(random_si64(-1 << 30, 1 << 30)), node)
                if entry < beam.worst():
                    beam.insert(entry)
                    wanted.insert(entry)
                if node % 3 == 0:
                    assert_equal(beam.next(), wanted.next(width))
            while True:
                var node = wanted.next(width)
                assert_equal(beam.next(), node)
                if node < 0:
                    break
            compare(beam, wanted)


def test_widening() raises:
    """After `widen` all that is held is expanded."""
    seed(6)
    var beam = Candidates()
    for limit in [1, 20, 300]:
        beam.reset(limit, max(limit // 3, 1))
        var wanted = SortedList(limit)
        for node in range(3 * limit):
            var entry = entry_of(Int32(random_si64(-1 << 30, 1 << 30)), node)
            if entry < beam.worst():
                beam.insert(entry)
                wanted.insert(entry)
            if node % 3 == 0:
                assert_equal(beam.next(), wanted.next(max(limit // 3, 1)))
        while beam.next() >= 0:
            _ = wanted.next(max(limit // 3, 1))
        beam.widen()
        while True:
            var node = wanted.next()
            assert_equal(beam.next(), node)
            if node < 0:
                break


def test_equal_keys_are_in_order_of_node() raises:
    seed(2)
    for distinct_keys in [Int64(0), 1, 5]:
        var beam = Candidates()
        for limit in [1, 2, 7, 8, 9, 16, 31, 64, 100, 255, 256, 257, 300]:
            work(beam, limit, distinct_keys)


def test_ascending_and_descending_entries() raises:
    for limit in [1, 8, 17, 300]:
        var beam = Candidates()
        beam.reset(limit)
        for node in range(limit):  # each behind all others: the limit is never passed
            assert_true(entry_of(Int32(node), node) < beam.worst())
            beam.insert(entry_of(Int32(node), node))
        assert_false(entry_of(Int32(limit), limit) < beam.worst())
        for node in range(limit + 1, 3 * limit + 1):  # each before all others
            beam.insert(entry_of(Int32(-node), node))
            assert_equal(beam.next(), node)
        assert_equal(beam.size, limit)
        for i in range(limit):
            assert_equal(beam.node(i), 3 * limit - i)


def test_extreme_entries() raises:
    var beam = Candidates()
    beam.reset(10)
    var keys = [KEY_MAX, KEY_MAX - 1, Int32(1), Int32(0), Int32(-1), Int32.MIN]
    for key in keys:
        for node in [MAX_ROWS, 0]:
            var entry = entry_of(key, node)
            assert_equal(key_of(entry), key)
            assert_equal(node_of(entry), node)
            assert_equal(node_of(entry | 1), node)
            assert_true(entry < EMPTY_ENTRY)
            if entry < beam.worst():
                beam.insert(entry)
    assert_equal(beam.size, 10)
    for i in range(10):
        assert_equal(beam.key(i), keys[5 - i // 2])
        assert_equal(beam.node(i), MAX_ROWS if i % 2 == 1 else 0)


def test_visited_over_many_searches() raises:
    """More searches than a mark has numbers, over more and fewer nodes than before."""
    seed(3)
    var visited = Visited()
    var epochs = 0
    for search in range(1200):
        var count = Int(random_ui64(0, 80))
        if search % 300 == 299:  # grows with marks of earlier searches in it
            count = search * 4
        elif search % 3 == 0:
            count = 64
        visited.reset(count)
        epochs += Int(visited.epoch == 1)
        assert_false(visited.first_visit(count))  # ids that are clamped to the count
        var seen = List[Bool](length=count, fill=False)
        for _ in range(min(2 * count, 200)):
            var node = Int(random_ui64(0, UInt64(count) - 1))
            assert_equal(visited.first_visit(node), not seen[node])
            seen[node] = True
        assert_false(visited.first_visit(count))
    assert_true(epochs > 4)  # numbers did begin again, by growth and by being used up


def test_visited_of_one_size() raises:
    """Without growth the numbers run out, and marks of 255 searches ago must not count."""
    var visited = Visited()
    for search in range(1000):
        visited.reset(50)
        for node in range(50):
            # some nodes are left alone for 1, 2, ... 24 searches, others for 254
            if search % (node + 1) == 0 if node < 25 else search % 255 == node:
                assert_true(visited.first_visit(node))
                assert_false(visited.first_visit(node))


def main() raises:
    TestSuite.discover_tests[__functions_in_module()]().run()
