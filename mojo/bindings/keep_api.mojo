"""What is kept with an index, for Python: a copy in a nameless file, the table of tuned search widths."""
from std.ffi import external_call
from std.memory import unsafe_memcpy

from bindings.index_api import TAG, report, status_view
from bindings.python_api import (
    INT64,
    Args,
    Fail,
    Obj,
    PythonWatch,
    View,
    as_int,
    capsule_get,
    fail,
    from_int,
    need,
    no_memory,
    none,
)
from vicinal.index import TUNING_WORDS, Index
from vicinal.memory import Column, at
from vicinal.store import MAX_TUNINGS, format_version, write_index


def index_write(args: Args, count: Int) raises Fail -> Obj:
    """Implements index_write(handle, descriptor, ef_search, status int64[5]) -> None: saves into an open, empty file.
    """
    need(count, 4)
    var index = capsule_get[Index, TAG](args[unsafe_offset=0])
    var file = as_int(args[unsafe_offset=1])
    var ef_search = as_int(args[unsafe_offset=2])
    var out = status_view(args[unsafe_offset=3])
    var watch = PythonWatch(0, 0)
    var status = write_index(index[], Int32(file), ef_search, watch)
    var raised = watch.raised
    _ = watch^
    report(status, out)
    _ = out^
    if raised:
        raise Fail()
    return none()


def index_version(args: Args, count: Int) raises Fail -> Obj:
    """Implements index_version(handle) -> int: the format version of the file that `save` would write.
    """
    need(count, 1)
    var version = format_version(capsule_get[Index, TAG](args[unsafe_offset=0])[])
    if version == 0:
        raise no_memory()
    return from_int(version)


def index_tuning(args: Args, count: Int) raises Fail -> Obj:
    """Implements index_tuning(handle) -> bytes: the rows of tuned search widths, as they were given or saved.
    """
    need(count, 1)
    ref index = capsule_get[Index, TAG](args[unsafe_offset=0])[]
    var bytes = index.tunings * TUNING_WORDS * 8
    var result = external_call["PyBytes_FromStringAndSize", Obj](
        index.tuning.address if bytes != 0 else 0, bytes
    )
    if result == 0:
        raise Fail()
    return result


def index_set_tuning(args: Args, count: Int) raises Fail -> Obj:
    """Implements index_set_tuning(handle, rows int64[n, 8]) -> None: replaces the rows of tuned search widths.
    """
    need(count, 2)
    var index = capsule_get[Index, TAG](args[unsafe_offset=0])
    var rows = View(args[unsafe_offset=1], INT64, 2)
    var n = rows.dim(0)
    if rows.dim(1) != TUNING_WORDS or n > MAX_TUNINGS:
        raise fail("ValueError", "a table of %zd x %zd tuned widths", n, rows.dim(1))
    # a new column, since the old one may be part of a file
    var column = Column()
    if n != 0 and not column.grow(n * TUNING_WORDS * 8):
        raise fail("MemoryError", "no memory for the tuned widths; the index is as it was")
    if n != 0:
        unsafe_memcpy(
            dest=column.ptr[UInt8](), src=at[UInt8](rows.address()), count=n * TUNING_WORDS * 8
        )
    index[].tunings = n
    index[].tuning = column^
    _ = rows^
    return none()
