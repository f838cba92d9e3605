"""Files of a build in parts: named arrays behind a header; whole under their name, or absent."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np

from vicinal._cpu import native
from vicinal.errors import CorruptError, FormatError
from vicinal.vectors_io._source import Array, buffer
from vicinal.vectors_io._write import whole_file

__all__ = ["ArrayFile", "write_arrays"]

_MARK = b"\xf7VICPART"
_PAGE = 4096
_LARGEST_HEADER = 1 << 20


def write_arrays(path: str, header: dict[str, Any], arrays: dict[str, Array]) -> None:
    """Write arrays; the file takes the place of one of that name once it is whole and synced."""
    table: dict[str, Any] = {}
    end = 0
    for name, array in arrays.items():
        place = -(-end // _PAGE) * _PAGE
        table[name] = {
            "dtype": array.dtype.newbyteorder("<").str,
            "shape": list(array.shape),
            "offset": place,
            "crc": native.crc32c(buffer(np.ascontiguousarray(array)), 0) if array.size else 0,
        }
        end = place + array.nbytes
    text = json.dumps({**header, "arrays": table, "bytes": end}, sort_keys=True).encode()
    start = -(-(16 + len(text)) // _PAGE) * _PAGE
    with whole_file(path) as file:
        file.write(_MARK + len(text).to_bytes(4, "little"))
        file.write(native.crc32c(text, 0).to_bytes(4, "little") + text)
        for name, array in arrays.items():
            file.seek(start + table[name]["offset"])
            if array.size:
                file.write(buffer(np.ascontiguousarray(array)))
        file.truncate(start + end)


class ArrayFile:
    """A file of arrays, opened; arrays are mapped when they are asked for.

    Attributes
    ----------
    header : dict
        What was written beside the arrays.

    Raises
    ------
    OSError
        If the file cannot be read.
    FormatError
        If it is another kind of file; CorruptError if it is damaged.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        with open(path, "rb") as file:
            head = file.read(16)
            if len(head) < 16 or head[:8] != _MARK:
                raise FormatError(f"{path}: expected a file of a build in parts")
            length = int.from_bytes(head[8:12], "little")
            text = file.read(length) if length <= _LARGEST_HEADER else b""
            if len(text) != length or native.crc32c(text, 0) != int.from_bytes(
                head[12:16], "little"
            ):
                raise CorruptError(f"{path}: its header is damaged")
            self.header: dict[str, Any] = json.loads(text)
            size = os.fstat(file.fileno()).st_size
        self._table = self.header.pop("arrays")
        self._start = -(-(16 + length) // _PAGE) * _PAGE
        wanted = self._start + self.header.pop("bytes")
        if size != wanted:
            raise CorruptError(f"{path}: expected {wanted} bytes, got {size}")

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of an array, which need not be read for it."""
        return tuple(self._table[name]["shape"])

    def offset(self, name: str) -> int:
        """Return where in the file an array begins."""
        return int(self._start + self._table[name]["offset"])

    def array(self, name: str, check: bool = True) -> Array:
        """Return an array as a map of the file; CorruptError if its checksum does not fit."""
        entry = self._table[name]
        dtype = np.dtype(entry["dtype"])
        shape = tuple(entry["shape"])
        if not np.prod(shape):
            return np.empty(shape, dtype)
        array: Array = np.memmap(self.path, dtype, "r", self.offset(name), shape, order="C")
        if check and native.crc32c(buffer(array), 0) != entry["crc"]:
            raise CorruptError(f"{self.path}: the array {name!r} is damaged")
        return array
