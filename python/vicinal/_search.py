"""Reading an index: all rows within a radius, stored vectors by id or in order.

`Index.search` is not here: its body stands in index.py, where a call costs least.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vicinal import _validate
from vicinal._cpu import native
from vicinal._filters import as_filters
from vicinal._state import State
from vicinal.result import RangeResult

__all__ = ["batches", "get", "range_search", "read_vectors"]


def range_search(
    index: State,
    queries: ArrayLike,
    radius: float,
    ef_search: int | None,
    filter: ArrayLike | Sequence[ArrayLike | None] | None,
    num_threads: int | None,
) -> RangeResult:
    """See `Index.range_search`."""
    rows, given = _validate.as_rows(queries, "queries", index._dim, index._dtype, queries=True)
    radius = _validate.real_number(radius, "radius")
    ef_search = _validate.search_width(ef_search, index._ef_search)
    n = len(rows)
    threads = 1 if num_threads is None and n == 1 else _validate.thread_count(num_threads)
    offsets = np.empty(n + 1, np.int64)
    if filter is not None:
        index._check_counts()
    found = native.index_range(
        index._handle,
        rows,
        radius,
        ef_search,
        threads,
        *as_filters(filter, len(index), n, index._to_internal),
        offsets,
    )
    if isinstance(found, int):
        _validate.refuse_rows(found, "queries", rows, given)
    ids = np.empty(offsets[-1], np.int64)
    distances = np.empty(offsets[-1], np.float32)
    native.range_take(found, ids, distances)
    return RangeResult(index._to_external(ids), distances, offsets)


def get(index: State, ids: ArrayLike) -> NDArray[Any]:
    """See `Index.get`."""
    internal, given = index._to_internal(ids)
    if internal.ndim > 1:
        raise ValueError(f"ids: expected one id or shape (n,), got {internal.shape}")
    vectors, unknown = read_vectors(index, internal.reshape(-1))
    if unknown >= 0:
        raise KeyError(f"ids: {_validate.shown(given.reshape(-1)[unknown])} is not in the index")
    return vectors if internal.ndim else vectors[0]


def read_vectors(index: State, internal: NDArray[np.int64]) -> tuple[NDArray[Any], int]:
    """Return the stored vectors of internal ids, and the position of one that is unknown or -1."""
    vectors = np.empty((len(internal), index._dim), _validate.STORED_DTYPES[index._dtype])
    return vectors, native.index_get(index._handle, internal, vectors)


def batches(index: State, batch_size: int) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """See `Index.vectors`; checks its argument before the first batch is asked for."""
    size = _validate.whole_number(batch_size, "batch_size", 1, _validate.MAX_COUNT)
    return _batches(index, size)


def _batches(index: State, size: int) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    ids = index._internal_ids()
    dtype = _validate.STORED_DTYPES[index._dtype]
    for start in range(0, len(ids), size):
        batch = ids[start : start + size]
        vectors = np.empty((len(batch), index._dim), dtype)
        present = np.empty(len(batch), np.uint8)
        native.index_get_present(index._handle, batch, vectors, present)
        if not present.all():
            batch, vectors = batch[present != 0], vectors[present != 0]
        yield index._to_external(batch), vectors
