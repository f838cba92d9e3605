"""What an index tells about itself: numbers, vectors, its graph, its tuned widths."""
from std.ffi import external_call

from bindings.file_api import report, status_view
from bindings.handles import TAG, handle_of
from bindings.python_api import (
    Args,
    Fail,
    Obj,
    as_int,
    capsule_get,
    fail,
    from_int,
    need,
    no_memory,
    none,
)
from bindings.arrays import INT64, View
from bindings.gil import NoGil, PythonWatch
from vicinal.construct.build_statistics import ENTRIES
from vicinal.index.filter_statistics import FILTER_COUNTS
from vicinal.index.first_use import KnownIds
from vicinal.index.invariants import check_index
from vicinal.index.notes import TUNING_WORDS
from vicinal.index.opening import MAX_TUNINGS
from vicinal.index.untrusted_links import counts_agree
from vicinal.index.vector_index import EXACT_BELOW, Index
from vicinal.index.vectors import BORROWED
from vicinal.kernels.row_codes import decode_row
from vicinal.kernels.stored_type import CODED_8, given_type, is_coded, item_bytes, row_stride
from vicinal.system.memory import Column, at, missing
from vicinal.search.filtered_scan import ASKED_AT_ONCE
from vicinal.system.outcome import NO_MEMORY, STOPPED
from vicinal.system.pointer import copy_items
from vicinal.walk.ask import ask_for_selected
from vicinal.walk.readers import COUNTS

comptime BYTE_TYPE = 4


def know_ids(mut index: Index) raises Fail:
    """Makes the table of ids if there is none yet, without the GIL; whoever asks for ids calls it first.

    Raises:
        MemoryError, or KeyboardInterrupt, for instance, if a signal handler has raised it.
    """
    if index.ids.known:
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
        value = index.graph[].asked
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
        value = 0 if index.ids.automatic else index.live()
    elif which == 12:
        value = index.exact_below
    elif which == 13:
        value = index.notes.ef_search
    elif which == 14:
        value = index.codes[].kind
    elif which == 15:
        value = index.quantization
    elif which == 16:
        value = index.vectors.owned_bytes() + index.vectors.norms.usable
    elif which == 17:
        value = (
            index.ids.column.usable
            + index.ids.map.room * 4
            + index.states.bytes.usable
            + index.states.stamps.usable
        )
    elif which == 18:
        value = index.graph_bytes() + index.duplicates.bytes()
    elif which == 19:
        value = index.code_bytes()
    elif which == 20:
        value = index.states.removed
    elif which >= 21 and which < 21 + FILTER_COUNTS:
        value = index.filter_statistics.of(which - 21)
    elif which == 21 + FILTER_COUNTS:
        value = index.vectors.column.usable if index.vectors.borrowed == BORROWED else 0
    elif which > 21 + FILTER_COUNTS and which <= 21 + FILTER_COUNTS + ENTRIES:
        value = index.build_statistics.of(which - 22 - FILTER_COUNTS)
    elif which > 21 + FILTER_COUNTS + ENTRIES and which <= 21 + FILTER_COUNTS + ENTRIES + COUNTS:
        value = index.readers.count(which - 22 - FILTER_COUNTS - ENTRIES)
    elif which == 22 + FILTER_COUNTS + ENTRIES + COUNTS:
        value = index.readers.bytes()
    elif which == 23 + FILTER_COUNTS + ENTRIES + COUNTS:
        value = index.changes
    elif which == 24 + FILTER_COUNTS + ENTRIES + COUNTS:
        value = index.walk_dim
    else:
        raise fail("ValueError", "no such number: %zd", which)
    return from_int(value)


def index_check(args: Args, count: Int) raises Fail -> Obj:
    """Implements index_check(handle) -> 0 or the number of a broken invariant (`vicinal.check`)."""
    need(count, 1)
    var watch = PythonWatch(0, 0)  # nobody changes the index: the caller holds it for writing
    var found = check_index(handle_of(args[unsafe_offset=0])[], watch)
    _ = watch^
    if found == STOPPED.code:
        raise Fail()
    if found == NO_MEMORY.code:
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
    var out = View(args[unsafe_offset=2], given_type(index[].dtype), 2, writable=True)
    var n = ids.dim(0)
    if out.dim(0) != n or out.dim(1) != index[].dim:
        raise fail("ValueError", "the result must have shape (%zd, %zd)", n, index[].dim)
    var unknown = -1
    for i in range(n):
        _ask_for(index[], ids.address(), i, n)
        var row = index[].row_of(at[Int64](ids.address())[unsafe_offset=i])
        if row < 0:
            unknown = i
            break
        copy_row(index[], row, out.address(), i)
    _ = ids^
    _ = out^
    return from_int(unknown)


def index_get_present(args: Args, count: Int) raises Fail -> Obj:
    """Implements index_get_present(handle, ids, out, present) -> None: as `index_get`, with a 1 or a 0 for each id in `present`;
    rows of `out` whose id is not there stay as they are.
    """
    need(count, 4)
    var index = handle_of(args[unsafe_offset=0])
    know_ids(index[])
    var ids = View(args[unsafe_offset=1], INT64, 1)
    var out = View(args[unsafe_offset=2], given_type(index[].dtype), 2, writable=True)
    var present = View(args[unsafe_offset=3], BYTE_TYPE, 1, writable=True)
    var n = ids.dim(0)
    if out.dim(0) != n or out.dim(1) != index[].dim or present.dim(0) != n:
        raise fail("ValueError", "the result must have shape (%zd, %zd)", n, index[].dim)
    for i in range(n):
        _ask_for(index[], ids.address(), i, n)
        var row = index[].row_of(at[Int64](ids.address())[unsafe_offset=i])
        at[UInt8](present.address())[unsafe_offset=i] = UInt8(row >= 0)
        if row >= 0:
            copy_row(index[], row, out.address(), i)
    _ = ids^
    _ = out^
    _ = present^
    return none()


def _ask_for(mut index: Index, ids: Int, i: Int, n: Int):
    """Asks for the rows of some ids at once before the first of them is read, where rows may be on disk.
    """
    if not index.vectors.on_disk or i % ASKED_AT_ONCE != 0:
        return
    var scratch = index.readers.claim()
    if missing(scratch):  # then they are read one after another
        return
    var count = 0
    for j in range(i, min(i + ASKED_AT_ONCE, n)):
        var row = index.row_of(at[Int64](ids)[unsafe_offset=j])
        scratch[].selected[unsafe_offset=count] = UInt32(max(row, 0))
        count += Int(row >= 0)
    ask_for_selected(index.rows(), scratch[], count)
    index.readers.release(scratch)


def copy_row(index: Index, row: Int, target: Int, i: Int):
    """Copies a stored row, or what it decodes to, to place i of an array without gaps."""
    var bytes = index.dim * item_bytes(index.dtype)
    var stored = at[UInt8](index.vectors.column.address + row * row_stride(index.dim, index.dtype))
    if not is_coded(index.dtype):
        copy_items(dest=at[UInt8](target + i * bytes), src=stored, count=bytes)
    elif index.dtype == CODED_8:
        decode_row[8](stored, index.dim, at[Float32](target + i * bytes))
    else:
        decode_row[4](stored, index.dim, at[Float32](target + i * bytes))


def index_forked(args: Args, count: Int) raises Fail -> Obj:
    """Implements index_forked(handle) -> None: to be called in a child process right after the fork.
    """
    need(count, 1)
    handle_of(args[unsafe_offset=0])[].readers.forget()
    return none()


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


def index_tuning(args: Args, count: Int) raises Fail -> Obj:
    """Implements index_tuning(handle) -> bytes: the rows of tuned search widths, as they were given or saved.
    """
    need(count, 1)
    ref index = capsule_get[Index, TAG](args[unsafe_offset=0])[]
    var bytes = index.notes.tunings * TUNING_WORDS * 8
    var result = external_call["PyBytes_FromStringAndSize", Obj](
        index.notes.tuning.address if bytes != 0 else 0, bytes
    )
    if result == 0:
        raise Fail()
    return result


def index_kept_queries(args: Args, count: Int) raises Fail -> Obj:
    """Implements index_kept_queries(handle) -> bytes: the sample of queries, as it was given or saved; none: empty.
    """
    need(count, 1)
    ref index = capsule_get[Index, TAG](args[unsafe_offset=0])[]
    var bytes = index.notes.query_bytes
    var made = external_call["PyBytes_FromStringAndSize", Obj](
        index.notes.queries.address if bytes != 0 else 0, bytes
    )
    if made == 0:
        raise Fail()
    return made


def index_set_kept_queries(args: Args, count: Int) raises Fail -> Obj:
    """Implements index_set_kept_queries(handle, data uint8[n]) -> None: replaces the sample of queries that files hold.
    """
    need(count, 2)
    var index = capsule_get[Index, TAG](args[unsafe_offset=0])
    var data = View(args[unsafe_offset=1], BYTE_TYPE, 1)
    var n = data.dim(0)
    # a new column, since the old one may be part of a file
    var column = Column()
    if n != 0 and not column.grow(n):
        raise fail("MemoryError", "no memory for the kept queries; the index is as it was")
    if n != 0:
        copy_items(dest=column.ptr[UInt8](), src=at[UInt8](data.address()), count=n)
    index[].notes.query_bytes = n
    index[].notes.queries = column^
    _ = data^
    return none()


def index_attributes(args: Args, count: Int) raises Fail -> Obj:
    """Implements index_attributes(handle) -> bytes: the attributes, as they were given or saved; none: empty.
    """
    need(count, 1)
    ref index = capsule_get[Index, TAG](args[unsafe_offset=0])[]
    var bytes = index.notes.attribute_bytes
    var made = external_call["PyBytes_FromStringAndSize", Obj](
        index.notes.attributes.address if bytes != 0 else 0, bytes
    )
    if made == 0:
        raise Fail()
    return made


def index_set_attributes(args: Args, count: Int) raises Fail -> Obj:
    """Implements index_set_attributes(handle, data uint8[n]) -> None: replaces the attributes that files hold.
    """
    need(count, 2)
    var index = capsule_get[Index, TAG](args[unsafe_offset=0])
    var data = View(args[unsafe_offset=1], BYTE_TYPE, 1)
    var n = data.dim(0)
    # a new column, since the old one may be part of a file
    var column = Column()
    if n != 0 and not column.grow(n):
        raise fail("MemoryError", "no memory for the attributes; the index is as it was")
    if n != 0:
        copy_items(dest=column.ptr[UInt8](), src=at[UInt8](data.address()), count=n)
    index[].notes.attribute_bytes = n
    index[].notes.attributes = column^
    _ = data^
    return none()


def index_stop_rules(args: Args, count: Int) raises Fail -> Obj:
    """Implements index_stop_rules(handle) -> bytes: an int64 for each row of tuned search widths, or none at all.
    """
    need(count, 1)
    ref notes = capsule_get[Index, TAG](args[unsafe_offset=0])[].notes
    var bytes = notes.tunings * 8 if notes.stop_rules.address != 0 else 0
    var result = external_call["PyBytes_FromStringAndSize", Obj](
        notes.stop_rules.address if bytes != 0 else 0, bytes
    )
    if result == 0:
        raise Fail()
    return result


def index_set_tuning(args: Args, count: Int) raises Fail -> Obj:
    """Implements index_set_tuning(handle, rows int64[n, 8], stop_rules int64[n or 0]) -> None: replaces the rows of tuned search
    widths and what they have beside them.
    """
    need(count, 3)
    var index = capsule_get[Index, TAG](args[unsafe_offset=0])
    var rows = View(args[unsafe_offset=1], INT64, 2)
    var rules = View(args[unsafe_offset=2], INT64, 1)
    var n = rows.dim(0)
    var m = rules.dim(0)
    if rows.dim(1) != TUNING_WORDS or n > MAX_TUNINGS or (m != 0 and m != n):
        raise fail("ValueError", "a table of %zd x %zd tuned widths", n, rows.dim(1))
    # new columns, since the old ones may be part of a file
    var column = Column()
    var beside = Column()
    if n != 0 and (not column.grow(n * TUNING_WORDS * 8) or (m != 0 and not beside.grow(m * 8))):
        raise fail("MemoryError", "no memory for the tuned widths; the index is as it was")
    if n != 0:
        copy_items(
            dest=column.ptr[UInt8](), src=at[UInt8](rows.address()), count=n * TUNING_WORDS * 8
        )
    if m != 0:
        copy_items(dest=beside.ptr[UInt8](), src=at[UInt8](rules.address()), count=m * 8)
    index[].notes.tunings = n
    index[].notes.tuning = column^
    index[].notes.stop_rules = beside^
    _ = rows^
    _ = rules^
    return none()
