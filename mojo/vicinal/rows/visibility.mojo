"""Which rows there are, and which a search sees: a state for each row, and a stamp that says from and to which version it is seen.

Rows never move, since searches hold their numbers. A removed row is first *pending*: no search shows it, but walks still pass
through it. When many are pending their links are taken out and they are *free*: without links or content, to be used again.

A change takes effect at one moment, when `moment` is written: the version, which goes up by one, and the rows that there are.
A search reads it when it begins and sees the rows that were there at that version, whatever happens meanwhile: all rows of an
addition or none, of a vector that is replaced the old one or the new one, never both and never neither, and nobody waits for
anybody. What a row holds does not change as long as a search sees it: `update/consolidate.mojo` frees rows only once no older
search is left.
"""
from std.atomic import Atomic, Ordering, fence

from vicinal.rows.row_states import BLOCK, FREE, LIVE
from vicinal.system.atomics import load_acquire
from vicinal.system.memory import Column, Ptr, at
from vicinal.system.point import point

comptime NEVER_VISIBLE: UInt64 = 0xFFFFFFFF
"""The stamp of a row that no search sees."""
comptime RENEW: UInt32 = 1 << 31
"""Version at which all stamps are renewed, long before 32 bits are used up."""
comptime VERSION_BITS: UInt64 = 32
comptime MOST_EXTRA = 32
"""Most places that a walk adds to its beam at once for rows that it may meet but not show."""


@always_inline
def stamp_of(born: UInt32, died: UInt32) -> UInt64:
    """Makes the stamp of a row seen from version `born` on and before version `died`; zero is a row seen always.
    """
    return UInt64(born) << 32 | UInt64(~died)


@fieldwise_init
struct Visibility(TrivialRegisterPassable):
    """Which rows a search sees: those that were there at one version of the index."""

    var states: Int
    """Address of the states; 0 if all rows were live at that version."""
    var stamps: Int
    """Address of the stamps; 0 for an index that cannot be changed, which has states only."""
    var version: UInt32
    """The version."""
    var bound: Int
    """Rows that there were at that version, removed ones included."""

    @staticmethod
    def of_all(rows: Int) -> Visibility:
        """Makes one that sees every row of an index that is not changed."""
        return Visibility(0, 0, 0, rows)

    @always_inline
    def is_visible(self, row: Int) -> Bool:
        """Tells whether the search sees a row."""
        if row >= self.bound:
            return False
        if self.states == 0:
            return True
        if self.stamps == 0:
            return at[UInt8](self.states)[unsafe_offset=row] == LIVE
        var stamp = Atomic[UInt64].load[ordering=Ordering.RELAXED](
            at[UInt64](self.stamps).unsafe_offset(row).start
        )
        return UInt32(stamp >> 32) <= self.version and self.version < ~UInt32(stamp & NEVER_VISIBLE)

    def none_of(self, begin: Int, end: Int) -> Bool:
        """Tells whether rows begin .. end-1 are all free, so that none needs a look."""
        if self.states == 0:
            return False
        var states = at[UInt8](self.states)
        var row = begin
        while row + BLOCK <= end:
            if (
                not states.unsafe_load[width=BLOCK](row)
                .eq(SIMD[DType.uint8, BLOCK](FREE))
                .reduce_and()
            ):
                return False
            row += BLOCK
        while row < end:
            if states[unsafe_offset=row] != FREE:
                return False
            row += 1
        return True


struct RowStates(Movable):
    """States and stamps of all rows, and how many rows are in each state; nothing at all until something is removed.
    """

    var bytes: Column
    """A mark for each row; what of it a file holds is LIVE, PENDING, FREE or HOLDING."""
    var stamps: Column
    """A stamp for each row; made by the first change, never in a file."""
    var version: UInt32
    """Changes that took effect since stamps were renewed; the writer's, searches read `moment`."""
    var moment: UInt64
    """The version and, in the lower 32 bits, the rows that there were then, removed ones included."""
    var live: Array[Int64, 2]
    """Rows that are there at an even and at an odd version, the last of each kind."""
    var in_use: Bool
    """Whether any row was ever in another state than LIVE; searches look no further if not."""
    var removed: Int
    """Rows that are not there: pending, free or anchors."""
    var pending: Int
    """Rows pending."""
    var holding: Int
    """Removed rows that stay in the graph for their duplicates."""
    var shaded: Int
    """Rows that a walk may meet but not show: removed ones that are linked still, anchors, and those being written."""
    var lowest_free: Int
    """No row before it is free."""

    def __init__(out self):
        """Starts with all rows live."""
        self.bytes = Column()
        self.stamps = Column()
        self.version = 0
        self.moment = 0
        self.live = Array[Int64, 2](fill=0)
        self.in_use = False
        self.removed = 0
        self.pending = 0
        self.holding = 0
        self.shaded = 0
        self.lowest_free = 0

    def prepare(mut self, rows: Int, known: Int) -> Bool:
        """Makes states and stamps for `rows` rows, of which the first `known` may have states; returns False when memory is out.
        """
        if not self.bytes.grow(rows):
            return False
        if self.stamps.address != 0:
            return self.stamps.grow(rows * 8)
        var stamps = Column()
        if not stamps.grow(rows * 8):
            return False
        for row in range(known if self.removed != 0 else 0):
            if self.of(row) != LIVE:
                stamps.ptr[UInt64]()[unsafe_offset=row] = NEVER_VISIBLE
        self.stamps = stamps^
        point["marks come into use"]()
        fence[Ordering.RELEASE]()  # searches use both from the moment they are in use
        Atomic[UInt8].store[ordering=Ordering.RELEASE](self._in_use().start, 1)
        return True

    @always_inline
    def of(self, row: Int) -> UInt8:
        """Returns the state of a row."""
        return self.bytes.ptr[UInt8]()[unsafe_offset=row]

    @always_inline
    def set(self, row: Int, mark: UInt8):
        """Sets the state of a row; searches may be reading it."""
        Atomic[UInt8].store[ordering=Ordering.RELAXED](
            self.bytes.ptr[UInt8]().unsafe_offset(row).start, mark
        )

    @always_inline
    def stamp(self, row: Int, stamp: UInt64):
        """Stamps a row."""
        point["stamp a row"]()
        Atomic[UInt64].store[ordering=Ordering.RELEASE](
            self.stamps.ptr[UInt64]().unsafe_offset(row).start, stamp
        )

    @always_inline
    def end_at(self, row: Int, died: UInt32):
        """Stamps a row to be seen until a version, from where it was seen before."""
        var stamp = self.stamps.ptr[UInt64]()[unsafe_offset=row]
        self.stamp(row, stamp_of(UInt32(stamp >> 32), died))

    @always_inline
    def address(self) -> Int:
        """Returns the address of the states, 0 if all rows are live."""
        return self.bytes.address if self.in_use else 0

    @always_inline
    def _in_use(self) -> Ptr[UInt8]:
        return (
            Pointer(to=self.in_use)
            .unsafe_mut_cast[True]()
            .unsafe_bitcast[UInt8]()
            .unsafe_origin_cast[MutUntrackedOrigin]()
        )

    @always_inline
    def now(self) -> UInt64:
        """Returns the version and the rows that a search which begins now sees."""
        point["read the moment"]()
        return Atomic[UInt64].load[ordering=Ordering.ACQUIRE](
            Pointer(to=self.moment).unsafe_mut_cast[True]().unsafe_origin_cast[MutUntrackedOrigin]()
        )

    @always_inline
    def live_at(self, moment: UInt64) -> Int:
        """Returns how many rows were there at a moment that was not over before this call; ask `now` again to be sure.
        """
        point["read the number of rows"]()
        return Int(
            Atomic[Int64].load[ordering=Ordering.ACQUIRE](
                Pointer(to=self.live)
                .unsafe_mut_cast[True]()
                .unsafe_bitcast[Int64]()
                .unsafe_origin_cast[MutUntrackedOrigin]()
                .unsafe_offset(Int((moment >> VERSION_BITS) & 1))
            )
        )

    @always_inline
    def visibility(self, moment: UInt64) -> Visibility:
        """Returns what a search that began at a moment sees.

        States that came into use since hide nothing from it: rows that go have stamps that it is older than.
        """
        var bound = Int(moment & NEVER_VISIBLE)
        point["look for marks"]()
        if Atomic[UInt8].load[ordering=Ordering.ACQUIRE](self._in_use().start) == 0:
            return Visibility.of_all(bound)
        return Visibility(
            load_acquire(self.bytes.address),
            load_acquire(self.stamps.address),
            UInt32(moment >> VERSION_BITS),
            bound,
        )

    @always_inline
    def present(self) -> Visibility:
        """Returns which rows are there now; for writers and those who hold the GIL, beside whom nothing takes effect.
        """
        return self.visibility(self.now())

    def publish(mut self, version: UInt32, count: Int):
        """Makes a change take effect: searches that begin from now on see `count` rows but for those removed.
        """
        self.version = version
        point["write the number of rows"]()
        Atomic[Int64].store[ordering=Ordering.RELEASE](
            Pointer(to=self.live)
            .unsafe_bitcast[Int64]()
            .unsafe_origin_cast[MutUntrackedOrigin]()
            .unsafe_offset(Int(version & 1)),
            Int64(count - self.removed),
        )
        point["write the moment"]()
        Atomic[UInt64].store[ordering=Ordering.SEQUENTIAL](
            Pointer(to=self.moment), UInt64(version) << VERSION_BITS | UInt64(count)
        )

    @always_inline
    def extra_width(self) -> Int:
        """Returns the places that a walk adds to its beam."""
        return min(load_acquire(self.shaded), MOST_EXTRA)

    def free(self) -> Int:
        """Returns how many rows are free."""
        return self.removed - self.pending - self.holding

    def next_free(mut self, begin: Int) -> Int:
        """Returns the first free row from `begin` on; there must be one."""
        var row = begin
        while self.of(row) != FREE:
            row += 1
        return row

    def version_due(self) -> Bool:
        """Tells whether versions must begin anew before the next change."""
        return self.version >= RENEW

    def renew(mut self, count: Int):
        """Makes stamps that do not depend on the version, and starts again to count versions.

        Safety:
            No search that is older than the last change may be under way, and none that began before this call when the next
            change takes effect.
        """
        for row in range(count if self.in_use else 0):
            self.stamp(row, 0 if self.of(row) == LIVE else NEVER_VISIBLE)
        self.publish(1, count)
