"""What a search needs of the space of the stored rows, told at run time, and what it walks on: the one decision about that.

All of it happens once a query, so that walks are compiled for what they measure and not for what is stored besides.
"""

from vicinal.index.snapshot import Snapshot
from vicinal.kernels.any_distance import AnyDistance, CompiledIn, Measure
from vicinal.kernels.candidates import Candidates, entry_of
from vicinal.kernels.in_space import SpaceTask, in_space
from vicinal.kernels.inspect_row import inspect_row, to_unit
from vicinal.kernels.measure_rows import HopDistance
from vicinal.kernels.space import COSINE, HAMMING, IP, L2, MetricSpace, Query, Rows, Space
from vicinal.kernels.stored_type import dtype_code, is_float
from vicinal.quantization.code_space import (
    CODE_LINE,
    Estimate,
    FloatsOnCodes,
    PreparedFloats,
    U8Codes,
)
from vicinal.quantization.code_table import NO_CODES, RABITQ4, U8, Codes, is_bytes
from vicinal.quantization.rotation import padded_dim
from vicinal.rows.row_states import BLOCK
from vicinal.rows.visibility import Visibility
from vicinal.system.memory import Ptr, at
from vicinal.system.pointer import copy_items
from vicinal.system.pages import ReadAhead
from vicinal.system.point import point, touches
from vicinal.walk.scratch import Scratch

comptime ON_CODES_BY_FLOATS = -1
"""Walks measure 8-bit codes that hold the rows exactly, as the stored rows are measured."""
comptime ON_ROWS = 0
"""Walks measure the stored rows."""
comptime ON_EXACT_CODES = 1
"""Walks measure 8-bit codes that hold the rows exactly."""
comptime ON_4_BITS = 2
"""Walks measure codes that estimate distances."""
comptime ON_8_BITS = 3


@always_inline
def estimates(way: Int) -> Bool:
    """Tells whether walks go by estimates, so that candidates have to be measured again."""
    return way >= ON_4_BITS


@fieldwise_init
struct StoredSpace(TrivialRegisterPassable):
    """The space of the stored rows, as functions."""

    var metric: Int
    var dtype: Int
    var inspect: def(Int, Int) thin -> Int
    """Checks a query of so many elements at an address; returns FINE or why it is refused."""
    var query: def(Int, Int, mut Scratch) thin -> Query
    """Makes a query for measuring stored rows."""
    var prepare: def(Codes, Query, Int, mut Scratch) thin -> Query
    """Makes a query for measuring codes."""
    var measured: def(Rows, mut Measure) thin -> Rows
    """Returns stored rows as `AnyDistance` measures them; see `Measure.rows`."""
    var scan: def(Rows, Bool, Visibility, Query, mut Candidates) thin -> None
    """Measures all rows that are seen and keeps the nearest."""
    var value: def(Int32) thin -> Float32
    """Returns the distance that a stored row's key stands for."""
    var values: def(Candidates, Int, Ptr[Float32]) thin -> None
    """Writes the distances of so many candidates."""
    var code_value: def(Int32) thin -> Float32
    """The same two for keys of exact codes."""
    var code_values: def(Candidates, Int, Ptr[Float32]) thin -> None

    @staticmethod
    @no_inline
    def of[S: Space]() -> Self:
        """Makes it of a space."""
        comptime Exact = U8Codes[IP if S.metric == IP else L2, S.T == DType.int8]
        return Self(
            S.metric,
            S.code,
            _inspect[S],
            _query[S],
            _prepare[S.Q],
            _rows[S],
            scan[S],
            S.value,
            _values[S.value],
            Exact.value,
            _values[Exact.value],
        )

    @staticmethod
    def named(metric: Int, dtype: Int) -> Self:
        """Makes it of the space that two run-time codes name; preconditions as of `in_space`."""
        var task = _MakeStoredSpace(StoredSpace.of[MetricSpace[L2, DType.float32]]())
        in_space(metric, dtype, task)
        return task.made

    @always_inline
    def floats(self) -> Bool:
        """Tells whether stored rows are of a float type; queries are float32 then."""
        return is_float(self.dtype)

    @always_inline
    def place(self, queries: Int, i: Int, dim: Int) -> Int:
        """Returns the address of query i of some."""
        return queries + i * dim * (4 if self.floats() else 1)

    @always_inline
    def way(self, given: Int, dim: Int, snapshot: Snapshot, mut scratch: Scratch) -> Int:
        """Decides what a query's walk measures, given its address.

        Exact codes serve queries that 8 bits hold in whole numbers; others are measured by floats: rounded, they could lose all
        they are. Estimates serve those that are no farther from the centre than codes reach.
        """
        ref codes = snapshot.codes[]
        if codes.kind == NO_CODES:
            return ON_ROWS
        if codes.kind == U8:
            if self.floats() and not is_bytes[DType.float32](at[Float32](given), dim):
                return ON_CODES_BY_FLOATS
            return ON_EXACT_CODES
        if codes.reach != Float32.MAX:
            var query = self.query(given, dim, scratch)
            if not scratch.failed() and not codes.serve(at[Float32](query.address)):
                return ON_ROWS
        return ON_4_BITS if codes.kind == RABITQ4 else ON_8_BITS

    @always_inline
    def prepare_for(
        self, way: Int, codes: Codes, query: Query, dim: Int, mut scratch: Scratch
    ) -> Query:
        """Makes a query for measuring what is walked on; worth nothing if the scratch has failed.
        """
        if way == ON_ROWS or scratch.failed():
            return query
        if way == ON_CODES_BY_FLOATS:
            return _prepare_floats(query, dim, scratch)
        return self.prepare(codes, query, dim, scratch)

    @always_inline
    def value_on(self, way: Int) -> def(Int32) thin -> Float32:
        """Returns what tells the distance of an exact key of what is walked on."""
        return self.code_value if way == ON_EXACT_CODES else self.value

    @always_inline
    def values_on(self, way: Int) -> def(Candidates, Int, Ptr[Float32]) thin -> None:
        """Returns what writes distances of exact keys of what is walked on."""
        return self.code_values if way == ON_EXACT_CODES else self.values


@fieldwise_init
struct _MakeStoredSpace(SpaceTask):
    var made: StoredSpace

    def run[S: Space](mut self):
        self.made = StoredSpace.of[S]()


def _rows[S: Space](rows: Rows, mut measure: Measure) -> Rows:
    return measure.rows[S](rows)


def measured(way: Int, stored: StoredSpace, rows: Rows, mut measure: Measure) -> Rows:
    """Returns rows of a way that `AnyDistance` measures; `measure` must stay where it is while they are in use.
    """
    var signed_rows = stored.dtype == dtype_code[DType.int8]()
    if way == ON_4_BITS:
        return measure.rows[Estimate[4]](rows)
    if way == ON_8_BITS:
        return measure.rows[Estimate[8]](rows)
    if way == ON_ROWS:
        return stored.measured(rows, measure)
    if way == ON_CODES_BY_FLOATS:
        if stored.metric == L2:
            return measure.rows[FloatsOnCodes[L2]](rows)
        return measure.rows[FloatsOnCodes[IP]](rows)
    if stored.metric == L2:
        if signed_rows:
            return measure.rows[U8Codes[L2, True]](rows)
        return measure.rows[U8Codes[L2, False]](rows)
    if signed_rows:
        return measure.rows[U8Codes[IP, True]](rows)
    return measure.rows[U8Codes[IP, False]](rows)


trait WalkTask:
    """Work that is compiled for what searches mostly measure, and once for all else."""

    def run[M: HopDistance](mut self):
        """Does it with one way of measuring hops."""
        ...


def on_way[Task: WalkTask](way: Int, metric: Int, dtype: Int, mut task: Task):
    """Runs a task with the way of measuring that `StoredSpace.way` has named."""
    if way == ON_ROWS and dtype == dtype_code[DType.float32]():
        if metric == L2:
            task.run[CompiledIn[MetricSpace[L2, DType.float32]]]()
        elif metric == IP:
            task.run[CompiledIn[MetricSpace[IP, DType.float32]]]()
        else:
            task.run[CompiledIn[MetricSpace[COSINE, DType.float32]]]()
    elif way == ON_ROWS and metric == HAMMING:
        task.run[CompiledIn[MetricSpace[HAMMING, DType.uint8]]]()
    else:
        on_codes(way, metric, dtype, task)


def on_codes[Task: WalkTask](way: Int, metric: Int, dtype: Int, mut task: Task):
    """Does what `on_way` does, with none but codes compiled in."""
    if way == ON_4_BITS:
        task.run[CompiledIn[Estimate[4]]]()
    elif way == ON_8_BITS:
        task.run[CompiledIn[Estimate[8]]]()
    elif way == ON_EXACT_CODES:
        _on_exact_codes(metric, dtype == dtype_code[DType.int8](), task)
    else:
        task.run[AnyDistance]()


def _on_exact_codes[Task: WalkTask](metric: Int, signed_rows: Bool, mut task: Task):
    if metric == L2:
        if signed_rows:
            task.run[CompiledIn[U8Codes[L2, True]]]()
        else:
            task.run[CompiledIn[U8Codes[L2, False]]]()
    elif signed_rows:
        task.run[CompiledIn[U8Codes[IP, True]]]()
    else:
        task.run[CompiledIn[U8Codes[IP, False]]]()


def scan[
    S: Space
](rows: Rows, on_disk: Bool, visible: Visibility, query: Query, mut nearest: Candidates):
    """Measures the rows that are seen and keeps the nearest."""
    if visible.states == 0 and not on_disk:
        _scan_rows[S, True](rows, visible, query, 0, visible.bound, nearest)
    else:
        var ahead = ReadAhead.of(rows.base, visible.bound * rows.stride, on_disk)
        for block in range(0, visible.bound, BLOCK):
            var end = min(block + BLOCK, visible.bound)
            ahead.reach(block * rows.stride)
            if not visible.none_of(block, end):
                _scan_rows[S, False](rows, visible, query, block, end, nearest)
    nearest.arrange()


@always_inline
def _scan_rows[
    S: Space, all: Bool
](rows: Rows, visible: Visibility, query: Query, begin: Int, end: Int, mut nearest: Candidates):
    """Measures rows begin .. end-1, `all` of which are seen or some, and keeps those that are near enough.
    """
    # copies: stores to the candidates might otherwise change them
    var stored = rows
    var asked = query
    var seen = visible
    var worst = nearest.worst()
    var row = begin
    while row < end:  # a range counts with more instructions, which tell where rows are short
        if all or seen.is_visible(row):
            point["scan a row"]()
            touches["scan a row"](row)
            var entry = entry_of(S.key(asked, stored, row), row)
            if entry < worst:
                nearest.insert(entry)
                worst = nearest.worst()
        row += 1


def _inspect[S: Space](given: Int, dim: Int) -> Int:
    var norm = Float32(1)
    return inspect_row[S, S.Q](at[Scalar[S.Q]](given), dim, norm)


def _query[S: Space](given: Int, dim: Int, mut scratch: Scratch) -> Query:
    """Makes a query for measuring stored rows: of unit length for cosine, and on a cache line for float types. Worth nothing if
    the scratch has failed.
    """
    var query = Query(given, 1)
    comptime if S.metric == COSINE:
        _ = inspect_row[S, S.Q](at[Scalar[S.Q]](given), dim, query.norm)
    comptime if S.T.is_floating_point():
        var vector = scratch.work(2 * padded_dim(dim))
        if scratch.failed():
            return query
        var elements = at[Float32](given)
        for j in range(dim):
            vector[unsafe_offset=j] = to_unit(elements[unsafe_offset=j], query.norm)
        query.address = Int(vector)
    return query


def _prepare[Q: DType](codes: Codes, query: Query, dim: Int, mut scratch: Scratch) -> Query:
    """Makes a query for measuring codes; worth nothing if the scratch has failed."""
    var prepared = Query(scratch.room(codes.query_bytes()), 1)
    if not scratch.failed():
        codes.prepare[Q](
            at[Scalar[Q]](query.address),
            at[UInt8](prepared.address),
            scratch.work(2 * padded_dim(dim)).unsafe_offset(padded_dim(dim)),
        )
    return prepared


@no_inline
def _prepare_floats(query: Query, dim: Int, mut scratch: Scratch) -> Query:
    """Makes a float query for measuring exact codes; worth nothing if the scratch has failed."""
    var prepared = Query(scratch.room(CODE_LINE + 4 * dim), 1)
    if not scratch.failed():
        at[PreparedFloats](prepared.address)[] = PreparedFloats(dim)
        copy_items(
            dest=at[Float32](prepared.address + CODE_LINE),
            src=at[Float32](query.address),
            count=dim,
        )
    return prepared


def _values[value: def(Int32) thin -> Float32](nearest: Candidates, count: Int, into: Ptr[Float32]):
    for i in range(count):
        into[unsafe_offset=i] = value(nearest.key(i))
