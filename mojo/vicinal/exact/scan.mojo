"""The work of one worker in an exact search: pieces of rows meet a chunk of queries."""
from std.atomic import Atomic, Ordering
from std.bit import count_trailing_zeros
from std.ffi import c_int, external_call
from std.memory import pack_bits

from vicinal.exact.rounding_error import Level, QueryBound, exact_keys, row_bound
from vicinal.exact.tile import (
    BLOCK_ROWS,
    BLOCK_WORDS,
    PANEL_QUERIES,
    PANEL_ROWS,
    TILE,
    Sum,
    block_words,
    multiply,
    pack_rows,
    words_of,
)
from vicinal.exact.topk import TopK
from vicinal.kernels.candidates import EMPTY_ENTRY, entry_of
from vicinal.kernels.convert import to_float
from vicinal.kernels.products import W
from vicinal.kernels.inspect_row import inspect_row, to_unit
from vicinal.kernels.space import COSINE, L2, Query, Rows, Space, float_of_key, key_of_float
from vicinal.rows.visibility import Visibility
from vicinal.system.memory import Ptr, allocate, allocate_zeroed, at, missing, release
from vicinal.system.outcome import FINE, Outcome
from vicinal.system.pages import ask_ahead
from vicinal.system.parallel import Body

comptime GROUP = 128
"""Panels of queries that one packed block of rows meets before the next block; bounds the sums a worker keeps."""
comptime MASK = DType.uint32 if PANEL_ROWS == 32 else (
    DType.uint16 if PANEL_ROWS == 16 else DType.uint8
)
"""One bit for each row of a panel."""
comptime PAGE = 4096
"""Bytes of the smallest page; where pages are larger, letting go of less aligned ranges fails without harm."""
comptime FAULT_AROUND = 2 << 20
"""Bytes that Linux may map around a page that is touched."""


struct RowSource(TrivialRegisterPassable):
    """The rows to search and what is known of them."""

    var rows: Rows
    var count: Int
    var shared_map: Bool
    """Whether they lie in a shared mapping of a file, whose pages are let go once they have been read."""
    var on_disk: Bool
    """Whether they have to be read from disk, since they do not fit the memory: then they are asked for some way ahead."""
    var visible: Visibility
    """Which of them are there."""

    def __init__(out self, rows: Rows, count: Int, shared_map: Bool, on_disk: Bool = False):
        """Makes a source of the first `count` rows, all of which are there."""
        self.rows = rows
        self.count = count
        self.shared_map = shared_map
        self.on_disk = on_disk
        self.visible = Visibility.of_all(count)

    def __init__(out self, rows: Rows, on_disk: Bool, visible: Visibility):
        """Makes a source of the rows that a search sees."""
        self.rows = rows
        self.count = visible.bound
        self.shared_map = False
        self.on_disk = on_disk
        self.visible = visible

    def ask(self, begin: Int, end: Int):
        """Asks for rows some way ahead of begin .. end-1."""
        ask_ahead(
            self.rows.base,
            self.count * self.rows.stride,
            begin * self.rows.stride,
            end * self.rows.stride,
        )

    def drop_pages(self, begin: Int, end: Int):
        """Drops the pages of rows begin .. end-1 from this process; the file and its cache keep them.

        Safety:
            The rows must really lie in a shared mapping: private pages would lose what was written to them.
        """
        var low = self.rows.base // PAGE * PAGE
        var high = (self.rows.base + self.count * self.rows.stride + PAGE - 1) // PAGE * PAGE
        # Outwards, so that pages mapped along with their neighbours go as well.
        var start = max(
            (self.rows.base + begin * self.rows.stride) // FAULT_AROUND * FAULT_AROUND, low
        )
        var stop = min(
            (self.rows.base + end * self.rows.stride + FAULT_AROUND - 1)
            // FAULT_AROUND
            * FAULT_AROUND,
            high,
        )
        comptime MADV_DONTNEED: c_int = 4
        _ = external_call["madvise", c_int](start, stop - start, MADV_DONTNEED)


struct Worker[S: Space](Movable):
    """What one worker keeps for a chunk of queries."""

    var nearest: Ptr[TopK]
    """One for each query."""
    var levels: Ptr[Scalar[Level[Self.S]]]
    """For each query of whole panels the t of `exact/rounding_error.mojo`."""
    var bounds: Ptr[Scalar[Sum[Self.S.T]]]
    """For each row of the block the a of `exact/rounding_error.mojo`."""
    var norms: Ptr[Float32]
    """Reciprocal norms of the rows of the block."""
    var packed: Ptr[Scalar[Sum[Self.S.T]]]
    var sums: Ptr[Scalar[Sum[Self.S.T]]]
    var scores: Ptr[Scalar[Level[Self.S]]]
    """Left sides of the test of one query and one panel of rows."""
    var queries: Int
    var failed: Bool
    """Whether memory was refused; nothing may be done with it then."""

    def __init__(out self, queries: Int, k: Int, bounds: Ptr[QueryBound], tiles: Int):
        """Makes the scratch of a worker that keeps `tiles` tiles of sums, 0 without tiles."""
        self.nearest = allocate[TopK](queries)
        self.failed = missing(self.nearest)
        self.queries = 0 if self.failed else queries
        for q in range(self.queries):
            self.nearest.unsafe_offset(q).unsafe_write(TopK(k))
            self.failed = self.failed or self.nearest[unsafe_offset=q].failed()
        var padded = (
            queries + PANEL_QUERIES - 1
        ) // PANEL_QUERIES * PANEL_QUERIES if tiles != 0 else 0
        self.levels = allocate[Scalar[Level[Self.S]]](padded)
        for q in range(0 if missing(self.levels) else padded):
            self.levels[unsafe_offset=q] = Scalar[Level[Self.S]].MIN
            if q < queries:
                self.levels[unsafe_offset=q] = bounds[unsafe_offset=q].level[Self.S](EMPTY_ENTRY)
        self.bounds = allocate_zeroed[Scalar[Sum[Self.S.T]]](BLOCK_ROWS)
        self.norms = allocate_zeroed[Float32](BLOCK_ROWS)
        self.packed = allocate[Scalar[Sum[Self.S.T]]](BLOCK_ROWS * BLOCK_WORDS if tiles != 0 else 0)
        self.sums = allocate[Scalar[Sum[Self.S.T]]](tiles * TILE)
        self.scores = allocate[Scalar[Level[Self.S]]](PANEL_ROWS)
        self.failed = (
            self.failed
            or missing(self.levels)
            or missing(self.bounds)
            or missing(self.norms)
            or missing(self.packed)
            or missing(self.sums)
            or missing(self.scores)
        )

    def __deinit__(deinit self):
        for q in range(self.queries):
            self.nearest.unsafe_offset(q).unsafe_deinit_pointee()
        release(self.nearest)
        release(self.levels)
        release(self.bounds)
        release(self.norms)
        release(self.packed)
        release(self.sums)
        release(self.scores)


@fieldwise_init
struct Scan[S: Space, scaled: Bool](TrivialRegisterPassable):
    """What the workers share while a chunk of queries meets the rows.

    Parameters:
        S: The space.
        scaled: Whether rows are brought to unit length on the way: `raw` ones of float types for cosine.
    """

    var source: RowSource
    var raw: Bool
    """Whether the rows are as a user gave them: unchecked, of any length for cosine, without norms."""
    var queries: Ptr[Query]
    var num_queries: Int
    var workers: Ptr[Worker[Self.S]]
    var check: Bool
    """Whether this is the pass that looks for bad rows."""
    var verdict: Ptr[Int64]
    """Code of the refusal of the first bad row, or Int64.MAX."""

    @always_inline
    def found_invalid(self, begin: Int) -> Bool:
        """Tells whether a bad row was found before this piece; earlier ones still have to be seen.
        """
        return self.raw and Atomic[Int64].load[ordering=Ordering.RELAXED](
            self.verdict.start
        ) < Int64(begin * 8)

    @always_inline
    def inspect(self, row: Int, mut norm: Float32) -> Bool:
        """Checks a raw row where that is due and finds its reciprocal norm; False if bad."""
        if self.raw and (self.check or Self.S.metric == COSINE):
            return self.inspect_raw(row, norm)
        return True

    @no_inline
    def inspect_raw(self, row: Int, mut norm: Float32) -> Bool:
        """Checks a row and finds its reciprocal norm; False if bad."""
        var found = inspect_row[Self.S, Self.S.T](
            self.source.rows.row[Self.S.T](row), self.source.rows.dim, norm
        )
        if found != FINE:
            Atomic[Int64].min(self.verdict.start, Int64(Outcome.refusal(row, found).code))
        return found == FINE

    @always_inline
    def key(self, query: Query, row: Int, norm: Float32) -> Int32:
        """Measures a query against a row whose reciprocal norm, if raw rows need one, is given."""
        comptime if Self.scaled:
            if norm < 0:
                return self.key_of_tiny(query, row, norm)
            return key_of_float(float_of_key(Self.S.key(query, self.source.rows, row)) * norm)
        elif Self.S.needs_norms:
            # the norm of a raw row is nowhere but here
            var here = norm
            var rows = self.source.rows
            if self.raw:
                rows.norms = Int(Pointer(to=here)) - row * 4
            var key = Self.S.key(query, rows, row)
            _ = here
            return key
        else:
            return Self.S.key(query, self.source.rows, row)

    @no_inline
    def key_of_tiny(self, query: Query, row: Int, norm: Float32) -> Int32:
        """Measures a query against a row so short that products with its elements would fall out of float32.
        """
        var stored = self.source.rows.row[Self.S.T](row)
        var elements = at[Float32](query.address)
        var sum = Float64(0)
        for i in range(self.source.rows.dim):
            var x = to_unit(to_float[Self.S.T, 1](stored[unsafe_offset=i]), norm)
            sum += (x * elements[unsafe_offset=i]).cast[DType.float64]()
        return key_of_float(0 - Float32(sum))


@fieldwise_init
struct FewQueries[S: Space, scaled: Bool](Body):
    """Measures all rows with the kernel; each row meets all queries while it is in the cache."""

    var scan: Scan[Self.S, Self.scaled]

    def run(self, begin: Int, end: Int, worker: Int):
        """Scans rows begin .. end-1."""
        if self.scan.found_invalid(begin):
            return
        if self.scan.source.on_disk:
            self.scan.source.ask(begin, end)
        ref mine = self.scan.workers[unsafe_offset=worker]
        var norm = Float32(1)
        for row in range(begin, end):
            if not self.scan.source.visible.is_visible(row):
                continue
            if not self.scan.inspect(row, norm):
                break
            for q in range(self.scan.num_queries):
                ref nearest = mine.nearest[unsafe_offset=q]
                var entry = entry_of(
                    self.scan.key(self.scan.queries[unsafe_offset=q], row, norm), row
                )
                if entry < nearest.bound():
                    nearest.insert(entry)
        if self.scan.source.shared_map:
            self.scan.source.drop_pages(begin, end)


@fieldwise_init
struct ManyQueries[S: Space, scaled: Bool](Body):
    """Passes over rows by tiles and measures those that are left."""

    var scan: Scan[Self.S, Self.scaled]
    var packed: Ptr[Scalar[Sum[Self.S.T]]]
    """Packed queries."""
    var bounds: Ptr[QueryBound]
    var centre: Ptr[Float32]
    var error: Float32

    def run(self, begin: Int, end: Int, worker: Int):
        """Scans rows begin .. end-1."""
        if self.scan.source.on_disk:
            self.scan.source.ask(begin, end)
        ref mine = self.scan.workers[unsafe_offset=worker]
        for block in range(begin, end, BLOCK_ROWS):
            if self.scan.source.visible.none_of(block, min(block + BLOCK_ROWS, end)):
                continue
            if self.scan.found_invalid(block) or not self.prepare(
                mine, block, min(block + BLOCK_ROWS, end)
            ):
                break
            self.meet(mine, block, min(block + BLOCK_ROWS, end))
        if self.scan.source.shared_map:
            self.scan.source.drop_pages(begin, end)

    def prepare(self, mut mine: Worker[Self.S], begin: Int, end: Int) -> Bool:
        """Checks the rows of a block and finds their side of the test."""
        var rows = self.scan.source.rows
        for row in range(begin, end):
            var norm = Float32(1)
            comptime if Self.S.needs_norms:
                if not self.scan.raw:
                    norm = rows.norm(row)
            if not self.scan.inspect(row, norm):
                return False
            mine.norms[unsafe_offset=row - begin] = norm
            mine.bounds[unsafe_offset=row - begin] = row_bound[Self.S, unit=Self.scaled](
                rows.row[Self.S.T](row), rows.dim, norm, self.centre, self.error
            )
        return True

    def meet(self, mut mine: Worker[Self.S], begin: Int, end: Int):
        """Brings a block of rows together with all queries."""
        comptime T = Self.S.T
        var words = words_of[T](self.scan.source.rows.dim)
        var step = block_words(words)
        var panels = (self.scan.num_queries + PANEL_QUERIES - 1) // PANEL_QUERIES
        var row_panels = (end - begin + PANEL_ROWS - 1) // PANEL_ROWS
        var whole = step >= words
        for group in range(0, panels, GROUP):
            var until = min(group + GROUP, panels)
            for first in range(0, words, step):
                var here = min(step, words - first)
                if not whole or group == 0:
                    pack_rows[
                        T,
                        centred=T.is_floating_point() and Self.S.metric == L2,
                        scaled=Self.scaled,
                    ](
                        self.scan.source.rows,
                        begin,
                        end - begin,
                        first,
                        here,
                        self.centre,
                        mine.norms,
                        mine.packed,
                    )
                var padded = (here + W - 1) // W * W
                for r in range(row_panels):
                    var rows = mine.packed.unsafe_offset(r * padded * PANEL_ROWS)
                    for p in range(group, until):
                        var sums = mine.sums
                        if not whole:
                            sums = sums.unsafe_offset((r * (until - group) + p - group) * TILE)
                        var queries = self.packed.unsafe_offset(
                            PANEL_QUERIES * (panels * first + p * here)
                        )
                        multiply[T](rows, queries, here, sums, first != 0)
                        if first + here == words:
                            self.prefilter(
                                mine, sums, p * PANEL_QUERIES, begin, r * PANEL_ROWS, end
                            )

    @always_inline
    def score(
        self, mine: Worker[Self.S], sums: SIMD[Sum[Self.S.T], W], q: Int, place: Int
    ) -> SIMD[Level[Self.S], W]:
        """Returns the left side of the test for W rows of the block."""
        comptime F = SIMD[DType.float32, W]
        var a = mine.bounds.unsafe_load[width=W](place)
        comptime factor: Int32 = 2 if Self.S.metric == L2 else 1
        comptime if Self.S.T.is_floating_point():
            return rebind[SIMD[Level[Self.S], W]](a - SIMD[Sum[Self.S.T], W](factor) * sums)
        elif exact_keys[Self.S]():
            var b = rebind[Scalar[Sum[Self.S.T]]](self.bounds[unsafe_offset=q].bias)
            return rebind[SIMD[Level[Self.S], W]](a + b - SIMD[Sum[Self.S.T], W](factor) * sums)
        else:
            var b = rebind[Scalar[Sum[Self.S.T]]](self.bounds[unsafe_offset=q].bias)
            var dot = rebind[SIMD[DType.int32, W]](sums + a + b)
            var value = (
                dot.cast[DType.uint32]().cast[DType.float32]() if Self.S.T
                == DType.uint8 else dot.cast[DType.float32]()
            )
            return rebind[SIMD[Level[Self.S], W]](
                F(0) - value * mine.norms.unsafe_load[width=W](place)
            )

    @always_inline
    def prefilter(
        self,
        mut mine: Worker[Self.S],
        sums: Ptr[Scalar[Sum[Self.S.T]]],
        first: Int,
        begin: Int,
        place: Int,
        end: Int,
    ):
        """Applies the test to the tile of queries from `first` and rows from begin + place."""
        comptime for i in range(PANEL_QUERIES):
            var level = SIMD[Level[Self.S], W](mine.levels[unsafe_offset=first + i])
            var low = self.score(mine, sums.unsafe_load[width=W](i * PANEL_ROWS), first + i, place)
            var high = self.score(
                mine, sums.unsafe_load[width=W](i * PANEL_ROWS + W), first + i, place + W
            )
            var near_low = low.le(level)
            var near_high = high.le(level)
            if (near_low | near_high).reduce_or():
                mine.scores.unsafe_store(0, low)
                mine.scores.unsafe_store(W, high)
                self.measure(
                    mine,
                    first + i,
                    begin,
                    place,
                    end,
                    Int(pack_bits[dtype=MASK](near_low.join(near_high))),
                )

    @no_inline
    def measure(
        self, mut mine: Worker[Self.S], q: Int, begin: Int, place: Int, end: Int, left: Int
    ):
        """Measures the rows of a panel that a query's test has left, one bit for each."""
        if q >= self.scan.num_queries:
            return
        ref nearest = mine.nearest[unsafe_offset=q]
        var query = self.scan.queries[unsafe_offset=q]
        var bits = left
        while bits != 0:
            var i = count_trailing_zeros(bits)
            bits &= bits - 1
            var row = begin + place + i
            var score = mine.scores[unsafe_offset=i]
            # the level sinks on the way
            if (
                row >= end
                or score > mine.levels[unsafe_offset=q]
                or not self.scan.source.visible.is_visible(row)
            ):
                continue
            var key: Int32
            comptime if exact_keys[Self.S]():
                key = rebind[Int32](score)
            else:
                key = self.scan.key(query, row, mine.norms[unsafe_offset=place + i])
            var entry = entry_of(key, row)
            if entry < nearest.bound():
                nearest.insert(entry)
                mine.levels[unsafe_offset=q] = self.bounds[unsafe_offset=q].level[Self.S](
                    nearest.bound()
                )
