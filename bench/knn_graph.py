"""Time the graph of the nearest neighbours of all rows, beside other libraries.

    PYTHONPATH=python python bench/knn_graph.py fashion-mnist-784-euclidean --rows 60000

Every library finds the k nearest others of every row, on all cores, in a process of its own, with
the least search width of a short list that reaches the recall; recall is that of 500 rows. One that
is not installed is left out. Prints a line of JSON for each run: seconds that pass, and seconds of
CPU, building an index included. pynndescent compiles when it first runs ("cold"), is run again
("warm"), and then with more neighbours than are wanted until it reaches the recall.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

WIDTHS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 400)
KEPT = (24, 32, 48, 64)  # neighbours that pynndescent keeps, more than are wanted
Found = tuple[Any, Any]
Run = tuple[str, Callable[[], Any]]


def rows_of(name: str, count: int) -> Any:
    folder = Path(__file__).resolve().parent
    spec = importlib.util.spec_from_file_location("bench_datasets", folder / "datasets.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_datasets"] = module
    spec.loader.exec_module(module)
    data = module.load(name)
    assert data.metric == "l2", "this compares Euclidean distances"
    return np.ascontiguousarray(data.base[:count], dtype=np.float32)


def vicinal_runs(rows: Any, k: int, recall: float, widths: Sequence[int]) -> Iterator[Run]:
    import vicinal

    yield "vicinal", lambda: tuple(vicinal.knn_graph(rows, k, recall=recall))


def hnswlib_runs(rows: Any, k: int, recall: float, widths: Sequence[int]) -> Iterator[Run]:
    import hnswlib

    index = hnswlib.Index("l2", rows.shape[1])

    def build() -> None:
        index.init_index(len(rows), ef_construction=64, M=16)
        index.add_items(rows)

    def search(width: int) -> Found:
        index.set_ef(max(width, k + 1))
        return without_self(*index.knn_query(rows, k + 1))

    yield "hnswlib, build", build
    for width in widths:
        yield f"hnswlib, ef {width}", partial(search, width)


def faiss_runs(rows: Any, k: int, recall: float, widths: Sequence[int]) -> Iterator[Run]:
    import faiss

    index = faiss.IndexHNSWFlat(rows.shape[1], 16)
    index.hnsw.efConstruction = 64

    def search(width: int) -> Found:
        index.hnsw.efSearch = max(width, k + 1)
        far, ids = index.search(rows, k + 1)
        return without_self(ids, far)

    yield "faiss, build", partial(index.add, rows)
    for width in widths:
        yield f"faiss, ef {width}", partial(search, width)


def pynndescent_runs(rows: Any, k: int, recall: float, widths: Sequence[int]) -> Iterator[Run]:
    import pynndescent

    def run(neighbours: int) -> Found:
        graph = pynndescent.NNDescent(rows, n_neighbors=neighbours, random_state=0).neighbor_graph
        ids, far = without_self(graph[0], graph[1] ** 2)
        return ids[:, :k], far[:, :k]

    yield "pynndescent, cold", partial(run, k + 1)
    yield "pynndescent, warm", partial(run, k + 1)
    for neighbours in KEPT:
        if neighbours > k + 1:
            yield f"pynndescent, n_neighbors {neighbours}", partial(run, neighbours)


def sklearn_runs(rows: Any, k: int, recall: float, widths: Sequence[int]) -> Iterator[Run]:
    from sklearn.neighbors import NearestNeighbors

    def run() -> Found:
        far, ids = (
            NearestNeighbors(n_neighbors=k, algorithm="brute", n_jobs=-1).fit(rows).kneighbors()
        )
        return ids, far**2

    yield "scikit-learn, brute", run


LIBRARIES: dict[str, Callable[[Any, int, float, Sequence[int]], Iterator[Run]]] = {
    "vicinal": vicinal_runs,
    "hnswlib": hnswlib_runs,
    "faiss": faiss_runs,
    "pynndescent": pynndescent_runs,
    "sklearn": sklearn_runs,
}


def without_self(ids: Any, far: Any) -> Found:
    keep = ids != np.arange(len(ids))[:, None]
    keep[keep.all(axis=1), -1] = False
    return ids[keep].reshape(len(ids), -1), far[keep].reshape(len(ids), -1)


def recall_of(found: Found, rows: Any, k: int, sample: Any) -> float:
    """Return the share of places that hold a row no farther than the k-th true neighbour."""
    queries = rows[sample].astype(np.float64)
    every = np.empty((len(sample), len(rows)))
    for start in range(0, len(rows), 4096):
        block = rows[start : start + 4096].astype(np.float64)
        every[:, start : start + 4096] = (block**2).sum(axis=1) - 2 * (queries @ block.T)
    every[np.arange(len(sample)), sample] = np.inf
    limit = np.partition(every, k - 1, axis=1)[:, k - 1 : k]
    mine = np.take_along_axis(every, found[0][sample], axis=1)
    return float((mine <= limit + 1e-6 * np.abs(limit)).mean())


def measure(library: str, rows: Any, k: int, target: float, widths: Sequence[int]) -> None:
    sample = np.sort(np.random.default_rng(7).choice(len(rows), min(500, len(rows)), replace=False))
    built = 0.0, 0.0
    for name, run in LIBRARIES[library](rows, k, target, widths):
        wall, before = time.perf_counter(), os.times()
        found = run()
        wall, after = time.perf_counter() - wall, os.times()
        cpu = after.user + after.system - before.user - before.system
        if name.endswith("build"):
            built = wall, cpu
            continue
        recall = recall_of(found, rows, k, sample)
        told = {
            "run": name,
            "rows": rows.shape,
            "k": k,
            "seconds": round(built[0] + wall, 2),
            "cpu_seconds": round(built[1] + cpu, 2),
            "recall": round(recall, 4),
            "load": round(os.getloadavg()[0], 1),
            "reached": recall >= target,
        }
        print(json.dumps(told), flush=True)
        if recall >= target and not name.endswith("cold"):
            break


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="a name or path that bench/datasets.py knows")
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("-k", type=int, default=15)
    parser.add_argument("--recall", type=float, default=0.99)
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS, help="of hnswlib, faiss")
    parser.add_argument("--libraries", nargs="+", choices=LIBRARIES, default=list(LIBRARIES))
    options = parser.parse_args()
    if len(options.libraries) == 1:
        library = options.libraries[0]
        rows = rows_of(options.data, options.rows)
        measure(library, rows, options.k, options.recall, options.widths)
        return 0
    for library in options.libraries:
        if importlib.util.find_spec(library) is None:
            print(f"{library} is not installed", file=sys.stderr)
            continue
        command = [sys.executable, __file__, options.data, "--libraries", library]
        for name in ("rows", "k", "recall"):
            command += [f"-{name}" if name == "k" else f"--{name}", str(getattr(options, name))]
        command += ["--widths", *map(str, options.widths)]
        subprocess.run(command, check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
