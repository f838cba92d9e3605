"""Documents of several vectors each: late interaction, candidates first, then exact MaxSim."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vicinal import _kinds, _validate
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
_FIRST = 16  # documents measured at first, and twice k
_ROUNDING = 1e-5


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
    rows = np.concatenate([np.empty((0, index._dim), _kinds.query_dtype(index._dtype)), *parts])
    call = Call(index, rows, rows, width, threads, kept, name="tokens", floats=floats)
    found, far = nearest_groups(call.fetch, labels, len(rows), len(index), wanted, 1)
    allowed = None if kept is None else kept._of(labels.internal, None)
    _validate.room_for_results(len(parts), k, len(index))
    codes = np.full((len(parts), k), -1, np.int64)
    scores = np.full((len(parts), k), -np.inf, np.float32)
    for i in range(len(parts)):
        part = slice(ends[i], ends[i + 1])
        near, most = _candidates(index, labels, found[part], far[part])
        best, score = _max_sim(index, labels, exact_parts[i], near, most, allowed, k)
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


def _candidates(
    index: State, labels: Labels, found: NDArray[np.int64], far: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the documents that some vector has found, and what each can score at most.

    Most first. By each vector a document scores what was found of it, or if it was not found no
    more than the last that was.
    """
    there = np.isfinite(far)
    similar = np.where(there, similarity(far, index._metric), np.inf).astype(np.float64)
    last = np.where(there.any(axis=1), similar.min(axis=1, initial=np.inf), 0)
    near, at = np.unique(labels.of(found[there]), return_inverse=True)
    more = (similar - last[:, None])[there]
    most = last.sum() + np.bincount(at.reshape(-1), more, minlength=len(near))
    known = near >= 0  # others were removed meanwhile
    order = np.argsort(-most[known], kind="stable")
    return near[known][order], most[known][order]


def similarity(far: NDArray[np.float32], metric: str) -> NDArray[np.float32]:
    """Return what `_compared.alike` gives of distances."""
    return -far if metric in ("l2", "hamming") else 1 - far


def _max_sim(
    index: State,
    labels: Labels,
    tokens: NDArray[Any],
    near: NDArray[np.int64],
    most: NDArray[np.float64],
    allowed: NDArray[np.bool_] | None,
    k: int,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the best k of some documents, numbers of labels, with their scores.

    Documents are measured in the order of what they can score at most, until k have more than all
    that are left (the threshold algorithm of Fagin, Lotem and Naor, PODS 2001).
    """
    mask = labels.rows_with(near.tolist())
    internal = labels.internal[mask if allowed is None else mask & allowed]
    codes = labels.of(internal)
    order = np.argsort(codes, kind="stable")
    internal, codes = internal[order], codes[order]
    begins = np.searchsorted(codes, near)
    ends = np.searchsorted(codes, near, side="right")
    asked = as_compared(index, tokens, queries=True)
    best, scores = np.empty(0, np.int64), np.empty(0, np.float32)
    done, count = 0, 2 * k + _FIRST
    while done < len(near):
        if len(scores) == k and scores[-1] > most[done] + _ROUNDING * (1 + abs(most[done])):
            break
        part = slice(done, done + count)
        sizes = ends[part] - begins[part]
        rows = np.repeat(begins[part] - np.cumsum(sizes) + sizes, sizes) + np.arange(sizes.sum())
        more, score = _scores(index, internal[rows], codes[rows], asked)
        best, scores = np.concatenate([best, more]), np.concatenate([scores, score])
        order = np.lexsort((best, -scores))[:k]
        best, scores = best[order], scores[order]
        done, count = done + count, 2 * count
    return best, scores


def _scores(
    index: State, internal: NDArray[np.int64], codes: NDArray[np.int64], asked: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the documents of rows, whose `codes` stand together, and their exact scores."""
    stored, present = stored_present(index, internal)
    if not present.all():
        stored, codes = stored[present], codes[present]
    if not len(codes):
        return np.empty(0, np.int64), np.empty(0, np.float32)
    vectors = as_compared(index, stored)
    squares = others = np.empty(0)
    if index._metric not in ("cosine", "ip"):
        squares = np.einsum("ij,ij->i", vectors, vectors)[:, None]
        others = np.einsum("ij,ij->i", asked, asked)
    similar = alike(index._metric, vectors @ asked.T, squares, others)
    begins = np.flatnonzero(np.concatenate([[True], codes[1:] != codes[:-1]]))
    return codes[begins], np.maximum.reduceat(similar, begins, axis=0).sum(axis=1)
