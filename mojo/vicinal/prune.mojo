"""Neighbour selection: sorted candidates in, diverse nodes out.

Source: Malkov and Yashunin, arXiv:1603.09320, algorithm 4, without back-filling what it rejects: lists stay short, so
reverse links rarely overflow and searches measure fewer rows.
"""
from vicinal.candidates import key_of, node_of
from vicinal.graph import Graph
from vicinal.memory import Ptr
from vicinal.search import fetch_row
from vicinal.space import Linker, Rows


def select_diverse[
    S: Linker
](
    graph: Graph,
    rows: Rows,
    level: Int,
    candidates: Ptr[Int64],
    count: Int,
    wanted: Int,
    picked: Ptr[UInt32],
) -> Int:
    """Picks candidates that are nearer to the centre than to any candidate picked before them.

    Args:
        graph: Tells the row of a node above level 0.
        rows: The rows.
        level: The level that the candidates are nodes of.
        candidates: Entries sorted by their distance to the centre, which is not among them.
        count: Number of candidates.
        wanted: The most that may be picked.
        picked: Where the picked nodes go, nearest first.

    Returns:
        The number of nodes picked.

    Safety:
        `picked` must have room for `wanted` nodes.
    """
    var kept = 0
    for i in range(count):
        if kept == wanted:
            break
        if i + 1 < count:
            fetch_row(rows, graph.row_at(level, node_of(candidates[unsafe_offset=i + 1])))
        var node = node_of(candidates[unsafe_offset=i])
        var row = graph.row_at(level, node)
        var to_centre = key_of(candidates[unsafe_offset=i])
        var diverse = True
        for j in range(kept):
            if (
                S.key_between(rows, row, graph.row_at(level, Int(picked[unsafe_offset=j])))
                < to_centre
            ):
                diverse = False
                break
        if diverse:
            picked[unsafe_offset=kept] = UInt32(node)
            kept += 1
    return kept
