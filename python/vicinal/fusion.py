"""Fusion: the ranked lists of several searches made into one."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vicinal import _validate
from vicinal._string_ids import as_strings
from vicinal.result import SearchResult

__all__ = ["FusedResult", "fuse"]

METHODS = ("relative", "reciprocal", "linear")
_OTHER_NAMES = {"rrf": "reciprocal", "rsf": "relative"}  # as other systems abbreviate them


class FusedResult(NamedTuple):
    """Several ranked lists made into one; `ids` and `scores` first, so `fused[:2]` is a list again.

    Attributes
    ----------
    ids : ndarray of int64 (or of str as objects), shape (m,) for one query, (n, m) for n
        Best first; in a batch -1 (or None) where a query has fewer than others.
    scores : ndarray of float64, same shape
        Fused scores, larger is better; minus infinity where there is no id.
    ranks : ndarray of int64, shape (lists, m) or (lists, n, m)
        Place of each id in each list, counted from 1; -1 where a list does not have it.
    list_scores : ndarray of float64, same shape
        What each list said of each id, as it was given: a distance if that was a `SearchResult`.
        NaN where a list does not have it, or has no scores.
    """

    ids: NDArray[Any]
    scores: NDArray[np.float64]
    ranks: NDArray[np.int64]
    list_scores: NDArray[np.float64]


def fuse(
    *lists: SearchResult | tuple[ArrayLike, ArrayLike | None],
    method: str = "relative",
    weights: Sequence[float] | None = None,
    k: float = 60,
    limit: int = 10,
) -> FusedResult:
    """Fuse ranked lists of one search, or of a batch, into one list.

    Parameters
    ----------
    *lists : SearchResult, or pair of (ids, scores)
        `ids` of shape (m,) for one query or (n, m) for n, integers in all lists or strings in all;
        `scores` of the same shape, **larger is better**, in any order. Scores may be None: the ids
        stand in order then, which is enough for "reciprocal". Distances are no scores: give the
        `SearchResult` as it came, or (ids, -distances). Entries with a score of minus infinity, a
        distance of infinity, or an id of None are padding. Lists may be of different lengths.
    method : {"relative", "reciprocal", "linear"}
        How the lists are made comparable; see Notes. "rrf" is "reciprocal", "rsf" is "relative".
    weights : sequence of float, optional
        One for each list, 0 or more and not all 0, used as they are. By default 1 each for
        "reciprocal", else 1 divided by the number of lists. What stands in lists of weight 0 only
        comes last.
    k : float
        Constant of "reciprocal", 0 or more: the larger, the less the first places stand out.
    limit : int
        Ids wanted of each query, at least 1. Scores do not depend on it.

    Returns
    -------
    FusedResult
        As many ids as there are, at most `limit`, with their rank and score in every list. Equal
        scores are in the order of the best rank in a list of weight above 0, then of ids. The order
        of the lists makes no difference.

    Raises
    ------
    TypeError
        If ids, scores or weights are of the wrong kind, or some ids are integers, others strings.
    ValueError
        If shapes do not agree, a score is NaN or plus infinity, scores are missing that `method`
        needs, or a number is out of range.

    Notes
    -----
    ============ ============================================= ====================================
    method       what a list of weight w adds to an id's score where the list does not have the id
    ============ ============================================= ====================================
    "relative"   w (s - low) / (high - low), where `low` and   0
                 `high` are the list's least and greatest for
                 that query; w if all are equal
    "reciprocal" w / (k + rank), rank from 1                   0
    "linear"     w s                                           w times the list's least score for
                                                               that query, if that is below 0; else
                                                               0
    ============ ============================================= ====================================

    Here s is the score; of a `SearchResult` it is 1 - distance, for "ip" the dot product and for
    "cosine" the cosine. An id that a list has twice counts once, with its best score; the ranks are
    those of what is left. Equal scores in a list rank in the order given.

    "relative" depends on what else a list holds: ask every search for the same number of results,
    more than `limit`, whatever is wanted in the end. It gives the best of any list its full weight,
    however bad: look at `list_scores` where that matters.
    Sources: Cormack, Clarke and Buettcher, SIGIR 2009, for "reciprocal".
    Threads: touches nothing but its arguments.

    Examples
    --------
    >>> from vicinal import fuse
    >>> words = ([7, 3, 5], [12.0, 8.0, 6.0])
    >>> vectors = ([3, 9], [0.9, 0.5])
    >>> fused = fuse(words, vectors, method="reciprocal")
    >>> fused.ids
    array([3, 7, 9, 5])
    >>> fused.ranks
    array([[ 2,  1, -1,  3],
           [ 1, -1,  2, -1]])
    """
    method = _method(method)
    limit = _validate.whole_number(limit, "limit", 1, _validate.MAX_COUNT)
    constant = _validate.real_number(k, "k")
    if not 0 <= constant < np.inf:
        raise ValueError(f"k: expected a number from 0, got {constant:g}")
    if not lists:
        raise ValueError("lists: expected at least one, got none")
    factors = _weights(weights, len(lists), method)
    given = [_Given.read(item, number) for number, item in enumerate(lists)]
    shapes = {item.ids.shape[:-1] for item in given}
    if len(shapes) > 1:
        raise ValueError(
            "lists: expected all of one query or all of a batch of as many, got ids of shape "
            f"{' and '.join(str(item.ids.shape) for item in given)}"
        )
    (batch,) = shapes
    numbers, names = _number_ids(given)
    ranked = [_rank(item, codes, len(names)) for item, codes in zip(given, numbers, strict=True)]
    found = _Table.of(ranked, len(names))
    totals = found.totals(method, factors, constant)
    return _answer(found, totals, factors > 0, names, limit, batch)


# ---- arguments


def _method(method: object) -> str:
    name = _OTHER_NAMES.get(method, method) if isinstance(method, str) else method
    if not isinstance(name, str) or name not in METHODS:
        kind = ValueError if isinstance(method, str) else TypeError
        raise kind(
            f"method: expected 'relative', 'reciprocal' or 'linear', got {reprlib.repr(method)}"
        )
    return name


def _weights(weights: Sequence[float] | None, count: int, method: str) -> NDArray[np.float64]:
    if weights is None:
        return np.full(count, 1.0 if method == "reciprocal" else 1.0 / count)
    values = _validate.as_numbers(weights, "weights").astype(np.float64)
    if values.shape != (count,):
        raise ValueError(f"weights: expected ({count},), one for each list, got {values.shape}")
    if not (np.isfinite(values).all() and (values >= 0).all() and (values > 0).any()):
        raise ValueError(
            f"weights: expected numbers from 0, at least one above it, got {values.tolist()}"
        )
    return values


class _Given(NamedTuple):
    """One list as it was given."""

    ids: NDArray[Any]  # int64, or objects that are str or None
    shown: NDArray[np.float64]  # what `list_scores` is to say
    values: NDArray[np.float64] | None  # the same, larger is better
    exist: NDArray[np.bool_]
    similarity: float  # what "linear" adds to `values`

    @classmethod
    def read(cls, item: object, number: int) -> _Given:
        """Check one list and tell its padding from its entries."""
        name = f"lists[{number}]"
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            raise TypeError(
                f"{name}: expected a SearchResult or a pair (ids, scores), got {reprlib.repr(item)}"
            )
        ids, exist = _as_ids(item[0], f"{name} ids")
        if item[1] is None:
            return cls(ids, np.full(ids.shape, np.nan), None, exist, 0.0)
        what = "distances" if isinstance(item, SearchResult) else "scores"
        shown = _validate.as_numbers(item[1], f"{name} {what}").astype(np.float64)
        if shown.shape != ids.shape:
            raise ValueError(f"{name} {what}: expected {ids.shape} as ids, got {shown.shape}")
        values = -shown if what == "distances" else shown
        wrong = np.flatnonzero((np.isnan(values) | (values == np.inf)) & exist)
        if len(wrong):
            raise ValueError(
                f"{name} {what}: expected finite numbers, got {shown.flat[wrong[0]]} at position "
                f"{wrong[0]}"
            )
        similarity = 1.0 if what == "distances" else 0.0
        return cls(ids, shown, values, exist & (values > -np.inf), similarity)


def _as_ids(data: object, name: str) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return ids as int64 or objects, and which of them are not None."""
    array = _validate.as_array(data, name, "integers or strings")
    exist = np.ones(array.shape, np.bool_)
    if array.size == 0:
        ids: NDArray[Any] = np.empty(array.shape, np.int64)
    elif array.dtype.kind in "iu":
        ids = _validate.as_ids(array, name)
    elif array.dtype.kind in "UTO":
        objects = np.array(data, dtype=object)
        some = (name is not None for name in objects.flat)
        exist[...] = np.fromiter(some, np.bool_, objects.size).reshape(objects.shape)
        if any(isinstance(value, str) for value in objects[exist].flat):
            ids = objects
            ids[exist] = as_strings(objects[exist], name)
        else:
            ids = np.zeros(objects.shape, np.int64)
            ids[exist] = _validate.as_ids(objects[exist], name)
    else:
        raise TypeError(f"{name}: expected integers or strings, got dtype {array.dtype}")
    if ids.ndim not in (1, 2):
        raise ValueError(f"{name}: expected shape (m,) or (n, m), got {ids.shape}")
    return ids, exist


def _number_ids(lists: list[_Given]) -> tuple[list[NDArray[np.int64]], NDArray[Any]]:
    """Return ids as numbers in their order, and the ids by those numbers; padding is 0."""
    present = [item.ids[item.exist] for item in lists]
    kinds = {ids.dtype == object for ids in present if len(ids)}
    if len(kinds) > 1:
        raise TypeError("lists: expected integers in all or strings in all, got both")
    names: NDArray[Any]
    if kinds == {True}:
        # Not by np.unique: NumPy's own strings lose zeros at the end, and objects compare slowly.
        texts = sorted(set().union(*present))
        number = {name: i for i, name in enumerate(texts)}
        names = np.empty(len(texts), object)
        names[:] = texts
        parts = [np.fromiter(map(number.__getitem__, ids), np.int64, len(ids)) for ids in present]
    else:
        integers = [ids.astype(np.int64) for ids in present]
        names, places = np.unique(np.concatenate(integers), return_inverse=True)
        parts = np.split(places.reshape(-1), np.cumsum([len(ids) for ids in present])[:-1])
    codes = [np.zeros(item.ids.shape, np.int64) for item in lists]
    for code, item, part in zip(codes, lists, parts, strict=True):
        code[item.exist] = part
    return codes, names


# ---- fusing


class _Ranked(NamedTuple):
    """The entries of one list, best first for each query, each id once."""

    keys: NDArray[np.int64]  # query * ids in all + number of the id
    rows: NDArray[np.int64]  # query
    ranks: NDArray[np.int64]
    shown: NDArray[np.float64]
    values: NDArray[np.float64] | None
    similarity: float


def _rank(given: _Given, codes: NDArray[np.int64], count: int) -> _Ranked:
    """Sort a list by score, drop padding and repeats, count places from 1."""
    width = codes.shape[-1]
    n = 1 if codes.ndim == 1 else len(codes)
    exist = given.exist.reshape(n, width)
    values = None if given.values is None else given.values.reshape(n, width)
    # padding last
    by = ~exist if values is None else np.where(exist, -values, np.inf)
    order = np.argsort(by, axis=1, kind="stable")
    order += np.arange(n)[:, None] * width
    order = order.ravel()[exist.ravel()[order.ravel()]]
    rows = order // max(1, width)
    keys = rows * count + codes.reshape(-1)[order]
    first = np.zeros(len(keys), np.bool_)
    first[np.unique(keys, return_index=True)[1]] = True
    order, rows, keys = order[first], rows[first], keys[first]
    starts = np.searchsorted(rows, np.arange(n))
    ranks = np.arange(1, len(rows) + 1) - starts[rows]
    kept = None if values is None else values.ravel()[order]
    return _Ranked(keys, rows, ranks, given.shown.ravel()[order], kept, given.similarity)


class _Table(NamedTuple):
    """All lists side by side: a column for each id of each query, a line for each list."""

    lists: list[_Ranked]
    places: list[NDArray[np.intp]]  # column of each entry of each list
    rows: NDArray[np.int64]  # query of each column
    codes: NDArray[np.int64]  # id of each column, by number

    @classmethod
    def of(cls, lists: list[_Ranked], count: int) -> _Table:
        """Find the column of every entry."""
        keys = np.unique(np.concatenate([item.keys for item in lists]))
        rows, codes = np.divmod(keys, max(1, count))
        return cls(lists, [np.searchsorted(keys, item.keys) for item in lists], rows, codes)

    def spread(self, parts: list[NDArray[Any]], missing: Any, dtype: Any) -> NDArray[Any]:
        """Return values of entries as lines of the table, `missing` where there is no entry."""
        table = np.full((len(self.lists), len(self.rows)), missing, dtype)
        for line, place, part in zip(table, self.places, parts, strict=True):
            line[place] = part
        return table

    def totals(
        self, method: str, weights: NDArray[np.float64], constant: float
    ) -> NDArray[np.float64]:
        """Return the fused score of each column."""
        lines = np.zeros((len(self.lists), len(self.rows)))
        for number, (item, place) in enumerate(zip(self.lists, self.places, strict=True)):
            line, weight = lines[number], weights[number]
            if method == "reciprocal":
                line[place] = weight / (constant + item.ranks)
            elif item.values is None:
                raise ValueError(
                    f"lists[{number}] scores: expected numbers for method {method!r}, got None"
                )
            elif method == "relative":
                line[place] = weight * _between_0_and_1(item)
            else:
                lowest = np.zeros(1 + int(self.rows.max(initial=0)))
                values = item.values + item.similarity
                np.minimum.at(lowest, item.rows, values)
                line[:] = weight * lowest[self.rows]
                line[place] = weight * values
        # Summed in order of size, so that what is equal on paper is equal here.
        lines.sort(axis=0)
        with np.errstate(over="ignore"):
            totals: NDArray[np.float64] = lines.sum(axis=0)
        if not np.isfinite(totals).all():
            raise ValueError("scores: expected sums within the range of float64")
        return totals


def _between_0_and_1(item: _Ranked) -> NDArray[np.float64]:
    """Return scores on the scale from the least to the greatest of their query."""
    assert item.values is not None
    if not len(item.rows):
        return item.values
    starts = np.flatnonzero(item.ranks == 1)
    which = np.cumsum(item.ranks == 1) - 1
    # halves, so that no difference is beyond float64
    values = item.values / 2
    high = values[starts][which]
    low = np.minimum.reduceat(values, starts)[which]
    span = high - low
    scaled = np.ones(len(values))
    np.divide(values - low, span, out=scaled, where=span > 0)
    return scaled


def _answer(
    found: _Table,
    totals: NDArray[np.float64],
    counted: NDArray[np.bool_],
    names: NDArray[Any],
    limit: int,
    batch: tuple[int, ...],
) -> FusedResult:
    """Sort the columns and bring them into the shape of the answer."""
    n = batch[0] if batch else 1
    ranks = found.spread([item.ranks for item in found.lists], -1, np.int64)
    scores = found.spread([item.shown for item in found.lists], np.nan, np.float64)
    never = np.iinfo(np.int64).max
    best = np.where((ranks > 0) & counted[:, None], ranks, never).min(axis=0)
    # a column of lists that do not count is behind all others, also behind a score of 0
    order = np.lexsort((found.codes, best, -totals, best == never, found.rows))
    rows = found.rows[order]
    place = np.arange(len(rows)) - np.searchsorted(rows, np.arange(n))[rows]
    order, rows, place = (part[place < limit] for part in (order, rows, place))
    width = 1 + int(place.max(initial=-1))
    texts = names.dtype == object
    ids = np.full((n, width), None if texts else -1, names.dtype)
    total = np.full((n, width), -np.inf)
    list_ranks = np.full((len(found.lists), n, width), -1, np.int64)
    list_scores = np.full((len(found.lists), n, width), np.nan)
    ids[rows, place] = names[found.codes[order]]
    total[rows, place] = totals[order]
    list_ranks[:, rows, place] = ranks[:, order]
    list_scores[:, rows, place] = scores[:, order]
    if batch:
        return FusedResult(ids, total, list_ranks, list_scores)
    return FusedResult(ids[0], total[0], list_ranks[:, 0], list_scores[:, 0])
