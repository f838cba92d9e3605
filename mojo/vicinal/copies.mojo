"""Rows that hold the same bytes as an earlier one: kept out of the graph, in a ring behind that row.

Many equal rows linked like others fill each other's blocks and every beam that comes near, and seal themselves off. So
only the first of them, the *original*, is in the graph; a search that finds it gets the others with it.
"""
from std.ffi import c_int, external_call

from vicinal.candidates import Candidates, entry_of, key_of, node_of
from vicinal.graph import publish
from vicinal.marks import Sight, going, settled, staying
from vicinal.memory import Column, Ptr, allocate, at, release
from vicinal.shared import announce, seen, slot
from vicinal.space import Rows

comptime ALONE: UInt32 = 0xFFFFFFFF
"""The row has no copies and is none."""
comptime ORIGINAL: UInt32 = 0x80000000
"""Set where the row is the original; the rest is the row of its newest copy."""
comptime FREE: UInt32 = 0xFFFFFFFF
"""A place of the table that holds no row."""
comptime HASH_FACTOR: UInt64 = 0x9E3779B97F4A7C15
comptime HASH_LANES = 4


struct Copies(Movable):
    """The rings of copies, and a table that finds a row by what it holds.

    The newest copy leads to the oldest, each to the next newer; the original leads to the newest. Readers may walk a ring
    while a copy is added.
    """

    var next: Column
    """UInt32 for each row; no memory as long as there are no copies."""
    var rows: Int
    """Rows that `next` has values of."""
    var count: Int
    """Rows that are copies."""
    var table: Ptr[UInt32]
    """Open addressing with linear probing: rows that are no copies, or FREE."""
    var room: Int
    """Places in the table, a power of two, at least twice the rows held; 0 while there is no table."""
    var held: Int
    """Rows in the table."""
    var seen: Int
    """Rows 0 .. seen-1 are in the table unless they are copies."""

    def __init__(out self):
        """Knows no rows."""
        self.next = Column()
        self.rows = 0
        self.count = 0
        self.table = allocate[UInt32](1)
        self.room = 0
        self.held = 0
        self.seen = 0

    def __deinit__(deinit self):
        release(self.table)

    def bytes(self) -> Int:
        """Returns the bytes of memory taken."""
        return self.next.usable + 4 * self.room

    @always_inline
    def is_copy(self, row: Int) -> Bool:
        """Tells whether a row is a copy of an earlier one."""
        return row < self.rows and self.next.ptr[UInt32]()[unsafe_offset=row] < ORIGINAL

    @always_inline
    def has_copies(self, row: Int) -> Bool:
        """Tells whether a row is the original of others."""
        if row >= self.rows:
            return False
        var next = self.next.ptr[UInt32]()[unsafe_offset=row]
        return next >= ORIGINAL and next != ALONE

    def find(self, stored: Rows, row: Int) -> Int:
        """Returns the row in the table that holds the same as a row, which may be itself; -1 if there is none.
        """
        if self.room == 0:
            return -1
        var place = self._home(stored, row)
        while True:
            var other = self.table[unsafe_offset=place]
            if other == FREE:
                return -1
            if same_row(stored, Int(other), row):
                return Int(other)
            place = (place + 1) & (self.room - 1)

    @always_inline
    def _after(self, row: Int) -> Int:
        """Returns the row that a ring, or an original, leads to, whatever a damaged file says."""
        var next = self.next.ptr[UInt32]()[unsafe_offset=row]
        return min(Int(next & ~ORIGINAL), self.rows - 1)

    def stays(self, original: Int, marks: Int) -> Bool:
        """Tells whether a row has copies that are there and stay."""
        if not self.has_copies(original):
            return False
        var last = self._after(original)
        var copy = last
        for _ in range(self.rows):
            copy = self._after(copy)
            if staying(at[UInt8](marks)[unsafe_offset=copy]):
                return True
            if copy == last:
                break
        return False

    def shorten(mut self, original: Int, marks: Int):
        """Takes the copies that go out of the ring of a row; searches that are in the ring must be made to start again.
        """
        if not self.has_copies(original):
            return
        var next = self.next.ptr[UInt32]()
        var last = self._after(original)
        var copy = self._after(last)
        next[unsafe_offset=original] = ALONE
        for _ in range(self.rows):
            var ended = copy == last
            var after = self._after(copy)
            next[unsafe_offset=copy] = ALONE
            self.count -= 1
            if not going(at[UInt8](marks)[unsafe_offset=copy]):
                self.append(original, copy)
            if ended:
                break
            copy = after

    def original(mut self, stored: Rows, row: Int) -> Int:
        """Looks up a row that is not in the table.

        Args:
            stored: The rows.
            row: The row.

        Returns:
            The row in the table that holds the same; or -1, and then this one was put into it.
        """
        self._make_room(stored, self.held + 1)
        self.seen = max(self.seen, row + 1)
        var place = self._home(stored, row)
        while True:
            var other = self.table[unsafe_offset=place]
            if other == FREE:
                self.table[unsafe_offset=place] = UInt32(row)
                self.held += 1
                return -1
            if same_row(stored, Int(other), row):
                return Int(other)
            place = (place + 1) & (self.room - 1)

    def catch_up(mut self, stored: Rows, rows: Int, marks: Int):
        """Puts rows `seen` .. rows-1, already linked, into the table; of equal ones that are no copies the first.
        """
        for row in range(self.seen, rows):
            if self.is_copy(row) or not settled(marks, row):
                self.seen = row + 1
            else:
                _ = self.original(stored, row)

    def forget(mut self, stored: Rows, row: Int):
        """Takes a row out of the table if it is there; those that it stood in the way of move up.
        """
        if self.room == 0:
            return
        var place = self._home(stored, row)
        while self.table[unsafe_offset=place] != UInt32(row):
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
            var home = self._home(stored, Int(other))
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
        announce(self.rows, max(self.rows, rows))
        return True

    def append(mut self, original: Int, row: Int):
        """Makes a row the newest copy of another, which is in the table."""
        var next = self.next.ptr[UInt32]()
        var newest = next[unsafe_offset=original]
        if newest == ALONE:
            next[unsafe_offset=row] = UInt32(row)
        else:
            var last = Int(newest & ~ORIGINAL)
            next[unsafe_offset=row] = next[unsafe_offset=last]
            publish(next.unsafe_offset(last), row)
        publish(next.unsafe_offset(original), row | Int(ORIGINAL))
        announce(self.count, self.count + 1)

    @always_inline
    def newest_of(self, row: Int, rows: Int) -> Int:
        """Returns the newest copy of an original among the first `rows` rows, or -1 if the row has no copies.
        """
        var newest = self.next.ptr[UInt32]()[unsafe_offset=row] if row < rows else ALONE
        if newest < ORIGINAL or newest == ALONE:
            return -1
        return min(Int(newest & ~ORIGINAL), rows - 1)

    @always_inline
    def after(self, copy: Int, rows: Int) -> Int:
        """Returns the copy that follows another in its ring: the next newer, or the oldest after the newest.
        """
        return min(Int(self.next.ptr[UInt32]()[unsafe_offset=copy]), rows - 1)

    def known(self, rows: Int) -> Int:
        """Returns how many of `rows` rows may be asked for copies; 0 if there are none at all."""
        return min(rows, self.rows) if self.count != 0 else 0

    def expand(self, found: Candidates, mut into: Candidates, k: Int, rows: Int, sight: Sight):
        """Adds the copies of rows found.

        Args:
            found: Rows of the graph by distance.
            into: Receives the k nearest of these and their copies, equal distances in the order of rows.
            k: The most wanted.
            rows: Rows that exist; a damaged file may tell of others.
            sight: Which of them the search sees.
        """
        into.reset(k)
        var next = self.next.ptr[UInt32]()
        var room = min(rows, seen(self.rows))
        for i in range(found.size):
            var entry = found.entries[unsafe_offset=i] & ~1
            if entry >= into.worst():
                break
            var row = node_of(entry)
            if sight.sees(row):
                into.insert(entry)
            if row >= room:
                continue
            var newest = UInt32(slot(next, row))
            if newest < ORIGINAL or newest == ALONE:
                continue
            var last = min(Int(newest & ~ORIGINAL), room - 1)
            var copy = last
            var left = k
            for _ in range(room):  # a damaged ring may have no end
                copy = min(slot(next, copy), room - 1)
                if sight.sees(copy):
                    left -= 1
                    var other = entry_of(key_of(entry), copy)
                    if other < into.worst():
                        into.insert(other)
                if left == 0:
                    break
                if copy == last:
                    break
        into.arrange()

    def sweep(self, sight: Sight, mut beam: Candidates):
        """Takes rows that are not seen out of a beam that is done; originals stay, whose copies may be seen.
        """
        var kept = 0
        for i in range(beam.size):
            var entry = beam.entries[unsafe_offset=i]
            beam.entries[unsafe_offset=kept] = entry
            kept += Int(sight.sees(node_of(entry)) or self.has_copies(node_of(entry)))
        beam.size = kept

    def _home(self, stored: Rows, row: Int) -> Int:
        return Int(hash_row(stored, row)) & (self.room - 1)

    def _make_room(mut self, stored: Rows, rows: Int):
        if 2 * rows <= self.room:
            return
        var old = self.table
        var places = self.room
        self.room = max(64, 2 * self.room)
        self.table = allocate[UInt32](self.room)
        for i in range(self.room):
            self.table[unsafe_offset=i] = FREE
        for i in range(places):
            var row = old[unsafe_offset=i]
            if row != FREE:
                var place = self._home(stored, Int(row))
                while self.table[unsafe_offset=place] != FREE:
                    place = (place + 1) & (self.room - 1)
                self.table[unsafe_offset=place] = row
        release(old)


@always_inline
def same_row(stored: Rows, a: Int, b: Int) -> Bool:
    """Tells whether two stored rows hold the same bytes."""
    return (
        external_call["memcmp", c_int](
            stored.base + a * stored.stride, stored.base + b * stored.stride, stored.stride
        )
        == 0
    )


def hash_row(stored: Rows, row: Int) -> UInt64:
    """Returns a hash of the bytes of a row: words multiplied and mixed, several chains side by side.
    """
    var words = at[UInt64](stored.base + row * stored.stride)
    var state = SIMD[DType.uint64, HASH_LANES](1, 2, 3, 4) * HASH_FACTOR
    var count = stored.stride // 8
    var i = 0
    while i + HASH_LANES <= count:
        state = (state ^ words.unsafe_load[width=HASH_LANES](i)) * HASH_FACTOR
        state ^= state >> 29
        i += HASH_LANES
    var sum = UInt64(0)
    comptime for lane in range(HASH_LANES):
        sum = (sum ^ state[lane]) * HASH_FACTOR
        sum ^= sum >> 31
    var bytes = at[UInt8](stored.base + row * stored.stride)
    for j in range(8 * i, stored.stride):
        sum = (sum ^ bytes[unsafe_offset=j].cast[DType.uint64]()) * HASH_FACTOR
        sum ^= sum >> 32
    return sum
