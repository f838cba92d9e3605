"""All rows of a build in one file: an index without a graph, written a batch at a time.

It is an ordinary index file, checked row by row and with checksums, so that whoever builds a part
or joins them reads the rows in the form in which the finished index will hold them.
"""

from __future__ import annotations

import itertools
import os
import struct
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from vicinal import _info, _kinds, _persistence
from vicinal._cpu import native
from vicinal.vectors_io._open import read_vectors
from vicinal.vectors_io._source import Array, VectorSource, buffer, own_ids
from vicinal.vectors_io._to_index import _placed

__all__ = [
    "NEVER",
    "Batches",
    "HeldRows",
    "Parameters",
    "RowsFile",
    "StoredRows",
    "new_index",
    "opened",
    "write_rows_file",
]

_PAGE, _BLOCK = 4096, 65536
_AT_FIELDS, _FIELDS, _AT_TABLE, _ENTRY = 32, 19, 256, 64
_COUNT = 3  # the field that counts rows
NEVER = 2**62  # more rows than there can be: no graph is made
_CHUNK = 1 << 22  # bytes of a batch

Parameters = dict[str, Any]


def new_index(parameters: Parameters, exact_below: int | None = None) -> Any:
    """Return an empty index; `exact_below` is the number of rows from which on it has a graph."""
    from vicinal.index import Index

    index = Index(**parameters)
    if exact_below is not None:
        metric, dtype = index.metric, index.dtype
        handle = native.index_new(
            *_kinds.native_codes(metric, dtype),
            index._dim,
            parameters["M"],
            parameters["ef_construction"],
            parameters["seed"],
            exact_below,
            _kinds.quantization_code(parameters["quantization"], metric, dtype),
        )
        if parameters["ids"] == "str":
            native.strings_use(handle)
        index._adopt(handle)
    return index


class Batches(VectorSource):
    """Batches that come one after the other from an iterator; how many rows is known at the end."""

    def __init__(self, batches: Iterator[Any]) -> None:
        first = next(batches, None)
        if first is None:
            raise ValueError("source: expected at least one batch, got an iterator without any")
        self._named = isinstance(first, tuple)
        self.id_kind = "int64"
        if self._named and own_ids(first[1], "batches").dtype.kind == "O":
            self.id_kind = "str"
        vectors = read_vectors(first[0] if self._named else first)
        super().__init__(
            "batches",
            0,
            vectors.shape[1],
            vectors.dtype,
            index_dtype=vectors.index_dtype,
            has_ids=self._named,
        )
        self._batches = itertools.chain([first], batches)
        self._read = self._pieces()
        self._held: deque[Any] = deque()  # read already

    def _stream(self, start: int, stop: int, rows: int) -> Iterator[Any]:
        raise TypeError("source: batches of an iterator can be read once only")

    def _exact(self, size: int) -> Iterator[Any]:
        while self._held:
            yield self._held.popleft()
        yield from self._read

    def _pieces(self) -> Iterator[Any]:
        for number, batch in enumerate(self._batches):
            if isinstance(batch, tuple) != self._named:
                raise TypeError(f"source: batch {number} and the first differ in having ids")
            part = read_vectors(batch[0], ids=batch[1]) if self._named else read_vectors(batch)
            if part.shape[1] != self.shape[1]:
                raise ValueError(
                    f"source: expected batches of {self.shape[1]} columns, batch {number} has "
                    f"{part.shape[1]}"
                )
            yield from part.pieces()

    def hold(self, fits: Callable[[int], bool]) -> VectorSource:
        """Return all rows as a source in memory if so many fit there, else these batches.

        Rows are copied: an iterator may give the same array again and again.
        """
        rows = 0
        for vectors, ids in self._read:
            self._held.append((np.array(vectors), None if ids is None else np.array(ids)))
            rows += len(vectors)
            if not fits(rows):
                return self
        return _Held(self, rows, self._held)


class _Held(VectorSource):
    """All rows of batches, read once and given up meanwhile, in pieces as those of an array."""

    def __init__(self, batches: Batches, rows: int, pieces: deque[Any]) -> None:
        super().__init__(
            batches.name,
            rows,
            batches.shape[1],
            batches.dtype,
            index_dtype=batches.index_dtype,
            has_ids=batches.has_ids,
        )
        self._held = pieces

    def _stream(self, start: int, stop: int, rows: int) -> Iterator[Any]:
        while self._held:
            yield self._held.popleft()


def opened(source: Any, vectors: str | None = None, ids: Any = None) -> VectorSource:
    """Open what a build takes: anything `read_vectors` does, or an iterator of batches."""
    if hasattr(source, "__next__") and not isinstance(source, VectorSource):
        if ids is not None or vectors is not None:
            raise ValueError("ids, vectors: expected None for batches, which hold their own ids")
        return Batches(iter(source))
    return read_vectors(source, vectors, ids)


# ---- the layout, see docs/design/format.md


def _sections(data: Any) -> dict[str, tuple[int, int, int, int, int]]:
    """Return offset, bytes, rows, columns and type of each section of a file."""
    (count,) = struct.unpack_from("<q", data, 24)
    found = {}
    for i in range(count):
        at = _AT_TABLE + i * _ENTRY
        name = bytes(data[at : at + 16]).rstrip(b"\0").decode("ascii")
        found[name] = struct.unpack_from("<5q", data, at + 16)
    return found


class _Writer:
    """Bytes of a file one after the other, with the checksum of each block."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self.end = _PAGE
        self.sums: list[int] = []
        self.sum = self.filled = 0
        file.seek(_PAGE)

    def put(self, data: Any) -> None:
        view = memoryview(data).cast("B")
        self.file.write(view)
        self.end += len(view)
        start = 0
        while start < len(view):
            piece = view[start : start + _BLOCK - self.filled]
            self.sum = native.crc32c(piece, self.sum)
            self.filled += len(piece)
            start += len(piece)
            if self.filled == _BLOCK:
                self._end_block()

    def to_page(self) -> None:
        self.put(bytes(-self.end % _PAGE))

    def _end_block(self) -> None:
        self.sums.append(self.sum)
        self.sum = self.filled = 0

    def finish(self, head: bytes, sections: list[tuple[bytes, int, int, int, int, int]]) -> None:
        """Write the list of checksums, then the header."""
        if self.filled:
            self._end_block()
        sums = np.array(self.sums, "<u4")
        table = [*sections, (b"checksums", self.end, sums.nbytes, len(sums), 1, 6)]
        self.file.write(sums.tobytes())
        page = bytearray(_PAGE)
        page[: len(head)] = head
        struct.pack_into("<2q", page, 16, self.end + sums.nbytes, len(table))
        for i, (name, *numbers) in enumerate(table):
            struct.pack_into("<16s6q", page, _AT_TABLE + i * _ENTRY, name, *numbers, 0)
        struct.pack_into("<I", page, _PAGE - 8, native.crc32c(sums.tobytes(), 0))
        struct.pack_into("<I", page, _PAGE - 4, native.crc32c(bytes(page[: _PAGE - 4]), 0))
        self.file.seek(0)
        self.file.write(page)


def write_rows_file(path: str, source: VectorSource, parameters: Parameters) -> int:
    """Write all rows of a source as an index without a graph; return their number.

    Raises
    ------
    RowError
        If a row cannot be used, or its id stands in the source before.
    """
    template = _persistence.to_bytes(new_index(parameters))
    names = new_index({**parameters, "dim": 1, "metric": "l2", "dtype": "uint8",
                       "quantization": "auto"}, NEVER)  # fmt: skip
    count = 0
    norms: list[bytes] = []
    with open(path, "wb") as file:
        writer = _Writer(file)
        size = max(1, _CHUNK // (source.shape[1] * source.dtype.itemsize))
        for vectors, ids in source.pieces(size):
            batch = new_index({**parameters, "ids": "int64"}, NEVER)
            try:
                batch.add(vectors)
                if ids is not None:
                    names.add(np.zeros((len(ids), 1), np.uint8), ids)
            except ValueError as error:
                both: Any = _Both(batch, names)
                raise _placed(both, source, vectors, ids, count, error) from error
            saved = memoryview(_persistence.to_bytes(batch))
            parts = _sections(saved)
            offset, length = parts["vectors"][:2]
            writer.put(saved[offset : offset + length])
            if "norms" in parts:
                offset, length = parts["norms"][:2]
                norms.append(bytes(saved[offset : offset + length]))
            count += len(vectors)
            del saved, batch
        sections = _finish(writer, template, names if source.has_ids else None, count, norms)
        head = bytearray(template[:_AT_TABLE])
        struct.pack_into("<q", head, _AT_FIELDS + 8 * _COUNT, count)
        writer.finish(bytes(head), sections)
    return count


class _Both:
    """What `_placed` asks of an index: the kind of vectors of one, and the ids of another."""

    def __init__(self, rows: Any, names: Any) -> None:
        self.dtype, self.metric, self._names = rows.dtype, rows.metric, names

    def __contains__(self, id: object) -> bool:
        return id in self._names


def _finish(
    writer: _Writer, template: bytes, names: Any, count: int, norms: list[bytes]
) -> list[tuple[bytes, int, int, int, int, int]]:
    """Write what follows the vectors; return the table of sections."""
    shapes = _sections(template)
    del shapes["checksums"]
    named: Any = memoryview(b"" if names is None else _persistence.to_bytes(names))
    theirs = {} if names is None else _sections(named)
    ends = writer.end
    sections = []
    for name, (_, _, rows, columns, dtype) in shapes.items():
        if name == "vectors":
            sections.append((b"vectors", _PAGE, ends - _PAGE, count, columns, dtype))
            continue
        writer.to_page()
        start = writer.end
        if name in theirs and name in ("ids", "id_text", "id_offsets"):
            offset, length, rows = theirs[name][:3]
            writer.put(named[offset : offset + length])
        elif name == "ids":
            rows = count
            writer.put(buffer(np.arange(count, dtype="<i8")))
        elif name == "norms":
            rows = count
            for piece in norms:
                writer.put(piece)
        sections.append((name.encode(), start, writer.end - start, rows, columns, dtype))
    writer.to_page()
    return sections


class StoredRows(ABC):
    """Rows as an index stores them.

    Attributes
    ----------
    metric, dtype : str
    dim : int
        Items of a row.
    values : int
        Numbers of a row: packed bits are eight to an item.
    count : int
        Rows.
    """

    metric: str
    dtype: str
    dim: int
    values: int
    count: int

    @abstractmethod
    def take(self, rows: Array | slice) -> Array:
        """Return rows as the index stores them, without padding."""

    def numbers(self, rows: Array | slice) -> Array:
        """Return rows as numbers that NumPy can compute with, `values` of them each."""
        found = self.take(rows)
        if self.dtype == _kinds.PACKED:
            found = np.unpackbits(found, axis=1)
        if self.dtype == "bfloat16":
            wide: Array = found.astype(np.uint32) << np.uint32(16)
            found = wide.view(np.float32)
        return found


class HeldRows(StoredRows):
    """The rows of a native index under ids of their own, in the order of these."""

    def __init__(self, handle: Any, ids: Array) -> None:
        self._handle, self._ids, self.count = handle, ids, len(ids)
        self.metric, self.dtype = _kinds.names_of(
            _info.number(handle, _info.METRIC), _info.number(handle, _info.DTYPE)
        )
        self.dim = _info.number(handle, _info.DIM)
        self.values = self.dim * 8 if self.dtype == _kinds.PACKED else self.dim

    def take(self, rows: Array | slice) -> Array:
        """Return rows as the index stores them, without padding."""
        ids = np.ascontiguousarray(self._ids[rows])
        found: Array = np.empty((len(ids), self.dim), _kinds.STORED_DTYPES[self.dtype])
        native.index_get(self._handle, ids, found)
        return found


class RowsFile(StoredRows):
    """The rows of such a file, which are read and not mapped: no page of it is in this process."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._file)
        self.head = os.pread(self._file, _PAGE, 0)
        fields = struct.unpack_from(f"<{_FIELDS}q", self.head, _AT_FIELDS)
        self._offset, _, _, columns, _ = _sections(self.head)["vectors"]
        self.metric, self.dtype = _kinds.names_of(fields[0], fields[1])
        self.dim, self.count = fields[2], fields[_COUNT]
        self.values = self.dim * 8 if self.dtype == _kinds.PACKED else self.dim
        self._stored = _kinds.STORED_DTYPES[self.dtype]
        self._stride = columns * self._stored.itemsize

    def take(self, rows: Array | slice) -> Array:
        """Return rows as the index stores them, without padding."""
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(self.count))
        numbers = np.ascontiguousarray(rows, np.uint32)
        found: Array = np.empty((len(numbers), self.dim), self._stored)
        native.rows_read(self._file, self._offset, self._stride, numbers, found.view(np.uint8))
        return found
