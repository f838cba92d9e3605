"""Searches: arrays in, GIL released, one call of the library each; also the trace of one search."""
from std.ffi import external_call

from bindings.handles import handle_of
from bindings.info_api import BYTE_TYPE, know_ids
from bindings.python_api import (
    Args,
    Fail,
    Obj,
    as_float,
    as_int,
    capsule_get,
    capsule_new,
    fail,
    from_int,
    need,
    no_memory,
    none,
    path_bytes,
    tuple_item,
    tuple_size,
)
from bindings.arrays import EITHER, INT64, View
from bindings.gil import NoGil, PythonWatch
from vicinal.exact.request import SearchRequest
from vicinal.index.snapshot import Snapshot
from vicinal.index.vector_index import Index
from vicinal.kernels.stop_rule import StopRule, width_of_word
from vicinal.kernels.stored_type import asked_type
from vicinal.search.batch import search_many
from vicinal.search.filter import CHOOSE, EVERYTHING, Filter, FilterChoice
from vicinal.search.filtered import search_filtered
from vicinal.search.range_search import RangeResult, search_range
from vicinal.search.trace import Log, trace
from vicinal.system.atomics import load_acquire
from vicinal.system.memory import Ptr, allocate, at, missing, release
from vicinal.system.outcome import DONE, NO_MEMORY, Outcome, STOPPED
from vicinal.walk.scratch import Scratch

comptime FLAGS: UInt8 = 98
"""Kind `b`: a byte for each row."""
comptime BITS: UInt8 = 112
"""Kind `p`: eight rows a byte, and behind them how many rows there are, in eight bytes."""
comptime IDS: UInt8 = 105
"""Kind `i`: ids."""
comptime RANGE_TAG = "vicinal.RangeResult"
comptime HELD_WORK = 1 << 13
"""Products of a search that keeps the GIL: it takes a microsecond at most, and to release the GIL and take it again is a tenth of that."""
comptime NUMBERS = -3
"""Answer of a search that went well on an index with string ids: what it found are numbers of strings."""


struct Filters(Movable):
    """The filters of one call and the snapshot that they were made of, which is pinned as long as this is there.
    """

    var index: Ptr[Index]
    var pinned: Ptr[Scratch]
    var snapshot: Snapshot
    var items: Ptr[Filter]
    var count: Int

    def __init__(out self, index: Ptr[Index], arrays: Obj, kinds: Obj) raises Fail:
        """Takes a snapshot and makes a filter of each array.

        The GIL is held, so that ids are looked up as they were when the snapshot was taken.

        Args:
            index: The index.
            arrays: Tuple of arrays: uint8 with a byte or a bit for each row, or int64 ids; anything else stands for no filter.
            kinds: As many bytes: `b`, `p`, `i`, or another letter for no filter.

        Raises:
            ValueError if there are not as many bytes or bits as rows; MemoryError.
        """
        var size = tuple_size(arrays)
        var kind = at[UInt8](path_bytes(kinds))
        for i in range(size):
            if kind[unsafe_offset=i] == IDS:
                know_ids(index[])
                break
        var items = allocate[Filter](size)
        var made = 0
        if missing(items):
            raise no_memory()
        var pinned = index[].readers.claim()
        if missing(pinned):
            release(items)
            raise no_memory()
        var snapshot = index[].snapshot()
        try:
            for i in range(size):
                var filter = Filter(snapshot.visible.bound, snapshot.linked)
                if filter.failed:
                    raise no_memory()
                if kind[unsafe_offset=i] == FLAGS:
                    fill_flags(filter, tuple_item(arrays, i), snapshot)
                elif kind[unsafe_offset=i] == BITS:
                    fill_bits(filter, tuple_item(arrays, i), snapshot)
                elif kind[unsafe_offset=i] == IDS:
                    var ids = View(tuple_item(arrays, i), INT64, 1)
                    filter.allow_ids(index[], at[Int64](ids.address()), ids.dim(0))
                    _ = ids^
                else:
                    filter.plan = EVERYTHING
                items.unsafe_offset(i).unsafe_write(filter^)
                made += 1
        except failed:
            for i in range(made):
                items.unsafe_offset(i).unsafe_deinit_pointee()
            release(items)
            index[].readers.release(pinned)
            raise failed
        self.index = index
        self.pinned = pinned
        self.snapshot = snapshot
        self.items = items
        self.count = size

    def __deinit__(deinit self):
        for i in range(self.count):
            self.items.unsafe_offset(i).unsafe_deinit_pointee()
        release(self.items)
        self.index[].readers.release(self.pinned)

    def choice(self, which: View) -> FilterChoice:
        """Returns the filters of queries that each name one, good as long as both are kept."""
        return FilterChoice(self.snapshot, self.items, at[Int64](which.address()))

    def prepare(self, k: Int, width: Int, plan: Int) -> Bool:
        """Decides how each is answered; returns False when memory is out."""
        for i in range(self.count):
            ref filter = self.items[unsafe_offset=i]
            if filter.plan != EVERYTHING:
                filter.prepare(self.index[], self.snapshot, k, width, plan)
                if filter.failed:
                    return False
        return True


def fill_flags(mut filter: Filter, array: Obj, snapshot: Snapshot) raises Fail:
    """Allows the rows whose byte is not zero, of those that are there."""
    var flags = View(array, BYTE_TYPE, 1)
    var length = flags.dim(0)
    if length == snapshot.live:
        filter.allow_flags(at[UInt8](flags.address()), length, snapshot.visible)
    _ = flags^
    need_length(length, snapshot.live)


def fill_bits(mut filter: Filter, array: Obj, snapshot: Snapshot) raises Fail:
    """Allows the rows whose bit is set, of those that are there."""
    var bits = View(array, BYTE_TYPE, 1)
    var bytes = max(bits.dim(0) - 8, 0)
    var length = 0
    for i in range(8 if bits.dim(0) >= 8 else 0):
        length |= Int(at[UInt8](bits.address())[unsafe_offset=bytes + i]) << (8 * i)
    if length == snapshot.live and bytes == (length + 7) // 8:
        filter.allow_bits(at[UInt8](bits.address()), length, snapshot.visible)
    else:
        length = -1 if length == snapshot.live else length
    _ = bits^
    need_length(length, snapshot.live)


def need_length(length: Int, rows: Int) raises Fail:
    """Raises ValueError unless a filter is of as many rows as there are."""
    if length != rows:
        raise fail(
            "ValueError", "filter: expected a boolean for each of %zd rows, got %zd", rows, length
        )


def need_which(which: View, queries: Int, filters: Int) raises Fail:
    """Raises ValueError unless each query names one of the filters."""
    if which.dim(0) != queries:
        raise fail("ValueError", "%zd filter numbers for %zd queries", which.dim(0), queries)
    for i in range(queries):
        var number = Int(at[Int64](which.address())[unsafe_offset=i])
        if number < 0 or number >= filters:
            raise fail("ValueError", "filter %zd of %zd", number, filters)


struct SearchArrays(Movable):
    """Queries as arrays of Python, and arrays for the k nearest of each."""

    var queries: View
    var ids: View
    var distances: View
    var k: Int

    def __init__(
        out self, index: Index, queries: Obj, k: Obj, ids: Obj, distances: Obj
    ) raises Fail:
        """Takes views of the arrays.

        Raises:
            ValueError if they do not fit the index and each other.
        """
        var asked = queries_of(index, queries)
        var wanted = as_int(k)
        var into = View(ids, INT64, EITHER, writable=True)
        var beside = View(distances, 0, EITHER, writable=True)
        var n = asked.rows()
        if (
            into.rows() != n
            or beside.rows() != n
            or into.columns() != wanted
            or beside.columns() != wanted
            or wanted < 1
        ):
            raise fail("ValueError", "results must have shape (%zd, %zd)", n, wanted)
        self.queries = asked^
        self.ids = into^
        self.distances = beside^
        self.k = wanted

    @always_inline
    def request(self, ef: Int, threads: Int) -> SearchRequest:
        """Returns what a search is asked, good as long as the arrays are kept; `ef` may hold a `StopRule` beside the width.
        """
        return SearchRequest(
            self.queries.address(),
            self.queries.rows(),
            self.k,
            width_of_word(ef),
            at[Int64](self.ids.address()),
            at[Float32](self.distances.address()),
            threads,
            StopRule.of_word(ef),
        )


def queries_of(index: Index, queries: Obj) raises Fail -> View:
    """Takes a view of one query or several; ValueError unless they have the dimension of the index.
    """
    var view = View(queries, asked_type(index.dtype), EITHER)
    if view.columns() != index.dim:
        raise fail(
            "ValueError",
            "queries have dimension %zd, the index %zd",
            view.columns(),
            index.dim,
        )
    return view^


def raise_unless_told(outcome: Outcome, n: Int, k: Int) raises Fail:
    """Raises what ended a search early; DONE and refusals are told to the caller."""
    if outcome == STOPPED:
        raise Fail()  # the watch has set the exception
    if outcome == NO_MEMORY:
        raise fail("MemoryError", "no memory for a search of %zd queries with k = %zd", n, k)


def index_search_filtered(args: Args, count: Int) raises Fail -> Obj:
    """Implements index_search_filtered(handle, queries, k, ef, threads, filters, kinds, which, plan, out_ids, out_distances)
    -> 0 or what was refused; `plan` is -1, or one of `vicinal.filter` to be used wherever it can be.
    """
    need(count, 11)
    var index = handle_of(args[unsafe_offset=0])
    var ef = as_int(args[unsafe_offset=3])
    var threads = as_int(args[unsafe_offset=4])
    var which = View(args[unsafe_offset=7], INT64, 1)
    var plan = as_int(args[unsafe_offset=8])
    var arrays = SearchArrays(
        index[],
        args[unsafe_offset=1],
        args[unsafe_offset=2],
        args[unsafe_offset=9],
        args[unsafe_offset=10],
    )
    var request = arrays.request(ef, threads)
    var filters = Filters(index, args[unsafe_offset=5], args[unsafe_offset=6])
    need_which(which, request.count, filters.count)
    var watch = PythonWatch(0, request.count)
    var outcome = NO_MEMORY
    if filters.prepare(request.k, max(request.k, ef), plan):
        outcome = search_filtered(index[], request, filters.choice(which), watch)
    _ = watch^
    _ = filters^
    _ = which^
    _ = arrays^
    raise_unless_told(outcome, request.count, request.k)
    return from_int(outcome.code)


def index_range(args: Args, count: Int) raises Fail -> Obj:
    """Implements index_range(handle, queries, radius, ef, threads, filters, kinds, which, offsets) -> result or what was
    refused; offsets[i + 1] - offsets[i] rows were found for query i.
    """
    need(count, 9)
    var index = handle_of(args[unsafe_offset=0])
    var queries = queries_of(index[], args[unsafe_offset=1])
    var radius = Float32(as_float(args[unsafe_offset=2]))
    var ef = as_int(args[unsafe_offset=3])
    var threads = as_int(args[unsafe_offset=4])
    var which = View(args[unsafe_offset=7], INT64, 1)
    var offsets = View(args[unsafe_offset=8], INT64, 1, writable=True)
    var n = queries.rows()
    if offsets.dim(0) != n + 1:
        raise fail("ValueError", "%zd offsets for %zd queries", offsets.dim(0), n)
    # how many rows there are is not known yet: what is found comes in a result of its own
    var nothing = at[Int64](offsets.address())
    var request = SearchRequest(
        queries.address(), n, 1, ef, nothing, nothing.unsafe_bitcast[Float32](), threads
    )
    var result = RangeResult(n)
    var filters = Filters(index, args[unsafe_offset=5], args[unsafe_offset=6])
    need_which(which, n, filters.count)
    var watch = PythonWatch(0, n)
    var outcome = NO_MEMORY
    if filters.prepare(1, ef, CHOOSE):
        outcome = search_range(index[], request, radius, filters.choice(which), result, watch)
    _ = watch^
    _ = filters^
    var next = at[Int64](offsets.address())
    next[] = 0
    for i in range(result.queries):
        next[unsafe_offset=i + 1] = next[unsafe_offset=i] + Int64(result.total(i))
    _ = queries^
    _ = which^
    _ = offsets^
    if outcome == STOPPED:
        raise Fail()
    if outcome == NO_MEMORY:
        raise fail("MemoryError", "no memory for the rows within the radius")
    if outcome != DONE:
        return from_int(outcome.code)
    return capsule_new[RangeResult, RANGE_TAG](result^)


def range_take(args: Args, count: Int) raises Fail -> Obj:
    """Implements range_take(result, out_ids, out_distances) -> None: copies what `index_range` found.
    """
    need(count, 3)
    var result = capsule_get[RangeResult, RANGE_TAG](args[unsafe_offset=0])
    var ids = View(args[unsafe_offset=1], INT64, 1, writable=True)
    var distances = View(args[unsafe_offset=2], 0, 1, writable=True)
    var total = 0
    for i in range(result[].queries):
        total += result[].total(i)
    if ids.dim(0) != total or distances.dim(0) != total:
        raise fail("ValueError", "%zd rows were found, there is room for %zd", total, ids.dim(0))
    result[].copy_to(at[Int64](ids.address()), at[Float32](distances.address()))
    _ = ids^
    _ = distances^
    return none()


def index_search(args: Args, count: Int) raises Fail -> Obj:
    """Implements index_search(handle, queries, k, ef, threads, out_ids, out_distances) -> 0, NUMBERS or what was refused.
    """
    need(count, 7)
    return _search(args, 0)


def index_search_counted(args: Args, count: Int) raises Fail -> Obj:
    """Implements index_search_counted(handle, queries, k, ef, threads, out_ids, out_distances, out_work): `index_search`, and how
    many distances each query took if the graph was walked for it.
    """
    need(count, 8)
    var index = handle_of(args[unsafe_offset=0])
    var queries = queries_of(index[], args[unsafe_offset=1])
    var work = View(args[unsafe_offset=7], INT64, 1, writable=True)
    if work.dim(0) != queries.rows():
        raise fail("ValueError", "work of %zd queries, there are %zd", work.dim(0), queries.rows())
    var result = _search(args, work.address())
    _ = queries^
    _ = work^
    return result


@always_inline
def _search(args: Args, work: Int) raises Fail -> Obj:
    """Does what both do; `work` is an address or 0."""
    var index = handle_of(args[unsafe_offset=0])
    var arrays = SearchArrays(
        index[],
        args[unsafe_offset=1],
        args[unsafe_offset=2],
        args[unsafe_offset=5],
        args[unsafe_offset=6],
    )
    var request = arrays.request(as_int(args[unsafe_offset=3]), as_int(args[unsafe_offset=4]))
    request.work = work
    var products = request.count * load_acquire(index[].count) * index[].dim
    var watch = PythonWatch(0, request.count, held=products <= HELD_WORK)
    var outcome = search_many(index[], request, watch)
    _ = watch^
    _ = arrays^
    raise_unless_told(outcome, request.count, request.k)
    if outcome == DONE and index[].ids.strings.used:
        return from_int(
            NUMBERS
        )  # a status that the caller looks at anyway: integer ids pay nothing
    return from_int(outcome.code)


def index_trace(args: Args, count: Int) raises Fail -> Obj:
    """Implements index_trace(handle, query, k, ef, out_ids, out_distances) -> bytes, or an int that says what was refused.

    The bytes are the words of `vicinal.trace.Log`.
    """
    need(count, 6)
    var index = handle_of(args[unsafe_offset=0])
    var arrays = SearchArrays(
        index[],
        args[unsafe_offset=1],
        args[unsafe_offset=2],
        args[unsafe_offset=4],
        args[unsafe_offset=5],
    )
    var request = arrays.request(as_int(args[unsafe_offset=3]), 1)
    if request.count != 1:
        raise fail("ValueError", "a trace is of one query, not of %zd", request.count)
    var log = Log()
    var gil = NoGil()
    var outcome = trace(index[], request, log)
    _ = gil^
    _ = arrays^
    raise_unless_told(outcome, 1, request.k)
    if outcome != DONE:
        return from_int(outcome.code)
    var result = external_call["PyBytes_FromStringAndSize", Obj](Int(log.words), log.size * 8)
    _ = log^
    if result == 0:
        raise Fail()
    return result
