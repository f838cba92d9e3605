"""Saving, opening and verifying a file, and the checksum that it uses."""
from bindings.exact_api import need_space
from bindings.handles import TAG, handle_of
from bindings.python_api import (
    Args,
    Fail,
    Obj,
    as_int,
    capsule_get,
    capsule_new,
    fail,
    from_int,
    is_int,
    need,
    no_memory,
    none,
    path_bytes,
)
from bindings.arrays import INT64, View
from bindings.gil import PythonWatch
from vicinal.file.mapped import verify
from vicinal.file.posix import InputFile, Status
from vicinal.index.header import IndexFile
from vicinal.index.opening import open_index
from vicinal.index.saving import format_version, save_index, write_index, write_index_apart
from vicinal.index.vector_index import Index
from vicinal.system.crc import crc32c as checksum
from vicinal.system.memory import at

comptime BYTE = 4
"""Array type code of unsigned bytes."""


def crc32c(args: Args, count: Int) raises Fail -> Obj:
    """Implements crc32c(buffer, start) -> int: `start` is the sum of what came before, or 0."""
    need(count, 2)
    var start = as_int(args[unsafe_offset=1])
    if start < 0 or start > Int(UInt32.MAX):
        raise fail("ValueError", "start: expected 32 bits, got %zd", start)
    var view = View(args[unsafe_offset=0], BYTE, 1)
    var sum = checksum(view.address(), view.dim(0), UInt32(start))
    _ = view^
    return from_int(Int(sum))


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
    var source = InputFile(path) if path != 0 else InputFile(descriptor=descriptor)
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
        status = verify(at[IndexFile](index[].file)[], threads, watch, index[].vectors.on_disk)
        raised = watch.raised
        _ = watch^
    report(status, out)
    _ = out^
    if raised:
        raise Fail()
    return none()


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


def index_write_apart(args: Args, count: Int) raises Fail -> Obj:
    """Implements index_write_apart(handle, descriptor, report, ef_search) -> int: the process that saves into an open, empty file
    and writes the status into a pipe, or a negative errno.
    """
    need(count, 4)
    var index = capsule_get[Index, TAG](args[unsafe_offset=0])
    var file = as_int(args[unsafe_offset=1])
    var pipe = as_int(args[unsafe_offset=2])
    var ef_search = as_int(args[unsafe_offset=3])
    # with the GIL: the child has one thread, and this one must be at nothing else
    return from_int(write_index_apart(index[], Int32(file), Int32(pipe), ef_search))


def index_version(args: Args, count: Int) raises Fail -> Obj:
    """Implements index_version(handle) -> int: the format version of the file that `save` would write.
    """
    need(count, 1)
    var version = format_version(capsule_get[Index, TAG](args[unsafe_offset=0])[])
    if version == 0:
        raise no_memory()
    return from_int(version)
