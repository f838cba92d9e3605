"""Documents of several vectors each: late interaction, candidates first, then exact MaxSim."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vicinal import _validate
from vicinal._compared import alike, as_compared, stored_present
from vicinal._float_queries import FloatQueries, as_queries
from vicinal._grouped import nearest_groups
from vicinal._kept_filter import prepare
from vicinal._labels import Labels
from vicinal._state import State
from vicinal._verbs import Call, width_of

__all__ = ["MultiResult", "search_multi"]

_CANDIDATES = 8  # documents for each one wanted that every token brings in
_LEAST = 64


class MultiResult(NamedTuple):
    """Documents that several vectors have found; also unpacks as `owners, scores = found`.

    Attributes
    ----------
    owners : ndarray of int64 (or of labels as objects), shape (k,) for one query, (n, k) for n
        Best first; -1 (or None) where there are fewer.
    scores : ndarray of float32, same shape
        MaxSim: for each vector of the query the largest similarity among the vectors of the
        document, added up. Minus infinity where there are fewer.
    """

    owners: NDArray[Any]
    scores: NDArray[np.float32]


def search_multi(
    index: State,
    tokens: Any,
    owners: Any,
    k: int,
    candidates: int | None,
    ef_search: int | None,
    exact: bool | None,
    filter: Any,
    num_threads: int | None,
) -> MultiResult:
    """See `Index.search_multi`."""
    single, parts, exact_parts, floats = _queries(index, tokens)
    k = _validate.whole_number(k, "k", 1, _validate.MAX_COUNT)
    wanted = min(max(_CANDIDATES * k, _LEAST), _validate.MAX_COUNT)
    if candidates is not None:
        wanted = _validate.whole_number(candidates, "candidates", 1, _validate.MAX_COUNT)
    labels = Labels(index, owners, "owners")
    wanted = max(1, min(wanted, len(index)))
    width = width_of(index, wanted, ef_search, None, exact)
    threads = _validate.thread_count(num_threads)
    kept = None if filter is None else prepare(index, filter, "filter")
    ends = np.cumsum([0, *map(len, parts)])
    rows = np.concatenate([np.empty((0, index._dim), _validate.query_dtype(index._dtype)), *parts])
    call = Call(index, rows, rows, width, threads, kept, name="tokens", floats=floats)
    found, far = nearest_groups(call.fetch, labels, len(rows), len(index), wanted, 1)
    allowed = None if kept is None else kept._of(labels.internal, None)
    _validate.room_for_results(len(parts), k, len(index))
    codes = np.full((len(parts), k), -1, np.int64)
    scores = np.full((len(parts), k), -np.inf, np.float32)
    for i in range(len(parts)):
        part = slice(ends[i], ends[i + 1])
        near = np.unique(labels.of(found[part][np.isfinite(far[part])]))
        best, score = _max_sim(index, labels, exact_parts[i], near, allowed, k)
        codes[i, : len(best)], scores[i, : len(best)] = best, score
    named = labels.values(codes, np.isfinite(scores))
    return MultiResult(named[0], scores[0]) if single else MultiResult(named, scores)


def _queries(
    index: State, tokens: Any
) -> tuple[bool, list[NDArray[Any]], list[NDArray[Any]], FloatQueries | None]:
    """Return whether it is one query, the vectors of each, and what they were rounded from."""
    several = isinstance(tokens, (list, tuple)) and any(np.ndim(item) == 2 for item in tokens)
    single = not several and np.ndim(tokens) != 3
    parts, exact, on_scale = [], [], []
    for item in [tokens] if single else tokens:
        rows, given, floats = as_queries(index, item, "tokens")
        if given.ndim != 2 or not len(rows):
            raise ValueError(
                f"tokens: expected (t, {index._dim}) with t from 1 for a query, got {given.shape}"
            )
        parts.append(rows)
        exact.append(rows if floats is None else _validate.as_numbers(item, "tokens"))
        on_scale.append(rows if floats is None else floats.given)
    lost = any(a is not b for a, b in zip(parts, exact, strict=True))
    return single, parts, exact, FloatQueries(index, np.concatenate(on_scale)) if lost else None


def _max_sim(
    index: State,
    labels: Labels,
    tokens: NDArray[Any],
    near: NDArray[np.int64],
    allowed: NDArray[np.bool_] | None,
    k: int,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the best k of some documents, numbers of labels, with their scores."""
    mask = labels.rows_with(near.tolist())
    internal = labels.internal[mask if allowed is None else mask & allowed]
    stored, present = stored_present(index, internal)
    internal, stored = internal[present], stored[present]
    if not len(internal):
        return np.empty(0, np.int64), np.empty(0, np.float32)
    codes = labels.of(internal)
    order = np.argsort(codes, kind="stable")
    codes = codes[order]
    vectors = as_compared(index, stored[order])
    asked = as_compared(index, tokens, queries=True)
    squares = np.einsum("ij,ij->i", vectors, vectors)[:, None]
    others = np.einsum("ij,ij->i", asked, asked)
    similar = alike(index._metric, vectors @ asked.T, squares, others)
    begins = np.flatnonzero(np.concatenate([[True], codes[1:] != codes[:-1]]))
    scores = np.maximum.reduceat(similar, begins, axis=0).sum(axis=1)
    best = np.argsort(-scores, kind="stable")[:k]
    return codes[begins][best], scores[best]
