"""Rows added by threads side by side, links set by compare-and-swap, beside the same rows in calls that are served together: a prototype.

    side-by-side --open FILE --base base.npy --first 10000 --add 4096 --batch 1 --threads 2 --save FILE
    side-by-side --open FILE --base base.npy --first 10000 --add 4096 --batch 1 --callers 8 --threads 2 --save FILE

Without --callers each of the threads links calls of --batch rows by compare-and-swap; with it calls of --callers x --batch rows are added one
after the other on --threads threads, which is what the library does with so many callers. Prints a JSON line.
`bench/side_by_side.py` runs both in turns and looks at what became of the index.
"""
from std.atomic import Atomic, Ordering
from std.ffi import external_call
from std.sys import argv, exit, stderr
from std.time import perf_counter_ns

from arrays import read_matrix, stored_as
from insertion import PICKS, InsertSideBySide
from files import describe, save_file
from options import Options
from shared import (
    COUNTERS,
    DOUBLES,
    FLICKERS,
    HALF_VISIBLE,
    LINE,
    LOST,
    NOWHERE,
    RETRIES,
    SET,
    Shared,
    close_holes,
)
from vicinal.construct.build_statistics import DISTANCES, HOPS, PHASES, PRUNES, REPAIR
from vicinal.file.posix import InputFile, Status
from vicinal.graph.links import EMPTY, MAX_LEVEL
from vicinal.graph.reachability import unreachable
from vicinal.graph.undo import UndoLog
from vicinal.index.opening import open_index
from vicinal.index.vector_index import Index
from vicinal.kernels.in_space import SpaceTask, in_space
from vicinal.kernels.space import Rows, Space, SymmetricDistance
from vicinal.system.memory import Ptr, allocate, allocate_zeroed, release
from vicinal.system.outcome import DONE, NO_MEMORY, Outcome
from vicinal.system.parallel import MAX_THREADS, Team, Unwatched
from vicinal.update.add import DoChange, add_rows
from vicinal.update.encode import encode
from vicinal.update.linking import Linking, LinkTask, on_codes
from vicinal.update.split_duplicates import SplitDuplicates
from vicinal.update.transaction import Change
from vicinal.walk.scratch import HOP_ROOM


def cpu_ns() -> Int:
    """Returns the CPU time of the process."""
    return external_call["clock", Int]() * 1000


@fieldwise_init
struct Figures(TrivialRegisterPassable):
    """What linking has taken."""

    var wall: Int
    var cpu: Int
    var prepared: Int
    """Nanoseconds of CPU time before: rows are checked, stored, encoded and told from equal ones."""
    var unreachable: Int
    var counts: SIMD[DType.int64, COUNTERS]
    var calls: Int
    """Calls that are visible in the end."""


@fieldwise_init
struct LinkSideBySide(LinkTask):
    """Links the rows of a change."""

    var linking: Ptr[Linking[Unwatched]]
    var new: Ptr[SplitDuplicates]
    var until: Int
    var batch: Int
    var stop_at: Int
    var figures: Ptr[Figures]

    def run[L: SymmetricDistance](self, rows: Rows) -> Outcome:
        """Does it with one way of measuring."""
        ref linking = self.linking[]
        ref index = linking.index[]
        ref graph = index.graph[]
        ref new = self.new[]
        ref figures = self.figures[]
        var team_size = linking.team[].size()
        var log = UndoLog(graph)
        # one row more than there are, which reaches level 1: so whoever reads blocks knows that rows may come, and looks at all slots
        var levels = allocate_zeroed[UInt8](self.until + 1 - new.first)
        for i in range(self.until - new.first):
            levels[unsafe_offset=i] = new.levels[unsafe_offset=i]
        levels[unsafe_offset=self.until - new.first] = 1
        if log.failed() or not graph.reserve(self.until + 1, levels, graph.linked):
            return NO_MEMORY
        graph.linked = self.until
        var calls = (new.count + self.batch - 1) // self.batch
        var shared = Shared(
            new.places,
            new.count,
            self.batch,
            allocate_zeroed[Int64](4 * LINE),
            allocate_zeroed[Int64](calls),
            allocate[UInt32](team_size * 2 * LINE),
            allocate_zeroed[Int64](team_size * COUNTERS),
            team_size,
            allocate[UInt32](team_size * (MAX_LEVEL + 2) * PICKS),
            allocate[UInt32](team_size * 3 * HOP_ROOM),
            self.stop_at,
        )
        for i in range(team_size * 2 * LINE):
            shared.present[unsafe_offset=i] = EMPTY
        var work = linking.work(rows, log)
        var body = InsertSideBySide[L](
            work,
            work.scratch(0)[].between.rows[L](rows),
            Pointer(to=shared).unsafe_origin_cast[MutUntrackedOrigin](),
            graph.ordinals - 1,
            self.until,
        )
        var unwatched = Unwatched()
        var cpu = cpu_ns()
        var wall = perf_counter_ns()
        _ = linking.team[].run(team_size, 1, body, unwatched)
        figures.wall = Int(perf_counter_ns() - wall)
        figures.cpu = cpu_ns() - cpu
        graph.rows = self.until
        graph.ordinals -= 1
        graph.blocks -= 1
        close_holes(graph)
        figures.unreachable = unreachable(graph)
        for i in range(calls):
            figures.calls += Int(shared.sees(i, shared.clock()[]))
        for worker in range(team_size):
            for i in range(COUNTERS):
                figures.counts[i] += shared.counters[unsafe_offset=worker * COUNTERS + i]
        release(levels)
        release(shared.words)
        release(shared.stamps)
        release(shared.present)
        release(shared.counters)
        release(shared.picks)
        release(shared.copies)
        _ = shared
        return linking.connect_unreachable[L](rows, log)


@fieldwise_init
struct AddSideBySide(SpaceTask):
    """All that becomes of the rows of a change."""

    var index: Ptr[Index]
    var change: Ptr[Change]
    var source: Int
    var threads: Int
    var batch: Int
    var stop_at: Int
    var figures: Ptr[Figures]
    var outcome: Outcome

    def run[S: Space](mut self):
        """Does it in one space."""
        ref index = self.index[]
        ref change = self.change[]
        var team = Team(self.threads)
        var watch = Unwatched()
        var before = cpu_ns()
        var store = DoChange[Unwatched](
            self.index,
            self.change,
            self.source,
            1,
            Pointer(to=watch).unsafe_origin_cast[MutUntrackedOrigin](),
            DONE,
        )
        self.outcome = store._store[S](team)
        if self.outcome == DONE:
            self.outcome = encode[S](
                index, change.places(), change.added, change.until(), team, watch
            )
        var new = SplitDuplicates(index, change)
        if self.outcome == DONE:
            self.outcome = new.split_off_duplicates(index, change, team, watch)
        if self.outcome != DONE or not index.duplicates.grow(change.until()):
            return
        self.figures[].prepared = cpu_ns() - before
        var linking = Linking[Unwatched].begin(index, team, watch)
        var task = LinkSideBySide(
            Pointer(to=linking).unsafe_origin_cast[MutUntrackedOrigin](),
            Pointer(to=new).unsafe_origin_cast[MutUntrackedOrigin](),
            change.until(),
            self.batch,
            self.stop_at,
            self.figures,
        )
        self.outcome = on_codes[S](index, task)
        linking.end()
        new.append_duplicates(index)
        _ = team^


def run(words: List[String]) raises:
    """Does what the command line asks for."""
    var options = Options(
        "side-by-side",
        words,
        ["open", "base", "first", "add", "batch", "callers", "threads", "stop-at", "save"],
    )
    var name = options.required("open")
    var status = Status.done()
    var watch = Unwatched()
    var index = open_index(
        InputFile(Int(name.as_c_string_span().ptr())), True, False, status, watch
    )
    if not status.ok():
        raise Error(t"--open {name}: {describe(status)}")
    var base = stored_as(read_matrix("--base", options.required("base")), index.dtype)
    var first = options.whole("first", index.count)
    var count = options.whole("add", 4096)
    var batch = options.whole("batch", 1)
    var threads = options.whole("threads", 1, 1, MAX_THREADS)
    if first + count > base.rows or base.dim != index.dim:
        raise Error("--base: too few rows, or of another length")
    var source = base.data.address + first * base.dim * 4
    # the first change of an opened index makes tables
    if add_rows(index, source, 0, 1, 1, watch) != DONE:
        raise Error("no memory")
    source += base.dim * 4
    count -= 1
    var before = SIMD[DType.int64, 16](0)
    for i in range(14):
        before[i] = Int64(index.build_statistics.of(i))
    var figures = Figures(0, 0, 0, 0, SIMD[DType.int64, COUNTERS](0), 0)
    var outcome = DONE
    if options.has("callers"):
        var rows = batch * options.whole("callers", 1)
        var cpu = cpu_ns()
        var wall = perf_counter_ns()
        for i in range(0, count, rows):
            if outcome == DONE:
                var size = min(rows, count - i)
                var workers = min(threads, (size + batch - 1) // batch)
                outcome = add_rows(index, source + i * base.dim * 4, 0, size, workers, watch)
        figures.wall = Int(perf_counter_ns() - wall)
        figures.cpu = cpu_ns() - cpu
        figures.unreachable = unreachable(index.graph[])
    else:
        var change = Change()
        if change.begin_insert(index, 0, count, False) != DONE:
            raise Error("no memory")
        var task = AddSideBySide(
            Pointer(to=index).unsafe_origin_cast[MutUntrackedOrigin](),
            Pointer(to=change).unsafe_origin_cast[MutUntrackedOrigin](),
            source,
            threads,
            batch,
            options.whole("stop-at", NOWHERE, 0, HALF_VISIBLE),
            Pointer(to=figures).unsafe_origin_cast[MutUntrackedOrigin](),
            DONE,
        )
        in_space(index.metric, index.dtype, task)
        outcome = task.outcome
        if outcome == DONE:
            change.commit(index)
            change.finish(index)
    if outcome != DONE:
        raise Error(t"ended with {outcome}")
    tell(index, options, count, before, figures)
    if options.has("save"):
        save_file(index, options.required("save"))
    _ = base^


def tell(
    index: Index,
    options: Options,
    count: Int,
    before: SIMD[DType.int64, 16],
    figures: Figures,
) raises:
    """Prints a JSON line."""
    var names: List[String] = ["store", "encode", "sort", "search", "link_back", "fill", "repair"]
    var line = String('{"rows": ') + String(count)
    line += ', "wall_ns": ' + String(figures.wall) + ', "cpu_ns": ' + String(figures.cpu)
    line += ', "prepared_ns": ' + String(figures.prepared)
    line += ', "unreachable": ' + String(figures.unreachable)
    line += ', "distances": ' + String(
        index.build_statistics.of(DISTANCES) - Int(before[DISTANCES])
    )
    line += ', "hops": ' + String(index.build_statistics.of(HOPS) - Int(before[HOPS]))
    line += ', "prunes": ' + String(index.build_statistics.of(PRUNES) - Int(before[PRUNES]))
    if options.has("callers"):
        for i in range(PHASES):
            line += ', "' + names[i] + '_ns": '
            line += String(index.build_statistics.of(i) - Int(before[i]))
    else:
        line += ', "retries": ' + String(figures.counts[RETRIES])
        line += ', "lost": ' + String(figures.counts[LOST])
        line += ', "doubles": ' + String(figures.counts[DOUBLES])
        line += ', "set": ' + String(figures.counts[SET])
        line += ', "flickers": ' + String(figures.counts[FLICKERS])
        line += ', "calls_visible": ' + String(figures.calls)
    print(line + "}")


def main():
    """Runs the program; exit status 2 and one message where anything is wrong."""
    var words = List[String]()
    for i in range(1, len(argv())):
        words.append(String(argv()[i]))
    try:
        run(words)
    except error:
        print("side-by-side:", error, file=stderr)
        exit(2)
