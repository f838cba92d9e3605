"""Bringing a change of rows into the graph: copies apart, new rows linked on codes or rows, removed ones taken out."""
from std.atomic import Ordering, fence

from vicinal.build import link_rows
from vicinal.change import NO_ROW, Change
from vicinal.clock import now
from vicinal.code_space import BetweenCodes, ExactBytes
from vicinal.codes import EXACT, ROTATED, SCALED
from vicinal.fill import fill_slots
from vicinal.graph import Graph, fill_empty, slots
from vicinal.index import DONE, NO_MEMORY, STOPPED, Index
from vicinal.interleave import LANES
from vicinal.ledger import FILL, REPAIR, SORT
from vicinal.marks import stays
from vicinal.memory import Ptr, allocate, release
from vicinal.parallel import Team, Watch
from vicinal.repair import repair
from vicinal.scratch import Scratch
from vicinal.seeds import Order, Seeds
from vicinal.sorting import Sorted
from vicinal.space import COSINE, IP, Linker, Rows, Space
from vicinal.undo import Backup, UndoLog
from vicinal.unlink import move_entry, patch_links

comptime REPAIR_SHARE = 64
"""All rows are made reachable again after 1/64 of them are new: the flood costs a few percent then."""
comptime ANEW_SHARE = 1
"""Rows are linked anew when as many went, in this call or since, as stay: up to half, a graph that was mended found as many neighbours as
one made anew, to 0.003; with 70 % gone it lost 0.014 at ef 16 (10,000 MiniLM rows)."""
comptime MANY_SHARE = 4
"""Rows of another index are many if they are a quarter of those that take part: to fill the slots of old rows anew takes a tenth of the
time then, and finds 0.002 to 0.003 more (ef 16), as much as a graph made of all rows at once."""
comptime WRITTEN = 1
comptime ENDED = 0
comptime OUT = -1
"""How it went: done, ended by the watch, out of memory."""


@fieldwise_init
struct Linking[V: Watch]:
    """One call's work on the graph."""

    var index: Ptr[Index]
    var change: Ptr[Change]
    var new: Ptr[Sorted]
    var team: Ptr[Team]
    var scratches: Ptr[Ptr[Scratch]]
    var watch: Ptr[Self.V]
    var total: Int
    """Rows of the call, for its watch."""

    def on_codes[S: Space](self) -> Int:
        """Links on codes where they tell how far two rows are from each other, on the stored rows otherwise.

        Estimating codes of ip do not: they hold residuals to the centre, and what the centre adds is not among them.
        """
        ref codes = self.index[].codes[]
        var rows = codes.rows(self.index[].rows())
        comptime if S.metric != COSINE:
            if codes.kind == EXACT:
                return self.on[ExactBytes[S.metric, S.T == DType.int8]](rows)
        comptime if S.metric != IP and S.T.is_floating_point():
            if codes.kind == ROTATED and codes.fit:
                return self.on[BetweenCodes[4]](rows)
            if codes.kind == SCALED and codes.fit:
                return self.on[BetweenCodes[8]](rows)
        return self.on[S](self.index[].rows())

    def on[L: Linker](self, rows: Rows) -> Int:
        """Links and repairs with one way of measuring; undoes all of it if it was ended early."""
        ref index = self.index[]
        ref change = self.change[]
        var due = index.graph.linked != 0 and change.due(index)
        var going = change.going(index) if due else 0
        if due and index.mended + going >= ANEW_SHARE * change.live_after(index):
            var places = self.new[].with_settled(index, change.until())
            if places.lead(index.graph):
                var outcome = self.anew[L](places, rows)
                if outcome == WRITTEN:
                    index.mended = 0
                return outcome
        var outcome = self.some[L](due, rows)
        if outcome == WRITTEN:
            index.mended = max(index.mended + going - change.added, 0)
        return outcome

    def some[L: Linker](self, due: Bool, rows: Rows) -> Int:
        """Links the new rows, takes out links to rows that go if that is due, and makes all reachable if that is.
        """
        ref index = self.index[]
        ref graph = index.graph
        ref change = self.change[]
        ref new = self.new[]
        ref watch = self.watch[]
        var log = UndoLog(graph)
        var outcome: Int
        if change.origin.count != 0 and new.count != 0:
            outcome = self.link_from_other[L](rows, log)
        else:
            outcome = self.link[L](rows, new, index.taking_part(), log, Seeds.none())
        var unrepaired = index.unrepaired + change.added
        if log.linked == 0:
            unrepaired = change.until()
        var whole = due or unrepaired * REPAIR_SHARE >= change.live_after(index)
        watch.advance(self.total)  # what follows is no progress of rows
        if outcome == WRITTEN and due:
            if change.replaces:  # until the successors of rows show, walks could find neither
                self.scan_meanwhile()
            change.kept = move_entry(graph, index.marks.address())
            change.unlinked = True
            var time = now()
            outcome = Int(
                patch_links[L](
                    graph,
                    rows,
                    index.marks.address(),
                    change.kept,
                    self.team[],
                    self.scratches,
                    log,
                    watch,
                )
            )
            _ = index.ledger.spend(REPAIR, time)
            if outcome == WRITTEN:
                outcome = self.fill_mended[L](rows, log)
        if outcome == WRITTEN and whole:
            outcome = self.mend[L](rows, log)
            unrepaired = 0
        if outcome == WRITTEN and not watch.conclude(self.total):
            outcome = ENDED
        if outcome == WRITTEN:
            index.unrepaired = unrepaired
            change.unlinked = change.unlinked or log.linked == 0
            return WRITTEN
        log.undo(graph)
        for i in range(change.num_reused):
            if Int(change.reused[unsafe_offset=i]) < graph.linked:
                graph.empty(Int(change.reused[unsafe_offset=i]))
        change.unlinked = False
        change.kept = NO_ROW
        index.relinking = False
        return outcome

    def anew[L: Linker](self, places: Sorted, rows: Rows) -> Int:
        """Links all rows that stay as if there had been no graph, which is cheaper and better when most of it goes.
        """
        ref index = self.index[]
        ref graph = index.graph
        ref change = self.change[]
        var backup = Backup(graph)
        if not backup.copy(graph):
            return OUT
        self.scan_meanwhile()
        fill_empty(graph.links0.ptr[UInt32](), graph.linked * slots(2 * graph.M))
        fill_empty(graph.upper_links.ptr[UInt32](), graph.blocks * slots(graph.M))
        var log = UndoLog(Graph(graph.M))  # keeps nothing: the backup has it all
        var outcome = self.link[L](rows, places, 0, log, Seeds.none())
        self.watch[].advance(self.total)
        if outcome == WRITTEN:
            outcome = self.mend[L](rows, log)
        if outcome == WRITTEN and not self.watch[].conclude(self.total):
            outcome = ENDED
        if outcome == WRITTEN:
            index.unrepaired = 0
            change.unlinked = True
            return WRITTEN
        backup.restore(graph)
        index.relinking = False
        return outcome

    def link_from_other[L: Linker](self, rows: Rows, log: UndoLog) -> Int:
        """Links rows that another index has linked already.

        If many come, rows that were in this graph before are looked at again: when their slots were filled, much of what is near
        was not there.
        """
        ref index = self.index[]
        ref new = self.new[]
        var many = new.count * MANY_SHARE >= index.taking_part()
        var order = new.order(index.graph, self.change[])
        var outcome = self.link[L](
            rows, new, index.taking_part(), log, order.seeds(index.ef_construction)
        )
        _ = order^
        return self.fill_mended[L](rows, log) if outcome == WRITTEN and many else outcome

    def link[
        L: Linker
    ](self, rows: Rows, new: Sorted, present: Int, log: UndoLog, seeds: Seeds) -> Int:
        """Links rows that are no copies, and gives blocks to all that are new."""
        ref index = self.index[]
        var outcome = link_rows[L, Self.V](
            index.graph,
            rows,
            new.places,
            new.count,
            self.change[].until(),
            new.levels,
            present,
            index.ef_construction,
            self.team[],
            self.scratches,
            log,
            index.ledger,
            self.watch[],
            seeds,
        )
        if outcome != WRITTEN:
            return outcome
        self.watch[].advance(new.count)
        return self.fill[L](rows, new.places, new.count, log)

    def fill_mended[L: Linker](self, rows: Rows, log: UndoLog) -> Int:
        """Fills the slots that are free in blocks of others which have changed."""
        ref index = self.index[]
        var marks = index.marks.address()
        var places = allocate[UInt32](max(log.linked, 1))
        var count = 0
        for row in range(log.linked):
            if log.touched[unsafe_offset=row] != 0 and stays(marks, row):
                places[unsafe_offset=count] = UInt32(row)
                count += 1
        var outcome = self.fill[L](rows, places, count, log)
        release(places)
        return outcome

    def fill[L: Linker](self, rows: Rows, places: Ptr[UInt32], count: Int, log: UndoLog) -> Int:
        """Fills free slots of some rows."""
        var time = now()
        var outcome = Int(
            fill_slots[L](
                self.index[].graph,
                rows,
                places,
                count,
                self.team[],
                self.scratches,
                log,
                self.watch[],
            )
        )
        _ = self.index[].ledger.spend(FILL, time)
        return outcome

    def mend[L: Linker](self, rows: Rows, log: UndoLog) -> Int:
        """Makes all rows reachable."""
        ref index = self.index[]
        var time = now()
        var outcome = Int(
            repair[L](
                index.graph,
                rows,
                index.marks.address(),
                index.ef_construction,
                log,
                self.scratches[][],
                self.watch[],
            )
        )
        _ = index.ledger.spend(REPAIR, time)
        return outcome

    def scan_meanwhile(self):
        """Makes searches scan all rows until the change has taken effect, those under way included.
        """
        self.index[].relinking = True
        fence[Ordering.SEQUENTIAL]()
        self.index[].start_again()


def link_change[
    S: Space, V: Watch
](mut index: Index, mut change: Change, team: Team, mut watch: V) -> Int:
    """Brings the graph to what it will be after a change whose rows are stored and encoded; searches may run meanwhile.

    Args:
        index: The index.
        change: The change; learns whether rows that go have lost their links.
        team: Workers.
        watch: May end the work early.

    Returns:
        DONE, STOPPED or NO_MEMORY; the graph is as it was unless DONE.
    """
    var time = now()
    var new = Sorted(index, change)
    var sorted = new.set_copies_apart(index, change, watch)
    _ = index.ledger.spend(SORT, time)
    if not sorted:
        new.forget(index)
        return STOPPED
    if index.graph.linked == 0 and not new.lead_first(index, change):
        new.forget(index)
        return DONE if watch.conclude(change.size()) else STOPPED  # searches go on scanning
    var outcome = OUT
    if (new.copied == 0 and index.copies.count == 0) or index.copies.grow(change.until()):
        var scratches = allocate[Ptr[Scratch]](team.size() * LANES)
        for i in range(team.size() * LANES):
            scratches[unsafe_offset=i] = index.shelf.take()
        index.ledger.count_work(scratches, team.size() * LANES, -1)
        outcome = Linking[V](
            Pointer(to=index).unsafe_origin_cast[MutUntrackedOrigin](),
            Pointer(to=change).unsafe_origin_cast[MutUntrackedOrigin](),
            Pointer(to=new).unsafe_origin_cast[MutUntrackedOrigin](),
            Pointer(to=team).unsafe_mut_cast[True]().unsafe_origin_cast[MutUntrackedOrigin](),
            scratches,
            Pointer(to=watch).unsafe_origin_cast[MutUntrackedOrigin](),
            change.size(),
        ).on_codes[S]()
        index.ledger.count_work(scratches, team.size() * LANES, 1)
        for i in range(team.size() * LANES):
            index.shelf.put(scratches[unsafe_offset=i])
        release(scratches)
    if outcome == WRITTEN:
        new.append_copies(index)
        return DONE
    new.forget(index)
    return STOPPED if outcome == ENDED else NO_MEMORY
