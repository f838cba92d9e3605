"""What an opened index makes of its rows when somebody first needs it: by the number of rows, so without a lock and in pieces.

Tables that the GIL guards are made apart, while others may use the index, and then handed over with the GIL held. Whoever changes
the index makes or meets them first, so that what was read for a table that is handed over was not changed meanwhile.
"""
from vicinal.index.vector_index import Index
from vicinal.rows.id_map import IdMap
from vicinal.rows.string_ids import FREE, StringTable, hold
from vicinal.system.atomics import load_acquire
from vicinal.system.memory import Ptr, allocate, at, missing, no_block, release
from vicinal.system.outcome import DONE, NO_MEMORY, Outcome, STOPPED
from vicinal.system.parallel import Watch

comptime CHUNK = 1 << 16
"""Rows between looks at the watch."""


struct KnownIds(Movable):
    """The table that finds rows by their ids, made apart."""

    var map: IdMap
    var automatic: Bool
    """Whether ids are row numbers, and the table is not needed. Set to False before `learn`, the table is made in any case."""
    var largest: Int64
    """The largest id."""

    def __init__(out self):
        """Knows nothing."""
        self.map = IdMap()
        self.automatic = True
        self.largest = Int64.MIN

    def learn[V: Watch](mut self, index: Index, mut watch: V) -> Outcome:
        """Looks at all ids.

        Returns:
            DONE; or STOPPED or NO_MEMORY, and then there is nothing to `give`.

        Safety:
            The caller has claimed a scratch, which is pinned, or keeps writers away.
        """
        var visible = index.snapshot().visible
        if visible.bound == 0:
            return DONE
        var column = at[Int64](load_acquire(index.ids.column.address))
        var rows = 0  # what a mapped file counts may be wrong, and a full table has no end
        for row in range(visible.bound):
            if row % CHUNK == 0 and not watch.proceed(0):
                return STOPPED
            if visible.is_visible(row):
                rows += 1
                self.largest = max(self.largest, column[unsafe_offset=row])
                self.automatic = self.automatic and Int(column[unsafe_offset=row]) == row
        if self.automatic:
            return DONE
        if not self.map.make_room(column, rows):
            return NO_MEMORY
        for row in range(visible.bound):
            if row % CHUNK == 0 and not watch.proceed(0):
                return STOPPED
            # beside a writer more may be seen: then the table is of no use, but must not be full
            if visible.is_visible(row) and self.map.held < rows:
                _ = self.map.insert(column, row)
        return DONE

    def give(mut self, mut index: Index):
        """Hands the table over, unless the index has one by now."""
        if index.ids.known:
            return
        swap(index.ids.map, self.map)
        index.ids.automatic = self.automatic
        index.ids.largest = max(index.ids.largest, self.largest)
        index.ids.known = True


def know_ids[V: Watch](mut index: Index, mut watch: V) -> Outcome:
    """Makes the table of ids if there is none yet; whoever asks an index that was opened for rows by their ids calls it first.

    Returns:
        DONE; or STOPPED or NO_MEMORY, and then there is no table.

    Safety:
        As of `KnownIds.learn`, and nobody else asks for ids meanwhile.
    """
    if index.ids.known:
        return DONE
    var known = KnownIds()
    var status = known.learn(index, watch)
    if status == DONE:
        known.give(index)
    return status


def catch_up[V: Watch](mut index: Index, mut watch: V) -> Outcome:
    """Puts all rows of the graph into the table that tells copies; for callers that hold the index for writing.

    A change needs the table, and an index that was opened has none yet: to make it reads all rows.

    Returns:
        DONE; or STOPPED or NO_MEMORY, and then the rest can be put in later.
    """
    var linked = index.graph[].linked
    var stored = index.rows()
    var states = index.states.address()
    ref duplicates = index.duplicates
    if duplicates.count != 0 and duplicates.seen < linked:
        for first in range(duplicates.seen, linked, CHUNK):
            if not watch.proceed(0):
                return STOPPED
            if not duplicates.insert_representatives(
                stored, first, min(first + CHUNK, linked), states
            ):
                return NO_MEMORY
    while duplicates.seen < linked:
        if not watch.proceed(0):
            return STOPPED
        if not duplicates.insert_rows(stored, min(duplicates.seen + CHUNK, linked), states):
            return NO_MEMORY
    return DONE


struct KnownStrings(Movable):
    """The table that finds strings, made apart."""

    var table: Ptr[UInt32]
    var room: Int
    var held: Int
    """Strings in the table; 0 if offsets are damaged, of which whoever looks for a string will tell."""

    def __init__(out self):
        """Knows nothing."""
        self.table = no_block[UInt32]()
        self.room = 0
        self.held = 0

    def __deinit__(deinit self):
        release(self.table)

    def learn[V: Watch](mut self, strings: StringTable, mut watch: V) -> Outcome:
        """Looks at all strings.

        Returns:
            DONE; or STOPPED or NO_MEMORY, and then there is nothing to `give`.

        Safety:
            Strings may not be freed meanwhile: the caller has claimed a scratch, which is pinned, or keeps writers away.
        """
        var count = strings.count
        for number in range(count):
            if number % CHUNK == 0 and not watch.proceed(0):
                return STOPPED
            if not strings.valid(number):
                return DONE
        var room = 64
        while room < 2 * count:
            room *= 2
        release(self.table)
        self.table = allocate[UInt32](room)
        if missing(self.table):
            return NO_MEMORY
        self.room = room
        for i in range(room):
            self.table[unsafe_offset=i] = FREE
        for number in range(count):
            if number % CHUNK == 0 and not watch.proceed(0):
                return STOPPED
            hold(self.table, room, strings, number)
        self.held = count
        return DONE

    def give(mut self, mut strings: StringTable):
        """Hands the table over, unless there is one by now."""
        if strings.held < strings.count and self.held == strings.count:
            swap(strings.table, self.table)
            swap(strings.room, self.room)
            strings.held = self.held
