"""Rows that hold the same bytes as an earlier one: kept out of the graph, in a ring behind that row.

Many equal rows linked like others fill each other's blocks and every beam that comes near, and seal themselves off. So
only the first of them, the *original*, is in the graph; a search that finds it gets the others with it.
"""

from vicinal.kernels.candidates import Candidates, entry_of, key_of, node_of
from vicinal.kernels.space import Rows
from vicinal.rows.row_states import is_to_be_unlinked, was_live, is_live_after
from vicinal.rows.same_bytes import hash_row, same_row
from vicinal.rows.visibility import Visibility
from vicinal.system.atomics import store_release, publish, load_acquire, slot
from vicinal.system.memory import Column, Ptr, allocate, at, missing, no_block, release
from vicinal.system.point import point, touches

comptime ALONE: UInt32 = 0xFFFFFFFF
"""The row has no copies and is none."""
comptime REPRESENTATIVE: UInt32 = 0x80000000
"""Set where the row is the original; the rest is the row of its newest copy."""
comptime FREE = UInt64.MAX
"""A place of the table that holds no row; others hold the hash of one, and in the lower half its number."""
comptime NO_ROOM = -2
"""There is no memory for the table."""


struct Duplicates(Movable):
    """The rings of copies, and a table that finds a row by what it holds.

    The original leads to its last copy, the last to the first, each to the next, in order of rows. Readers may be in a ring while
    copies are put in and taken out: one that is taken out goes on leading to where it led, and whoever comes to a row that is not
    behind the one before has been round.
    """

    var next: Column
    """UInt32 for each row; no memory as long as there are no copies."""
    var rows: Int
    """Rows that `next` has values of."""
    var count: Int
    """Rows that are copies."""
    var table: Ptr[UInt64]
    """Open addressing with linear probing: rows that are no copies, or FREE. With the hashes of 32 bits beside them, rows are read
    only to compare two that are most likely the same; others may lie on disk."""
    var room: Int
    """Places in the table, a power of two, at least twice the rows held; 0 while there is no table."""
    var held: Int
    """Rows in the table."""
    var seen: Int
    """Rows 0 .. seen-1 are in the table unless they are copies."""
    var in_order: Bool
    """Whether copies follow each other in order of rows; not so in some files, which are put in order before they are changed."""

    def __init__(out self):
        """Knows no rows."""
        self.next = Column()
        self.rows = 0
        self.count = 0
        self.table = no_block[UInt64]()
        self.room = 0
        self.held = 0
        self.seen = 0
        self.in_order = True

    def __deinit__(deinit self):
        release(self.table)

    def bytes(self) -> Int:
        """Returns the bytes of memory taken."""
        return self.next.memory() + 8 * self.room

    @always_inline
    def is_duplicate(self, row: Int) -> Bool:
        """Tells whether a row is a copy of an earlier one."""
        return row < self.rows and self.next.ptr[UInt32]()[unsafe_offset=row] < REPRESENTATIVE

    @always_inline
    def has_duplicates(self, row: Int) -> Bool:
        """Tells whether a row is the original of others."""
        if row >= load_acquire(self.rows):
            return False
        var next = UInt32(slot(at[UInt32](load_acquire(self.next.address)), row))
        return next >= REPRESENTATIVE and next != ALONE

    def find(self, stored: Rows, row: Int) -> Int:
        """Returns the row in the table that holds the same as a row, which may be itself; -1 if there is none.
        """
        if self.room == 0:
            return -1
        var hash = hash_row(stored, row)
        var place = self._home(hash)
        while True:
            var other = self.table[unsafe_offset=place]
            if other == FREE:
                return -1
            if hash_of(other) == hash and same_row(stored, row_in(other), row):
                return row_in(other)
            place = (place + 1) & (self.room - 1)

    @always_inline
    def _after(self, row: Int) -> Int:
        """Returns the row that a ring, or an original, leads to, whatever a damaged file says."""
        var next = self.next.ptr[UInt32]()[unsafe_offset=row]
        return min(Int(next & ~REPRESENTATIVE), self.rows - 1)

    def stays(self, representative: Int, states: Int) -> Bool:
        """Tells whether a row has copies that are there and stay."""
        var known = self.known()
        var last = self.last_of(representative, known)
        var copy = self.first_of(last, known)
        while copy >= 0:
            if is_live_after(at[UInt8](states)[unsafe_offset=copy]):
                return True
            copy = self.after(copy, last, known)
        return False

    def shorten(mut self, representative: Int, states: Int):
        """Takes the copies that go out of the ring of a row, which lead on to where they led for searches that are at them.
        """
        var known = self.known()
        var next = self.next.ptr[UInt32]()
        var last = self.last_of(representative, known)
        var copy = self.first_of(last, known)
        var first = -1
        var before = -1
        while copy >= 0:
            var after = self.after(copy, last, known)
            if is_to_be_unlinked(at[UInt8](states)[unsafe_offset=copy]):
                store_release(self.count, self.count - 1)
            else:
                if before >= 0:
                    publish(next.unsafe_offset(before), copy)
                else:
                    first = copy
                before = copy
            copy = after
        if before < 0:
            if last >= 0:
                publish(next.unsafe_offset(representative), Int(ALONE))
            return
        publish(next.unsafe_offset(before), first)
        publish(next.unsafe_offset(representative), before | Int(REPRESENTATIVE))

    def set_alone(mut self, row: Int):
        """Forgets where a row led that nothing leads to any more."""
        if row < self.rows:
            publish(self.next.ptr[UInt32]().unsafe_offset(row), Int(ALONE))

    def put_in_order(mut self) -> Bool:
        """Makes copies follow each other in order of rows, looking at each row twice whatever the order was; nobody may be
        searching. Returns False when memory is out.
        """
        if self.in_order:
            return True
        var owners = Column()  # of each copy its original, plus one
        if not owners.grow(4 * self.rows):
            return False
        var owner = owners.ptr[UInt32]()
        var next = self.next.ptr[UInt32]()
        for representative in range(self.rows):
            if not self.has_duplicates(representative):
                continue
            var last = self._after(representative)
            var copy = last
            for _ in range(self.rows):
                copy = self._after(copy)
                owner[unsafe_offset=copy] = UInt32(representative + 1)
                if copy == last:
                    break
            next[unsafe_offset=representative] = ALONE
        self.count = 0
        for row in range(self.rows):
            if owner[unsafe_offset=row] != 0:
                self.append(Int(owner[unsafe_offset=row]) - 1, row)
        _ = owners^
        self.in_order = True
        return True

    def representative(mut self, stored: Rows, row: Int) -> Int:
        """Looks up a row that is not in the table.

        Args:
            stored: The rows.
            row: The row.

        Returns:
            The row in the table that holds the same; or -1, and then this one was put into it; or NO_ROOM.
        """
        return self.representative(stored, row, hash_row(stored, row))

    def representative(mut self, stored: Rows, row: Int, hash: UInt32) -> Int:
        """Looks up a row whose `hash_row` is known already."""
        self.seen = max(self.seen, row + 1)
        return self._put(stored, row, hash)

    def _put(mut self, stored: Rows, row: Int, hash: UInt32) -> Int:
        """Does what `representative` does, but that the row need not count as `seen`."""
        if not self.make_room(self.held + 1):
            return NO_ROOM
        var place = self._home(hash)
        while True:
            var other = self.table[unsafe_offset=place]
            if other == FREE:
                self.table[unsafe_offset=place] = UInt64(hash) << 32 | UInt64(row)
                self.held += 1
                return -1
            if hash_of(other) == hash and same_row(stored, row_in(other), row):
                return row_in(other)
            place = (place + 1) & (self.room - 1)

    def catch_up(mut self, stored: Rows, rows: Int, states: Int) -> Bool:
        """Puts rows `seen` .. rows-1, already linked, into the table; of equal ones that are no copies the first, or the one
        that has copies: it has to be found through them. Returns False when memory is out; it can be tried again.
        """
        return self.insert_representatives(stored, self.seen, rows, states) and self.insert_rows(
            stored, rows, states
        )

    def insert_representatives(mut self, stored: Rows, first: Int, until: Int, states: Int) -> Bool:
        """Puts those of some rows into the table that have copies; first half of `catch_up`, which may be done again.
        """
        for row in range(first, min(until, self.rows)):
            if self.has_duplicates(row) and was_live(states, row):
                if self._put(stored, row, hash_row(stored, row)) == NO_ROOM:
                    return False
        return True

    def insert_rows(mut self, stored: Rows, until: Int, states: Int) -> Bool:
        """Puts rows `seen` .. until-1 into the table that have no copies and are none, once all originals are there that there
        will be; second half of `catch_up`.
        """
        for row in range(self.seen, until):
            if (
                not self.is_duplicate(row)
                and not self.has_duplicates(row)
                and was_live(states, row)
            ):
                if self._put(stored, row, hash_row(stored, row)) == NO_ROOM:
                    return False
        self.seen = max(self.seen, until)
        return True

    def forget(mut self, stored: Rows, row: Int):
        """Takes a row out of the table if it is there; those that it stood in the way of move up.
        """
        if self.room == 0:
            return
        var entry = UInt64(hash_row(stored, row)) << 32 | UInt64(row)
        var place = self._home(hash_of(entry))
        while self.table[unsafe_offset=place] != entry:
            if self.table[unsafe_offset=place] == FREE:
                return
            place = (place + 1) & (self.room - 1)
        self.held -= 1
        var hole = place
        while True:
            place = (place + 1) & (self.room - 1)
            var other = self.table[unsafe_offset=place]
            if other == FREE:
                break
            # a row may not move before its home
            var home = self._home(hash_of(other))
            if ((place - home) & (self.room - 1)) >= ((place - hole) & (self.room - 1)):
                self.table[unsafe_offset=hole] = other
                hole = place
        self.table[unsafe_offset=hole] = FREE

    def grow(mut self, rows: Int) -> Bool:
        """Makes room for rings among so many rows; returns False when memory is out."""
        if not self.next.grow(4 * rows):
            return False
        for row in range(self.rows, rows):
            self.next.ptr[UInt32]()[unsafe_offset=row] = ALONE
        store_release(self.rows, max(self.rows, rows))
        return True

    def append(mut self, representative: Int, row: Int):
        """Puts a row among the copies of another, which is in the table."""
        var next = self.next.ptr[UInt32]()
        var last = next[unsafe_offset=representative]
        if last == ALONE:
            next[unsafe_offset=row] = UInt32(row)
            publish(next.unsafe_offset(representative), row | Int(REPRESENTATIVE))
        else:
            # behind the last, or, in a place that was free, somewhere before
            var before = Int(last & ~REPRESENTATIVE)
            var new_last = row > before
            var after = Int(next[unsafe_offset=before])
            while not new_last and after < row:
                before = after
                after = Int(next[unsafe_offset=before])
            publish(next.unsafe_offset(row), after)
            publish(next.unsafe_offset(before), row)
            if new_last:
                publish(next.unsafe_offset(representative), row | Int(REPRESENTATIVE))
        store_release(self.count, self.count + 1)

    @always_inline
    def last_of(self, row: Int, rows: Int) -> Int:
        """Returns the last copy of an original among the first `rows` rows, or -1 if the row has no copies.
        """
        var last = UInt32(slot(self.next.ptr[UInt32](), row)) if row < rows else ALONE
        if last < REPRESENTATIVE or last == ALONE:
            return -1
        return min(Int(last & ~REPRESENTATIVE), rows - 1)

    @always_inline
    def first_of(self, last: Int, rows: Int) -> Int:
        """Returns the first copy of a ring whose last one is given; -1 if that is."""
        return min(slot(self.next.ptr[UInt32](), last), rows - 1) if last >= 0 else -1

    @always_inline
    def after(self, copy: Int, last: Int, rows: Int) -> Int:
        """Returns the copy that follows another in its ring, whose last one was given when the walk through it began; -1 at the end.

        A ring of a damaged file may have no end: count the steps where nobody has looked at it.
        """
        var next = min(slot(self.next.ptr[UInt32](), copy), rows - 1)
        return -1 if copy == last or (self.in_order and next <= copy) else next

    def known(self) -> Int:
        """Returns how many rows may be asked for copies; 0 if there are none at all."""
        return load_acquire(self.rows) if load_acquire(self.count) != 0 else 0

    def expand(self, found: Candidates, mut into: Candidates, k: Int, visible: Visibility):
        """Adds the copies of rows found.

        Args:
            found: Rows of the graph by distance.
            into: Receives the k nearest of these and their copies, equal distances in the order of rows.
            k: The most wanted.
            visible: Which of them the search sees.
        """
        into.reset(k)
        var room = load_acquire(self.rows)
        var steps = (
            room  # all rings together have no more, but those of a damaged file may have no end
        )
        for i in range(found.size):
            var entry = found.entries[unsafe_offset=i] & ~1
            if entry >= into.worst():
                break
            var row = node_of(entry)
            if visible.is_visible(row):
                into.insert(entry)
            var last = self.last_of(row, room)
            var copy = self.first_of(last, room)
            var left = k
            while copy >= 0 and left > 0 and steps > 0:
                point["at a copy"]()
                touches["at a copy"](copy)
                if visible.is_visible(copy):
                    left -= 1
                    var other = entry_of(key_of(entry), copy)
                    if other < into.worst():
                        into.insert(other)
                copy = self.after(copy, last, room)
                steps -= 1
        into.arrange()

    def sweep(self, visible: Visibility, mut beam: Candidates):
        """Takes rows that are not seen out of a beam that is done; originals stay, whose copies may be seen.
        """
        var kept = 0
        for i in range(beam.size):
            var entry = beam.entries[unsafe_offset=i]
            beam.entries[unsafe_offset=kept] = entry
            kept += Int(visible.is_visible(node_of(entry)) or self.has_duplicates(node_of(entry)))
        beam.size = kept

    def _home(self, hash: UInt32) -> Int:
        return Int(hash) & (self.room - 1)

    def make_room(mut self, rows: Int) -> Bool:
        """Makes room for so many rows in the table; returns False when memory is out."""
        if 2 * rows <= self.room:
            return True
        var room = max(64, 2 * self.room)
        while room < 2 * rows:
            room *= 2
        return self._resize(room)

    def shrink(mut self) -> Bool:
        """Gives back what of the table many copies have left free; returns False when memory is out.
        """
        if self.room <= 64 or 8 * self.held >= self.room:
            return True
        var room = 64
        while room < 2 * (self.held + 1):
            room *= 2
        return self._resize(room)

    def drop_table(mut self):
        """Forgets which rows hold what; `catch_up` finds it out again."""
        release(self.table)
        self.table = no_block[UInt64]()
        self.room = 0
        self.held = 0
        self.seen = 0

    def _resize(mut self, room: Int) -> Bool:
        var table = allocate[UInt64](room)
        if missing(table):
            return False
        var old = self.table
        var places = self.room
        self.room = room
        self.table = table
        for i in range(self.room):
            self.table[unsafe_offset=i] = FREE
        for i in range(places):
            var entry = old[unsafe_offset=i]
            if entry != FREE:
                var place = self._home(hash_of(entry))
                while self.table[unsafe_offset=place] != FREE:
                    place = (place + 1) & (self.room - 1)
                self.table[unsafe_offset=place] = entry
        release(old)
        return True


@always_inline
def hash_of(entry: UInt64) -> UInt32:
    """Returns the hash in an entry of the table."""
    return UInt32(entry >> 32)


@always_inline
def row_in(entry: UInt64) -> Int:
    """Returns the row in an entry of the table."""
    return Int(entry & 0xFFFFFFFF)
