"""The invariants of an index, each with the number that reports it broken."""
from vicinal.file.posix import INTERRUPTED, SYSTEM
from vicinal.graph.links import EMPTY, Graph
from vicinal.graph.reachability import LOOK_EVERY, Reachability
from vicinal.index.untrusted_links import validate_rings
from vicinal.index.vector_index import Index
from vicinal.rows.row_states import FREE, LIVE, PENDING, stays
from vicinal.system.memory import at
from vicinal.system.outcome import NO_MEMORY, STOPPED
from vicinal.system.parallel import Team, Unwatched, Watch

comptime SOUND = 0
comptime TOO_MANY_LINKS = 1
"""A slot beyond the cap is used."""
comptime HOLE = 2
"""An EMPTY slot stands before a used one."""
comptime NO_SUCH_NODE = 3
"""A link leads to a node that does not exist on its level."""
comptime SELF_LINK = 4
comptime DOUBLE_LINK = 5
comptime BAD_TABLE = 6
"""The rows or starts of the upper levels are out of order."""
comptime BAD_ENTRY = 7
"""The entry point does not exist or does not have the highest level."""
comptime UNREACHABLE = 8
"""A row cannot be reached from the entry point on level 0."""
comptime UNLINKED = 9
"""More or fewer rows have no links than are copies of others or free."""
comptime FREE_ROW_LINKED = 10
"""A link leads to or from a row that was freed."""
comptime BAD_RING = 11
"""Duplicates of a row are not where they must be, or not of the same content, or what was removed contradicts them."""


def check_index[V: Watch](index: Index, mut watch: V) -> Int:
    """Checks all invariants; changes nothing.

    Args:
        index: The index; no writer may be at work.
        watch: May end the check early.

    Returns:
        SOUND or the number of the first invariant found broken; or the code of STOPPED or NO_MEMORY.
    """
    var found = check_graph_watched(
        index.graph[],
        index.count,
        index.unrepaired == 0,
        _count_apart(index),
        index.states.address(),
        watch,
    )
    if found != SOUND:
        return found
    var rings = validate_rings(index, watch)
    if rings.code == SYSTEM:
        return NO_MEMORY.code
    if rings.code == INTERRUPTED:
        return STOPPED.code
    return SOUND if rings.ok() else BAD_RING


def _count_apart(index: Index) -> Int:
    """Counts the rows that are free, and the copies that are there."""
    var count = 0
    for row in range(index.count):
        var mark = index.states.of(row) if index.states.in_use else LIVE
        count += Int(mark == FREE or (mark != PENDING and index.duplicates.is_duplicate(row)))
    return count


def check_graph(graph: Graph, count: Int, whole: Bool, apart: Int = 0, states: Int = 0) -> Int:
    """Checks the invariants of the links; changes nothing.

    Args:
        graph: The links; no writer may be at work.
        count: Rows of the index, removed ones included.
        whole: Whether rows were repaired since the last insertion, so that all must be reachable.
        apart: Rows that take no part in the graph, pending ones not counted.
        states: Address of the rows' states, 0 if none was removed.

    Returns:
        SOUND or the number of the first invariant found broken, or the code of NO_MEMORY.
    """
    var unwatched = Unwatched()
    return check_graph_watched(graph, count, whole, apart, states, unwatched)


def check_graph_watched[
    V: Watch
](graph: Graph, count: Int, whole: Bool, apart: Int, states: Int, mut watch: V) -> Int:
    """Does the same; returns the code of STOPPED if `watch` ends it."""
    if graph.linked == 0:
        return SOUND if graph.entry < 0 else BAD_ENTRY
    if graph.linked != count:
        return NO_SUCH_NODE
    var table = _check_table(graph, states)
    if table != SOUND:
        return table
    var absent = 0
    for row in range(graph.linked):
        if row % LOOK_EVERY == 0 and not watch.proceed(0):
            return STOPPED.code
        # a pending row may have links or none: it was a copy, or no graph has had it
        absent += Int(graph.absent(row) and not _is(states, row, PENDING))
        var found = _check_block(graph, 0, row, graph.linked, states)
        if found != SOUND:
            return found
    for ordinal in range(graph.ordinals):
        if ordinal % LOOK_EVERY == 0 and not watch.proceed(0):
            return STOPPED.code
        for level in range(1, graph.level_of(ordinal) + 1):
            var found = _check_block(graph, level, ordinal, graph.ordinals, states)
            if found != SOUND:
                return found
    if absent != apart:
        return UNLINKED
    if whole:
        var flood = Reachability(graph.linked)
        if flood.failed():
            return NO_MEMORY.code
        var alone = Team(1)
        if not flood.flood(graph, graph.row_of(graph.entry), alone, watch):
            return STOPPED.code
        var missed = flood.all_unreached(graph, states, alone, watch)
        if missed != 0:
            return UNREACHABLE if missed > 0 else STOPPED.code
    return SOUND


@always_inline
def _is(states: Int, row: Int, mark: UInt8) -> Bool:
    return states != 0 and at[UInt8](states)[unsafe_offset=row] == mark


def _check_table(graph: Graph, states: Int) -> Int:
    var upper_rows = graph.upper_rows.ptr[UInt32]()
    var start = graph.upper_start.ptr[UInt32]()
    if graph.entry < 0 or graph.entry >= graph.ordinals:
        return BAD_ENTRY
    if start[] != 0 or Int(start[unsafe_offset=graph.ordinals]) != graph.blocks:
        return BAD_TABLE
    for ordinal in range(graph.ordinals):
        var row = Int(upper_rows[unsafe_offset=ordinal])
        if row >= graph.linked or (
            ordinal > 0 and row <= Int(upper_rows[unsafe_offset=ordinal - 1])
        ):
            return BAD_TABLE
        if start[unsafe_offset=ordinal + 1] <= start[unsafe_offset=ordinal]:
            return BAD_TABLE
        if graph.level_of(ordinal) > graph.top() and stays(states, row) and not graph.absent(row):
            return BAD_ENTRY
    # a free row leads nowhere, so that no search could begin there
    return FREE_ROW_LINKED if _is(states, graph.row_of(graph.entry), FREE) else SOUND


def _check_block(graph: Graph, level: Int, node: Int, nodes: Int, states: Int) -> Int:
    var block = graph.links(level, node)
    var cap = graph.cap(level)
    for i in range(cap, graph.slots_at(level)):
        if block[unsafe_offset=i] != EMPTY:
            return TOO_MANY_LINKS
    var ended = False
    for i in range(cap):
        var link = block[unsafe_offset=i]
        if link == EMPTY:
            ended = True
            continue
        if ended:
            return HOLE
        if Int(link) >= nodes or (level > 0 and graph.level_of(Int(link)) < level):
            return NO_SUCH_NODE
        if Int(link) == node:
            return SELF_LINK
        if _is(states, graph.row_at(level, node), FREE) or _is(
            states, graph.row_at(level, Int(link)), FREE
        ):
            return FREE_ROW_LINKED
        for j in range(i):
            if block[unsafe_offset=j] == link:
                return DOUBLE_LINK
    return SOUND
