"""What is done about removed rows after a change took effect: their links are taken out, then their places become free.

    wait       until no search is left that may see the rows that went with the last change
    unlink     nothing leads to removed rows any more, not links nor rings of copies; they themselves lead on, for searches at them.
               A slice of the blocks for each row that is changed (`Leaving`), so that no call waits for all of them
    wait       until no search is left that began before that
    free       content and links are wiped, the places can be used again

Whatever cannot be done now, because a search takes long, memory is out or the caller wants to stop, is tried again after the next
change; until then the rows are hidden ways through the graph. Searches never wait for any of this.

Source: FreshDiskANN (arXiv:2105.09613), consolidation of deletes; read-copy update for the two waits.
"""
from vicinal.construct.build_statistics import BLOCKS, REPAIR
from vicinal.construct.merge_order import StartNodes
from vicinal.construct.fill import left_free
from vicinal.construct.leaving_rows import losing_ordinals, move_entry
from vicinal.construct.second_look import BASE_LEVEL, UPPER_LEVELS
from vicinal.construct.unlink import unlink_removed
from vicinal.graph.links import Graph
from vicinal.graph.undo import UndoLog
from vicinal.index.borrowed_rows import own_rows
from vicinal.index.vector_index import Index
from vicinal.kernels.space import Rows
from vicinal.rows.leaving import ALL, Blocks
from vicinal.rows.row_states import FREE, PENDING
from vicinal.rows.row_targets import TargetRows
from vicinal.rows.visibility import NEVER_VISIBLE
from vicinal.system.array import GrowableArray
from vicinal.system.clock import now
from vicinal.system.memory import Ptr, allocate, missing
from vicinal.system.outcome import DONE, NO_MEMORY, Outcome
from vicinal.system.parallel import Team, Watch
from vicinal.update.encode import encode
from vicinal.update.linking import NEARBY, Linking
from vicinal.update.split_duplicates import SplitDuplicates
from vicinal.update.transaction import wipe
from vicinal.walk.readers import PATIENCE

comptime PENDING_SHARE = 256
comptime LEAST_PENDING = 32
"""Removed rows keep their links while there are no more of them than 32 or 1/256 of all rows: taking links out means looking
at all blocks, which is then paid for by many removals, and so few hidden rows cost searches nothing that can be measured."""
comptime SCANNED_SHARE = 4
"""The same for an index without a graph, which has no links to take out."""
comptime REBUILD_SHARE = 1
"""The graph is rebuilt instead of patched once the rows removed since the last rebuild outnumber those that remain. Up to half removed,
patching cost at most 0.003 of recall; with 70 % gone it lost 0.014 at ef 16 (10,000 MiniLM rows)."""
comptime LACKED = 2
"""Slots of a block that lost links are filled when so many times as many are free as stay free for links back: most blocks are full but
for those, and to look for one link costs as much as for several. That halves what removing costs, at the same recall."""
comptime SLICE = 1024
"""Blocks that are looked at for each row of a change, at least: 5 ms at 200,000 rows, where the whole takes 1 s."""
comptime SLICES = 4096
"""Slices of a pass at most: each also looks at a byte for every block."""
comptime MANY_PENDING = 4096
comptime LONG_PATIENCE = 5_000_000_000
"""Nanoseconds that a change waits for older searches once more rows are pending than are there, and than 4096: so memory does
not grow without bound while a search goes on and on."""


def due(index: Index) -> Bool:
    """Tells whether so many rows are pending that they are to be freed."""
    var live = index.live()
    var share = PENDING_SHARE if index.graph[].linked != 0 else SCANNED_SHARE
    return index.states.pending - index.unlinked.count > max(LEAST_PENDING, live // share)


def consolidate[
    V: Watch
](
    mut index: Index,
    threads: Int,
    mut watch: V,
    changed: Int = ALL,
    places: TargetRows = TargetRows.from_row(0),
) -> Outcome:
    """Frees removed rows if there are enough of them and no search keeps them; to be called after each change, without the GIL.

    A call does a share of that in proportion to the rows that were changed; links are as good meanwhile, and the rows keep their places.

    Args:
        index: The index; searches may run meanwhile, other writers may not.
        threads: Workers.
        watch: May end the work early.
        changed: How many rows the change before has added and removed.
        places: Where it has put rows; those listed may lead to rows that leave.

    Returns:
        DONE, also if nothing could be done yet; STOPPED or NO_MEMORY. What searches find is the same in each case.
    """
    index.free_replaced()
    index.free_retired()
    if not free_unlinked(index):
        return DONE
    if not index.leaving.under_way():
        if not (due(index) or index.leftovers):
            return DONE
        var patience = PATIENCE
        if index.states.pending > max(index.live(), MANY_PENDING):
            patience = LONG_PATIENCE
        if not index.wait_for(index.committed, patience):
            return DONE
    var team = Team(threads)
    var status = own_rows(index, index.count, team, watch)  # rows are going to be wiped
    if status == DONE and not index.leaving.under_way():
        if index.leaving.begin(index.states.address(), index.count):
            index.leftovers = False
        else:
            status = NO_MEMORY
    if status == DONE and index.graph[].linked != 0:
        var task = Unlink[V](
            Pointer(to=index).unsafe_origin_cast[MutUntrackedOrigin](),
            Pointer(to=team).unsafe_mut_cast[True]().unsafe_origin_cast[MutUntrackedOrigin](),
            Pointer(to=watch).unsafe_origin_cast[MutUntrackedOrigin](),
            changed,
            places,
            DONE,
        )
        task.run()
        status = task.status
    _ = team^
    if status != DONE:
        index.leaving.restart()  # rows that the change has put somewhere were not looked at
        return status
    ref leaving = index.leaving
    if leaving.next_row < index.graph[].linked or leaving.next_ordinal < index.graph[].ordinals:
        return DONE
    # copies that were removed since the pass began go with the others
    if not index.wait_for(index.committed, PATIENCE):
        return DONE
    var rows = allocate[UInt32](index.states.pending)
    if missing(rows):
        return NO_MEMORY
    _list_unlinked(index, rows)
    index.graph[].leaving_rows = 0
    leaving.end()
    _ = free_unlinked(index)
    index.free_replaced()
    return DONE


def prepare_change(mut index: Index):
    """Does what has to be done before rows are marked for a change, without the GIL: places that have become free are wiped, and
    before version numbers are used up they begin anew.
    """
    _ = free_unlinked(index)
    index.free_replaced()
    index.free_retired()
    if not index.states.version_due():
        return
    if not index.readers.wait(index.committed):
        return  # there are as many versions left
    index.states.renew(index.count)
    index.committed = index.readers.retire()
    while not index.readers.wait(index.committed):
        pass


@fieldwise_init
struct Unlink[V: Watch](Movable):
    """Takes the links to pending rows out of the graph."""

    var index: Ptr[Index]
    var team: Ptr[Team]
    var watch: Ptr[Self.V]
    var changed: Int
    var places: TargetRows
    var status: Outcome

    def run(mut self):
        """Does it."""
        ref index = self.index[]
        self.status = encode(
            index, TargetRows.from_row(index.count), 0, index.count, self.team[], self.watch[]
        )
        if self.status != DONE:
            return
        var linking = Linking[Self.V].begin(index, self.team[], self.watch[])
        ref leaving = index.leaving
        var begins = leaving.next_row == 0 and leaving.next_ordinal == 0
        var anew = begins and index.mended + leaving.count >= REBUILD_SHARE * index.live()
        var places = SplitDuplicates(index, anew)
        var outcome = NO_MEMORY
        var address = Pointer(to=linking).unsafe_origin_cast[MutUntrackedOrigin]()
        if linking.failed or places.failed:
            pass
        elif places.put_upper_row_first(index.graph[]):
            var task = Rebuild[Self.V](
                address, Pointer(to=places).unsafe_origin_cast[MutUntrackedOrigin]()
            )
            outcome = task.run(linking.measured())
        else:
            outcome = self.unlink(address)
        linking.end()
        _ = places^
        self.status = outcome

    def unlink(self, linking: Ptr[Linking[Self.V]]) -> Outcome:
        """Does the next slice."""
        ref index = self.index[]
        ref graph = index.graph[]
        ref leaving = index.leaving
        var whole = graph.ordinals + graph.linked
        var slice = max(SLICE, whole // SLICES)
        var blocks = Blocks.from_slice(
            leaving,
            graph.ordinals,
            graph.linked,
            slice * self.changed if self.changed < whole // slice + 1 else whole,
            self.places.list,
            self.places.listed,
        )
        graph.leaving = Int(leaving.marks)
        graph.leaving_rows = leaving.rows
        var outcome = UnlinkRemoved[Self.V](linking, blocks).run(linking[].measured())
        if outcome == DONE:
            leaving.next_ordinal = blocks.last_ordinal
            leaving.next_row = blocks.last_row
            index.build_statistics.add(BLOCKS, blocks.count())
        return outcome


@fieldwise_init
struct UnlinkRemoved[V: Watch](Movable):
    """Leads some of the links to rows that leave past them; undoes that if it was ended early."""

    var linking: Ptr[Linking[Self.V]]
    var blocks: Blocks

    def run(self, rows: Rows) -> Outcome:
        """Does it by rows that `AnyLink` measures."""
        ref linking = self.linking[]
        ref index = linking.index[]
        ref graph = index.graph[]
        ref watch = linking.watch[]
        var log = UndoLog(graph)
        if log.failed():
            return NO_MEMORY
        var time = now()
        if self.blocks.first_ordinal == 0 and self.blocks.first_row == 0:
            index.leaving.keep(move_entry(graph, index.states.address()))
        var losing = losing_ordinals(graph, self.blocks)
        var without_long = GrowableArray()
        var outcome = unlink_removed(linking.work(rows, log), self.blocks, without_long, watch)
        _ = index.build_statistics.add_elapsed(REPAIR, time)
        if outcome == DONE:
            outcome = linking.look_again(rows, losing, UPPER_LEVELS, NEARBY, log)
        if outcome == DONE:
            outcome = linking.look_again(rows, without_long, BASE_LEVEL, ALL, log)
        if outcome == DONE:
            outcome = linking.fill_changed(rows, log, LACKED * left_free(graph.cap(0)))
        var done = (
            self.blocks.last_ordinal == graph.ordinals and self.blocks.last_row == graph.linked
        )
        if outcome == DONE and done:
            outcome = linking.connect_unreachable(rows, log)
        if outcome != DONE:
            log.undo(graph)
        elif done:
            index.unrepaired = 0
            index.mended += index.leaving.count
        else:
            index.unrepaired = max(
                index.unrepaired, 1
            )  # who only removed rows led to waits for the end
        return outcome


@fieldwise_init
struct Rebuild[V: Watch](Movable):
    """Links all rows that stay as if there had been no graph, which is cheaper and better when most of it goes.

    Searches walk on the old graph until the new one is done.
    """

    var linking: Ptr[Linking[Self.V]]
    var places: Ptr[SplitDuplicates]

    def run(self, rows: Rows) -> Outcome:
        """Does it by rows that `AnyLink` measures."""
        ref linking = self.linking[]
        ref index = linking.index[]
        var log = UndoLog(Graph(index.graph[].asked))  # keeps nothing: the old graph is still there
        if log.failed():
            return NO_MEMORY
        var graph = Graph(index.graph[].asked)
        if not index.graph[].copy_empty(graph) or not index.new_graph(graph^):
            return NO_MEMORY
        var outcome = linking.link(rows, self.places[], index.count, 0, log, StartNodes.none())
        if outcome == DONE:
            outcome = linking.connect_unreachable(rows, log)
        if outcome != DONE:
            index.give_up_graph()
            return outcome
        index.unrepaired = 0
        index.mended = 0
        index.use_graph()
        index.leaving.next_row = index.graph[].linked
        index.leaving.next_ordinal = index.graph[].ordinals
        return DONE


def _list_unlinked(mut index: Index, rows: Ptr[UInt32]):
    """Takes pending rows out of the rings of copies and notes that nothing leads to them any more, in `rows`, which is taken over.
    """
    ref states = index.states
    var entry = -1
    if index.graph[].linked != 0:
        entry = index.graph[].row_of(index.graph[].entry)
    var count = 0
    for row in range(index.count):
        # a copy has no links
        var goes = states.of(row) == PENDING and index.duplicates.is_duplicate(row)
        if not (goes or index.leaving.holds(row)) or row == entry:
            continue
        rows[unsafe_offset=count] = UInt32(row)
        count += 1
    if index.duplicates.count != 0:
        var stored = index.rows()
        for i in range(count):
            var representative = Int(rows[unsafe_offset=i])
            if index.duplicates.is_duplicate(representative):
                representative = index.duplicates.find(stored, representative)
            if representative >= 0:
                index.duplicates.shorten(representative, states.address())
        # rows that go later, or lead on as the entry point, stay, but not as originals of copies that go now: the table has
        # forgotten them
        for row in range(index.duplicates.rows):
            if states.of(row) == PENDING and index.duplicates.has_duplicates(row):
                index.duplicates.shorten(row, states.address())
    index.unlinked.take(rows, count, index.readers.retire())
    index.count_invisible()


def free_unlinked(mut index: Index) -> Bool:
    """Frees rows that nothing leads to, once no search is at them: nothing of what was removed stays in memory or gets into a file.

    Returns:
        Whether no such row is left.
    """
    if index.unlinked.count == 0:
        return True
    if not index.wait_for(index.unlinked.epoch, PATIENCE):
        return False
    ref states = index.states
    for i in range(index.unlinked.count):
        var row = index.unlinked.row(i)
        states.stamp(row, NEVER_VISIBLE)
        if row < index.graph[].linked:
            index.graph[].empty(row)
        index.duplicates.set_alone(row)
        wipe(index, row)
        states.set(row, FREE)
        states.lowest_free = min(states.lowest_free, row)
    states.pending -= index.unlinked.count
    index.unlinked.clear()
    index.count_invisible()
    return True
