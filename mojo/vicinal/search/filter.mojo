"""Which rows a search may return, and by which way they are found.

A filter is one bit for each row, set for rows that are allowed and there. It is made once for each call and each distinct
filter in it, of the call's snapshot, and belongs to that call: a row number may mean another vector later.
"""
from std.bit import count_trailing_zeros, pop_count
from std.math import sqrt
from std.memory import pack_bits
from std.sys import simd_width_of

from vicinal.index.snapshot import Snapshot
from vicinal.index.vector_index import Index
from vicinal.rows.duplicates import Duplicates
from vicinal.rows.visibility import Visibility
from vicinal.system.memory import Ptr, allocate, allocate_zeroed, missing, no_block, release
from vicinal.system.pointer import copy_items
from vicinal.walk.interleaved import CACHED

comptime EVERYTHING = 0
"""No filter: a plain search."""
comptime SCAN = 1
"""All allowed rows are measured."""
comptime BEAM = 2
"""The plain walk; allowed rows are collected on the way."""
comptime TWO_HOP = 3
"""A walk over allowed rows only, through those that are not."""
comptime WALK = 4
"""The plain walk begins; what it meets decides for each query how to go on."""
comptime CHOOSE = -1
"""Lets the costs decide between SCAN and WALK."""
comptime SEEDS = 32
"""Allowed rows, spread over all of them, that a walk over allowed rows starts from besides where the descent ends."""
comptime WORD = 64
comptime LISTED_AT_ONCE = 4
"""Bits of a word that are listed whether they are set or not."""
comptime ROW_NANOSECONDS = 1.8
comptime BYTE_NANOSECONDS = 0.02
"""A row that is scanned takes the one, and the other for each of its bytes."""
comptime HOP_NANOSECONDS = 150.0
comptime HOP_ROWS = 10.0
"""A hop takes the one, and as long as a scan of so many rows."""
comptime FAR_NANOSECONDS = 250.0
"""What a hop takes besides where codes and links do not stay in the cache."""
comptime TWO_HOP_COST = 8.0
"""Time of a walk over allowed rows only, in plain hops for each of the search width."""
comptime UNUSUAL = 3
"""Where a walk meets so many times fewer allowed rows than there are among all, the filter is against the query."""
comptime SPARSE_BELOW = 8
"""If fewer than one in so many rows around the query is allowed, a plain walk would have to be very wide."""
comptime WIDER = 1.15


struct Filter(Movable):
    """The rows that one search, or several of one call, may return."""

    var words: Ptr[UInt64]
    """A bit for each row and at least one more, which is never set."""
    var nodes: Ptr[UInt64]
    """The same for walks, where a row stands for its copies as well: set if one of them is allowed."""
    var rows: Int
    """Rows that there were when it was made; later ones, which walks may meet, are not allowed."""
    var room: Int
    """Rows that have bits."""
    var matches: Int
    """Rows allowed."""
    var plan: Int
    """How queries are answered: EVERYTHING to WALK."""
    var listed: Ptr[UInt32]
    """Allowed rows in ascending order: all of them where they are scanned, else the seeds."""
    var num_listed: Int
    var two_hop_pays: Bool
    """Whether a walk over allowed rows only costs less than a scan of them."""
    var failed: Bool
    """Whether memory was refused: nothing may be done with it then."""

    def __init__(out self, rows: Int, met: Int):
        """Makes a filter that allows none of `rows` rows, nor of more that walks may meet up to row `met`.
        """
        self.room = max(rows, met)
        self.words = allocate_zeroed[UInt64](self.room // WORD + 1)
        self.failed = missing(self.words)
        self.nodes = self.words
        self.rows = rows
        self.matches = 0
        self.plan = SCAN
        self.listed = no_block[UInt32]()
        self.num_listed = 0
        self.two_hop_pays = False

    def __deinit__(deinit self):
        if self.nodes != self.words:
            release(self.nodes)
        release(self.words)
        release(self.listed)

    @always_inline
    def has(self, row: Int) -> Bool:
        """Tells whether a row is allowed; `row` must not exceed `room`."""
        return allows(self.words, row)

    @always_inline
    def walks(self) -> Bool:
        """Tells whether queries are answered through the graph."""
        return self.plan != SCAN and self.plan != EVERYTHING

    def allow_flags(mut self, flags: Ptr[UInt8], length: Int, visible: Visibility):
        """Allows the rows whose byte is not zero; `flags` has one for each row that is seen, in order of rows.

        Whatever a damaged file says of its rows, no more than `length` bytes are read.
        """
        if visible.states != 0:
            var next = 0
            for row in range(self.rows):
                if next == length:
                    break
                if visible.is_visible(row):
                    if flags[unsafe_offset=next] != 0:
                        set_bit(self.words, row)
                    next += 1
            self.count()
            return
        var rows = min(self.rows, length)
        var whole = rows // WORD
        for i in range(whole):
            var set = flags.unsafe_load[width=WORD](i * WORD).ne(0)
            self.words[unsafe_offset=i] = pack_bits[dtype=DType.uint64](set)
        for row in range(whole * WORD, rows):
            if flags[unsafe_offset=row] != 0:
                set_bit(self.words, row)
        self.count()

    def allow_bits(mut self, bits: Ptr[UInt8], length: Int, visible: Visibility):
        """Does what `allow_flags` does with bits, eight in a byte, the lowest the first; those behind the last row are not looked at.

        Args:
            bits: A bit for each row that is seen, in order of rows, in whole bytes.
            length: How many rows that are.
            visible: Which rows are seen.
        """
        if visible.states != 0:
            var next = 0
            for row in range(self.rows):
                if next == length:
                    break
                if visible.is_visible(row):
                    if (bits[unsafe_offset=next // 8] >> UInt8(next % 8)) & 1 != 0:
                        set_bit(self.words, row)
                    next += 1
            self.count()
            return
        var rows = min(self.rows, length)
        copy_items(dest=self.words.unsafe_bitcast[UInt8](), src=bits, count=(rows + 7) // 8)
        if rows % WORD != 0:
            self.words[unsafe_offset=rows // WORD] &= (UInt64(1) << UInt64(rows % WORD)) - 1
        self.count()

    def allow_ids(mut self, mut index: Index, ids: Ptr[Int64], count: Int):
        """Allows the rows of some ids; unknown ones stand for nothing, repeated ones for one row.

        Safety:
            The table of ids must not change meanwhile: the caller holds the GIL, and `know_ids` has made the table.
        """
        for i in range(count):
            var row = index.row_of(ids[unsafe_offset=i])
            if row >= 0 and row < self.rows:
                set_bit(self.words, row)
        self.count()

    def count(mut self):
        """Counts the rows allowed."""
        comptime LANES = simd_width_of[DType.uint64]()
        var words = self.room // WORD + 1
        var sums = SIMD[DType.uint64, LANES](0)
        var i = 0
        while i + LANES <= words:
            sums += pop_count(self.words.unsafe_load[width=LANES](i))
            i += LANES
        var matches = Int(sums.reduce_add())
        while i < words:
            matches += Int(pop_count(self.words[unsafe_offset=i]))
            i += 1
        self.matches = matches

    def list_rows(mut self, wanted: Int):
        """Lists `wanted` allowed rows, spread evenly over all of them; all if `wanted` is `matches`.
        """
        release(self.listed)
        self.listed = no_block[UInt32]()
        self.num_listed = 0
        if wanted == 0:
            return
        self.listed = allocate[UInt32](wanted + LISTED_AT_ONCE)
        if missing(self.listed):
            self.failed = True
            return
        self.num_listed = wanted
        if wanted == self.matches:
            self._list_all()
        else:
            self._list_some()

    def _list_all(mut self):
        var taken = 0
        for i in range(self.room // WORD + 1):
            taken = list_bits(self.words[unsafe_offset=i], i * WORD, self.listed, taken)

    def _list_some(mut self):
        var taken = 0
        var before = 0
        var wanted = 0  # the allowed row that is listed next, by its place among all
        for i in range(self.room // WORD + 1):
            var bits = self.words[unsafe_offset=i]
            var until = before + Int(pop_count(bits))
            while taken < self.num_listed and wanted < until:
                var here = bits
                for _ in range(wanted - before):
                    here &= here - 1
                self.listed[unsafe_offset=taken] = UInt32(
                    i * WORD + Int(count_trailing_zeros(here))
                )
                taken += 1
                wanted = taken * self.matches // self.num_listed
            before = until

    def prepare(mut self, index: Index, snapshot: Snapshot, k: Int, width: Int, wanted: Int):
        """Decides how queries are answered and lists the rows that takes.

        Args:
            index: The index.
            snapshot: What the call sees of it.
            k: Neighbours wanted.
            width: The search width of the call, at least k.
            wanted: A plan, or CHOOSE.
        """
        self.plan = wanted
        if snapshot.exact(width) or self.matches <= max(2 * k, SEEDS):
            self.plan = SCAN
        elif wanted == CHOOSE:
            var costs = Costs(index.walked_row_bytes(), index.walked_bytes() > CACHED)
            var scan = costs.row * Float64(self.matches)
            var plain = costs.hop * Float64(widened(width, self.matches, self.rows))
            var two_hop = costs.hop * TWO_HOP_COST * Float64(width)
            self.plan = SCAN if scan <= min(plain, two_hop) else WALK
            self.two_hop_pays = two_hop < scan
        if self.plan == SCAN:
            self.list_rows(self.matches)
        elif self.plan == TWO_HOP or self.two_hop_pays:
            self.list_rows(min(SEEDS, self.matches))
        if self.plan != SCAN and index.duplicates.known() != 0:
            self.find_nodes(index.duplicates)

    def find_nodes(mut self, duplicates: Duplicates):
        """Sets the bits of `nodes`."""
        var words = self.room // WORD + 1
        if self.nodes == self.words:
            var nodes = allocate[UInt64](words)
            if missing(nodes):
                self.failed = True
                return
            self.nodes = nodes
        for i in range(words):
            self.nodes[unsafe_offset=i] = self.words[unsafe_offset=i]
        var known = duplicates.known()
        var left = known  # each row is in one ring at most; those of a damaged file may have no end
        for row in range(min(known, self.rows)):
            var last = duplicates.last_of(row, known)
            var copy = duplicates.first_of(last, known)
            while copy >= 0 and left > 0:
                left -= 1
                if copy < self.rows:
                    clear_bit(self.nodes, copy)
                    if self.has(copy):
                        set_bit(self.nodes, row)
                copy = duplicates.after(copy, last, known)


@always_inline
def list_bits(word: UInt64, first: Int, into: Ptr[UInt32], listed: Int) -> Int:
    """Lists the bits set in a word, behind those that are listed; returns how many are then.

    Args:
        word: The bits.
        first: What the lowest one stands for.
        into: Room for LISTED_AT_ONCE more than there are.
        listed: How many are listed.
    """
    if word == 0:
        return listed
    var bits = word
    var here = into.unsafe_offset(listed)
    # some without asking whether there are so many: where few are set, that could not be foretold
    comptime for i in range(LISTED_AT_ONCE):
        here[unsafe_offset=i] = UInt32(first + Int(count_trailing_zeros(bits)))
        bits &= bits - 1
    var next = LISTED_AT_ONCE
    while bits != 0:
        here[unsafe_offset=next] = UInt32(first + Int(count_trailing_zeros(bits)))
        bits &= bits - 1
        next += 1
    return listed + Int(pop_count(word))


@always_inline
def allows(words: Ptr[UInt64], row: Int) -> Bool:
    """Tells whether the bit of a row is set."""
    return (words[unsafe_offset=row // WORD] >> UInt64(row % WORD)) & 1 != 0


@always_inline
def set_bit(words: Ptr[UInt64], row: Int):
    """Sets the bit of a row."""
    words[unsafe_offset=row // WORD] |= UInt64(1) << UInt64(row % WORD)


@always_inline
def clear_bit(words: Ptr[UInt64], row: Int):
    """Clears the bit of a row."""
    words[unsafe_offset=row // WORD] &= ~(UInt64(1) << UInt64(row % WORD))


def widened(width: Int, met: Int, of: Int) -> Int:
    """Returns how many candidates a plain walk keeps if `met` of `of` rows are allowed.

    All rows that the walk measures are looked at, not only those it keeps, so that it needs less than 1 / share times the
    width; this much gave at least the recall of the unfiltered search on three sets (shares 0.5 and 0.2).
    """
    var share = Float64(max(met, 1)) / Float64(max(of, 1))
    return Int(WIDER * Float64(width) / (sqrt(share) * sqrt(sqrt(share))))  # share ** -0.75


@fieldwise_init
struct Costs(TrivialRegisterPassable):
    """What the steps of a search take, in nanoseconds; only their ratio matters."""

    var row: Float64
    """A row of a scan."""
    var hop: Float64
    """A hop of a plain walk."""

    def __init__(out self, row_bytes: Int, far: Bool):
        """Estimates them.

        Args:
            row_bytes: Bytes of what is measured: a code, or a stored row.
            far: Whether what is walked on does not stay in the cache.
        """
        self.row = ROW_NANOSECONDS + BYTE_NANOSECONDS * Float64(row_bytes)
        self.hop = HOP_NANOSECONDS + HOP_ROWS * self.row
        if far:
            self.hop += FAR_NANOSECONDS


@fieldwise_init
struct FilterChoice(TrivialRegisterPassable):
    """The filters of a call, and which of them each query has."""

    var snapshot: Snapshot
    """What the call sees, and what the filters were made of; the caller has pinned the epoch in which it was taken."""
    var filters: Ptr[Filter]
    """Prepared; one of plan EVERYTHING allows all rows."""
    var which: Ptr[Int64]
    """The filter of each query."""

    @always_inline
    def of(self, i: Int) -> ref[MutUntrackedOrigin] Filter:
        """Returns the filter of query i."""
        return self.filters[unsafe_offset=Int(self.which[unsafe_offset=i])]
