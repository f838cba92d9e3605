"""The graph: levels, selection and linking equal direct transcriptions; undo, repair and the check of all invariants."""
from std.random import random_si64, random_ui64, seed
from std.testing import TestSuite, assert_equal, assert_false, assert_true

from vicinal.build import SLACK, link_rows
from vicinal.candidates import entry_of, node_of
from vicinal.check import (
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
from vicinal.graph import EMPTY, MAX_LEVEL, Graph, draw_level, slots
from vicinal.memory import Ptr, allocate, release
from vicinal.parallel import Team, Unwatched, Watch
from vicinal.prune import select_diverse
from vicinal.repair import repair, unreachable
from vicinal.scratch import Scratch
from vicinal.space import IP, L2, Linker, Of, Rows
from vicinal.undo import UndoLog

comptime Stored = Of[L2, DType.int8]
"""Whole numbers, so that distances are exact and many of them equal."""
comptime DIM = 5


struct Countdown(Watch):
    """Ends the work when it has been asked so many times."""

    var left: Int

    def __init__(out self, left: Int):
        """Makes the watch."""
        self.left = left

    def proceed(mut self, done: Int) -> Bool:
        """Counts down."""
        self.left -= 1
        return self.left >= 0

    def advance(mut self, base: Int):
        """Takes no note."""
        pass

    def conclude(mut self, done: Int) -> Bool:
        """Keeps what was done."""
        return True


struct Sample(Movable):
    """Random rows and a graph over the first of them."""

    var values: Ptr[Int8]
    var levels: Ptr[UInt8]
    var graph: Graph
    var scratches: Ptr[Ptr[Scratch]]

    comptime WORKERS = 3

    def __init__(out self, count: Int, M: Int):
        self.values = allocate[Int8](count * DIM)
        self.levels = allocate[UInt8](count)
        self.graph = Graph(M)
        self.scratches = allocate[Ptr[Scratch]](Self.WORKERS)
        for i in range(count * DIM):
            self.values[unsafe_offset=i] = Int8(random_si64(-128, 127))
        for row in range(count):
            self.levels[unsafe_offset=row] = UInt8(draw_level(7, row, M))
        for i in range(Self.WORKERS):
            self.scratches[unsafe_offset=i] = allocate[Scratch](1)
            self.scratches[unsafe_offset=i].unsafe_write(Scratch())

    def __deinit__(deinit self):
        for i in range(Self.WORKERS):
            self.scratches[unsafe_offset=i].unsafe_deinit_pointee()
            release(self.scratches[unsafe_offset=i])
        release(self.scratches)
        release(self.levels)
        release(self.values)

    def rows(self) -> Rows:
        return Rows(Int(self.values), DIM, DIM, 0)

    def copy_row(self, source: Int, target: Int):
        for i in range(DIM):
            self.values[unsafe_offset=target * DIM + i] = self.values[
                unsafe_offset=source * DIM + i
            ]

    def distance(self, metric: Int, a: Int, b: Int) -> Int:
        """Returns the squared distance or the negative inner product of two rows."""
        var sum = 0
        for i in range(DIM):
            var x = Int(self.values[unsafe_offset=a * DIM + i])
            var y = Int(self.values[unsafe_offset=b * DIM + i])
            sum += (x - y) ** 2 if metric == L2 else -x * y
        return sum

    def link[
        V: Watch
    ](mut self, until: Int, ef: Int, threads: Int, log: UndoLog, mut watch: V) -> Int:
        """Links rows up to `until`."""
        return link_rows[Stored](
            self.graph,
            self.rows(),
            until,
            self.levels.unsafe_offset(self.graph.linked),
            ef,
            Team(threads),
            self.scratches,
            log,
            watch,
        )

    def link_all(mut self, until: Int, ef: Int) raises:
        var log = UndoLog(self.graph)
        var watch = Unwatched()
        assert_equal(self.link(until, ef, 1, log, watch), 1)

    def repair[V: Watch](mut self, log: UndoLog, mut watch: V) -> Bool:
        return repair[Stored](self.graph, self.rows(), 20, log, self.scratches[][], watch)

    def links(self, level: Int, node: Int) -> List[Int]:
        var found = List[Int]()
        for i in range(self.graph.slots_at(level)):
            if self.graph.links(level, node)[unsafe_offset=i] != EMPTY:
                found.append(Int(self.graph.links(level, node)[unsafe_offset=i]))
        return found^

    def set_links(self, row: Int, links: List[Int]):
        """Replaces the links of a row on level 0."""
        for i in range(self.graph.cap(0)):
            self.graph.links(0, row)[unsafe_offset=i] = (
                UInt32(links[i]) if i < len(links) else EMPTY
            )

    def bytes(self) -> List[UInt32]:
        """Returns all that makes the graph."""
        ref graph = self.graph
        var all = List[UInt32]()
        for number in [graph.linked, graph.rows, graph.ordinals, graph.blocks, graph.entry]:
            all.append(UInt32(number))
        for i in range(graph.linked * slots(2 * graph.M)):
            all.append(graph.links0.ptr[UInt32]()[unsafe_offset=i])
        for i in range(graph.ordinals):
            all.append(graph.upper_rows.ptr[UInt32]()[unsafe_offset=i])
        for i in range(graph.ordinals + 1):
            all.append(graph.upper_start.ptr[UInt32]()[unsafe_offset=i])
        for i in range(graph.blocks * slots(graph.M)):
            all.append(graph.upper_links.ptr[UInt32]()[unsafe_offset=i])
        return all^


# ---- levels and blocks


def test_levels_are_drawn_as_promised() raises:
    comptime ROWS = 200_000
    for M in [2, 5, 16, 128]:
        for seed in [0, 1, Int.MAX]:
            var reach = Array[Int, MAX_LEVEL + 1](fill=0)
            var alike = 0
            for row in range(ROWS):
                var level = draw_level(seed, row, M)
                for l in range(level + 1):
                    reach[l] += 1
                alike += Int(level > 0 and draw_level(seed // 2 + 5, row, M) > 0)
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
            assert_true(draw_level(seed, 0, M) > 0)
    assert_equal(draw_level(3, 77, 2), draw_level(3, 77, 2))


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


# ---- selection and linking


def choose(
    sample: Sample, metric: Int, centre: Int, candidates: List[Int], wanted: Int
) -> List[Int]:
    """Goes through rows by distance: one stays if no other that stayed is nearer to it than the centre.
    """
    var order = List[Int64]()
    for row in candidates:
        order.append(entry_of(Int32(sample.distance(metric, centre, row)), row))
    sort(order)
    var kept = List[Int]()
    for entry in order:
        var row = node_of(entry)
        var diverse = True
        for other in kept:
            diverse = diverse and sample.distance(metric, row, other) >= sample.distance(
                metric, row, centre
            )
        if diverse and len(kept) < wanted:
            kept.append(row)
    return kept^


def compare_selection[S: Linker](metric: Int) raises:
    """Compares `select_diverse` on both kinds of levels."""
    comptime ROWS = 60
    var sample = Sample(ROWS, 8)
    for row in range(ROWS):  # few different values: equal distances, equal rows
        for i in range(DIM):
            sample.values[unsafe_offset=row * DIM + i] %= 3
        sample.levels[unsafe_offset=row] = UInt8(row % 2)
    assert_true(sample.graph.reserve(ROWS, sample.levels, 0))
    var picked = allocate[UInt32](ROWS)
    var entries = allocate[Int64](ROWS)
    for level in range(2):
        for centre in range(0, ROWS, 7):
            var rows = List[Int]()
            var order = List[Int64]()
            for node in range(ROWS if level == 0 else sample.graph.ordinals):
                var row = sample.graph.row_at(level, node)
                if row != centre:
                    rows.append(row)
                    order.append(entry_of(S.key_between(sample.rows(), centre, row), node))
            sort(order)
            for i in range(len(order)):
                entries[unsafe_offset=i] = order[i]
            for wanted in [1, 2, 5, 16, ROWS]:
                var kept = select_diverse[S](
                    sample.graph, sample.rows(), level, entries, len(order), wanted, picked
                )
                var found = List[Int]()
                for i in range(kept):
                    found.append(sample.graph.row_at(level, Int(picked[unsafe_offset=i])))
                assert_equal(found, choose(sample, metric, centre, rows, wanted))
    release(picked)
    release(entries)


def test_selection_equals_the_rule() raises:
    seed(2)
    compare_selection[Stored](L2)
    compare_selection[Of[IP, DType.int8]](IP)


def test_linking_equals_the_rule() raises:
    """With candidates for all rows every search is complete, and the graph of level 0 follows from the rule alone.
    """
    seed(3)
    comptime ROWS = 300  # one row a round
    comptime M = 6
    var sample = Sample(ROWS, M)
    var wanted = List[List[Int]]()
    var pruned = 0
    for row in range(ROWS):
        var earlier = List[Int]()
        for other in range(row):
            earlier.append(other)
        var own = choose(sample, L2, row, earlier, M)
        wanted.append(own.copy())
        for target in own:
            wanted[target].append(row)
            if len(wanted[target]) > 2 * M:
                var all = wanted[target].copy()
                wanted[target] = choose(sample, L2, target, all, max(2 * M - SLACK, M))
                pruned += 1
        sample.link_all(row + 1, ROWS)
        assert_equal(unreachable(sample.graph), 0)
        for other in range(row + 1):
            assert_equal(sample.links(0, other), wanted[other])
    assert_true(pruned > 10)
    assert_equal(check_graph(sample.graph, ROWS, True), SOUND)


def test_copies_form_a_chain() raises:
    seed(4)
    comptime ROWS = 400
    for spread in [1, 5]:  # so many different rows
        var sample = Sample(ROWS, 3)
        for row in range(spread, ROWS):
            sample.copy_row(row % spread, row)
        sample.link_all(ROWS, 30)
        assert_equal(check_graph(sample.graph, ROWS, True), SOUND)
        # the first of each kind leads to the newest copy, and every copy to the one before it
        for first in range(spread):
            var place = first
            for step in range(1, ROWS // spread):
                var newest = first + (ROWS // spread - step) * spread
                assert_true(newest in sample.links(0, place))
                place = newest


# ---- undo and repair


def test_undo_puts_every_byte_back() raises:
    seed(5)
    comptime BEFORE = 700  # rounds of two rows
    comptime ROWS = 1000
    for M in [2, 6]:
        var sample = Sample(ROWS, M)
        for row in range(20):
            sample.copy_row(row, BEFORE + 3 * row)
        sample.link_all(BEFORE, 12)
        # the entry point moves, too
        sample.levels[unsafe_offset=BEFORE + 100] = UInt8(sample.graph.top() + 2)
        var before = sample.bytes()
        var stops: List[Int] = [0, 1, 2, 100, 149]
        for _ in range(12):
            stops.append(Int(random_ui64(0, 149)))
        for stop in stops:
            for threads in [1, 3]:
                var log = UndoLog(sample.graph)
                var watch = Countdown(stop)
                var outcome = sample.link(ROWS, 12, threads, log, watch)
                # one thread alone is asked in every round; of several none may come to it
                if threads == 1:
                    assert_equal(outcome, 0)
                    assert_true(sample.graph.linked > BEFORE or stop == 0)
                log.undo(sample.graph)
                assert_equal(sample.bytes(), before)
        var log = UndoLog(sample.graph)
        var unwatched = Unwatched()
        assert_equal(sample.link(ROWS, 12, 1, log, unwatched), 1)
        assert_equal(sample.graph.row_of(sample.graph.entry), BEFORE + 100)
        assert_equal(check_graph(sample.graph, ROWS, False), SOUND)
        var after = sample.bytes()
        log.undo(sample.graph)
        assert_equal(sample.bytes(), before)
        # what was tried and undone leaves no trace in what comes next
        assert_equal(sample.link(ROWS, 12, 3, UndoLog(sample.graph), unwatched), 1)
        assert_equal(sample.bytes(), after)


def test_repair_reaches_rows_cut_off() raises:
    seed(6)
    comptime ROWS = 500
    for M in [2, 8]:
        var sample = Sample(ROWS, M)
        sample.link_all(ROWS, 40)
        var unwatched = Unwatched()
        assert_true(sample.repair(UndoLog(sample.graph), unwatched))
        assert_equal(check_graph(sample.graph, ROWS, True), SOUND)
        var lost = List[Int]()
        for row in range(3, ROWS, 17):
            if row != sample.graph.row_of(sample.graph.entry):
                lost.append(row)
        for row in range(ROWS):
            var kept = List[Int]()
            for link in sample.links(0, row):
                # those cut off may still lead to each other
                if link not in lost or row in lost:
                    kept.append(link)
            sample.set_links(row, kept)
        assert_true(unreachable(sample.graph) >= len(lost))
        assert_equal(check_graph(sample.graph, ROWS, True), UNREACHABLE)
        var before = sample.bytes()

        var log = UndoLog(sample.graph)
        assert_true(sample.repair(log, unwatched))
        assert_equal(unreachable(sample.graph), 0)
        assert_equal(check_graph(sample.graph, ROWS, True), SOUND)
        log.undo(sample.graph)
        assert_equal(sample.bytes(), before)

        for stop in [0, 1]:
            var half = UndoLog(sample.graph)
            var watch = Countdown(stop)
            assert_false(sample.repair(half, watch))
            half.undo(sample.graph)
            assert_equal(sample.bytes(), before)


def test_repair_where_no_slot_is_free() raises:
    """Every block is full: links are replaced whose rows have others."""
    seed(7)
    comptime ROWS = 120
    comptime M = 2
    for islands in [1, 2]:  # and one row that nobody links to
        var sample = Sample(ROWS, M)
        for row in range(ROWS):
            sample.levels[unsafe_offset=row] = UInt8(row == 0)
        assert_true(sample.graph.reserve(ROWS, sample.levels, 0))
        sample.graph.linked = ROWS
        sample.graph.raise_entry(0)
        var size = (ROWS - 1) // islands
        for row in range(ROWS):
            var island = min(row // size, islands - 1)
            var links = List[Int]()
            for step in range(1, 2 * M + 1):
                links.append(island * size + (row - island * size + step) % size)
            sample.set_links(row, links)
        assert_true(unreachable(sample.graph) >= 1 + (islands - 1) * size)
        var unwatched = Unwatched()
        assert_true(sample.repair(UndoLog(sample.graph), unwatched))
        assert_equal(check_graph(sample.graph, ROWS, True), SOUND)


# ---- invariants


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
    comptime M = 4  # blocks have slots beyond the cap on all levels
    var sample = Sample(ROWS, M)
    sample.link_all(ROWS, 40)
    ref graph = sample.graph
    var unwatched = Unwatched()
    assert_true(sample.repair(UndoLog(graph), unwatched))
    assert_equal(check_graph(graph, ROWS, True), SOUND)
    assert_true(graph.top() >= 2)
    var row = 200
    assert_true(2 <= len(sample.links(0, row)) < 2 * M)
    var block = graph.links(0, row)
    var used = len(sample.links(0, row))
    var top = graph.links(graph.top(), graph.entry)
    var low = graph.links(1, graph.entry)

    expect(sample, block.unsafe_offset(2 * M), 3, TOO_MANY_LINKS)
    expect(sample, low.unsafe_offset(M), 3, TOO_MANY_LINKS)
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
