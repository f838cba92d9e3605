"""What the benchmark asks of an index: the class that every adapter fills in."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


class Adapter(ABC):
    """One kind of index behind one interface.

    Only `build`, `search_one`, `search_batch`, `save` and `open` are timed. What an adapter does
    in `prepare`, `rows` and `ids` is free of charge, so a peer pays for its own work and not for
    the conversions around it.
    """

    distribution: ClassVar[str] = ""
    """Name on the package registry: says whether it is installed, and in which version."""

    native_batch: ClassVar[bool] = True
    """Whether one call takes many queries; otherwise a batch is a loop in Python threads."""

    concurrent: ClassVar[bool] = True
    """Whether several Python threads may search at once."""

    uses_ef: ClassVar[bool] = True
    """Whether the search width changes anything; exact search runs at one width only."""

    def __init__(
        self, dim: int, metric: str, M: int, ef_construction: int, seed: int, folder: Path
    ) -> None:
        self.dim = dim
        self.metric = metric
        self.M = M
        self.ef_construction = ef_construction
        self.seed = seed
        self.folder = folder

    def prepare(self, base: Array) -> Any:
        """Return the float32 rows in the form that `build` takes."""
        return base

    @abstractmethod
    def build(self, prepared: Any, threads: int) -> None:
        """Index all rows under the ids 0, 1, 2, ... with at most this many threads."""

    @abstractmethod
    def set_search(self, ef: int, threads: int) -> None:
        """Set the search width, and the threads of a batch, for the searches that follow."""

    def rows(self, queries: Array) -> Sequence[Any]:
        """Return the queries one by one, each in the shape that `search_one` takes."""
        return list(queries)

    @abstractmethod
    def search_one(self, query: Any, k: int) -> Any:
        """Search for one query and return whatever the library returns."""

    @abstractmethod
    def search_batch(self, queries: Array, k: int) -> Any:
        """Search for many queries in one call, with the threads of `set_search`."""

    def ids(self, found: Any, k: int) -> Array:
        """Return the ids in a result of `search_one` or `search_batch` as int64 (n, k)."""
        return np.asarray(found, dtype=np.int64).reshape(-1, k)

    @abstractmethod
    def save(self, path: Path) -> None:
        """Write the index to a file or folder."""

    @abstractmethod
    def open(self, path: Path, threads: int) -> None:
        """Open what `save` wrote, by memory map where the library can."""


def normalised(base: Array) -> Array:
    """Return the rows at unit length, for libraries that have no cosine distance."""
    norms = np.linalg.norm(base, axis=1, keepdims=True)
    return np.ascontiguousarray(base / np.where(norms > 0, norms, 1.0), dtype=np.float32)


def in_threads(search: Callable[[Any], Any], queries: Sequence[Any], threads: int) -> list[Any]:
    """Call `search` for every query from this many Python threads, each with its own share."""
    if threads == 1:
        return [search(query) for query in queries]
    results: list[list[Any]] = [[] for _ in range(threads)]

    def share(number: int) -> None:
        start = number * len(queries) // threads
        stop = (number + 1) * len(queries) // threads
        results[number] = [search(query) for query in queries[start:stop]]

    workers = [threading.Thread(target=share, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return [result for part in results for result in part]
