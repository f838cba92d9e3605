"""Searches for the nearest groups of rows: the best of k documents when each has many parts.

More rows are asked for until there are enough groups, then rows of groups that are found are left
out, so that one group of many rows cannot stand before all others: as long as there are k groups
among the rows allowed, k are found.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vicinal._labels import Codes, Labels

__all__ = ["Fetch", "nearest_groups"]

Ids = NDArray[np.int64]
Distances = NDArray[np.float32]
# queries, k and a mask of rows in order, or None for all -> internal ids and distances (n, k)
Fetch = Callable[[NDArray[np.int64], int, NDArray[np.bool_] | None], tuple[Ids, Distances]]

_GROWTH = 4  # so many times the rows are asked for where there were too few groups
_MOST_ROWS = 4096  # after that, groups that were found are left out
_AT_ONCE = 1 << 21  # rows found at a time: some tens of MB


def nearest_groups(
    fetch: Fetch, labels: Labels, queries: int, rows: int, k: int, per_group: int
) -> tuple[Ids, Distances]:
    """Return the best `per_group` rows of the k nearest groups of each query.

    Parameters
    ----------
    fetch : callable
        Searches for some of the queries.
    labels : Labels
        Which group a row is in.
    queries, rows : int
        How many there are.
    k, per_group : int
        Groups, and rows of each.

    Returns
    -------
    ids, distances : ndarray of shape (queries, k * per_group)
        Nearest first, then -1 and infinity.
    """
    shape = (queries, k * per_group)
    ids, distances = np.full(shape, -1, np.int64), np.full(shape, np.inf, np.float32)
    if rows == 0:
        return ids, distances
    first = min(2 * k * per_group, rows)
    step = max(1, _AT_ONCE // first)
    for start in range(0, queries, step):
        asked = np.arange(start, min(queries, start + step))
        count = first
        while len(asked):
            part = max(1, _AT_ONCE // count)
            left = [
                _look(fetch, labels, asked[i : i + part], count, rows, k, per_group, ids, distances)
                for i in range(0, len(asked), part)
            ]
            asked = np.concatenate(left)
            if count >= _MOST_ROWS or count >= rows:
                for query in asked.tolist():
                    ids[query], distances[query] = _one_by_one(
                        fetch, labels, query, count, k, per_group
                    )
                break
            count = min(count * _GROWTH, rows)
    return ids, distances


def places_in_groups(codes: Codes, valid: NDArray[np.bool_]) -> tuple[Codes, Codes, Codes]:
    """Tell where each row found stands among the groups.

    Parameters
    ----------
    codes : ndarray of shape (n, m)
        Which group each row is in, nearest row first.
    valid : ndarray of bool, same shape
        False where there is no row; such places are last.

    Returns
    -------
    group, place : ndarray of shape (n, m)
        The group's number, 0 for the nearest, and the row's in its group, 0 for the nearest.
    groups : ndarray of shape (n,)
        Groups found.
    """
    n, m = codes.shape
    _, dense = np.unique(codes, return_inverse=True)
    dense = np.where(valid, dense.reshape(n, m), -1)
    order = np.argsort(dense, axis=1, kind="stable")
    in_order = np.take_along_axis(dense, order, axis=1)
    begins = np.ones((n, m), bool)
    begins[:, 1:] = in_order[:, 1:] != in_order[:, :-1]
    begin = np.maximum.accumulate(np.where(begins, np.arange(m), 0), axis=1)
    place, leader = np.empty((n, m), np.int64), np.empty((n, m), np.int64)
    np.put_along_axis(place, order, np.arange(m) - begin, axis=1)
    np.put_along_axis(leader, order, np.take_along_axis(order, begin, axis=1), axis=1)
    leads = valid & (place == 0)
    number = np.cumsum(leads, axis=1) - 1
    return np.take_along_axis(number, leader, axis=1), place, leads.sum(axis=1)


def _look(
    fetch: Fetch,
    labels: Labels,
    asked: NDArray[np.int64],
    count: int,
    rows: int,
    k: int,
    per_group: int,
    ids: Ids,
    distances: Distances,
) -> NDArray[np.int64]:
    """Answer those queries whose nearest `count` rows are enough; returns the others."""
    found, far = fetch(asked, count, None)
    valid = np.isfinite(far)
    codes = labels.of(found)
    group, place, groups = places_in_groups(codes, valid)
    all_seen = ~valid[:, -1] | (count >= rows)
    chosen = valid & (group < k)
    keep = chosen & (place < per_group)
    done = all_seen | (groups >= k)
    # nearest first: what is kept moves to the front
    order = np.argsort(~keep, axis=1, kind="stable")[:, : ids.shape[1]]
    kept = np.take_along_axis(keep, order, axis=1)
    ended = asked[done]
    columns = order.shape[1]
    ids[ended, :columns] = np.where(kept, np.take_along_axis(found, order, axis=1), -1)[done]
    nearest = np.where(kept, np.take_along_axis(far, order, axis=1), np.float32(np.inf))
    distances[ended, :columns] = nearest[done]
    if per_group > 1:
        for i in np.flatnonzero(done & ~all_seen).tolist():
            short = _short(codes[i], chosen[i], per_group)
            if short:
                query = int(asked[i])
                _complete(fetch, labels, query, short, per_group, ids[query], distances[query])
    rest: NDArray[np.int64] = asked[~done]
    return rest


def _short(codes: Codes, chosen: NDArray[np.bool_], per_group: int) -> list[int]:
    """Return the chosen groups of which fewer rows were found than are wanted."""
    groups, counts = np.unique(codes[chosen], return_counts=True)
    return [int(code) for code in groups[counts < per_group]]


def _complete(
    fetch: Fetch,
    labels: Labels,
    query: int,
    short: list[int],
    per_group: int,
    ids: Ids,
    distances: Distances,
) -> None:
    """Put the best rows of some groups in place of those that were found on the way."""
    have = np.isfinite(distances)
    old = have & ~np.isin(labels.of(ids), short)
    best, far = [ids[old]], [distances[old]]
    for code in short:
        found, near = fetch(np.array([query]), per_group, labels.rows_with([code]))
        there = np.isfinite(near[0])
        best.append(found[0][there])
        far.append(near[0][there])
    _write(np.concatenate(best), np.concatenate(far), ids, distances)


def _one_by_one(
    fetch: Fetch, labels: Labels, query: int, count: int, k: int, per_group: int
) -> tuple[Ids, Distances]:
    """Find the groups of one query, leaving out those that it has found."""
    asked = np.array([query])
    groups: list[int] = []
    allowed = None
    while len(groups) < k:
        found, far = fetch(asked, count, allowed)
        there = np.isfinite(far[0])
        codes = labels.of(found[0][there])
        new = list(dict.fromkeys(codes.tolist()))
        groups += [code for code in new if code not in groups]
        if not there.all() or not new:
            break
        allowed = ~labels.rows_with(groups)
    ids = np.full(k * per_group, -1, np.int64)
    distances = np.full(k * per_group, np.inf, np.float32)
    _complete(fetch, labels, query, groups[:k], per_group, ids, distances)
    return ids, distances


def _write(found: Ids, far: Distances, ids: Ids, distances: Distances) -> None:
    """Fill one query's results, nearest first."""
    order = np.argsort(far, kind="stable")
    ids[:], distances[:] = -1, np.inf
    ids[: len(order)], distances[: len(order)] = found[order], far[order]
