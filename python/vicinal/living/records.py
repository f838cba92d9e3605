"""The journal byte by byte: a header, then records, each under a checksum of its own.

All numbers are little-endian. A record holds one change, or a part of a large one; what is behind
the last whole change is not there. docs/design/journal.md has the layout and the reasons.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vicinal.errors import CorruptError

__all__ = [
    "HEADER_BYTES",
    "MARKER",
    "MOST_BYTES",
    "REMOVED",
    "ROWS",
    "SETTINGS",
    "Change",
    "Header",
    "Record",
    "Scan",
    "decode_header",
    "encode",
    "encode_header",
    "of_ids",
    "of_rows",
    "of_settings",
    "scan",
    "to_ids",
    "to_rows",
    "to_settings",
    "walk",
]

HEADER_BYTES = 256
MAGIC = b"\xf7VICJRNL"
VERSION = 1
START = b"\xf7VJR"
ROWS, REMOVED, SETTINGS, MARKER = 1, 2, 3, 4
MOST_BYTES = 4 << 20
"""Of the content of one record; a larger change is several."""

# magic, version, salt, id of the journal, fingerprint of the file it was begun on, dtype, values of
# a row, whether ids are strings
_HEADER = struct.Struct("<8sII16s16s8sIB")
# start, kind, whether more of the change follows, 0, bytes, number, the last number known to be on
# the disk when this was written
_RECORD = struct.Struct("<4sBBHIQQ")
_SUM = struct.Struct("<I")
_HEAD = _RECORD.size + _SUM.size


class Header(NamedTuple):
    """What a journal says about itself."""

    id: str
    base: str
    salt: int
    dtype: str
    width: int
    strings: bool


class Record(NamedTuple):
    """A whole record: where it stands and what it says."""

    offset: int
    end: int
    kind: int
    more: bool
    number: int
    synced: int
    content: memoryview


class Change(NamedTuple):
    """A whole change: the records that it is made of have one kind."""

    kind: int
    number: int
    end: int
    content: bytes | memoryview


class Scan(NamedTuple):
    """What a journal holds, as far as it can be read."""

    changes: list[Change]
    """Whole changes in their order."""
    end: int
    """Where the last of them, or a marker behind it, ends."""
    synced: int
    """The highest number that a record before `end` says is on the disk."""
    damaged: int | None
    """Where something begins that was on the disk and cannot be read, if that is so."""


def encode_header(header: Header) -> bytes:
    """Return the first bytes of a journal."""
    fields = _HEADER.pack(
        MAGIC,
        VERSION,
        header.salt,
        bytes.fromhex(header.id),
        bytes.fromhex(header.base),
        header.dtype.encode(),
        header.width,
        header.strings,
    ).ljust(HEADER_BYTES - 4, b"\0")
    return fields + _SUM.pack(zlib.crc32(fields))


def decode_header(data: bytes, path: str) -> Header:
    """Return what the first bytes of a journal say.

    Raises
    ------
    CorruptError
        If they are not as they were written.
    """
    if len(data) < HEADER_BYTES:
        raise CorruptError(f"{path}: the journal ends at byte {len(data)}, within its header")
    fields = data[: HEADER_BYTES - 4]
    if _SUM.unpack_from(data, HEADER_BYTES - 4)[0] != zlib.crc32(fields):
        raise CorruptError(f"{path}: the header of the journal, byte 0 on, fails its checksum")
    magic, version, salt, id, base, dtype, width, strings = _HEADER.unpack_from(fields)
    if magic != MAGIC or version != VERSION:
        raise CorruptError(f"{path}: a journal of version {version}; this release reads {VERSION}")
    return Header(id.hex(), base.hex(), salt, dtype.rstrip(b"\0").decode(), width, bool(strings))


def encode(
    salt: int, kind: int, number: int, synced: int, content: bytes, more: bool = False
) -> bytes:
    """Return the bytes of one record."""
    head = _RECORD.pack(START, kind, more, 0, len(content), number, synced)
    return b"".join((head, _SUM.pack(zlib.crc32(content, zlib.crc32(head, salt))), content))


# ---- reading


def _record_at(data: memoryview, at: int, salt: int) -> Record | None:
    """Return the record that begins at a place, None if there is no whole one."""
    if at + _HEAD > len(data):
        return None
    start, kind, more, zero, size, number, synced = _RECORD.unpack_from(data, at)
    end = at + _HEAD + size
    if start != START or zero or end > len(data) or size > MOST_BYTES:
        return None
    head = data[at : at + _RECORD.size]
    content = data[at + _HEAD : end]
    (sum,) = _SUM.unpack_from(data, at + _RECORD.size)
    if zlib.crc32(content, zlib.crc32(head, salt)) != sum:
        return None
    return Record(at, end, kind, bool(more), number, synced, content)


def scan(data: memoryview, salt: int, number: int = 0, offset: int = 0) -> Scan:
    """Read records up to the first one that is not whole, and tell what that one is.

    Parameters
    ----------
    data : memoryview
        Bytes of the journal from some record on.
    salt : int
        Of the journal's header.
    number : int
        Of the last record before.
    offset : int
        Where the bytes begin in the file.

    Notes
    -----
    What was being written when the process or the machine died is behind everything that was on
    the disk: whoever reads on as if it was not there loses nothing that was promised. But if a
    record behind the gap says that what is missing was on the disk by then, it is damage.
    """
    changes: list[Change] = []
    parts: list[memoryview] = []
    at = end = 0
    whole = number
    synced = 0
    last = number
    while (record := _record_at(data, at, salt)) is not None:
        expected = last if record.kind == MARKER else last + 1
        if record.number != expected:
            break
        at, last = record.end, record.number
        synced = max(synced, record.synced)
        if record.kind != MARKER:
            parts.append(record.content)
            if record.more:
                continue
            content = parts[0] if len(parts) == 1 else b"".join(parts)
            changes.append(Change(record.kind, record.number, offset + at, content))
            parts = []
        if not parts:
            end, whole = at, last
    damaged = None
    if at < len(data):
        known = _synced_behind(data, at, salt)
        if known > whole:
            damaged = offset + at
    return Scan(changes, offset + end, min(synced, whole), damaged)


def _synced_behind(data: memoryview, at: int, salt: int) -> int:
    """Return the highest number that a whole record behind a place says is on the disk, or 0."""
    known = 0
    text = bytes(data[at:])
    next = text.find(START)
    while next >= 0:
        record = _record_at(data, at + next, salt)
        if record is None:
            next = text.find(START, next + 1)
        else:
            known = max(known, record.synced)
            next = text.find(START, record.end - at)
    return known


def walk(data: memoryview, salt: int) -> Iterator[Record]:
    """Go through whole records, markers with them, up to the first that is not."""
    at = 0
    while (record := _record_at(data, at, salt)) is not None:
        yield record
        at = record.end


# ---- what records hold


def of_ids(ids: NDArray[Any]) -> bytes:
    """Return ids as bytes: their number, then int64, or ends and UTF-8 of strings."""
    count: bytes = np.int64(len(ids)).tobytes()
    if ids.dtype.kind != "O":
        numbers: bytes = np.ascontiguousarray(ids, "<i8").tobytes()
        return count + numbers
    text = [name.encode() for name in ids.tolist()]
    ends = np.cumsum([len(each) for each in text], dtype="<i8")
    return b"".join((count, ends.tobytes(), *text))


def to_ids(content: bytes | memoryview, strings: bool) -> tuple[NDArray[Any], int]:
    """Return ids and how many bytes they took."""
    count = int(np.frombuffer(content, "<i8", 1)[0])
    numbers = np.frombuffer(content, "<i8", count, 8)
    end = 8 + 8 * count
    if not strings:
        return numbers.astype(np.int64), end
    names = np.empty(count, object)
    begin = end
    for i, stop in enumerate(numbers.tolist()):
        names[i] = bytes(content[begin : end + stop]).decode()
        begin = end + stop
    return names, begin


def of_rows(ids: NDArray[Any], rows: NDArray[Any]) -> bytes:
    """Return ids and rows as bytes."""
    values: bytes = np.ascontiguousarray(rows).tobytes()
    return of_ids(ids) + values


def to_rows(content: bytes | memoryview, header: Header) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return ids and rows, as `of_rows` took them."""
    ids, end = to_ids(content, header.strings)
    rows = np.frombuffer(content, header.dtype, len(ids) * header.width, end)
    if not rows.flags.aligned:  # behind the text of strings
        rows = rows.copy()
    return ids, rows.reshape(len(ids), header.width)


def of_settings(settings: dict[str, Any]) -> bytes:
    """Return settings as bytes."""
    return json.dumps(settings, separators=(",", ":")).encode()


def to_settings(content: bytes | memoryview) -> dict[str, Any]:
    """Return settings."""
    found: dict[str, Any] = json.loads(bytes(content))
    return found
