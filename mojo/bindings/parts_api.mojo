"""Links of one part, the graph of all parts, and memory that is given back meanwhile."""
from std.ffi import c_int, external_call

from bindings.handles import handle_of
from bindings.python_api import (
    Args,
    Fail,
    Obj,
    as_int,
    fail,
    is_none,
    need,
    no_memory,
    none,
    tuple_item,
    tuple_size,
)
from bindings.arrays import UINT32, View
from bindings.gil import PythonWatch
from vicinal.construct.unite import PartLinks
from vicinal.kernels.stored_type import row_stride
from vicinal.parts.join import join_parts
from vicinal.system.memory import allocate, at, missing, release
from vicinal.system.outcome import DONE, NO_MEMORY, STOPPED
from vicinal.system.pointer import copy_items


def index_links(args: Args, count: Int) raises Fail -> Obj:
    """Implements index_links(handle, out uint32[linked, slots]) -> None: the blocks of level 0."""
    need(count, 2)
    ref graph = handle_of(args[unsafe_offset=0])[].graph[]
    var out = View(args[unsafe_offset=1], UINT32, 2, writable=True)
    var rows = out.dim(0)
    var width = out.dim(1)
    if rows == graph.linked and width == graph.slots_at(0):
        copy_items(
            dest=at[UInt32](out.address()), src=graph.links0.ptr[UInt32](), count=rows * width
        )
    _ = out^
    if rows != graph.linked or width != graph.slots_at(0):
        raise fail(
            "ValueError", "out does not have shape (%zd, %zd)", graph.linked, graph.slots_at(0)
        )
    return none()


def index_join(args: Args, count: Int) raises Fail -> Obj:
    """Implements index_join(handle, parts, threads, progress or None, exact_below) -> None.

    The index has rows and no graph, and nobody else uses it; after an exception it is of no use. `parts` is a tuple that holds, for each
    part, its rows as uint32[n] and their blocks as uint32[n, slots], one after the other. From `exact_below` rows on the index
    makes a graph by itself from now on.
    """
    need(count, 5)
    var index = handle_of(args[unsafe_offset=0])
    var arrays = args[unsafe_offset=1]
    var threads = as_int(args[unsafe_offset=2])
    var progress = 0 if is_none(args[unsafe_offset=3]) else args[unsafe_offset=3]
    if index[].graph[].linked != 0:
        raise fail("ValueError", "index: expected one without a graph")
    var size = tuple_size(arrays) // 2
    var width = index[].graph[].slots_at(0)
    var parts = allocate[PartLinks](max(size, 1))
    if missing(parts):
        raise no_memory()
    for p in range(size):
        var rows_of: Int
        var links_of: Int
        var n: Int
        var fits: Bool
        try:
            # the tuple keeps the arrays after these views are gone
            var rows = View(tuple_item(arrays, 2 * p), UINT32, 1)
            var links = View(tuple_item(arrays, 2 * p + 1), UINT32, 2)
            rows_of = rows.address()
            links_of = links.address()
            n = rows.dim(0)
            fits = links.dim(0) == n and links.dim(1) == width
            _ = rows^
            _ = links^
        except failed:
            release(parts)
            raise failed
        if not fits:
            release(parts)
            raise fail(
                "ValueError", "part %zd: expected blocks of %zd links for its rows", p, width
            )
        parts[unsafe_offset=p] = PartLinks(at[UInt32](rows_of), at[UInt32](links_of), n)
    var watch = PythonWatch(progress, index[].count)
    var status = join_parts(index[], parts, size, threads, watch)
    _ = watch^
    release(parts)
    if status == STOPPED:
        raise Fail()  # the watch has set the exception
    if status != DONE and status != NO_MEMORY:
        raise fail("ValueError", "parts: a part names a row that does not exist, or one twice")
    if status != DONE:
        raise no_memory()
    index[].exact_below = as_int(args[unsafe_offset=4])
    return none()


def index_give_back(args: Args, count: Int) raises Fail -> Obj:
    """Implements index_give_back(handle) -> None: takes the vectors of a mapped file out of this process.

    They stay in the system's cache while it has room, and come again when they are read; at any time, from any thread.
    """
    comptime MADV_DONTNEED = 4
    need(count, 1)
    ref index = handle_of(args[unsafe_offset=0])[]
    if index.file != 0 and index.count != 0:  # a section of a file begins on a page
        _ = external_call["madvise", c_int](
            index.vectors.column.address,
            index.count * row_stride(index.dim, index.dtype),
            c_int(MADV_DONTNEED),
        )
    return none()
