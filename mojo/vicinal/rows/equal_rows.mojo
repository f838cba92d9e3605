"""Which of many new rows hold the same as others: found by all workers, with the result of looking one by one.

The table of rows is cut into regions. Rows whose search begins in one region belong to one worker, in the order of rows; so equal rows, which
have one hash, meet as they would one after the other. A row whose search leaves the region is looked up afterwards, by one
worker: an equal one can only have done the same.
"""
from std.atomic import Atomic, Ordering
from std.bit import count_trailing_zeros

from vicinal.kernels.space import Rows
from vicinal.rows.duplicates import FREE, Duplicates, hash_of, row_in
from vicinal.rows.row_states import stays
from vicinal.rows.row_targets import TargetRows
from vicinal.rows.same_bytes import hash_row, same_row
from vicinal.system.memory import Ptr, allocate, allocate_zeroed, missing, release
from vicinal.system.pages import PageUse
from vicinal.system.parallel import Body, Team, Watch

comptime MANY_ROWS = 1 << 14
"""Fewer rows are looked up one by one."""
comptime REGIONS = 256
comptime BLOCK = 1 << 13
"""Rows that a worker hashes at once."""
comptime HASHED = 1 << 20
"""Bytes of rows, about, that are hashed before their pages are given back."""
comptime COMPARED = 8
"""Pairs of rows, which lie anywhere, that are compared before that."""
comptime SINGLE: UInt32 = 0xFFFFFFFF
"""Answer: the row equals none, and is in the table."""
comptime BEYOND: UInt32 = 0xFFFFFFFE
"""Answer: not known, the row has to be looked up."""
comptime ABSENT: UInt32 = 0xFFFFFFFD
"""Answer: the row does not take part."""


@fieldwise_init
struct HashRows(Body):
    """Hashes rows and counts for each block those of each region."""

    var stored: Rows
    var pages: PageUse
    var until: Int
    """The rows that there will be."""
    var targets: TargetRows
    var states: Int
    var given: Ptr[UInt32]
    """Hashes, if they are known."""
    var hashes: Ptr[UInt32]
    var answers: Ptr[UInt32]
    var counts: Ptr[UInt32]
    var mask: Int
    var shift: Int

    def run(self, begin: Int, end: Int, worker: Int):
        """Does rows begin .. end-1, which are one block."""
        if not missing(self.given):
            self._count(begin, end)
            return
        var step = max(HASHED // self.stored.stride, 1)
        for first in range(begin, end, step):
            var last = min(first + step, end)
            var row = self.targets.row(first)
            self.pages.ask_for(
                self.stored.base, self.stored.stride, self.until, row, row + last - first
            )
            self._count(first, last)
            self.pages.have_read(self.stored.base, self.stored.stride, row, row + last - first)

    def _count(self, begin: Int, end: Int):
        var counts = self.counts.unsafe_offset(begin // BLOCK * REGIONS)
        for i in range(begin, end):
            var row = self.targets.row(i)
            if not stays(self.states, row):
                self.answers[unsafe_offset=i] = ABSENT
                continue
            var hash = self.given[unsafe_offset=i] if not missing(self.given) else hash_row(
                self.stored, row
            )
            self.hashes[unsafe_offset=i] = hash
            self.answers[unsafe_offset=i] = BEYOND
            counts[unsafe_offset=(Int(hash) & self.mask) >> self.shift] += 1


@fieldwise_init
struct SortByRegion(Body):
    """Puts the numbers of rows behind those of the same region that come before."""

    var answers: Ptr[UInt32]
    var hashes: Ptr[UInt32]
    var places: Ptr[UInt32]
    """For each block and region the place of the next."""
    var order: Ptr[UInt32]
    var mask: Int
    var shift: Int

    def run(self, begin: Int, end: Int, worker: Int):
        """Does rows begin .. end-1, which are one block."""
        var places = self.places.unsafe_offset(begin // BLOCK * REGIONS)
        for i in range(begin, end):
            if self.answers[unsafe_offset=i] == ABSENT:
                continue
            var region = (Int(self.hashes[unsafe_offset=i]) & self.mask) >> self.shift
            self.order[unsafe_offset=Int(places[unsafe_offset=region])] = UInt32(i)
            places[unsafe_offset=region] += 1


@fieldwise_init
struct LookUp(Body):
    """Looks up the rows of a region, and puts those into the table that equal none."""

    var stored: Rows
    var pages: PageUse
    var targets: TargetRows
    var hashes: Ptr[UInt32]
    var answers: Ptr[UInt32]
    var order: Ptr[UInt32]
    var starts: Ptr[UInt32]
    """For each region where its rows begin, and one past the last."""
    var table: Ptr[UInt64]
    var mask: Int
    var shift: Int
    var held: Ptr[Int64]

    def run(self, begin: Int, end: Int, worker: Int):
        """Does regions begin .. end-1."""
        var held = 0
        var compared = 0  # since pages were given back
        for region in range(begin, end):
            var behind = (region + 1) << self.shift
            for at in range(
                Int(self.starts[unsafe_offset=region]), Int(self.starts[unsafe_offset=region + 1])
            ):
                var i = Int(self.order[unsafe_offset=at])
                var row = self.targets.row(i)
                var hash = self.hashes[unsafe_offset=i]
                var place = Int(hash) & self.mask
                while place < behind:
                    var other = self.table[unsafe_offset=place]
                    if other == FREE:
                        self.table[unsafe_offset=place] = UInt64(hash) << 32 | UInt64(row)
                        self.answers[unsafe_offset=i] = SINGLE
                        held += 1
                        break
                    if hash_of(other) == hash:
                        if compared == COMPARED:
                            self.pages.give_back_all()
                            compared = 0
                        compared += 1
                        if same_row(self.stored, row_in(other), row):
                            self.answers[unsafe_offset=i] = UInt32(row_in(other))
                            break
                    place += 1
        self.pages.give_back_all()
        _ = Atomic[Int64].fetch_add[ordering=Ordering.RELAXED](self.held.start, Int64(held))


struct EqualRows(Movable):
    """What was found of each of some rows."""

    var answers: Ptr[UInt32]
    """For each a row that holds the same, or SINGLE, BEYOND or ABSENT."""
    var hashes: Ptr[UInt32]
    var order: Ptr[UInt32]
    var counts: Ptr[UInt32]
    var starts: Ptr[UInt32]
    var failed: Bool
    """Whether memory was refused."""
    var ended: Bool
    """Whether a watch ended the work. Then, and if it failed, the table may hold some of the rows."""

    def __init__[
        V: Watch
    ](
        out self,
        mut duplicates: Duplicates,
        stored: Rows,
        pages: PageUse,
        targets: TargetRows,
        count: Int,
        states: Int,
        given: Ptr[UInt32],
        team: Team,
        mut watch: V,
    ):
        """Puts rows into a table.

        Args:
            duplicates: The table; all rows that were there before are in it.
            stored: The rows.
            pages: What is done about their pages.
            targets: Which of them are new, in order.
            count: Their number.
            states: Address of the rows' states, 0 if none has any; rows that do not stay are left out.
            given: Hashes of the rows, if they are known.
            team: Workers; the result does not depend on them.
            watch: May end the work early.
        """
        var blocks = (count + BLOCK - 1) // BLOCK
        self.answers = allocate[UInt32](count)
        self.hashes = allocate[UInt32](count)
        self.order = allocate[UInt32](count)
        self.counts = allocate_zeroed[UInt32](blocks * REGIONS)
        self.starts = allocate[UInt32](REGIONS + 1)
        self.ended = False
        self.failed = (
            missing(self.answers)
            or missing(self.hashes)
            or missing(self.order)
            or missing(self.counts)
            or missing(self.starts)
            or not duplicates.make_room(duplicates.held + count)
        )
        if self.failed:
            return
        var mask = duplicates.room - 1
        var shift = Int(count_trailing_zeros(UInt64(duplicates.room // REGIONS)))
        var hash = HashRows(
            stored,
            pages,
            targets.row(count),
            targets,
            states,
            given,
            self.hashes,
            self.answers,
            self.counts,
            mask,
            shift,
        )
        if not team.run(count, BLOCK, hash, watch):
            self.ended = True
            return
        var before = UInt32(0)
        for region in range(REGIONS):
            self.starts[unsafe_offset=region] = before
            for block in range(blocks):
                var here = self.counts[unsafe_offset=block * REGIONS + region]
                self.counts[unsafe_offset=block * REGIONS + region] = before
                before += here
        self.starts[unsafe_offset=REGIONS] = before
        var sort = SortByRegion(self.answers, self.hashes, self.counts, self.order, mask, shift)
        if not team.run(count, BLOCK, sort, watch):
            self.ended = True
            return
        var held = Int64(0)
        var look_up = LookUp(
            stored,
            pages,
            targets,
            self.hashes,
            self.answers,
            self.order,
            self.starts,
            duplicates.table,
            mask,
            shift,
            Pointer(to=held).unsafe_origin_cast[MutUntrackedOrigin](),
        )
        self.ended = not team.run(REGIONS, 1, look_up, watch)
        duplicates.held += Int(held)

    def __deinit__(deinit self):
        release(self.answers)
        release(self.hashes)
        release(self.order)
        release(self.counts)
        release(self.starts)
