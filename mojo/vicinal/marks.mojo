"""Which rows there are: a mark for each row that says what becomes of it, and a stamp that says which searches see it.

Rows never move, since searches hold their numbers. A removed row is first *pending*: no search shows it, but walks still pass
through it. When many are pending their links are taken out and they are *free*: without links or content, to be used again.

A call that removes or replaces rows takes effect at one moment, when `version` goes up by one. A search notes the version when
it begins and sees the rows that were there at that version, whatever happens meanwhile: of a vector that is replaced it finds
the old one or the new one, never both and never neither, and nobody waits for anybody.
"""
from std.atomic import Atomic, Ordering, fence

from vicinal.memory import Column, at
from vicinal.shared import seen

comptime LIVE: UInt8 = 0
comptime PENDING: UInt8 = 1
"""Removed, but still linked."""
comptime FREE: UInt8 = 2
"""Removed, without links and content."""
comptime LEAVING: UInt8 = 3
"""Being removed by the call under way; there until it takes effect."""
comptime COMING: UInt8 = 4
"""Being written by the call under way; not there until it takes effect."""
comptime HOLDING: UInt8 = 5
"""Removed, but in the graph for good: copies of the row are there, and are found through it."""
comptime HIDDEN: UInt64 = 0xFFFFFFFF
"""The stamp of a row that no search sees."""
comptime RENEW: UInt32 = 1 << 31
"""Version at which all stamps are renewed, long before 32 bits are used up."""
comptime BLOCK = 64
"""Marks looked at together."""
comptime MOST_EXTRA = 32
"""Most places that a walk adds to its beam at once for rows that it may meet but not show."""


@always_inline
def stamp_of(born: UInt32, died: UInt32) -> UInt64:
    """Makes the stamp of a row seen from version `born` on and before version `died`; zero is a row seen always.
    """
    return UInt64(born) << 32 | UInt64(~died)


@always_inline
def going(mark: UInt8) -> Bool:
    """Tells whether a row has links that are to be taken out."""
    return mark == PENDING or mark == LEAVING


@always_inline
def staying(mark: UInt8) -> Bool:
    """Tells whether a row takes part after the call under way, so that it must be reachable."""
    return mark == LIVE or mark == COMING or mark == HOLDING


@always_inline
def settled(marks: Int, row: Int) -> Bool:
    """Tells whether a row takes part and did so before the call under way; `marks` is 0 if all do.
    """
    if marks == 0:
        return True
    var mark = at[UInt8](marks)[unsafe_offset=row]
    return mark == LIVE or mark == HOLDING


@always_inline
def stays(marks: Int, row: Int) -> Bool:
    """Tells whether a row takes part and stays, so that it must be reachable; `marks` is 0 if all do.
    """
    return marks == 0 or staying(at[UInt8](marks)[unsafe_offset=row])


@fieldwise_init
struct Sight(TrivialRegisterPassable):
    """What a search sees of the rows."""

    var marks: Int
    """Address of the marks; 0 if every row is seen."""
    var stamps: Int
    """Address of the stamps; 0 for an index that nobody has changed since it was opened, which has marks only."""
    var version: UInt32
    """The version when the search began."""

    @staticmethod
    def of_all() -> Sight:
        """Makes one that sees every row."""
        return Sight(0, 0, 0)

    @always_inline
    def sees(self, row: Int) -> Bool:
        """Tells whether the search sees a row."""
        if self.marks == 0:
            return True
        if self.stamps == 0:
            return at[UInt8](self.marks)[unsafe_offset=row] == LIVE
        var stamp = Atomic[UInt64].load[ordering=Ordering.RELAXED](
            at[UInt64](self.stamps).unsafe_offset(row)
        )
        return UInt32(stamp >> 32) <= self.version and self.version < ~UInt32(stamp & HIDDEN)

    def none_of(self, begin: Int, end: Int) -> Bool:
        """Tells whether rows begin .. end-1 are all free, so that none needs a look."""
        if self.marks == 0:
            return False
        var marks = at[UInt8](self.marks)
        var row = begin
        while row + BLOCK <= end:
            if (
                not marks.unsafe_load[width=BLOCK](row)
                .eq(SIMD[DType.uint8, BLOCK](FREE))
                .reduce_and()
            ):
                return False
            row += BLOCK
        while row < end:
            if marks[unsafe_offset=row] != FREE:
                return False
            row += 1
        return True


struct Marks(Movable):
    """Marks and stamps of all rows, and how many there are of each kind; nothing at all until something is removed.
    """

    var bytes: Column
    """A mark for each row; what of it a file holds is LIVE, PENDING, FREE or HOLDING."""
    var stamps: Column
    """A stamp for each row; made by the first change, never in a file."""
    var version: UInt32
    """Changes that took effect."""
    var in_use: Bool
    """Whether any row ever had a mark; searches look no further if not."""
    var removed: Int
    """Rows that are not there: pending, free or holding."""
    var pending: Int
    """Rows pending."""
    var holding: Int
    """Rows removed that hold a place for their copies."""
    var shaded: Int
    """Rows that a walk may meet but not show: those pending or holding, and those being written."""
    var lowest_free: Int
    """No row before it is free."""

    def __init__(out self):
        """Marks nothing."""
        self.bytes = Column()
        self.stamps = Column()
        self.version = 0
        self.in_use = False
        self.removed = 0
        self.pending = 0
        self.holding = 0
        self.shaded = 0
        self.lowest_free = 0

    def prepare(mut self, rows: Int, known: Int) -> Bool:
        """Makes marks and stamps for `rows` rows, of which `known` may be marked; returns False when memory is out.
        """
        if not self.bytes.grow(rows):
            return False
        if self.stamps.address != 0:
            return self.stamps.grow(rows * 8)
        var stamps = Column()
        if not stamps.grow(rows * 8):
            return False
        for row in range(known):
            stamps.ptr[UInt64]()[unsafe_offset=row] = 0 if self.of(row) == LIVE else HIDDEN
        fence[Ordering.RELEASE]()  # searches use them from the moment they are there
        self.stamps = stamps^
        fence[Ordering.RELEASE]()
        self.in_use = True
        return True

    @always_inline
    def of(self, row: Int) -> UInt8:
        """Returns the mark of a row."""
        return self.bytes.ptr[UInt8]()[unsafe_offset=row]

    @always_inline
    def set(self, row: Int, mark: UInt8):
        """Marks a row."""
        self.bytes.ptr[UInt8]()[unsafe_offset=row] = mark

    @always_inline
    def stamp(self, row: Int, stamp: UInt64):
        """Stamps a row."""
        Atomic[UInt64].store[ordering=Ordering.RELEASE](
            self.stamps.ptr[UInt64]().unsafe_offset(row), stamp
        )

    @always_inline
    def end_at(self, row: Int, died: UInt32):
        """Stamps a row to be seen until a version, from where it was seen before."""
        var stamp = self.stamps.ptr[UInt64]()[unsafe_offset=row]
        self.stamp(row, stamp_of(UInt32(stamp >> 32), died))

    @always_inline
    def address(self) -> Int:
        """Returns the address of the marks, 0 if no row is marked."""
        return self.bytes.address if self.in_use else 0

    @always_inline
    def now(self) -> UInt32:
        """Returns the version that a search which begins now sees."""
        return Atomic[UInt32].load[ordering=Ordering.ACQUIRE](Pointer(to=self.version))

    @always_inline
    def sight(self, version: UInt32) -> Sight:
        """Returns what a search that began at a version sees; to be asked after its last look at links.
        """
        fence[Ordering.ACQUIRE]()
        if not self.in_use:
            return Sight.of_all()
        return Sight(self.bytes.address, self.stamps.address, version)

    @always_inline
    def extra(self) -> Int:
        """Returns the places that a walk adds to its beam."""
        return min(seen(self.shaded), MOST_EXTRA)

    def free(self) -> Int:
        """Returns how many rows are free."""
        return self.removed - self.pending - self.holding

    def next_free(mut self, begin: Int) -> Int:
        """Returns the first free row from `begin` on; there must be one."""
        var row = begin
        while self.of(row) != FREE:
            row += 1
        return row

    def renew(mut self, count: Int):
        """Makes stamps that do not depend on the version, and starts again to count versions.

        Safety:
            Searches under way must be made to start again afterwards.
        """
        for row in range(count):
            self.stamp(row, 0 if self.of(row) == LIVE else HIDDEN)
        Atomic[UInt32].store[ordering=Ordering.RELEASE](Pointer(to=self.version), UInt32(1))
