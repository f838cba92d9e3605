"""A bounded sample of the queries that an index was asked, for `tune` and `measure_recall`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["QuerySample"]

_LARGEST_SQUARE = 8e37  # squared length beyond which a search refuses a query


class QuerySample:
    """Each of the queries so far is in it with equal probability (reservoir sampling).

    Threads: searches of any number of threads may hand over queries. They take no lock, so that
    none waits for another; calls at one moment may count as one. So chance is a hash of the number
    of a query, which needs no state.
    """

    __slots__ = ("_rows", "_seen")

    def __init__(self, count: int, dim: int, dtype: np.dtype[Any]) -> None:
        self._rows = np.zeros((count, dim), dtype)
        self._seen = 0

    def take(self, rows: NDArray[Any]) -> None:
        """Hand over queries, shape (n, dim)."""
        first, room = self._seen, len(self._rows)
        self._seen = first + len(rows)
        free = min(max(room - first, 0), len(rows))
        self._rows[first : first + free] = rows[:free]
        numbers = np.arange(first + free, first + len(rows), dtype=np.uint64)
        places = _scrambled(numbers) % (numbers + np.uint64(1))
        lucky = np.flatnonzero(places < room)
        self._rows[places[lucky]] = rows[free + lucky]

    def queries(self, metric: str) -> NDArray[Any]:
        """Return a copy of the sample, without queries that were refused."""
        rows = self._rows[: self._seen].copy()
        squares = (rows.astype(np.float64) ** 2).sum(axis=1)
        usable: NDArray[np.bool_] = (squares <= _LARGEST_SQUARE) & (
            (squares > 0) | (metric != "cosine")
        )
        return np.compress(usable, rows, axis=0)


def _scrambled(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return what looks like chance: the finalizer of SplitMix64 (Steele, Lea, Flood 2014)."""
    z: NDArray[np.uint64] = (numbers + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z
