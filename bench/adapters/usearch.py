"""usearch: `usearch.index.Index` with float32 rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .base import Adapter, Array


class Usearch(Adapter):
    """HNSW; the dtype is set, because the default depends on the processor."""

    distribution = "usearch"
    # Every call takes the first slot of the index's per-thread scratch.
    concurrent = False

    def _make(self) -> Any:
        from usearch.index import Index

        return Index(
            ndim=self.dim,
            metric={"l2": "l2sq", "ip": "ip", "cosine": "cos"}[self.metric],
            dtype="f32",
            connectivity=self.M,
            expansion_add=self.ef_construction,
        )

    def build(self, prepared: Any, threads: int) -> None:
        """Make the index and add all rows under their numbers."""
        self.index = self._make()
        self.index.add(np.arange(len(prepared)), prepared, threads=threads)

    def set_search(self, ef: int, threads: int) -> None:
        """Set the width on the index, keep the threads for the calls."""
        self.index.expansion_search = ef
        self.threads = threads

    def search_one(self, query: Any, k: int) -> Any:
        """Search on one thread."""
        return self.index.search(query, k, threads=1)

    def search_batch(self, queries: Array, k: int) -> Any:
        """Search with the threads that were set."""
        return self.index.search(queries, k, threads=self.threads)

    def ids(self, found: Any, k: int) -> Array:
        """Return the keys; a result shorter than k is filled up with -1."""
        keys = np.asarray(found.keys).astype(np.int64)
        keys = keys.reshape(-1, keys.shape[-1])
        padded = np.full((len(keys), k), -1, dtype=np.int64)
        padded[:, : keys.shape[1]] = keys
        return padded

    def save(self, path: Path) -> None:
        """Save to one file."""
        self.index.save(str(path))

    def open(self, path: Path, threads: int) -> None:
        """Map the file."""
        self.index = self._make()
        self.index.view(str(path))
