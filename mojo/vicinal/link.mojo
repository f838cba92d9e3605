"""Bringing stored rows of an index into its graph: copies apart, the rest linked on codes or rows, all made reachable."""
from vicinal.build import link_rows
from vicinal.code_space import BetweenCodes, ExactBytes
from vicinal.codes import EXACT, ROTATED, SCALED
from vicinal.fill import fill_slots
from vicinal.graph import draw_level
from vicinal.index import DONE, NO_MEMORY, STOPPED, Index
from vicinal.interleave import LANES
from vicinal.memory import Ptr, allocate, release
from vicinal.parallel import Team, Watch
from vicinal.repair import repair
from vicinal.scratch import Scratch
from vicinal.space import COSINE, IP, Linker, Rows, Space
from vicinal.undo import UndoLog

comptime REPAIR_SHARE = 64
"""All rows are made reachable again after 1/64 of them are new: the flood costs a few percent then."""


struct Sorted(Movable):
    """Rows to be brought into a graph, those apart that are copies of others."""

    var first: Int
    """The first of them."""
    var until: Int
    """One past the last."""
    var places: Ptr[UInt32]
    """Rows that are no copies."""
    var count: Int
    """Their number."""
    var originals: Ptr[Int32]
    """The row that each is a copy of, or -1."""
    var levels: Ptr[UInt8]
    """The level of each row; 0 for copies."""

    def __init__(out self, mut index: Index, until: Int):
        """Tells copies from other rows, and puts the others into the index's table of rows."""
        var stored = index.rows()
        self.first = index.graph.linked
        self.until = until
        self.places = allocate[UInt32](until - self.first)
        self.originals = allocate[Int32](until - self.first)
        self.levels = allocate[UInt8](until - self.first)
        self.count = 0
        self.set_copies_apart(index, stored)

    def set_copies_apart(mut self, mut index: Index, stored: Rows):
        """Goes through the rows, which are put into the table unless they are copies."""
        index.copies.catch_up(stored, self.first)
        for row in range(self.first, self.until):
            var i = row - self.first
            var original = index.copies.original(stored, row)
            self.originals[unsafe_offset=i] = Int32(original)
            self.levels[unsafe_offset=i] = 0
            if original < 0:
                self.levels[unsafe_offset=i] = UInt8(draw_level(index.seed, row, index.graph.M))
                self.places[unsafe_offset=self.count] = UInt32(row)
                self.count += 1

    def __deinit__(deinit self):
        release(self.places)
        release(self.originals)
        release(self.levels)

    def copied(self) -> Bool:
        """Tells whether there are copies among them."""
        return self.count < self.until - self.first

    def append_copies(self, mut index: Index):
        """Puts the copies behind their originals."""
        for row in range(self.first, self.until):
            var original = Int(self.originals[unsafe_offset=row - self.first])
            if original >= 0:
                index.copies.append(original, row)


@fieldwise_init
struct Linking[V: Watch]:
    """One call's work on the graph."""

    var index: Ptr[Index]
    var new: Ptr[Sorted]
    var team: Ptr[Team]
    var scratches: Ptr[Ptr[Scratch]]
    var log: Ptr[UndoLog]
    var watch: Ptr[Self.V]
    var total: Int
    """Rows of the call, for its watch."""

    def on_codes[S: Space](self) -> Int:
        """Links on codes where they tell how far two rows are from each other, on the stored rows otherwise.

        Estimating codes of ip do not: they hold residuals to the centre, and what the centre adds is not among them.
        """
        ref codes = self.index[].codes[]
        var rows = codes.rows(self.index[].rows())
        comptime if S.metric != COSINE:
            if codes.kind == EXACT:
                return self.on[ExactBytes[S.metric, S.T == DType.int8]](rows)
        comptime if S.metric != IP and S.T.is_floating_point():
            if codes.kind == ROTATED and codes.fit:
                return self.on[BetweenCodes[4]](rows)
            if codes.kind == SCALED and codes.fit:
                return self.on[BetweenCodes[8]](rows)
        return self.on[S](self.index[].rows())

    def on[L: Linker](self, rows: Rows) -> Int:
        """Links and repairs with one way of measuring; undoes all of it if it was ended early."""
        ref index = self.index[]
        ref new = self.new[]
        var outcome = link_rows[L, Self.V](
            index.graph,
            rows,
            new.places,
            new.count,
            new.until,
            new.levels,
            new.first - index.copies.count,
            index.ef_construction,
            self.team[],
            self.scratches,
            self.log[],
            self.watch[],
        )
        if outcome != 1:
            self.log[].undo(index.graph)
            return outcome
        self.watch[].advance(new.count)
        if not fill_slots[L](
            index.graph,
            rows,
            new.places,
            new.count,
            self.team[],
            self.scratches,
            self.log[],
            self.watch[],
        ):
            self.log[].undo(index.graph)
            return 0
        var unrepaired = index.unrepaired + new.until - new.first
        if unrepaired * REPAIR_SHARE >= new.until:
            # repair tells the rows of the whole graph
            self.watch[].advance(self.total - new.until)
            if not repair[L](
                index.graph,
                rows,
                index.ef_construction,
                self.log[],
                self.scratches[][],
                self.watch[],
            ):
                self.log[].undo(index.graph)
                return 0
            unrepaired = 0
        if not self.watch[].conclude(self.total):
            self.log[].undo(index.graph)
            return 0
        index.unrepaired = unrepaired
        return 1


def link_new[
    S: Space, V: Watch
](mut index: Index, until: Int, total: Int, team: Team, mut watch: V) -> Int:
    """Brings rows graph.linked .. until-1, stored and encoded, into the graph.

    Args:
        index: The index; searches may run meanwhile.
        until: The rows that the graph shall have.
        total: Rows of the call, for `watch`.
        team: Workers.
        watch: May end the work early.

    Returns:
        DONE, STOPPED or NO_MEMORY; the graph is as it was unless DONE.
    """
    var new = Sorted(index, until)
    var outcome = -1
    if (not new.copied() and index.copies.count == 0) or index.copies.grow(until):
        var scratches = allocate[Ptr[Scratch]](team.size() * LANES)
        for i in range(team.size() * LANES):
            scratches[unsafe_offset=i] = index.shelf.take()
        var log = UndoLog(index.graph)
        outcome = Linking[V](
            Pointer(to=index).unsafe_origin_cast[MutUntrackedOrigin](),
            Pointer(to=new).unsafe_origin_cast[MutUntrackedOrigin](),
            Pointer(to=team).unsafe_mut_cast[True]().unsafe_origin_cast[MutUntrackedOrigin](),
            scratches,
            Pointer(to=log).unsafe_origin_cast[MutUntrackedOrigin](),
            Pointer(to=watch).unsafe_origin_cast[MutUntrackedOrigin](),
            total,
        ).on_codes[S]()
        _ = log
        for i in range(team.size() * LANES):
            index.shelf.put(scratches[unsafe_offset=i])
        release(scratches)
    if outcome == 1:
        new.append_copies(index)
        return DONE
    index.copies.forget_from(index.rows(), new.first)
    return STOPPED if outcome == 0 else NO_MEMORY
