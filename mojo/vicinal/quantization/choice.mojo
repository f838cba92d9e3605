"""Which codes an index walks on: the choice, making them for new rows, changing the choice when data want it."""
from std.atomic import Atomic, Ordering

from vicinal.kernels.any_distance import KeyFunction
from vicinal.kernels.candidates import Candidates, entry_of
from vicinal.kernels.space import COSINE, Query, Rows, Space
from vicinal.kernels.stored_type import is_coded, is_float
from vicinal.quantization.code_products import CODE_LINE
from vicinal.quantization.code_space import Estimate
from vicinal.quantization.code_table import (
    U8,
    RABITQ4,
    SQ8,
    NO_CODES,
    Codes,
    codes_on_heap,
    drop_codes,
    is_bytes,
)
from vicinal.quantization.rotation import padded_dim
from vicinal.quantization.sampled_rows import SampledRows
from vicinal.rows.row_states import stays
from vicinal.rows.row_targets import TargetRows
from vicinal.system.atomics import store_release
from vicinal.system.memory import Ptr, allocate, at, missing, no_block, release
from vicinal.system.outcome import DONE, NO_MEMORY, Outcome, STOPPED
from vicinal.system.pages import PageUse
from vicinal.system.parallel import Body, Team, Watch

comptime AUTO = 0
"""What a user may ask for; the others are 1 + the kind of codes."""
comptime LEAST_SQ8_DIM = 32
"""Below this dimension walking on codes, padded to a line, was no faster than on float32 rows (10,000 SIFT rows cut short)."""
comptime LEAST_RABITQ4_DIM = 96
"""From this dimension on 4 bits of a rotated row suffice; below, a padded code of 8 bits is as small and finer."""
comptime GRAIN = 64
comptime SAMPLE_QUERIES = 64
comptime SAMPLE_ROWS = 2048
comptime NEAREST = 10
comptime ALLOWED = 20
"""Places among which the estimates must have the nearest rows of the sample. Fewer than a search measures again, because
neighbours lie closer together among all rows than in a sample."""
comptime ENOUGH = 0.98
comptime STRAYS = 16
"""If more than one of so many rows lies where estimates do not serve, a new centre or other codes have to."""
comptime UNFIT = 0
comptime FIT = 1
comptime UNKNOWN = -1


def can_walk(kind: Int, metric: Int, dtype: Int) -> Bool:
    """Tells whether a kind of codes exists for a metric and a stored type."""
    if kind == NO_CODES:
        return True
    if kind == U8 and not is_coded(
        dtype
    ):  # cosine over integers divides by both norms, which exact codes do not carry
        return metric < COSINE  # nor are there any for packed bits
    return is_float(dtype) and not is_coded(dtype)


def choose_kind(
    wanted: Int, metric: Int, dtype: Int, dim: Int, bytes_only: Bool, walk_dim: Int = 0
) -> Int:
    """Decides what to walk on.

    Args:
        wanted: AUTO, or 1 + a kind of codes.
        metric: Code of the metric.
        dtype: Code of the stored type.
        dim: Elements of a row.
        bytes_only: Whether all rows hold whole numbers from 0 to 255 only.
        walk_dim: Elements that codes are to hold, 0 for all.

    Returns:
        The kind of codes.
    """
    if wanted != AUTO:
        return wanted - 1
    if walk_dim != 0:
        return RABITQ4 if walk_dim >= LEAST_RABITQ4_DIM else SQ8
    if is_coded(dtype):
        return NO_CODES
    if not is_float(dtype):
        return U8 if can_walk(U8, metric, dtype) else NO_CODES
    if bytes_only and can_walk(U8, metric, dtype):
        return U8
    if dim < LEAST_SQ8_DIM:
        return NO_CODES
    return RABITQ4 if dim >= LEAST_RABITQ4_DIM else SQ8


@fieldwise_init
struct FindFractions[S: Space](Body):
    """Finds out whether rows hold anything but whole numbers from 0 to 255."""

    var rows: Rows
    var places: TargetRows
    var until: Int
    """The rows that there will be."""
    var pages: PageUse
    """What is done about the pages of rows that are read, if they follow each other."""
    var found: Ptr[Int64]

    def run(self, begin: Int, end: Int, worker: Int):
        """Looks at places begin .. end-1."""
        for i in range(begin, end):
            if Atomic[Int64].load[ordering=Ordering.RELAXED](self.found.start) != 0:
                return
            if i == begin:
                var row = self.places.row(begin)
                self.pages.ask_for(
                    self.rows.base, self.rows.stride, self.until, row, row + end - begin
                )
            if not is_bytes[Self.S.T](self.rows.row[Self.S.T](self.places.row(i)), self.rows.dim):
                Atomic[Int64].store[ordering=Ordering.RELAXED](self.found.start, 1)
        var row = self.places.row(begin)
        self.pages.have_read(self.rows.base, self.rows.stride, row, row + end - begin)


def all_bytes[
    S: Space, V: Watch
](
    rows: Rows,
    places: TargetRows,
    count: Int,
    team: Team,
    mut watch: V,
    pages: PageUse = PageUse.in_memory(),
) -> Bool:
    """Tells whether the rows of so many places hold whole numbers from 0 to 255 only."""
    comptime if not S.T.is_floating_point() or S.metric == COSINE or S.bits != 0:
        return False
    var found = Int64(0)
    var look = FindFractions[S](
        rows,
        places,
        count,
        pages,
        Pointer(to=found).unsafe_origin_cast[MutUntrackedOrigin](),
    )
    _ = team.run(count, GRAIN, look, watch)
    return found == 0


@fieldwise_init
struct Encode[S: Space](Body):
    """Encodes rows."""

    var codes: Ptr[Codes]
    var rows: Rows
    var places: TargetRows
    var work: Ptr[Float32]
    """Room for `padded_dim(dim)` floats for each worker."""
    var until: Int
    var pages: PageUse
    """As for `FindFractions`."""

    def run(self, begin: Int, end: Int, worker: Int):
        """Encodes the rows of places begin .. end-1."""
        var row = self.places.row(begin)
        self.pages.ask_for(self.rows.base, self.rows.stride, self.until, row, row + end - begin)
        var work = self.work.unsafe_offset(worker * padded_dim(self.rows.dim))
        for i in range(begin, end):
            self.codes[].encode[Self.S.T](self.rows, self.places.row(i), work)
        self.pages.have_read(self.rows.base, self.rows.stride, row, row + end - begin)


def encode_rows[
    S: Space, V: Watch
](
    codes: Ptr[Codes],
    rows: Rows,
    written: TargetRows,
    until: Int,
    team: Team,
    mut watch: V,
    pages: PageUse = PageUse.in_memory(),
) -> Outcome:
    """Encodes rows that have no codes yet, and those that were written over.

    Args:
        codes: The codes.
        rows: The rows.
        written: A list of rows that were written over.
        until: The rows that there will be.
        team: Workers.
        watch: May end the work early.
        pages: What is done about the pages of the new rows.

    Returns:
        DONE, STOPPED or NO_MEMORY; codes of other rows stand in any case.
    """
    if codes[].kind == NO_CODES:
        return DONE
    if not codes[].grow(until):
        return NO_MEMORY
    var first = codes[].count
    var work = allocate[Float32](team.size() * padded_dim(rows.dim))
    if missing(work):
        return NO_MEMORY
    var again = Encode[S](codes, rows, written, work, until, PageUse.in_memory())
    var new = Encode[S](codes, rows, TargetRows.from_row(first), work, until, pages)
    var finished = (first == 0 or team.run(written.listed, GRAIN, again, watch)) and team.run(
        until - first, GRAIN, new, watch
    )
    release(work)
    if finished:
        store_release(codes[].count, until)
    return DONE if finished else STOPPED


def new_codes[
    S: Space
](
    kind: Int,
    dtype: Int,
    rows: Rows,
    states: Int,
    count: Int,
    seed: Int,
    pages: PageUse = PageUse.in_memory(),
    walk_dim: Int = 0,
) -> Ptr[Codes]:
    """Makes codes of a kind for some rows, none encoded yet; estimating ones are centred on a sample of those that are there.

    Returns:
        The codes, or what `missing` knows.
    """
    var codes = codes_on_heap(kind, S.metric, dtype, rows.dim, seed, walk_dim)
    if missing(codes) or codes[].centre_on[S.T](rows, states, count, pages):
        return codes
    drop_codes(codes)
    return no_block[Codes]()


def finer(kind: Int) -> Int:
    """Returns the kind to try when the estimates of a kind are too coarse for the data."""
    return SQ8 if kind == RABITQ4 else NO_CODES


def check_due(codes: Codes, until: Int) -> Bool:
    """Tells whether estimates have to be checked again: a quarter of the rows is new since they were.
    """
    return codes.kind > U8 and 4 * codes.checked <= 3 * until


def estimates_fit[
    S: Space
](
    codes: Codes,
    rows: Rows,
    states: Int,
    first: Int,
    until: Int,
    pages: PageUse = PageUse.in_memory(),
) -> Int:
    """Tells, by FIT, UNFIT or UNKNOWN when memory is out, whether estimated distances find the neighbours of rows first .. until-1 in a sample of all rows.

    Removed rows, which `states` tells unless it is 0, are left out.

    They need not for a few rows that lie beyond the reach of estimates: queries there do not walk on them. They do not where rows lie so far from the codes' centre that the error, which grows with that distance, is as large as
    the differences between near neighbours: heaps far apart, or rows that have moved since the centre was taken.
    """
    comptime if not S.T.is_floating_point():
        return FIT
    var estimate: KeyFunction = Estimate[4].key
    if codes.kind == SQ8:
        estimate = Estimate[8].key
    return _sample_fits(S.key, S.query_of_row, estimate, codes, rows, states, first, until, pages)


def _sample_fits(
    measure: KeyFunction,
    query_of_row: def(Rows, Int, Int) thin -> Query,
    estimate: KeyFunction,
    codes: Codes,
    rows: Rows,
    states: Int,
    first: Int,
    until: Int,
    pages: PageUse,
) -> Int:
    var exact = Candidates()
    var estimated = Candidates()
    var size = padded_dim(rows.dim)
    var widened = allocate[UInt8](4 * size + CODE_LINE)
    var work = allocate[Float32](size)
    var prepared = allocate[UInt8](codes.query_bytes())
    if exact.failed or estimated.failed or missing(widened) or missing(work) or missing(prepared):
        release(widened)
        release(work)
        release(prepared)
        return UNKNOWN
    var coded = codes.rows(rows)
    var queries = min(SAMPLE_QUERIES, until - first)
    var sampled = min(SAMPLE_ROWS, until)
    var numbers = allocate[UInt32](sampled)
    for j in range(0 if missing(numbers) else sampled):
        numbers[unsafe_offset=j] = UInt32(j * until // sampled)
    # each query looks at all of the sample: on disk that would be read again and again
    var copies = SampledRows(
        rows, numbers, 0 if missing(numbers) or not pages.on_disk else sampled, pages
    )
    release(numbers)
    if missing(numbers) or missing(copies.copy):
        release(widened)
        release(work)
        release(prepared)
        return UNKNOWN
    var stored = copies.rows if pages.on_disk else rows
    var found = 0
    var wanted = 0
    var strays = 0
    for i in range(queries):
        var row = first + i * (until - first) // queries
        if not stays(states, row):
            continue
        var query = query_of_row(rows, row, Int(widened))
        if not codes.serve(at[Float32](query.address)):
            strays += 1
            pages.have_read(rows.base, rows.stride, row, row + 1)
            continue
        codes.prepare[DType.float32](at[Float32](query.address), prepared, work)
        exact.reset(NEAREST)
        estimated.reset(ALLOWED)
        for j in range(sampled):
            var other = j * until // sampled
            if other == row or not stays(states, other):
                continue
            var place = j if pages.on_disk else other
            _offer(exact, entry_of(measure(query, stored, place), place))
            _offer(estimated, entry_of(estimate(Query(Int(prepared), 1), coded, other), place))
        wanted += exact.size
        if exact.size == 0:
            continue
        var near = 0  # counted by distance: of rows equally near, any will do
        for j in range(estimated.size):
            near += Int(measure(query, stored, estimated.node(j)) <= exact.key(exact.size - 1))
        found += min(near, exact.size)
        pages.have_read(rows.base, rows.stride, row, row + 1)
    release(widened)
    release(work)
    release(prepared)
    _ = copies^
    if exact.failed or estimated.failed:
        return UNKNOWN
    if strays * STRAYS > queries:
        return UNFIT
    return FIT if Float64(found) >= ENOUGH * Float64(wanted) else UNFIT


@always_inline
def _offer(mut nearest: Candidates, entry: Int64):
    if entry < nearest.worst():
        nearest.insert(entry)
