"""Opening a living file: the lock, the journal that was left, what of it is whole."""

from __future__ import annotations

import os
import reprlib
from contextlib import suppress

from vicinal import _attributes, _identity, _kinds, _persistence, _residence, _validate
from vicinal._logging import WARNING, log
from vicinal._state import PathLike, State
from vicinal.errors import ConflictError, CorruptError
from vicinal.living import records
from vicinal.living.checkpoint import TEMPORARY
from vicinal.living.follow import Follower
from vicinal.living.index import LivingIndex
from vicinal.living.journal import Journal, new_header, read_at, write_at, write_new
from vicinal.living.lock import FileLock
from vicinal.living.records import HEADER_BYTES, Header
from vicinal.living.replay import replay
from vicinal.living.writer import Writer

__all__ = ["open_living", "open_other"]

_DAMAGED = ("error", "cut")


def open_other(
    path: PathLike,
    mode: str,
    verify: bool,
    resident: str,
    follow: bool,
    flush_changes: int | None,
    flush_seconds: float | None,
    damaged: str,
    pickle: str,
) -> LivingIndex | Follower:
    """Open a file with mode="rw" or to follow it, after a look at what goes with what."""
    if pickle != "bytes":
        raise ValueError(f'pickle: expected "bytes" but with mode="r", got {reprlib.repr(pickle)}')
    if not follow:
        _residence.check(resident, "copy")
        return open_living(path, verify, flush_changes, flush_seconds, damaged)
    if mode != "r":
        raise ValueError(f"mode: expected 'r' with follow=True, got {reprlib.repr(mode)}")
    if flush_changes is not None or flush_seconds is not None or damaged != "error":
        raise ValueError('mode: expected "rw" with flush_changes, flush_seconds or damaged')
    return Follower(path, verify, resident)


def open_living(
    path: PathLike,
    verify: bool,
    flush_changes: int | None,
    flush_seconds: float | None,
    damaged: str,
) -> LivingIndex:
    """Open a file for writing; see `vicinal.open` with mode="rw"."""
    if damaged not in _DAMAGED:
        raise ValueError(f"damaged: expected 'error' or 'cut', got {reprlib.repr(damaged)}")
    if flush_changes is not None:
        flush_changes = _validate.whole_number(
            flush_changes, "flush_changes", 1, _validate.MAX_COUNT
        )
    if flush_seconds is not None:
        flush_seconds = _validate.real_number(flush_seconds, "flush_seconds")
        if not 0 < flush_seconds <= 1e6:
            raise ValueError(f"flush_seconds: expected more than 0, got {flush_seconds}")
    os.stat(path)
    real = os.path.realpath(os.fsdecode(path))
    lock = FileLock(_identity.lock_of(real), os.fsdecode(path))
    try:
        for left in (real + TEMPORARY, _identity.journal_of(real) + ".new"):
            with suppress(FileNotFoundError):
                os.unlink(left)  # of a writer that was killed
        index = _persistence.open_index(LivingIndex, real, "copy", verify)
        journal = _recovered(index, real, damaged)
        index._log = Writer(index, real, lock, journal, flush_changes, flush_seconds)
    except BaseException:
        lock.release()
        raise
    return index


def _recovered(index: State, path: str, damaged: str) -> Journal:
    """Make the changes of the journal again, and return it ready to be appended to."""
    name = _identity.journal_of(path)
    base = _identity.fingerprint(path)
    dtype = _kinds.STORED_DTYPES[index._dtype].newbyteorder("<").str
    fresh = new_header(base, dtype, index._dim, index._strings is not None)
    try:
        file = os.open(name, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return _begun(name, fresh)
    try:
        size = os.fstat(file).st_size
        data = read_at(file, size, 0)
        try:
            header = records.decode_header(data, name)
        except CorruptError:
            if damaged == "error":
                raise
            _put_aside(name)
            os.close(file)
            return _begun(name, fresh)
        found = records.scan(memoryview(data)[HEADER_BYTES:], header.salt, 0, HEADER_BYTES)
        last = found.changes[-1].number if found.changes else 0
        skip = _taken_in(index, header, fresh)
        if skip is None and (found.changes or found.damaged is not None):
            raise ConflictError(
                f"{name}: the journal belongs to another file than {path}, which was replaced; "
                "move it away to open the file without its changes"
            )
        if found.damaged is not None:
            if damaged == "error":
                raise CorruptError(
                    f"{name}: damaged at byte {found.damaged}, before changes that were on the "
                    f"disk; damaged='cut' opens the index with the {len(found.changes)} changes "
                    "before that place"
                )
            _put_aside(name)
            data = data[: found.end]
            copied = write_new(name, data)
            os.close(file)
            file, size = copied, found.end
        if skip is None or skip > last:
            os.close(file)
            file = -1
            return _begun(name, fresh)
        replay(index, [each for each in found.changes if each.number > skip], header, name)
        return _continued(name, file, header, last, found.end, size)
    except BaseException:
        if file >= 0:
            with suppress(OSError):
                os.close(file)
        raise


def _taken_in(index: State, header: Header, fresh: Header) -> int | None:
    """Return up to which record the file has the changes of a journal, None if it is another's."""
    if header[3:] != fresh[3:]:
        return None
    mark = _attributes.mark(index)
    if mark is not None and mark[0] == header.id:
        return mark[1]
    return 0 if header.base == fresh.base else None


def _begun(name: str, header: Header) -> Journal:
    data = records.encode_header(header)
    return Journal(name, write_new(name, data), header, 0, len(data))


def _continued(name: str, file: int, header: Header, number: int, end: int, size: int) -> Journal:
    """Return a journal behind its last whole change; what was being written then is cut off."""
    if end < size:
        log(WARNING, "%s: %d bytes cut off behind the last whole change", name, size - end)
        os.ftruncate(file, end)
    if number:
        marker = records.encode(header.salt, records.MARKER, number, number, b"")
        os.fsync(file)  # a writer that was killed may not have waited for the last ones
        write_at(file, marker, end)
        end += len(marker)
    return Journal(name, file, header, number, end)


def _put_aside(name: str) -> None:
    """Give a damaged journal another name, for whoever wants to look into it."""
    number = 0
    while os.path.exists(f"{name}.damaged{number or ''}"):
        number += 1
    os.rename(name, f"{name}.damaged{number or ''}")
