"""hnswlib: the reference implementation of HNSW."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .base import Adapter, Array


class Hnswlib(Adapter):
    """`hnswlib.Index` with float32 rows; it normalises for cosine by itself."""

    distribution = "hnswlib"

    def __init__(self, *args: Any) -> None:
        import hnswlib

        super().__init__(*args)
        self.index = hnswlib.Index(space=self.metric, dim=self.dim)

    def build(self, prepared: Any, threads: int) -> None:
        """Reserve exactly the rows that come, then add them."""
        self.index.init_index(
            max_elements=len(prepared),
            M=self.M,
            ef_construction=self.ef_construction,
            random_seed=self.seed,
        )
        self.index.add_items(prepared, num_threads=threads)

    def set_search(self, ef: int, threads: int) -> None:
        """Set the width on the index, keep the threads for the calls."""
        self.index.set_ef(ef)
        self.threads = threads

    def search_one(self, query: Any, k: int) -> Any:
        """Search on one thread."""
        return self.index.knn_query(query, k, num_threads=1)

    def search_batch(self, queries: Array, k: int) -> Any:
        """Search with the threads that were set."""
        return self.index.knn_query(queries, k, num_threads=self.threads)

    def ids(self, found: Any, k: int) -> Array:
        """Return the first of (labels, distances)."""
        return super().ids(found[0], k)

    def save(self, path: Path) -> None:
        """Save to one file."""
        self.index.save_index(str(path))

    def open(self, path: Path, threads: int) -> None:
        """Read the whole file; hnswlib does not map."""
        self.index.load_index(str(path))
