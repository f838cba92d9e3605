"""An index as a backend of txtai: `backend: "vicinal.integrations.txtai.VicinalANN"`."""

from __future__ import annotations

from typing import Any

import numpy as np

import vicinal

try:
    from txtai.ann.base import ANN
except ImportError as error:
    raise ImportError(f"this module needs txtai: pip install txtai ({error})") from error

__all__ = ["VicinalANN"]

_SETTINGS = ("M", "ef_construction", "quantization", "seed", "dtype")


class VicinalANN(ANN):
    """Vectors of a txtai index, searched by inner product, which on txtai's vectors is the cosine.

    Settings stand in the configuration under the name of the backend: `M`, `ef_construction`,
    `quantization`, `seed`, `dtype` of `vicinal.Index`, and `ef_search`.
    """

    def load(self, path: str) -> None:
        """Open a saved index; it is copied into memory, where it can be changed."""
        self.backend = vicinal.open(path, mode="copy")

    def index(self, embeddings: Any) -> None:
        """Build the index of vectors of shape (n, dim), whose ids are 0 to n - 1."""
        given = {name: self.setting(name) for name in _SETTINGS}
        settings = {name: value for name, value in given.items() if value is not None}
        self.config["metric"] = "ip"
        self.backend = vicinal.Index(self.config["dimensions"], "ip", **settings)
        self.config["offset"] = 0
        self._add(embeddings)
        self.metadata(settings)

    def append(self, embeddings: Any) -> None:
        """Add vectors, whose ids go on from the last one that was ever given."""
        self._add(embeddings)
        self.metadata(None)  # settings stay as they were

    def _add(self, embeddings: Any) -> None:
        first = self.config["offset"]
        count = len(embeddings)
        self.backend.add(np.asarray(embeddings), np.arange(first, first + count))
        self.config["offset"] = first + count

    def delete(self, ids: Any) -> None:
        """Remove vectors; unknown ids are left out."""
        self.backend.remove(np.unique(np.asarray(list(ids), np.int64)), missing="ignore")

    def search(self, queries: Any, limit: int) -> list[list[tuple[int, float]]]:
        """Return pairs of id and score for each query, best first."""
        k = min(limit, len(self.backend))
        if not k:
            return [[] for _ in queries]
        width = self.setting("ef_search")
        found = self.backend.search(np.atleast_2d(queries), k, ef_search=width)
        return [
            list(zip(ids, (1 - far for far in distances), strict=True))
            for ids, distances in zip(found.ids.tolist(), found.distances.tolist(), strict=True)
        ]

    def count(self) -> int:
        """Return how many vectors there are."""
        return len(self.backend)

    def save(self, path: str) -> None:
        """Write the index to a file."""
        self.backend.save(path)
