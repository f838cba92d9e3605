"""What searches return."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["RangeResult", "SearchResult"]


class SearchResult(NamedTuple):
    """Neighbours of one query or of many; also unpacks as `ids, distances = found`.

    Attributes
    ----------
    ids : ndarray of int64 (or of str as objects), shape (k,) for one query, (n, k) for n
        Nearest first; -1 where there are fewer than k. Of an index with string ids an object array
        of str, with None where there are fewer.
    distances : ndarray of float32, same shape
        Distances of `ids`; infinity where there are fewer than k.
    """

    ids: NDArray[Any]
    distances: NDArray[np.float32]

    def to_arrow(self) -> Any:
        """Return the neighbours as a `pyarrow.Table`; needs the extra `arrow`.

        Columns "query" (0 to n - 1), "rank" (from 0), "id" and "distance", a row for every
        neighbour that there is.
        """
        from vicinal._export import result_to_arrow

        return result_to_arrow(self)


class RangeResult(NamedTuple):
    """Rows within a radius of one query or of many; also unpacks as `ids, distances, offsets`.

    What query i found stands at `offsets[i]` up to, not including, `offsets[i + 1]`: `of(i)`.

    Attributes
    ----------
    ids : ndarray of int64, shape (total,)
        Nearest first for each query, equal distances in the order of rows; one query after the
        other.
    distances : ndarray of float32, shape (total,)
        Distances of `ids`.
    offsets : ndarray of int64, shape (n + 1,)
        Where each query's part begins; of length 2 for a query of shape (dim,).
    """

    ids: NDArray[np.int64]
    distances: NDArray[np.float32]
    offsets: NDArray[np.int64]

    def of(self, i: int) -> SearchResult:
        """Return what query i found, as views; negative numbers count from the last query.

        Raises
        ------
        IndexError
            If there is no such query.
        """
        n = len(self.offsets) - 1
        if not -n <= i < n:
            raise IndexError(f"i: expected a query from 0 to {n - 1}, got {i}")
        part = slice(self.offsets[i % n], self.offsets[i % n + 1])
        return SearchResult(self.ids[part], self.distances[part])
