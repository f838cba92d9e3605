"""Index files: saved and opened by the library, and its statuses in words."""
from std.ffi import c_int, external_call

from vicinal.file.format import (
    BAD_CONTENT,
    BAD_FIELD,
    BAD_HEADER,
    BAD_SECTION,
    BAD_TABLE,
    EMPTY_FILE,
    NOT_OURS,
    OTHER_ENDIAN,
    OTHER_VERSION,
    TOO_LONG,
    TRUNCATED,
    VERSION,
)
from vicinal.file.posix import SPECIAL, SYSTEM, InputFile, Status
from vicinal.index.opening import open_index
from vicinal.index.saving import save_index
from vicinal.index.vector_index import Index
from vicinal.system.memory import Bytes
from vicinal.system.parallel import Unwatched
from vicinal.system.pointer import RawPtr


def c_text(start: Bytes) -> String:
    """Copies a NUL-terminated string.

    Safety:
        There must be a NUL.
    """
    var text = List[UInt8]()
    var i = 0
    while start[unsafe_offset=i] != 0:
        text.append(start[unsafe_offset=i])
        i += 1
    return String(unsafe_from_utf8=Span(text))


def describe(status: Status) -> String:
    """Returns a failure in words."""
    var name = String("")
    for i in range(16):
        if status.name[i] != 0:
            name += chr(Int(status.name[i]))
    var a = status.a
    var b = status.b
    var code = status.code
    if code == SYSTEM:
        return c_text(external_call["strerror", RawPtr[UInt8]](c_int(a)))
    if code == SPECIAL:
        return "expected a regular file, got a pipe, a socket or a device"
    if code == EMPTY_FILE:
        return "expected a saved index, got an empty file"
    if code == NOT_OURS:
        return "expected a saved index, but the file begins otherwise"
    if code == OTHER_ENDIAN:
        return "written by a machine of the other byte order"
    if code == OTHER_VERSION:
        return String(t"format version {a}; this program reads up to {VERSION}")
    if code == TRUNCATED or code == TOO_LONG:
        return String(t"damaged: the file has {a} bytes, its header promises {b}")
    if code == BAD_HEADER:
        return "damaged: the header does not fit its checksum"
    if code == BAD_FIELD:
        return String(t"damaged: {name} cannot be {a}")
    if code == BAD_TABLE:
        return String(t"damaged: entry {a} ({name}) of the section table breaks rule {b}")
    if code == BAD_SECTION:
        return String(t"damaged: section {name} does not have {a} rows of {b} elements")
    if code == BAD_CONTENT:
        return String(t"damaged: item {a} of section {name} contradicts the rest")
    return String(t"failed with status {code} ({a}, {b})")


def open_file(path: String) raises -> Index:
    """Opens a saved index to be searched where it lies in the file.

    Raises:
        With the path and the reason where the library refuses the file.
    """
    var name = path
    var status = Status.done()
    var watch = Unwatched()
    var index = open_index(
        InputFile(Int(name.as_c_string_span().ptr())), False, False, status, watch
    )
    _ = name^
    if not status.ok():
        raise Error(t"--open {path}: {describe(status)}")
    return index^


def save_file(index: Index, path: String) raises:
    """Saves an index.

    Raises:
        With the path and the reason where it cannot be written.
    """
    var name = path
    var watch = Unwatched()
    var status = save_index(index, Int(name.as_c_string_span().ptr()), index.notes.ef_search, watch)
    _ = name^
    if not status.ok():
        raise Error(t"--save {path}: {describe(status)}")
