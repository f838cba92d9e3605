"""The journal that a writer appends to: changes wait in memory, and are on disk after `sync`."""

from __future__ import annotations

import errno
import os
import secrets
import threading
from contextlib import suppress
from typing import NamedTuple

from vicinal.errors import ConflictError
from vicinal.living import records
from vicinal.living.records import HEADER_BYTES, Header

__all__ = ["Journal", "new_header", "put_new", "read_at", "sync_folder", "write_new"]

_AT_ONCE = 1 << 30  # Linux moves at most 2 GiB in one call
_SPILL = 16 << 20  # bytes in memory beyond which they are written, though nobody waits for the disk


def new_header(base: str, dtype: str, width: int, strings: bool) -> Header:
    """Return the header of a journal that begins on a file of a fingerprint."""
    return Header(secrets.token_hex(16), base, secrets.randbits(32), dtype, width, strings)


def put_new(path: str, data: bytes) -> int:
    """Put a file under a path at once; return it open for writing.

    It is on the disk, but its name is not before `sync_folder`.
    """
    temporary = f"{path}.new"
    file = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        write_at(file, data, 0)
        os.fsync(file)
        os.rename(temporary, path)
    except BaseException:
        os.close(file)
        with suppress(OSError):
            os.unlink(temporary)
        raise
    return file


def write_new(path: str, data: bytes) -> int:
    """Put a file under a path, durably and at once; return it open for writing."""
    file = put_new(path, data)
    try:
        sync_folder(path)
    except BaseException:
        os.close(file)
        raise
    return file


def sync_folder(path: str) -> None:
    """Make what names there are in the folder of a path durable, where the system can do that."""
    folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF):  # some file systems cannot
            raise
    finally:
        os.close(folder)


def write_at(file: int, data: bytes, offset: int) -> None:
    """Write all bytes to a place; OSError if the system takes fewer."""
    view = memoryview(data)
    while view:
        done = os.pwrite(file, view, offset)
        view, offset = view[done:], offset + done


def read_at(file: int, size: int, offset: int) -> bytes:
    """Return the bytes of a place, fewer where the file ends before."""
    pieces = []
    while size > 0:
        piece = os.pread(file, min(size, _AT_ONCE), offset)
        if not piece:
            break
        pieces.append(piece)
        size, offset = size - len(piece), offset + len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class _Waiting(NamedTuple):
    """A record that is in memory only."""

    kind: int
    more: bool
    content: bytes


class Journal:
    """An open journal.

    Records have positions, which go on from one journal to the next that takes its place; the
    number of a record in the file is its position less `first`.

    Threads: `append` is called by one thread at a time; `sync` by any number, and one call to the
    disk serves all that wait by then.

    Attributes
    ----------
    position : int
        Of the last record that was appended.
    synced : int
        Of the last record that is on the disk.
    doubtful : str or None
        Why the disk cannot be believed any more: after an error of fsync the system may have
        dropped what was to be written and say that all is well the next time.
    syncs : int
        How many times the disk was waited for.
    """

    def __init__(self, path: str, file: int, header: Header, number: int, end: int) -> None:
        self.path, self.header = path, header
        self._file = file
        self.first = 0
        self.position = self.synced = number
        self._written = number
        self.end = end  # of the bytes that are whole in the file
        self.doubtful: str | None = None
        self._waiting: list[_Waiting] = []  # what comes behind `_written`
        self._waiting_bytes = 0
        self._guard = threading.Lock()  # of what waits, for moments
        self._disk = threading.Lock()  # of the file, for as long as the disk takes
        self.syncs = 0

    @property
    def size(self) -> int:
        """Bytes of records, those in memory with them."""
        return self.end - HEADER_BYTES + self._waiting_bytes

    def number(self, position: int) -> int:
        """Return what a record is called in the file."""
        return position - self.first

    def append(self, kind: int, content: bytes) -> int:
        """Note a change in memory, and return the position of its last record."""
        size = records.MOST_BYTES
        pieces = [content[i : i + size] for i in range(0, len(content), size)] or [b""]
        last = len(pieces) - 1
        with self._guard:
            self._waiting.extend(_Waiting(kind, i < last, each) for i, each in enumerate(pieces))
            self._waiting_bytes += len(content)
            self.position += len(pieces)
            position = self.position
        if self._waiting_bytes > _SPILL and self._disk.acquire(blocking=False):
            try:
                with suppress(OSError):  # whoever waits for the disk is told
                    self._write()
            finally:
                self._disk.release()
        return position

    def sync(self, position: int) -> None:
        """Return once the record of a position, and all before it, are on the disk.

        Raises
        ------
        OSError
            If the system refuses; what was appended is kept in memory for the next try, unless the
            journal is doubtful now.
        """
        while self.synced < position:
            with self._disk:
                if self.synced >= position:
                    return
                if self.doubtful is not None:
                    raise OSError(errno.EIO, self.doubtful, self.path)
                self._write()
                reached = self._written
                try:
                    os.fdatasync(self._file)
                except OSError as error:
                    self.doubtful = f"fsync: {error.strerror}"
                    raise OSError(error.errno, f"fsync: {error.strerror}", self.path) from None
                self.syncs += 1
                self.synced = reached
                with suppress(OSError):  # tells readers and later writers; nothing waits for it
                    self._put(self._marker())

    def _write(self) -> None:
        """Write what waits; the caller holds the file."""
        with self._guard:
            taken = list(self._waiting)
        if not taken:
            return
        self._put(self._encoded(taken, self.number(self._written), self.number(self.synced)))
        with self._guard:
            del self._waiting[: len(taken)]
            self._waiting_bytes -= sum(len(each.content) for each in taken)
            self._written += len(taken)

    def _encoded(self, taken: list[_Waiting], number: int, synced: int) -> bytes:
        return b"".join(
            records.encode(self.header.salt, kind, number + i, synced, content, more)
            for i, (kind, more, content) in enumerate(taken, 1)
        )

    def _marker(self) -> bytes:
        number = self.number(self.synced)
        return records.encode(self.header.salt, records.MARKER, number, number, b"")

    def _put(self, data: bytes) -> None:
        try:
            write_at(self._file, data, self.end)
        except OSError as error:
            with suppress(OSError):  # else a reader meets a part of a record, which is none
                os.ftruncate(self._file, self.end)
            raise OSError(error.errno, error.strerror, self.path) from None
        self.end += len(data)

    def restart(self, header: Header, position: int) -> None:
        """Begin the journal anew, on another file, with the records behind a position.

        Additions go on meanwhile; whoever waits for the disk waits for a copy of those records.
        """
        with self._disk:
            kept = self._behind(position)
            old = self.header
            self.header = header
            data = records.encode_header(header) + self._encoded(kept, 0, 0)
            if kept:
                data += records.encode(header.salt, records.MARKER, len(kept), len(kept), b"")
            try:
                file = put_new(self.path, data)
            except BaseException:
                self.header = old
                raise
            os.close(self._file)
            with self._guard:
                # what waits and was before the position is in the file that this one begins on
                gone = max(0, position - self._written)
                del self._waiting[:gone]
                self._waiting_bytes = sum(len(each.content) for each in self._waiting)
                self._written = self.synced = max(self._written, position)
                self.first = position
                self._file, self.end = file, len(data)
                self.doubtful = None
            try:
                sync_folder(self.path)
            except OSError as error:  # after a crash the old journal might have the name
                self.doubtful = f"fsync of the folder: {error.strerror}"
                raise

    def _behind(self, position: int) -> list[_Waiting]:
        """Return the records behind a position that have been written, markers left out."""
        if self._written <= position:
            return []
        data = memoryview(read_at(self._file, self.end - HEADER_BYTES, HEADER_BYTES))
        found = [
            _Waiting(record.kind, record.more, bytes(record.content))
            for record in records.walk(data, self.header.salt)
            if record.kind != records.MARKER and record.number > self.number(position)
        ]
        if position + len(found) != self._written:
            raise ConflictError(f"{self.path}: the journal was changed by somebody else")
        return found

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        with self._disk:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1
