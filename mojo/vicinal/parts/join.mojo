"""The graph of an index whose rows are linked in parts already."""
from vicinal.construct.build_statistics import ENCODE, FILL, SORT
from vicinal.construct.insertion import link_rows
from vicinal.construct.merge_order import StartNodes
from vicinal.construct.work import NewRows
from vicinal.graph.links import EMPTY, Graph
from vicinal.graph.undo import UndoLog
from vicinal.index.vector_index import Index
from vicinal.kernels.space import Rows
from vicinal.parts.part_lists import RANGE, PartLinks, PartLists
from vicinal.parts.unite import PIECE, UnitePartLinks
from vicinal.system.atomics import store_release
from vicinal.system.clock import now
from vicinal.system.memory import Ptr, allocate, missing, no_block, release
from vicinal.system.outcome import DONE, NO_MEMORY, Outcome, STOPPED, UNKNOWN_ROW
from vicinal.system.parallel import Team, Watch
from vicinal.update.encode import encode
from vicinal.update.linking import Linking
from vicinal.update.split_duplicates import SplitDuplicates
from vicinal.update.strays import any_strays, raise_strays
from vicinal.update.transaction import Change
from vicinal.walk.interleaved import MAX_SEARCHES
from vicinal.walk.scratch import any_failed


comptime UNREADABLE = 1
"""Refusal: the links of a part could not be read."""


@fieldwise_init
struct Unite[V: Watch](Movable):
    """Links the rows of an index that has no graph yet, from what parts have linked."""

    var linking: Ptr[Linking[Self.V]]
    var new: Ptr[SplitDuplicates]
    var lists: Ptr[PartLists]
    var until: Int
    """Rows of the index."""

    def run(self, rows: Rows) -> Outcome:
        """Does it by rows that `AnyLink` measures."""
        ref linking = self.linking[]
        ref index = linking.index[]
        ref graph = index.graph[]
        ref new = self.new[]
        var log = UndoLog(graph)
        var places = allocate[UInt32](max(new.count, 1))
        var stand_ins = no_block[UInt32]()
        if new.num_duplicates != 0:
            stand_ins = allocate[UInt32](self.until)
        var outcome = NO_MEMORY
        if not (
            log.failed()
            or missing(places)
            or (new.num_duplicates != 0 and missing(stand_ins))
            or not graph.reserve(self.until, new.levels, 0)
        ):
            store_release(graph.linked, self.until)
            self.name_stand_ins(stand_ins)
            outcome = self.unite(rows, stand_ins)
        if outcome == DONE:
            outcome = self.link_rest(rows, places, log)
        release(places)
        release(stand_ins)
        if outcome == DONE:
            outcome = linking.connect_unreachable(rows, log)
        if outcome == DONE:
            index.unrepaired = 0
        return outcome

    def name_stand_ins(self, stand_ins: Ptr[UInt32]):
        """Notes for each row which one stands for it, if there are duplicates."""
        ref new = self.new[]
        if new.num_duplicates == 0:
            return
        for row in range(self.until):
            stand_ins[unsafe_offset=row] = EMPTY
        for i in range(new.num_duplicates):
            stand_ins[unsafe_offset=Int(new.duplicates[unsafe_offset=2 * i])] = new.duplicates[
                unsafe_offset=2 * i + 1
            ]

    def link_rest(self, rows: Rows, places: Ptr[UInt32], log: UndoLog) -> Outcome:
        """Links rows that reach up on their upper levels, and then rows that have no links from any part as new ones.
        """
        ref graph = self.linking[].index[].graph[]
        ref new = self.new[]
        var alone = self.strip()
        var upper = 0
        for i in range(new.count):
            var row = Int(new.places[unsafe_offset=i])
            if graph.links(0, row)[] != EMPTY and new.reaches_up(graph, row):
                places[unsafe_offset=upper] = UInt32(row)
                upper += 1
        if upper == 0:  # none that could lead: all are linked as new ones
            for i in range(new.count):
                graph.empty(Int(new.places[unsafe_offset=i]))
            return self.link(rows, new.places, new.count, 0, False, log)
        var outcome = self.link(rows, places, upper, 0, True, log)
        if outcome != DONE or alone == 0:
            return outcome
        var count = 0
        for i in range(new.count):
            var row = new.places[unsafe_offset=i]
            if graph.links(0, Int(row))[] == EMPTY:
                places[unsafe_offset=count] = row
                count += 1
        # few at a time, since they may be each other's neighbours
        return self.link(rows, places, count, 1, False, log)

    def strip(self) -> Int:
        """Takes away links to rows that have none, until no row is left without because of it; returns how many rows have none.
        """
        ref graph = self.linking[].index[].graph[]
        ref new = self.new[]
        var alone = 0
        while True:
            var count = 0
            for i in range(new.count):
                count += Int(graph.links(0, Int(new.places[unsafe_offset=i]))[] == EMPTY)
            if count == alone:
                return alone
            alone = count
            for i in range(new.count):
                var block = graph.links(0, Int(new.places[unsafe_offset=i]))
                var kept = 0
                for j in range(graph.cap(0)):
                    var other = block[unsafe_offset=j]
                    if other == EMPTY:
                        break
                    if graph.links(0, Int(other))[] != EMPTY:
                        block[unsafe_offset=kept] = other
                        kept += 1
                for j in range(kept, graph.cap(0)):
                    block[unsafe_offset=j] = EMPTY

    def link(
        self,
        rows: Rows,
        places: Ptr[UInt32],
        count: Int,
        present: Int,
        upper_only: Bool,
        log: UndoLog,
    ) -> Outcome:
        """Links rows in rounds."""
        ref linking = self.linking[]
        return link_rows[Self.V](
            linking.work(rows, log),
            NewRows(places, count, self.until, self.new[].levels, present, StartNodes.none()),
            linking.watch[],
            upper_only,
        )

    def unite(self, rows: Rows, stand_ins: Ptr[UInt32]) -> Outcome:
        """Selects the links of all rows on level 0, a range of rows at a time."""
        ref linking = self.linking[]
        ref index = linking.index[]
        ref new = self.new[]
        ref lists = self.lists[]
        var time = now()
        var outcome = DONE
        var begin = 1  # all but the first row are in order
        for first in range(0, self.until, RANGE):
            if not lists.gather(first):
                outcome = NO_MEMORY if lists.failed else Outcome.refusal(lists.unread, UNREADABLE)
                break
            var end = begin
            while end < new.count and Int(new.places[unsafe_offset=end]) < first + RANGE:
                end += 1
            var task = UnitePartLinks(
                index.graph,
                rows,
                new.places.unsafe_offset(begin),
                self.lists,
                stand_ins,
                linking.scratches,
            )
            var ahead = Int(new.places[])
            if first <= ahead and ahead < first + RANGE:
                _ = task.unite(ahead, linking.scratches[][])
            linking.watch[].advance(begin)
            if not linking.team[].run(end - begin, PIECE, task, linking.watch[]):
                outcome = STOPPED
                break
            if any_failed(linking.scratches, linking.team[].size() * MAX_SEARCHES):
                outcome = NO_MEMORY
                break
            begin = end
        _ = index.build_statistics.add_elapsed(FILL, time)
        return outcome


@fieldwise_init
struct JoinParts[V: Watch](Movable):
    """The work."""

    var index: Ptr[Index]
    var change: Ptr[Change]
    var lists: Ptr[PartLists]
    var threads: Int
    var watch: Ptr[Self.V]
    var status: Outcome

    def run(mut self):
        """Encodes all rows and links them."""
        ref index = self.index[]
        ref change = self.change[]
        ref watch = self.watch[]
        var team = Team(self.threads)
        var time = now()
        watch.advance(-index.count)
        self.status = encode(index, change.places(), 0, index.count, team, watch)
        time = index.build_statistics.add_elapsed(ENCODE, time)
        if self.status != DONE:
            return
        var new = SplitDuplicates(index, change)
        self.status = new.split_off_duplicates(index, change, team, watch)
        _ = index.build_statistics.add_elapsed(SORT, time)
        if self.status != DONE:
            return
        if not new.put_upper_row_first_in_new_graph(index, change):
            return
        self.status = NO_MEMORY
        if new.num_duplicates != 0 and not index.duplicates.grow(index.count):
            return
        if not index.new_graph(Graph(index.graph[].asked)):
            return
        raise_strays(index.codes[], index.graph[], new)
        var outcome = NO_MEMORY
        var linking = Linking[Self.V].begin(index, team, watch)
        if not linking.failed:
            var task = Unite[Self.V](
                Pointer(to=linking).unsafe_origin_cast[MutUntrackedOrigin](),
                Pointer(to=new).unsafe_origin_cast[MutUntrackedOrigin](),
                self.lists,
                index.count,
            )
            # estimates do not tell strays apart
            var strays = any_strays(index.codes[], new.places, new.count)
            outcome = task.run(linking.measured(not strays))
        linking.end()
        _ = team^
        if outcome == DONE:
            new.append_duplicates(index)
        self.status = outcome


def join_parts[
    V: Watch
](mut index: Index, parts: Ptr[PartLinks], count: Int, threads: Int, mut watch: V) -> Outcome:
    """Makes the graph of an index that has rows but none.

    Args:
        index: The index, which nobody else uses. It may be a map: what is made is memory of its own.
        parts: What was linked in parts.
        count: Their number.
        threads: Workers; the result does not depend on it.
        watch: May end the call early.

    Returns:
        DONE; or STOPPED, NO_MEMORY, or a refusal: of kind UNKNOWN_ROW if a part names a row that does not exist, or one twice, of
        kind UNREADABLE with the number of a part that could not be read. Then the index is of no use any more.
    """
    var lists = PartLists(parts, count, index.count, index.graph[].slots_at(0))
    if lists.failed:
        return NO_MEMORY
    if lists.broken:
        return Outcome.refusal(0, UNKNOWN_ROW)
    var change = Change()
    change.first = index.count
    var task = JoinParts[V](
        Pointer(to=index).unsafe_origin_cast[MutUntrackedOrigin](),
        Pointer(to=change).unsafe_origin_cast[MutUntrackedOrigin](),
        Pointer(to=lists).unsafe_origin_cast[MutUntrackedOrigin](),
        threads,
        Pointer(to=watch).unsafe_origin_cast[MutUntrackedOrigin](),
        DONE,
    )
    task.run()
    _ = lists^
    if task.status == DONE:
        change.commit(index)
        change.finish(index)
    return task.status
