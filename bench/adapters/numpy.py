"""Exact search with NumPy: the recall of 1 that the others are measured against."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .base import Adapter, Array, normalised

BLOCK = 64  # queries at once; measured: larger scores leave the cache, smaller starve the product


class NumpyExact(Adapter):
    """A matrix product and `argpartition`; threadpoolctl, if installed, sets BLAS's threads."""

    distribution = "numpy"
    uses_ef = False

    def prepare(self, base: Array) -> Array:
        """Normalise for cosine."""
        return normalised(base) if self.metric == "cosine" else base

    def build(self, prepared: Any, threads: int) -> None:
        """Keep the rows and what of the distance does not depend on the query."""
        self.base = prepared
        self.offset = (prepared**2).sum(axis=1) if self.metric == "l2" else np.float32(0)

    def set_search(self, ef: int, threads: int) -> None:
        """Limit the threads of BLAS; there is no search width."""
        try:
            from threadpoolctl import threadpool_limits
        except ImportError:
            return
        threadpool_limits(threads)

    def search_one(self, query: Any, k: int) -> Any:
        """Score all rows for one query."""
        return self.search_batch(query[None], k)

    def search_batch(self, queries: Array, k: int) -> Any:
        """Score all rows in blocks of queries."""
        factor = np.float32(-2 if self.metric == "l2" else -1)
        k = min(k, len(self.base))
        found = np.empty((len(queries), k), dtype=np.int64)
        for start in range(0, len(queries), BLOCK):
            scores = queries[start : start + BLOCK] @ self.base.T
            scores *= factor
            scores += self.offset
            near = np.argpartition(scores, k - 1, axis=1)[:, :k]
            order = np.argsort(np.take_along_axis(scores, near, axis=1), axis=1)
            found[start : start + BLOCK] = np.take_along_axis(near, order, axis=1)
        return found

    def save(self, path: Path) -> None:
        """Save the rows."""
        with path.open("wb") as file:
            np.save(file, self.base)

    def open(self, path: Path, threads: int) -> None:
        """Map the rows; the norms are computed when they are wanted."""
        self.build(np.load(path, mmap_mode="r"), threads)
