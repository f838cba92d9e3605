"""Reading an index: rows behind a filter or within a radius, stored vectors by id or in order.

`Index.search` is not here: its body stands in index.py, where a call costs least.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vicinal import _float_queries, _kinds, _scale, _validate
from vicinal._cpu import native
from vicinal._filters import NativeFilters, as_filters, is_list
from vicinal._kept_filter import belong
from vicinal._state import STRING_NUMBERS, State
from vicinal.result import RangeResult, within_of_metric

if TYPE_CHECKING:
    from vicinal._float_queries import FloatQueries
    from vicinal._native import RangeFound

__all__ = ["batches", "filtered", "get", "nearest", "range_search", "read_vectors", "within"]

Found = TypeVar("Found")
_BY_COST = -1  # which plan a filtered search takes
_ROUNDING = 1e-5  # share of a radius by which rounding may move distances


def nearest(
    index: State,
    rows: NDArray[Any],
    given: NDArray[Any],
    k: int,
    ef_search: int,
    threads: int,
    filter: Any,
    name: str = "queries",
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Search for rows as `as_rows` returned them; (n, k) internal ids, and distances."""
    n = len(rows)
    ids, distances = np.empty((n, k), np.int64), np.empty((n, k), np.float32)
    arguments = (index._handle, rows, k, ef_search, threads)
    if filter is None:
        status = native.index_search(*arguments, ids, distances)
    else:
        status = filtered(index, rows, k, ef_search, threads, filter, ids, distances)
    if status and status != STRING_NUMBERS:
        _validate.refuse_rows(status, name, rows, given)
    return ids, distances


def filtered(
    index: State,
    rows: NDArray[Any],
    k: int,
    ef_search: int,
    threads: int,
    filter: Any,
    ids: NDArray[np.int64],
    distances: NDArray[np.float32],
) -> int:
    """Search behind a filter into `ids` and `distances`; returns the status of the native call."""

    def search(filters: NativeFilters) -> int:
        return native.index_search_filtered(
            index._handle, rows, k, ef_search, threads, *filters, _BY_COST, ids, distances
        )

    return _with_filters(index, filter, 1 if rows.ndim == 1 else len(rows), search)


def _with_filters(
    index: State, filter: Any, queries: int, search: Callable[[NativeFilters], Found]
) -> Found:
    """Search with a filter; once more if it was a kept one and the index changed meanwhile."""
    index._check_counts()
    kept = belong(index, filter)
    moment = index._moment() if kept else (0, 0)
    try:
        found = search(as_filters(filter, len(index), queries, index._to_internal))
        if not kept or index._moment() == moment:
            return found
    except ValueError:
        if not kept or index._moment() == moment:
            raise
    return search(as_filters(filter, len(index), queries, index._to_internal, by_ids=True))


def range_search(
    index: State,
    queries: ArrayLike,
    radius: float,
    ef_search: int | None,
    filter: Any,
    num_threads: int | None,
) -> RangeResult:
    """See `Index.range_search`."""
    rows, given, floats = _float_queries.as_queries(index, queries)
    radius = _validate.real_number(radius, "radius")
    ef_search = _validate.search_width(ef_search, index._ef_search)
    n = len(rows)
    threads = 1 if num_threads is None and n == 1 else _validate.thread_count(num_threads)
    ids, distances, offsets = within(index, rows, given, radius, ef_search, threads, filter, floats)
    kind = within_of_metric(index._metric, 8 * index._dim)
    return kind(index._to_external(ids), distances, offsets)


def within(
    index: State,
    rows: NDArray[Any],
    given: NDArray[Any],
    radius: float,
    ef_search: int,
    threads: int,
    filter: Any,
    floats: FloatQueries | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
    """Search for rows within a radius; internal ids, distances, and offsets by query."""
    wanted = _scale.radius_of(index, radius)
    if floats is not None:
        parts = []
        for i, row in enumerate(rows):
            about = floats.radius(i, row, wanted)
            each = filter[i : i + 1] if is_list(filter) else filter
            some = _within(index, row[None], given, about, ef_search, threads, each)[0]
            parts.append(floats.within(i, some, wanted))
        ends = np.cumsum([0, *(len(ids) for ids, _ in parts)])
        none = np.empty(0, np.int64), np.empty(0, np.float32)
        ids, far = (np.concatenate(side) for side in zip(none, *parts, strict=True))
        return ids, _scale.in_units(index, far), ends
    if _scale.without_loss(index):
        return _within(index, rows, given, radius, ef_search, threads, filter)
    wider = wanted + _ROUNDING * (1 + abs(wanted))
    found, stored, offsets = _within(index, rows, given, wider, ef_search, threads, filter)
    far = _scale.in_units(index, stored)
    near = far <= np.float32(radius)
    return found[near], far[near], np.concatenate([[0], np.cumsum(near)])[offsets]


def _within(
    index: State,
    rows: NDArray[Any],
    given: NDArray[Any],
    radius: float,
    ef_search: int,
    threads: int,
    filter: Any,
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
    """Do it by the distances of what is stored."""
    n = len(rows)
    offsets = np.empty(n + 1, np.int64)

    def search(filters: NativeFilters) -> RangeFound | int:
        return native.index_range(
            index._handle, rows, radius, ef_search, threads, *filters, offsets
        )

    if filter is None:
        found = search(as_filters(None, 0, n, index._to_internal))
    else:
        found = _with_filters(index, filter, n, search)
    if isinstance(found, int):
        _validate.refuse_rows(found, "queries", rows, given)
    ids = np.empty(offsets[-1], np.int64)
    distances = np.empty(offsets[-1], np.float32)
    native.range_take(found, ids, distances)
    return ids, distances, offsets


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
    vectors = np.empty((len(internal), index._dim), _kinds.STORED_DTYPES[index._dtype])
    return vectors, native.index_get(index._handle, internal, vectors)


def batches(index: State, batch_size: int) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """See `Index.vectors`; checks its argument before the first batch is asked for."""
    size = _validate.whole_number(batch_size, "batch_size", 1, _validate.MAX_COUNT)
    return _batches(index, size)


def _batches(index: State, size: int) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    ids = index._internal_ids()
    dtype = _kinds.STORED_DTYPES[index._dtype]
    for start in range(0, len(ids), size):
        batch = ids[start : start + size]
        vectors = np.empty((len(batch), index._dim), dtype)
        present = np.empty(len(batch), np.uint8)
        native.index_get_present(index._handle, batch, vectors, present)
        if not present.all():
            batch, vectors = batch[present != 0], vectors[present != 0]
        yield index._to_external(batch), vectors
