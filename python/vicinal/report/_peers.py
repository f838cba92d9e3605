"""Other libraries and brute force beside the index: the same rows, settings and queries."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

import vicinal
from vicinal.report._searches import timed

__all__ = ["PEERS", "beside", "installed"]

PEERS = {"hnswlib": "hnswlib", "faiss": "faiss-cpu", "usearch": "usearch"}
_CALLS = 300
_SECONDS = 3.0
_LEAST = 20
_ROUNDS = 3

Search = Callable[[NDArray[Any], int], NDArray[Any]]


def installed(against: Sequence[str], metric: str) -> dict[str, Any]:
    """Return the modules of libraries; ValueError or ImportError if one cannot be measured."""
    found = {}
    for name in against:
        if name not in PEERS:
            raise ValueError(f"against: expected some of {', '.join(PEERS)}, got {name!r}")
        if metric not in ("l2", "ip", "cosine"):
            raise ValueError(f"against: expected an index of l2, ip or cosine, got {metric}")
        try:
            found[name] = import_module("usearch.index" if name == "usearch" else name)
        except ImportError as error:
            raise ImportError(
                f"against: {name} is not installed: pip install {PEERS[name]}"
            ) from error
    return found


def beside(
    index: vicinal.Index,
    queries: NDArray[Any],
    k: int,
    widths: Sequence[int],
    threads: int,
    peers: dict[str, Any],
    say: Callable[[str], object],
) -> list[dict[str, Any]]:
    """Build each library with the rows of an index, and measure recall and time at each width.

    `peers` are the modules of the libraries, by name.

    All take float32 rows, M and ef_construction of the index, and `threads` threads to build; each
    search is a call with one query on one thread. Vicinal is built anew, so that its time to build
    stands beside theirs. Brute force scans the rows of the index.
    """
    rows = np.concatenate([part for _, part in _parts(index)]).astype(np.float32)
    asked = np.ascontiguousarray(queries, np.float32)
    wanted = min(k, len(rows))
    exact = vicinal.exact_search(rows, asked, wanted, index.metric, num_threads=threads)
    told = []
    for name in ("vicinal", *peers):
        say(f"building {name}")
        start = time.perf_counter()
        search = _BUILDERS[name](peers.get(name), index, rows, wanted, threads)
        built = time.perf_counter() - start
        curve = []
        for width in widths:
            spent, fastest, ids = _calls(search, asked, width)
            share = vicinal.recall_at_k(ids, exact.ids[: len(ids)])
            curve.append(
                {"ef_search": width, "recall": share, **timed(spent, fastest, None)._asdict()}
            )
        told.append({"name": name, "version": _version(name), "build": built, "curve": curve})
    say("measuring brute force")

    def scan(query: NDArray[Any], _: int) -> NDArray[Any]:
        return vicinal.exact_search(rows, query, wanted, index.metric, num_threads=1).ids

    spent, fastest, ids = _calls(scan, asked, 0)
    share = vicinal.recall_at_k(ids, exact.ids[: len(ids)])
    point = {"ef_search": 0, "recall": share, **timed(spent, fastest, None)._asdict()}
    told.append({"name": "brute force", "version": None, "build": 0.0, "curve": [point]})
    return told


def _parts(index: vicinal.Index) -> Any:
    for ids, vectors in index.vectors(10_000):
        yield ids, np.asarray(vectors)


def _version(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return vicinal.__version__ if name == "vicinal" else version(PEERS[name])
    except PackageNotFoundError:
        return None


def _calls(
    search: Search, asked: NDArray[Any], width: int
) -> tuple[list[float], float, NDArray[Any]]:
    """Search for one query after the other, three times, after a few that do not count.

    Returns the seconds of all calls, the calls a second of the fastest round, and what was found.
    """
    for i in range(min(10, len(asked))):
        search(asked[i : i + 1], width)
    spent: list[float] = []
    ids: list[NDArray[Any]] = []
    fastest = 0.0
    begin = end = time.perf_counter()
    for number in range(_ROUNDS):
        round_begin, before = end, len(spent)
        for i in range(min(_CALLS, len(asked))):
            query = asked[i : i + 1]
            start = time.perf_counter()
            found = search(query, width)
            end = time.perf_counter()
            spent.append(end - start)
            if number == 0:
                ids.append(np.asarray(found, np.int64).reshape(1, -1))
            if end - begin > _SECONDS and len(spent) >= _LEAST:
                break
        fastest = max(fastest, (len(spent) - before) / max(end - round_begin, 1e-9))
        if end - begin > _SECONDS:
            break
    return spent, fastest, np.concatenate(ids)


def _vicinal(_: Any, index: vicinal.Index, rows: NDArray[Any], k: int, threads: int) -> Search:
    told = index.stats()
    again = vicinal.Index(
        index.dim,
        index.metric,
        M=index.M,
        ef_construction=index.ef_construction,
        seed=index.seed,
        keep_vectors=told["keep_vectors"],
        walk_dim=told["walk_dim"],
    )
    again.add(rows, num_threads=threads)
    return lambda query, width: again.search(query, k, ef_search=width, num_threads=1).ids


def _hnswlib(module: Any, index: vicinal.Index, rows: NDArray[Any], k: int, threads: int) -> Search:
    other = module.Index(space=index.metric, dim=index.dim)
    other.init_index(len(rows), ef_construction=index.ef_construction, M=index.M)
    other.add_items(rows, num_threads=threads)

    def search(query: NDArray[Any], width: int) -> NDArray[Any]:
        other.set_ef(width)
        return np.asarray(other.knn_query(query, k, num_threads=1)[0], np.int64)

    return search


def _faiss(module: Any, index: vicinal.Index, rows: NDArray[Any], k: int, threads: int) -> Search:
    module.omp_set_num_threads(threads)
    kind = module.METRIC_L2 if index.metric == "l2" else module.METRIC_INNER_PRODUCT
    other = module.IndexHNSWFlat(index.dim, index.M, kind)
    other.hnsw.efConstruction = index.ef_construction
    cosine = index.metric == "cosine"
    other.add(_unit(rows) if cosine else rows)
    module.omp_set_num_threads(1)

    def search(query: NDArray[Any], width: int) -> NDArray[Any]:
        other.hnsw.efSearch = width
        return np.asarray(other.search(_unit(query) if cosine else query, k)[1], np.int64)

    return search


def _usearch(module: Any, index: vicinal.Index, rows: NDArray[Any], k: int, threads: int) -> Search:
    other = module.Index(
        ndim=index.dim,
        metric={"l2": "l2sq", "ip": "ip", "cosine": "cos"}[index.metric],
        dtype="f32",
        connectivity=index.M,
        expansion_add=index.ef_construction,
    )
    other.add(np.arange(len(rows)), rows, threads=threads)

    def search(query: NDArray[Any], width: int) -> NDArray[Any]:
        other.expansion_search = width
        found = np.asarray(other.search(query[0], k, threads=1).keys, np.int64)
        return np.pad(found, (0, k - len(found)), constant_values=-1)

    return search


def _unit(rows: NDArray[Any]) -> NDArray[Any]:
    lengths: NDArray[Any] = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: NDArray[Any] = rows / np.maximum(lengths, np.float32(1e-30))
    return unit


_BUILDERS = {"vicinal": _vicinal, "hnswlib": _hnswlib, "faiss": _faiss, "usearch": _usearch}
