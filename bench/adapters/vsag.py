"""VSAG: its HGraph index through pyvsag, with float32 codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from .base import Adapter, Array, in_threads


class Vsag(Adapter):
    """HGraph with 2M links in the bottom graph, as HNSW has them."""

    distribution = "pyvsag"
    native_batch = False

    def __init__(self, *args: Any) -> None:
        import pyvsag

        super().__init__(*args)
        pyvsag.set_logger_off()
        self.library = pyvsag

    def _make(self, threads: int) -> Any:
        parameters = {
            "dtype": "float32",
            "metric_type": self.metric,
            "dim": self.dim,
            "index_param": {
                "base_quantization_type": "fp32",
                "max_degree": 2 * self.M,
                "ef_construction": self.ef_construction,
                "build_thread_count": threads,
            },
        }
        return self.library.Index("hgraph", json.dumps(parameters))

    def build(self, prepared: Any, threads: int) -> None:
        """Build from all rows at once."""
        self.index = self._make(threads)
        self.index.build(
            vectors=prepared.reshape(-1),
            ids=np.arange(len(prepared)),
            num_elements=len(prepared),
            dim=self.dim,
        )

    def set_search(self, ef: int, threads: int) -> None:
        """Keep the text of parameters and the threads that ask."""
        self.parameters = json.dumps({"hgraph": {"ef_search": ef}})
        self.threads = threads

    def search_one(self, query: Any, k: int) -> Any:
        """Ask one query."""
        return self.index.knn_search(query, k, self.parameters)

    def search_batch(self, queries: Array, k: int) -> Any:
        """Ask the queries one by one, from several threads."""
        return in_threads(lambda query: self.search_one(query, k), list(queries), self.threads)

    def ids(self, found: Any, k: int) -> Array:
        """Return the first of (ids, distances), of one result or of a list."""
        results = found if isinstance(found, list) else [found]
        return np.stack([np.asarray(result[0], dtype=np.int64)[:k] for result in results])

    def save(self, path: Path) -> None:
        """Save to one file."""
        self.index.save(str(path))

    def open(self, path: Path, threads: int) -> None:
        """Read the whole file into an index of the same parameters."""
        self.index = self._make(threads)
        self.index.load(str(path))
