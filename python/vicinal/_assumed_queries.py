"""Queries made of stored rows, for measuring recall where nobody has given any."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vicinal import _kinds, _validate
from vicinal._cpu import native
from vicinal._search import read_vectors
from vicinal._state import STRING_NUMBERS, State

__all__ = ["draw", "moved_away", "stored_rows"]

_MOVE_TO, _MOVE_WIDTH = 10, 64  # how far assumed queries are from rows; the search for that
_LARGEST_SQUARE = 1e37  # squared length of a query that certainly is taken


def draw(count: int, sample: int) -> NDArray[np.int64]:
    """Draw `sample` of the numbers below `count` without repetition, always the same, ascending."""
    if sample >= count:
        return np.arange(count)
    if 2 * sample > count:
        chosen = np.ones(count, bool)
        chosen[draw(count, count - sample)] = False
        return np.flatnonzero(chosen)
    # this generator's stream is frozen: every release of NumPy draws the same
    drawn = np.random.RandomState(0).randint(0, count, 4 * sample + 64, dtype=np.int64)
    _, first = np.unique(drawn, return_index=True)
    return np.sort(drawn[np.sort(first)[:sample]])


def stored_rows(index: State, sample: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return some stored rows as queries, and their internal ids."""
    while True:
        ids = index._internal_ids()
        own = np.ascontiguousarray(ids[draw(len(ids), sample)])
        vectors, unknown = read_vectors(index, own)
        if unknown < 0:  # none was removed between the two
            break
    return _validate.as_rows(vectors, "queries", index._dim, index._dtype, queries=True)[0], own


def moved_away(index: State, rows: NDArray[Any], threads: int) -> NDArray[Any]:
    """Return queries like those that users have, made of stored rows.

    A stored row is found more easily than the neighbours of a query that is none: links lead to
    it, and on to its neighbours. So each row is moved by its distance to the 10th neighbour, in
    the direction from one stored row to another, in which the rows vary.
    `docs/measurements/recall.md` has what that gives on real sets.
    """
    n, k = len(rows), min(_MOVE_TO + 1, len(index))
    ids, distances = np.empty((n, k), np.int64), np.empty((n, k), np.float32)
    status = native.index_search(index._handle, rows, k, _MOVE_WIDTH, threads, ids, distances)
    if status and status != STRING_NUMBERS:
        _validate.refuse_rows(status, "queries", rows, rows)
    last = np.take_along_axis(ids, np.isfinite(distances).sum(axis=1)[:, None] - 1, axis=1)
    neighbours, unknown = read_vectors(index, np.ascontiguousarray(last[:, 0]))
    if unknown >= 0:
        raise RuntimeError("index: it has changed while it was tuned")
    ends = _validate.as_rows(neighbours, "queries", index._dim, index._dtype, queries=True)[0]
    if index._dtype == _kinds.PACKED:
        return _bits_turned(rows, ends)
    here, there = rows.astype(np.float64), ends.astype(np.float64)
    # two orders of the sample, always the same: the direction of row i is from one to the other
    order = np.random.RandomState(1).permutation(n)
    direction = here[np.roll(order, 1)] - here[order]
    length = np.linalg.norm(direction, axis=1, keepdims=True)
    far = np.linalg.norm(there - here, axis=1, keepdims=True)
    moved = here + direction * np.divide(far, length, out=np.zeros_like(far), where=length > 0)
    if rows.dtype.kind in "iu":
        limits = np.iinfo(rows.dtype)
        moved = np.clip(np.rint(moved), limits.min, limits.max)
    # where that is no query, the row is one
    squares = (moved * moved).sum(axis=1)
    usable = (squares < _LARGEST_SQUARE) & ((squares > 0) | (index._metric != "cosine"))
    return np.where(usable[:, None], moved, here).astype(rows.dtype)


def _bits_turned(rows: NDArray[np.uint8], ends: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return rows of packed bits moved as far as `ends` are, towards other rows of the sample."""
    here, there = np.unpackbits(rows, axis=1), np.unpackbits(ends, axis=1)
    drawn = np.random.RandomState(1)
    others = here[drawn.permutation(len(rows))]
    for bits, end, other in zip(here, there, others, strict=True):
        apart = drawn.permutation(np.flatnonzero(bits != other))
        bits[apart[: int((bits != end).sum())]] ^= 1
    return np.packbits(here, axis=1)
