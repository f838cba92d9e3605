"""The index for Python: checked views in, GIL released, no Python object inside."""
from bindings.kernel_api import need_space
from bindings.python_api import (
    EITHER,
    INT64,
    Args,
    Fail,
    Obj,
    PythonWatch,
    View,
    as_int,
    capsule_get,
    capsule_new,
    fail,
    from_int,
    is_int,
    is_none,
    need,
    none,
    path_bytes,
)
from std.memory import unsafe_memcpy

from vicinal.check import ENDED, check_graph_watched
from vicinal.file import Source, Status
from vicinal.first_use import KnownIds
from vicinal.index import DONE, EXACT_BELOW, NO_MEMORY, STOPPED, Index
from vicinal.ledger import ENTRIES
from vicinal.memory import Ptr, at
from vicinal.mapped import Mapped, verify
from vicinal.queries import search_many
from vicinal.store import open_index, save_index
from vicinal.space import item_bytes, row_stride
from vicinal.tally import TALLIES

comptime TAG = "vicinal.Index"
comptime NUMBERS = 7
"""Answer of a search that went well on an index with string ids: what it found are numbers of strings."""


def handle_of(o: Obj) raises Fail -> Ptr[Index]:
    """Returns the index of a handle."""
    return capsule_get[Index, TAG](o)


def know_ids(mut index: Index) raises Fail:
    """Makes the table of ids if there is none yet, without the GIL; whoever asks for ids calls it first.

    Raises:
        KeyboardInterrupt, for instance, if a signal handler has raised it.
    """
    if index.ids_known:
        return
    var known = KnownIds()
    var scratch = index.shelf.take()  # not used: it shows that somebody reads
    var watch = PythonWatch(0, 0)
    var learnt = known.learn(index, watch)
    _ = watch^
    index.shelf.put(scratch)
    if not learnt:
        raise Fail()
    known.give(index)


def index_new(args: Args, count: Int) raises Fail -> Obj:
    """Implements index_new(metric, dtype, dim, M, ef_construction, seed, exact_below, quantization) -> handle.
    """
    need(count, 8)
    need_space(as_int(args[unsafe_offset=0]), as_int(args[unsafe_offset=1]))
    return capsule_new[Index, TAG](
        Index(
            as_int(args[unsafe_offset=0]),
            as_int(args[unsafe_offset=1]),
            as_int(args[unsafe_offset=2]),
            as_int(args[unsafe_offset=3]),
            as_int(args[unsafe_offset=4]),
            as_int(args[unsafe_offset=5]),
            as_int(args[unsafe_offset=6]),
            as_int(args[unsafe_offset=7]),
        )
    )


def index_search(args: Args, count: Int) raises Fail -> Obj:
    """Implements index_search(handle, queries, k, ef, threads, out_ids, out_distances) -> 0, NUMBERS or what was refused.
    """
    need(count, 7)
    var index = handle_of(args[unsafe_offset=0])
    var dtype = index[].dtype
    var queries = View(args[unsafe_offset=1], 0 if dtype <= 2 else dtype, EITHER)
    var k = as_int(args[unsafe_offset=2])
    var ef = as_int(args[unsafe_offset=3])
    var threads = as_int(args[unsafe_offset=4])
    var ids = View(args[unsafe_offset=5], INT64, EITHER, writable=True)
    var distances = View(args[unsafe_offset=6], 0, EITHER, writable=True)
    var n = queries.rows()
    if queries.columns() != index[].dim:
        raise fail(
            "ValueError",
            "queries have dimension %zd, the index %zd",
            queries.columns(),
            index[].dim,
        )
    if (
        ids.rows() != n
        or distances.rows() != n
        or ids.columns() != k
        or distances.columns() != k
        or k < 1
    ):
        raise fail("ValueError", "results must have shape (%zd, %zd)", n, k)
    var watch = PythonWatch(0, n)
    var status = search_many(
        index[],
        queries.address(),
        n,
        k,
        ef,
        at[Int64](ids.address()),
        at[Float32](distances.address()),
        threads,
        watch,
    )
    _ = watch^
    _ = queries^
    _ = ids^
    _ = distances^
    if status == STOPPED:
        raise Fail()
    if status == DONE and index[].texts.used:
        return from_int(
            NUMBERS
        )  # a status that the caller looks at anyway: integer ids pay nothing
    return from_int(status)


def exact_below(args: Args, count: Int) raises Fail -> Obj:
    """Implements exact_below() -> int: rows from which on an index builds its graph."""
    need(count, 0)
    return from_int(EXACT_BELOW)


def index_info(args: Args, count: Int) raises Fail -> Obj:
    """Implements index_info(handle, which) -> int; the numbers are listed in `_native.pyi`."""
    need(count, 2)
    ref index = handle_of(args[unsafe_offset=0])[]
    var which = as_int(args[unsafe_offset=1])
    var value: Int
    if which == 0:
        value = index.live()
    elif which == 1:
        value = index.dim
    elif which == 2:
        value = index.metric
    elif which == 3:
        value = index.dtype
    elif which == 4:
        value = index.graph.M
    elif which == 5:
        value = index.ef_construction
    elif which == 6:
        value = index.seed
    elif which == 7:
        value = 0 if index.relinking or index.graph.linked == 0 else index.live()
    elif which == 8:
        value = index.graph.top()
    elif which == 9:
        value = index.bytes()
    elif which == 10:
        value = Int(index.file != 0)
    elif which == 11:
        know_ids(index)
        value = 0 if index.automatic else index.live()
    elif which == 12:
        value = index.exact_below
    elif which == 13:
        value = index.ef_search
    elif which == 14:
        value = index.codes[].kind
    elif which == 15:
        value = index.quantization
    elif which == 16:
        value = index.own_vectors() + index.norms.usable
    elif which == 17:
        value = (
            index.ids.usable
            + index.map.room * 4
            + index.marks.bytes.usable
            + index.marks.stamps.usable
        )
    elif which == 18:
        value = index.graph.bytes() + index.copies.bytes()
    elif which == 19:
        value = index.codes[].memory()
    elif which == 20:
        value = index.marks.removed
    elif which >= 21 and which < 21 + TALLIES:
        value = index.tally.of(which - 21)
    elif which == 21 + TALLIES:
        value = index.vectors.usable - index.own_vectors()
    elif which > 21 + TALLIES and which <= 21 + TALLIES + ENTRIES:
        value = index.ledger.of(which - 22 - TALLIES)
    else:
        raise fail("ValueError", "no such number: %zd", which)
    return from_int(value)


def index_check(args: Args, count: Int) raises Fail -> Obj:
    """Implements index_check(handle) -> 0 or the number of a broken invariant (`vicinal.check`)."""
    need(count, 1)
    ref index = handle_of(args[unsafe_offset=0])[]
    var watch = PythonWatch(
        0, 0
    )  # nobody changes the graph: the caller holds the index for writing
    var broken = check_graph_watched(
        index.graph,
        index.count,
        index.unrepaired == 0,
        index.copies.count + index.marks.free(),
        index.marks.address(),
        watch,
    )
    _ = watch^
    if broken == ENDED:
        raise Fail()
    return from_int(broken)


def index_rows(args: Args, count: Int) raises Fail -> Obj:
    """Implements index_rows(handle, ids, out) -> None: the row of each id, or -1."""
    need(count, 3)
    var index = handle_of(args[unsafe_offset=0])
    know_ids(index[])
    var ids = View(args[unsafe_offset=1], INT64, 1)
    var out = View(args[unsafe_offset=2], INT64, 1, writable=True)
    if ids.dim(0) != out.dim(0):
        raise fail("ValueError", "%zd ids, room for %zd rows", ids.dim(0), out.dim(0))
    for i in range(ids.dim(0)):
        at[Int64](out.address())[unsafe_offset=i] = Int64(
            index[].row_of(at[Int64](ids.address())[unsafe_offset=i])
        )
    _ = ids^
    _ = out^
    return none()


def index_get(args: Args, count: Int) raises Fail -> Obj:
    """Implements index_get(handle, ids, out) -> -1, or the position of the first id that is not there.

    One call from id to content: rows are freed and written over when the GIL is not held.
    """
    need(count, 3)
    var index = handle_of(args[unsafe_offset=0])
    know_ids(index[])
    var ids = View(args[unsafe_offset=1], INT64, 1)
    var out = View(args[unsafe_offset=2], index[].dtype, 2, writable=True)
    var n = ids.dim(0)
    if out.dim(0) != n or out.dim(1) != index[].dim:
        raise fail("ValueError", "the result must have shape (%zd, %zd)", n, index[].dim)
    var bytes = index[].dim * item_bytes(index[].dtype)
    var stride = row_stride(index[].dim, index[].dtype)
    var unknown = -1
    for i in range(n):
        var row = index[].row_of(at[Int64](ids.address())[unsafe_offset=i])
        if row < 0:
            unknown = i
            break
        unsafe_memcpy(
            dest=at[UInt8](out.address() + i * bytes),
            src=at[UInt8](index[].vectors.address + row * stride),
            count=bytes,
        )
    _ = ids^
    _ = out^
    return from_int(unknown)


def index_ids(args: Args, count: Int) raises Fail -> Obj:
    """Implements index_ids(handle, out) -> int: copies the ids in row order, as many as fit; returns how many there are.
    """
    need(count, 2)
    var index = handle_of(args[unsafe_offset=0])
    var out = View(args[unsafe_offset=1], INT64, 1, writable=True)
    var sight = index[].marks.sight(index[].marks.now())
    var to = 0
    for row in range(index[].count):
        if to == out.dim(0):
            break
        if sight.sees(row):
            at[Int64](out.address())[unsafe_offset=to] = index[].ids.ptr[Int64]()[unsafe_offset=row]
            to += 1
    _ = out^
    return from_int(index[].live())


# ---- files


def report(status: Status, target: View):
    """Writes a status as `storage.raise_for_status` reads it: code, two details, 16 bytes of a name.
    """
    var words = at[Int64](target.address())
    words[unsafe_offset=0] = Int64(status.code)
    words[unsafe_offset=1] = Int64(status.a)
    words[unsafe_offset=2] = Int64(status.b)
    words.unsafe_offset(3).unsafe_bitcast[UInt8]().unsafe_store(0, status.name)


def status_view(o: Obj) raises Fail -> View:
    """Takes a view of the array that a status is to be written into."""
    var view = View(o, INT64, 1, writable=True)
    if view.dim(0) != 5:
        var length = view.dim(0)
        _ = view^
        raise fail("ValueError", "a status has 5 words, got %zd", length)
    return view^


def index_save(args: Args, count: Int) raises Fail -> Obj:
    """Implements index_save(handle, path, ef_search, status int64[5]) -> None."""
    need(count, 4)
    var index = handle_of(args[unsafe_offset=0])
    var path = path_bytes(args[unsafe_offset=1])
    var ef_search = as_int(args[unsafe_offset=2])
    var out = status_view(args[unsafe_offset=3])
    var watch = PythonWatch(0, 0)
    var status = save_index(index[], path, ef_search, watch)
    var raised = watch.raised
    _ = watch^
    report(status, out)
    _ = out^
    if raised:
        raise Fail()
    return none()


def index_open(args: Args, count: Int) raises Fail -> Obj:
    """Implements index_open(path or descriptor, copy, verify, status int64[5]) -> handle, or None if the status says why not.
    """
    need(count, 4)
    var path = 0
    var descriptor = -1
    if is_int(args[unsafe_offset=0]):
        descriptor = as_int(args[unsafe_offset=0])
    else:
        path = path_bytes(args[unsafe_offset=0])
    var copy = as_int(args[unsafe_offset=1]) != 0
    var check = as_int(args[unsafe_offset=2]) != 0
    var out = status_view(args[unsafe_offset=3])
    var watch = PythonWatch(0, 0)
    var status = Status.done()
    var source = Source(path) if path != 0 else Source(descriptor=descriptor)
    var index = open_index(source^, copy, check, status, watch)
    var raised = watch.raised
    _ = watch^
    report(status, out)
    _ = out^
    if raised:
        raise Fail()
    if not status.ok():
        return none()
    need_space(index.metric, index.dtype)
    return capsule_new[Index, TAG](index^)


def index_verify(args: Args, count: Int) raises Fail -> Obj:
    """Implements index_verify(handle, threads, status int64[5]) -> None; an index without a file is always right.
    """
    need(count, 3)
    var index = handle_of(args[unsafe_offset=0])
    var threads = as_int(args[unsafe_offset=1])
    var out = status_view(args[unsafe_offset=2])
    var status = Status.done()
    var raised = False
    if index[].file != 0:
        var watch = PythonWatch(0, 0)
        status = verify(at[Mapped](index[].file)[], threads, watch)
        raised = watch.raised
        _ = watch^
    report(status, out)
    _ = out^
    if raised:
        raise Fail()
    return none()
