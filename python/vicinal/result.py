"""What a search returns."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["SearchResult"]


class SearchResult(NamedTuple):
    """Neighbours of one query or of many; also unpacks as `ids, distances = found`.

    Attributes
    ----------
    ids : ndarray of int64 (or of str as objects), shape (k,) for one query, (n, k) for n
        Nearest first; -1 where there are fewer than k. Of an index with string ids an object array
        of str, with None where there are fewer.
    distances : ndarray of float32, same shape
        Distances of `ids`; infinity where there are fewer than k.
    """

    ids: NDArray[Any]
    distances: NDArray[np.float32]
