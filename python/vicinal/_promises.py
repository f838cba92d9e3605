"""Does `search(recall=)` keep what it promises? It looks now and then, and `stats` tells.

One query of many that were asked with `recall=` is searched exactly as well. How many depends on
the number of rows alone, so that looking takes a few percent of the time of the searches.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vicinal._cpu import native
from vicinal._logging import WARNING, log
from vicinal._query_sample import chance

if TYPE_CHECKING:
    from vicinal._state import State

__all__ = ["Promise", "Promises"]

_LEAST_EVERY = 1000  # queries between two that are looked at, at least
_ROWS_A_QUERY = 10  # as many rows as a scan measures cost 10 times less than a walk each
_REMEMBERED = 200  # queries that count, the latest
_LEAST_LOOKED_AT = 30  # queries without which nothing is said


class Promise(NamedTuple):
    """What became of one recall that was asked for; see `Index.stats`."""

    recall: float
    k: int
    looked_at: int
    found: float
    low: float
    high: float
    kept: bool | None


class Promises:
    """The latest queries of each (recall, k) that were searched exactly as well.

    Threads: searches of any number of threads may call `answered`; they take no lock, and two at
    one moment may count as one.
    """

    __slots__ = ("_left", "_looks", "_shares", "_warned")

    def __init__(self) -> None:
        self._left = _LEAST_EVERY
        self._looks = 0
        self._shares: dict[tuple[float, int], deque[float]] = {}
        self._warned: set[tuple[float, int]] = set()

    def answered(
        self,
        index: State,
        recall: float,
        k: int,
        queries: NDArray[Any],
        distances: NDArray[np.float32],
        changes: int,
    ) -> None:
        """Take note of answered queries, shape (n, dim) or (dim,), and look at one if it is time.

        `changes` is how many changes had taken effect before they were answered.
        """
        rows = queries.reshape(-1, queries.shape[-1])
        self._left -= len(rows)
        if self._left > 0 or not len(rows):
            return
        self._left = max(_LEAST_EVERY, len(index) // _ROWS_A_QUERY)
        # not always the last of a batch, whose queries may be in an order
        self._looks += 1
        place = chance(self._looks) % len(rows)
        share = _share(index, k, rows[place : place + 1], distances.reshape(-1, k)[place])
        if share is None or index._changes() != changes:
            return  # the exact search may have seen other rows
        shares = self._shares.setdefault((float(recall), k), deque(maxlen=_REMEMBERED))
        shares.append(share)
        self._warn(float(recall), k)

    def _warn(self, recall: float, k: int) -> None:
        """Log once that a promise is not kept."""
        if (recall, k) in self._warned:
            return
        said = next(each for each in self.told() if (each.recall, each.k) == (recall, k))
        if said.kept is False:
            self._warned.add((recall, k))
            log(WARNING, "search: recall %g was asked for, and %.3f found", recall, said.found)

    def told(self) -> tuple[Promise, ...]:
        """Return what is known of each recall and k that was asked for."""
        from vicinal._tuning import interval

        told = []
        for (recall, k), shares in list(self._shares.items()):
            latest = np.array(list(shares))
            low, high = interval(latest, k)
            kept = high >= recall if len(latest) >= _LEAST_LOOKED_AT else None
            told.append(Promise(recall, k, len(latest), float(latest.mean()), low, high, kept))
        return tuple(told)


def _share(index: State, k: int, query: NDArray[Any], found: NDArray[np.float32]) -> float | None:
    """Return the share of the true neighbours of a query that was found, None if there are none."""
    from vicinal._state import EXHAUSTIVE, STRING_NUMBERS

    ids, distances = np.empty((1, k), np.int64), np.empty((1, k), np.float32)
    status = native.index_search(index._handle, query, k, EXHAUSTIVE, 1, ids, distances)
    exist = int(np.isfinite(distances).sum())
    if status not in (0, STRING_NUMBERS) or not exist:
        return None
    # a scan and a walk may round the distance of one row differently
    farthest = np.float64(distances[0, exist - 1])
    near = np.isfinite(found) & (found <= farthest + 1e-5 * abs(farthest) + 1e-30)
    return min(int(near.sum()), exist) / exist
