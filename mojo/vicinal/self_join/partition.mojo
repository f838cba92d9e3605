"""Groups of rows that lie near one centre, each row in the groups of its nearest centres: who is near whom is in one group with it, mostly.

Centres are the means of a few rounds of Lloyd's k-means over a sample, codes themselves, so all sums are exact and the groups do
not depend on the workers.
"""
from vicinal.exact.tile import PANEL_QUERIES, PANEL_ROWS
from vicinal.kernels.products import W
from vicinal.kernels.space import KEY_MAX
from vicinal.self_join.codes import Codes
from vicinal.self_join.tiles import RowPanel, pack, packed_words, panels_of
from vicinal.system.array import GrowableArray
from vicinal.system.hash import mix
from vicinal.system.memory import Ptr, allocate, allocate_zeroed, missing, no_block, release
from vicinal.system.outcome import DONE, NO_MEMORY, STOPPED, Outcome
from vicinal.system.parallel import Body, Team, Watch

comptime MOST_OVERLAP = 4
"""Groups that a row may be in."""
comptime SAMPLED = 32
"""Rows of the sample for each centre."""
comptime ROUNDS = 2
"""Times that centres are moved."""
comptime LARGEST = 4
"""A group of more than so many times the size wanted, as of rows that are all equal, is cut up in the order of rows."""
comptime PIECE = 4 * PANEL_ROWS
comptime MOST_ROWS = 1 << 29
"""Where a group begins fits 32 bits for so many rows."""
comptime Homes = SIMD[DType.uint32, MOST_OVERLAP]
comptime NOWHERE: UInt32 = 0xFFFFFFFF
comptime Lanes = SIMD[DType.int32, W]


@fieldwise_init
struct FindCentres(Body):
    """Finds the nearest centres of rows."""

    var codes: Ptr[Codes]
    var rows: Ptr[UInt32]
    var centres: Ptr[Codes]
    var packed: Ptr[Int32]
    """All centres."""
    var overlap: Int
    """How many of each row."""
    var panels: Ptr[RowPanel]
    """One for each worker."""
    var nearest: Ptr[UInt32]
    """Receives `overlap` of each row, nearest first, equal ones in their order."""

    def run(self, begin: Int, end: Int, worker: Int):
        """Finds those of rows begin .. end-1 of the list."""
        ref panel = self.panels[unsafe_offset=worker]
        for first in range(begin, end, PANEL_ROWS):
            var here = min(PANEL_ROWS, end - first)
            panel.load(self.codes[], self.rows.unsafe_offset(first), here)
            self.find(panel, first, here)

    def find(self, panel: RowPanel, first: Int, here: Int):
        """Compares a panel with all centres."""
        var count = self.centres[].count
        var panels = panels_of(count)
        var keys = Array[Lanes, 2 * MOST_OVERLAP](fill=Lanes(KEY_MAX))
        var numbers = Array[Lanes, 2 * MOST_OVERLAP](fill=Lanes(0))
        for p in range(panels):
            panel.meet(self.packed, panels, p)
            for i in range(min(PANEL_QUERIES, count - p * PANEL_QUERIES)):
                var centre = p * PANEL_QUERIES + i
                var raised = Lanes(self.centres[].raised[unsafe_offset=centre])
                comptime for half in range(2):
                    var key = raised - 2 * panel.sums.unsafe_load[width=W](
                        i * PANEL_ROWS + half * W
                    )
                    if key.lt(keys[half * MOST_OVERLAP + self.overlap - 1]).reduce_or():
                        var number = Lanes(Int32(centre))
                        for level in range(self.overlap):
                            var at = half * MOST_OVERLAP + level
                            var here_ = keys[at]
                            var its = numbers[at]
                            var less = key.lt(here_)
                            keys[at] = less.select(key, here_)
                            numbers[at] = less.select(number, its)
                            key = less.select(here_, key)
                            number = less.select(its, number)
        for i in range(here):
            for level in range(self.overlap):
                self.nearest[unsafe_offset=(first + i) * self.overlap + level] = UInt32(
                    numbers[(i // W) * MOST_OVERLAP + level][i % W]
                )


struct Partition(Movable):
    """Groups, and all rows in an order in which near ones mostly follow each other."""

    var order: Ptr[UInt32]
    """All rows, those of one nearest centre together."""
    var members: Ptr[UInt32]
    """The rows of all groups."""
    var homes: Ptr[Homes]
    """Of each row where the groups that it is in begin."""
    var groups: GrowableArray
    """Of each group where its rows begin and their number, the largest groups first."""

    def __init__(out self):
        """Makes one without groups."""
        self.order = no_block[UInt32]()
        self.members = no_block[UInt32]()
        self.homes = no_block[Homes]()
        self.groups = GrowableArray()

    def __deinit__(deinit self):
        release(self.order)
        release(self.members)
        release(self.homes)

    def count(self) -> Int:
        """Returns the number of groups."""
        return self.groups.size

    @always_inline
    def home(self, group: Int) -> Int:
        """Returns where a group begins."""
        return Int(self.groups.at(group)[] & 0xFFFFFFFFFF)

    @always_inline
    def begin(self, group: Int) -> Ptr[UInt32]:
        """Returns the rows of a group."""
        return self.members.unsafe_offset(self.home(group))

    @always_inline
    def meet_at(self, a: Int, b: Int) -> Int:
        """Returns where the first group begins that two rows are both in; NOWHERE if there is none.
        """
        var mine = self.homes[unsafe_offset=a]
        var its = self.homes[unsafe_offset=b]
        var least = Homes(NOWHERE)
        comptime for i in range(MOST_OVERLAP):
            least = min(least, mine.eq(Homes(its[i])).select(mine, Homes(NOWHERE)))
        return Int(least.reduce_min())

    @always_inline
    def size(self, group: Int) -> Int:
        """Returns the number of rows of a group."""
        return SIZES - Int(self.groups.at(group)[] >> 40)

    def largest(self) -> Int:
        """Returns the size of the largest group."""
        return self.size(0) if self.groups.size != 0 else 0

    def make[
        V: Watch
    ](
        mut self,
        codes: Ptr[Codes],
        wanted: Int,
        overlap: Int,
        seed: Int,
        team: Team,
        mut watch: V,
    ) -> Outcome:
        """Makes the groups.

        Args:
            codes: The rows.
            wanted: Rows that a group should have.
            overlap: Groups that each row should be in, 1 to MOST_OVERLAP.
            seed: Chooses the sample, and the rows that are the first centres.
            team: Workers; the groups do not depend on them.
            watch: May end it early.

        Returns:
            DONE, STOPPED or NO_MEMORY.
        """
        var n = codes[].count
        var dim = codes[].dim
        var count = 1 if n <= wanted else max(1, n * overlap // max(wanted, 1))
        var each = min(overlap, count)
        var sampled = min(n, SAMPLED * count)
        var centres = Codes(count, dim, False)
        var packed = allocate_zeroed[Int32](packed_words(count, dim))
        var rows = allocate[UInt32](n)
        var nearest = allocate[UInt32](n * each)
        var sums = allocate[Int32](count * centres.stride)
        var sizes = allocate[Int](count + 1)
        var panels = allocate[RowPanel](team.size())
        var made = 0
        var status = NO_MEMORY
        var there = not (
            centres.failed
            or missing(packed)
            or missing(rows)
            or missing(nearest)
            or missing(sums)
            or missing(sizes)
            or missing(panels)
        )
        if there:
            for w in range(team.size()):
                var panel = RowPanel(dim, codes[].stride)
                there = there and not panel.failed
                panels.unsafe_offset(w).unsafe_write(panel^)
                made += 1
        if there:
            status = DONE
            for s in range(sampled):
                var from_ = s * n // sampled
                var gap = (s + 1) * n // sampled - from_
                rows[unsafe_offset=s] = UInt32(from_ + Int(mix(seed, s) % UInt64(gap)))
            for c in range(count):
                var first = c * sampled // count
                var of = (c + 1) * sampled // count - first
                var chosen = first + Int(mix(seed, n + c) % UInt64(of))
                copy_code(codes[], Int(rows[unsafe_offset=chosen]), centres, c)
            var find = FindCentres(
                codes,
                rows,
                Pointer(to=centres).unsafe_origin_cast[MutUntrackedOrigin](),
                packed,
                1,
                panels,
                nearest,
            )
            for _ in range(ROUNDS if count > 1 else 0):
                pack_all(centres, packed)
                if not team.run(sampled, PIECE, find, watch):
                    status = STOPPED
                    break
                move(codes[], rows, sampled, nearest, sums, sizes, centres)
            if status == DONE:
                for row in range(n):
                    rows[unsafe_offset=row] = UInt32(row)
                pack_all(centres, packed)
                find.overlap = each
                if not team.run(n, PIECE, find, watch):
                    status = STOPPED
            if status == DONE and not self.gather(n, count, each, nearest, sizes, LARGEST * wanted):
                status = NO_MEMORY
        for w in range(made):
            panels.unsafe_offset(w).unsafe_deinit_pointee()
        release(panels)
        release(packed)
        release(rows)
        release(nearest)
        release(sums)
        release(sizes)
        _ = centres^
        return status

    def gather(
        mut self,
        n: Int,
        count: Int,
        each: Int,
        nearest: Ptr[UInt32],
        sizes: Ptr[Int],
        most: Int,
    ) -> Bool:
        """Lists the rows of each centre; returns False when memory is out."""
        if missing(self.order):
            self.order = allocate[UInt32](n)
        release(self.members)
        self.members = allocate[UInt32](n * each)
        self.groups = GrowableArray()
        if missing(self.homes):
            self.homes = allocate[Homes](n)
        if missing(self.order) or missing(self.members) or missing(self.homes):
            return False
        for row in range(n):
            self.homes[unsafe_offset=row] = Homes(NOWHERE)
        _sort(n, 1, each, nearest, count, sizes, self.order)
        _sort(n, each, each, nearest, count, sizes, self.members)
        var begin = 0
        for c in range(count):
            var end = sizes[unsafe_offset=c]  # where the last was put, and with it the next begins
            var parts = (end - begin + most - 1) // max(most, 1)
            for p in range(parts):
                var from_ = begin + p * (end - begin) // parts
                var until = begin + (p + 1) * (end - begin) // parts
                for i in range(from_, until):
                    self.enter(Int(self.members[unsafe_offset=i]), from_)
                if until - from_ > 1:
                    self.groups.push((Int64(SIZES - (until - from_)) << 40) | Int64(from_))
            begin = end
        self.groups.sort()
        return not self.groups.full

    @always_inline
    def enter(self, row: Int, home: Int):
        """Notes that a row is in a group; one that is in fewer than others is in its last several times.
        """
        var homes = self.homes[unsafe_offset=row]
        var free = False
        comptime for i in range(MOST_OVERLAP):
            free = free or homes[i] == NOWHERE or (i > 0 and homes[i] == homes[i - 1])
            if free:
                homes[i] = UInt32(home)
        self.homes[unsafe_offset=row] = homes


comptime SIZES = (1 << 23) - 1
"""A group's entry holds what its size lacks of it, then where it begins: sorted, the largest come first."""


def _sort(
    n: Int,
    used: Int,
    each: Int,
    nearest: Ptr[UInt32],
    count: Int,
    sizes: Ptr[Int],
    sorted: Ptr[UInt32],
):
    """Sorts rows by the first `used` of their `each` centres, in the order of rows; leaves in `sizes` where those of each end.
    """
    for c in range(count + 1):
        sizes[unsafe_offset=c] = 0
    for row in range(n):
        for level in range(used):
            sizes[unsafe_offset=Int(nearest[unsafe_offset=row * each + level])] += 1
    var before = 0
    for c in range(count):
        var here = sizes[unsafe_offset=c]
        sizes[unsafe_offset=c] = before
        before += here
    for row in range(n):
        for level in range(used):
            var c = Int(nearest[unsafe_offset=row * each + level])
            sorted[unsafe_offset=sizes[unsafe_offset=c]] = UInt32(row)
            sizes[unsafe_offset=c] += 1


def copy_code(codes: Codes, row: Int, centres: Codes, centre: Int):
    """Makes the code of a row a centre."""
    for i in range(codes.stride):
        centres.row(centre)[unsafe_offset=i] = codes.row(row)[unsafe_offset=i]
    centres.finish(centre)


def pack_all(centres: Codes, packed: Ptr[Int32]):
    """Packs all centres."""
    var panels = panels_of(centres.count)
    for c in range(centres.count):
        pack(centres.row(c), centres.dim, c, panels, packed)


def move(
    codes: Codes,
    rows: Ptr[UInt32],
    count: Int,
    nearest: Ptr[UInt32],
    sums: Ptr[Int32],
    sizes: Ptr[Int],
    centres: Codes,
):
    """Moves each centre to the mean of its rows, rounded; one without rows stays."""
    comptime N = 2 * W
    var stride = codes.stride
    for c in range(centres.count):
        sizes[unsafe_offset=c] = 0
    for i in range(centres.count * stride):
        sums[unsafe_offset=i] = 0
    for s in range(count):
        var c = Int(nearest[unsafe_offset=s])
        var code = codes.row(Int(rows[unsafe_offset=s]))
        var sum = sums.unsafe_offset(c * stride)
        sizes[unsafe_offset=c] += 1
        for i in range(0, stride, N):
            sum.unsafe_store(
                i,
                sum.unsafe_load[width=N](i) + code.unsafe_load[width=N](i).cast[DType.int32](),
            )
    for c in range(centres.count):
        var size = sizes[unsafe_offset=c]
        if size == 0:
            continue
        var centre = centres.row(c)
        for i in range(stride):
            # floor of the quotient plus a half: the same everywhere
            var doubled = 2 * Int(sums[unsafe_offset=c * stride + i]) + size
            centre[unsafe_offset=i] = Int8(doubled // (2 * size))
        centres.finish(c)
