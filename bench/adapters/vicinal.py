"""Our own index, float32 rows unless the name of the variant says otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .base import Adapter, Array


class Vicinal(Adapter):
    """`vicinal.Index`; every option of a variant is handed to its constructor."""

    distribution = "vicinal"

    def __init__(self, *args: Any, **options: Any) -> None:
        import vicinal

        super().__init__(*args)
        self.library = vicinal
        self.options = {name: None if value == "none" else value for name, value in options.items()}
        self.dtype = str(options.get("dtype", "float32"))

    def prepare(self, base: Array) -> Array:
        """Return the rows in the stored dtype; integers must be whole in the set itself."""
        if self.dtype in ("int8", "uint8"):
            return base.astype(self.dtype)
        return base

    def build(self, prepared: Any, threads: int) -> None:
        """Make an index and add all rows."""
        self.index = self.library.Index(
            self.dim,
            self.metric,
            M=self.M,
            ef_construction=self.ef_construction,
            seed=self.seed,
            **self.options,
        )
        self.index.add(prepared, num_threads=threads)

    def set_search(self, ef: int, threads: int) -> None:
        """Keep both for the calls: they are arguments of `search`."""
        self.ef, self.threads = ef, threads

    def rows(self, queries: Array) -> list[Array]:
        """Return the queries in the dtype that the index is asked in."""
        return list(self.prepare(queries))

    def search_one(self, query: Any, k: int) -> Any:
        """Search on one thread."""
        return self.index.search(query, k, ef_search=self.ef, num_threads=1)

    def search_batch(self, queries: Array, k: int) -> Any:
        """Search with the threads that were set."""
        return self.index.search(queries, k, ef_search=self.ef, num_threads=self.threads)

    def ids(self, found: Any, k: int) -> Array:
        """Return the ids of a `SearchResult`."""
        return np.asarray(found.ids, dtype=np.int64).reshape(-1, k)

    def save(self, path: Path) -> None:
        """Save to one file."""
        self.index.save(path)

    def open(self, path: Path, threads: int) -> None:
        """Map the file read-only."""
        self.index = self.library.open(path)
