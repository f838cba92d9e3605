"""What of an opened file is in memory."""
from bindings.handles import handle_of
from bindings.python_api import Args, Fail, Obj, as_int, fail, from_int, need, no_memory, none
from bindings.gil import PythonWatch
from vicinal.index.residence import (
    ALL,
    NONE,
    file_bytes,
    file_in_memory,
    keep_in_memory,
    read_rows_by,
    walk_bytes,
)
from vicinal.system.outcome import NO_MEMORY, STOPPED
from vicinal.system.uring import rings_work
from vicinal.walk.arrivals import FAULT, RING


def index_keep(args: Args, count: Int) raises Fail -> Obj:
    """Implements index_keep(handle, level, opening, threads) -> None: brings parts of the file into memory, see `keep_in_memory`.
    """
    need(count, 4)
    ref index = handle_of(args[unsafe_offset=0])[]
    var level = as_int(args[unsafe_offset=1])
    var opening = as_int(args[unsafe_offset=2]) != 0
    var threads = as_int(args[unsafe_offset=3])
    if level < NONE or level > ALL:
        raise fail("ValueError", "no such level: %zd", level)
    var watch = PythonWatch(0, 0)
    var status = keep_in_memory(index, level, opening, threads, watch)
    _ = watch^
    if status == STOPPED:
        raise Fail()
    if status == NO_MEMORY:
        raise no_memory()
    return none()


def index_residence(args: Args, count: Int) raises Fail -> Obj:
    """Implements index_residence(handle, which) -> int: of the file all bytes (0), those that walks need (1), those in memory now (2),
    locked (3) and copied (4) ones, whether rows are asked for before they are measured (5), and how (6).
    """
    need(count, 2)
    ref index = handle_of(args[unsafe_offset=0])[]
    var which = as_int(args[unsafe_offset=1])
    var value: Int
    if which == 0:
        value = file_bytes(index)
    elif which == 1:
        value = walk_bytes(index)
    elif which == 2:
        value = file_in_memory(index)
        if value < 0:
            raise no_memory()
    elif which == 3:
        value = index.locked
    elif which == 4:
        value = index.copied
    elif which == 5:
        value = Int(index.vectors.on_disk)
    elif which == 6:
        value = index.vectors.row_file.how
    else:
        raise fail("ValueError", "no such number: %zd", which)
    return from_int(value)


def index_read_by(args: Args, count: Int) raises Fail -> Obj:
    """Implements index_read_by(handle, how, descriptor) -> None: how rows on disk are read, see `read_rows_by`.
    """
    need(count, 3)
    ref index = handle_of(args[unsafe_offset=0])[]
    var how = as_int(args[unsafe_offset=1])
    var file = as_int(args[unsafe_offset=2])
    if how < FAULT or how > RING or (file >= 0) != (how == RING):
        raise fail("ValueError", "no such way to read: %zd", how)
    read_rows_by(index, how, file)
    return none()


def rings_work_here(args: Args, count: Int) raises Fail -> Obj:
    """Implements rings_work() -> int: 1 if the system lets this process have an io_uring, else 0.
    """
    need(count, 0)
    return from_int(Int(rings_work()))
