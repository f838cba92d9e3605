"""Intel SVS: a Vamana graph over float32 rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .base import Adapter, Array, normalised


class Svs(Adapter):
    """Vamana with 2M links, the number HNSW has in its bottom layer.

    Cosine is the inner product of normalised rows: its own cosine computes norms in every
    distance and is slower.
    """

    distribution = "scalable-vs"
    # Its threads belong to the index and serve one call at a time.
    concurrent = False

    def __init__(self, *args: Any) -> None:
        import svs

        super().__init__(*args)
        self.library = svs
        self.distance = svs.DistanceType.L2 if self.metric == "l2" else svs.DistanceType.MIP

    def prepare(self, base: Array) -> Array:
        """Normalise for cosine."""
        return normalised(base) if self.metric == "cosine" else base

    def build(self, prepared: Any, threads: int) -> None:
        """Build from all rows at once, alpha as the library sets it for the distance."""
        parameters = self.library.VamanaBuildParameters(
            graph_max_degree=2 * self.M, window_size=self.ef_construction
        )
        self.index = self.library.Vamana.build(
            parameters, prepared, self.distance, num_threads=threads
        )

    def set_search(self, ef: int, threads: int) -> None:
        """Set both on the index; changing the threads starts new ones."""
        self.index.search_window_size = ef
        if self.index.num_threads != threads:
            self.index.num_threads = threads

    def search_one(self, query: Any, k: int) -> Any:
        """Search for one query."""
        return self.index.search(query, k)

    def search_batch(self, queries: Array, k: int) -> Any:
        """Search with the threads that were set."""
        return self.index.search(queries, k)

    def ids(self, found: Any, k: int) -> Array:
        """Return the first of (ids, distances)."""
        return super().ids(found[0], k)

    def save(self, path: Path) -> None:
        """Save to a folder of three folders."""
        path.mkdir()
        self.index.save(*(str(path / part) for part in ("config", "graph", "data")))

    def open(self, path: Path, threads: int) -> None:
        """Read the three folders."""
        svs = self.library
        self.index = svs.Vamana(
            str(path / "config"),
            svs.GraphLoader(str(path / "graph")),
            svs.VectorDataLoader(str(path / "data"), svs.float32),
            self.distance,
            num_threads=threads,
        )
