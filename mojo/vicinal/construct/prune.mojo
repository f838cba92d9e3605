"""Neighbour selection: sorted candidates in, diverse nodes out.

Source: Malkov and Yashunin, arXiv:1603.09320, algorithm 4, with the factor of Vamana (DiskANN, NeurIPS 2019), and without
back-filling what it rejects: lists stay short, so reverse links rarely overflow and searches measure fewer rows.
"""
from vicinal.graph.links import Graph
from vicinal.kernels.candidates import key_of, node_of
from vicinal.kernels.space import SymmetricDistance, Rows, prefetch_row
from vicinal.system.memory import Ptr
from vicinal.walk.scratch import HOP_ROOM, Scratch


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
        wanted: The most that may be picked, at most HOP.
        scratch: Receives the picked nodes in `picked`, those of each go nearest first; `fresh` is used, too.

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
