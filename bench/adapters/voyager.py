"""voyager: Spotify's HNSW, with float32 storage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .base import Adapter, Array


class Voyager(Adapter):
    """`voyager.Index`; it normalises for cosine by itself."""

    distribution = "voyager"

    def __init__(self, *args: Any) -> None:
        import voyager

        super().__init__(*args)
        self.library = voyager

    def build(self, prepared: Any, threads: int) -> None:
        """Reserve exactly the rows that come, then add them."""
        space = self.library.Space
        self.index = self.library.Index(
            {"l2": space.Euclidean, "ip": space.InnerProduct, "cosine": space.Cosine}[self.metric],
            num_dimensions=self.dim,
            M=self.M,
            ef_construction=self.ef_construction,
            random_seed=max(self.seed, 1),
            max_elements=len(prepared),
            storage_data_type=self.library.StorageDataType.Float32,
        )
        self.index.add_items(prepared, num_threads=threads)

    def set_search(self, ef: int, threads: int) -> None:
        """Keep both for the calls: they are arguments of `query`."""
        self.ef, self.threads = ef, threads

    def search_one(self, query: Any, k: int) -> Any:
        """Search on one thread."""
        return self.index.query(query, k, num_threads=1, query_ef=self.ef)

    def search_batch(self, queries: Array, k: int) -> Any:
        """Search with the threads that were set."""
        return self.index.query(queries, k, num_threads=self.threads, query_ef=self.ef)

    def ids(self, found: Any, k: int) -> Array:
        """Return the first of (ids, distances)."""
        return super().ids(found[0], k)

    def save(self, path: Path) -> None:
        """Save to one file."""
        self.index.save(str(path))

    def open(self, path: Path, threads: int) -> None:
        """Read the whole file; voyager does not map."""
        self.index = self.library.Index.load(str(path))
