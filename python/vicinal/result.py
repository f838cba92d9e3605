"""What searches return."""

from __future__ import annotations

import reprlib
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["RangeResult", "SearchResult", "of_metric", "similarity", "within_of_metric"]

_SHOWN = 60  # of more items than these only the first and last are shown


class _Found(NamedTuple):
    ids: NDArray[Any]
    distances: NDArray[np.float32]


class SearchResult(_Found):
    """Neighbours of one query or of many; also unpacks as `ids, distances = found`.

    Attributes
    ----------
    ids : ndarray of int64 (or of str as objects), shape (k,) for one query, (n, k) for n
        Nearest first; -1 where there are fewer than k. Of an index with string ids an object array
        of str, with None where there are fewer.
    distances : ndarray of float32, same shape
        Distances of `ids`; infinity where there are fewer than k. Of an index made with
        `keep_vectors=False` they are estimates.
    """

    __slots__ = ()

    _metric: ClassVar[str] = ""  # what the distances are; see `of_metric`
    _dim: ClassVar[int] = 0

    @property
    def similarities(self) -> NDArray[np.float32]:
        """How alike, larger is nearer: a new array of the shape of `distances`.

        ========= =====================================================================
        "cosine"  the cosine, -1 to 1: 1 - distance
        "ip"      the inner product: 1 - distance
        "l2"      1 / (1 + Euclidean distance), above 0 and at most 1: no metric of the
                  vectors, but of the same order
        "hamming" the share of the bits that are equal: 1 - distance / dim
        "jaccard" of the bits set in either the share set in both: 1 - distance
        ========= =====================================================================

        Minus infinity ("l2": 0) where there is no neighbour. ValueError for a result that no search
        has made: its metric is not known.
        """
        return similarity(self.distances, self._known_metric("similarities"), self._dim)

    @property
    def euclidean(self) -> NDArray[np.float32]:
        """Euclidean distances, true lengths: a new array of the shape of `distances`.

        The root of the distance for "l2", and for "hamming", whose vectors are bits; for "cosine"
        that between the vectors at unit length, the root of twice the distance. Infinity where
        there is no neighbour. ValueError for "ip" and "jaccard", which do not tell it, and for a
        result that no search has made.
        """
        metric = self._known_metric("euclidean")
        if metric in ("ip", "jaccard"):
            raise ValueError(
                f"euclidean: expected the result of another metric, got {metric!r}, whose "
                "distances do not tell how far vectors are from each other"
            )
        scale = np.float32(2 if metric == "cosine" else 1)
        lengths: NDArray[np.float32] = np.sqrt(np.maximum(self.distances * scale, np.float32(0)))
        return lengths

    def _known_metric(self, name: str) -> str:
        if not self._metric:
            raise ValueError(f"{name}: expected the result of a search, whose metric is known")
        return self._metric

    def __repr__(self) -> str:
        return f"SearchResult(ids={_shown(self.ids)}, distances={_shown(self.distances)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self._metric, self._dim, self.ids, self.distances)

    def to_arrow(self) -> Any:
        """Return the neighbours as a `pyarrow.Table`; needs the extra `arrow`.

        Columns "query" (0 to n - 1), "rank" (from 0), "id" and "distance", a row for every
        neighbour that there is.
        """
        from vicinal._export import result_to_arrow

        return result_to_arrow(self)

    def to_pandas(self) -> Any:
        """Return the neighbours as a `pandas.DataFrame`; needs pandas.

        Columns "query", "rank", "id" and "distance" as of `to_arrow`.
        """
        from vicinal._export import result_to_pandas

        return result_to_pandas(self)


def of_metric(metric: str, dim: int) -> type[SearchResult]:
    """Return the class of results whose distances are of a metric.

    A class, so that a search need not hand on more than the two arrays.
    """
    dim = dim if metric == "hamming" else 0  # no other needs it
    known = _classes.get((metric, dim))
    if known is None:
        namespace = {"__slots__": (), "__doc__": None, "_metric": metric, "_dim": dim}
        known = _classes[metric, dim] = type("SearchResult", (SearchResult,), namespace)
    return known


_classes: dict[tuple[str, int], type[SearchResult]] = {}


def similarity(distances: NDArray[np.float32], metric: str, dim: int) -> NDArray[np.float32]:
    """See `SearchResult.similarities`."""
    one = np.float32(1)
    alike: NDArray[np.float32] = one - (distances / np.float32(dim) if dim else distances)
    if metric == "l2":
        alike = one / (one + np.sqrt(np.maximum(distances, np.float32(0))))
    return alike


def _restored(
    metric: str, dim: int, ids: NDArray[Any], distances: NDArray[np.float32]
) -> SearchResult:
    """Make a result again; what pickles call."""
    return (of_metric(metric, dim) if metric else SearchResult)(ids, distances)


def _shown(array: Any) -> str:
    """Return what `repr` shows of an array: all of a few items, of many the first and last."""
    if not isinstance(array, np.ndarray):
        return reprlib.repr(array)
    with np.printoptions(threshold=_SHOWN, edgeitems=2, formatter={"object": reprlib.repr}):
        return repr(array)


class _FoundWithin(NamedTuple):
    ids: NDArray[Any]
    distances: NDArray[np.float32]
    offsets: NDArray[np.int64]


class RangeResult(_FoundWithin):
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

    __slots__ = ()

    _found: ClassVar[type[SearchResult]] = SearchResult

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
        return self._found(self.ids[part], self.distances[part])

    def __repr__(self) -> str:
        parts = (f"{name}={_shown(item)}" for name, item in zip(self._fields, self, strict=True))
        return f"RangeResult({', '.join(parts)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored_within, (self._found._metric, self._found._dim, *self)


def within_of_metric(metric: str, dim: int) -> type[RangeResult]:
    """Return the class of results of range searches whose distances are of a metric."""
    known = _range_classes.get((metric, dim))
    if known is None:
        namespace = {"__slots__": (), "__doc__": None, "_found": of_metric(metric, dim)}
        known = _range_classes[metric, dim] = type("RangeResult", (RangeResult,), namespace)
    return known


_range_classes: dict[tuple[str, int], type[RangeResult]] = {}


def _restored_within(
    metric: str,
    dim: int,
    ids: NDArray[Any],
    distances: NDArray[np.float32],
    offsets: NDArray[np.int64],
) -> RangeResult:
    """Make a result again; what pickles call."""
    kind = within_of_metric(metric, dim) if metric else RangeResult
    return kind(ids, distances, offsets)
