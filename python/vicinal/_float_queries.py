"""Float queries to indexes of 8-bit integers: found by rounded ones, measured again as they are.

Models give documents in 8 bits and queries in floats. The native code takes queries in the stored
dtype: it gets them rounded, for "cosine" and "ip" as large as 8 bits hold, which changes no order.
The best rows are then measured against the query itself. All distances here are those of stored
values: what a `scale` makes of them is for the callers (`_scale.py`).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vicinal import _kinds, _scale, _validate
from vicinal._compared import stored_present
from vicinal._state import State

__all__ = ["FloatQueries", "Queries", "as_queries", "rounded"]

_MORE, _AT_LEAST = 2, 16  # so many times k, and more, are measured again
_AT_ONCE = 1 << 22  # values held at a time
_ROUNDING = 1e-5  # share of a radius that it is wider by where rows are measured again


class FloatQueries:
    """Queries as they were given, on the scale of what is stored.

    Parameters
    ----------
    index : State
        An index of int8 or uint8.
    given : ndarray of shape (n, dim)
        The queries; also an attribute.
    """

    def __init__(self, index: State, given: NDArray[Any]) -> None:
        self._index, self.given = index, given

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
            far[part] = self._measure(self.given[asked[part]], ids[part])
        far[np.isinf(distances)] = np.inf
        order = np.argsort(far, axis=1, kind="stable")[:, :k]
        far = np.take_along_axis(far, order, axis=1)
        best = np.where(np.isinf(far), -1, np.take_along_axis(ids, order, axis=1))
        return best, far

    def radius(self, i: int, rounded: NDArray[Any], radius: float) -> float:
        """Return a radius around rounded query i within which all rows within one around it are."""
        if math.isinf(radius):
            return radius
        asked, other = self.given[i].astype(np.float64), rounded.astype(np.float64)
        if self._index._metric == "l2":
            off = float(np.linalg.norm(asked - other))
            return float((math.sqrt(radius) + off) ** 2 * (1 + _ROUNDING)) if radius >= 0 else -1.0
        length, longer = np.linalg.norm(asked), np.linalg.norm(other)
        if self._index._metric == "cosine":
            off = float(np.linalg.norm(asked / length - other / longer))
            return radius + off + _ROUNDING
        times = longer / length if length else 1.0
        longest = math.sqrt(self._index._dim) * np.abs(np.iinfo(self._index._dtype).min or 255)
        off = float(np.linalg.norm(asked * times - other)) * longest
        product = float(times) * (1 - radius)
        return 1 - product + float(off) + _ROUNDING * abs(product)

    def within(
        self, i: int, ids: NDArray[np.int64], radius: float
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Measure what was found for query i again, and keep what is within a radius."""
        far = np.empty(len(ids), np.float32)
        step = max(1, _AT_ONCE // self._index._dim)
        for start in range(0, len(ids), step):
            part = slice(start, start + step)
            far[part] = self._measure(self.given[i : i + 1], ids[None, part])[0]
        near = np.flatnonzero(far <= np.float32(radius))
        near = near[np.argsort(far[near], kind="stable")]
        near = near[np.isfinite(far[near])]
        return ids[near], far[near]

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


class Queries(NamedTuple):
    """Queries as the native code takes them, as they were given, and as floats if rounding lost."""

    rows: NDArray[Any]
    given: NDArray[Any]
    floats: FloatQueries | None


def as_queries(index: State, queries: Any, name: str = "queries") -> Queries:
    """Return queries of any kind that an index takes; raises what `as_rows` does."""
    made = rounded(index, queries, name)
    if made is None:
        rows, given = _validate.as_rows(queries, name, index._dim, index._dtype, queries=True)
        return Queries(rows, given, None)
    rows, given = _validate.as_rows(made[0], name, index._dim, index._dtype, queries=True)
    return Queries(rows, given, made[1])


def rounded(
    index: State, queries: Any, name: str = "queries"
) -> tuple[NDArray[Any], FloatQueries | None] | None:
    """Return float queries in the stored dtype, and as given unless that is the same.

    None for an index without 8-bit integers, integers, floats that fit as they are, and what is for
    `as_rows` to refuse: wrong shapes and zero vectors.

    Raises
    ------
    ValueError
        If a value is no finite number, or for "cosine" over uint8 no value of a query is above 0.
    """
    if index._dtype not in ("int8", "uint8"):
        return None
    given = queries if isinstance(queries, np.ndarray) else _validate.as_numbers(queries, name)
    if given.dtype.kind != "f" or given.ndim not in (1, 2) or given.shape[-1] != index._dim:
        return None
    rows = given.reshape(-1, index._dim)
    limits = np.iinfo(_kinds.query_dtype(index._dtype))
    scale = _scale.number_of(index)
    if scale is not None:
        rows = rows / np.float64(scale)
    with np.errstate(invalid="ignore"):
        fits = (rows == np.rint(rows)) & (rows >= limits.min) & (rows <= limits.max)
    _scale.refuse_infinite(rows, name)
    if fits.all():
        return None if scale is None else (rows.astype(limits.dtype).reshape(given.shape), None)
    whole = rows.astype(np.float64)
    if index._metric != "l2":
        largest = np.abs(whole).max(axis=1, keepdims=True)
        whole = whole * (limits.max / np.where(largest > 0, largest, 1))
    small = np.clip(np.rint(whole), limits.min, limits.max).astype(limits.dtype)
    if index._metric == "cosine" and not small.any(axis=1).all():
        row = int(np.flatnonzero(~small.any(axis=1))[0])
        if whole[row].any():
            raise ValueError(
                f"{name}: row {row} has no value above 0, expected some for dtype 'uint8'"
            )
        return None  # a zero vector
    return small.reshape(given.shape), FloatQueries(index, rows)
