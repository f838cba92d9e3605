"""Greedy descent and best-first search; reads graph and rows, writes scratch.

Sources: Malkov and Yashunin, arXiv:1603.09320, algorithms 2 and 5; the order of work inside a hop (collect, prefetch,
measure, compare, insert) follows the measurements named at each constant.
"""
from std.bit import count_trailing_zeros
from std.memory import pack_bits
from std.sys import PrefetchOptions, prefetch

from vicinal.candidates import LANES, entry_of, node_of
from vicinal.graph import EMPTY, Graph, SLOTS_PER_LINE
from vicinal.memory import Ptr, at
from vicinal.scratch import Scratch
from vicinal.space import Measure, Query, Rows

comptime LOOK_AHEAD = 8
"""Rows whose memory is asked for before they are measured."""
comptime CACHE_LINE = 64


@always_inline
def fetch_line(address: Int):
    """Asks for the cache line of an address."""
    prefetch[PrefetchOptions().for_read().high_locality().to_data_cache()](at[UInt8](address))


@always_inline
def fetch_row(rows: Rows, row: Int, bytes: Int):
    """Asks for a whole row."""
    var address = rows.base + row * rows.stride
    for offset in range(0, bytes, CACHE_LINE):
        fetch_line(address + offset)


@always_inline
def fetch_links(graph: Graph, level: Int, node: Int):
    """Asks for the block of a node on level 0."""
    var address = Int(graph.links(level, node))
    for offset in range(0, graph.slots_at(level) * 4, CACHE_LINE):
        fetch_line(address + offset)


def descend[S: Measure](
    graph: Graph, rows: Rows, query: Query, mut scratch: Scratch, ordinals: Int, start: Int, stop: Int
) -> Int:
    """Walks greedily from an ordinal down to level `stop` >= 1, or through level 1 if `stop` is 0.

    Args:
        graph: The links.
        rows: The rows.
        query: What to come near to.
        scratch: Buffers; only counters are changed.
        ordinals: Nodes that exist; links to others are ignored.
        start: The ordinal to start from.
        stop: The level on which the walk has still to be done by the caller.

    Returns:
        The ordinal nearest to the query that was found on level stop + 1.
    """
    var nearest = start
    var best = S.key(query, rows, graph.row_of(start))
    var width = graph.slots_at(1)
    var level = graph.level_of(start)
    while level > stop:
        var moved = True
        while moved:
            moved = False
            var block = graph.links(level, nearest)
            for i in range(width):
                fetch_line(rows.base + graph.row_of(min(Int(block[unsafe_offset=i]), ordinals - 1)) * rows.stride)
            for i in range(width):
                var node = Int(block[unsafe_offset=i])
                if node >= ordinals:  # EMPTY, or an ordinal made after this search began
                    continue
                var key = S.key(query, rows, graph.row_of(node))
                scratch.distances += 1
                if key < best:
                    best = key
                    nearest = node
                    moved = True
            scratch.hops += 1
        level -= 1
    return nearest


def search_level[S: Measure, ground: Bool](
    graph: Graph, rows: Rows, query: Query, mut scratch: Scratch, level: Int, nodes: Int, start: Int, width: Int
):
    """Finds the `width` nearest nodes of one level, best first, and leaves them in `scratch.beam`.

    Parameters:
        S: What measures.
        ground: True for level 0, where nodes are rows; above it they are ordinals.

    Args:
        graph: The links.
        rows: The rows.
        query: What to come near to.
        scratch: Buffers of this worker.
        level: The level, 0 if and only if `ground`.
        nodes: Nodes that exist; links to others are ignored.
        start: The node to start from.
        width: Candidates kept (ef).
    """
    ref beam = scratch.beam
    ref visited = scratch.visited
    beam.reset(width)
    visited.reset(nodes)
    var row_bytes = rows.dim * item_bytes_of[S]()
    var slot_count = graph.slots_at(level)
    var limit = SIMD[DType.uint32, SLOTS_PER_LINE](UInt32(nodes))
    var links = scratch.links
    var fresh = scratch.fresh

    _ = visited.first_visit(start)
    beam.insert(entry_of(S.key(query, rows, start if ground else graph.row_of(start)), start))
    var distances = 1
    var hops = 0
    while True:
        var node = beam.next()
        if node < 0:
            break
        hops += 1
        # Clamp every id to the nodes that exist: node number `nodes` counts as visited.
        var block = graph.links(0 if ground else level, node)
        var used = 0
        for i in range(0, slot_count, SLOTS_PER_LINE):
            var ids = min(block.unsafe_load[width=SLOTS_PER_LINE](i), limit)
            links.unsafe_store(i, ids)
            used += Int(ids.lt(limit).reduce_bit_count())
        var count = 0
        for i in range(used):
            var id = Int(links[unsafe_offset=i])
            fresh[unsafe_offset=count] = Int64(id)
            count += Int(visited.first_visit(id))
        for i in range(min(count, LOOK_AHEAD)):
            var id = Int(fresh[unsafe_offset=i])
            fetch_row(rows, id if ground else graph.row_of(id), row_bytes)
        for i in range(count):
            if i + LOOK_AHEAD < count:
                var ahead = Int(fresh[unsafe_offset=i + LOOK_AHEAD])
                fetch_row(rows, ahead if ground else graph.row_of(ahead), row_bytes)
            var id = Int(fresh[unsafe_offset=i])
            fresh[unsafe_offset=i] = entry_of(S.key(query, rows, id if ground else graph.row_of(id)), id)
        distances += count
        # One vector comparison with the bound for many, then only the survivors one by one: most are beaten.
        for i in range(0, count, LANES):
            var better = fresh.unsafe_load[width=LANES](i).lt(SIMD[DType.int64, LANES](beam.worst()))
            var mask = Int(pack_bits(better)) & ((1 << (count - i)) - 1 if count - i < LANES else -1)
            while mask != 0:
                var entry = fresh[unsafe_offset=i + Int(count_trailing_zeros(mask))]
                mask &= mask - 1
                if entry < beam.worst():
                    beam.insert(entry)
                    fetch_links(graph, 0 if ground else level, node_of(entry))
    scratch.distances += distances
    scratch.hops += hops


@always_inline
def item_bytes_of[S: Measure]() -> Int:
    """Returns the bytes of one stored element."""
    comptime if S.T == DType.float32:
        return 4
    elif S.T.is_floating_point():
        return 2
    else:
        return 1


def search_graph[S: Measure](graph: Graph, rows: Rows, query: Query, mut scratch: Scratch, width: Int):
    """Searches the whole graph and leaves the `width` nearest rows found in `scratch.beam`, nearest first.

    Safe beside a writer that adds rows: what it sees of the graph is fixed at the start.

    Preconditions:
        The graph has at least one row.
    """
    var ordinals = graph.ordinals
    var linked = graph.linked
    var start = descend[S](graph, rows, query, scratch, ordinals, graph.entry, 0)
    search_level[S, True](graph, rows, query, scratch, 0, linked, graph.row_of(start), width)
