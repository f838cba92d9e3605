"""The invariants of an index, each with the number that reports it broken."""
from vicinal.graph import EMPTY, Graph
from vicinal.index import Index
from vicinal.marks import FREE, PENDING, stays
from vicinal.memory import at
from vicinal.repair import unreachable
from vicinal.trust import look_at_rings

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
comptime NOT_KNOWN = -1
"""There is no memory to find out."""

comptime BAD_RING = 11
"""Copies of a row are not where they must be, or not of the same content, or what was removed contradicts them."""


def check_index(index: Index) -> Int:
    """Checks all invariants; changes nothing.

    Args:
        index: The index; no writer may be at work.

    Returns:
        SOUND or the number of the first invariant found broken.
    """
    var found = check_graph(
        index.graph[],
        index.count,
        index.unrepaired == 0,
        index.copies.count + index.marks.free() + _without_links(index),
        index.marks.address(),
    )
    if found == SOUND and not look_at_rings(index).ok():
        return BAD_RING
    return found


def _without_links(index: Index) -> Int:
    """Returns how many rows that wait to be freed have no links: those that a graph made meanwhile has left out.
    """
    ref graph = index.graph[]
    var count = 0
    if index.leftovers:
        for row in range(graph.linked):
            var pending = index.marks.of(row) == PENDING and not index.copies.is_copy(row)
            count += Int(pending and graph.absent(row))
        return count
    for i in range(index.unlinked.count):
        var row = index.unlinked.row(i)
        count += Int(row < graph.linked and graph.absent(row))
    return count


def check_graph(graph: Graph, count: Int, whole: Bool, apart: Int = 0, marks: Int = 0) -> Int:
    """Checks the invariants of the links; changes nothing.

    Args:
        graph: The links; no writer may be at work.
        count: Rows of the index, removed ones included.
        whole: Whether rows were repaired since the last insertion, so that all must be reachable.
        apart: Rows that take no part in the graph.
        marks: Address of the rows' marks, 0 if none was removed.

    Returns:
        SOUND or the number of the first invariant found broken, or NOT_KNOWN.
    """
    if graph.linked == 0:
        return SOUND if graph.entry < 0 else BAD_ENTRY
    if graph.linked != count:
        return NO_SUCH_NODE
    var table = _check_table(graph, marks)
    if table != SOUND:
        return table
    var absent = 0
    for row in range(graph.linked):
        absent += Int(graph.absent(row))
        var found = _check_block(graph, 0, row, graph.linked, marks)
        if found != SOUND:
            return found
    for ordinal in range(graph.ordinals):
        for level in range(1, graph.level_of(ordinal) + 1):
            var found = _check_block(graph, level, ordinal, graph.ordinals, marks)
            if found != SOUND:
                return found
    if absent != apart:
        return UNLINKED
    var missed = unreachable(graph, marks) if whole else 0
    if missed < 0:
        return NOT_KNOWN
    return SOUND if missed == 0 else UNREACHABLE


@always_inline
def _is_free(marks: Int, row: Int) -> Bool:
    return marks != 0 and at[UInt8](marks)[unsafe_offset=row] == FREE


def _check_table(graph: Graph, marks: Int) -> Int:
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
        if graph.level_of(ordinal) > graph.top() and stays(marks, row) and not graph.absent(row):
            return BAD_ENTRY
    # a free row leads nowhere, so that no search could begin there
    return FREE_ROW_LINKED if _is_free(marks, graph.row_of(graph.entry)) else SOUND


def _check_block(graph: Graph, level: Int, node: Int, nodes: Int, marks: Int) -> Int:
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
        if _is_free(marks, graph.row_at(level, node)) or _is_free(
            marks, graph.row_at(level, Int(link))
        ):
            return FREE_ROW_LINKED
        for j in range(i):
            if block[unsafe_offset=j] == link:
                return DOUBLE_LINK
    return SOUND
