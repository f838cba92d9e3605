"""Files that hold several named arrays: `.npz` and safetensors."""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, Any

import numpy as np

from vicinal.errors import FormatError
from vicinal.vectors_io._flat import FlatFile, matrix_shape, npy_header
from vicinal.vectors_io._source import (
    Array,
    Piece,
    VectorSource,
    buffer,
    check_shape,
    numbers_dtype,
    open_file,
    own_ids,
    pick,
    plain,
)

__all__ = ["open_npz", "open_safetensors"]

_BAD_ZIP = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    OverflowError,
    UnicodeDecodeError,
    struct.error,
)
_SHRINKS = 1032  # deflate makes of a byte at most this many
_CHUNK = 1 << 20

_TENSORS = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "U16": "<u2",
    "U32": "<u4",
    "U64": "<u8",
}


# ---- npz


class _Deflated(VectorSource):
    """A compressed member of an archive: read from its beginning every time."""

    format = "npz"

    def __init__(self, name: str, path: Any, file: IO[bytes], member: str) -> None:
        self._file, self._member = file, member
        with zipfile.ZipFile(file) as archive, archive.open(member) as stream:
            shape, self._fortran, stored, self._offset = npy_header(name, stream.read)
            info = archive.getinfo(member)
        self._stored = stored
        rows, dim = matrix_shape(name, shape)
        check_shape(name, rows, dim)
        _check_member(name, info, self._offset + rows * dim * stored.itemsize)
        super().__init__(name, rows, dim, numbers_dtype(name, stored))

    def close(self) -> None:
        self._file.close()

    def _stream(self, start: int, stop: int, rows: int) -> Iterator[Piece]:
        dim, size = self.shape[1], self._stored.itemsize
        try:
            with zipfile.ZipFile(self._file) as archive, archive.open(self._member) as stream:
                _skip(self.name, stream, self._offset)
                if self._fortran and len(self) > 1:
                    # columns: no row is whole before the last byte is read
                    data = _take(self.name, stream, len(self) * dim * size)
                    whole = data.view(self._stored).reshape(dim, len(self)).T
                    for first in range(start, stop, rows):
                        yield plain(whole[first : min(first + rows, stop)]), None
                    return
                _skip(self.name, stream, start * dim * size)
                for first in range(start, stop, rows):
                    count = min(rows, stop - first)
                    data = _take(self.name, stream, count * dim * size)
                    yield plain(data.view(self._stored).reshape(count, dim)), None
                if stop == len(self) and stream.read(1):  # also compares the checksum
                    raise FormatError(f"{self.name}: {self._member} is longer than its header says")
        except _BAD_ZIP as error:
            raise FormatError(f"{self.name}: {self._member} is damaged: {error}") from None


def _check_member(name: str, info: zipfile.ZipInfo, wanted: int) -> None:
    if info.file_size != wanted:
        raise FormatError(
            f"{name}: {info.filename} has {info.file_size} bytes, but its header makes {wanted}"
        )
    if info.file_size > _SHRINKS * info.compress_size + 64:
        raise FormatError(
            f"{name}: {info.filename} cannot have {info.file_size} bytes in {info.compress_size}"
        )


def _skip(name: str, stream: Any, count: int) -> None:
    while count:
        got = len(stream.read(min(count, _CHUNK)))
        if not got:
            raise FormatError(f"{name}: the compressed data end too early")
        count -= got


def _take(name: str, stream: Any, count: int) -> Array:
    data = np.empty(count, np.uint8)
    view = buffer(data)
    done = 0
    while done < count:
        part = stream.read(min(count - done, _CHUNK))
        if not part:
            raise FormatError(f"{name}: the compressed data end too early")
        view[done : done + len(part)] = part
        done += len(part)
    return data


def open_npz(path: Any, name: str, vectors: str | None, ids: str | None) -> VectorSource:
    """Open one array of an `.npz` archive; `ids` names another."""
    file, size = open_file(path)
    try:
        try:
            with zipfile.ZipFile(file) as archive:
                members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
                for info in members.values():
                    if info.compress_size > size or not 0 <= info.header_offset <= size:
                        raise FormatError(f"{name}: {info.filename} lies beyond the file")
                if vectors is None:
                    members_2d = {
                        key: info for key, info in members.items() if _is_matrix(archive, info)
                    }
                    members_2d.pop(ids or "", None)
                    chosen = pick(name, members_2d, None, "array")
                else:
                    chosen = pick(name, members, vectors, "array")
                named = None
                if ids is not None:
                    named = _read_ids(name, archive, members[pick(name, members, ids, "array")])
            source = _open_member(path, name, file, size, members[chosen])
        except _BAD_ZIP as error:
            raise FormatError(f"{name}: the archive is damaged: {error}") from None
        source.format = "npz"
        return source if named is None else source.with_ids(named)
    except BaseException:
        file.close()
        raise


def _is_matrix(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bool:
    try:
        with archive.open(info) as stream:
            shape, _, dtype, _ = npy_header(info.filename, stream.read)
    except (FormatError, *_BAD_ZIP):
        return False
    return len(shape) == 2 and dtype.kind in "fiu"


def _open_member(
    path: Any, name: str, file: IO[bytes], size: int, info: zipfile.ZipInfo
) -> VectorSource:
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        return _Deflated(name, path, file, info.filename)
    file.seek(info.header_offset)
    head = file.read(30)
    if len(head) < 30 or head[:4] != b"PK\3\4":
        raise FormatError(f"{name}: the archive is damaged: {info.filename} has no header")
    begin = info.header_offset + 30 + sum(struct.unpack("<HH", head[26:30]))
    file.seek(begin)
    shape, fortran, dtype, offset = npy_header(name, file.read)
    numbers_dtype(name, dtype)
    rows, dim = matrix_shape(name, shape)
    check_shape(name, rows, dim)
    _check_member(name, info, offset + rows * dim * dtype.itemsize)
    if begin + info.file_size > size:
        raise FormatError(f"{name}: {info.filename} lies beyond the file")
    return FlatFile(
        name,
        file,
        rows,
        dim,
        dtype,
        format="npz",
        offset=begin + offset,
        fortran=fortran and rows > 1,
    )


def _read_ids(name: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Array:
    with archive.open(info) as stream:
        shape, _, dtype, offset = npy_header(name, stream.read)
        if len(shape) != 1 or dtype.kind not in "iuU":
            raise FormatError(
                f"{name}: expected ids of shape (n,), integers or strings, got {dtype} {shape}"
            )
        _check_member(name, info, offset + shape[0] * dtype.itemsize)
        if not dtype.itemsize:
            return np.full(shape, "", object)
        return own_ids(_take(name, stream, shape[0] * dtype.itemsize).view(dtype), name)


# ---- safetensors


class _Tensor(FlatFile):
    """A tensor of bfloat16 comes as float32, which holds every value of it."""

    bfloat16 = False

    def _read(self, start: int, stop: int) -> Piece:
        rows, ids = super()._read(start, stop)
        if not self.bfloat16:
            return rows, ids
        wide: Array = rows.astype(np.uint32) << np.uint32(16)
        return wide.view(np.float32), ids


def open_safetensors(path: Any, name: str, vectors: str | None, ids: str | None) -> VectorSource:
    """Open one tensor of a safetensors file; `ids` names another."""
    file, size = open_file(path)
    try:
        tensors, begin = _tensors(name, file, size)
        matrices = {key: t for key, t in tensors.items() if len(t[1]) == 2 and key != ids}
        chosen = pick(name, matrices if vectors is None else tensors, vectors, "tensor")
        kind, shape, offset = tensors[chosen]
        rows, dim = matrix_shape(name, shape)
        source = _Tensor(
            name,
            file,
            rows,
            dim,
            np.dtype(_TENSORS[kind]),
            format="safetensors",
            offset=begin + offset,
        )
        if kind == "BF16":
            source.bfloat16, source.dtype = True, np.dtype(np.float32)
            source.index_dtype = "bfloat16"
        if ids is None:
            return source
        kind, shape, offset = tensors[pick(name, tensors, ids, "tensor")]
        if len(shape) != 1 or kind[0] not in "IU":
            raise FormatError(f"{name}: expected ids of shape (n,), integers, got {kind} {shape}")
        dtype = np.dtype(_TENSORS[kind])
        data = source._bytes(begin + offset, shape[0] * dtype.itemsize)
        return source.with_ids(own_ids(data.view(dtype), name))
    except BaseException:
        file.close()
        raise


def _tensors(
    name: str, file: IO[bytes], size: int
) -> tuple[dict[str, tuple[str, tuple[int, ...], int]], int]:
    """Return type, shape and place of every tensor of numbers, and where the data begin."""
    head = file.read(8)
    length = int.from_bytes(head, "little")
    if len(head) < 8 or length > size - 8:
        raise FormatError(
            f"{name}: file has {size} bytes, its header alone would take {8 + length}"
        )
    room = size - 8 - length
    try:
        header = json.loads(file.read(length).decode("utf-8"))
        found = {}
        for key, entry in header.items():
            if key == "__metadata__":
                continue
            kind, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
            if not all(type(n) is int and n >= 0 for n in (*shape, begin, end)):
                raise ValueError(f"tensor {key[:60]!r} has impossible numbers")
            if kind not in _TENSORS:
                continue
            wanted = np.dtype(_TENSORS[kind]).itemsize
            for n in shape:
                wanted *= n
            if not begin <= end <= room or end - begin != wanted:
                raise ValueError(f"tensor {key[:60]!r} does not lie where it says")
            found[key] = (kind, tuple(shape), begin)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        said = str(error)[:200]
        raise FormatError(
            f"{name}: the header of the safetensors file is damaged: {said}"
        ) from None
    return found, 8 + length
