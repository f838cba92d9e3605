"""Float queries to indexes of 8-bit integers: found by rounded ones, measured again as they are.

Models give documents in 8 bits and queries in floats. The native code takes queries in the stored
dtype: it gets them rounded, for "cosine" and "ip" as large as 8 bits hold, which changes no order.
The best rows are then measured against the query itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vicinal import _validate
from vicinal._compared import stored_present
from vicinal._state import State

__all__ = ["FloatQueries", "rounded"]

_MORE, _AT_LEAST = 2, 16  # so many times k, and more, are measured again
_AT_ONCE = 1 << 22  # values held at a time


class FloatQueries:
    """Queries as they were given.

    Parameters
    ----------
    index : State
        An index of int8 or uint8.
    given : ndarray of shape (n, dim)
        The queries.
    """

    def __init__(self, index: State, given: NDArray[Any]) -> None:
        self._index, self._given = index, given

    def wanted(self, k: int) -> int:
        """Return how many rows to find for k."""
        return min(_MORE * k + _AT_LEAST, _validate.MAX_COUNT)

    def nearest(
        self,
        asked: NDArray[np.int64],
        ids: NDArray[np.int64],
        distances: NDArray[np.float32],
        k: int,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Measure what was found for some of the queries again, and keep the nearest k."""
        n, m = ids.shape
        step = max(1, _AT_ONCE // max(1, m * self._index._dim))
        far = np.full((n, m), np.inf, np.float32)
        for start in range(0, n, step):
            part = slice(start, start + step)
            far[part] = self._measure(self._given[asked[part]], ids[part])
        far[np.isinf(distances)] = np.inf
        order = np.argsort(far, axis=1, kind="stable")[:, :k]
        far = np.take_along_axis(far, order, axis=1)
        best = np.where(np.isinf(far), -1, np.take_along_axis(ids, order, axis=1))
        return best, far

    def _measure(self, queries: NDArray[Any], ids: NDArray[np.int64]) -> NDArray[np.float32]:
        stored, present = stored_present(self._index, ids.reshape(-1))
        rows = stored.astype(np.float32).reshape(*ids.shape, -1)
        asked = queries.astype(np.float32)
        if self._index._metric == "l2":
            rows -= asked[:, None]
            far = np.einsum("nmd,nmd->nm", rows, rows)
        else:
            far = (rows @ asked[:, :, None])[:, :, 0]
            if self._index._metric == "cosine":
                lengths = np.sqrt(np.einsum("nmd,nmd->nm", rows, rows))
                lengths *= np.sqrt(np.einsum("nd,nd->n", asked, asked))[:, None]
                far /= np.where(present.reshape(ids.shape), lengths, 1)
            far = 1 - far
            if self._index._metric == "cosine":
                far = np.maximum(far, 0)
        measured: NDArray[np.float32] = np.where(
            present.reshape(ids.shape), far, np.float32(np.inf)
        )
        return measured


def rounded(index: State, queries: Any) -> tuple[NDArray[Any], FloatQueries] | None:
    """Return float queries in the stored dtype, and as given; None if they fit as they are.

    Only of queries of the right shape for an index of int8 or uint8; all others are for `as_rows`
    to look at.
    """
    if index._dtype not in ("int8", "uint8"):
        return None
    given = queries if isinstance(queries, np.ndarray) else _validate.as_numbers(queries, "queries")
    if given.dtype.kind != "f" or given.ndim not in (1, 2) or given.shape[-1] != index._dim:
        return None
    rows = given.reshape(-1, index._dim)
    limits = np.iinfo(_validate.query_dtype(index._dtype))
    with np.errstate(invalid="ignore"):
        fits = (rows == np.rint(rows)) & (rows >= limits.min) & (rows <= limits.max)
    if fits.all() or not np.isfinite(rows).all():
        return None
    whole = rows.astype(np.float64)
    if index._metric != "l2":
        largest = np.abs(whole).max(axis=1, keepdims=True)
        whole = whole * (limits.max / np.where(largest > 0, largest, 1))
    small = np.clip(np.rint(whole), limits.min, limits.max).astype(limits.dtype)
    if index._metric == "cosine" and not small.any(axis=1).all():
        return None  # a zero vector, or all below 0 for uint8
    return small.reshape(given.shape), FloatQueries(index, rows)
