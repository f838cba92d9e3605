"""Making an index and changing it: additions, removals, replacing, compacting."""
from bindings.exact_api import need_space
from bindings.handles import TAG, handle_of
from bindings.info_api import know_ids
from bindings.python_api import (
    Args,
    Fail,
    Obj,
    as_int,
    capsule_keep,
    capsule_new,
    fail,
    from_int,
    is_none,
    need,
    no_memory,
)
from bindings.arrays import INT64, View
from bindings.gil import NoGil, PythonWatch
from vicinal.construct.merge_order import SourceGraph
from vicinal.index.borrowed_rows import FREE_TO_STAY, must_copy, returnable
from vicinal.index.first_use import catch_up
from vicinal.index.vector_index import Index
from vicinal.kernels.stored_type import given_type
from vicinal.system.memory import at
from vicinal.system.outcome import DONE, NO_MEMORY, Outcome, STOPPED
from vicinal.update.add import do_change
from vicinal.update.compact import compact
from vicinal.update.consolidate import consolidate, prepare_change
from vicinal.update.transaction import Change
from vicinal.walk.readers import PATIENCE


def _report(progress: Obj) raises Fail -> Obj:
    """Returns what a watch takes: the callable, or 0 for None."""
    return 0 if is_none(progress) else progress


def _begin(mut index: Index):
    """Does what is due before a change, without the GIL."""
    var gil = NoGil()
    prepare_change(index)
    _ = gil^


def _end(
    handle: Obj, mut index: Index, mut change: Change, status: Outcome, threads: Int
) raises Fail:
    """Lets a change take effect, or takes it back and raises what ended it.

    Once it has taken effect it stays so: if Ctrl-C comes while removed rows are taken out of the graph, that is left for later, and
    KeyboardInterrupt is raised for a change that is done.
    """
    if status != DONE:
        if change.linked:  # searches may be at its rows
            var gil = NoGil()
            change.met = not index.wait_for(index.readers.retire(), PATIENCE)
            _ = gil^
        change.roll_back(index)
        _raise(status)
        return
    change.commit(index)
    var watch = PythonWatch(0, 0)
    change.finish(index)
    _ = consolidate(index, threads, watch, change.added + change.num_leaving, change.places())
    var stopped = watch.raised
    _ = watch^
    if returnable(index):
        capsule_keep(handle, 0)
    if stopped:
        raise Fail()


def _raise(status: Outcome) raises Fail:
    if status == STOPPED:
        raise Fail()  # the watch has set the exception
    if status == NO_MEMORY:
        raise fail("MemoryError", "no memory for the rows of this call; the index is as it was")


def _ready(mut index: Index, removes: Bool) raises Fail:
    """Makes what a change looks rows up in, without the GIL: the steps that follow hold it, and take no time by size then.
    """
    know_ids(index)
    if index.duplicates.seen >= index.graph[].linked or (removes and index.duplicates.count == 0):
        return
    var watch = PythonWatch(0, 0)
    var status = catch_up(index, watch)
    _ = watch^
    _raise(status)


def index_add(args: Args, count: Int) raises Fail -> Obj:
    """Implements index_add(handle, rows, ids, given, replaces, threads, progress or None, lent, other or None, origins) -> 0 or what
    was refused.

    `ids` receives the ids of the rows unless they are `given`; with `replaces` rows whose ids are there take the place of those.
    With `lent` the index reads the rows where they are, see `index/borrowed_rows.mojo`, and keeps the object that holds them;
    2 says that they lie in a map of a file and do not fit the memory.
    With an `other` handle the rows are those of its rows `origins`, whose links there tell where to look for links here.
    """
    need(count, 10)
    var index = handle_of(args[unsafe_offset=0])
    var given = as_int(args[unsafe_offset=3]) != 0
    var replaces = as_int(args[unsafe_offset=4]) != 0
    var threads = as_int(args[unsafe_offset=5])
    var progress = _report(args[unsafe_offset=6])
    var other = handle_of(args[unsafe_offset=8]) if not is_none(args[unsafe_offset=8]) else index
    _ready(index[], False)
    var rows = View(args[unsafe_offset=1], given_type(index[].dtype), 2)
    var ids = View(args[unsafe_offset=2], INT64, 1, writable=True)
    var how = as_int(args[unsafe_offset=7])
    var lent = how != 0
    var origins = View(args[unsafe_offset=9], INT64, 1)
    var n = rows.dim(0)
    if lent and must_copy(index[]) != FREE_TO_STAY:
        raise fail("ValueError", "these rows have to be copied")
    if rows.dim(1) != index[].dim or ids.dim(0) != n:
        raise fail("ValueError", "rows or ids do not have shape (%zd, %zd)", n, index[].dim)
    _begin(index[])
    var change = Change()
    var status = (
        change.begin_insert(index[], ids.address() if given else 0, n, replaces) if n != 0 else DONE
    )
    if status != DONE or n == 0:
        _raise(status)
        index[].ids.largest = max(index[].ids.largest, other[].ids.largest)
        return from_int(status.code)
    change.lent = lent
    change.on_disk = how == 2
    if not is_none(args[unsafe_offset=8]):
        change.largest_id = max(change.largest_id, other[].ids.largest)
        if other[].graph[].linked != 0 and origins.dim(0) == n:
            change.origin = SourceGraph(other[].graph, at[Int64](origins.address()), n)
    var watch = PythonWatch(progress, n)
    status = do_change(index[], change, rows.address(), threads, watch)
    _ = watch^
    if not given and status == DONE:
        for i in range(n):
            at[Int64](ids.address())[unsafe_offset=i] = index[].ids.column.ptr[Int64]()[
                unsafe_offset=change.places().row(i)
            ]
    _ = rows^
    _ = ids^
    _ = origins^
    if lent and status == DONE:
        capsule_keep(args[unsafe_offset=0], args[unsafe_offset=1])
    _end(args[unsafe_offset=0], index[], change, status, threads)
    return from_int(status.code)


def index_must_copy(args: Args, count: Int) raises Fail -> Obj:
    """Implements index_must_copy(handle) -> 0, or why the next rows cannot stay where they are."""
    need(count, 1)
    return from_int(must_copy(handle_of(args[unsafe_offset=0])[]))


def index_remove(args: Args, count: Int) raises Fail -> Obj:
    """Implements index_remove(handle, rows, threads, progress or None) -> 0 or what was refused; rows as `index_rows` told.
    """
    need(count, 4)
    var index = handle_of(args[unsafe_offset=0])
    var threads = as_int(args[unsafe_offset=2])
    var progress = _report(args[unsafe_offset=3])
    _ready(index[], True)
    var rows = View(args[unsafe_offset=1], INT64, 1)
    var n = rows.dim(0)
    _begin(index[])
    var change = Change()
    var status = change.begin_delete(index[], at[Int64](rows.address()), n) if n != 0 else DONE
    _ = rows^
    if status != DONE or n == 0:
        _raise(status)
        return from_int(status.code)
    var watch = PythonWatch(progress, n)
    if not watch.conclude(n):
        status = STOPPED
    _ = watch^
    _end(args[unsafe_offset=0], index[], change, status, threads)
    return from_int(status.code)


def index_compact(args: Args, count: Int) raises Fail -> Obj:
    """Implements index_compact(handle, threads, progress or None) -> a new handle; the old index is not changed.
    """
    need(count, 3)
    var old = handle_of(args[unsafe_offset=0])
    var threads = as_int(args[unsafe_offset=1])
    var progress = _report(args[unsafe_offset=2])
    var new = Index(
        old[].metric,
        old[].dtype,
        old[].dim,
        old[].graph[].asked,
        old[].ef_construction,
        old[].seed,
        old[].exact_below,
        old[].quantization,
    )
    if new.failed():
        raise no_memory()
    var watch = PythonWatch(progress, old[].live())
    var status = compact(old[], new, threads, watch)
    _ = watch^
    _raise(status)
    return capsule_new[Index, TAG](new^)


def index_new(args: Args, count: Int) raises Fail -> Obj:
    """Implements index_new(metric, dtype, dim, M, ef_construction, seed, exact_below, quantization[, walk_dim]) -> handle.
    """
    if count != 9:
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
    if count == 9:
        index.walk_dim = as_int(args[unsafe_offset=8])
    if index.failed():
        raise no_memory()
    return capsule_new[Index, TAG](index^)
