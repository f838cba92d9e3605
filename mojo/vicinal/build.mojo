"""Insertion in rounds: rows search a graph that stands still, then each target of new links is changed by one owner.

A round holds at most a small share of the rows already linked, so that its rows lose little by not seeing each other.
Nothing depends on the order in which threads finish: the same rows, seed and parameters give the same links for any
number of threads. Source: batch insertion with prefix doubling, ParlayANN (PPoPP 2024), arXiv:2305.04359.
"""
from std.ffi import c_int, external_call

from vicinal.candidates import entry_of
from vicinal.graph import EMPTY, Graph, publish
from vicinal.interleave import LANES, Errands, lanes_for, run_errands
from vicinal.memory import Ptr, allocate, at, release
from vicinal.parallel import Body, Team, Unwatched, Watch
from vicinal.prune import select_diverse
from vicinal.scratch import Scratch
from vicinal.search import Walk, descend, search_level
from vicinal.space import Linker, Query, Rows
from vicinal.undo import PARTS, UndoLog

comptime ROUND_SHARE = 256
"""A round holds linked / ROUND_SHARE rows: 0.4 %, which costs less than 0.001 of recall."""
comptime LARGEST_ROUND = 4096
comptime FEW = 8
"""Rounds of no more rows link back on one thread: waking the others would take longer."""
comptime SLACK = 6
"""Slots that a pruned block keeps free, so that the next reverse links need no pruning."""


@fieldwise_init
struct FindLinks[S_: Linker](Body, Errands):
    """First half of a round: each new row searches the graph and writes its own links, which nobody follows yet.
    """

    comptime S = Self.S_
    comptime Note = Int

    var graph: Ptr[Graph]
    var rows: Rows
    """What is measured: stored rows or codes."""
    var stored: Rows
    """The stored rows, which tell what is a copy."""
    var scratches: Ptr[Ptr[Scratch]]
    var first: Int
    var first_ordinal: Int
    var levels: Ptr[UInt8]
    var chosen: Ptr[UInt8]
    var ef_construction: Int

    def run(self, begin: Int, end: Int, worker: Int):
        """Does rows first + begin .. first + end - 1."""
        var walked = self.graph[].linked * (self.rows.stride + self.graph[].slots_at(0) * 4)
        run_errands(
            self, begin, end, self.scratches.unsafe_offset(worker * LANES), lanes_for(walked)
        )

    def nothing(self) -> Int:
        """Returns no row."""
        return -1

    def idle(self, scratch: Ptr[Scratch]) -> Walk[Self.S, True]:
        """Returns a walk that is never made."""
        return Walk[Self.S, True](self.graph, self.rows, Query(0, 1), scratch, 0, 0, 0)

    def start(self, number: Int, scratch_: Ptr[Scratch], mut row: Int) -> Walk[Self.S, True]:
        """Selects the links of one row on its upper levels, then starts its walk on level 0."""
        ref graph = self.graph[]
        ref scratch = scratch_[]
        row = self.first + number
        var query = Self.S.query_of_row(self.rows, row, scratch.room(4 * self.rows.dim + 64))
        var level = Int(self.levels[unsafe_offset=row - self.first])
        var ordinal = ordinal_of(graph, row, level, self.first_ordinal)
        var top = graph.top()
        var node = descend[Self.S](
            graph,
            self.rows,
            query,
            scratch,
            self.first_ordinal,
            graph.linked,
            graph.entry,
            min(level, top),
        )
        for l in range(min(level, top), 0, -1):
            search_level[Self.S, False](
                graph, self.rows, query, scratch, l, self.first_ordinal, node, self.ef_construction
            )
            node = scratch.beam.node(0)
            _ = self.choose(l, ordinal, scratch)
        var walk = Walk[Self.S, True](self.graph, self.rows, query, scratch_, 0, graph.linked, 0)
        walk.begin(graph.row_of(node), self.ef_construction)
        return walk

    def finish(self, row: Int, mut scratch: Scratch):
        """Selects the links of a row on level 0."""
        ref graph = self.graph[]
        var copied = self.copied(row, scratch)
        if copied >= 0:
            graph.links(0, row)[] = UInt32(copied)
            self.chosen[unsafe_offset=row - self.first] = 1
        else:
            self.chosen[unsafe_offset=row - self.first] = UInt8(self.choose(0, row, scratch))

    def copied(self, row: Int, scratch: Scratch) -> Int:
        """Returns a row found that holds the same, or -1."""
        comptime if Self.S.exact:
            var nearest = scratch.beam.node(0)
            return nearest if same_row(self.stored, row, nearest) else -1
        # the nearest by estimate may be another; equal rows have equal constants, which are at hand
        var constants = at[Int64](self.rows.norms)
        for i in range(scratch.beam.size):
            var other = scratch.beam.node(i)
            if constants[unsafe_offset=row] == constants[unsafe_offset=other] and same_row(
                self.stored, row, other
            ):
                return other
        return -1

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
    """What is measured: stored rows or codes."""
    var stored: Rows
    """The stored rows, which tell what is a copy."""
    var scratches: Ptr[Ptr[Scratch]]
    var first: Int
    var first_ordinal: Int
    var count: Int
    var levels: Ptr[UInt8]
    var chosen: Ptr[UInt8]
    var log: Ptr[UndoLog]

    def run(self, begin: Int, end: Int, worker: Int):
        """Goes through the round's rows in order once for each owner."""
        ref graph = self.graph[]
        for part in range(begin, end):
            for row in range(self.first, self.first + self.count):
                var highest = Int(self.levels[unsafe_offset=row - self.first])
                var ordinal = ordinal_of(graph, row, highest, self.first_ordinal)
                for level in range(highest + 1):
                    var node = row if level == 0 else ordinal
                    var block = graph.links(level, node)
                    # a copy of a row gets a second link while its first is being answered: count those chosen
                    var own = graph.M if level > 0 else Int(
                        self.chosen[unsafe_offset=row - self.first]
                    )
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
                                self.scratches[unsafe_offset=worker * LANES][],
                            )

    def link(self, level: Int, target: Int, node: Int, part: Int, mut scratch: Scratch):
        """Adds one link target -> node, pruning the target's block when it is full."""
        ref graph = self.graph[]
        self.log[].keep(graph, level, target, part)
        if level == 0 and same_row(self.stored, target, node):
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
            if same_row(self.stored, target, Int(other)):
                graph.links(0, node)[unsafe_offset=1] = other
                publish(block.unsafe_offset(i), node)
                return
        # no copy yet and no room: the link written last makes way
        publish(block.unsafe_offset(cap - 1), node)


@always_inline
def same_row(stored: Rows, a: Int, b: Int) -> Bool:
    """Tells whether two stored rows hold the same bytes."""
    return (
        external_call["memcmp", c_int](
            stored.base + a * stored.stride, stored.base + b * stored.stride, stored.stride
        )
        == 0
    )


@always_inline
def ordinal_of(graph: Graph, row: Int, level: Int, first: Int) -> Int:
    """Returns the ordinal of a new row, looking from ordinal `first` on, or -1 if it lives on level 0 alone.
    """
    if level == 0:
        return -1
    var ordinal = first
    while graph.row_of(ordinal) != row:
        ordinal += 1
    return ordinal


def link_rows[
    S: Linker, V: Watch
](
    mut graph: Graph,
    rows: Rows,
    stored: Rows,
    until: Int,
    levels: Ptr[UInt8],
    ef_construction: Int,
    team: Team,
    scratches: Ptr[Ptr[Scratch]],
    log: UndoLog,
    mut watch: V,
) -> Int:
    """Links rows graph.linked .. until-1.

    Args:
        graph: The links; readers may search it meanwhile.
        rows: What is measured, stored rows or codes, those to be linked included.
        stored: The stored rows.
        until: The rows that the graph shall have.
        levels: The level of each row to be linked.
        ef_construction: Candidates kept while searching for neighbours.
        team: Workers.
        scratches: LANES for each worker.
        log: Made of the same graph; receives what an undo needs.
        watch: May end the work early.

    Returns:
        1 when done, 0 when `watch` ended it, -1 when memory is out; the caller undoes in both cases.
    """
    var start = graph.linked
    var unwatched = Unwatched()
    var chosen = allocate[UInt8](LARGEST_ROUND)
    var outcome = 1
    while graph.linked < until:
        var first = graph.linked
        var count = min(min(max(first // ROUND_SHARE, 1), LARGEST_ROUND), until - first)
        var old_ordinals = graph.ordinals
        var drawn = levels.unsafe_offset(first - start)
        if not graph.reserve(first + count, drawn, first):
            outcome = -1
            break
        var shared = Pointer(to=graph).unsafe_origin_cast[MutUntrackedOrigin]()
        watch.advance(first - start)
        if not watch.proceed(0):  # rounds of one row are pieces that nobody asks about
            outcome = 0
            break
        if first > 0:
            var find = FindLinks[S](
                shared, rows, stored, scratches, first, old_ordinals, drawn, chosen, ef_construction
            )
            if not team.run(count, max(min(4 * LANES, count // (2 * team.size())), 1), find, watch):
                outcome = 0
                break
            var back = LinkBack[S](
                shared,
                rows,
                stored,
                scratches,
                first,
                old_ordinals,
                count,
                drawn,
                chosen,
                Pointer(to=log).unsafe_mut_cast[True]().unsafe_origin_cast[MutUntrackedOrigin](),
            )
            _ = team.run(PARTS, 1 if count > FEW else PARTS, back, unwatched)
        graph.linked = first + count
        for ordinal in range(old_ordinals, graph.ordinals):
            graph.raise_entry(ordinal)
    release(chosen)
    return outcome
