"""Recall: how many of the true neighbours a search has found."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from vicinal import _validate

__all__ = ["recall_at_k"]

_PAIRS = 1 << 22  # pairs of ids compared at a time: a few MB


def recall_at_k(found_ids: ArrayLike, true_ids: ArrayLike) -> float:
    """Return the mean share of the true first k neighbours that were found.

    Parameters
    ----------
    found_ids : array_like of int, shape (k,) or (n, k)
        What a search found for one query or for each of n; the order within a query does not
        matter, repeated ids count once.
    true_ids : array_like of int, shape (m,) or (n, m) with m >= k
        True neighbours, nearest first, as `exact_search` returns them. The first k count.

    Returns
    -------
    float
        From 0 to 1. -1 stands for no neighbour in both arguments and never counts: where fewer than
        k true neighbours exist the share is of those, and a query without any is left out.

    Raises
    ------
    TypeError
        If the ids are not integers.
    ValueError
        If the shapes do not go together, or no query has a true neighbour.

    Notes
    -----
    Ids are compared, not distances: where several rows tie with the k-th neighbour, a search may
    rightly find another one than `true_ids` names.

    Safe from many threads at once.

    Examples
    --------
    >>> from vicinal import recall_at_k
    >>> recall_at_k([[1, 2], [7, 4]], [[2, 1, 9], [4, 5, 6]])
    0.75
    """
    found = _validate.as_ids(found_ids, "found_ids")
    true = _validate.as_ids(true_ids, "true_ids")
    for ids, name in ((found, "found_ids"), (true, "true_ids")):
        if ids.ndim not in (1, 2) or ids.shape[-1] == 0:
            raise ValueError(f"{name}: expected (k,) or (n, k) with k >= 1, got {ids.shape}")
    k = found.shape[-1]
    if true.shape[:-1] != found.shape[:-1] or true.shape[-1] < k:
        wanted = f"({', '.join(map(str, (*found.shape[:-1], f'{k} or more')))})"
        raise ValueError(
            f"true_ids: expected {wanted} for found_ids of shape {found.shape}, got {true.shape}"
        )
    found = found.reshape(-1, k)
    true = true.reshape(len(found), -1)[:, :k]
    exists = true != -1
    wanted_count = exists.sum(axis=1)
    asked = wanted_count > 0
    if not asked.any():
        raise ValueError("true_ids: expected at least one true neighbour, got none but -1")
    hits = np.zeros(len(found), np.int64)
    step = max(1, _PAIRS // (k * k))
    for start in range(0, len(found), step):
        part = slice(start, start + step)
        same = (true[part, :, None] == found[part, None, :]).any(axis=2)
        hits[part] = (same & exists[part]).sum(axis=1)
    return float((hits[asked] / wanted_count[asked]).mean())
