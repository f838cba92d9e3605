"""HDF5 files as ann-benchmarks and VIBE publish them; needs h5py."""

from __future__ import annotations

from typing import Any

import numpy as np

from vicinal.errors import FormatError
from vicinal.vectors_io._source import (
    Array,
    Piece,
    SeekableSource,
    VectorSource,
    check_shape,
    extra,
    numbers_dtype,
    open_file,
    own_ids,
    pick,
    plain,
)

__all__ = ["open_hdf5"]

# What the attribute "distance" says. "angular" and "normalized" are cosine: our index normalises.
_METRICS = {
    "euclidean": "l2",
    "l2": "l2",
    "angular": "cosine",
    "cosine": "cosine",
    "normalized": "cosine",
    "ip": "ip",
    "dot": "ip",
}
_READ_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError)


class _Dataset(SeekableSource):
    format = "hdf5"

    def __init__(self, name: str, file: Any, dataset: Any, metric: str | None) -> None:
        if len(dataset.shape) != 2:
            raise FormatError(f"{name}: expected an array of shape (n, dim), got {dataset.shape}")
        rows, dim = dataset.shape
        super().__init__(name, rows, dim, numbers_dtype(name, dataset.dtype), metric=metric)
        self._file, self._dataset = file, dataset

    def close(self) -> None:
        self._file.close()

    def _read(self, start: int, stop: int) -> Piece:
        try:
            return plain(self._dataset[start:stop]), None
        except _READ_ERRORS as error:
            raise FormatError(f"{self.name}: {str(error)[:300]}") from None


def _check_room(name: str, dataset: Any, size: int) -> None:
    """Compare what a data set claims to hold with the file; allocation on disk may be put off."""
    check_shape(name, dataset.shape[0], int(np.prod(dataset.shape[1:], dtype=object)))
    claimed = int(np.prod(dataset.shape, dtype=object)) * dataset.dtype.itemsize
    chunk = 0
    if dataset.chunks:
        chunk = int(np.prod(dataset.chunks, dtype=object)) * dataset.dtype.itemsize
    filtered = dataset.compression is not None or dataset.id.get_create_plist().get_nfilters()
    # deflate makes of a byte at most 1032
    most = max(size, 1 << 20) * (1032 if filtered else 1)
    if (not filtered and claimed > size) or chunk > most:
        raise FormatError(
            f"{name}: a data set of shape {dataset.shape} {dataset.dtype} is larger than the file, "
            f"which has {size} bytes"
        )
    if dataset.external or dataset.is_virtual:
        raise FormatError(f"{name}: the data lie in other files, which are not read")


def open_hdf5(path: Any, name: str, vectors: str | None, ids: str | None) -> VectorSource:
    """Open a data set of an HDF5 file, "train" by default; `ids` names another."""
    h5py = extra("h5py", "hdf5", "an HDF5 file")
    stream, size = open_file(path)
    stream.close()
    file = None
    try:
        file = h5py.File(path, "r")
        found = dict.fromkeys(file)
        if vectors is None and "train" in found:
            vectors = "train"
        if vectors is not None and "/" in vectors:
            found[vectors] = None
        chosen = pick(name, found, vectors, "data set")
        dataset = file[chosen]
        if not isinstance(dataset, h5py.Dataset) or not dataset.shape:
            raise FormatError(f"{name}: {chosen!r} is no data set of rows")
        _check_room(name, dataset, size)
        said = file.attrs.get("distance")
        said = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
        metric = _METRICS.get(said.lower()) if isinstance(said, str) else None
        source = _Dataset(name, file, dataset, metric)
        if ids is not None:
            source.with_ids(_ids(name, file[pick(name, found, ids, "data set")], size))
        return source
    except BaseException as error:
        if file is not None:
            file.close()
        known = isinstance(error, FormatError) or (
            isinstance(error, (KeyError, ValueError)) and name in str(error)
        )
        if not known and isinstance(error, _READ_ERRORS):
            raise FormatError(f"{name}: {str(error)[:300]}") from None
        raise


def _ids(name: str, dataset: Any, size: int) -> Array:
    if len(dataset.shape) != 1 or dataset.dtype.kind not in "iuSO":
        raise FormatError(
            f"{name}: expected ids of shape (n,), integers or strings, got {dataset.dtype} "
            f"{dataset.shape}"
        )
    _check_room(name, dataset, size)
    data = dataset[:] if dataset.dtype.kind in "iu" else dataset.asstr()[:]
    return own_ids(data, name)
