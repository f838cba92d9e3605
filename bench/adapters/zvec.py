"""zvec: a collection with one HNSW column, kept on disk by the library itself."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from .base import Adapter, Array, in_threads


class Zvec(Adapter):
    """HNSW over float32 in one contiguous block, asked through the low-latency call.

    Building is inserting the documents and `optimize`, which makes the graph. Searches return
    internal numbers, the fastest way it has; they are turned into ids afterwards, not timed.
    """

    distribution = "zvec"
    native_batch = False
    chunk = 1024  # the most documents that one insert takes
    started = False

    def __init__(self, *args: Any) -> None:
        import zvec

        super().__init__(*args)
        self.library = zvec

    def _start(self, threads: int) -> None:
        # Threads are a setting of the process, which the library takes once.
        if not Zvec.started:
            self.library.init(
                log_level=self.library.LogLevel.ERROR,
                query_threads=threads,
                optimize_threads=threads,
            )
            Zvec.started = True

    def prepare(self, base: Array) -> list[Any]:
        """Make the documents."""
        doc = self.library.Doc
        return [doc(id=str(i), vectors={"row": row}) for i, row in enumerate(base)]

    def build(self, prepared: Any, threads: int) -> None:
        """Insert, make the graph, and leave the collection open for reading."""
        zvec = self.library
        self._start(threads)
        metrics = zvec.MetricType
        kind = {"l2": metrics.L2, "ip": metrics.IP, "cosine": metrics.COSINE}[self.metric]
        parameters = zvec.HnswIndexParam(
            metric_type=kind,
            m=self.M,
            ef_construction=self.ef_construction,
            use_contiguous_memory=True,
        )
        column = zvec.VectorSchema(
            "row", zvec.DataType.VECTOR_FP32, dimension=self.dim, index_param=parameters
        )
        path = self.folder / "collection"
        collection = zvec.create_and_open(
            str(path), zvec.CollectionSchema(name="rows", vectors=[column])
        )
        for start in range(0, len(prepared), self.chunk):
            for status in collection.insert(prepared[start : start + self.chunk]):
                if not status.ok():
                    raise RuntimeError(f"zvec refused a document: {status}")
        collection.optimize(zvec.OptimizeOption(concurrency=threads))
        collection.flush()
        collection.close()
        self.open(path, threads)

    def set_search(self, ef: int, threads: int) -> None:
        """Keep the parameter of the queries and the threads that ask them."""
        self.parameter = self.library.HnswQueryParam(ef=ef)
        self.threads = threads

    def search_one(self, query: Any, k: int) -> Any:
        """Ask one query."""
        asked = self.library.Query("row", vector=query, param=self.parameter)
        return self.index.query_internal_ids(asked, topk=k)

    def search_batch(self, queries: Array, k: int) -> Any:
        """Ask the queries one by one, from several threads."""
        return in_threads(lambda query: self.search_one(query, k), list(queries), self.threads)

    def ids(self, found: Any, k: int) -> Array:
        """Turn internal numbers into the ids that the documents were given."""
        keys = self.index.resolve_internal_ids(np.asarray(found).reshape(-1))
        return np.array([-1 if key is None else int(key) for key in keys]).reshape(-1, k)

    def save(self, path: Path) -> None:
        """Copy the collection's folder."""
        shutil.copytree(self.folder / "collection", path)

    def open(self, path: Path, threads: int) -> None:
        """Open for reading, by memory map."""
        self._start(threads)
        option = self.library.CollectionOption(read_only=True, enable_mmap=True)
        self.index = self.library.open(str(path), option)
