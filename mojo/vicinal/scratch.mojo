"""What one worker needs while it searches or inserts, and a shelf that keeps it for the next call."""
from std.atomic import Atomic, Ordering, fence

from vicinal.candidates import Candidates
from vicinal.memory import Ptr, allocate, allocate_zeroed, at, release
from vicinal.space import Linker, Query, Rows
from vicinal.visited import Visited

comptime HOP = 352
"""Nodes that one hop can bring: slots of the largest block (M = 128), 64 more that a two-hop walk has found before it
takes in such a block, and slack for whole vectors."""
comptime SHELF = 64
"""Scratches kept for later calls; more callers than that allocate their own."""


struct Scratch(Movable):
    """Buffers of one worker: no search or insertion allocates once they have grown to size."""

    var beam: Candidates
    """The search's candidates."""
    var chosen: Candidates
    """Candidates of a pruning step."""
    var visited: Visited
    """Nodes seen by the search."""
    var links: Ptr[UInt32]
    """A block's links, clamped to the nodes that exist."""
    var fresh: Ptr[Int64]
    """Unvisited nodes of the hop, then their entries."""
    var picked: Ptr[UInt32]
    """Nodes kept by a selection."""
    var query: Ptr[UInt8]
    """A query: widened, or prepared for codes."""
    var query_room: Int
    """Bytes allocated for `query`."""
    var others: Ptr[Query]
    """Rows made queries; what they consist of lies in `others_bytes`."""
    var others_bytes: Ptr[UInt8]
    var others_room: Int
    """Bytes allocated for `others_bytes`."""
    var floats: Ptr[Float32]
    """A vector: a query of unit length, or one being rotated."""
    var floats_room: Int
    """Elements allocated for `floats`."""
    var distances: Int
    """Distances measured, over the life of the scratch."""
    var reranked: Int
    """Candidates measured again from the stored rows, over the life of the scratch."""
    var hops: Int
    """Nodes expanded, over the life of the scratch."""
    var selections: Int
    """Times that links were selected for a new row, over the life of the scratch."""
    var prunes: Int
    """Full blocks that were pruned, over the life of the scratch."""

    def __init__(out self):
        """Makes buffers of the smallest size."""
        self.beam = Candidates()
        self.chosen = Candidates()
        self.visited = Visited()
        self.links = allocate[UInt32](HOP)
        self.fresh = allocate[Int64](HOP)
        self.picked = allocate[UInt32](HOP)
        self.query = allocate[UInt8](64)
        self.query_room = 64
        self.others = allocate[Query](HOP)
        self.others_bytes = allocate[UInt8](64)
        self.others_room = 64
        self.floats = allocate[Float32](16)
        self.floats_room = 16
        self.distances = 0
        self.hops = 0
        self.reranked = 0
        self.selections = 0
        self.prunes = 0

    def __deinit__(deinit self):
        release(self.links)
        release(self.fresh)
        release(self.picked)
        release(self.query)
        release(self.others)
        release(self.others_bytes)
        release(self.floats)

    def work(mut self, floats: Int) -> Ptr[Float32]:
        """Returns room for floats besides the query."""
        if floats > self.floats_room:
            release(self.floats)
            self.floats = allocate[Float32](floats)
            self.floats_room = floats
        return self.floats

    def queries_for(mut self, bytes: Int) -> Ptr[Query]:
        """Returns room for HOP rows made queries, which may take so many bytes in all."""
        if bytes > self.others_room:
            release(self.others_bytes)
            self.others_bytes = allocate[UInt8](bytes)
            self.others_room = bytes
        return self.others

    @always_inline
    def prepare[S: Linker](self, rows: Rows, row: Int, i: Int):
        """Makes a row query number i of those that `queries_for` has made room for."""
        var room = Int(self.others_bytes) + i * S.query_bytes(rows)
        self.others[unsafe_offset=i] = S.query_of_row(rows, row, room)

    def room(mut self, bytes: Int) -> Int:
        """Returns the address of room for a query."""
        if bytes > self.query_room:
            release(self.query)
            self.query = allocate[UInt8](bytes)
            self.query_room = bytes
        return Int(self.query)


struct Shelf(Movable):
    """Scratches that nobody uses at the moment; taken and put back without a lock."""

    var places: Ptr[Int64]
    """Addresses of scratches, 0 where there is none."""
    var made: Ptr[Int64]
    """Scratches ever made."""

    def __init__(out self):
        """Makes an empty shelf."""
        self.places = allocate_zeroed[Int64](SHELF)
        self.made = allocate_zeroed[Int64](1)

    def __deinit__(deinit self):
        for i in range(SHELF):
            var address = Int(self.places[unsafe_offset=i])
            if address != 0:
                discard(at[Scratch](address))
        release(self.places)
        release(self.made)

    def take(self) -> Ptr[Scratch]:
        """Takes a scratch, a new one if none is free."""
        for i in range(SHELF):
            var place = self.places.unsafe_offset(i)
            var address = Atomic[Int64].load[ordering=Ordering.RELAXED](place)
            if address != 0 and Atomic[Int64].compare_exchange[
                success_ordering=Ordering.SEQUENTIAL, failure_ordering=Ordering.RELAXED
            ](place, address, 0):
                return at[Scratch](Int(address))
        var scratch = allocate[Scratch](1)
        scratch.unsafe_write(Scratch())
        _ = Atomic[Int64].fetch_add[ordering=Ordering.SEQUENTIAL](self.made, 1)
        return scratch

    def complete(self) -> Bool:
        """Tells whether every search that took a scratch before this call has ended; False if that is not certain.

        A scratch that is met on the shelf is in nobody's hands, and who takes it later sees what was written before this call.
        """
        fence[Ordering.SEQUENTIAL]()
        var met = 0
        var seen = allocate[Int64](SHELF)
        for i in range(SHELF):
            var address = Atomic[Int64].load[ordering=Ordering.SEQUENTIAL](
                self.places.unsafe_offset(i)
            )
            var again = address == 0  # one may be put back elsewhere and be met twice
            for j in range(met):
                again = again or seen[unsafe_offset=j] == address
            if not again:
                seen[unsafe_offset=met] = address
                met += 1
        release(seen)
        return Atomic[Int64].load[ordering=Ordering.SEQUENTIAL](self.made) == Int64(met)

    def put(self, scratch: Ptr[Scratch]):
        """Puts a scratch back, or frees it when the shelf is full."""
        for i in range(SHELF):
            var place = self.places.unsafe_offset(i)
            var nothing = Int64(0)
            if Atomic[Int64].load[ordering=Ordering.RELAXED](place) == 0 and Atomic[
                Int64
            ].compare_exchange[
                success_ordering=Ordering.RELEASE, failure_ordering=Ordering.RELAXED
            ](
                place, nothing, Int64(Int(scratch))
            ):
                return
        discard(scratch)


def discard(scratch: Ptr[Scratch]):
    """Destroys and frees a scratch."""
    scratch.unsafe_deinit_pointee()
    release(scratch)
