"""Links of one part, the graph of all parts, and memory that is given back meanwhile."""
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
    path_bytes,
    tuple_item,
    tuple_size,
)
from bindings.arrays import INT64, UINT32, View
from bindings.file_api import BYTE
from bindings.gil import NoGil, PythonWatch
from vicinal.file.posix import EIO, ENOMEM, InputFile, Status
from vicinal.parts.join import UNREADABLE, join_parts
from vicinal.parts.part_lists import PartLinks
from vicinal.system.memory import Ptr, allocate, at, missing, release
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
    """Implements index_join(handle, rows, links, offsets or None, threads, progress or None, exact_below, bounded) -> None.

    The index has rows and no graph, and nobody else uses it; after an exception it is of no use. `rows` is a tuple of the rows of each
    part, uint32[n]; `links` of their blocks, uint32[n, slots], or with `offsets`, int64, of paths as bytes: the blocks begin in each file
    at its offset. From `exact_below` rows on the index makes a graph by itself from now on. With `bounded` the index is a map of a file
    that nobody writes to; pages of its rows are taken out of this process once they were read.
    """
    need(count, 8)
    var index = handle_of(args[unsafe_offset=0])
    var rows = args[unsafe_offset=1]
    var links = args[unsafe_offset=2]
    var in_files = not is_none(args[unsafe_offset=3])
    var threads = as_int(args[unsafe_offset=4])
    var progress = 0 if is_none(args[unsafe_offset=5]) else args[unsafe_offset=5]
    var exact_below = as_int(args[unsafe_offset=6])
    var bounded = as_int(args[unsafe_offset=7]) != 0
    if index[].graph[].linked != 0:
        raise fail("ValueError", "index: expected one without a graph")
    if bounded and index[].file == 0:
        raise fail("ValueError", "index: expected one that was opened from a file")
    var size = tuple_size(rows)
    var parts = allocate[PartLinks](max(size, 1))
    if missing(parts):
        raise no_memory()
    try:
        for p in range(size):
            # the tuples keep arrays and paths after these views are gone
            var list = View(tuple_item(rows, p), UINT32, 1)
            var part = PartLinks(
                at[UInt32](list.address()), list.dim(0), at[UInt32](list.address()), 0, 0
            )
            _ = list^
            if in_files:
                part.path = path_bytes(tuple_item(links, p))
                part.offset = _item_of(args[unsafe_offset=3], p)
            else:
                part.links = _blocks_of(
                    tuple_item(links, p), p, part.count, index[].graph[].slots_at(0)
                )
            parts[unsafe_offset=p] = part
    except failed:
        release(parts)
        raise failed
    index[].vectors.give_back = bounded
    var watch = PythonWatch(progress, index[].count)
    var status = join_parts(index[], parts, size, threads, watch)
    _ = watch^
    release(parts)
    if status == STOPPED:
        raise Fail()  # the watch has set the exception
    if status == NO_MEMORY:
        raise no_memory()
    if status != DONE and status.code % 8 == UNREADABLE:
        raise fail("OSError", "part %zd: its links could not be read", status.code // 8)
    if status != DONE:
        raise fail("ValueError", "parts: a part names a row that does not exist, or one twice")
    index[].exact_below = exact_below
    return none()


def _blocks_of(array: Obj, p: Int, rows: Int, width: Int) raises Fail -> Ptr[UInt32]:
    """Returns where the blocks of a part begin."""
    var view = View(array, UINT32, 2)
    var fits = view.dim(0) == rows and view.dim(1) == width
    var address = view.address()
    _ = view^
    if not fits:
        raise fail("ValueError", "part %zd: expected blocks of %zd links for its rows", p, width)
    return at[UInt32](address)


def _item_of(array: Obj, i: Int) raises Fail -> Int:
    """Returns an item of an array of int64."""
    var view = View(array, INT64, 1)
    var fits = i < view.dim(0)
    var item = at[Int64](view.address())[unsafe_offset=i] if fits else Int64(0)
    _ = view^
    if not fits:
        raise fail("ValueError", "offsets: expected more than %zd", i)
    return Int(item)


def rows_read(args: Args, count: Int) raises Fail -> Obj:
    """Implements rows_read(descriptor, offset, stride, rows uint32[n], out uint8[n, bytes]) -> None.

    Reads the first bytes of rows that lie `stride` bytes apart in a file that is open for reading, row 0 at `offset`.
    """
    need(count, 5)
    var file = InputFile(descriptor=as_int(args[unsafe_offset=0]))
    var offset = as_int(args[unsafe_offset=1])
    var stride = as_int(args[unsafe_offset=2])
    var rows = View(args[unsafe_offset=3], UINT32, 1)
    var out = View(args[unsafe_offset=4], BYTE, 2, writable=True)
    var fits = out.dim(0) == rows.dim(0)
    var status = file.status
    if fits and status.ok():
        var gil = NoGil()
        var bytes = out.dim(1)
        for i in range(rows.dim(0)):
            var place = offset + Int(at[UInt32](rows.address())[unsafe_offset=i]) * stride
            if place + bytes > file.bytes:
                status = Status.system(EIO)
            else:
                status = file.read_at(out.address() + i * bytes, bytes, place)
            if not status.ok():
                break
        _ = gil^
    _ = rows^
    _ = out^
    _ = file^
    if not fits:
        raise fail("ValueError", "out: expected as many rows as there are numbers")
    if status.a == ENOMEM and not status.ok():
        raise no_memory()
    if not status.ok():
        raise fail("OSError", "rows: could not be read, error %zd", status.a)
    return none()


def index_give_back(args: Args, count: Int) raises Fail -> Obj:
    """Implements index_give_back(handle) -> None: takes the vectors of an index that is joined under a bound out of this process.

    They stay in the system's cache while it has room, and come again when they are read; at any time, from any thread.
    """
    need(count, 1)
    ref index = handle_of(args[unsafe_offset=0])[]
    index.row_pages().give_back_all()
    return none()
