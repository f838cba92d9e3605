"""faiss: `IndexHNSWFlat`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .base import Adapter, Array, normalised


class FaissHnsw(Adapter):
    """HNSW over float32 rows; cosine is the inner product of normalised rows."""

    distribution = "faiss-cpu"

    def __init__(self, *args: Any) -> None:
        import faiss

        super().__init__(*args)
        self.library = faiss

    def prepare(self, base: Array) -> Array:
        """Normalise for cosine."""
        return normalised(base) if self.metric == "cosine" else base

    def build(self, prepared: Any, threads: int) -> None:
        """Make the index and add all rows; faiss takes its threads from OpenMP."""
        faiss = self.library
        kind = faiss.METRIC_L2 if self.metric == "l2" else faiss.METRIC_INNER_PRODUCT
        self.index = faiss.IndexHNSWFlat(self.dim, self.M, kind)
        self.index.hnsw.efConstruction = self.ef_construction
        faiss.omp_set_num_threads(threads)
        self.index.add(prepared)

    def set_search(self, ef: int, threads: int) -> None:
        """Set the width on the index and the threads of OpenMP."""
        self.index.hnsw.efSearch = ef
        self.library.omp_set_num_threads(threads)

    def rows(self, queries: Array) -> list[Array]:
        """Return matrices of one row: faiss takes nothing else."""
        return [queries[i : i + 1] for i in range(len(queries))]

    def search_one(self, query: Any, k: int) -> Any:
        """Search for one row."""
        return self.index.search(query, k)

    def search_batch(self, queries: Array, k: int) -> Any:
        """Search with the threads that were set."""
        return self.index.search(queries, k)

    def ids(self, found: Any, k: int) -> Array:
        """Return the second of (distances, ids)."""
        return super().ids(found[1], k)

    def save(self, path: Path) -> None:
        """Save to one file."""
        self.library.write_index(self.index, str(path))

    def open(self, path: Path, threads: int) -> None:
        """Map the file; before faiss 1.11, as far as it maps an HNSW index."""
        faiss = self.library
        faiss.omp_set_num_threads(threads)
        flag = getattr(faiss, "IO_FLAG_MMAP_IFC", faiss.IO_FLAG_MMAP)
        self.index = faiss.read_index(str(path), flag)
