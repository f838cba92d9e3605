"""Sparse matrices of neighbours, as SciPy has them, for `sklearn`, which says what to install."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix

__all__ = ["both_ways", "symmetric_graph", "to_csr"]


def symmetric_graph(indices: ArrayLike, distances: ArrayLike) -> Any:
    """Make a symmetric CSR matrix of the neighbours of every row: those of either are of both.

    Parameters
    ----------
    indices, distances : array_like of shape (n, k)
        As `vicinal.knn_graph` gives them; -1 is left out.

    Returns
    -------
    csr_matrix of shape (n, n)
        Each row in order of distance; distances of 0 between equal rows are entries like others,
        which sums of sparse matrices would drop.
    """
    ids, far = np.asarray(indices), np.asarray(distances)
    there = ids >= 0
    rows = np.repeat(np.arange(len(ids)), there.sum(axis=1))
    return both_ways(rows, ids[there], far[there], len(ids))


def both_ways(starts: NDArray[Any], ends: NDArray[Any], distances: NDArray[Any], n: int) -> Any:
    """Make a symmetric CSR matrix of edges, each once however often it is given."""
    low, high = np.minimum(starts, ends), np.maximum(starts, ends)
    _, once = np.unique(low.astype(np.int64) * n + high, return_index=True)
    low, high, far = low[once], high[once], distances[once]
    apart = low != high
    rows = np.concatenate([low, high[apart]])
    columns = np.concatenate([high, low[apart]])
    data = np.concatenate([far, far[apart]])
    order = np.lexsort((columns, data, rows))
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n))])
    return _csr(data[order], columns[order], starts, (n, n))


def to_csr(ids: NDArray[np.int64], data: NDArray[Any], columns: int) -> Any:
    """Make a CSR matrix with the same number of entries in each row, in the order given."""
    n, k = ids.shape
    return _csr(data.ravel(), ids.ravel(), np.arange(n + 1) * k, (n, columns))


def _csr(data: NDArray[Any], columns: NDArray[Any], starts: NDArray[Any], shape: Any) -> Any:
    # by hand: anything else sorts the columns, or sums what stands there twice
    small = max(len(data), *shape) < 2**31
    kind = np.int32 if small else np.int64
    return csr_matrix((data, columns.astype(kind), starts.astype(kind)), shape=shape)
