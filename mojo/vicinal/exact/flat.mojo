"""Exact search: every row measured, or shown to be too far by a register tile (`exact/scan.mojo`).

Rows are cut into pieces that are handed to workers in order; each worker keeps its own k nearest of every query, and they are
merged at the end. Entries order by distance, then row, so the result depends neither on the pieces nor on the workers. Rows
are read once for each chunk of queries; chunks are as large as the memory given for scratch allows.
"""
from vicinal.exact.request import SearchRequest
from vicinal.exact.rounding_error import QueryBound, relative_error
from vicinal.exact.scan import GROUP, FewQueries, ManyQueries, Scan, RowSource, Worker
from vicinal.exact.tile import (
    BLOCK_ROWS,
    BLOCK_WORDS,
    PANEL_QUERIES,
    TILE,
    Sum,
    block_words,
    pack_query,
    words_of,
)
from vicinal.exact.topk import TopK
from vicinal.kernels.candidates import key_of, node_of
from vicinal.kernels.convert import to_float
from vicinal.kernels.products import W
from vicinal.kernels.inspect_row import inspect_row, to_unit
from vicinal.kernels.space import COSINE, HAMMING, L2, Query, Space
from vicinal.system.memory import Ptr, allocate, allocate_zeroed, at, missing, release
from vicinal.system.outcome import DONE, NO_MEMORY, Outcome, STOPPED
from vicinal.system.parallel import Body, Team, Unwatched, Watch

comptime MAX_ROWS = 2147483647
"""Row numbers have 31 bits in `kernels/candidates.mojo`."""
comptime FEW = 5
"""Fewer queries are measured without tiles: packing a row costs as much as measuring it about so many times."""
comptime CENTRE_ROWS = 64
"""Rows whose mean is the centre."""
comptime PIECE_BYTES = 1 << 20
"""Enough for a piece to be worth its administration."""
comptime MAPPED_PIECE_BYTES = 4 << 20
"""The same for a mapping whose pages are let go after each piece."""
comptime PIECE_WORK = 1 << 32
"""Products of a piece, so that a watch need not wait long."""
comptime BITS_QUERIES = 256
"""Queries of packed bits that meet a row while it is in a register; they stay in the cache themselves."""
comptime CHUNK_WORK = 1 << 25
comptime CHUNK_QUERIES = 8192
"""Elements and queries of a chunk, for the same reason; so many already hide the time of reading the rows."""


@fieldwise_init
struct Chunk(TrivialRegisterPassable):
    """How a search is cut up."""

    var size: Int
    """Queries of a chunk."""
    var tiled: Bool
    """Whether tiles are used."""
    var tiles: Int
    """Tiles of sums that each worker keeps."""


def plan[S: Space](dim: Int, num_queries: Int, k: Int, workers: Int, max_bytes: Int) -> Chunk:
    """Fits a chunk of queries and all scratch into `max_bytes`; one query is the least."""
    var words = words_of[S.T](dim)
    comptime if S.metric >= HAMMING or S.bits != 0:  # tiles hold products of what is stored
        var one = 64 + workers * (16 + TopK.bytes(k))
        return Chunk(max(1, min(num_queries, BITS_QUERIES, max_bytes // one)), False, 0)
    var each = 64 + workers * (16 + TopK.bytes(k)) + (dim * 4 if S.Q == DType.float32 else 0)
    var few = max(1, min(num_queries, FEW - 1, max_bytes // each))
    var tiles = 1
    if block_words(words) < words:
        tiles = min(GROUP, (num_queries + PANEL_QUERIES - 1) // PANEL_QUERIES) * (
            BLOCK_ROWS * PANEL_QUERIES // TILE
        )
    var fixed = workers * (BLOCK_ROWS * (BLOCK_WORDS * 4 + 8) + 4 * tiles * TILE)
    var most = min(num_queries, CHUNK_QUERIES, CHUNK_WORK // dim)
    var many = min(most, (max_bytes - fixed) // (each + words * 4))
    if many < FEW:
        return Chunk(few, False, 0)
    if many < num_queries:
        many -= many % PANEL_QUERIES
    return Chunk(many, True, tiles)


@fieldwise_init
struct Prepare[S: Space](Body):
    """Prepares queries: norm, unit copy for cosine over floats, bound, place in a panel."""

    var source: Int
    var dim: Int
    var queries: Ptr[Query]
    var units: Ptr[Float32]
    var tiled: Bool
    var centre: Ptr[Float32]
    var bounds: Ptr[QueryBound]
    var panels: Int
    var packed: Ptr[Scalar[Sum[Self.S.T]]]

    def run(self, begin: Int, end: Int, worker: Int):
        """Prepares queries begin .. end-1."""
        for q in range(begin, end):
            var given = at[Scalar[Self.S.Q]](self.source).unsafe_offset(q * self.dim)
            var query = Query(Int(given), 1)
            comptime if Self.S.metric == COSINE:
                _ = inspect_row[Self.S, Self.S.Q](given, self.dim, query.norm)
                comptime if Self.S.T.is_floating_point():
                    var unit = self.units.unsafe_offset(q * self.dim)
                    var elements = given.unsafe_bitcast[Float32]()
                    for i in range(self.dim):
                        unit[unsafe_offset=i] = to_unit(elements[unsafe_offset=i], query.norm)
                    query.address = Int(unit)
            self.queries[unsafe_offset=q] = query
            if self.tiled:
                var bound = QueryBound.of[Self.S](query, self.dim, self.centre)
                self.bounds[unsafe_offset=q] = bound
                pack_query[
                    Self.S.T, Self.S.Q, centred=Self.S.T.is_floating_point() and Self.S.metric == L2
                ](
                    at[Scalar[Self.S.Q]](query.address),
                    self.dim,
                    bound.scale,
                    self.centre,
                    q,
                    self.panels,
                    self.packed,
                )


@fieldwise_init
struct Finish[S: Space](Body):
    """Merges what the workers found and writes it."""

    var workers: Ptr[Worker[Self.S]]
    var num_workers: Int
    var k: Int
    var ids: Ptr[Int64]
    var distances: Ptr[Float32]

    def run(self, begin: Int, end: Int, worker: Int):
        """Writes the results of queries begin .. end-1."""
        for q in range(begin, end):
            ref nearest = self.workers[].nearest[unsafe_offset=q]
            for w in range(1, self.num_workers):
                ref other = self.workers[unsafe_offset=w].nearest[unsafe_offset=q]
                for i in range(other.finish()):
                    var entry = other.entry(i)
                    if entry >= nearest.bound():
                        break
                    nearest.insert(entry)
            var found = nearest.finish()
            var ids = self.ids.unsafe_offset(q * self.k)
            var distances = self.distances.unsafe_offset(q * self.k)
            for i in range(found):
                var entry = nearest.entry(i)
                ids[unsafe_offset=i] = Int64(node_of(entry))
                distances[unsafe_offset=i] = Self.S.value(key_of(entry))
            for i in range(found, self.k):
                ids[unsafe_offset=i] = -1
                distances[unsafe_offset=i] = Float32.MAX  # infinity


def find_centre[T: DType](source: RowSource, centre: Ptr[Float32]):
    """Adds the mean of some rows to a centre that is zero."""
    var taken = min(source.count, CENTRE_ROWS)
    for i in range(taken):
        var number = i * source.count // taken
        var row = source.rows.row[T](number)
        for j in range(source.rows.dim):
            centre[unsafe_offset=j] += to_float[T, 1](row[unsafe_offset=j]) / Float32(taken)
        if source.shared_map:
            source.drop_pages(number, number + 1)


def search_exact[
    S: Space, V: Watch
](
    source: RowSource,
    raw: Bool,
    request: SearchRequest,
    team: Team,
    max_bytes: Int,
    mut watch: V,
) -> Outcome:
    """Finds the k nearest rows of each query.

    Parameters:
        S: The space.
        V: Kind of watch.

    Args:
        source: Rows, at most MAX_ROWS.
        raw: True for rows as a user gave them: they are checked, and for cosine they are brought to unit length and get
            their norms on the way. False for rows as an index stores them.
        request: What is asked. Queries must have passed `inspect_row`; for cosine they may have any length. Ids are row numbers.
        team: Workers, in place of those that the request names.
        max_bytes: Memory for scratch; scratch for one query is taken in any case.
        watch: May end the call early.

    Returns:
        DONE, STOPPED, NO_MEMORY, or the refusal of the first bad row (raw rows only).

    Safety:
        All addresses must be valid for the sizes given.
    """
    var rows = source.rows
    var kept = max(min(request.k, source.count), 1)
    var chunk = plan[S](rows.dim, request.count, kept, team.size(), max_bytes)
    var centre = allocate_zeroed[Float32]((rows.dim + W - 1) // W * W)
    if missing(centre):
        return NO_MEMORY
    comptime if S.T.is_floating_point() and S.metric == L2:
        if chunk.tiled:
            find_centre[S.T](source, centre)
    var verdict = Int64.MAX
    comptime can_scale = S.metric == COSINE and S.T.is_floating_point() and S.bits == 0
    var search = _Search[S, V](
        source,
        raw,
        request,
        chunk,
        kept,
        centre,
        Pointer(to=team).unsafe_mut_cast[True]().unsafe_origin_cast[MutUntrackedOrigin](),
        Pointer(to=verdict).unsafe_origin_cast[MutUntrackedOrigin](),
        Pointer(to=watch).unsafe_origin_cast[MutUntrackedOrigin](),
    )
    var status = DONE
    var first = 0
    # one round even without queries: the rows have to be checked
    while status == DONE and (first < request.count or first == 0):
        var here = min(chunk.size, request.count - first)
        comptime if can_scale:
            status = search.answer[True](first, here) if raw else search.answer[False](first, here)
        else:
            status = search.answer[False](first, here)
        if status == DONE and verdict != Int64.MAX:
            status = Outcome(Int(verdict))
        first += max(here, 1)
    release(centre)
    return status


struct _Buffers[S: Space](Movable):
    """Scratch for one chunk of queries."""

    var queries: Ptr[Query]
    var bounds: Ptr[QueryBound]
    var units: Ptr[Float32]
    """Queries brought to unit length, where that is needed."""
    var packed: Ptr[Scalar[Sum[Self.S.T]]]
    var workers: Ptr[Worker[Self.S]]
    var made: Int
    """Workers that there are."""
    var failed: Bool
    """Whether memory was refused; nothing may be done with it then."""

    def __init__(out self, num_queries: Int, dim: Int, panels: Int, num_workers: Int):
        """Makes all but the workers."""
        self.queries = allocate[Query](num_queries)
        # for whole panels: what the last one lacks is read, too
        self.bounds = allocate_zeroed[QueryBound](max(num_queries, panels * PANEL_QUERIES))
        comptime duplicates = Self.S.metric == COSINE and Self.S.T.is_floating_point()
        self.units = allocate[Float32](num_queries * dim if duplicates else 0)
        self.packed = allocate_zeroed[Scalar[Sum[Self.S.T]]](
            panels * PANEL_QUERIES * words_of[Self.S.T](dim)
        )
        self.workers = allocate[Worker[Self.S]](num_workers)
        self.made = 0
        self.failed = (
            missing(self.queries)
            or missing(self.bounds)
            or missing(self.units)
            or missing(self.packed)
            or missing(self.workers)
        )

    def __deinit__(deinit self):
        for w in range(self.made):
            self.workers.unsafe_offset(w).unsafe_deinit_pointee()
        release(self.workers)
        release(self.packed)
        release(self.units)
        release(self.bounds)
        release(self.queries)

    def make_workers(mut self, num_workers: Int, num_queries: Int, kept: Int, tiles: Int):
        """Makes the workers; the bounds must be known."""
        for w in range(num_workers):
            var worker = Worker[Self.S](num_queries, kept, self.bounds, tiles)
            self.failed = self.failed or worker.failed
            self.workers.unsafe_offset(w).unsafe_write(worker^)
            self.made += 1


@fieldwise_init
struct _Search[S: Space, V: Watch](TrivialRegisterPassable):
    """A search that is answered chunk by chunk."""

    var source: RowSource
    var raw: Bool
    var request: SearchRequest
    var chunk: Chunk
    var kept: Int
    """Neighbours kept of each query."""
    var centre: Ptr[Float32]
    var team: Ptr[Team]
    var verdict: Ptr[Int64]
    """See `Scan`."""
    var watch: Ptr[Self.V]

    def answer[scaled: Bool](self, first: Int, num_queries: Int) -> Outcome:
        """Answers the queries of a chunk; that which begins with query 0 also checks the rows."""
        ref team = self.team[]
        ref watch = self.watch[]
        var source = self.source
        var dim = source.rows.dim
        var tiled = self.chunk.tiled
        var panels = (num_queries + PANEL_QUERIES - 1) // PANEL_QUERIES if tiled else 0
        var own = _Buffers[Self.S](num_queries, dim, panels, team.size())
        if own.failed:
            return NO_MEMORY
        var given = at[Scalar[Self.S.Q]](self.request.queries).unsafe_offset(first * dim)
        var prepare = Prepare[Self.S](
            Int(given),
            dim,
            own.queries,
            own.units,
            tiled,
            self.centre,
            own.bounds,
            panels,
            own.packed,
        )
        # as many queries to a piece as share a cache line of the panels
        var unwatched = Unwatched()
        _ = team.run(num_queries, 4 * PANEL_QUERIES, prepare, unwatched)
        own.make_workers(team.size(), num_queries, self.kept, self.chunk.tiles)
        if own.failed:
            return NO_MEMORY
        var scan = Scan[Self.S, scaled](
            source, self.raw, own.queries, num_queries, own.workers, first == 0, self.verdict
        )
        var piece = (MAPPED_PIECE_BYTES if source.shared_map else PIECE_BYTES) // source.rows.stride
        # enough pieces that no worker waits long for the last
        piece = min(piece, source.count // (team.size() * 16))
        var finished: Bool
        comptime if Self.S.metric >= HAMMING or Self.S.bits != 0:
            finished = team.run(
                source.count, max(16, piece), FewQueries[Self.S, scaled](scan), watch
            )
        else:
            if tiled:
                var blocks = max(1, min(piece, PIECE_WORK // (num_queries * dim)) // BLOCK_ROWS)
                var many = ManyQueries[Self.S, scaled](
                    scan, own.packed, own.bounds, self.centre, Float32(relative_error(dim))
                )
                finished = team.run(source.count, blocks * BLOCK_ROWS, many, watch)
            else:
                finished = team.run(
                    source.count, max(16, piece), FewQueries[Self.S, scaled](scan), watch
                )
        if finished and self.verdict[] == Int64.MAX:
            var finish = Finish[Self.S](
                own.workers,
                team.size(),
                self.request.k,
                self.request.ids.unsafe_offset(first * self.request.k),
                self.request.distances.unsafe_offset(first * self.request.k),
            )
            _ = team.run(num_queries, 64, finish, unwatched)
        _ = own^
        return DONE if finished else STOPPED
