"""All pairs of the rows of a group."""
from std.atomic import Atomic
from std.bit import count_trailing_zeros
from std.memory import pack_bits

from vicinal.exact.scan import MASK
from vicinal.exact.tile import PANEL_QUERIES, PANEL_ROWS
from vicinal.kernels.candidates import entry_of
from vicinal.kernels.products import W
from vicinal.self_join.codes import Codes
from vicinal.self_join.nearest_lists import NearestLists, insert
from vicinal.self_join.partition import Partition
from vicinal.self_join.tiles import RowPanel, pack, packed_words, panels_of
from vicinal.system.memory import Ptr, allocate, allocate_zeroed, missing, release
from vicinal.system.parallel import Body
from vicinal.system.prefetch import prefetch_line

comptime AHEAD = 8
"""What belongs to a row is asked for so many rows before."""
comptime Lanes = SIMD[DType.int32, W]


struct GroupScratch(Movable):
    """What a worker needs for a group: the lists of its rows, too, which it has for itself meanwhile.
    """

    var panel: RowPanel
    var packed: Ptr[Int32]
    """All rows of the group."""
    var raised: Ptr[Int32]
    """Of each, see `Codes`; like `bounds` with room behind the last for a panel."""
    var bounds: Ptr[Int32]
    """Of each the largest key that its list may still want."""
    var lists: Ptr[Int64]
    var keys: Ptr[Int32]
    """Distances of one row to a panel."""
    var failed: Bool
    """Whether memory was refused; nothing may be done with it then."""

    def __init__(out self, largest: Int, dim: Int, stride: Int, room: Int):
        """Makes what groups of up to `largest` rows need whose lists have `room` entries."""
        self.panel = RowPanel(dim, stride)
        self.packed = allocate_zeroed[Int32](packed_words(largest, dim))
        self.raised = allocate_zeroed[Int32](largest + PANEL_ROWS)
        self.bounds = allocate[Int32](largest + PANEL_ROWS)
        self.lists = allocate[Int64](largest * room)
        self.keys = allocate[Int32](PANEL_ROWS)
        self.failed = (
            self.panel.failed
            or missing(self.packed)
            or missing(self.raised)
            or missing(self.bounds)
            or missing(self.lists)
            or missing(self.keys)
        )

    def __deinit__(deinit self):
        release(self.packed)
        release(self.raised)
        release(self.bounds)
        release(self.lists)
        release(self.keys)


@fieldwise_init
struct JoinGroups(Body):
    """Brings the rows of each group together, each pair once."""

    var codes: Ptr[Codes]
    var lists: Ptr[NearestLists]
    var partition: Ptr[Partition]
    var scratches: Ptr[GroupScratch]
    var pairs: Ptr[Int64]
    """Counts the pairs compared."""

    def run(self, begin: Int, end: Int, worker: Int):
        """Joins groups begin .. end-1."""
        ref mine = self.scratches[unsafe_offset=worker]
        for group in range(begin, end):
            var size = self.partition[].size(group)
            self.join(mine, self.partition[].begin(group), size, self.partition[].home(group))
            _ = Atomic[Int64].fetch_add(self.pairs.start, Int64(size * (size - 1) // 2))

    def join(self, mut mine: GroupScratch, rows: Ptr[UInt32], count: Int, home: Int):
        """Joins one group, which begins at `home`."""
        ref codes = self.codes[]
        ref lists = self.lists[]
        var panels = panels_of(count)
        for i in range(count):
            var row = Int(rows[unsafe_offset=i])
            var ahead = Int(rows[unsafe_offset=min(i + AHEAD, count - 1)])
            codes.ask(ahead)
            lists.ask(ahead)
            prefetch_line(Int(self.partition[].homes.unsafe_offset(ahead)))
            pack(codes.row(row), codes.dim, i, panels, mine.packed)
            mine.raised[unsafe_offset=i] = codes.raised[unsafe_offset=row]
            mine.bounds[unsafe_offset=i] = lists.copy(row, mine.lists.unsafe_offset(i * lists.room))
        for i in range(PANEL_ROWS):
            mine.bounds[unsafe_offset=count + i] = -1
        for first in range(0, count, PANEL_ROWS):
            var here = min(PANEL_ROWS, count - first)
            mine.panel.load(codes, rows.unsafe_offset(first), here)
            # a row meets those before it
            for p in range(panels_of(first + here)):
                mine.panel.meet(mine.packed, panels, p)
                self.compare(mine, rows, home, p * PANEL_QUERIES, first, here)
        for i in range(count):
            lists.ask(Int(rows[unsafe_offset=min(i + AHEAD, count - 1)]))
            lists.merge(Int(rows[unsafe_offset=i]), mine.lists.unsafe_offset(i * lists.room))

    @always_inline
    def compare(
        self,
        mut mine: GroupScratch,
        rows: Ptr[UInt32],
        home: Int,
        others: Int,
        first: Int,
        here: Int,
    ):
        """Looks at the distances of the rows from number `others` on to a panel."""
        var squared_low = mine.panel.squared.unsafe_load[width=W](0)
        var squared_high = mine.panel.squared.unsafe_load[width=W](W)
        # bounds sink on the way: that fewer pass is all it would change
        var bound_low = mine.bounds.unsafe_load[width=W](first)
        var bound_high = mine.bounds.unsafe_load[width=W](first + W)
        comptime for i in range(PANEL_QUERIES):
            var raised = Lanes(mine.raised[unsafe_offset=others + i])
            var bound = Lanes(mine.bounds[unsafe_offset=others + i])
            var low = mine.panel.sums.unsafe_load[width=W](i * PANEL_ROWS)
            var high = mine.panel.sums.unsafe_load[width=W](i * PANEL_ROWS + W)
            low = raised + squared_low - (low + low)
            high = raised + squared_high - (high + high)
            var near_low = low.le(max(bound, bound_low))
            var near_high = high.le(max(bound, bound_high))
            if (near_low | near_high).reduce_or():
                mine.keys.unsafe_store(0, low)
                mine.keys.unsafe_store(W, high)
                self.offer(
                    mine,
                    rows,
                    home,
                    others + i,
                    first,
                    here,
                    Int(pack_bits[dtype=MASK](near_low.join(near_high))),
                )

    @no_inline
    def offer(
        self,
        mut mine: GroupScratch,
        rows: Ptr[UInt32],
        home: Int,
        other: Int,
        first: Int,
        here: Int,
        near: Int,
    ):
        """Offers pairs, one bit for each row of the panel, to both, unless they have met in another group.
        """
        var bits = near & ((1 << here) - 1)
        if other >= first:
            bits &= ~((2 << (other - first)) - 1)
        if bits == 0:
            return
        var room = self.lists[].room
        var b = Int(rows[unsafe_offset=other])
        var its = mine.lists.unsafe_offset(other * room)
        while bits != 0:
            var place = first + count_trailing_zeros(bits)
            bits &= bits - 1
            var a = Int(rows[unsafe_offset=place])
            var key = mine.keys[unsafe_offset=place - first]
            if self.partition[].meet_at(a, b) != home:
                continue
            if key <= mine.bounds[unsafe_offset=place]:
                mine.bounds[unsafe_offset=place] = insert(
                    mine.lists.unsafe_offset(place * room), room, entry_of(key, b)
                )
            if key <= mine.bounds[unsafe_offset=other]:
                mine.bounds[unsafe_offset=other] = insert(its, room, entry_of(key, a))
