"""Which parts a row goes to: the two nearest of some clusters of about equal size.

All distances here are those of rows rounded to whole numbers from -127 to 127, and sums of
products are kept below 2**24 in float32, where they are exact: the same rows, seed and number of
parts give the same clusters whatever the CPU, the BLAS library and its threads.

Balance comes from a price for each cluster that is added to the distances to its centre, higher
where too many rows of the sample would go; so which parts a row goes to depends on the row alone,
not on its place among the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["MOST_COPIES", "Clusters", "mixed"]

MOST_COPIES = 3
# A row goes to a third part if its distance to that centre is at most so many of 10,000 parts of
# the second; fewer, where more than this share of the rows would go: each copy is linked like a row
_NEARLY = 10_300
_THIRDS = 0.45
_FAR, _FAR32 = np.int64(2**62), np.int32(2**31 - 1)  # no distance is as large

_LIMIT = 127
_EXACT = 1024  # 127 * 127 * 1024 < 2**24: so many products add up exactly in float32
_MEANS = 10  # steps of k-means
_PRICES = 60  # steps of the prices; centres move in the first of them
_HELD = 1 << 17  # distances of rows to all centres that are held at once, in a cache
_SCALED = 2048  # rows of the sample that tell how large values are
_CLIPPED = 1000  # of so many values of the sample one is clipped

Array = np.ndarray[Any, np.dtype[Any]]
Floats = NDArray[np.float32]


def mixed(seed: int, count: int) -> NDArray[np.uint64]:
    """Return random numbers that depend on seed and position alone (splitmix64)."""
    with np.errstate(over="ignore"):
        x = np.arange(count, dtype=np.uint64) + np.uint64(seed * 0x9E3779B97F4A7C15 % 2**64)
        x *= np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        found: NDArray[np.uint64] = x ^ (x >> np.uint64(31))
        return found


class Clusters:
    """Centres and prices, found from a sample of rows.

    Attributes
    ----------
    centres : ndarray of float32, shape (parts, dim), whole numbers
    prices : ndarray of int64, shape (parts,)
    nearly : int
        See `_NEARLY`.
    """

    def __init__(self, sample: Array, parts: int, metric: str, seed: int) -> None:
        self.metric = metric
        self.origin, self.step = _scale_of(sample, metric)
        self.room = 0  # for ip: the longest row, squared
        points = self._points(sample)
        if metric == "ip":
            self.room = int(_squares(points).max(initial=0))
            points = self._longer(points)
        order = np.argsort(mixed(seed, len(points)), kind="stable")
        self.centres = points[order[:parts]].copy()
        self.prices = np.zeros(parts, np.int64)
        for _ in range(_MEANS):
            near, _ = self._near_and_loads(points)
            self._move(points, near)
        unit = self._unit()
        best: tuple[float, Any] | None = None
        for step in range(_PRICES):
            near, loads = self._near_and_loads(points)
            if step < _MEANS:
                self._move(points, near)
                continue
            if best is None or loads.max() < best[0]:
                best = loads.max(), self.prices.copy()
            over = np.clip(loads / max(loads.mean(), 1) - 1, -1, 1)
            self.prices += np.rint(over * (unit / (1 + (step - _MEANS) / 8))).astype(np.int64)
            self.prices -= self.prices.min()
        if best is not None:
            self.prices = best[1]
        self.nearly = self._nearly(points)

    def parts_of(self, rows: Array) -> NDArray[np.int64]:
        """Return the clusters that rows go to, the nearest first, shape (n, MOST_COPIES); -1: none.

        Two each, and a third to which the row is nearly as near as to the second.
        """
        points = self._points(rows)
        if self.metric == "ip":
            points = self._longer(points)
        found = np.empty((len(points), MOST_COPIES), np.int64)
        for block in self._blocks(points):
            near, distances = self._nearest(points[block])
            limit = distances[:, 1:2] * self.nearly // 10_000
            near[:, 2:][distances[:, 2:] > limit] = -1
            found[block] = near
        return found

    def _blocks(self, points: Floats) -> Iterator[slice]:
        """Return parts of the points, one after the other, all of whose distances are held."""
        step = max(64, _HELD // len(self.centres))
        return (slice(start, start + step) for start in range(0, len(points), step))

    def _nearest(self, points: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the nearest clusters and the squared distances plus prices, MOST_COPIES each."""
        near, distances = _least(self._distances(points), MOST_COPIES)
        distances += _squares(points)[:, None]
        return near, distances

    def _nearly(self, points: Floats) -> int:
        """Return up to what share of the second distance a third centre is nearly as near."""
        if len(self.centres) < MOST_COPIES:
            return _NEARLY
        shares = np.empty(len(points), np.int64)
        for block in self._blocks(points):
            _, distances = self._nearest(points[block])
            shares[block] = -(-distances[:, 2] * 10_000 // np.maximum(distances[:, 1], 1))
        return int(min(_NEARLY, np.sort(shares)[int(_THIRDS * (len(shares) - 1))]))

    def _points(self, rows: Array) -> Floats:
        wide: Floats = np.asarray(rows, np.float32)
        if self.metric == "cosine" and rows.dtype.kind in "iu":  # floats are of unit length
            wide = np.divide(wide, _lengths(rows).astype(np.float32), dtype=np.float32)
        points: Floats = np.rint((wide - self.origin) * self.step)
        return np.clip(points, -_LIMIT, _LIMIT, out=points)

    def _longer(self, points: Floats) -> Floats:
        """Return points with one more value, so that all are of the same length.

        Then the nearest are those of the largest product (Bachrach et al., RecSys 2014).
        """
        rest = np.maximum(self.room - _squares(points), 0)
        last = np.minimum(np.rint(np.sqrt(rest)), _LIMIT * _EXACT)
        # too large for one value of 127: spread over as many as it takes
        width = max(1, -(-int(np.sqrt(self.room)) // _LIMIT))
        share = np.rint(last / np.sqrt(width))
        more = np.repeat(np.minimum(share, _LIMIT)[:, None], width, 1)
        return np.concatenate([points, more.astype(np.float32)], 1)

    def _distances(self, points: Floats) -> NDArray[np.signedinteger[Any]]:
        """Return squared distances plus prices, up to a number that is the same for a row."""
        alone = _squares(self.centres) + self.prices
        largest = int(alone.max()) + 2 * _LIMIT * _LIMIT * points.shape[1]
        kind = np.dtype(np.int32 if largest < int(_FAR32) else np.int64)
        found = np.empty((len(points), len(self.centres)), kind)
        found[:] = alone
        for start in range(0, points.shape[1], _EXACT):
            part = slice(start, start + _EXACT)
            products = points[:, part] @ self.centres[:, part].T
            found -= np.multiply(products, 2, out=products).astype(kind)
        return found

    def _near_and_loads(self, points: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        near = np.empty(len(points), np.int64)
        loads = np.zeros(len(self.centres), np.int64)
        for block in self._blocks(points):
            two, _ = _least(self._distances(points[block]), 2)
            near[block] = two[:, 0]
            loads += np.bincount(two.ravel(), minlength=len(loads))
        return near, loads

    def _unit(self) -> float:
        """Return the change of a price where twice as many rows come as should, or none.

        A tenth of the median distance of two centres.
        """
        squares = _squares(self.centres)
        middle = len(squares) // 2
        whole = self.centres.astype(np.int64)
        products = whole @ whole[middle]
        apart = np.sort(squares + squares[middle] - 2 * products)
        return float(apart[len(apart) // 2]) / 10 + 1

    def _move(self, points: Floats, near: NDArray[np.int64]) -> None:
        """Move every centre to the mean of its rows; one without rows stays."""
        order = np.argsort(near, kind="stable")
        counts = np.bincount(near, minlength=len(self.centres))
        start = 0
        for c, count in enumerate(counts):
            if count:
                mine = points[order[start : start + count]].astype(np.int64)
                self.centres[c] = np.rint(mine.sum(0) / count)
                start += count


def _scale_of(sample: Array, metric: str) -> tuple[Floats, np.float32]:
    """Return what is taken from rows and what they are multiplied by before they are rounded."""
    some = sample[:: -(-len(sample) // _SCALED)]
    wide = np.asarray(some, np.float64)
    if metric == "cosine" and some.dtype.kind in "iu":
        wide = wide / _lengths(some)
    # of products nothing may be taken off; a sum down columns adds one row after the other
    flat = metric in ("ip", "cosine")
    origin = np.zeros(wide.shape[1]) if flat else wide.sum(0) / len(wide)
    high = max(_high(np.abs(wide - origin)), 1e-30)
    return origin.astype(np.float32), np.float32(_LIMIT / high)


def _high(values: NDArray[np.float64]) -> float:
    flat = np.sort(values, axis=None)
    return float(flat[len(flat) - 1 - len(flat) // _CLIPPED]) if len(flat) else 1.0


def _lengths(rows: Array) -> NDArray[np.float64]:
    """Return the length of each row of integers, which float64 adds up exactly."""
    wide = rows.astype(np.float64)
    found: NDArray[np.float64] = np.maximum(np.sqrt((wide * wide).sum(1)), 1e-30)[:, None]
    return found


def _squares(points: Floats) -> NDArray[np.int64]:
    total = np.zeros(len(points), np.int64)
    for start in range(0, points.shape[1], _EXACT):
        part = points[:, start : start + _EXACT]
        total += np.einsum("ij,ij->i", part, part).astype(np.int64)
    return total


def _least(
    distances: NDArray[np.signedinteger[Any]], count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return positions and values of the smallest of each row, equal ones in order of position.

    Where a row has fewer, the values are `_FAR`. Overwrites `distances`.
    """
    found = np.empty((len(distances), count), np.int64)
    values = np.empty_like(found)
    rows = np.arange(len(distances))
    far = _FAR32 if distances.dtype == np.int32 else _FAR
    for i in range(count):
        found[:, i] = np.argmin(distances, axis=1)
        values[:, i] = distances[rows, found[:, i]]
        distances[rows, found[:, i]] = far
    values[values == far] = _FAR
    return found, values
