"""Vectors that are in memory already: arrays, buffers, tensors of other libraries by DLPack."""

from __future__ import annotations

from typing import Any

import numpy as np

from vicinal.errors import FormatError
from vicinal.vectors_io._source import (
    Array,
    Piece,
    SeekableSource,
    VectorSource,
    numbers_dtype,
    plain,
)

__all__ = ["ArraySource", "from_object"]


class ArraySource(SeekableSource):
    """A NumPy array of any strides and byte order; batches are views where they can be."""

    def __init__(self, name: str, array: Array, index_dtype: str | None = None) -> None:
        if array.ndim != 2:
            raise ValueError(f"{name}: expected shape (n, dim), got {array.shape}")
        dtype = numbers_dtype(name, array.dtype)
        super().__init__(name, len(array), array.shape[1], dtype, index_dtype=index_dtype)
        self._array = array

    def _read(self, start: int, stop: int) -> Piece:
        return plain(self._array[start:stop]), None


def _is_torch_bfloat16(source: Any) -> bool:
    return str(getattr(source, "dtype", "")) == "torch.bfloat16"


class _Bits(ArraySource):
    """bfloat16 values as their bits; they come as float32, which holds every one of them."""

    def __init__(self, name: str, bits: Array) -> None:
        super().__init__(name, bits, "bfloat16")
        self.dtype = np.dtype(np.float32)

    def _read(self, start: int, stop: int) -> Piece:
        wide: Array = self._array[start:stop].astype(np.uint32) << np.uint32(16)
        return np.ascontiguousarray(wide).view(np.float32), None


def from_object(source: Any) -> VectorSource:
    """Take an object that holds an array; TypeError if it is none.

    Raises
    ------
    TypeError
        If it is no array.
    ValueError
        If it is one of another rank, or lies where NumPy cannot read it.
    """
    name = type(source).__name__
    if isinstance(source, np.ndarray):
        return ArraySource("array", source)
    if hasattr(source, "__dlpack__"):
        device = getattr(source, "__dlpack_device__", lambda: (1, 0))()[0]
        if int(device) not in (1, 3):  # memory of the machine, or of it and pinned for a GPU
            raise ValueError(
                f"{name}: expected one in the memory of the machine, got device type {int(device)};"
                " move it to the CPU first"
            )
        if getattr(source, "requires_grad", False):
            source = source.detach()
        if _is_torch_bfloat16(source):
            # neither NumPy nor its DLPack knows the type; of the same size, torch's int16 is known
            import sys

            bits = np.from_dlpack(source.view(sys.modules["torch"].int16))
            return _Bits(name, bits.view(np.uint16))
        try:
            return ArraySource(name, np.from_dlpack(source))
        except (BufferError, TypeError, RuntimeError) as error:
            if not hasattr(source, "__array__"):
                raise ValueError(f"{name}: NumPy cannot read it by DLPack: {error}") from error
    if hasattr(source, "__array__"):
        return ArraySource(name, np.asarray(source))
    try:
        view = memoryview(source)
    except TypeError:
        pass
    else:
        if view.format is None or view.ndim != 2:
            raise ValueError(
                f"{name}: expected a buffer of shape (n, dim), got {view.shape}; "
                "np.frombuffer(...).reshape(-1, dim) makes one"
            )
        return ArraySource(name, np.asarray(view))
    if isinstance(source, (list, tuple)):
        array = np.asarray(source)
        if array.dtype.kind == "O":
            raise FormatError(f"{name}: expected rows of one length")
        return ArraySource(name, array)
    raise TypeError(
        f"source: expected a path, an array, a tensor or a table, got {reprlib_of(source)}"
    )


def reprlib_of(source: object) -> str:
    """Return the type of an object for a message."""
    return f"{type(source).__module__}.{type(source).__qualname__}"
