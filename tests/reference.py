"""Slow and obvious: distances and nearest neighbours in float64, for fast paths to be held to."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = np.ndarray[Any, np.dtype[Any]]


def jaccard(base: Array, queries: Array) -> NDArray[np.float64]:
    """Return the Jaccard distances of rows of packed bits, (m, n); 0 where neither has any bit."""
    result = np.empty((len(queries), len(base)))
    for q, query in enumerate(queries):
        different = np.unpackbits(base ^ query, axis=1).sum(axis=1)
        either = np.unpackbits(base | query, axis=1).sum(axis=1)
        result[q] = different / np.maximum(either, 1)
    return result


def distances(base: Array, queries: Array, metric: str) -> NDArray[np.float64]:
    """Return the distance of every query to every row, (m, n), as the library defines it.

    "l2" is squared Euclidean, "ip" is 1 - dot, "cosine" is 1 - cosine. Values are taken as they
    are; sums of 8-bit integers are exact.
    """
    rows = base.astype(np.float64)
    result = np.empty((len(queries), len(base)))
    for q, query in enumerate(queries.astype(np.float64)):
        if metric == "l2":
            result[q] = ((rows - query) ** 2).sum(axis=1)
        elif metric == "ip":
            result[q] = 1 - (rows * query).sum(axis=1)
        else:
            lengths = np.sqrt((rows**2).sum(axis=1)) * np.sqrt((query**2).sum())
            result[q] = 1 - (rows * query).sum(axis=1) / lengths
    return result


def nearest(
    base: Array, queries: Array, k: int, metric: str
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return ids and distances of the k nearest rows, equal distances in order of row.

    Where there are fewer than k rows, ids are -1 and distances infinite.
    """
    every = distances(base, queries, metric)
    ids = np.full((len(queries), k), -1, np.int64)
    values = np.full((len(queries), k), np.inf)
    found = min(k, len(base))
    ids[:, :found] = np.argsort(every, axis=1, kind="stable")[:, :found]
    values[:, :found] = np.take_along_axis(every, ids[:, :found], axis=1)
    return ids, values
