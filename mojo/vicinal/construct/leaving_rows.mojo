"""What has to be known above level 0 before links to rows that leave are taken out: another entry point, and who loses links there."""
from vicinal.graph.links import Graph
from vicinal.rows.leaving import Blocks
from vicinal.rows.row_states import is_live_after, is_to_be_unlinked
from vicinal.system.array import GrowableArray
from vicinal.system.atomics import store_release
from vicinal.system.memory import at


def move_entry(mut graph: Graph, states: Int) -> Int:
    """Makes a row that stays the entry point, one of the highest level.

    Returns:
        -1, or the row of the entry point if it has to be kept: no row that stays reaches level 1.
    """
    var mark = at[UInt8](states)
    if not is_to_be_unlinked(mark[unsafe_offset=graph.row_of(graph.entry)]):
        return -1
    var best = -1
    for ordinal in range(graph.ordinals):
        var row = graph.row_of(ordinal)
        if not is_live_after(mark[unsafe_offset=row]) or graph.absent(row):
            continue
        if best < 0 or graph.level_of(ordinal) > graph.level_of(best):
            best = ordinal
    if best < 0:
        return graph.row_of(graph.entry)
    store_release(graph.entry, best)
    return -1


def losing_ordinals(graph: Graph, blocks: Blocks) -> GrowableArray:
    """Returns the ordinals of some blocks whose rows stay and lose links above level 0."""
    var found = GrowableArray()
    for ordinal in range(blocks.first_ordinal, blocks.last_ordinal):
        var row = graph.row_of(ordinal)
        if not graph.absent(row) and not graph.leaves(row) and _loses(graph, ordinal):
            found.push(Int64(ordinal))
    return found^


def _loses(graph: Graph, ordinal: Int) -> Bool:
    for level in range(1, graph.level_of(ordinal) + 1):
        var block = graph.links(level, ordinal)
        for i in range(graph.cap(level)):
            var other = Int(block[unsafe_offset=i])
            if other < graph.ordinals and graph.leaves(graph.row_of(other)):
                return True
    return False
