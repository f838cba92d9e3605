"""Between paths and statuses of the native code and what a Python caller expects of files."""

from __future__ import annotations

import errno
import os
import reprlib
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from vicinal.errors import CorruptError, FormatError

__all__ = ["FORMAT_VERSION", "Code", "call", "path_bytes", "raise_for_status"]

FORMAT_VERSION = 2
"""The newest format version that is read; files are written in the oldest that can hold them."""


class Code(IntEnum):
    """How native code on a file ended; `mojo/vicinal/file` says what the details mean."""

    DONE = 0
    SYSTEM = 1
    INTERRUPTED = 2
    SPECIAL = 3
    EMPTY_FILE = 4
    NOT_OURS = 5
    OTHER_VERSION = 6
    OTHER_ENDIAN = 7
    BAD_HEADER = 8
    TRUNCATED = 9
    TOO_LONG = 10
    BAD_FIELD = 11
    BAD_TABLE = 12
    BAD_SECTION = 13
    BAD_BLOCK = 14
    BAD_PADDING = 15
    BAD_CHECKSUMS = 16
    BAD_CONTENT = 17
    BAD_COUNT = 18


_DAMAGE: dict[int, str] = {
    Code.OTHER_VERSION: "format version {a} does not exist",
    Code.BAD_HEADER: "the header says that its checksum is {a:#010x}, but it is {b:#010x}",
    Code.TRUNCATED: "file ends at byte {a}, its header promises {b}",
    Code.TOO_LONG: "file ends at byte {a}, its header promises {b}",
    Code.BAD_FIELD: "the header gives {name!r} the impossible value {a}",
    Code.BAD_SECTION: "section {name!r} is missing or has not {a} rows of {b} elements",
    Code.BAD_BLOCK: "{b} bytes from byte {a} on, in section {name!r}, do not fit their checksum",
    Code.BAD_PADDING: "byte {a} must be zero and is not",
    Code.BAD_CHECKSUMS: "the list of checksums, {b} bytes from byte {a} on, does not fit its own",
    Code.BAD_CONTENT: "item {a} of section {name!r} contradicts the rest of the file",
    Code.BAD_COUNT: "the header gives {name!r} as {a} rows, section {marks!r} marks {b}",
}

# Which section marks what a field of the header counts
_MARKS = {"removed": "tombstones", "shaded": "tombstones", "copies": "copies"}

_BROKEN_RULE = {
    1: "there cannot be {a} sections",
    2: "section {a} ({name!r}) has no name of its own",
    3: "the type and shape of section {a} ({name!r}) do not make its length",
    4: "section {a} ({name!r}) is not where it must be: behind the one before it, inside the file",
    5: "the last section ({name!r}) is not the list of checksums that the others need",
}

_HEADER_BYTES = 4096
_STATUS_WORDS = 5

T = TypeVar("T")


def path_bytes(path: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> bytes:
    """Turn a path into the bytes that the system takes.

    Raises
    ------
    TypeError
        If `path` is no path.
    ValueError
        If it holds a NUL character.
    """
    try:
        name = os.fsencode(path)
    except TypeError:
        kind = type(path).__name__
        raise TypeError(f"path: expected str, bytes or os.PathLike, got {kind}") from None
    if b"\0" in name:
        raise ValueError(f"path: expected no NUL character, got {reprlib.repr(os.fspath(path))}")
    return name


def call(
    function: Callable[[bytes, NDArray[np.int64]], T],
    path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
) -> T:
    """Call native code that works on a file.

    Parameters
    ----------
    function : callable
        Takes the path's bytes and an int64 array of five words to put its status into.
    path : str, bytes or path-like
        The file.

    Returns
    -------
    object
        What `function` returned.

    Raises
    ------
    OSError
        If the system refused, as the subclass that fits; `filename` is `path`.
    MemoryError
        If memory or addresses are out.
    FormatError
        If the file is no saved index or of another version.
    CorruptError
        If the file is damaged.
    """
    status = np.zeros(_STATUS_WORDS, np.int64)
    result = function(path_bytes(path), status)
    if status[0] != Code.DONE:
        raise_for_status(status, path)
    return result


def raise_for_status(
    status: Sequence[int] | NDArray[np.int64],
    path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
) -> None:
    """Raise what a status means, or nothing if all is well.

    Parameters
    ----------
    status : array of int64, shape (5,)
        Code, two details, and 16 bytes of a section's name.
    path : str, bytes or path-like
        The file, for the message.

    Raises
    ------
    OSError, MemoryError, FormatError, CorruptError
        As `call`.
    """
    words = np.asarray(status, np.int64)
    code, a, b = (int(word) for word in words[:3])
    if code == Code.DONE:
        return
    if code == Code.SYSTEM and a == errno.ENOMEM:
        raise MemoryError(f"no memory to read or write {os.fsdecode(path)}")
    if code == Code.SYSTEM:
        raise OSError(a, os.strerror(a), os.fspath(path))
    if code == Code.SPECIAL:
        raise OSError(errno.EINVAL, "Not a regular file", os.fspath(path))
    name = words[3:5].tobytes().rstrip(b"\0").decode("ascii", "backslashreplace")
    where = os.fsdecode(path)
    foreign = _foreign(code, a, b)
    if foreign is not None:
        raise FormatError(f"{where}: {foreign}")
    damage = _damage(code, a, b, name)
    if damage is not None:
        raise CorruptError(f"{where}: {damage}")
    raise RuntimeError(f"{where}: native code returned status {code} ({a}, {b}, {name!r})")


def _foreign(code: int, a: int, b: int) -> str | None:
    """Say why a file was not written by this release's format, or None if it is another matter."""
    if code == Code.EMPTY_FILE:
        return "the file is empty; expected an index that vicinal saved"
    if code == Code.NOT_OURS:
        return f"not an index that vicinal saved: the {a} bytes do not begin with its mark"
    if code == Code.OTHER_ENDIAN:
        return "written by a machine of the other byte order; only such a machine can read it"
    if code == Code.OTHER_VERSION and a > FORMAT_VERSION:
        doubt = "; its header fails its checksum, so it may be damaged as well" if b else ""
        return (
            f"format version {a}, written by a newer version of vicinal, which would read it; "
            f"this one reads versions up to {FORMAT_VERSION}{doubt}"
        )
    return None


def _damage(code: int, a: int, b: int, name: str) -> str | None:
    """Say how a file is damaged, or None if it is another matter."""
    if code == Code.TRUNCATED and a < _HEADER_BYTES:
        return f"file ends at byte {a}, its header alone takes {b}"
    if code == Code.BAD_TABLE:
        rule = _BROKEN_RULE.get(b, "section {a} ({name!r}) is wrong")
        return f"the section table is damaged: {rule.format(a=a, name=name)}"
    text = _DAMAGE.get(code)
    return None if text is None else text.format(a=a, b=b, name=name, marks=_MARKS.get(name))
