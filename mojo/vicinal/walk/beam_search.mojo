"""Greedy descent and best-first search; reads graph and rows, writes scratch.

Sources: Malkov and Yashunin, arXiv:1603.09320, algorithms 2 and 5; the order of work inside a hop (collect, prefetch,
measure, compare, insert) follows the measurements named at each constant.
"""
from std.bit import count_trailing_zeros
from std.memory import pack_bits

from vicinal.graph.links import SLOTS_PER_LINE, Graph, prefetch_links
from vicinal.kernels.any_distance import AnyDistance
from vicinal.kernels.candidates import LANES, entry_of, key_of, node_of
from vicinal.kernels.measure_rows import HopDistance
from vicinal.kernels.space import Query, Rows, prefetch_measured
from vicinal.system.atomics import load_acquire, slot
from vicinal.system.memory import Ptr
from vicinal.system.point import EXPLORED, point, touches
from vicinal.walk.ask import ask_for_nodes
from vicinal.walk.scratch import Scratch

comptime AT_ONCE = 32
"""Nodes above level 0 that are measured at once."""
comptime LOOK_AHEAD = 8
"""Rows whose memory is asked for before they are measured."""


@always_inline
def clamp_links(graph: Graph, level: Int, node: Int, nodes: Int, into: Ptr[UInt32]) -> Int:
    """Copies the links of a node; those to nodes that do not exist for the search become `nodes`.

    Where nodes have come since the search began, links to them may lie between others: a new one is put where its distance
    belongs.

    Returns:
        How many slots have to be looked at for all links to nodes that do exist.
    """
    var block = graph.links(level, node)
    var width = graph.slots_at(level)
    var limit = SIMD[DType.uint32, SLOTS_PER_LINE](UInt32(nodes))
    var used = 0
    for i in range(0, width, SLOTS_PER_LINE):
        var ids = min(block.unsafe_load[width=SLOTS_PER_LINE](i), limit)
        into.unsafe_store(i, ids)
        used += Int(ids.lt(limit).reduce_bit_count())
    # read after the links: rows get their places before links lead to them
    var there = load_acquire(graph.rows) if level == 0 else load_acquire(graph.ordinals)
    return used if there <= nodes else width


def descend(
    graph: Graph,
    rows: Rows,
    query: Query,
    mut scratch: Scratch,
    ordinals: Int,
    known: Int,
    start: Int,
    stop: Int,
) -> Int:
    """Walks greedily from an ordinal down to level `stop` >= 1, or through level 1 if `stop` is 0.

    Args:
        graph: The links.
        rows: The rows.
        query: What to come near to.
        scratch: Buffers; `links` and `unvisited` are written over, and `selected` where rows are on disk.
        ordinals: Nodes that exist; links to others are ignored.
        known: Rows that may be measured; nodes of later ones are ignored.
        start: The ordinal to start from.
        stop: The level on which the walk has still to be done by the caller.

    Returns:
        The ordinal nearest to the query that was found on level stop + 1.
    """
    var nearest = start
    var best = AnyDistance.key(query, rows, min(graph.row_of(start), known - 1))
    var width = graph.slots_at(1)
    var fresh = scratch.unvisited
    var nodes = scratch.links
    var constants = AnyDistance.constants(rows)
    var level = graph.level_of(start)
    while level > stop:
        var moved = True
        while moved:
            moved = False
            var block = graph.links(level, nearest)
            var count = 0
            for i in range(width):
                var node = slot(block, i)
                if node >= ordinals:  # EMPTY, or an ordinal made after this search began
                    continue
                var row = graph.row_of(node)
                if row < known:
                    prefetch_measured(rows, constants, row)
                    nodes[unsafe_offset=count] = UInt32(node)
                    fresh[unsafe_offset=count] = Int64(row)
                    count += 1
            if scratch.disk == rows.base:
                ask_for_nodes[True](graph, rows, scratch, fresh, count)
            measure_nodes[True](graph, rows, query, fresh, count, count)
            for i in range(count):
                var key = key_of(fresh[unsafe_offset=i])
                if key < best:
                    best = key
                    nearest = Int(nodes[unsafe_offset=i])
                    moved = True
            scratch.distances += count
            scratch.hops += 1
        level -= 1
    return nearest


@always_inline
def row_of[base_layer: Bool](graph: Graph, node: Int) -> Int:
    """Returns the row of a node: on level 0 nodes are rows."""
    comptime if base_layer:
        return node
    else:
        return graph.row_of(node)


@always_inline
def measure_nodes[
    base_layer: Bool, M: HopDistance = AnyDistance
](graph: Graph, rows: Rows, query: Query, nodes: Ptr[Int64], count: Int, fetched: Int):
    """Makes entries of nodes.

    Parameters:
        base_layer: True for level 0, where nodes are rows.
        M: What measures there.

    Args:
        graph: Tells the rows of nodes above level 0.
        rows: The rows.
        query: What to measure them against.
        nodes: The nodes; receives their entries.
        count: Their number.
        fetched: How many rows were asked for already; while one is measured, the one as many places behind it is asked for.
    """
    point["measure rows"]()
    comptime if EXPLORED:
        for i in range(count):
            touches["measure rows"](row_of[base_layer](graph, Int(nodes[unsafe_offset=i])))
    comptime if base_layer:
        M.measure(query, rows, nodes, count, fetched)
    else:
        _measure_above(graph, rows, query, nodes, count, fetched)


@no_inline
def _measure_above(
    graph: Graph, rows: Rows, query: Query, nodes: Ptr[Int64], count: Int, fetched: Int
):
    var room = Array[Int64, AT_ONCE](fill=0)
    var there = Ptr(
        Pointer(to=room).unsafe_bitcast[Int64]().unsafe_origin_cast[MutUntrackedOrigin]()
    )
    for begin in range(0, count, AT_ONCE):
        var some = min(AT_ONCE, count - begin)
        for i in range(some):
            there[unsafe_offset=i] = Int64(graph.row_of(Int(nodes[unsafe_offset=begin + i])))
        AnyDistance.measure(query, rows, there, some, max(fetched - begin, 0))
        for i in range(some):
            var node = Int(nodes[unsafe_offset=begin + i])
            nodes[unsafe_offset=begin + i] = entry_of(key_of(there[unsafe_offset=i]), node)
    _ = room


trait Walk(TrivialRegisterPassable):
    """A search that is made hop by hop, each in two halves, so that several can be under way in one thread.
    """

    def collect[M: HopDistance](mut self) -> Bool:
        """Asks for what the next hop measures, by `M`; False when the walk is done."""
        ...

    def measure[M: HopDistance](mut self):
        """Measures the hop."""
        ...

    def own(self) -> Ptr[Scratch]:
        """Returns its buffers."""
        ...


@fieldwise_init
struct BeamSearch[base_layer: Bool](Walk):
    """One best-first search of one level, hop by hop, so that several can be under way in one thread.

    A hop has two halves: `collect` asks for the memory of what has to be measured, `measure` uses it. Between the two another
    walk can do its half while the memory is on its way.

    Parameters:
        base_layer: True for level 0, where nodes are rows; above it they are ordinals.
    """

    var graph: Ptr[Graph]
    var rows: Rows
    var query: Query
    var scratch: Ptr[Scratch]
    var level: Int
    """The level, 0 if and only if `base_layer`."""
    var nodes: Int
    """Nodes that exist; links to others are ignored."""
    var count: Int
    """Nodes that the present hop has to measure."""

    @always_inline
    def begin(mut self, start: Int, width: Int, kept: Int = 0):
        """Starts from a node; `width` candidates are expanded, and as many kept unless `kept` is more.
        """
        ref scratch = self.scratch[]
        scratch.visited.reset(self.nodes)
        var node = start
        if scratch.visited.failed:
            self.nodes = min(self.nodes, scratch.visited.nodes())
            node = min(node, self.nodes - 1)
        # there are no more candidates than nodes, however many shall be kept
        scratch.beam.reset(min(max(width, kept), self.nodes), width)
        _ = scratch.visited.first_visit(node)
        var row = row_of[Self.base_layer](self.graph[], node)
        point["measure a row"]()
        touches["measure a row"](row)
        scratch.beam.insert(entry_of(AnyDistance.key(self.query, self.rows, row), node))
        scratch.distances += 1

    @always_inline
    def collect[M: HopDistance = AnyDistance](mut self) -> Bool:
        """Expands the nearest candidate: finds its unvisited neighbours and asks for their rows.

        Returns:
            False when there is nothing left to expand: the search is done.
        """
        ref beam = self.scratch[].beam
        var node = beam.next()
        if node < 0:
            return False
        if beam.nearby != 0 and beam.nearest_known():
            var near = key_of(beam.entries[unsafe_offset=beam.nearby - 1])
            var farthest = M.farthest(self.query, self.rows, near, beam.far)
            if beam.ends_at(farthest):
                return False
            beam.leave_out_beyond(farthest)
        self.expand[M](node)
        return True

    @always_inline
    def expand[M: HopDistance = AnyDistance](mut self, node: Int):
        """Finds the unvisited neighbours of a node and asks for their rows."""
        ref scratch = self.scratch[]
        # copies: a store to one of the arrays might otherwise change where the others are
        var states = scratch.visited.states
        var epoch = scratch.visited.epoch
        var links = scratch.links
        var fresh = scratch.unvisited
        var level = 0 if Self.base_layer else self.level
        point["read links"]()
        touches["links of a row"](row_of[Self.base_layer](self.graph[], node))
        # node number `nodes` counts as visited
        var used = clamp_links(self.graph[], level, node, self.nodes, links)
        var count = 0
        if scratch.visited.sparse:
            count = scratch.visited.keep_first_visits(links, used, fresh)
        else:
            for i in range(used):
                var id = Int(links[unsafe_offset=i])
                fresh[unsafe_offset=count] = Int64(id)
                count += Int(states[unsafe_offset=id] != epoch)
                states[unsafe_offset=id] = epoch
        if scratch.disk == self.rows.base:
            ask_for_nodes[Self.base_layer](self.graph[], self.rows, scratch, fresh, count)
        for i in range(min(count, LOOK_AHEAD)):
            self.fetch[M](fresh, i)
        scratch.distances += count
        scratch.hops += 1
        self.count = count

    @always_inline
    def fetch[M: HopDistance = AnyDistance](self, fresh: Ptr[Int64], i: Int):
        """Asks for the row of the hop's node number i."""
        prefetch_measured(
            self.rows,
            M.constants(self.rows),
            row_of[Self.base_layer](self.graph[], Int(fresh[unsafe_offset=i])),
        )

    @always_inline
    def own(self) -> Ptr[Scratch]:
        """Returns its buffers."""
        return self.scratch

    @always_inline
    def measure[M: HopDistance = AnyDistance](mut self):
        """Measures the hop's nodes and inserts those that are near enough."""
        ref beam = self.scratch[].beam
        var fresh = self.scratch[].unvisited
        var rows = self.rows
        var query = self.query
        var count = self.count
        measure_nodes[Self.base_layer, M](self.graph[], rows, query, fresh, count, LOOK_AHEAD)
        # One vector comparison with the bound for many, then only the survivors one by one: most are beaten.
        for i in range(0, count, LANES):
            var better = fresh.unsafe_load[width=LANES](i).lt(
                SIMD[DType.int64, LANES](min(beam.worst(), beam.bound))
            )
            var here = count - i
            var mask = Int(pack_bits(better)) & ((1 << here) - 1 if here < LANES else -1)
            while mask != 0:
                var entry = fresh[unsafe_offset=i + Int(count_trailing_zeros(mask))]
                mask &= mask - 1
                if entry < beam.worst():
                    beam.insert(entry)
                    prefetch_links(
                        self.graph[], 0 if Self.base_layer else self.level, node_of(entry)
                    )

    @no_inline
    def measure_apart(mut self):
        """Does what `measure` does, in one place for all who can spare the call."""
        self.measure()


def search_level[
    base_layer: Bool
](
    graph: Graph,
    rows: Rows,
    query: Query,
    mut scratch: Scratch,
    level: Int,
    nodes: Int,
    start: Int,
    width: Int,
):
    """Finds the `width` nearest nodes of one level, best first, and leaves them in `scratch.beam`.

    Parameters:
        base_layer: True for level 0, where nodes are rows; above it they are ordinals.

    Args:
        graph: The links.
        rows: The rows.
        query: What to come near to.
        scratch: Buffers of this worker.
        level: The level, 0 if and only if `base_layer`.
        nodes: Nodes that exist; links to others are ignored.
        start: The node to start from.
        width: Candidates kept (ef).
    """
    var walk = BeamSearch[base_layer](
        Pointer(to=graph).unsafe_mut_cast[True]().unsafe_origin_cast[MutUntrackedOrigin](),
        rows,
        query,
        Pointer(to=scratch).unsafe_origin_cast[MutUntrackedOrigin](),
        level,
        nodes,
        0,
    )
    walk.begin(start, width)
    while walk.collect():
        walk.measure()


@always_inline
def start_beam_search(
    graph: Ptr[Graph],
    rows: Rows,
    known: Int,
    query: Query,
    scratch: Ptr[Scratch],
    width: Int,
    kept: Int = 0,
) -> BeamSearch[True]:
    """Descends to level 0 and starts the search there, among rows 0 .. known-1, all of which have been linked.

    The nearest `width` candidates are expanded, and as many kept unless `kept` is more.

    Safe beside a writer that adds rows: what the walk sees of the graph is fixed here.

    Preconditions:
        The graph has at least one row.
    """
    scratch[].walks += 1
    var entry = load_acquire(graph[].entry)
    var ordinals = load_acquire(graph[].ordinals)
    var start = descend(graph[], rows, query, scratch[], ordinals, known, entry, 0)
    var walk = BeamSearch[True](graph, rows, query, scratch, 0, known, 0)
    walk.begin(min(graph[].row_of(start), known - 1), width, kept)
    return walk
