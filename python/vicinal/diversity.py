"""Maximal marginal relevance: results that are near the query and unlike each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vicinal import _validate, _verbs
from vicinal._compared import alike, as_compared, stored_present
from vicinal._float_queries import as_queries
from vicinal.index import Index
from vicinal.result import SearchResult

if TYPE_CHECKING:
    from vicinal.index import Filters

__all__ = ["mmr"]

_AT_ONCE = 1 << 24  # values of vectors held at a time: 64 MB
_CANDIDATES = 5  # for each neighbour wanted


def mmr(
    index: Index,
    queries: ArrayLike,
    k: int = 10,
    *,
    diversity: float = 0.5,
    candidates: int | None = None,
    ef_search: int | None = None,
    filter: Filters = None,
    exclude: Filters = None,
    exact: bool | None = None,
    num_threads: int | None = None,
) -> SearchResult:
    """Find k rows for each query that are near it and unlike each other.

    Parameters
    ----------
    index : Index
        Where to search.
    queries : array_like of shape (dim,) or (n, dim)
        As `Index.search` takes them.
    k : int
        Rows wanted, at least 1.
    diversity : float
        How much it counts to be unlike those chosen before, 0 to 1: 0 gives the k nearest.
    candidates : int, optional
        Nearest rows to choose from, at least k; 5 k by default.
    ef_search, filter, exclude, exact, num_threads
        As for `Index.search`, which finds the candidates.

    Returns
    -------
    SearchResult
        `ids` and `distances` **in the order in which they were chosen**, which is not that of
        distance; the first is the nearest. Shape (k,) for one query, (n, k) for n; -1 and infinity
        where there are fewer.

    Raises
    ------
    TypeError, ValueError
        As `Index.search`; also if `diversity` or `candidates` are out of range.

    Notes
    -----
    Each time the candidate is chosen for which ::

        (1 - diversity) * similarity(query) - diversity * max(similarity(chosen))

    is largest, of equal ones the nearest. Similarities are the cosine for "cosine", the inner
    product for "ip", less the Euclidean distance for "l2" and "hamming", and for "jaccard" 1 less
    the distance; those of rows are of the vectors as
    stored, and all of them estimates with `keep_vectors=False`.
    Takes k times `candidates` distances for each query besides the search.

    Source: Carbonell and Goldstein, "The use of MMR, diversity-based reranking", SIGIR 1998.
    Threads: safe at any time; a row that is removed meanwhile is not chosen.

    Examples
    --------
    >>> import vicinal
    >>> index = vicinal.Index(2)
    >>> _ = index.add([[0, 1], [0, 1.1], [1.5, 0]])
    >>> index.search([0.1, 0.1], k=2).ids, vicinal.mmr(index, [0.1, 0.1], k=2).ids
    (array([0, 1]), array([0, 2]))
    """
    if not isinstance(index, Index):
        raise TypeError(f"index: expected an Index, got {type(index).__name__}")
    k = _validate.whole_number(k, "k", 1, _validate.MAX_COUNT)
    weight = _validate.real_number(diversity, "diversity")
    if not 0 <= weight <= 1:
        raise ValueError(f"diversity: expected a number from 0 to 1, got {diversity}")
    wanted = min(_CANDIDATES * k, _validate.MAX_COUNT)
    if candidates is not None:
        wanted = _validate.whole_number(candidates, "candidates", k, _validate.MAX_COUNT)
    rows, given, floats = as_queries(index, queries)
    n = len(rows)
    _validate.room_for_results(n, k, len(index))
    wanted = max(1, min(wanted, len(index)))
    width = _verbs.width_of(index, wanted, ef_search, None, exact)
    threads = 1 if num_threads is None and n == 1 else _validate.thread_count(num_threads)
    call = _verbs.Call(index, rows, given, width, threads, filter, exclude, floats=floats)
    ids, distances = np.full((n, k), -1, np.int64), np.full((n, k), np.inf, np.float32)
    step = max(1, _AT_ONCE // (wanted * index._dim))
    for start in range(0, n, step):
        asked = np.arange(start, min(n, start + step))
        found, far = call.fetch(asked, wanted, None)
        chosen = _chosen(index, found, far, k, weight)
        best = np.take_along_axis(far, chosen, axis=1)
        there = np.isfinite(best)
        part = (asked, slice(0, chosen.shape[1]))
        ids[part] = np.where(there, np.take_along_axis(found, chosen, axis=1), -1)
        distances[part] = best
    if given.ndim == 1:
        ids, distances = ids[0], distances[0]
    return index._result(index._to_external(ids), distances)


def _chosen(
    index: Index, ids: NDArray[np.int64], far: NDArray[np.float32], k: int, weight: float
) -> NDArray[np.int64]:
    """Return the places of the candidates chosen, (n, min(k, candidates)).

    Rows that are gone get a distance of infinity in `far`.
    """
    n, m = ids.shape
    stored, present = stored_present(index, ids.reshape(-1))
    far[~present.reshape(n, m)] = np.inf
    vectors = as_compared(index, stored).reshape(n, m, -1)
    open_ = np.isfinite(far)
    near = _alike_query(index, far)
    closest = np.full((n, m), -np.inf, np.float32)
    squares = np.einsum("nmd,nmd->nm", vectors, vectors)
    places = np.empty((n, min(k, m)), np.int64)
    every = np.arange(n)
    for j in range(places.shape[1]):
        score = (1 - weight) * near
        if j:
            score = score - weight * closest
        # of rows that are taken or not there, one that is not there
        score = np.where(open_, score, np.where(np.isfinite(far), -np.inf, np.float32(-1e38)))
        place = places[:, j] = np.argmax(score, axis=1)
        open_[every, place] = False
        last = vectors[every, place]
        products = np.einsum("nmd,nd->nm", vectors, last)
        similar = alike(index._metric, products, squares, squares[every, place][:, None])
        if index._metric in ("l2", "hamming"):
            similar = -np.sqrt(np.maximum(-similar, 0))
        np.maximum(closest, similar, out=closest)
    return places


def _alike_query(index: Index, far: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return similarities to the query, on the scale of those among rows; 0 where there is none."""
    known = np.where(np.isfinite(far), far, np.float32(0))
    similar: NDArray[np.float32] = 1 - known
    if index._metric in ("l2", "hamming"):
        similar = -np.sqrt(np.maximum(known, 0))
    return similar
