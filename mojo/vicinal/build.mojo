"""Insertion in rounds: rows search a graph that stands still, then each target of new links is changed by one owner.

A round holds at most a small share of the rows already linked, so that its rows lose little by not seeing each other.
Nothing depends on the order in which threads finish: the same rows, seed and parameters give the same links for any
number of threads. Source: batch insertion with prefix doubling, ParlayANN (PPoPP 2024), arXiv:2305.04359.
"""
from std.ffi import c_int, external_call

from vicinal.candidates import entry_of
from vicinal.graph import EMPTY, Graph, publish
from vicinal.memory import Ptr, allocate, release
from vicinal.parallel import Body, Team, Unwatched, Watch
from vicinal.places import Places
from vicinal.prune import select_diverse
from vicinal.scratch import Scratch
from vicinal.search import descend, item_bytes_of, search_level
from vicinal.space import Linker, Rows
from vicinal.undo import PARTS, UndoLog

comptime ROUND_SHARE = 256
"""A round holds linked / ROUND_SHARE rows: 0.4 %, which costs less than 0.001 of recall."""
comptime LARGEST_ROUND = 4096
comptime FEW = 8
"""Rounds of no more rows link back on one thread: waking the others would take longer."""
comptime SLACK = 6
"""Slots that a pruned block keeps free, so that the next reverse links need no pruning."""


@fieldwise_init
struct FindLinks[S: Linker](Body):
    """First half of a round: each new row searches the graph and writes its own links, which nobody follows yet.
    """

    var graph: Ptr[Graph]
    var rows: Rows
    var scratches: Ptr[Ptr[Scratch]]
    var places: Places
    var first: Int
    """The place of the round's first row."""
    var levels: Ptr[UInt8]
    var chosen: Ptr[UInt8]
    var ef_construction: Int

    def run(self, begin: Int, end: Int, worker: Int):
        """Does places first + begin .. first + end - 1."""
        for i in range(begin, end):
            self.find(i, self.scratches[unsafe_offset=worker][])

    def find(self, i: Int, mut scratch: Scratch):
        """Selects the links of the round's row i on each of its levels that already has nodes."""
        ref graph = self.graph[]
        var row = self.places.row(self.first + i)
        var query = Self.S.query_of_row(self.rows, row, scratch.room(4 * self.rows.dim + 64))
        var level = Int(self.levels[unsafe_offset=i])
        var ordinal = graph.ordinal_of(row) if level > 0 else -1
        # rows of this round have blocks and ordinals already, but nothing leads to them
        var ordinals = graph.ordinals
        var top = graph.top()
        var node = descend[Self.S](
            graph,
            self.rows,
            query,
            scratch,
            ordinals,
            graph.rows,
            graph.entry,
            min(level, top),
        )
        for l in range(min(level, top), 0, -1):
            search_level[Self.S, False](
                graph, self.rows, query, scratch, l, ordinals, node, self.ef_construction
            )
            node = scratch.beam.node(0)
            _ = self.choose(l, ordinal, scratch)
        search_level[Self.S, True](
            graph,
            self.rows,
            query,
            scratch,
            0,
            graph.rows,
            graph.row_of(node),
            self.ef_construction,
        )
        var nearest = scratch.beam.node(0)
        if same_row[Self.S](self.rows, row, nearest):
            graph.links(0, row)[] = UInt32(nearest)
            self.chosen[unsafe_offset=i] = 1
        else:
            self.chosen[unsafe_offset=i] = UInt8(self.choose(0, row, scratch))

    def choose(self, level: Int, node: Int, mut scratch: Scratch) -> Int:
        """Writes the diverse ones of the beam into the node's own block and returns their number.
        """
        ref graph = self.graph[]
        var kept = select_diverse[Self.S](
            graph,
            self.rows,
            level,
            scratch.beam.entries,
            scratch.beam.size,
            graph.M,
            scratch.picked,
        )
        var block = graph.links(level, node)
        for i in range(kept):
            block[unsafe_offset=i] = scratch.picked[unsafe_offset=i]
        return kept


@fieldwise_init
struct LinkBack[S: Linker](Body):
    """Second half of a round: the reverse links. Item p changes the blocks of nodes with node % PARTS == p only.
    """

    var graph: Ptr[Graph]
    var rows: Rows
    var scratches: Ptr[Ptr[Scratch]]
    var places: Places
    var first: Int
    """The place of the round's first row."""
    var count: Int
    var levels: Ptr[UInt8]
    var chosen: Ptr[UInt8]
    var log: Ptr[UndoLog]

    def run(self, begin: Int, end: Int, worker: Int):
        """Goes through the round's rows in order once for each owner."""
        ref graph = self.graph[]
        for part in range(begin, end):
            for place in range(self.count):
                var row = self.places.row(self.first + place)
                var highest = Int(self.levels[unsafe_offset=place])
                var ordinal = graph.ordinal_of(row) if highest > 0 else -1
                for level in range(highest + 1):
                    var node = row if level == 0 else ordinal
                    var block = graph.links(level, node)
                    # a copy of a row gets a second link while its first is being answered: count those chosen
                    var own = graph.M if level > 0 else Int(self.chosen[unsafe_offset=place])
                    for i in range(own):
                        var target = block[unsafe_offset=i]
                        if target == EMPTY:
                            break
                        if Int(target) % PARTS == part:
                            self.link(
                                level,
                                Int(target),
                                node,
                                part,
                                self.scratches[unsafe_offset=worker][],
                            )

    def link(self, level: Int, target: Int, node: Int, part: Int, mut scratch: Scratch):
        """Adds one link target -> node, pruning the target's block when it is full."""
        ref graph = self.graph[]
        self.log[].keep(graph, level, target, part)
        if level == 0 and same_row[Self.S](self.rows, target, node):
            self.chain(target, node)
            return
        var block = graph.links(level, target)
        var cap = graph.cap(level)
        for i in range(cap):
            if block[unsafe_offset=i] == EMPTY:
                publish(block.unsafe_offset(i), node)
                return
        var centre = graph.row_at(level, target)
        ref chosen = scratch.chosen
        chosen.reset(cap + 1)
        for i in range(cap + 1):
            var other = node if i == cap else Int(block[unsafe_offset=i])
            var key = Self.S.key_between(self.rows, centre, graph.row_at(level, other))
            chosen.insert(entry_of(key, other))
        var wanted = max(cap - SLACK, cap // 2)
        var kept = select_diverse[Self.S](
            graph, self.rows, level, chosen.entries, cap + 1, wanted, scratch.picked
        )
        for i in range(kept):
            publish(block.unsafe_offset(i), Int(scratch.picked[unsafe_offset=i]))
        for i in range(kept, cap):
            publish(block.unsafe_offset(i), Int(EMPTY))

    def chain(self, target: Int, node: Int):
        """Puts an exact copy of a row into the chain behind it: target -> newest copy -> ... -> oldest copy.

        Many copies linked like other rows would fill each other's blocks and seal themselves off; chained, they take one
        slot of the first one, and a search that reaches it walks along them. A copy links to the first one besides.
        """
        ref graph = self.graph[]
        var block = graph.links(0, target)
        var cap = graph.cap(0)
        for i in range(cap):
            var other = block[unsafe_offset=i]
            if other == EMPTY:
                publish(block.unsafe_offset(i), node)
                return
            if same_row[Self.S](self.rows, target, Int(other)):
                graph.links(0, node)[unsafe_offset=1] = other
                publish(block.unsafe_offset(i), node)
                return
        # no copy yet and no room: the link written last makes way
        publish(block.unsafe_offset(cap - 1), node)


@always_inline
def same_row[S: Linker](rows: Rows, a: Int, b: Int) -> Bool:
    """Tells whether two stored rows hold the same bytes."""
    return (
        external_call["memcmp", c_int](
            rows.base + a * rows.stride, rows.base + b * rows.stride, rows.dim * item_bytes_of[S]()
        )
        == 0
    )


@no_inline
def link_rows[
    S: Linker, V: Watch
](
    mut graph: Graph,
    rows: Rows,
    places: Places,
    count: Int,
    before: Int,
    levels: Ptr[UInt8],
    ef_construction: Int,
    team: Team,
    scratches: Ptr[Ptr[Scratch]],
    log: UndoLog,
    mut watch: V,
) -> Int:
    """Links rows in the order of their places.

    Args:
        graph: The links; readers may search it meanwhile.
        rows: The rows, those to be linked included.
        places: Which rows: those listed have empty blocks, the others follow the last row that has any.
        count: How many.
        before: Rows that are linked and stay. If none is, the first place must reach level 1: it becomes the entry point.
        levels: The level of each row to be linked.
        ef_construction: Candidates kept while searching for neighbours.
        team: Workers.
        scratches: One for each worker.
        log: Made of the same graph; receives what an undo needs.
        watch: May end the work early.

    Returns:
        1 when done, 0 when `watch` ended it, -1 when memory is out; the caller undoes in both cases.
    """
    var unwatched = Unwatched()
    var chosen = allocate[UInt8](LARGEST_ROUND)
    var outcome = 1
    var first = 0
    while first < count:
        var here = min(max((before + first) // ROUND_SHARE, 1), LARGEST_ROUND)
        here = min(here, (places.listed if first < places.listed else count) - first)
        var drawn = levels.unsafe_offset(first)
        if first >= places.listed and not graph.reserve(
            graph.rows + here, drawn, places.row(first)
        ):
            outcome = -1
            break
        var shared = Pointer(to=graph).unsafe_origin_cast[MutUntrackedOrigin]()
        watch.advance(first)
        if not watch.proceed(0):  # rounds of one row are pieces that nobody asks about
            outcome = 0
            break
        if before + first > 0:
            var find = FindLinks[S](
                shared, rows, scratches, places, first, drawn, chosen, ef_construction
            )
            if not team.run(here, 1, find, watch):
                outcome = 0
                break
            var back = LinkBack[S](
                shared,
                rows,
                scratches,
                places,
                first,
                here,
                drawn,
                chosen,
                Pointer(to=log).unsafe_mut_cast[True]().unsafe_origin_cast[MutUntrackedOrigin](),
            )
            _ = team.run(PARTS, 1 if here > FEW else PARTS, back, unwatched)
        if first >= places.listed:
            graph.linked = graph.rows
        for i in range(here):
            if drawn[unsafe_offset=i] != 0:
                var ordinal = graph.ordinal_of(places.row(first + i))
                if before + first == 0:  # the entry point may be that of a graph that is made anew
                    graph.entry = ordinal
                else:
                    graph.raise_entry(ordinal)
        first += here
    release(chosen)
    return outcome
