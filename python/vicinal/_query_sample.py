"""A bounded sample of the queries that an index was asked, for `tune` and `measure_recall`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vicinal.errors import CorruptError

__all__ = ["QuerySample", "chance"]

_HEAD = 16  # bytes before the queries in a file
_MOST = 2**31 - 1
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

    @classmethod
    def of_bytes(cls, data: bytes, dim: int, dtype: np.dtype[Any]) -> QuerySample:
        """Return the sample that `to_bytes` wrote; CorruptError if it did not."""
        count, seen = 0, 0
        if len(data) >= _HEAD:
            count, seen = np.frombuffer(data[:_HEAD], np.int64).tolist()
        width = dim * dtype.itemsize
        if not 0 < count <= _MOST or seen < 0 or len(data) != _HEAD + min(count, seen) * width:
            raise CorruptError("index: its sample of kept queries is damaged")
        try:
            sample = cls(count, dim, dtype)
        except (MemoryError, ValueError):  # room for more than there can be
            raise CorruptError("index: its sample of kept queries is damaged") from None
        rows = np.frombuffer(data, dtype, offset=_HEAD).reshape(-1, dim)
        sample._rows[: len(rows)] = rows
        sample._seen = seen
        return sample

    def to_bytes(self) -> NDArray[np.uint8]:
        """Return the sample as a file has it: its room, the queries seen, then those kept."""
        seen = self._seen
        head = np.array([len(self._rows), seen], np.int64)
        rows = self._rows[:seen]
        return np.concatenate([head.view(np.uint8), rows.reshape(-1).view(np.uint8)])

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


def chance(number: int) -> int:
    """Return what looks like chance, from 0 to 2**64 - 1, for a number from 0 on."""
    return int(_scrambled(np.array([number], np.uint64))[0])


def _scrambled(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return what looks like chance: the finalizer of SplitMix64 (Steele, Lea, Flood 2014)."""
    z: NDArray[np.uint64] = (numbers + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z
