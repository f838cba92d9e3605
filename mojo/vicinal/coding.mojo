"""Which codes an index walks on: the choice, making them for new rows, changing the choice when data want it."""
from std.atomic import Atomic, Ordering

from vicinal.candidates import Candidates, entry_of
from vicinal.code_space import CODE_LINE, Estimate
from vicinal.codes import EXACT, ROTATED, SCALED, STORED_ROWS, Codes, is_bytes
from vicinal.memory import Ptr, allocate, at, release
from vicinal.marks import stays
from vicinal.parallel import Body, Team, Watch
from vicinal.places import Places
from vicinal.rotation import padded_dim
from vicinal.shared import announce
from vicinal.space import COSINE, Measure, Query, Rows, Space, is_float

comptime AUTO = 0
"""What a user may ask for; the others are 1 + the kind of codes."""
comptime LEAST_SCALED = 32
"""Below this dimension walking on codes, padded to a line, was no faster than on float32 rows (10,000 SIFT rows cut short)."""
comptime LEAST_ROTATED = 96
"""From this dimension on 4 bits of a rotated row suffice; below, a padded code of 8 bits is as small and finer."""
comptime GRAIN = 64


def can_walk(kind: Int, metric: Int, dtype: Int) -> Bool:
    """Tells whether a kind of codes exists for a metric and a stored type."""
    if kind == STORED_ROWS:
        return True
    if kind == EXACT:  # cosine over integers divides by both norms, which exact codes do not carry
        return metric != COSINE
    return is_float(dtype)


def choose_kind(wanted: Int, metric: Int, dtype: Int, dim: Int, bytes_only: Bool) -> Int:
    """Decides what to walk on.

    Args:
        wanted: AUTO, or 1 + a kind of codes.
        metric: Code of the metric.
        dtype: Code of the stored type.
        dim: Elements of a row.
        bytes_only: Whether all rows hold whole numbers from 0 to 255 only.

    Returns:
        The kind of codes.
    """
    if wanted != AUTO:
        return wanted - 1
    if not is_float(dtype):
        return EXACT if can_walk(EXACT, metric, dtype) else STORED_ROWS
    if bytes_only and can_walk(EXACT, metric, dtype):
        return EXACT
    if dim < LEAST_SCALED:
        return STORED_ROWS
    return ROTATED if dim >= LEAST_ROTATED else SCALED


@fieldwise_init
struct LookForFractions[S: Space](Body):
    """Finds out whether rows hold anything but whole numbers from 0 to 255."""

    var rows: Rows
    var places: Places
    var found: Ptr[Int64]

    def run(self, begin: Int, end: Int, worker: Int):
        """Looks at places begin .. end-1."""
        for i in range(begin, end):
            if Atomic[Int64].load[ordering=Ordering.RELAXED](self.found) != 0:
                return
            if not is_bytes[Self.S.T](self.rows.row[Self.S.T](self.places.row(i)), self.rows.dim):
                Atomic[Int64].store[ordering=Ordering.RELAXED](self.found, 1)


def all_bytes[
    S: Space, V: Watch
](rows: Rows, places: Places, count: Int, team: Team, mut watch: V) -> Bool:
    """Tells whether the rows of so many places hold whole numbers from 0 to 255 only."""
    comptime if not S.T.is_floating_point() or S.metric == COSINE:
        return False
    var found = Int64(0)
    var look = LookForFractions[S](
        rows, places, Pointer(to=found).unsafe_origin_cast[MutUntrackedOrigin]()
    )
    _ = team.run(count, GRAIN, look, watch)
    return found == 0


@fieldwise_init
struct Encode[S: Space](Body):
    """Encodes rows."""

    var codes: Ptr[Codes]
    var rows: Rows
    var places: Places

    def run(self, begin: Int, end: Int, worker: Int):
        """Encodes the rows of places begin .. end-1."""
        var work = allocate[Float32](padded_dim(self.rows.dim))
        for i in range(begin, end):
            self.codes[].encode[Self.S.T](self.rows, self.places.row(i), work)
        release(work)


def encode_rows[
    S: Space, V: Watch
](codes: Ptr[Codes], rows: Rows, written: Places, until: Int, team: Team, mut watch: V) -> Int:
    """Encodes rows that have no codes yet, and those that were written over.

    Args:
        codes: The codes.
        rows: The rows.
        written: A list of rows that were written over.
        until: The rows that there will be.
        team: Workers.
        watch: May end the work early.

    Returns:
        1 when done, 0 when `watch` ended it, -1 when memory is out; codes of other rows stand in any case.
    """
    if codes[].kind == STORED_ROWS:
        return 1
    if not codes[].grow(until):
        return -1
    var first = codes[].count
    if first != 0 and not team.run(written.listed, GRAIN, Encode[S](codes, rows, written), watch):
        return 0
    if not team.run(until - first, GRAIN, Encode[S](codes, rows, Places.from_row(first)), watch):
        return 0
    announce(codes[].count, until)
    return 1


def new_codes[
    S: Space
](kind: Int, dtype: Int, rows: Rows, marks: Int, count: Int, seed: Int) -> Ptr[Codes]:
    """Makes codes of a kind for some rows, none encoded yet; estimating ones are centred on a sample of those that are there.
    """
    var codes = allocate[Codes](1)
    codes.unsafe_write(Codes(kind, S.metric, dtype, rows.dim, seed))
    codes[].centre_on[S.T](rows, marks, count)
    return codes


comptime SAMPLE_QUERIES = 64
comptime SAMPLE_ROWS = 2048
comptime NEAREST = 10
comptime ALLOWED = 20
"""Places among which the estimates must have the nearest rows of the sample. Fewer than a search measures again, because
neighbours lie closer together among all rows than in a sample."""
comptime ENOUGH = 0.98


def finer(kind: Int) -> Int:
    """Returns the kind to try when the estimates of a kind are too coarse for the data."""
    return SCALED if kind == ROTATED else STORED_ROWS


def check_due(codes: Codes, until: Int) -> Bool:
    """Tells whether estimates have to be checked again: a quarter of the rows is new since they were.
    """
    return codes.kind > EXACT and 4 * codes.checked <= 3 * until


def estimates_fit[S: Space](codes: Codes, rows: Rows, marks: Int, first: Int, until: Int) -> Bool:
    """Tells whether estimated distances find the neighbours of rows first .. until-1 in a sample of all rows.

    Removed rows, which `marks` tells unless it is 0, are left out.

    They do not where rows lie so far from the codes' centre that the error, which grows with that distance, is as large as
    the differences between near neighbours: heaps far apart, or rows that have moved since the centre was taken.
    """
    comptime if not S.T.is_floating_point():
        return True
    if codes.kind == SCALED:
        return _sample_fits[S, Estimate[8]](codes, rows, marks, first, until)
    return _sample_fits[S, Estimate[4]](codes, rows, marks, first, until)


def _sample_fits[
    S: Space, M: Measure
](codes: Codes, rows: Rows, marks: Int, first: Int, until: Int) -> Bool:
    var exact = Candidates()
    var estimated = Candidates()
    var size = padded_dim(rows.dim)
    var widened = allocate[UInt8](4 * size + CODE_LINE)
    var work = allocate[Float32](size)
    var prepared = allocate[UInt8](codes.query_bytes())
    var coded = codes.rows(rows)
    var queries = min(SAMPLE_QUERIES, until - first)
    var sampled = min(SAMPLE_ROWS, until)
    var found = 0
    var wanted = 0
    for i in range(queries):
        var row = first + i * (until - first) // queries
        if not stays(marks, row):
            continue
        var query = S.query_of_row(rows, row, Int(widened))
        codes.prepare[S.Q](at[Scalar[S.Q]](query.address), prepared, work)
        exact.reset(NEAREST)
        estimated.reset(ALLOWED)
        for j in range(sampled):
            var other = j * until // sampled
            if other == row or not stays(marks, other):
                continue
            _offer(exact, entry_of(S.key(query, rows, other), other))
            _offer(estimated, entry_of(M.key(Query(Int(prepared), 1), coded, other), other))
        wanted += exact.size
        if exact.size == 0:
            continue
        var near = 0  # counted by distance: of rows equally near, any will do
        for j in range(estimated.size):
            near += Int(S.key(query, rows, estimated.node(j)) <= exact.key(exact.size - 1))
        found += min(near, exact.size)
    release(widened)
    release(work)
    release(prepared)
    return Float64(found) >= ENOUGH * Float64(wanted)


@always_inline
def _offer(mut nearest: Candidates, entry: Int64):
    if entry < nearest.worst():
        nearest.insert(entry)
