"""Neighbour selection: sorted candidates in, diverse nodes out.

Source: Malkov and Yashunin, arXiv:1603.09320, algorithm 4, with the factor of Vamana (DiskANN, NeurIPS 2019), and without
back-filling what it rejects: lists stay short, so reverse links rarely overflow and searches measure fewer rows.
"""
from vicinal.graph.links import SLOTS_PER_LINE, Graph
from vicinal.kernels.any_distance import AnyLink
from vicinal.kernels.candidates import Candidates, key_of, node_of
from vicinal.kernels.space import Rows, SymmetricDistance, prefetch_row
from vicinal.system.memory import Ptr
from vicinal.walk.scratch import HOP_ROOM, Scratch

comptime CONSIDERED = 5
"""Candidates that a selection on level 0 looks at, in multiples of M: of more, hardly any is chosen. It does look at the others where
the last is much farther: between clusters these are the only links that lead out (`considered`)."""
comptime FEW_LINKS = 8
"""The largest M that counts as few links."""
comptime SLACK = 6
"""Slots that a pruned block of level 0 keeps free, so that the next reverse links need no pruning; fewer in small ones, see `room_for`."""


def robust_prune[
    S: SymmetricDistance
](
    graph: Graph,
    rows: Rows,
    level: Int,
    candidates: Ptr[Int64],
    count: Int,
    wanted: Int,
    mut scratch: Scratch,
) -> Int:
    """Picks candidates in two goes: first those nearer to the centre than to any picked before them, then, if there is
    room, those that are not nearer to one picked by as much as `space.SQUARED_ALPHA`.

    Args:
        graph: Tells the row of a node above level 0.
        rows: The rows.
        level: The level that the candidates are nodes of.
        candidates: Entries sorted by their distance to the centre, which is not among them.
        count: Number of candidates.
        wanted: The most that may be picked, at most HOP_ROOM.
        scratch: Receives the picked nodes in `selected`, those of each go nearest first; `unvisited` is used, too.

    Returns:
        The number of nodes picked; 0 if the scratch has failed.
    """
    var picked = scratch.selected
    var spare = scratch.unvisited
    var queries = scratch.queries_for(wanted * S.query_bytes(rows))
    if scratch.failed():
        return 0
    var kept = 0
    var spared = 0
    for i in range(count):
        if kept == wanted:
            return kept
        if i + 1 < count:
            prefetch_row(rows, graph.row_at(level, node_of(candidates[unsafe_offset=i + 1])))
        var entry = candidates[unsafe_offset=i]
        var row = graph.row_at(level, node_of(entry))
        var first = True
        var second = spared < HOP_ROOM
        var j = 0
        while j < kept and (first or second):
            var key = S.key(queries[unsafe_offset=j], rows, row)
            first = first and key >= key_of(entry)
            second = second and not S.occludes(key, key_of(entry))
            j += 1
        if first:
            picked[unsafe_offset=kept] = UInt32(node_of(entry))
            scratch.prepare[S](rows, row, kept)
            kept += 1
        elif second:  # remembered with how many it was compared with
            spare[unsafe_offset=spared] = Int64(i << 32 | j)
            spared += 1
    for i in range(spared):
        if kept == wanted:
            break
        var entry = candidates[unsafe_offset=Int(spare[unsafe_offset=i] >> 32)]
        var row = graph.row_at(level, node_of(entry))
        var good = True
        var j = Int(spare[unsafe_offset=i] & 0xFFFFFFFF)
        while j < kept and good:
            good = not S.occludes(S.key(queries[unsafe_offset=j], rows, row), key_of(entry))
            j += 1
        if good:
            picked[unsafe_offset=kept] = UInt32(node_of(entry))
            scratch.prepare[S](rows, row, kept)
            kept += 1
    return kept


def with_node(picked: Ptr[UInt32], kept: Int, cap: Int, node: Int) -> Int:
    """Adds a node to those picked, in place of the last if there is no room, and returns their number.
    """
    for i in range(kept):
        if Int(picked[unsafe_offset=i]) == node:
            return kept
    var place = min(kept, cap - 1)
    picked[unsafe_offset=place] = UInt32(node)
    return place + 1


@always_inline
def own_links(graph: Graph, rows: Rows, level: Int) -> Int:
    """Returns how many links a new row selects at most: on level 0 half as many again where M alone finds less than other libraries do,
    which is so with inner products (recall@10 .725 to .751 at ef 64 for gaussian rows of 128) and with few links (.951 to .960 at ef 40
    for MiniLM, M = 8).
    """
    return (
        3 * graph.M // 2 if level == 0
        and (AnyLink.many_links(rows) or graph.M <= FEW_LINKS) else graph.M
    )


@always_inline
def room_for(level: Int, cap: Int) -> Int:
    """Returns the most links that are left to a full block when it is pruned."""
    return cap - min(SLACK, 3 * cap // SLOTS_PER_LINE) if level == 0 else cap


def considered(graph: Graph, rows: Rows, level: Int, candidates: Candidates) -> Int:
    """Returns how many candidates a selection looks at: above level 0, where a few rows stand for all that is near them, all.
    """
    var most = CONSIDERED * graph.M
    var last = candidates.size - 1
    if (
        level > 0
        or last < most
        or AnyLink.occludes(rows, candidates.key(most - 1), candidates.key(last))
    ):
        return candidates.size
    return most
