"""Which file a path leads to: whether it is still the one that was opened, and what is in it."""

from __future__ import annotations

import fcntl
import os
import stat
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from vicinal._state import PathLike, State
from vicinal.errors import ConflictError, FormatError

__all__ = [
    "Identity",
    "fingerprint",
    "guarded",
    "journal_of",
    "lock_of",
    "look",
    "of_path",
    "same_file",
    "warn_of_journal",
]

# Device, inode, bytes and time of the last change: no two files that were ever written are equal.
Identity = tuple[int, int, int, int]
Found = tuple[str, os.stat_result]

_JOURNAL = ".journal"
_HEADER, _TABLE, _ENTRY = 4096, 256, 64  # docs/design/format.md


def of_path(path: PathLike) -> Identity | None:
    """Return what a path leads to now, None if there is nothing."""
    found = look(path)
    return None if found is None else _identity_of(found[1])


def look(path: PathLike) -> Found | None:
    """Return where a path leads and what the system says of it; each open asks, so little more."""
    name = os.fsdecode(path)
    try:
        about = os.lstat(name)
        if stat.S_ISLNK(about.st_mode):
            name = os.path.realpath(name)
            about = os.stat(name)
    except (OSError, ValueError):
        return None
    return name if name.startswith("/") else os.path.abspath(name), about


def _identity_of(about: os.stat_result) -> Identity:
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns


def same_file(path: PathLike, other: PathLike) -> bool:
    """Tell whether two paths name one place."""
    return _real(path) == _real(other)


def journal_of(path: PathLike) -> str:
    """Return where the journal of a file lies."""
    return _real(path) + _JOURNAL


def lock_of(path: PathLike) -> str:
    """Return the file by which a writer keeps others off."""
    return _real(path) + ".lock"


def _real(path: PathLike) -> str:
    return os.path.realpath(os.fsdecode(path))


def fingerprint(path: PathLike | int) -> str:
    """Return 32 hexadecimal digits that differ between files of different content.

    Reads the header and the list of checksums, which cover every byte: a ten-thousandth of a file.

    Raises
    ------
    OSError
        If it cannot be read.
    FormatError
        If it is no saved index.
    """
    import hashlib

    made = hashlib.blake2b(digest_size=16)
    with open(path, "rb", buffering=0, closefd=not isinstance(path, int)) as file:
        header = os.pread(file.fileno(), _HEADER, 0)
        (count,) = struct.unpack_from("<q", header.ljust(_HEADER, b"\0"), 24)
        last = _TABLE + _ENTRY * (count - 1)
        if len(header) < _HEADER or not 0 < count <= 59:
            raise FormatError(f"{path!r}: not an index that vicinal saved")
        begin, length = struct.unpack_from("<2q", header, last + 16)
        if begin < 0 or not 0 <= length <= os.fstat(file.fileno()).st_size:
            raise FormatError(f"{path!r}: not an index that vicinal saved")
        made.update(header)
        made.update(os.pread(file.fileno(), length, begin))
    return made.hexdigest()


@contextmanager
def guarded(index: State, path: PathLike, force: bool) -> Iterator[None]:
    """Keep a `with` block that saves an index from replacing what the index never saw.

    Raises
    ------
    ConflictError
        If the file that the index was opened from has been replaced since, other than by it, or
        the file at the path has a journal with changes of its own.
    """
    with _locked(path):
        origin = index._origin
        if origin is not None and not same_file(path, origin[0]):
            origin = None
        if not force:
            if origin is not None:
                _refuse_other(origin, path)
            _refuse_journal(path)
        yield
        if origin is not None:
            with suppress(OSError):
                index._origin = look(path)


@contextmanager
def _locked(path: PathLike) -> Iterator[None]:
    """Hold the file that a path leads to now, so that one process after the other replaces it."""
    file = -1
    with suppress(OSError):  # there is none yet, or the file system knows no locks
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if file >= 0:
            os.close(file)


def _refuse_other(origin: Found, path: PathLike) -> None:
    now = of_path(path)
    if now is not None and now != _identity_of(origin[1]):
        raise ConflictError(
            f"path: {os.fsdecode(path)} is no longer the file that this index was opened from; "
            "open it and change that, or force=True replaces it"
        )


def _refuse_journal(path: PathLike) -> None:
    if _journalled(_real(path)):
        raise ConflictError(
            f"path: {os.fsdecode(path)} has a journal with changes that this index does not hold; "
            'open it with mode="rw", or force=True gives them up'
        )


def warn_of_journal(index: State) -> None:
    """Warn whoever opens a file without the changes that lie beside it."""
    origin = index._origin
    if origin is not None and _journalled(origin[0]):
        warnings.warn(
            f"{origin[0]} has a journal with changes that are not in the file; "
            'follow=True and mode="rw" see them',
            RuntimeWarning,
            3,
        )


def _journalled(real: str) -> bool:
    name = real + _JOURNAL
    # asked first, since that raises nothing where there is none
    return os.access(name, os.F_OK) and os.path.getsize(name) > JOURNAL_HEADER


JOURNAL_HEADER = 256
