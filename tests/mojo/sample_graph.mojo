"""Random rows with a graph over them, and a watch that ends work early: what tests of graphs share."""
from std.random import random_si64
from std.testing import assert_equal

from vicinal.construct.build_statistics import BuildStatistics
from vicinal.construct.connect import repair
from vicinal.construct.insertion import find_neighbors, link_rows
from vicinal.construct.link_measure import LinkMeasure
from vicinal.construct.merge_order import StartNodes
from vicinal.construct.work import LinkWork, NewRows
from vicinal.graph.links import EMPTY, Graph, random_level, slots
from vicinal.graph.undo import UndoLog
from vicinal.kernels.any_distance import AnyDistance
from vicinal.kernels.space import L2, MetricSpace, Rows
from vicinal.system.memory import Ptr, allocate, release
from vicinal.system.outcome import DONE, Outcome
from vicinal.system.parallel import Team, Unwatched, Watch
from vicinal.walk.interleaved import MAX_SEARCHES
from vicinal.walk.scratch import Scratch

comptime Stored = MetricSpace[L2, DType.int8]
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
    var statistics: BuildStatistics
    var scratches: Ptr[Ptr[Scratch]]
    var measure: Ptr[LinkMeasure]

    comptime WORKERS = 3 * MAX_SEARCHES

    def __init__(out self, count: Int, M: Int):
        self.values = allocate[Int8](count * DIM)
        self.levels = allocate[UInt8](count)
        self.graph = Graph(M)
        self.statistics = BuildStatistics()
        self.scratches = allocate[Ptr[Scratch]](Self.WORKERS)
        self.measure = allocate[LinkMeasure](1)
        self.measure.unsafe_write(LinkMeasure())
        for i in range(count * DIM):
            self.values[unsafe_offset=i] = Int8(random_si64(-128, 127))
        for row in range(count):
            self.levels[unsafe_offset=row] = UInt8(random_level(7, row, M))
        for i in range(Self.WORKERS):
            self.scratches[unsafe_offset=i] = allocate[Scratch](1)
            self.scratches[unsafe_offset=i].unsafe_write(Scratch())

    def __deinit__(deinit self):
        for i in range(Self.WORKERS):
            self.scratches[unsafe_offset=i].unsafe_deinit_pointee()
            release(self.scratches[unsafe_offset=i])
        release(self.scratches)
        release(self.measure)
        release(self.levels)
        release(self.values)

    def rows(self) -> Rows:
        return Rows(Int(self.values), DIM, DIM, 0)

    def measured(self) -> Rows:
        """Returns the rows as walks and the choice of links measure them."""
        return self.measure[].rows[Stored, find_neighbors[AnyDistance]](self.rows())

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

    def work(mut self, team: Team, log: UndoLog, ef: Int, states: Int = 0) -> LinkWork:
        """Returns what work on the links needs, as long as all of it is kept."""
        return LinkWork(
            Pointer(to=self.graph).unsafe_origin_cast[MutUntrackedOrigin](),
            self.measured(),
            states,
            ef,
            5,
            Pointer(to=team).unsafe_mut_cast[True]().unsafe_origin_cast[MutUntrackedOrigin](),
            self.scratches,
            Pointer(to=log).unsafe_mut_cast[True]().unsafe_origin_cast[MutUntrackedOrigin](),
            Pointer(to=self.statistics).unsafe_origin_cast[MutUntrackedOrigin](),
        )

    def link[
        V: Watch
    ](mut self, until: Int, ef: Int, threads: Int, log: UndoLog, mut watch: V) -> Outcome:
        """Links rows up to `until`."""
        var first = self.graph.linked
        var places = allocate[UInt32](until - first)
        for row in range(first, until):
            places[unsafe_offset=row - first] = UInt32(row)
        var team = Team(threads)
        var levels = self.levels.unsafe_offset(first)
        var outcome = link_rows(
            self.work(team, log, ef),
            NewRows(places, until - first, until, levels, first, StartNodes.none()),
            watch,
        )
        _ = team^
        release(places)
        return outcome

    def link_all(mut self, until: Int, ef: Int) raises:
        var log = UndoLog(self.graph)
        var watch = Unwatched()
        assert_equal(self.link(until, ef, 1, log, watch), DONE)

    def repair[V: Watch](mut self, log: UndoLog, mut watch: V) -> Bool:
        var team = Team(3)
        var outcome = repair(self.work(team, log, 20), watch)
        _ = team^
        return outcome == DONE

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
