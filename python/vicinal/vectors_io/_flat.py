"""Files that are arrays: `.npy`, raw, fvecs and its kin, fbin and its kin.

Batches are read into memory of their own rather than mapped: pages of a map count as memory of the
process, and a file that is shortened meanwhile would end it.
"""

from __future__ import annotations

import ast
import os
import struct
from collections.abc import Callable
from typing import IO, Any

import numpy as np

from vicinal.errors import FormatError
from vicinal.vectors_io._source import (
    Array,
    Piece,
    RowError,
    SeekableSource,
    buffer,
    check_shape,
    numbers_dtype,
    open_file,
    plain,
)

__all__ = ["BLOCK_FILES", "ROW_FILES", "FlatFile", "npy_header", "open_flat"]

# Each row of these begins with its dimension, as int32.
ROW_FILES = {"fvecs": "<f4", "bvecs": "u1", "ivecs": "<i4"}
# These begin with the number of rows and the dimension, as uint32.
BLOCK_FILES = {"fbin": "<f4", "u8bin": "u1", "i8bin": "i1", "ibin": "<i4"}

_NPY = b"\x93NUMPY"
_NPY_HEADER = 10_000  # as NumPy: a longer literal is not worth the trouble of reading it


class FlatFile(SeekableSource):
    """Rows of one length, one after the other; in Fortran order, columns."""

    def __init__(
        self,
        name: str,
        file: IO[bytes],
        rows: int,
        dim: int,
        dtype: np.dtype[Any],
        *,
        format: str,
        offset: int = 0,
        head: int = 0,
        fortran: bool = False,
    ) -> None:
        super().__init__(name, rows, dim, numbers_dtype(name, dtype))
        self.format = format
        self._file, self._stored, self._offset = file, dtype, offset
        self._head, self._fortran = head, fortran

    def close(self) -> None:
        self._file.close()

    def _bytes(self, offset: int, count: int) -> Array:
        """Read bytes at a place; FormatError if the file ends before."""
        data = np.empty(count, np.uint8)
        view = buffer(data)
        done = 0
        while done < count:
            got = os.preadv(self._file.fileno(), [view[done : done + (1 << 30)]], offset + done)
            if not got:
                raise FormatError(
                    f"{self.name}: file ends at byte {offset + done}; it was longer when opened"
                )
            done += got
        return data

    def _read(self, start: int, stop: int) -> Piece:
        dim, size = self.shape[1], self._stored.itemsize
        if self._fortran:
            out = np.empty((stop - start, dim), self.dtype)
            for column in range(dim):
                at = self._offset + (column * len(self) + start) * size
                out[:, column] = self._bytes(at, (stop - start) * size).view(self._stored)
            return out, None
        row = self._head + dim * size
        data = self._bytes(self._offset + start * row, (stop - start) * row)
        if not self._head:
            return plain(data.view(self._stored).reshape(-1, dim)), None
        table = data.reshape(-1, row)
        heads = np.ascontiguousarray(table[:, : self._head]).view("<i4")[:, 0]
        wrong = np.flatnonzero(heads != dim)
        if len(wrong):
            first = int(wrong[0])
            raise RowError(
                f"{self.name}: row {start + first} says it has {heads[first]} values, row 0 "
                f"has {dim}",
                start + first,
            )
        values = np.ascontiguousarray(table[:, self._head :]).view(self._stored)
        return plain(values), None


def npy_header(name: str, read: Callable[[int], bytes]) -> tuple[tuple[int, ...], bool, Any, int]:
    """Parse the header of a `.npy` file: shape, Fortran order, dtype, and its length.

    NumPy's own reader asks for as many bytes as a damaged length tells it to.
    """
    start = read(8)
    if start[:6] != _NPY or len(start) < 8:
        raise FormatError(f"{name}: not a .npy file, it does not begin with its mark")
    if start[6] not in (1, 2, 3):
        raise FormatError(f"{name}: version {start[6]} of .npy is not known")
    wide = start[6] > 1
    told = read(4 if wide else 2)
    if len(told) < (4 if wide else 2):
        raise FormatError(f"{name}: the file ends in its header")
    length = int.from_bytes(told, "little")
    if length > _NPY_HEADER:
        raise FormatError(f"{name}: the header of {length} bytes is too long")
    text = read(length)
    if len(text) < length:
        raise FormatError(f"{name}: the file ends in its header")
    try:
        fields = ast.literal_eval(text.decode("utf-8" if start[6] == 3 else "latin-1").strip())
        shape, fortran = fields["shape"], fields["fortran_order"]
        if fields.keys() != {"descr", "fortran_order", "shape"} or not isinstance(fortran, bool):
            raise ValueError
        if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError
        descr = fields["descr"]
        dtype = np.dtype(descr) if isinstance(descr, str) else None
    except Exception:  # of literal_eval: SyntaxError, MemoryError, RecursionError and others
        raise FormatError(f"{name}: the header of the .npy file is damaged") from None
    if dtype is None:
        raise FormatError(f"{name}: expected real numbers, got a structured array")
    return shape, fortran, dtype, len(start) + len(told) + length


def matrix_shape(name: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the two lengths of a matrix; FormatError for an array of any other rank."""
    if len(shape) != 2:
        raise FormatError(f"{name}: expected an array of shape (n, dim), got {shape}")
    return shape[0], shape[1]


def exact_size(name: str, size: int, wanted: int, what: str) -> None:
    """Compare the size of a file with what its header makes it."""
    if size != wanted:
        raise FormatError(f"{name}: file has {size} bytes, but {what} makes {wanted}")


def open_flat(
    path: Any, format: str, name: str, dim: int | None = None, dtype: Any = None
) -> FlatFile:
    """Open a file of one of these formats; its size is compared with its header."""
    file, size = open_file(path)
    try:
        if format == "npy":
            return _open_npy(name, file, size)
        if format == "raw":
            return _open_raw(name, file, size, dim, dtype)
        if format in ROW_FILES:
            return _open_rows(name, file, size, format)
        return _open_block(name, file, size, format)
    except BaseException:
        file.close()
        raise


def _open_npy(name: str, file: IO[bytes], size: int) -> FlatFile:
    shape, fortran, dtype, offset = npy_header(name, file.read)
    numbers_dtype(name, dtype)
    rows, dim = matrix_shape(name, shape)
    check_shape(name, rows, dim)
    exact_size(name, size, offset + rows * dim * dtype.itemsize, f"{rows} x {dim} {dtype}")
    return FlatFile(
        name, file, rows, dim, dtype, format="npy", offset=offset, fortran=fortran and rows > 1
    )


def _open_raw(name: str, file: IO[bytes], size: int, dim: int | None, dtype: Any) -> FlatFile:
    if dim is None or dtype is None:
        raise ValueError(f"dim, dtype: expected both for the raw file {name}, which tells neither")
    stored = np.dtype(dtype)
    numbers_dtype(name, stored)
    check_shape(name, 0, dim)
    rows, left = divmod(size, dim * stored.itemsize)
    if left:
        raise FormatError(
            f"{name}: {size} bytes are {rows} rows of {dim} {stored} and {left} bytes more"
        )
    return FlatFile(name, file, rows, dim, stored, format="raw")


def _open_rows(name: str, file: IO[bytes], size: int, format: str) -> FlatFile:
    dtype = np.dtype(ROW_FILES[format])
    head = file.read(4)
    if len(head) < 4:
        raise FormatError(f"{name}: {size} bytes hold no row, so the dimension is not known")
    (dim,) = struct.unpack("<i", head)
    check_shape(name, 0, dim)
    rows, left = divmod(size, 4 + dim * dtype.itemsize)
    if left:
        # A row of another length is the usual reason: read up to it, to name it.
        row = _first_odd_row(file, size, dim, dtype.itemsize)
        raise FormatError(
            f"{name}: {size} bytes are {rows} rows of {dim} values and {left} bytes more; "
            f"row {row} is the first that does not fit"
        )
    return FlatFile(name, file, rows, dim, dtype, format=format, head=4)


def _first_odd_row(file: IO[bytes], size: int, dim: int, item: int) -> int:
    row = 4 + dim * item
    at = 0
    while at + row <= size:
        file.seek(at)
        block = np.frombuffer(file.read(min(1 << 22, size - at) // row * row), np.uint8)
        heads = np.ascontiguousarray(block.reshape(-1, row)[:, :4]).view("<i4")[:, 0]
        wrong = np.flatnonzero(heads != dim)
        if len(wrong):
            return at // row + int(wrong[0])
        at += len(block)
    return at // row


def _open_block(name: str, file: IO[bytes], size: int, format: str) -> FlatFile:
    dtype = np.dtype(BLOCK_FILES[format])
    head = file.read(8)
    if len(head) < 8:
        raise FormatError(f"{name}: file ends at byte {len(head)}, its header takes 8")
    rows, dim = struct.unpack("<II", head)
    check_shape(name, rows, dim)
    wanted = 8 + rows * dim * dtype.itemsize
    # Ground truth of the big-ann benchmarks: a block of ids, then a block of float32 distances.
    truth = format == "ibin" and size == wanted + rows * dim * 4
    if not truth:
        exact_size(name, size, wanted, f"{rows} x {dim} {dtype}")
    return FlatFile(name, file, rows, dim, dtype, format=format, offset=8)
