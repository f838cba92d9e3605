"""What one worker needs while it searches or inserts; `walk/readers.mojo` keeps it for the next call."""
from std.atomic import Atomic, Ordering
from std.ffi import c_int, external_call
from std.sys import size_of

from vicinal.kernels.candidates import Candidates
from vicinal.kernels.any_distance import Measure
from vicinal.kernels.space import Query, Rows, RowsAsQueries
from vicinal.system.memory import Ptr, allocate, at, missing, no_block, release
from vicinal.system.uring import Ring
from vicinal.walk.arrivals import RING, Arrivals, RowFile
from vicinal.walk.visited import Visited

comptime HOP_ROOM = 352
"""Most neighbours that one hop can collect: 256 slots (M = 128), 64 that a two-hop search has found before, and 32 so that vector
stores may overrun."""
comptime KEPT_BYTES = 1 << 16
"""Bytes of a buffer that a scratch keeps for later calls; larger ones, made for a wide search, are given back after it."""
comptime QUERIES = 0
comptime WALKS = 1
comptime SCANS = 2
comptime DISTANCES = 3
comptime HOPS = 4
comptime REQUESTS = 5
comptime REQUEST_BYTES = 6
"""What `Scratch.counted` tells."""


struct Scratch(Movable):
    """Buffers of one worker: no search or insertion allocates once they have grown to size."""

    var pin: Int64
    """What `walk/readers.mojo` says of it: idle, in use, or the epoch that a search with it began in."""
    var next: Int64
    """Address of the scratch made before."""
    var held: Int64
    """Bytes of memory that it took when it was put back last."""
    var beam: Candidates
    """The search's candidates."""
    var pruning_candidates: Candidates
    """Candidates of a pruning step."""
    var visited: Visited
    """Nodes seen by the search."""
    var links: Ptr[UInt32]
    """A block's links, clamped to the nodes that exist."""
    var unvisited: Ptr[Int64]
    """Unvisited nodes of the hop, then their entries."""
    var selected: Ptr[UInt32]
    """Nodes kept by a selection."""
    var query: Ptr[UInt8]
    """A query: widened, or prepared for codes."""
    var query_room: Int
    """Bytes allocated for `query`."""
    var row_queries: Ptr[Query]
    """Rows made queries; what they consist of lies in `row_query_bytes`."""
    var row_query_bytes: Ptr[UInt8]
    var row_query_room: Int
    """Bytes allocated for `row_query_bytes`."""
    var floats: Ptr[Float32]
    """A vector: a query of unit length, or one being rotated."""
    var floats_room: Int
    """Elements allocated for `floats`."""
    var stored: Measure
    """How stored rows are measured where that is told at run time."""
    var walked: Measure
    """The same for what is walked on."""
    var distances: Int
    """Distances measured, over the life of the scratch."""
    var reranked: Int
    """Candidates measured again from the stored rows, over the life of the scratch."""
    var hops: Int
    """Nodes expanded, over the life of the scratch."""
    var queries: Int
    """Queries answered, over the life of the scratch."""
    var walks: Int
    """Walks begun to answer them, a second and wider one counted again."""
    var scans: Int
    """Times that rows were scanned to answer them."""
    var disk: Int
    """Address of row 0 where rows may have to be read from disk: walks on them ask for all of a hop at once. Else 0."""
    var source: RowFile
    """How rows that are on disk are read."""
    var lead: Int
    """Address of the scratch whose ring is used: the first of those that one worker interleaves. 0 where none may be."""
    var own_arrivals: Int
    """Address of the `Arrivals` of this scratch, 0 before rows have been asked for by a ring."""
    var asked: Int
    """Candidates of the beam whose rows have been asked for."""
    var requests: Int
    """Requests made for parts of a file, over the life of the scratch."""
    var request_bytes: Int
    """Bytes asked for by these."""
    var selections: Int
    """Times that links were selected for a new row, over the life of the scratch."""
    var prunes: Int
    """Full blocks that were pruned, over the life of the scratch."""
    var short: Bool
    """Whether memory was refused for a buffer that belongs to none of the parts; see `failed`."""

    def __init__(out self):
        """Makes buffers of the smallest size."""
        self.pin = 0
        self.next = 0
        self.held = 0
        self.beam = Candidates()
        self.pruning_candidates = Candidates()
        self.visited = Visited()
        self.links = allocate[UInt32](HOP_ROOM)
        self.unvisited = allocate[Int64](HOP_ROOM)
        self.selected = allocate[UInt32](HOP_ROOM)
        self.query = allocate[UInt8](64)
        self.query_room = 64
        self.row_queries = allocate[Query](HOP_ROOM)
        self.row_query_bytes = allocate[UInt8](64)
        self.row_query_room = 64
        self.floats = allocate[Float32](16)
        self.floats_room = 16
        self.stored = Measure()
        self.walked = Measure()
        self.distances = 0
        self.hops = 0
        self.reranked = 0
        self.disk = 0
        self.source = RowFile.none()
        self.lead = 0
        self.own_arrivals = 0
        self.asked = 0
        self.requests = 0
        self.request_bytes = 0
        self.selections = 0
        self.prunes = 0
        self.queries = 0
        self.walks = 0
        self.scans = 0
        self.short = (
            missing(self.links)
            or missing(self.unvisited)
            or missing(self.selected)
            or missing(self.query)
            or missing(self.row_queries)
            or missing(self.row_query_bytes)
            or missing(self.floats)
        )

    @staticmethod
    def on_heap() -> Ptr[Scratch]:
        """Makes one at an address of its own, or returns what `missing` knows; `discard` ends it.
        """
        var scratch = allocate[Scratch](1)
        if missing(scratch):
            return scratch
        scratch.unsafe_write(Scratch())
        if scratch[].failed():
            discard(scratch)
            return no_block[Scratch]()
        return scratch

    @always_inline
    def failed(self) -> Bool:
        """Tells whether memory was refused since the scratch was taken: what is done with it is worth nothing.

        Walks end, and go nowhere else than where there is room; what `work`, `queries_for` and `room` return may not be used.
        """
        return (
            self.short or self.beam.failed or self.pruning_candidates.failed or self.visited.failed
        )

    @always_inline
    def pin_address(self) -> Ptr[Int64]:
        """Returns where the pin is."""
        return Pointer(to=self.pin).unsafe_mut_cast[True]().unsafe_origin_cast[MutUntrackedOrigin]()

    @always_inline
    def bytes_address(self) -> Ptr[Int64]:
        """Returns where the bytes held are noted."""
        return (
            Pointer(to=self.held).unsafe_mut_cast[True]().unsafe_origin_cast[MutUntrackedOrigin]()
        )

    @always_inline
    def trim(mut self):
        """Gives back what a wide search has made grow, and notes what memory is left."""
        if self.beam.allocated > KEPT_BYTES // 8:
            self.beam.shrink()
        if self.pruning_candidates.allocated > KEPT_BYTES // 8:
            self.pruning_candidates.shrink()
        # of memory that was refused the next call need not know
        self.short = False
        self.asked = 0
        self.lead = 0
        self.beam.failed = False
        self.pruning_candidates.failed = False
        self.visited.trim()
        Atomic[Int64].store[ordering=Ordering.RELAXED](
            self.bytes_address().start, Int64(self.bytes())
        )

    @always_inline
    def bytes(self) -> Int:
        """Returns the bytes of memory that it takes."""
        return (
            size_of[Scratch]()
            + HOP_ROOM * (4 + 8 + 4 + size_of[Query]())
            + 8 * (self.beam.allocated + self.pruning_candidates.allocated)
            + self.visited.bytes()
            + self.query_room
            + self.row_query_room
            + 4 * self.floats_room
            + (at[Arrivals](self.own_arrivals)[].bytes() if self.own_arrivals != 0 else 0)
        )

    def counted(self, which: Int) -> Int:
        """Returns QUERIES, WALKS, SCANS, DISTANCES, HOPS, REQUESTS or REQUEST_BYTES, over the life of the scratch.
        """
        if which == QUERIES:
            return self.queries
        if which == WALKS:
            return self.walks
        if which == SCANS:
            return self.scans
        if which == REQUESTS:
            return self.requests
        if which == REQUEST_BYTES:
            return self.request_bytes
        return self.distances if which == DISTANCES else self.hops

    def __deinit__(deinit self):
        if self.own_arrivals != 0:
            _end(at[Arrivals](self.own_arrivals))
        release(self.links)
        release(self.unvisited)
        release(self.selected)
        release(self.query)
        release(self.row_queries)
        release(self.row_query_bytes)
        release(self.floats)

    @always_inline
    def reads_from(mut self, rows: Rows, on_disk: Bool, source: RowFile, lead: Ptr[Scratch]):
        """Says where the rows of a search are, and whose ring it uses."""
        self.disk = rows.base if on_disk else 0
        self.source = source
        self.lead = Int(lead) if on_disk and source.how == RING and source.base == rows.base else 0

    def arrivals(mut self) -> Ptr[Arrivals]:
        """Returns what rows arrive in that a ring reads, or what `missing` knows if `lead` is 0 or the system has refused a part.
        """
        if self.lead == 0:
            return no_block[Arrivals]()
        var process = external_call["getpid", c_int]()
        var own = _arrivals_of(self.own_arrivals, process)
        ref lead = at[Scratch](self.lead)[]
        var leading = own
        if self.lead != Int(Pointer(to=self)):
            leading = _arrivals_of(lead.own_arrivals, process)
        if missing(own) or missing(leading) or own[].failed() or leading[].failed():
            return no_block[Arrivals]()
        if leading[].ring.process != process and not leading[].ring.open():
            return no_block[Arrivals]()
        return own if leading[].ring.file >= 0 else no_block[Arrivals]()

    @always_inline
    def ring(self) -> Ptr[Ring]:
        """Returns the ring that brings `arrivals`, which are there."""
        ref leading = at[Arrivals](at[Scratch](self.lead)[].own_arrivals)[]
        return Pointer(to=leading.ring).unsafe_origin_cast[MutUntrackedOrigin]()

    def work(mut self, floats: Int) -> Ptr[Float32]:
        """Returns room for floats besides the query, unless it has `failed`."""
        if floats > self.floats_room and not enlarge(self.floats, self.floats_room, floats):
            self.short = True
        return self.floats

    def queries_for(mut self, bytes: Int) -> Ptr[Query]:
        """Returns room for HOP_ROOM rows made queries, which may take so many bytes in all, unless it has `failed`.
        """
        if bytes > self.row_query_room and not enlarge(
            self.row_query_bytes, self.row_query_room, bytes
        ):
            self.short = True
        return self.row_queries

    @always_inline
    def prepare[S: RowsAsQueries](self, rows: Rows, row: Int, i: Int):
        """Makes a row query number i of those that `queries_for` has made room for."""
        var room = Int(self.row_query_bytes) + i * S.query_bytes(rows)
        self.row_queries[unsafe_offset=i] = S.query_of_row(rows, row, room)

    def room(mut self, bytes: Int) -> Int:
        """Returns the address of room for a query, unless it has `failed`."""
        if bytes > self.query_room and not enlarge(self.query, self.query_room, bytes):
            self.short = True
        return Int(self.query)


def enlarge[T: AnyType](mut buffer: Ptr[T], mut room: Int, wanted: Int) -> Bool:
    """Makes a buffer larger, and forgets what it held; returns False, and changes nothing, when memory is out.
    """
    var larger = allocate[T](wanted)
    if missing(larger):
        return False
    release(buffer)
    buffer = larger
    room = wanted
    return True


def _arrivals_of(mut address: Int, process: c_int) -> Ptr[Arrivals]:
    """Returns arrivals that this process has made, or what `missing` knows."""
    if address != 0 and at[Arrivals](address)[].process != process:
        _end(at[Arrivals](address))
        address = 0
    if address == 0:
        var made = Arrivals.on_heap()
        if missing(made):
            return made
        address = Int(made)
    return at[Arrivals](address)


def _end(arrivals: Ptr[Arrivals]):
    arrivals.unsafe_deinit_pointee()
    release(arrivals)


def any_failed(scratches: Ptr[Ptr[Scratch]], count: Int) -> Bool:
    """Tells whether memory was refused to any of some scratches."""
    for i in range(count):
        if scratches[unsafe_offset=i][].failed():
            return True
    return False


def discard(scratch: Ptr[Scratch]):
    """Destroys and frees a scratch."""
    scratch.unsafe_deinit_pointee()
    release(scratch)
