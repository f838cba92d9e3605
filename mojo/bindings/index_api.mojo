"""The index for Python: checked views in, GIL released, no Python object inside."""
from bindings.kernel_api import need_space
from bindings.python_api import (
    EITHER,
    INT64,
    Args,
    Fail,
    NoGil,
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
    no_memory,
    none,
    path_bytes,
)
from std.ffi import c_int, external_call
from std.memory import unsafe_memcpy

from vicinal.borrow import BORROWED
from vicinal.check import ENDED, NOT_KNOWN, check_index
from vicinal.file import Source, Status
from vicinal.first_use import KnownIds
from vicinal.index import DONE, EXACT_BELOW, NO_MEMORY, STOPPED, Index
from vicinal.ledger import ENTRIES
from vicinal.memory import Ptr, at, missing
from vicinal.mapped import Mapped, verify
from vicinal.queries import search_many
from vicinal.readers import COUNTS
from vicinal.store import open_index, save_index
from vicinal.space import item_bytes, row_stride
from vicinal.tally import TALLIES
from vicinal.trust import counts_agree

comptime TAG = "vicinal.Index"
comptime BYTE_TYPE = 4
comptime NUMBERS = 7
"""Answer of a search that went well on an index with string ids: what it found are numbers of strings."""


def handle_of(o: Obj) raises Fail -> Ptr[Index]:
    """Returns the index of a handle."""
    return capsule_get[Index, TAG](o)


def know_ids(mut index: Index) raises Fail:
    """Makes the table of ids if there is none yet, without the GIL; whoever asks for ids calls it first.

    Raises:
        MemoryError, or KeyboardInterrupt, for instance, if a signal handler has raised it.
    """
    if index.ids_known:
        return
    var known = KnownIds()
    var pinned = index.readers.claim()  # nothing that is read is freed or moved meanwhile
    if missing(pinned):
        raise no_memory()
    var watch = PythonWatch(0, 0)
    var status = known.learn(index, watch)
    _ = watch^
    index.readers.release(pinned)
    if status == STOPPED:
        raise Fail()
    if status == NO_MEMORY:
        raise no_memory()
    known.give(index)


def index_new(args: Args, count: Int) raises Fail -> Obj:
    """Implements index_new(metric, dtype, dim, M, ef_construction, seed, exact_below, quantization) -> handle.
    """
    need(count, 8)
    need_space(as_int(args[unsafe_offset=0]), as_int(args[unsafe_offset=1]))
    var index = Index(
        as_int(args[unsafe_offset=0]),
        as_int(args[unsafe_offset=1]),
        as_int(args[unsafe_offset=2]),
        as_int(args[unsafe_offset=3]),
        as_int(args[unsafe_offset=4]),
        as_int(args[unsafe_offset=5]),
        as_int(args[unsafe_offset=6]),
        as_int(args[unsafe_offset=7]),
    )
    if index.failed():
        raise no_memory()
    return capsule_new[Index, TAG](index^)


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
    if status == NO_MEMORY:
        raise fail("MemoryError", "no memory for a search of %zd queries with k = %zd", n, k)
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
        value = index.graph[].M
    elif which == 5:
        value = index.ef_construction
    elif which == 6:
        value = index.seed
    elif which == 7:
        value = 0 if index.searched[].linked == 0 else index.live()
    elif which == 8:
        value = index.searched[].top()
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
        value = index.graph_bytes() + index.copies.bytes()
    elif which == 19:
        value = index.code_bytes()
    elif which == 20:
        value = index.marks.removed
    elif which >= 21 and which < 21 + TALLIES:
        value = index.tally.of(which - 21)
    elif which == 21 + TALLIES:
        value = index.vectors.usable if index.borrowed == BORROWED else 0
    elif which > 21 + TALLIES and which <= 21 + TALLIES + ENTRIES:
        value = index.ledger.of(which - 22 - TALLIES)
    elif which > 21 + TALLIES + ENTRIES and which <= 21 + TALLIES + ENTRIES + COUNTS:
        value = index.readers.count(which - 22 - TALLIES - ENTRIES)
    elif which == 22 + TALLIES + ENTRIES + COUNTS:
        value = index.readers.bytes()
    elif which == 23 + TALLIES + ENTRIES + COUNTS:
        value = index.changes
    else:
        raise fail("ValueError", "no such number: %zd", which)
    return from_int(value)


def index_check(args: Args, count: Int) raises Fail -> Obj:
    """Implements index_check(handle) -> 0 or the number of a broken invariant (`vicinal.check`)."""
    need(count, 1)
    var watch = PythonWatch(0, 0)  # nobody changes the index: the caller holds it for writing
    var found = check_index(handle_of(args[unsafe_offset=0])[], watch)
    _ = watch^
    if found == ENDED:
        raise Fail()
    if found == NOT_KNOWN:
        raise no_memory()
    return from_int(found)


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
    var unknown = -1
    for i in range(n):
        var row = index[].row_of(at[Int64](ids.address())[unsafe_offset=i])
        if row < 0:
            unknown = i
            break
        copy_row(index[], row, out.address(), i)
    _ = ids^
    _ = out^
    return from_int(unknown)


def index_ids(args: Args, count: Int) raises Fail -> Obj:
    """Implements index_ids(handle) -> bytearray of the int64 ids of the rows that are there, in row order.

    One call, so that nothing takes effect in between: the GIL is held. A damaged file may have fewer rows than it says.
    """
    need(count, 1)
    ref index = handle_of(args[unsafe_offset=0])[]
    var visible = index.marks.present()
    var live = index.live()
    var result = external_call["PyByteArray_FromStringAndSize", Obj](0, live * 8)
    if result == 0:
        raise Fail()
    var out = at[Int64](external_call["PyByteArray_AsString", Int](result))
    var to = 0
    for row in range(visible.bound):
        if to == live:
            break
        if visible.sees(row):
            out[unsafe_offset=to] = index.ids.ptr[Int64]()[unsafe_offset=row]
            to += 1
    if to < live and external_call["PyByteArray_Resize", c_int](result, to * 8) != 0:
        external_call["Py_DecRef", NoneType](result)
        raise Fail()
    return result


def index_get_present(args: Args, count: Int) raises Fail -> Obj:
    """Implements index_get_present(handle, ids, out, present) -> None: as `index_get`, with a 1 or a 0 for each id in `present`;
    rows of `out` whose id is not there stay as they are.
    """
    need(count, 4)
    var index = handle_of(args[unsafe_offset=0])
    know_ids(index[])
    var ids = View(args[unsafe_offset=1], INT64, 1)
    var out = View(args[unsafe_offset=2], index[].dtype, 2, writable=True)
    var present = View(args[unsafe_offset=3], BYTE_TYPE, 1, writable=True)
    var n = ids.dim(0)
    if out.dim(0) != n or out.dim(1) != index[].dim or present.dim(0) != n:
        raise fail("ValueError", "the result must have shape (%zd, %zd)", n, index[].dim)
    for i in range(n):
        var row = index[].row_of(at[Int64](ids.address())[unsafe_offset=i])
        at[UInt8](present.address())[unsafe_offset=i] = UInt8(row >= 0)
        if row >= 0:
            copy_row(index[], row, out.address(), i)
    _ = ids^
    _ = out^
    _ = present^
    return none()


def copy_row(index: Index, row: Int, target: Int, i: Int):
    """Copies a stored row to place i of an array without gaps."""
    var bytes = index.dim * item_bytes(index.dtype)
    unsafe_memcpy(
        dest=at[UInt8](target + i * bytes),
        src=at[UInt8](index.vectors.address + row * row_stride(index.dim, index.dtype)),
        count=bytes,
    )


def index_forked(args: Args, count: Int) raises Fail -> Obj:
    """Implements index_forked(handle) -> None: to be called in a child process right after the fork.
    """
    need(count, 1)
    handle_of(args[unsafe_offset=0])[].readers.forget()
    return none()


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


def index_compare_counts(args: Args, count: Int) raises Fail -> Obj:
    """Implements index_compare_counts(handle, status int64[5]) -> None: whether a file holds as many rows as it says.
    """
    need(count, 2)
    var index = handle_of(args[unsafe_offset=0])
    var out = status_view(args[unsafe_offset=1])
    var gil = NoGil()
    var status = counts_agree(index[])
    _ = gil^
    report(status, out)
    _ = out^
    return none()


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
