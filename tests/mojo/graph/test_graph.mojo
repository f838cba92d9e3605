"""Levels, blocks, and the check that names each broken invariant."""
from std.random import random_ui64, seed
from std.testing import TestSuite, assert_equal, assert_true

from sample_graph import Sample
from vicinal.graph.links import EMPTY, MAX_LEVEL, Graph, random_level, slots
from vicinal.graph.undo import UndoLog
from vicinal.index.invariants import (
    BAD_ENTRY,
    BAD_TABLE,
    DOUBLE_LINK,
    HOLE,
    NO_SUCH_NODE,
    SELF_LINK,
    SOUND,
    TOO_MANY_LINKS,
    UNREACHABLE,
    check_graph,
)
from vicinal.system.memory import Ptr
from vicinal.system.parallel import Unwatched


def test_levels_are_drawn_as_promised() raises:
    comptime ROWS = 200_000
    for M in [2, 5, 16, 128]:
        for seed in [0, 1, Int.MAX]:
            var reach = Array[Int, MAX_LEVEL + 1](fill=0)
            var alike = 0
            for row in range(ROWS):
                var level = random_level(seed, row, M)
                for l in range(level + 1):
                    reach[l] += 1
                alike += Int(level > 0 and random_level(seed // 2 + 5, row, M) > 0)
            var expected = Float64(ROWS)
            for level in range(1, 5):
                expected /= Float64(M)
                # five standard deviations, and row 0
                var allowed = 5 * expected**0.5 + 1
                assert_true(
                    abs(Float64(reach[level]) - expected) < allowed,
                    String(t"M {M}, seed {seed}, level {level}: {reach[level]}, not {expected}"),
                )
            # two seeds agree by chance only
            expected = Float64(ROWS) / Float64(M * M)
            assert_true(abs(Float64(alike) - expected) < 5 * expected**0.5 + 1)
            assert_true(random_level(seed, 0, M) > 0)
    assert_equal(random_level(3, 77, 2), random_level(3, 77, 2))


def test_reserved_blocks() raises:
    seed(1)
    var sample = Sample(1000, 3)
    ref graph = sample.graph
    assert_equal(graph.top(), 0)
    while graph.rows < 1000:
        var first = graph.rows
        var until = min(first + Int(random_ui64(1, 90)), 1000)
        assert_true(graph.reserve(until, sample.levels.unsafe_offset(first), first))
        graph.linked = until
    var ordinal = 0
    for row in range(1000):
        assert_equal(len(sample.links(0, row)), 0)
        var level = Int(sample.levels[unsafe_offset=row])
        if level == 0:
            continue
        assert_equal(graph.row_of(ordinal), row)
        assert_equal(graph.level_of(ordinal), level)
        for l in range(1, level + 1):
            assert_equal(len(sample.links(l, ordinal)), 0)
            # a block of its own, on a cache line
            graph.links(l, ordinal)[] = UInt32(ordinal)
            assert_equal(Int(graph.links(l, ordinal)) % 64, 0)
        graph.raise_entry(ordinal)
        ordinal += 1
    assert_equal(ordinal, graph.ordinals)
    var highest = 0
    for row in range(1000):
        highest = max(highest, Int(sample.levels[unsafe_offset=row]))
    assert_equal(graph.top(), highest)
    for o in range(ordinal):
        for l in range(1, graph.level_of(o) + 1):
            assert_equal(sample.links(l, o), [o])


def test_no_slot_of_level_0_lies_idle() raises:
    for asked in range(2, 129):
        var graph = Graph(asked)
        assert_equal(graph.asked, asked)
        assert_true(asked <= graph.M < asked + 8)
        assert_equal(graph.cap(0), graph.slots_at(0))
        assert_true(graph.cap(1) <= graph.slots_at(1))
        # files are as they were
        assert_equal(graph.slots_at(0), slots(2 * asked))
        assert_equal(graph.slots_at(1), slots(asked))


def expect(sample: Sample, slot: Ptr[UInt32], value: Int, code: Int) raises:
    """Writes a wrong number, expects the check to say so, and takes it back."""
    var kept = slot[]
    slot[] = UInt32(value & 0xFFFFFFFF)
    assert_equal(check_graph(sample.graph, sample.graph.linked, True), code)
    slot[] = kept
    assert_equal(check_graph(sample.graph, sample.graph.linked, True), SOUND)


def test_check_reports_each_kind_of_damage() raises:
    seed(8)
    comptime ROWS = 400
    comptime M = 4  # above level 0 blocks have slots beyond the cap
    var sample = Sample(ROWS, M)
    sample.link_all(ROWS, 40)
    ref graph = sample.graph
    var unwatched = Unwatched()
    assert_true(sample.repair(UndoLog(graph), unwatched))
    assert_equal(check_graph(graph, ROWS, True), SOUND)
    assert_true(graph.top() >= 2)
    var row = 200
    assert_true(2 <= len(sample.links(0, row)) < graph.cap(0))
    var block = graph.links(0, row)
    var used = len(sample.links(0, row))
    var top = graph.links(graph.top(), graph.entry)
    var low = graph.links(1, graph.entry)

    expect(sample, low.unsafe_offset(graph.M), 3, TOO_MANY_LINKS)
    expect(sample, block, Int(EMPTY), HOLE)
    expect(sample, low, Int(EMPTY), HOLE)
    expect(sample, block.unsafe_offset(used - 1), ROWS, NO_SUCH_NODE)
    expect(sample, low, graph.ordinals, NO_SUCH_NODE)
    expect(sample, block, row, SELF_LINK)
    expect(sample, low, graph.entry, SELF_LINK)
    expect(sample, block, Int(block[unsafe_offset=used - 1]), DOUBLE_LINK)
    expect(sample, low, Int(low[unsafe_offset=1]), DOUBLE_LINK)
    var short = 0  # a node that does not reach the highest level
    while graph.level_of(short) == graph.top():
        short += 1
    expect(sample, top, short, NO_SUCH_NODE)
    assert_equal(check_graph(graph, ROWS + 1, True), NO_SUCH_NODE)

    var upper_rows = graph.upper_rows.ptr[UInt32]()
    var start = graph.upper_start.ptr[UInt32]()
    expect(sample, upper_rows.unsafe_offset(3), Int(upper_rows[unsafe_offset=2]), BAD_TABLE)
    expect(sample, upper_rows.unsafe_offset(graph.ordinals - 1), ROWS, BAD_TABLE)
    expect(sample, start, 1, BAD_TABLE)
    expect(sample, start.unsafe_offset(graph.ordinals), graph.blocks + 1, BAD_TABLE)
    expect(sample, start.unsafe_offset(5), Int(start[unsafe_offset=4]), BAD_TABLE)

    var entry = graph.entry
    for wrong in [-1, graph.ordinals, short]:
        graph.entry = wrong
        assert_equal(check_graph(graph, ROWS, True), BAD_ENTRY)
    graph.entry = entry
    var nothing = Graph(M)
    assert_equal(check_graph(nothing, 0, True), SOUND)
    nothing.entry = 0
    assert_equal(check_graph(nothing, 0, True), BAD_ENTRY)

    for other in range(ROWS):
        var kept = List[Int]()
        for link in sample.links(0, other):
            if link != row:
                kept.append(link)
        sample.set_links(other, kept)
    assert_equal(check_graph(graph, ROWS, True), UNREACHABLE)
    assert_equal(check_graph(graph, ROWS, False), SOUND)
    assert_equal(
        [SOUND, TOO_MANY_LINKS, HOLE, NO_SUCH_NODE, SELF_LINK, DOUBLE_LINK, BAD_TABLE, BAD_ENTRY],
        [0, 1, 2, 3, 4, 5, 6, 7],  # what the Python side has texts for
    )
    assert_equal(UNREACHABLE, 8)


def main() raises:
    TestSuite.discover_tests[__functions_in_module()]().run()
