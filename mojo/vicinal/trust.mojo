"""What must hold of a graph from a file before rows may be added to it.

A search clamps whatever it reads of a map, so a damaged file can only mislead it. Insertion follows links that it has read
before, many times over, and writes through them; to clamp there would slow down every insertion for the sake of a file that
is broken anyway. So a private copy is looked at once, when it is made, which takes less time than copying it.
"""
from vicinal.copies import ALONE, ORIGINAL, Copies
from vicinal.file import ENOMEM, Status
from vicinal.format import BAD_CONTENT, name_of
from vicinal.graph import EMPTY, MAX_LEVEL, Graph
from vicinal.memory import allocate_zeroed, at, missing, release


def distrust(graph: Graph, copies: Copies) -> Status:
    """Looks for anything that insertion could not bear: links out of range, holes, tables out of order, open rings.

    Args:
        graph: Links whose columns have the right sizes.
        copies: Rings of the same rows.

    Returns:
        DONE, or BAD_CONTENT with the section and the row or ordinal that is wrong in it.
    """
    var status = _look_at_tables(graph)
    for row in range(graph.linked):
        if status.ok() and not _sound(graph, 0, row, graph.linked):
            status = Status(BAD_CONTENT, row, 0, name_of("links0"))
    for ordinal in range(graph.ordinals):
        for level in range(1, graph.level_of(ordinal) + 1):
            if status.ok() and not _sound(graph, level, ordinal, graph.ordinals):
                status = Status(BAD_CONTENT, ordinal, 0, name_of("upper_links"))
    return _look_at_rings(copies) if status.ok() else status


def _look_at_tables(graph: Graph) -> Status:
    """Checks that the ordinals' rows ascend and that their blocks follow each other."""
    if graph.ordinals == 0:
        return Status.done()
    var rows = graph.upper_rows.ptr[UInt32]()
    var start = graph.upper_start.ptr[UInt32]()
    var block = 0
    var row = -1
    for ordinal in range(graph.ordinals):
        var next = Int(rows[unsafe_offset=ordinal])
        if next <= row or next >= graph.linked:
            return Status(BAD_CONTENT, ordinal, 0, name_of("upper_rows"))
        row = next
        var levels = Int(start[unsafe_offset=ordinal + 1]) - block
        if Int(start[unsafe_offset=ordinal]) != block or levels < 1 or levels > MAX_LEVEL:
            return Status(BAD_CONTENT, ordinal, 0, name_of("upper_start"))
        block += levels
    if block != graph.blocks:
        return Status(BAD_CONTENT, graph.ordinals, 0, name_of("upper_start"))
    return Status.done()


def _sound(graph: Graph, level: Int, node: Int, nodes: Int) -> Bool:
    """Tells whether a block holds other nodes of its level, no more than it may, and nothing behind them.
    """
    var block = graph.links(level, node)
    var used = 0
    while used < graph.cap(level) and block[unsafe_offset=used] != EMPTY:
        var link = Int(block[unsafe_offset=used])
        if link >= nodes or link == node or (level > 0 and graph.level_of(link) < level):
            return False
        used += 1
    for i in range(used, graph.slots_at(level)):
        if block[unsafe_offset=i] != EMPTY:
            return False
    return True


def _look_at_rings(copies: Copies) -> Status:
    """Checks that originals lead to copies, and that each copy is led to by one other or itself."""
    var next = copies.next.ptr[UInt32]() if copies.rows != 0 else at[UInt32](64)
    var status = Status.done()
    var led_to = allocate_zeroed[UInt8](copies.rows)
    if missing(led_to):
        return Status.system(ENOMEM)
    var found = 0
    for row in range(copies.rows):
        var value = next[unsafe_offset=row]
        if value == ALONE:
            continue
        var to = Int(value & ~ORIGINAL)
        var right = to < copies.rows and copies.is_copy(to)
        if value < ORIGINAL:
            found += 1
            right = right and led_to[unsafe_offset=to] == 0
            if right:
                led_to[unsafe_offset=to] = 1
        if not right and status.ok():
            status = Status(BAD_CONTENT, row, 0, name_of("copies"))
    release(led_to)
    if status.ok() and found != copies.count:
        status = Status(BAD_CONTENT, copies.rows, 0, name_of("copies"))
    return status
