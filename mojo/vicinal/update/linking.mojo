"""Bringing new rows into the graph: copies apart, the others linked on codes or rows."""
from vicinal.construct.build_statistics import FILL, REPAIR, SORT
from vicinal.construct.connect import repair
from vicinal.construct.fill import NEAREST, NEAREST_AGAIN, refine_new_nodes
from vicinal.construct.insertion import find_neighbors, link_rows
from vicinal.construct.link_measure import LinkMeasure
from vicinal.construct.merge_order import StartNodes
from vicinal.construct.second_look import draw_nodes, look_again
from vicinal.construct.work import LinkWork, NewRows
from vicinal.graph.links import EMPTY, Graph
from vicinal.graph.undo import UndoLog
from vicinal.index.vector_index import Index
from vicinal.kernels.any_distance import AnyDistance, AnyLink, CompiledIn
from vicinal.kernels.in_space import SpaceTask, in_space
from vicinal.kernels.space import COSINE, HAMMING, IP, Rows, Space
from vicinal.quantization.code_space import BetweenCodes, U8Codes
from vicinal.quantization.code_table import U8, RABITQ4, SQ8
from vicinal.rows.row_states import stays
from vicinal.system.array import GrowableArray
from vicinal.system.clock import now
from vicinal.system.hash import mix
from vicinal.system.memory import Ptr, allocate, missing, no_block, release
from vicinal.system.outcome import DONE, NO_MEMORY, Outcome, STOPPED
from vicinal.system.parallel import Team, Watch
from vicinal.update.split_duplicates import SplitDuplicates
from vicinal.update.strays import any_strays, put_strays_last, raise_strays
from vicinal.update.transaction import Change
from vicinal.walk.interleaved import MAX_SEARCHES
from vicinal.walk.scratch import Scratch

comptime REPAIR_SHARE = 64
"""All rows are made reachable again after 1/64 of them are new: the flood costs a few percent then."""
comptime MANY_SHARE = 4
"""Rows of another index are many if they are a quarter of those that take part: to fill the slots of old rows anew takes a tenth of the
time then, and finds 0.002 to 0.003 more (ef 16), as much as a graph made of all rows at once."""
comptime NEARBY = 64
"""Candidates of walks above level 0 that look for links in place of lost ones; with 200 no more was found."""
comptime REFILLED = 2
comptime LACKING = 4
"""For each new row up to two older ones that have changed and have four slots free or more get them filled again: links to new rows
have pushed others out of their blocks, and nobody else comes back to them. Without it an index that grew in calls of 1 to 100 rows found
0.004 less (ef 16); three, of twice as many candidates, found 0.002 more on one set and as much less on another, for 8 % of the time."""
comptime FEW_ROWS = 1024
"""Calls of more rows leave that out: it takes a fifth of the time of linking them."""


@fieldwise_init
struct _Measured(SpaceTask):
    var index: Ptr[Index]
    var measure: Ptr[LinkMeasure]
    var on_codes: Bool
    var rows: Rows

    def run[S: Space](mut self):
        ref index = self.index[]
        ref codes = index.codes[]
        ref measure = self.measure[]
        comptime if S.metric < COSINE:
            if self.on_codes and codes.kind == U8:
                comptime Exact = U8Codes[S.metric, S.T == DType.int8]
                self.rows = measure.rows[Exact, find_neighbors[CompiledIn[Exact]]](
                    codes.rows(index.rows())
                )
                return
        comptime if S.metric != IP and S.T.is_floating_point():
            if self.on_codes and codes.fit and codes.kind == RABITQ4:
                comptime Codes4 = BetweenCodes[4]
                self.rows = measure.rows[Codes4, find_neighbors[CompiledIn[Codes4]]](
                    codes.rows(index.rows())
                )
                return
            if self.on_codes and codes.fit and codes.kind == SQ8:
                comptime Codes8 = BetweenCodes[8]
                self.rows = measure.rows[Codes8, find_neighbors[CompiledIn[Codes8]]](
                    codes.rows(index.rows())
                )
                return
        comptime if S.T == DType.float32 and S.bits == 0 or S.metric == HAMMING:
            self.rows = measure.rows[S, find_neighbors[CompiledIn[S]]](index.rows())
        else:
            self.rows = measure.rows[S, find_neighbors[AnyDistance]](index.rows())


@fieldwise_init
struct Linking[V: Watch](Movable):
    """Steps of work on the graph of an index, and what all of them need."""

    var index: Ptr[Index]
    var team: Ptr[Team]
    var scratches: Ptr[Ptr[Scratch]]
    """MAX_SEARCHES for each worker."""
    var watch: Ptr[Self.V]
    var measure: Ptr[LinkMeasure]
    """How the stored rows are measured where they are linked on, and, behind that, what is linked on else."""
    var failed: Bool
    """Whether memory was refused when it began: nothing may be done then but to end it."""

    @staticmethod
    def begin(mut index: Index, team: Team, mut watch: Self.V) -> Self:
        """Takes scratches; `end` must follow."""
        var measure = allocate[LinkMeasure](2)
        for i in range(0 if missing(measure) else 2):
            measure.unsafe_offset(i).unsafe_write(LinkMeasure())
        var scratches = allocate[Ptr[Scratch]](team.size() * MAX_SEARCHES)
        var claimed = not missing(measure) and index.readers.claim_many(
            scratches, team.size() * MAX_SEARCHES, 0
        )
        if claimed:
            index.build_statistics.count_work(scratches, team.size() * MAX_SEARCHES, -1)
        return Self(
            Pointer(to=index).unsafe_origin_cast[MutUntrackedOrigin](),
            Pointer(to=team).unsafe_mut_cast[True]().unsafe_origin_cast[MutUntrackedOrigin](),
            scratches,
            Pointer(to=watch).unsafe_origin_cast[MutUntrackedOrigin](),
            measure,
            not claimed,
        )

    def end(self):
        """Puts the scratches back and counts what was done with them."""
        ref index = self.index[]
        if not self.failed:
            index.build_statistics.count_work(self.scratches, self.team[].size() * MAX_SEARCHES, 1)
            index.readers.release_many(self.scratches, self.team[].size() * MAX_SEARCHES)
        release(self.scratches)
        release(self.measure)

    def measured(self, on_codes: Bool = True) -> Rows:
        """Returns what is linked on, rows that `AnyLink` measures; good until `end`.

        They are codes if those tell how far two rows are from each other and `on_codes` does not forbid it, else the stored rows.
        Estimating codes of ip do not tell it: they hold residuals to the centre, and what the centre adds is not among them.
        """
        ref index = self.index[]
        var task = _Measured(
            self.index, self.measure.unsafe_offset(Int(on_codes)), on_codes, index.rows()
        )
        in_space(index.metric, index.dtype, task)
        return task.rows

    def work(self, rows: Rows, log: UndoLog) -> LinkWork:
        """Returns what a step needs that measures some rows, or codes of them; good while all of that is kept.
        """
        ref index = self.index[]
        return LinkWork(
            index.graph,
            rows,
            index.states.address(),
            index.candidates(),
            index.seed,
            self.team,
            self.scratches,
            Pointer(to=log).unsafe_mut_cast[True]().unsafe_origin_cast[MutUntrackedOrigin](),
            Pointer(to=index.build_statistics).unsafe_origin_cast[MutUntrackedOrigin](),
        )

    def link(
        self,
        rows: Rows,
        new: SplitDuplicates,
        until: Int,
        present: Int,
        log: UndoLog,
        seeds: StartNodes,
    ) -> Outcome:
        """Links rows that are no copies, and gives blocks to all below `until`.

        Strays, which estimates do not tell apart, come last and are linked on the stored rows.
        """
        ref index = self.index[]
        var strays = 0
        if not AnyLink.exact(rows) and not seeds.any():
            strays = put_strays_last(index.codes[], new.places, new.count, Int(present == 0))
            if strays < 0:
                return NO_MEMORY
        var outcome = link_rows[Self.V](
            self.work(rows, log),
            NewRows(new.places, new.count - strays, until, new.levels, present, seeds),
            self.watch[],
        )
        if outcome == DONE and strays != 0:
            outcome = self.link_strays(new.places.unsafe_offset(new.count - strays), strays, log)
        if outcome != DONE:
            return outcome
        self.watch[].advance(new.count)
        return self.fill(rows, new.places, new.count, log, present > new.count)

    def link_strays(self, places: Ptr[UInt32], count: Int, log: UndoLog) -> Outcome:
        """Links strays on the stored rows, once the other rows of a change are linked."""
        return link_rows[Self.V](
            self.work(self.measured(False), log),
            NewRows(
                places,
                count,
                self.index[].graph[].linked,
                no_block[UInt8](),  # they have their blocks
                1,  # rounds as small as if no rows were there: strays are near to each other, and those of a round do not meet
                StartNodes.none(),
            ),
            self.watch[],
        )

    def fill_changed(self, rows: Rows, log: UndoLog, lacking: Int = 1) -> Outcome:
        """Fills the slots that are free in blocks that have changed, if so many are."""
        var changed = self.emptiest(log, lacking)
        return self.fill_some(rows, changed, changed.size, log, NEAREST)

    def look_again(
        self, rows: Rows, nodes: GrowableArray, levels: Int, wide: Int, log: UndoLog
    ) -> Outcome:
        """Lets rows that have lost links look for others on some levels, at most so many candidates wide.
        """
        if nodes.full:
            return NO_MEMORY
        if nodes.size == 0:
            return DONE
        var list = allocate[UInt32](nodes.size)
        if missing(list):
            return NO_MEMORY
        for i in range(nodes.size):
            list[unsafe_offset=i] = UInt32(nodes.at(i)[])
        var time = now()
        var work = self.work(rows, log)
        work.ef_construction = min(work.ef_construction, wide)
        var outcome = look_again(work, list, nodes.size, levels)
        release(list)
        _ = self.index[].build_statistics.add_elapsed(REPAIR, time)
        return outcome

    def fill_pruned(self, rows: Rows, most: Int, log: UndoLog) -> Outcome:
        """Fills free slots of rows whose blocks have changed, at most so many: those that have most slots free.
        """
        var emptiest = self.emptiest(log, LACKING)
        emptiest.sort()
        return self.fill_some(rows, emptiest, min(most, emptiest.size), log, NEAREST_AGAIN)

    def emptiest(self, log: UndoLog, lacking: Int) -> GrowableArray:
        """Lists rows whose blocks have changed and have so many slots free: in the lower half of each number the row, above it how many links
        it has.
        """
        ref graph = self.index[].graph[]
        var states = self.index[].states.address()
        var kept = log.kept_rows()
        var cap = graph.cap(0)
        var found = GrowableArray()
        found.full = kept.full
        for i in range(kept.size):
            var row = Int(kept.at(i)[])
            var block = graph.links(0, row)
            var free = 0
            while free < cap and block[unsafe_offset=cap - 1 - free] == EMPTY:
                free += 1
            if free >= lacking and stays(states, row):
                found.push(Int64((cap - free) << 32 | row))
        return found^

    def fill_some(
        self, rows: Rows, found: GrowableArray, count: Int, log: UndoLog, nearest: Int
    ) -> Outcome:
        """Fills free slots of the first rows that `emptiest` has found."""
        var places = allocate[UInt32](max(count, 1))
        if missing(places) or found.full:
            release(places)
            return NO_MEMORY
        for i in range(count):
            places[unsafe_offset=i] = UInt32(found.at(i)[] & 0xFFFFFFFF)
        var outcome = self.fill(rows, places, count, log, False, nearest)
        release(places)
        return outcome

    def fill(
        self,
        rows: Rows,
        places: Ptr[UInt32],
        count: Int,
        log: UndoLog,
        far: Bool,
        nearest: Int = NEAREST,
    ) -> Outcome:
        """Fills free slots of some rows, with `far` also by what they link to on level 1."""
        var time = now()
        var outcome = refine_new_nodes(
            self.work(rows, log), places, count, self.watch[], far, nearest
        )
        _ = self.index[].build_statistics.add_elapsed(FILL, time)
        return outcome

    def connect_unreachable(self, rows: Rows, log: UndoLog) -> Outcome:
        """Makes all rows reachable."""
        ref index = self.index[]
        var time = now()
        var outcome = repair(self.work(rows, log), self.watch[])
        _ = index.build_statistics.add_elapsed(REPAIR, time)
        return outcome


@fieldwise_init
struct LinkNew[V: Watch](Movable):
    """Links the new rows of a change, and makes all rows reachable if that is due; undoes all of it if it was ended early.
    """

    var linking: Ptr[Linking[Self.V]]
    var change: Ptr[Change]
    var new: Ptr[SplitDuplicates]

    def run(self, rows: Rows) -> Outcome:
        """Does it by rows that `AnyLink` measures."""
        ref index = self.linking[].index[]
        ref graph = index.graph[]
        ref change = self.change[]
        ref new = self.new[]
        ref watch = self.linking[].watch[]
        var log = UndoLog(graph)
        if log.failed():
            return NO_MEMORY
        var present = index.num_in_graph()
        var outcome: Outcome
        if change.origin.count != 0 and new.count != 0:
            outcome = self.link_from_other(rows, log)
        else:
            outcome = self.linking[].link(
                rows, new, change.until(), present, log, StartNodes.none()
            )
        if outcome == DONE and present != 0 and new.count <= FEW_ROWS and change.origin.count == 0:
            outcome = self.linking[].fill_pruned(rows, REFILLED * new.count, log)
        if outcome == DONE and present > new.count:
            outcome = self.look_again(rows, present, log)
        # copies do not count: however many there are, they are one row of the graph
        var unrepaired = new.count
        if log.linked != 0:
            unrepaired += index.unrepaired
        watch.advance(change.size())  # what follows is no progress of rows
        var num_in_graph = present + new.count
        if outcome == DONE and unrepaired * REPAIR_SHARE >= num_in_graph:
            outcome = self.linking[].connect_unreachable(rows, log)
            unrepaired = 0
        if outcome == DONE and not watch.conclude(change.size()):
            outcome = STOPPED
        if outcome == DONE:
            index.unrepaired = unrepaired
            index.mended = max(index.mended - change.added, 0)
            return DONE
        log.undo(graph)
        for i in range(change.num_reused):
            if Int(change.reused[unsafe_offset=i]) < graph.linked:
                graph.empty(Int(change.reused[unsafe_offset=i]))
        return outcome

    def look_again(self, rows: Rows, present: Int, log: UndoLog) -> Outcome:
        """Lets older rows of the upper levels look again for links, about as many as come to be there.
        """
        ref index = self.linking[].index[]
        ref graph = index.graph[]
        var wanted = (present + self.new[].count) // graph.M - present // graph.M
        wanted = min(wanted, graph.ordinals // 2)
        if wanted <= 0:
            return DONE
        var nodes = allocate[UInt32](wanted)
        if missing(nodes):
            return NO_MEMORY
        var time = now()
        # others each time, also where rows are replaced and their number stays what it was
        var drawn = index.seed + Int(mix(present + index.mended, Int(self.new[].places[])))
        var count = draw_nodes(nodes, wanted, graph.ordinals, drawn)
        var done = look_again(self.linking[].work(rows, log), nodes, count)
        release(nodes)
        _ = index.build_statistics.add_elapsed(REPAIR, time)
        return done

    def link_from_other(self, rows: Rows, log: UndoLog) -> Outcome:
        """Links rows that another index has linked already.

        If many come, rows that were in this graph before are looked at again: when their slots were filled, much of what is near
        was not there.
        """
        ref index = self.linking[].index[]
        ref new = self.new[]
        var present = index.num_in_graph()
        var order = new.order(index.graph[], self.change[])
        if order.failed:
            return NO_MEMORY
        var outcome = self.linking[].link(
            rows, new, self.change[].until(), present, log, order.seeds(index.candidates())
        )
        _ = order^
        if outcome == DONE and new.count * MANY_SHARE >= present:
            return self.linking[].fill_changed(rows, log)
        return outcome


def link_change[
    V: Watch
](mut index: Index, mut change: Change, team: Team, mut watch: V) -> Outcome:
    """Links the new rows of a change, which are stored and encoded; searches may run meanwhile.

    A first graph is made apart from searches, which go on scanning until the change takes effect.

    Args:
        index: The index.
        change: The change.
        team: Workers.
        watch: May end the work early.

    Returns:
        DONE, STOPPED or NO_MEMORY; the graph is as it was unless DONE.
    """
    var time = now()
    var new = SplitDuplicates(index, change)
    var status = new.split_off_duplicates(index, change, team, watch)
    _ = index.build_statistics.add_elapsed(SORT, time)
    if status != DONE:
        new.forget(index)
        return status
    if index.graph[].linked == 0:
        if not new.put_upper_row_first_in_new_graph(index, change):
            new.forget(index)
            return DONE if watch.conclude(change.size()) else STOPPED
        if not index.new_graph(Graph(index.graph[].asked)):
            new.forget(index)
            return NO_MEMORY
    raise_strays(index.codes[], index.graph[], new)
    var outcome = NO_MEMORY
    change.linked = True
    if (new.num_duplicates == 0 and index.duplicates.count == 0) or index.duplicates.grow(
        change.until()
    ):
        var linking = Linking[V].begin(index, team, watch)
        if not linking.failed:
            var task = LinkNew[V](
                Pointer(to=linking).unsafe_origin_cast[MutUntrackedOrigin](),
                Pointer(to=change).unsafe_origin_cast[MutUntrackedOrigin](),
                Pointer(to=new).unsafe_origin_cast[MutUntrackedOrigin](),
            )
            # rows of another index come in an order of their own, strays among them
            var strays = change.origin.count != 0 and any_strays(
                index.codes[], new.places, new.count
            )
            outcome = task.run(linking.measured(not strays))
        linking.end()
    if outcome == DONE:
        new.append_duplicates(index)
        return DONE
    new.forget(index)
    return outcome
