"""How fast are large sets built, beside other libraries, and how fast are they searched then?

    python bench/build_peers.py --data sift-real-500k-b --indexes parts,hnswlib --out FILE

`parts` is `vicinal.build` into a file, `vicinal` is `Index.add`, others are those of `adapters`;
`glass` is pyglass where the module `glass` can be imported. Each index lives in a process of
its own: it is built with `--threads` (wall and CPU seconds, rows a second), then asked one query a
call on one thread at rising widths; queries per second at recall 0.95 and 0.99 are read off between
the widths. Everybody has M = 16 and ef_construction = 200; `--ef-construction` gives others, but
not pyglass, another.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import adapters
import datasets
import vicinal

EFS = (10, 14, 20, 28, 40, 56, 80, 112, 160, 224)
TARGETS = (0.95, 0.99)
K, QUERIES, ROUNDS = 10, 1000, 3
Record = dict[str, Any]


class Glass:
    """pyglass: built and walked on rows of 8 bits, measured again in float32."""

    def __init__(self, dim: int, metric: str, folder: Path) -> None:
        import glass

        self.library, self.metric, self.path = glass, metric, str(folder / "graph")

    def build(self, rows: Any, threads: int) -> None:
        """Build and keep the rows for the searcher."""
        self.library.set_num_threads(threads)
        self.library.build_graph("HNSW", rows, self.path, self.metric.upper(), "SQ8U", 32, 200)
        self.rows_ = rows

    def set_search(self, ef: int, threads: int) -> None:
        """Make the searcher when it is first needed."""
        if not hasattr(self, "searcher"):
            graph = self.library.Graph(self.path)
            self.searcher = self.library.Searcher(
                graph, self.rows_, self.metric.upper(), "SQ8U", "FP32"
            )
            self.searcher.optimize()
        self.searcher.set_ef(ef)

    def rows(self, queries: Any) -> list[Any]:
        """Return the queries one by one."""
        return list(queries)

    def search_one(self, query: Any, k: int) -> Any:
        """Search for one."""
        return self.searcher.search(query, k)

    def ids(self, found: Any, k: int) -> Any:
        """Return the ids of a result, which come alone or before the distances."""
        return np.asarray(found[0] if isinstance(found, tuple) else found, np.int64).reshape(-1, k)


def build(
    name: str, rows: Any, metric: str, threads: int, wide: int, folder: Path
) -> tuple[Any, Record]:
    """Return an adapter with a built index, and what that has taken."""
    if name == "glass":
        adapter: Any = Glass(rows.shape[1], metric, folder)
    else:
        kind = "vicinal" if name == "parts" else name
        adapter = adapters.make(kind, rows.shape[1], metric, 16, wide, 0, folder)
        rows = adapter.prepare(rows)
    wall, cpu = time.perf_counter(), time.process_time()
    if name == "parts":
        vicinal.build(
            rows, folder / "index", metric=metric, ef_construction=wide, num_threads=threads
        )
    else:
        adapter.build(rows, threads)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    if name == "parts":
        adapter.open(folder / "index", 1)
    return adapter, {
        "wall": round(wall, 2),
        "cpu": round(cpu, 2),
        "rows_a_second": round(len(rows) / wall),
    }


def curve(adapter: Any, queries: Any, truth: Any) -> list[tuple[float, float]]:
    """Return recall and queries per second at each width, the best of some rounds."""
    points = []
    one_by_one = adapter.rows(queries)
    for ef in EFS:
        adapter.set_search(ef, 1)
        least = np.inf
        for _ in range(ROUNDS):
            start = time.perf_counter()
            found = [adapter.search_one(query, K) for query in one_by_one]
            least = min(least, time.perf_counter() - start)
        ids = np.concatenate([adapter.ids(one, K) for one in found])
        points.append((round(vicinal.recall_at_k(ids, truth), 4), round(len(queries) / least)))
    return points


def at(points: list[tuple[float, float]], target: float) -> int | None:
    """Return the queries per second at a recall, None if it is not reached."""
    for (low, fast), (high, slow) in itertools.pairwise(points):
        if low <= target <= high and high > low:
            part = (target - low) / (high - low)
            return round(float(np.exp(np.log(fast) * (1 - part) + np.log(slow) * part)))
    return points[0][1] if points[0][0] > target else None


def one(options: argparse.Namespace) -> Record:
    """Build and search one index."""
    name, _, count = options.data.partition(":")
    data = datasets.load(name)
    rows = data.base[: int(count or len(data.base))].astype(np.float32)
    queries = data.queries[:QUERIES].astype(np.float32)
    truth = np.asarray(data.truth[:QUERIES, :K])
    if len(rows) < len(data.base):
        truth = vicinal.exact_search(rows, queries, K, metric=data.metric).ids
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        adapter, cost = build(
            options.only, rows, data.metric, options.threads, options.ef_construction, Path(folder)
        )
        points = curve(adapter, queries, truth)
    return {
        "kind": "build-peers",
        "data": name,
        "rows": len(rows),
        "dim": rows.shape[1],
        "index": options.only,
        "threads": options.threads,
        "ef_construction": options.ef_construction,
        **cost,
        "qps": {str(target): at(points, target) for target in TARGETS},
        "points": points,
        "load": round(os.getloadavg()[0], 1),
    }


def main() -> int:
    """Measure, write, return the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True, help="a set, or SET:ROWS")
    parser.add_argument("--indexes", default="parts,hnswlib,faiss")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--ef-construction", type=int, default=200)
    parser.add_argument("--folder", type=Path, help="for files of indexes")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(one(options)))
        return 0
    for name in options.indexes.split(","):
        command = [sys.executable, __file__, *sys.argv[1:], "--only", name]
        told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        told = told.strip().splitlines()[-1]
        print(told, flush=True)
        if options.out is not None:
            with open(options.out, "a", encoding="utf-8") as file:
                file.write(told + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
