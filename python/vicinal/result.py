"""What a search returns."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["SearchResult"]


class SearchResult(NamedTuple):
    """Neighbours of one query or of many; also unpacks as `ids, distances = found`.

    Attributes
    ----------
    ids : ndarray of int64, shape (k,) for one query, (n, k) for n
        Nearest first; -1 where there are fewer than k.
    distances : ndarray of float32, same shape
        Distances of `ids`; infinity where there are fewer than k.
    """

    ids: NDArray[np.int64]
    distances: NDArray[np.float32]
