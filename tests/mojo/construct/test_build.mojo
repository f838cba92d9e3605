"""Selection and linking equal direct transcriptions; undo puts every byte back; repair reaches every row."""
from std.random import random_ui64, seed
from std.testing import TestSuite, assert_equal, assert_false, assert_true

from sample_graph import DIM, Countdown, Sample, Stored
from vicinal.construct.insertion import ROUND_SHARE, link_rows
from vicinal.construct.merge_order import StartNodes
from vicinal.construct.prune import (
    CONSIDERED,
    considered,
    own_links,
    robust_prune,
    room_for,
    with_node,
)
from vicinal.construct.work import NewRows
from vicinal.graph.reachability import unreachable
from vicinal.graph.links import Graph
from vicinal.graph.undo import UndoLog
from vicinal.index.invariants import SOUND, UNLINKED, UNREACHABLE, check_graph
from vicinal.kernels.candidates import Candidates, entry_of, node_of
from vicinal.kernels.space import IP, L2, SQUARED_ALPHA, MetricSpace, SymmetricDistance
from vicinal.system.memory import allocate, release
from vicinal.system.outcome import DONE, STOPPED
from vicinal.system.parallel import Team, Unwatched
from vicinal.walk.scratch import Scratch


# ---- selection and linking


def choose(
    sample: Sample, metric: Int, centre: Int, candidates: List[Int], wanted: Int
) -> List[Int]:
    """Goes through rows by distance twice: one stays if no other that stayed is nearer to it than the centre, then if
    none is nearer by the factor.
    """
    var order = List[Int64]()
    for row in candidates:
        order.append(entry_of(Int32(sample.distance(metric, centre, row)), row))
    sort(order)
    var kept = List[Int]()
    for factor in [5, SQUARED_ALPHA]:
        for entry in order:
            var row = node_of(entry)
            var diverse = row not in kept
            for other in kept:
                var between = sample.distance(metric, row, other)
                var to_centre = sample.distance(metric, row, centre)
                if factor == 5:
                    diverse = diverse and between >= to_centre
                elif metric == L2:
                    diverse = diverse and factor * between >= 5 * to_centre
                else:
                    var more = (factor - 5) * abs(to_centre)
                    diverse = diverse and 5 * (to_centre - between) <= more
            if diverse and len(kept) < wanted:
                kept.append(row)
    return kept^


def nearest(sample: Sample, centre: Int, rows: List[Int], count: Int) -> List[Int]:
    """Returns the nearest of some rows."""
    var order = List[Int64]()
    for row in rows:
        order.append(entry_of(Int32(sample.distance(L2, centre, row)), row))
    sort(order)
    var found = List[Int]()
    for i in range(min(count, len(order))):
        found.append(node_of(order[i]))
    return found^


def compare_selection[S: SymmetricDistance](metric: Int) raises:
    """Compares `robust_prune` on both kinds of levels."""
    comptime ROWS = 60
    var sample = Sample(ROWS, 8)
    for row in range(ROWS):  # few different values: equal distances, equal rows
        for i in range(DIM):
            sample.values[unsafe_offset=row * DIM + i] %= 3
        sample.levels[unsafe_offset=row] = UInt8(row % 2)
    assert_true(sample.graph.reserve(ROWS, sample.levels, 0))
    var scratch = Scratch()
    var room = allocate[UInt8](S.query_bytes(sample.rows()))
    var entries = allocate[Int64](ROWS)
    for level in range(2):
        for centre in range(0, ROWS, 7):
            var rows = List[Int]()
            var order = List[Int64]()
            var query = S.query_of_row(sample.rows(), centre, Int(room))
            for node in range(ROWS if level == 0 else sample.graph.ordinals):
                var row = sample.graph.row_at(level, node)
                if row != centre:
                    rows.append(row)
                    order.append(entry_of(S.key(query, sample.rows(), row), node))
            sort(order)
            for i in range(len(order)):
                entries[unsafe_offset=i] = order[i]
            for wanted in [1, 2, 5, 16, ROWS]:
                var kept = robust_prune[S](
                    sample.graph, sample.rows(), level, entries, len(order), wanted, scratch
                )
                var found = List[Int]()
                for i in range(kept):
                    found.append(sample.graph.row_at(level, Int(scratch.selected[unsafe_offset=i])))
                assert_equal(found, choose(sample, metric, centre, rows, wanted))
    release(room)
    release(entries)


def test_selection_equals_the_rule() raises:
    seed(2)
    compare_selection[Stored](L2)
    compare_selection[MetricSpace[IP, DType.int8]](IP)


def looked_at(sample: Sample, centre: Int, rows: List[Int]) -> List[Int]:
    """Returns the candidates of a selection: the nearest, and all if the farthest is much farther than these.
    """
    var few = nearest(sample, centre, rows, CONSIDERED * sample.graph.M)
    var all = nearest(sample, centre, rows, len(rows))
    if len(few) == 0:
        return all^
    var last = SQUARED_ALPHA * sample.distance(L2, centre, few[len(few) - 1])
    return all^ if last < 5 * sample.distance(L2, centre, all[len(all) - 1]) else few^


def test_how_many_candidates_are_looked_at() raises:
    """Above level 0 all; on level 0 those beyond a gap, and where all are about as far a few."""
    var sample = Sample(1, 2)
    var measured = sample.measured()
    var graph = Graph(16)
    var candidates = Candidates()
    candidates.reset(200)
    for i in range(200):
        candidates.insert(entry_of(Int32(1000 + i) ^ Int32.MIN, i))
    assert_equal(considered(graph, measured, 1, candidates), 200)
    assert_equal(considered(graph, measured, 0, candidates), CONSIDERED * 16)
    candidates.reset(200)
    for i in range(200):
        candidates.insert(entry_of(Int32(1000 + i + 500 * Int(i == 199)) ^ Int32.MIN, i))
    assert_equal(considered(graph, measured, 0, candidates), 200)
    candidates.reset(200)
    for i in range(30):
        candidates.insert(entry_of(Int32(1000 * i) ^ Int32.MIN, i))
    assert_equal(considered(graph, measured, 0, candidates), 30)
    _ = sample^


def test_the_nearest_target_keeps_a_new_row() raises:
    var picked = allocate[UInt32](4)
    for i in range(4):
        picked[unsafe_offset=i] = UInt32(10 + i)
    assert_equal(with_node(picked, 3, 4, 11), 3)  # there already
    assert_equal(with_node(picked, 2, 4, 7), 3)
    assert_equal(picked[unsafe_offset=2], 7)
    assert_equal(with_node(picked, 4, 4, 8), 4)  # no room: the last makes way
    assert_equal(picked[unsafe_offset=3], 8)
    release(picked)


def test_linking_equals_the_rule() raises:
    """With candidates for all rows every search is complete, and the graph of level 0 follows from the rule alone.
    """
    seed(3)
    comptime ROWS = 500
    comptime assert ROWS < 2 * ROUND_SHARE  # one row a round
    comptime M = 6  # works as 8
    var sample = Sample(ROWS, M)
    var wanted = List[List[Int]]()
    var pruned = 0
    var forced = 0
    for row in range(ROWS):
        var earlier = List[Int]()
        for other in range(row):
            earlier.append(other)
        ref graph = sample.graph
        var own = choose(
            sample, L2, row, looked_at(sample, row, earlier), own_links(graph, sample.measured(), 0)
        )
        wanted.append(own.copy())
        for target in own:
            wanted[target].append(row)
            if len(wanted[target]) > graph.cap(0):
                var all = wanted[target].copy()
                wanted[target] = choose(sample, L2, target, all, room_for(0, graph.cap(0)))
                if target == own[0] and row not in wanted[target]:
                    wanted[target].append(row)
                    forced += 1
                pruned += 1
        sample.link_all(row + 1, ROWS)
        assert_equal(unreachable(sample.graph), 0)
        for other in range(row + 1):
            assert_equal(sample.links(0, other), wanted[other])
    assert_true(pruned > 0, String(t"{pruned} pruned, {forced} kept by their nearest"))
    assert_equal(check_graph(sample.graph, ROWS, True), SOUND)


def test_only_some_rows_are_linked() raises:
    """Rows that are left out get empty blocks, and nothing leads to them."""
    seed(4)
    comptime ROWS = 900
    var sample = Sample(ROWS, 4)
    var places = allocate[UInt32](ROWS)
    var count = 0
    for row in range(ROWS):
        if row % 7 != 3 and row < ROWS - 20:
            places[unsafe_offset=count] = UInt32(row)
            count += 1
        else:
            sample.levels[unsafe_offset=row] = 0
    var watch = Unwatched()
    var log = UndoLog(sample.graph)
    var team = Team(1)
    var outcome = link_rows(
        sample.work(team, log, 30),
        NewRows(places, count, ROWS, sample.levels, 0, StartNodes.none()),
        watch,
    )
    _ = team^
    assert_equal(outcome, DONE)
    assert_equal(sample.graph.linked, ROWS)
    assert_true(sample.repair(log, watch))
    for row in range(ROWS):
        assert_equal(sample.graph.absent(row), row % 7 == 3 or row >= ROWS - 20)
        for link in sample.links(0, row):
            assert_false(sample.graph.absent(link))
    assert_equal(check_graph(sample.graph, ROWS, True, ROWS - count), SOUND)
    assert_equal(check_graph(sample.graph, ROWS, True, ROWS - count + 1), UNLINKED)
    release(places)


# ---- undo and repair


def test_undo_puts_every_byte_back() raises:
    seed(5)
    comptime BEFORE = 2 * ROUND_SHARE + 100  # rounds of two rows: several workers have something to do
    comptime ROWS = BEFORE + 300
    for M in [2, 6]:
        var sample = Sample(ROWS, M)
        for row in range(20):
            sample.copy_row(row, BEFORE + 3 * row)
        sample.link_all(BEFORE, 12)
        # the entry point moves, too
        sample.levels[unsafe_offset=BEFORE + 100] = UInt8(sample.graph.top() + 5)
        var before = sample.bytes()
        var whole = UndoLog(sample.graph)
        var counter = Countdown(Int.MAX)
        assert_equal(sample.link(ROWS, 12, 1, whole, counter), DONE)
        whole.undo(sample.graph)
        var looks = Int.MAX - counter.left
        assert_true(looks >= 150)  # one a round at least
        var stops: List[Int] = [0, 1, 2, looks - 1]
        for _ in range(12):
            stops.append(Int(random_ui64(0, UInt64(looks - 1))))
        for stop in stops:
            for threads in [1, 3]:
                var log = UndoLog(sample.graph)
                var watch = Countdown(stop)
                var outcome = sample.link(ROWS, 12, threads, log, watch)
                # with one thread the number of looks is always the same
                if threads == 1:
                    assert_equal(outcome, STOPPED)
                    assert_true(sample.graph.linked > BEFORE or stop < looks // 2)
                log.undo(sample.graph)
                assert_equal(sample.bytes(), before)
        var log = UndoLog(sample.graph)
        var unwatched = Unwatched()
        assert_equal(sample.link(ROWS, 12, 1, log, unwatched), DONE)
        assert_equal(sample.graph.row_of(sample.graph.entry), BEFORE + 100)
        assert_equal(check_graph(sample.graph, ROWS, False), SOUND)
        var after = sample.bytes()
        log.undo(sample.graph)
        assert_equal(sample.bytes(), before)
        # what was tried and undone leaves no trace in what comes next
        assert_equal(sample.link(ROWS, 12, 3, UndoLog(sample.graph), unwatched), DONE)
        assert_equal(sample.bytes(), after)


def test_the_log_names_the_rows_that_changed() raises:
    seed(9)
    comptime BEFORE = 900
    comptime ROWS = BEFORE + 200
    var sample = Sample(ROWS, 6)
    sample.link_all(BEFORE, 12)
    var before = List[List[Int]]()
    for row in range(BEFORE):
        before.append(sample.links(0, row))
    var log = UndoLog(sample.graph)
    var unwatched = Unwatched()
    assert_equal(log.kept_rows().size, 0)
    assert_equal(sample.link(ROWS, 12, 3, log, unwatched), DONE)
    var kept = log.kept_rows()
    var next = 0
    for row in range(BEFORE):
        var is_kept = next < kept.size and Int(kept.at(next)[]) == row
        next += Int(is_kept)
        assert_true(is_kept or sample.links(0, row) == before[row])
    assert_equal(next, kept.size)  # ascending, each once, none of the new ones
    assert_true(next > 100)


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
            var entry = sample.graph.row_of(sample.graph.entry)
            if len(kept) == 0 and row != entry:  # without any it would not take part
                kept.append(entry)
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
    """Every block is full: links make way whose rows have others."""
    seed(7)
    comptime ROWS = 120
    comptime M = 8
    for orphans in [1, 4, 40]:  # rows nobody links to, in a random graph of the others
        for _ in range(20):
            var sample = Sample(ROWS, M)
            for row in range(ROWS):
                sample.levels[unsafe_offset=row] = UInt8(row == 0)
            assert_true(sample.graph.reserve(ROWS, sample.levels, 0))
            sample.graph.linked = ROWS
            sample.graph.raise_entry(0)
            for row in range(ROWS):
                var links = List[Int]()
                while len(links) < 2 * M:
                    var other = Int(random_ui64(0, UInt64(ROWS - 1 - orphans)))
                    if other != row and other not in links:
                        links.append(other)
                sample.set_links(row, links)
            assert_true(unreachable(sample.graph) >= orphans)
            var unwatched = Unwatched()
            assert_true(sample.repair(UndoLog(sample.graph), unwatched))
            assert_equal(check_graph(sample.graph, ROWS, True), SOUND)


def main() raises:
    TestSuite.discover_tests[__functions_in_module()]().run()
