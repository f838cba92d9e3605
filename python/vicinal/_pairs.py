"""All pairs of rows within a distance, and the groups that they make: near duplicates."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vicinal import _kinds, _validate
from vicinal._assumed_queries import draw
from vicinal._compared import stored_present
from vicinal._kept_filter import prepare
from vicinal._search import within
from vicinal._state import EXHAUSTIVE, State

__all__ = ["DuplicateGroups", "Pairs", "duplicates", "pairs"]

_MOST_ROWS = 128  # searched for at a time, so that a dense region does not fill memory
_PAIRS = 1 << 18  # pairs of a batch that the next batch is to have at most
_SAMPLE = 256  # rows whose pairs are found exactly as well

Batch = tuple[NDArray[Any], NDArray[Any], NDArray[np.float32]]


class Pairs:
    """All pairs of rows within a distance, each once; `Index.pairs` makes it.

    Iterate over it for triples (id, id, distance), or over `batches()` for arrays of these. Each
    iteration searches anew and holds a few thousand pairs, or the rows near one row, at a time.
    """

    def __init__(
        self,
        index: State,
        radius: float,
        width: int,
        filter: Any,
        threads: int,
    ) -> None:
        self._index, self._radius, self._width, self._threads = index, radius, width, threads
        self._filter = filter

    def __iter__(self) -> Iterator[tuple[Any, Any, float]]:
        for a, b, distances in self.batches():
            yield from zip(a.tolist(), b.tolist(), distances.tolist(), strict=True)

    def batches(self) -> Iterator[Batch]:
        """Go through the pairs in arrays: ids, ids, and distances, each of shape (n,)."""
        for a, b, distances in self._internal(self._ids()):
            yield self._index._to_external(a), self._index._to_external(b), distances

    def arrays(self) -> Batch:
        """Return all pairs as three arrays: ids, ids and distances."""
        parts = list(self.batches())
        none = self._index._to_external(np.empty(0, np.int64))
        a, b = (np.concatenate([none, *(part[i] for part in parts)]) for i in range(2))
        return a, b, np.concatenate([np.empty(0, np.float32), *(part[2] for part in parts)])

    def to_pandas(self) -> Any:
        """Return all pairs as a `pandas.DataFrame`, columns "a", "b" and "distance"."""
        from vicinal._export import frame

        a, b, distances = self.arrays()
        return frame({"a": a, "b": b, "distance": distances})

    @cached_property
    def share_found(self) -> float:
        """Share of the true pairs that are found, 0 to 1.

        Measured when it is first asked for, on 256 rows that are searched for exactly as well; 1
        where all pairs are measured anyway.
        """
        ids = self._ids()
        if self._width == EXHAUSTIVE or not len(ids):
            return 1.0
        chosen = ids[draw(len(ids), _SAMPLE)]
        true = found = 0
        for start in range(0, len(chosen), _MOST_ROWS):
            part = chosen[start : start + _MOST_ROWS]
            every, some = (self._near(part, width) for width in (EXHAUSTIVE, self._width))
            known = set(zip(some[0].tolist(), some[1].tolist(), strict=True))
            true += len(every[0])
            found += sum(
                pair in known for pair in zip(every[0].tolist(), every[1].tolist(), strict=True)
            )
        return found / true if true else 1.0

    def __repr__(self) -> str:
        return f"vicinal.Pairs within {self._radius:g} of {len(self._index)} rows"

    def _ids(self) -> NDArray[np.int64]:
        if self._filter is None:
            return self._index._internal_ids()
        return self._filter._allowed_ids()  # type: ignore[no-any-return]

    def _internal(
        self, ids: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]]:
        start, rows = 0, 16
        while start < len(ids):
            a, b, distances = self._near(ids[start : start + rows], self._width)
            if len(a):
                yield a, b, distances
            start += rows
            most = max(1, rows * _PAIRS // max(1, len(a)))
            rows = min(4 * rows, most, _MOST_ROWS)

    def _near(
        self, ids: NDArray[np.int64], width: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """Return the pairs of some rows with those of larger internal ids.

        So each pair is found from one of its rows only, and need not be remembered.
        """
        index = self._index
        vectors, there = stored_present(index, ids)
        ids = ids[there]
        rows = vectors[there]
        if index._dtype == "bfloat16":
            rows = _validate.as_floats(rows, index._dtype)
        rows = np.ascontiguousarray(rows, _kinds.query_dtype(index._dtype))
        arguments = (self._radius, width, self._threads, self._filter)
        others, distances, offsets = within(index, rows, rows, *arguments)
        a = np.repeat(ids, np.diff(offsets))
        once = a < others
        return a[once], others[once], distances[once]


class DuplicateGroups(list[Any]):
    """Groups of near duplicates: a list of arrays of ids; `Index.duplicates` makes it.

    Attributes
    ----------
    share_found : float
        Share of the true pairs that the groups were made of, measured on 256 rows.
    """

    share_found: float


def pairs(
    index: State,
    radius: float,
    ef_search: int | None,
    exact: bool | None,
    filter: Any,
    num_threads: int | None,
) -> Pairs:
    """See `Index.pairs`."""
    radius = _validate.real_number(radius, "radius")
    if not (exact is None or isinstance(exact, (bool, np.bool_))):
        raise TypeError(f"exact: expected True or False, got {exact!r}")
    if exact and ef_search is not None:
        raise ValueError("exact: expected exact or ef_search, got both")
    width = EXHAUSTIVE if exact else _validate.search_width(ef_search, index._ef_search)
    threads = _validate.thread_count(num_threads)
    kept = None if filter is None else prepare(index, filter, "filter")
    return Pairs(index, radius, width, kept, threads)


def duplicates(
    index: State,
    radius: float,
    ef_search: int | None,
    exact: bool | None,
    filter: Any,
    num_threads: int | None,
) -> DuplicateGroups:
    """See `Index.duplicates`."""
    near = pairs(index, radius, ef_search, exact, filter, num_threads)
    ids = near._ids()
    order = np.argsort(ids, kind="stable")
    ascending = ids[order]
    leader = np.arange(len(ids))  # of each row one that it is in a group with, at last the first
    for a, b, _ in near._internal(ids):
        # rows that came meanwhile have no place
        at = [np.minimum(np.searchsorted(ascending, side), len(ids) - 1) for side in (a, b)]
        known = (ascending[at[0]] == a) & (ascending[at[1]] == b)
        _join(leader, order[at[0][known]], order[at[1][known]])
    first = _leaders(leader, np.arange(len(ids)))
    members = np.flatnonzero(np.bincount(first, minlength=len(ids))[first] > 1)
    by_group = members[np.argsort(first[members], kind="stable")]
    ends = np.flatnonzero(np.diff(first[by_group])) + 1
    groups = DuplicateGroups()
    if len(by_group):
        groups.extend(index._to_external(ids[part]) for part in np.split(by_group, ends))
    groups.share_found = near.share_found
    return groups


def _leaders(leader: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the first row of each row's group, and shorten the way to it."""
    found = leader[rows]
    while True:
        further = leader[found]
        if np.array_equal(further, found):
            leader[rows] = found
            return found
        found = further


def _join(leader: NDArray[np.int64], a: NDArray[np.int64], b: NDArray[np.int64]) -> None:
    """Put the groups of rows a[i] and b[i] together, for every i."""
    while len(a):
        first, second = _leaders(leader, a), _leaders(leader, b)
        apart = first != second
        a, b = a[apart], b[apart]
        low = np.minimum(first[apart], second[apart])
        np.minimum.at(leader, np.maximum(first[apart], second[apart]), low)
