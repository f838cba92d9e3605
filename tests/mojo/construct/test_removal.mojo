"""Marks and stamps of rows, and taking removed rows out of a graph."""
from std.random import random_ui64, seed
from std.testing import TestSuite, assert_equal, assert_false, assert_true

from sample_graph import Countdown, Sample
from vicinal.construct.leaving_rows import move_entry
from vicinal.construct.unlink import unlink_removed
from vicinal.graph.reachability import unreachable
from vicinal.graph.undo import UndoLog
from vicinal.index.invariants import SOUND, check_graph
from vicinal.index.vector_index import Index
from vicinal.kernels.candidates import Candidates, entry_of
from vicinal.rows.duplicates import Duplicates
from vicinal.rows.leaving import Blocks, Leaving
from vicinal.rows.row_states import FREE, DELETING, LIVE, PENDING, is_to_be_unlinked
from vicinal.rows.visibility import NEVER_VISIBLE, RENEW, RowStates, Visibility, stamp_of
from vicinal.system.array import GrowableArray
from vicinal.system.memory import allocate, at, release
from vicinal.system.outcome import DONE
from vicinal.system.parallel import Team, Unwatched, Watch
from vicinal.update.add import add_rows
from vicinal.update.consolidate import prepare_change
from vicinal.update.transaction import Change


def at_version(states: RowStates, version: UInt32, rows: Int) -> Visibility:
    """Returns what a search sees that began at a version, when there were so many rows."""
    return states.visibility(UInt64(version) << 32 | UInt64(rows))


def test_a_search_sees_its_version() raises:
    for born in [UInt32(0), 1, 5]:
        for died in [UInt32(3), 7, ~UInt32(0)]:
            var states = RowStates()
            assert_true(states.prepare(2, 0))
            states.stamp(1, stamp_of(born, died))
            for version in range(9):
                var visible = at_version(states, UInt32(version), 2)
                assert_true(visible.is_visible(0))
                var seen = born <= UInt32(version) and UInt32(version) < died
                assert_equal(visible.is_visible(1), seen)
                assert_false(at_version(states, UInt32(version), 1).is_visible(1), "it came later")
            _ = states^
    assert_equal(stamp_of(0, ~UInt32(0)), 0)
    assert_equal(stamp_of(0, 0), NEVER_VISIBLE)


def test_marks_of_a_file_get_stamps() raises:
    var states = RowStates()
    assert_true(states.bytes.grow(4))
    states.set(1, PENDING)
    states.set(2, FREE)
    states.in_use = True
    states.removed = 2
    states.publish(0, 4)
    for changed in range(2):  # as opened, and once it is to be changed
        var visible = states.present()
        assert_equal(Int(visible.stamps != 0), changed)
        assert_true(visible.is_visible(0) and visible.is_visible(3))
        assert_false(visible.is_visible(1) or visible.is_visible(2))
        assert_equal(states.live_at(states.now()), 2)
        assert_true(states.prepare(4, 4))
    _ = states^


def test_versions_start_again() raises:
    var states = RowStates()
    assert_true(states.prepare(3, 0))
    states.publish(RENEW, 3)
    assert_true(states.version_due())
    states.stamp(0, stamp_of(RENEW, ~UInt32(0)))
    states.set(1, PENDING)
    states.stamp(1, stamp_of(7, RENEW))
    states.renew(3)
    assert_equal(states.now(), UInt64(1) << 32 | 3)
    assert_false(states.version_due())
    for version in [UInt32(0), 1, RENEW]:
        var visible = at_version(states, version, 3)
        assert_true(visible.is_visible(0) and visible.is_visible(2))
        assert_false(visible.is_visible(1))
    _ = states^


def test_an_index_outlives_its_versions() raises:
    var index = Index(0, 0, 2, 16, 200, 0, 1000, 0)
    var watch = Unwatched()
    var rows = allocate[Float32](8)
    for i in range(8):
        rows[unsafe_offset=i] = Float32(i)
    assert_equal(add_rows(index, Int(rows), 0, 4, 1, watch), DONE)
    var gone = allocate[Int64](1)
    gone[] = 1
    for renewed in range(2):
        prepare_change(index)
        var change = Change()
        assert_equal(change.begin_delete(index, gone, 1), DONE)
        change.commit(index)
        change.finish(index)
        gone[] = 2
        if renewed == 0:
            index.states.publish(RENEW, index.count)
    assert_equal(index.states.version, 2)
    assert_equal(index.live(), 2)
    var visible = index.states.present()
    for row in range(4):
        assert_equal(visible.is_visible(row), row == 0 or row == 3)
    # a search that is under way keeps versions from beginning anew
    index.states.publish(RENEW, index.count)
    var search = index.readers.claim()
    index.committed = index.readers.retire()
    prepare_change(index)
    assert_equal(index.states.version, RENEW)
    index.readers.release(search)
    prepare_change(index)
    assert_equal(index.states.version, 1)
    release(gone)
    release(rows)
    _ = index^


def test_a_beam_is_swept() raises:
    seed(1)
    var states = RowStates()
    assert_true(states.prepare(100, 0))
    for row in range(100):
        if row % 3 == 0:
            states.stamp(row, NEVER_VISIBLE)
    var beam = Candidates()
    beam.reset(40)
    var left = List[Int]()
    for row in range(10, 40):
        beam.insert(entry_of(Int32(row), row))
        if row % 3 != 0:
            left.append(row)
    var duplicates = Duplicates()
    duplicates.sweep(at_version(states, 0, 100), beam)
    assert_equal(beam.size, len(left))
    for i in range(beam.size):
        assert_equal(beam.node(i), left[i])
    duplicates.sweep(Visibility.of_all(100), beam)
    assert_equal(beam.size, len(left))
    _ = states^


def test_rows_that_are_all_free() raises:
    var states = RowStates()
    assert_true(states.prepare(200, 0))
    for row in range(200):
        states.set(row, FREE)
    for row in [0, 63, 64, 150, 199]:
        states.set(row, LIVE)
        for begin in range(0, 200, 7):
            for length in [1, 63, 64, 65, 130]:
                var end = min(begin + length, 200)
                assert_equal(
                    at_version(states, 0, 200).none_of(begin, end), row < begin or row >= end
                )
        states.set(row, FREE)
    assert_false(Visibility.of_all(10).none_of(0, 10))
    _ = states^


def take_out[
    V: Watch
](
    mut sample: Sample,
    states: RowStates,
    threads: Int,
    log: UndoLog,
    mut watch: V,
    slice: Int = Int.MAX,
) -> Bool:
    ref graph = sample.graph
    var marks = List[UInt8]()
    var kept = move_entry(graph, states.address())
    for row in range(graph.linked):
        marks.append(UInt8(is_to_be_unlinked(states.of(row)) and row != kept))
    graph.leaving = Int(marks.unsafe_ptr())
    graph.leaving_rows = graph.linked
    var leaving = Leaving()
    var team = Team(threads)
    var finished = True
    while finished and leaving.next_row < graph.linked:
        var blocks = Blocks.from_slice(
            leaving, graph.ordinals, graph.linked, slice, at[UInt32](64), 0
        )
        var work = sample.work(team, log, 0, states.address())
        var without_long = GrowableArray()
        finished = DONE == unlink_removed(work, blocks, without_long, watch)
        leaving.next_ordinal = blocks.last_ordinal
        leaving.next_row = blocks.last_row
    graph.leaving_rows = 0
    _ = team^
    _ = marks^
    return finished


def test_nothing_leads_to_rows_that_go() raises:
    seed(2)
    comptime ROWS = 700
    for M in [2, 6]:
        for share in [2, 10, 50, 90]:
            var sample = Sample(ROWS, M)
            for row in range(0, 60, 3):
                sample.copy_row(row, row + 1)
            sample.link_all(ROWS, 30)
            var states = RowStates()
            assert_true(states.prepare(ROWS, 0))
            states.set(sample.graph.row_of(sample.graph.entry), PENDING)
            for row in range(ROWS):
                if Int(random_ui64(0, 99)) < share:
                    states.set(row, DELETING)
            var before = sample.bytes()
            var old = List[List[Int]]()
            for row in range(ROWS):
                old.append(sample.links(0, row))
            var unwatched = Unwatched()
            var log = UndoLog(sample.graph)
            assert_true(take_out(sample, states, 1, log, unwatched))
            var after = sample.bytes()
            var lost = 0
            for row in range(ROWS):
                if states.of(row) != LIVE:
                    assert_equal(sample.links(0, row), old[row])  # ways through for searches
                    continue
                var links = sample.links(0, row)
                for link in links:
                    assert_equal(states.of(link), LIVE)
                    assert_true(link != row)
                lost += Int(len(links) == 0)
            for ordinal in range(sample.graph.ordinals):
                if states.of(sample.graph.row_of(ordinal)) != LIVE:
                    continue
                for level in range(1, sample.graph.level_of(ordinal) + 1):
                    for link in sample.links(level, ordinal):
                        assert_equal(states.of(sample.graph.row_of(link)), LIVE)
            assert_equal(states.of(sample.graph.row_of(sample.graph.entry)), LIVE)
            if M > 2:  # with four slots a row not much is left to go on
                assert_true(lost <= ROWS // 20)
                assert_true(unreachable(sample.graph, states.address()) <= ROWS // 5)
            assert_equal(check_graph(sample.graph, ROWS, False, states=states.address()), SOUND)
            log.undo(sample.graph)
            assert_equal(sample.bytes(), before)
            # the same for any number of threads, and nothing left of what was ended early
            for threads in [2, 3]:
                for stop in [0, 1, 5, 17, 30]:
                    var half = UndoLog(sample.graph)
                    var watch = Countdown(stop)
                    _ = take_out(sample, states, threads, half, watch)
                    half.undo(sample.graph)
                    assert_equal(sample.bytes(), before)
                var whole = UndoLog(sample.graph)
                assert_true(take_out(sample, states, threads, whole, unwatched))
                assert_equal(sample.bytes(), after)
                whole.undo(sample.graph)


def test_slices_of_any_size_take_out_all() raises:
    seed(5)
    comptime ROWS = 700
    for slice in [1, 16, 100, 699, 5000]:
        var sample = Sample(ROWS, 6)
        sample.link_all(ROWS, 30)
        var states = RowStates()
        assert_true(states.prepare(ROWS, 0))
        for row in range(ROWS):
            if Int(random_ui64(0, 99)) < 20:
                states.set(row, PENDING)
        var before = sample.bytes()
        var after = List[UInt32]()
        for threads in [1, 2, 3]:
            var log = UndoLog(sample.graph)
            var unwatched = Unwatched()
            assert_true(take_out(sample, states, threads, log, unwatched, slice))
            if threads == 1:
                after = sample.bytes()
                assert_equal(check_graph(sample.graph, ROWS, False, states=states.address()), SOUND)
                for row in range(ROWS):
                    for link in sample.links(0, row):
                        assert_true(states.of(row) != LIVE or states.of(link) == LIVE)
            assert_equal(sample.bytes(), after)
            log.undo(sample.graph)
            assert_equal(sample.bytes(), before)
        _ = states^


def test_the_entry_point_is_kept_if_no_other_row_reaches_up() raises:
    seed(3)
    comptime ROWS = 300
    var sample = Sample(ROWS, 6)
    sample.link_all(ROWS, 30)
    var states = RowStates()
    assert_true(states.prepare(ROWS, 0))
    for ordinal in range(sample.graph.ordinals):
        states.set(sample.graph.row_of(ordinal), DELETING)
    var entry = sample.graph.row_of(sample.graph.entry)
    assert_equal(move_entry(sample.graph, states.address()), entry)
    var unwatched = Unwatched()
    assert_true(take_out(sample, states, 1, UndoLog(sample.graph), unwatched))
    assert_equal(sample.graph.row_of(sample.graph.entry), entry)
    assert_true(len(sample.links(0, entry)) > 0)
    for link in sample.links(0, entry):
        assert_equal(states.of(link), LIVE)
    _ = states^


def main() raises:
    TestSuite.discover_tests[__functions_in_module()]().run()
