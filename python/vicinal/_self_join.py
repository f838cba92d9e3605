"""The neighbours of all rows among themselves, without an index: see `mojo/vicinal/self_join`.

Rows meet in groups of rows that lie near one centre. A sample of rows, whose true neighbours are
looked up, tells when enough of them have been found; until then rows meet in other groups, and
those that have a neighbour in common meet each other.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vicinal import _kinds, _validate
from vicinal._cpu import native
from vicinal._logging import DEBUG, log
from vicinal._progress import Report
from vicinal.exact import exact_search

__all__ = ["can_join", "self_join", "without"]

METRICS = ("l2", "cosine")
MOST_DIM = 32768
MOST_K = 128
MOST_ROWS = 2**29
# Rows whose true neighbours are looked up: all pairs of these and all rows, so no more than needed.
SAMPLE = 256
# Groups that each row is in; for little recall fewer do.
OVERLAP = 4
OVERLAP_FOR_LITTLE = 2
LITTLE = 0.9
# Rows of a group, in roots of n, so that to compare rows with centres does not take longer than
# with each other; more of short rows, whose pairs take less time than to bring them together.
GROUP = 2.0
GROUP_BY_DIM = 448
SHORT = 128
LEAST_GROUP = 500
# Neighbours kept besides those wanted, since codes may have them in another order.
MORE = 8
# Neighbours of a row, and rows that it is a neighbour of, which are brought together.
TOGETHER = 10
MOST_STEPS = 40
# What three steps have to leave of what was missing, at most, or there will be no other.
PAYS = 0.8


def can_join(n: int, dim: int, k: int, metric: str, dtype: str) -> bool:
    """Tell whether `self_join` takes such rows."""
    fits = dim <= MOST_DIM and 1 <= k <= MOST_K and k + 1 < n <= MOST_ROWS
    return metric in METRICS and dtype != _kinds.PACKED and fits


def self_join(
    given: NDArray[Any],
    k: int,
    metric: str,
    dtype: str,
    recall: float,
    seed: int,
    threads: int,
    report: Report | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]] | None:
    """Find the k nearest others of every row.

    Parameters
    ----------
    given : ndarray of shape (n, dim)
        As the caller gave it; n above k.
    k : int
        At most MOST_K.
    metric : {"l2", "cosine"}
    dtype : str
        What rows are measured as; not packed bits.
    recall : float
        Share of the true neighbours to find, below 1.
    seed, threads : int
    report : callable, optional
        Told, in the last step, of the rows that are done.

    Returns
    -------
    (ids, distances) of shape (n, k), each row in order of distance, equal ones in order of rows.
    None if the share was not reached, as where no row is near another.
    """
    rows, _ = _validate.as_rows(given, "X", given.shape[1], dtype)
    codes = _kinds.native_codes(metric, dtype)
    n = len(rows)
    handle = native.join_new(*codes, rows, min(k + MORE, n - 1), threads)
    if isinstance(handle, int):
        _validate.refuse_rows(handle, "X", rows, given)
    sample = _Sample(rows, k, metric, dtype, threads)
    if not _reached(handle, codes, rows, sample, recall, seed, threads):
        return None
    order = np.empty(n, np.uint32)
    native.join_order(handle, order)
    ids = np.empty((n, k), np.int64)
    distances = np.empty((n, k), np.float32)
    native.join_take(handle, *codes, rows, order, order, threads, report, ids, distances)
    short = np.flatnonzero(ids[:, -1] < 0)  # of few rows that none is near
    if len(short):
        found = _exactly(rows, short, k, metric, dtype, threads)
        ids[short], distances[short] = found
    return ids, distances


class _Sample:
    """Some rows and their true neighbours."""

    def __init__(self, rows: NDArray[Any], k: int, metric: str, dtype: str, threads: int) -> None:
        n = len(rows)
        # this generator's stream is frozen: every release of NumPy draws the same
        chosen = np.random.RandomState(0).choice(n, min(SAMPLE, n), replace=False)
        self.rows = np.sort(chosen).astype(np.uint32)
        self.ids, self.distances = _exactly(rows, self.rows, k, metric, dtype, threads)

    def share(self, handle: Any, codes: tuple[int, int], rows: NDArray[Any], threads: int) -> float:
        """Return the share of their neighbours that has been found."""
        places = np.arange(len(self.rows), dtype=np.uint32)
        ids = np.empty_like(self.ids)
        distances = np.empty_like(self.distances)
        native.join_take(handle, *codes, rows, self.rows, places, threads, None, ids, distances)
        # of equal rows any will do
        near = (distances <= self.distances[:, -1:]) & (ids >= 0)
        near |= (ids[:, :, None] == self.ids[:, None, :]).any(axis=2)
        return float(near.mean())


def _reached(
    handle: Any,
    codes: tuple[int, int],
    rows: NDArray[Any],
    sample: _Sample,
    recall: float,
    seed: int,
    threads: int,
) -> bool:
    """Take steps until the share is reached; False if it will not be for less than all pairs."""
    n = len(rows)
    k = sample.ids.shape[1]
    roots = GROUP + GROUP_BY_DIM / max(SHORT, rows.shape[1])
    wanted = max(LEAST_GROUP, 4 * (k + MORE), round(roots * math.sqrt(n)))
    overlap = OVERLAP_FOR_LITTLE if recall < LITTLE else OVERLAP
    # a sample may be lucky by about a fifth of what is missed
    aim = recall + (1 - recall) / 5
    missed = [1.0]
    for step in range(MOST_STEPS):
        if step >= 2 and step % 3 != 1:
            native.join_neighbours(handle, TOGETHER, threads)
        else:
            native.join_groups(handle, wanted, overlap, (seed + step) % 2**63, threads)
        share = sample.share(handle, codes, rows, threads)
        pairs = native.join_pairs(handle)
        log(DEBUG, "knn_graph: step %d, %d pairs, share %.4f", step, pairs, share)
        if share >= aim:
            return True
        missed.append(1 - share)
        if (step > 2 and missed[-1] > PAYS * missed[-4]) or pairs > n * (n - 1) // 2:
            return False
    return False


def _exactly(
    rows: NDArray[Any],
    chosen: NDArray[Any],
    k: int,
    metric: str,
    dtype: str,
    threads: int,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the nearest others of some rows, all rows measured."""
    bits = "bfloat16" if dtype == "bfloat16" else None
    found = exact_search(rows, rows[chosen], k + 1, metric, num_threads=threads, dtype=bits)
    return without(found.ids, found.distances, chosen)


def without(
    ids: NDArray[np.int64], distances: NDArray[np.float32], own: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Take out the row itself of what each row found, or the last where it was not found.

    `own` are the rows. One column is less. Where many rows are equal, or a walk went by it, a row
    need not find itself.
    """
    n, width = ids.shape
    keep = ids != own[:, None]
    keep[keep.all(axis=1), -1] = False
    return ids[keep].reshape(n, width - 1), distances[keep].reshape(n, width - 1)
