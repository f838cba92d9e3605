"""A change of rows from its first step to its last: what it takes is prepared, then it takes effect or is taken back.

    take or leave    marks the rows and the ids that the call is about; with the GIL
    (the work)       stores and links the new rows: `update/add.mojo`; without the GIL
    commit           the moment from which on everybody sees the change; with the GIL
    finish           makes what was marked for the call ordinary; then `update/consolidate.mojo` takes removed rows out of the graph
    roll_back        instead of the last two: leaves the index as it was; with the GIL
"""

from vicinal.construct.merge_order import SourceGraph
from vicinal.graph.links import MAX_ROWS
from vicinal.index.borrowed_rows import forget_borrowed
from vicinal.index.first_use import KnownIds, know_ids
from vicinal.index.vector_index import Index
from vicinal.kernels.stored_type import row_stride
from vicinal.quantization.code_table import NO_CODES
from vicinal.rows.row_states import CHECKING, INSERTING, FREE, ANCHOR, DELETING, LIVE, PENDING
from vicinal.rows.row_targets import TargetRows
from vicinal.rows.visibility import NEVER_VISIBLE, stamp_of
from vicinal.system.atomics import store_release
from vicinal.system.memory import Ptr, allocate, at, missing, no_block, release
from vicinal.system.outcome import DONE, KNOWN_ID, NO_MEMORY, Outcome, UNKNOWN_ROW
from vicinal.system.parallel import Unwatched
from vicinal.system.point import point, reclaims, reuses
from vicinal.system.pointer import zero_items

comptime NO_ROW = -1


struct Change(Movable):
    """One call of add, update or remove."""

    var first: Int
    """Rows of the index before the call."""
    var added: Int
    """Rows that the call writes."""
    var origin: SourceGraph
    """Where they come from, if they are linked there."""
    var reused: Ptr[UInt32]
    """Free rows that it writes, ascending."""
    var num_reused: Int
    var leaving: Ptr[UInt32]
    """Rows that it removes."""
    var num_leaving: Int
    var successors: Ptr[UInt32]
    """For each of them the row that takes its id, unless ids go with it."""
    var released: Ptr[UInt32]
    """Removed rows that held a place for copies, none of which stays."""
    var num_released: Int
    var replaces: Bool
    """Whether ids stay when their rows leave: an update."""
    var stamped: Bool
    """Whether rows have marks and stamps; else those behind the last are hidden since they are behind the last."""
    var linked: Bool
    """Whether the work has begun to link rows, so that searches may be at them."""
    var lent: Bool
    """Whether the new rows stay where the caller has them; they must be the first, see `borrow.must_copy`."""
    var on_disk: Bool
    """Whether they are `lent` and do not fit the memory: then they are read in order and as seldom as possible."""
    var hashes: Ptr[UInt32]
    """Of each new row `hash_row` of `rows/duplicates.mojo`, if they are on disk."""
    var was_automatic: Bool
    """Whether ids were row numbers before."""
    var largest_id: Int64
    """The largest id that the call brings, or that was known where it takes rows from; Int64.MIN if there is none."""
    var met: Bool
    """Whether searches may be at places that the call gives back; then they are freed like rows that were removed."""
    var kept: Int
    """A free row that becomes pending again since a first graph needs it as its entry point, or NO_ROW."""

    def __init__(out self):
        """Makes a change of nothing."""
        self.first = 0
        self.added = 0
        self.origin = SourceGraph.nowhere()
        self.reused = no_block[UInt32]()
        self.num_reused = 0
        self.leaving = no_block[UInt32]()
        self.num_leaving = 0
        self.successors = no_block[UInt32]()
        self.released = no_block[UInt32]()
        self.num_released = 0
        self.replaces = False
        self.stamped = False
        self.linked = False
        self.met = False
        self.lent = False
        self.on_disk = False
        self.hashes = no_block[UInt32]()
        self.was_automatic = True
        self.largest_id = Int64.MIN
        self.kept = NO_ROW

    def __deinit__(deinit self):
        release(self.reused)
        release(self.leaving)
        release(self.successors)
        release(self.released)
        release(self.hashes)

    def places(self) -> TargetRows:
        """Returns where the new rows go."""
        return TargetRows(self.reused, self.num_reused, self.first)

    def until(self) -> Int:
        """Returns the rows of the index once the change has taken effect, removed ones included."""
        return self.first + self.added - self.num_reused

    def size(self) -> Int:
        """Returns the rows that progress is told of."""
        return self.added if self.added != 0 else self.num_leaving

    def live_after(self, index: Index) -> Int:
        """Returns how many rows will be there."""
        return index.live() + self.added - self.num_leaving

    # ---- first steps

    def begin_insert(mut self, mut index: Index, ids: Int, added: Int, replaces: Bool) -> Outcome:
        """Chooses places for new rows and writes their ids.

        Args:
            index: The index.
            ids: Address of int64 ids, or 0 for automatic ones, see `Index.next_id`.
            added: Number of rows.
            replaces: Whether rows of ids that are there already are replaced, not refused.

        Returns:
            DONE; or NO_MEMORY, or the refusal of the first bad id: then nothing has changed.
        """
        var watch = Unwatched()
        if know_ids(index, watch) != DONE:
            return NO_MEMORY
        self.first = index.count
        self.added = added
        self.was_automatic = index.ids.automatic
        self.num_reused = min(added, index.states.free())
        var until = self.until()
        if (
            until > MAX_ROWS
            or not index.ids.column.grow(until * 8)
            or (index.states.in_use and not index.states.prepare(until, self.first))
        ):
            self.num_reused = 0
            return NO_MEMORY
        var next = Int64(0)
        if ids == 0:
            next = index.ids.next_id(index.live())
            if next < 0 or next > Int64.MAX - Int64(added) + 1:
                self.num_reused = 0
                return Outcome.refusal(0, KNOWN_ID)
        if not self._choose_target_rows(index):
            self.num_reused = 0
            return NO_MEMORY
        store_release(index.states.shaded, index.states.shaded + added)
        if index.states.in_use:
            self._hide_rows_behind_the_last(index)
        var column = index.ids.column.ptr[Int64]()
        var automatic = index.ids.automatic
        for i in range(added):
            var row = self.places().row(i)
            var id = at[Int64](ids)[unsafe_offset=i] if ids != 0 else next + Int64(i)
            column[unsafe_offset=row] = id
            self.largest_id = max(self.largest_id, id)
            automatic = automatic and Int(id) == row
        if automatic:
            return DONE
        if self.was_automatic:
            var known = KnownIds()
            known.automatic = False
            if known.learn(index, watch) != DONE:
                self._release_target_rows(index)
                return NO_MEMORY
            swap(index.ids.map, known.map)
            index.ids.automatic = False
        if not index.ids.map.make_room(column, index.ids.map.held + added):
            self._forget_ids(index, 0)
            self._release_target_rows(index)
            return NO_MEMORY
        if replaces:
            return self._replace_rows(index)
        for i in range(added):
            if not index.ids.map.insert(column, self.places().row(i)):
                self._forget_ids(index, i)
                self._release_target_rows(index)
                return Outcome.refusal(i, KNOWN_ID)
        return DONE

    def _choose_target_rows(mut self, mut index: Index) -> Bool:
        """Takes free rows for new ones; they are hidden anyway. Returns False when memory is out.
        """
        if self.num_reused == 0:
            return True
        self.reused = allocate[UInt32](self.num_reused)
        if missing(self.reused):
            return False
        var row = index.states.lowest_free
        for i in range(self.num_reused):
            row = index.states.next_free(row)
            index.states.set(row, INSERTING)
            self.reused[unsafe_offset=i] = UInt32(row)
            reuses["reuse a row"](row)
            row += 1
        index.states.lowest_free = row
        for i in range(self.num_reused):
            index.states.stamp(Int(self.reused[unsafe_offset=i]), self._born(index))
        return True

    def _born(self, index: Index) -> UInt64:
        return stamp_of(index.states.version + 1, ~UInt32(0))

    def _hide_rows_behind_the_last(mut self, mut index: Index):
        """Gives rows that follow the last the state and the stamp of inserted ones."""
        self.stamped = True
        for row in range(self.first, self.until()):
            index.states.set(row, INSERTING)
            index.states.stamp(row, self._born(index))

    def _replace_rows(mut self, mut index: Index) -> Outcome:
        """Makes rows leave whose ids are given again; the table leads to them until the change takes effect.
        """
        self.replaces = True
        self.leaving = allocate[UInt32](self.added)
        self.successors = allocate[UInt32](self.added)
        if (
            missing(self.leaving)
            or missing(self.successors)
            or not index.states.prepare(self.until(), self.first)
        ):
            self._forget_ids(index, 0)
            self._release_target_rows(index)
            return NO_MEMORY
        self._hide_rows_behind_the_last(index)
        var column = index.ids.column.ptr[Int64]()
        for i in range(self.added):
            var row = self.places().row(i)
            if index.ids.map.insert(column, row):
                continue
            var old = index.ids.map.find(column, column[unsafe_offset=row])
            if index.states.of(old) != LIVE:  # this call has met the id before
                self._forget_ids(index, i)
                self._release_target_rows(index)
                return Outcome.refusal(i, KNOWN_ID)
            self._delete_row(index, old)
            self.successors[unsafe_offset=self.num_leaving - 1] = UInt32(row)
        if not self._sort_duplicates(index):
            self._forget_ids(index, self.added)
            self._release_target_rows(index)
            return NO_MEMORY
        return DONE

    def _delete_row(mut self, mut index: Index, row: Int):
        index.states.set(row, DELETING)
        index.states.end_at(row, index.states.version + 1)
        self.leaving[unsafe_offset=self.num_leaving] = UInt32(row)
        self.num_leaving += 1

    def begin_delete(mut self, mut index: Index, rows: Ptr[Int64], count: Int) -> Outcome:
        """Marks rows that are to be removed.

        Returns:
            DONE; or NO_MEMORY, or the refusal of the first bad row: then nothing has changed.
        """
        var watch = Unwatched()
        if know_ids(index, watch) != DONE:
            return NO_MEMORY
        self.first = index.count
        self.was_automatic = index.ids.automatic
        if not index.states.prepare(self.first, self.first):
            return NO_MEMORY
        self.leaving = allocate[UInt32](count)
        if missing(self.leaving):
            return NO_MEMORY
        for i in range(count):
            var row = Int(rows[unsafe_offset=i])
            if row < 0 or row >= self.first or index.states.of(row) != LIVE:
                self.roll_back(index)
                return Outcome.refusal(i, UNKNOWN_ROW)
            self._delete_row(index, row)
        if not self._sort_duplicates(index):
            self.roll_back(index)
            return NO_MEMORY
        return DONE

    def _sort_duplicates(mut self, mut index: Index) -> Bool:
        """Finds out which rows that leave hold a place for copies that stay, and which do so no longer; returns False when memory
        is out, before anything has changed.
        """
        if index.graph[].linked == 0:
            return True
        var stored = index.rows()
        var states = index.states.address()
        ref duplicates = index.duplicates
        if duplicates.count != 0:
            self.released = allocate[UInt32](self.num_leaving)
            if missing(self.released) or not duplicates.catch_up(
                stored, index.graph[].linked, states
            ):
                return False
        var asked = 0  # originals that stay, at the end of `released`: each is asked once
        for i in range(self.num_leaving):
            var row = Int(self.leaving[unsafe_offset=i])
            if duplicates.is_duplicate(row):
                var representative = duplicates.find(stored, row)
                if representative < 0 or index.states.of(representative) != ANCHOR:
                    continue
                if duplicates.stays(representative, states):
                    index.states.set(representative, CHECKING)
                    asked += 1
                    self.released[unsafe_offset=self.num_leaving - asked] = UInt32(representative)
                else:
                    index.states.set(representative, PENDING)
                    duplicates.forget(stored, representative)
                    self.released[unsafe_offset=self.num_released] = UInt32(representative)
                    self.num_released += 1
            elif duplicates.stays(row, states):
                index.states.set(row, ANCHOR)
                _ = duplicates.representative(stored, row)
            else:  # an equal row that comes later is no copy of this one
                duplicates.forget(stored, row)
        for i in range(asked):
            index.states.set(Int(self.released[unsafe_offset=self.num_leaving - 1 - i]), ANCHOR)
        return True

    def _unsort_duplicates(mut self, mut index: Index):
        """Takes back `_sort_duplicates`, once rows that were to leave are back."""
        ref duplicates = index.duplicates
        var stored = index.rows()
        for i in range(self.num_released):
            var row = Int(self.released[unsafe_offset=i])
            index.states.set(row, ANCHOR)
            _ = duplicates.representative(stored, row)
        self.num_released = 0
        for i in range(self.num_leaving):
            var row = Int(self.leaving[unsafe_offset=i])
            if row < duplicates.seen and not duplicates.is_duplicate(row):
                _ = duplicates.representative(stored, row)

    # ---- last steps

    def commit(mut self, mut index: Index):
        """Makes the change take effect."""
        ref states = index.states
        var column = index.ids.column.ptr[Int64]()
        if self.num_leaving != 0 and not index.ids.automatic:
            for i in range(self.num_leaving):
                if self.replaces:
                    index.ids.map.replace(column, Int(self.successors[unsafe_offset=i]))
                else:
                    index.ids.map.erase(column, Int(self.leaving[unsafe_offset=i]))
        store_release(states.shaded, states.shaded + self.num_leaving)
        store_release(states.removed, states.removed + self.num_leaving - self.num_reused)
        store_release(index.count, self.until())
        states.publish(states.version + 1, index.count)
        index.ids.largest = max(index.ids.largest, self.largest_id)
        # after the moment: a search that takes the new links sees the rows that they lead to
        if index.searched != index.graph:
            index.use_graph()
            index.leftovers = states.in_use
        index.changes += 1
        index.committed = index.readers.retire()

    def finish(mut self, mut index: Index):
        """Makes new rows rows like others and those that left pending; what searches see does not change any more.
        """
        ref states = index.states
        if states.in_use:
            var places = self.places()
            for i in range(self.added if self.stamped else 0):
                states.set(places.row(i), LIVE)
            for i in range(self.num_leaving):
                var row = Int(self.leaving[unsafe_offset=i])
                if states.of(row) == ANCHOR:
                    states.holding += 1
                else:
                    states.set(row, PENDING)
                    states.pending += 1
            states.holding -= self.num_released
            states.pending += self.num_released
            if self.kept != NO_ROW and states.of(self.kept) == FREE:
                states.set(self.kept, PENDING)
                states.pending += 1
        index.count_invisible()

    def roll_back(mut self, mut index: Index):
        """Leaves everything as it was before the change; the graph must have been undone."""
        index.give_up_graph()
        self._forget_ids(index, self.added)
        self._release_target_rows(index)
        if self.lent:
            forget_borrowed(index)

    def _forget_ids(mut self, mut index: Index, taken: Int):
        """Takes the ids of the first new rows out of the table, and lets rows stay that were to leave.
        """
        var column = index.ids.column.ptr[Int64]() if index.ids.column.address != 0 else at[Int64](
            64
        )
        if self.was_automatic:
            if not index.ids.automatic:
                index.ids.map.clear()
            index.ids.automatic = True
        else:
            for i in range(taken):
                var row = self.places().row(i)
                if index.ids.map.find(column, column[unsafe_offset=row]) == row:
                    index.ids.map.erase(column, row)
        for i in range(self.num_leaving):
            var row = Int(self.leaving[unsafe_offset=i])
            index.states.set(row, LIVE)
            index.states.end_at(row, ~UInt32(0))
        self._unsort_duplicates(index)
        self.num_leaving = 0

    def _release_target_rows(mut self, mut index: Index):
        """Makes the places of the new rows free again, or rows that do not exist."""
        ref states = index.states
        for i in range(self.num_reused):
            var row = Int(self.reused[unsafe_offset=i])
            states.stamp(row, NEVER_VISIBLE)
            if self.met:
                states.set(row, PENDING)
                states.pending += 1
                index.leftovers = True
                continue
            wipe(index, row)
            states.set(row, FREE)
            states.lowest_free = min(states.lowest_free, row)
        for row in range(self.first, self.until() if self.stamped else self.first):
            states.set(row, LIVE)
            states.stamp(row, 0)
        index.count_invisible()


def wipe(mut index: Index, row: Int):
    """Sets everything that a row holds to zero: vector, norm, id and code."""
    point["wipe a row"]()
    reclaims["wipe a row"](row)
    var stride = row_stride(index.dim, index.dtype)
    zero_items(index.vectors.column.ptr[UInt8]().unsafe_offset(row * stride), stride)
    if index.has_norms():
        index.vectors.norms.ptr[Float32]()[unsafe_offset=row] = 0
    index.ids.column.ptr[Int64]()[unsafe_offset=row] = 0
    ref codes = index.codes[]
    if codes.kind != NO_CODES and row < codes.count:
        if not codes.in_place():
            zero_items(codes.bytes.ptr[UInt8]().unsafe_offset(row * codes.stride), codes.stride)
        codes.constants.ptr[UInt64]()[unsafe_offset=row] = 0
