"""From a change of rows to a changed graph: new rows are linked, removed ones taken out, or all rows linked anew."""
from std.atomic import Ordering, fence
from std.memory import unsafe_memcpy

from vicinal.build import link_rows
from vicinal.change import NO_ROW, Change
from vicinal.graph import Graph, draw_level, fill_empty, slots
from vicinal.index import Index
from vicinal.marks import staying
from vicinal.memory import Column, Ptr, allocate, release
from vicinal.parallel import Team, Watch
from vicinal.places import Places
from vicinal.repair import repair
from vicinal.scratch import Scratch
from vicinal.space import Linker, Rows
from vicinal.undo import UndoLog
from vicinal.unlink import move_entry, patch_links

comptime REPAIR_SHARE = 64
"""All rows are made reachable again after 1/64 of them are new: the flood costs a few percent then."""
comptime ANEW_SHARE = 1
"""Rows are linked anew when as many of those linked go as stay: up to half a graph that was mended found as many neighbours as
one made anew, to 0.005 at ef 16 and 0.002 at ef 64; with 70 % gone it lost 0.014 and 0.003 (10,000 MiniLM rows)."""
comptime WRITTEN = 1
comptime ENDED = 0
comptime OUT = -1
"""How it went: done, ended by the watch, out of memory."""


def link_change[
    L: Linker, V: Watch
](
    mut index: Index,
    mut change: Change,
    rows: Rows,
    team: Team,
    scratches: Ptr[Ptr[Scratch]],
    mut watch: V,
) -> Int:
    """Brings the graph to what it will be after a change; searches may run meanwhile.

    Args:
        index: The index, with all rows that will be there stored.
        change: The change; learns whether rows that go have lost their links.
        rows: What distances are measured on.
        team: Workers.
        scratches: One for each worker.
        watch: May end the work early.

    Returns:
        WRITTEN, or ENDED or OUT: then the graph is as it was.
    """
    var due = change.due(index)
    if index.graph.linked != 0 and not (
        due and change.going(index) >= ANEW_SHARE * change.live_after(index)
    ):
        return _link_some[L](index, change, due, rows, team, scratches, watch)
    if index.marks.in_use:
        return _link_anew[L](index, change, rows, team, scratches, watch)
    return _link_some[L](index, change, False, rows, team, scratches, watch)


def _scan_meanwhile(mut index: Index):
    """Makes searches scan all rows until the change has taken effect, those under way included."""
    index.relinking = True
    fence[Ordering.SEQUENTIAL]()
    index.start_again()


def _levels(index: Index, places: Places, count: Int) -> Ptr[UInt8]:
    var levels = allocate[UInt8](count)
    for i in range(count):
        levels[unsafe_offset=i] = UInt8(draw_level(index.seed, places.row(i), index.graph.M))
    return levels


def _link_some[
    L: Linker, V: Watch
](
    mut index: Index,
    mut change: Change,
    due: Bool,
    rows: Rows,
    team: Team,
    scratches: Ptr[Ptr[Scratch]],
    mut watch: V,
) -> Int:
    """Links the new rows; then takes out links to rows that go if that is due, and makes all reachable if that is.
    """
    ref graph = index.graph
    var places = change.places()
    var count = change.added
    if graph.linked == 0:  # rows from before there was a graph are linked, too
        places = Places.from_row(0)
        count = change.until()
    var log = UndoLog(graph)
    var levels = _levels(index, places, count)
    var outcome = link_rows[L](
        graph,
        rows,
        places,
        count,
        graph.linked - index.marks.free(),
        levels,
        index.ef_construction,
        team,
        scratches,
        log,
        watch,
    )
    release(levels)
    var unrepaired = index.unrepaired + count
    var whole = due or unrepaired * REPAIR_SHARE >= change.live_after(index)
    watch.advance(change.size())  # what follows is no progress of rows
    if outcome == WRITTEN and due:
        if change.replaces:  # until the successors of rows show, walks could find neither
            _scan_meanwhile(index)
        change.kept = move_entry(graph, index.marks.address())
        change.unlinked = True
        outcome = Int(
            patch_links[L](
                graph, rows, index.marks.address(), change.kept, team, scratches, log, watch
            )
        )
    if outcome == WRITTEN and whole:
        outcome = Int(
            repair[L](
                graph,
                rows,
                index.marks.address(),
                index.ef_construction,
                log,
                scratches[][],
                watch,
            )
        )
        unrepaired = 0
    if outcome == WRITTEN and not watch.conclude(change.size()):
        outcome = ENDED
    if outcome == WRITTEN:
        index.unrepaired = unrepaired
        return WRITTEN
    log.undo(graph)
    for i in range(change.num_reused):
        graph.empty(places.row(i))
    change.unlinked = False
    change.kept = NO_ROW
    index.relinking = False
    return outcome


struct Backup(Movable):
    """A copy of a graph's links."""

    var links0: Column
    var upper_links: Column
    var linked: Int
    var ordinals: Int
    var blocks: Int
    var entry: Int

    def __init__(out self, graph: Graph):
        """Remembers the size."""
        self.links0 = Column()
        self.upper_links = Column()
        self.linked = graph.linked
        self.ordinals = graph.ordinals
        self.blocks = graph.blocks
        self.entry = graph.entry

    def copy(mut self, graph: Graph) -> Bool:
        """Copies the links; returns False when memory is out."""
        var bytes = self.linked * slots(2 * graph.M) * 4
        var upper_bytes = self.blocks * slots(graph.M) * 4
        if not self.links0.grow(bytes) or not self.upper_links.grow(upper_bytes):
            return False
        if bytes != 0:
            unsafe_memcpy(dest=self.links0.ptr[UInt8](), src=graph.links0.ptr[UInt8](), count=bytes)
        if upper_bytes != 0:
            unsafe_memcpy(
                dest=self.upper_links.ptr[UInt8](),
                src=graph.upper_links.ptr[UInt8](),
                count=upper_bytes,
            )
        return True

    def restore(self, mut graph: Graph):
        """Puts everything back."""
        var bytes = self.linked * slots(2 * graph.M) * 4
        var upper_bytes = self.blocks * slots(graph.M) * 4
        if bytes != 0:
            unsafe_memcpy(dest=graph.links0.ptr[UInt8](), src=self.links0.ptr[UInt8](), count=bytes)
        if upper_bytes != 0:
            unsafe_memcpy(
                dest=graph.upper_links.ptr[UInt8](),
                src=self.upper_links.ptr[UInt8](),
                count=upper_bytes,
            )
        graph.entry = self.entry
        graph.linked = self.linked
        graph.rows = self.linked
        graph.ordinals = self.ordinals
        graph.blocks = self.blocks


def _link_anew[
    L: Linker, V: Watch
](
    mut index: Index,
    mut change: Change,
    rows: Rows,
    team: Team,
    scratches: Ptr[Ptr[Scratch]],
    mut watch: V,
) -> Int:
    """Links all rows that stay as if there had been no graph, which is cheaper and better when most of it goes.
    """
    ref graph = index.graph
    var until = change.until()
    var backup = Backup(graph)
    if not backup.copy(graph):
        return OUT
    var all = _levels(index, Places.from_row(graph.linked), until - graph.linked)
    var reserved = graph.reserve(until, all, graph.linked)
    release(all)
    if not reserved:
        return OUT
    var list = allocate[UInt32](until + 1)
    var count = _list_staying(index, change, list, until)
    var places = Places(list, count, until)
    var levels = _levels(index, places, count)
    if backup.linked != 0:
        _scan_meanwhile(index)
        fill_empty(graph.links0.ptr[UInt32](), until * slots(2 * graph.M))
        fill_empty(graph.upper_links.ptr[UInt32](), graph.blocks * slots(graph.M))
    var log = UndoLog(Graph(graph.M))  # keeps nothing: the backup has it all
    var outcome = link_rows[L](
        graph,
        rows,
        places,
        count,
        0,
        levels,
        index.ef_construction,
        team,
        scratches,
        log,
        watch,
    )
    release(levels)
    release(list)
    if outcome == WRITTEN:
        graph.linked = until
        watch.advance(change.size())
        var whole = repair[L](
            graph,
            rows,
            index.marks.address(),
            index.ef_construction,
            log,
            scratches[][],
            watch,
        )
        outcome = Int(whole and watch.conclude(change.size()))
    if outcome == WRITTEN:
        index.unrepaired = 0
        change.unlinked = True
        return WRITTEN
    backup.restore(graph)
    change.kept = NO_ROW
    index.relinking = False
    return outcome


def _list_staying(index: Index, mut change: Change, list: Ptr[UInt32], until: Int) -> Int:
    """Lists the rows that stay, first the lowest one that reaches level 1: the entry point.

    If there is none, row 0 serves, which always does. It is removed, so it stays pending: a way through for walks.
    """
    var first = -1
    for row in range(until):
        if staying(index.marks.of(row)) and draw_level(index.seed, row, index.graph.M) > 0:
            first = row
            break
    if first < 0:
        first = 0
        change.kept = 0
    list[] = UInt32(first)
    var count = 1
    for row in range(until):
        if row != first and staying(index.marks.of(row)):
            list[unsafe_offset=count] = UInt32(row)
            count += 1
    return count
