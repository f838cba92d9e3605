"""Pairs of rows that have a neighbour in common: where a neighbour of a neighbour is nearer than what was found, it is found so.

Each row brings together some of its nearest and some of the rows that it is among the nearest of, but no two of them that it has
brought together before. Who these are is settled before the pairs of a round are compared, so a round does not depend on the
workers. (NN-descent: Dong, Moses and Li, WWW 2011.)
"""
from std.atomic import Atomic

from vicinal.kernels.candidates import EMPTY_ENTRY, entry_of, key_of, node_of
from vicinal.kernels.products import ByteVector, Sums, W, add_lanes, byte_dot
from vicinal.self_join.codes import RAISED, Codes
from vicinal.self_join.nearest_lists import NearestLists
from vicinal.self_join.partition import NOWHERE, Partition
from vicinal.system.memory import Ptr
from vicinal.system.parallel import Body
from vicinal.system.prefetch import prefetch_line

comptime NOBODY: UInt32 = 0xFFFFFFFF
comptime BYTES = 4 * W
comptime DOWN = 4 if W == 16 else 2
"""Rows of a tile: its sums should fit the registers."""
comptime ACROSS = 4
comptime MOST = 64
"""Rows that one brings together, at most."""


@fieldwise_init
struct OfferBack(Body):
    """Tells rows who has them among its nearest."""

    var lists: Ptr[NearestLists]
    var back: Ptr[NearestLists]
    var order: Ptr[UInt32]
    """All rows: near ones should follow each other."""
    var width: Int

    def run(self, begin: Int, end: Int, worker: Int):
        """Goes through the nearest `width` of rows begin .. end-1 of the order."""
        for place in range(begin, end):
            var row = Int(self.order[unsafe_offset=place])
            var list = self.lists[].list(row)
            for i in range(self.width):
                var entry = list[unsafe_offset=i]
                if entry == EMPTY_ENTRY:
                    break
                var key = key_of(entry)
                if key <= self.back[].bound(node_of(entry)):
                    _ = self.back[].offer(node_of(entry), entry_of(key, row) | (entry & 1))


@fieldwise_init
struct Invite(Body):
    """Settles whom each row brings together, those first that it has not brought together before.
    """

    var lists: Ptr[NearestLists]
    var back: Ptr[NearestLists]
    var width: Int
    var room: Int
    """Of a list of guests."""
    var guests: Ptr[UInt32]
    """Receives for each row others, twice their number and one more if they were together before; NOBODY behind the last."""
    var fresh: Ptr[Int64]
    """Counts those that are new."""

    def run(self, begin: Int, end: Int, worker: Int):
        """Does it for rows begin .. end-1."""
        var new = 0
        for row in range(begin, end):
            var guests = self.guests.unsafe_offset(row * self.room)
            var count = 0
            comptime for known in range(2):
                if known == 0 or count != 0:
                    self.add(self.lists[].list(row), self.width, known, guests, count)
                    self.add(self.back[].list(row), self.back[].room, known, guests, count)
                if known == 0:
                    new += count
            if count < self.room:
                guests[unsafe_offset=count] = NOBODY
            var list = self.lists[].list(row)
            for i in range(self.width):
                if list[unsafe_offset=i] == EMPTY_ENTRY:
                    break
                list[unsafe_offset=i] |= 1
        _ = Atomic[Int64].fetch_add(self.fresh.start, Int64(new))

    @always_inline
    def add(self, list: Ptr[Int64], width: Int, known: Int, guests: Ptr[UInt32], mut count: Int):
        """Adds those of a list that are known or new and not there yet."""
        for i in range(width):
            var entry = list[unsafe_offset=i]
            if entry == EMPTY_ENTRY or count == self.room:
                return
            if Int(entry & 1) != known:
                continue
            var node = UInt32(entry & 0xFFFFFFFF) | 1
            var there = False
            for j in range(count):
                there = there or guests[unsafe_offset=j] | 1 == node
            if not there:
                guests[unsafe_offset=count] = UInt32(entry & 0xFFFFFFFF)
                count += 1


@fieldwise_init
struct JoinNeighbours(Body):
    """Compares the guests of each row with one another, unless both were there before."""

    var codes: Ptr[Codes]
    var lists: Ptr[NearestLists]
    var partition: Ptr[Partition]
    """The latest one: who was in a group has met."""
    var room: Int
    var guests: Ptr[UInt32]
    var pairs: Ptr[Int64]
    """Counts the pairs compared."""

    def run(self, begin: Int, end: Int, worker: Int):
        """Does it for rows begin .. end-1 of the order."""
        var compared = 0
        for i in range(begin, end):
            if i + 2 < end:
                prefetch_line(Int(self.of(i + 2)))
            if i + 1 < end:
                self.ask(self.of(i + 1))
            compared += self.join(self.of(i))
        _ = Atomic[Int64].fetch_add(self.pairs.start, Int64(compared))

    @always_inline
    def of(self, i: Int) -> Ptr[UInt32]:
        """Returns the guests of number i of the order."""
        return self.guests.unsafe_offset(Int(self.partition[].order[unsafe_offset=i]) * self.room)

    def ask(self, guests: Ptr[UInt32]):
        """Asks for the codes of guests that come next."""
        for i in range(self.room):
            if guests[unsafe_offset=i] == NOBODY:
                return
            self.codes[].ask(Int(guests[unsafe_offset=i] >> 1))
            prefetch_line(
                Int(self.partition[].homes.unsafe_offset(Int(guests[unsafe_offset=i] >> 1)))
            )

    def join(self, guests: Ptr[UInt32]) -> Int:
        """Compares the guests of one row; returns the number of pairs."""
        var rows = Array[Int, MOST + ACROSS](fill=0)
        var bounds = Array[Int32, MOST + ACROSS](fill=-1)
        var count = 0
        var fresh = 0
        for i in range(self.room):
            if guests[unsafe_offset=i] == NOBODY:
                break
            rows[i] = Int(guests[unsafe_offset=i] >> 1)
            bounds[i] = self.lists[].bound(rows[i])
            fresh += Int(guests[unsafe_offset=i] & 1 == 0)
            count += 1
        for i in range(count, (count + ACROSS - 1) // ACROSS * ACROSS):
            rows[i] = rows[count - 1]
        for a in range(0, fresh, DOWN):
            for b in range(a // ACROSS * ACROSS, count, ACROSS):
                self.tile(rows, bounds, a, min(DOWN, fresh - a), b, min(ACROSS, count - b))
        # each new one with those behind it
        return fresh * (count - fresh) + fresh * (fresh - 1) // 2

    @always_inline
    def tile(
        self,
        rows: Array[Int, MOST + ACROSS],
        mut bounds: Array[Int32, MOST + ACROSS],
        a: Int,
        down: Int,
        b: Int,
        across: Int,
    ):
        """Compares a few rows with a few."""
        ref codes = self.codes[]
        var sums = Array[Sums, DOWN * ACROSS](fill=Sums(0))
        for k in range(0, codes.stride, BYTES):
            var right = Array[ByteVector[DType.int8], ACROSS](fill=ByteVector[DType.int8](0))
            comptime for j in range(ACROSS):
                right[j] = codes.row(rows[b + j]).unsafe_load[width=BYTES](k)
            comptime for i in range(DOWN):
                var left = codes.row(rows[a + i]).unsafe_load[width=BYTES](k)
                comptime for j in range(ACROSS):
                    sums[i * ACROSS + j] = _products(sums[i * ACROSS + j], left, right[j])
        var raised = SIMD[DType.int32, ACROSS](0)
        comptime for j in range(ACROSS):
            raised[j] = codes.raised[unsafe_offset=rows[b + j]]
        comptime for i in range(DOWN):
            if i < down:
                var products = add_lanes(
                    sums[i * ACROSS],
                    sums[i * ACROSS + 1],
                    sums[i * ACROSS + 2],
                    sums[i * ACROSS + 3],
                )
                var keys = codes.squared[unsafe_offset=rows[a + i]] + raised - 2 * products
                comptime for j in range(ACROSS):
                    if j < across and b + j > a + i:
                        var key = keys[j]
                        if key > max(bounds[a + i], bounds[b + j]) or (
                            self.partition[].meet_at(rows[a + i], rows[b + j]) != Int(NOWHERE)
                        ):
                            continue
                        if key <= bounds[a + i]:
                            bounds[a + i] = self.lists[].offer(
                                rows[a + i], entry_of(key, rows[b + j])
                            )
                        if key <= bounds[b + j]:
                            bounds[b + j] = self.lists[].offer(
                                rows[b + j], entry_of(key, rows[a + i])
                            )


@always_inline
def _products(acc: Sums, left: ByteVector[DType.int8], right: ByteVector[DType.int8]) -> Sums:
    """Adds the products of two codes, the left one raised where `RAISED`."""
    comptime if RAISED:
        return byte_dot(acc, left.cast[DType.uint8]() ^ 0x80, right)
    else:
        return byte_dot(acc, left, right)
