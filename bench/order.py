"""Does recall depend on the order in which rows come?

    python bench/order.py --out FILE
    python bench/order.py --sets numbers --ways once,100 --peers hnswlib,faiss

Each set is added shuffled and in orders that make rows of one call neighbours: as it is made
(numbers in sequence, one cluster after the other), and real sets sorted by group, by their first
coordinate and by the nearest of 200 pivots. A way is how the rows come: `once`, in calls of `100`
or `1`, `compacted` after the calls of 100, `merged` from four indexes of a quarter each, `updated`
(half of the rows get their vectors by `update` in calls of 100). Peers add the same rows in the
same order, in one thread. One JSON line for each set, order, way and index: recall@10 at each ef.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import datasets
import vicinal

Array = np.ndarray[Any, Any]
ROWS = 20_000
QUERIES = 500
PIVOTS = 200
GROUPS = 10
EFS = (16, 64)
K = 10
MADE = ("numbers", "clusters")
REAL = ("fashion-mnist-784", "sift-photo-10k", "minilm-10k")
WAYS = ("once", "100", "1", "compacted", "merged", "updated")


def made(name: str, rng: Any) -> tuple[Array, Array]:
    """Return rows in sequence, and queries near some of them."""
    if name == "numbers":
        base = np.arange(ROWS).reshape(-1, 1) / 2
    else:
        centres = np.repeat(rng.normal(size=(200, 64)), ROWS // 200, 0)
        base = centres * 2 + 0.5 * rng.normal(size=(ROWS, 64))
    near = base[rng.integers(0, ROWS, QUERIES)]
    queries = near + 1e-3 * base.std(0) * rng.normal(size=near.shape)
    return base.astype(np.float32), queries.astype(np.float32)


def nearest_pivot(base: Array, pivots: Array) -> Array:
    """Return the number of the pivot that each row is nearest to."""
    rows, centres = base.astype(np.float32), pivots.astype(np.float32)
    return np.argmin((centres**2).sum(1) - 2 * rows @ centres.T, axis=1)


def orders(name: str, base: Array, rng: Any) -> Iterator[tuple[str, Array]]:
    """Yield the orders in which a set is added."""
    yield "shuffled", rng.permutation(len(base))
    if name in MADE:
        yield "sequence", np.arange(len(base))
        return
    first = np.argmax(base.astype(np.float32).std(0) > 0)
    yield "coordinate", np.argsort(base[:, first], kind="stable")
    for order, count in (("group", GROUPS), ("pivot", PIVOTS)):
        pivots = base[rng.choice(len(base), count, replace=False)]
        yield order, np.argsort(nearest_pivot(base, pivots), kind="stable")


def build(base: Array, metric: str, way: str) -> vicinal.Index:
    """Return an index of the rows, which came in one way."""

    def added(rows: Array, step: int, first: int = 0) -> vicinal.Index:
        index = vicinal.Index(rows.shape[1], metric, dtype=str(rows.dtype))
        for i in range(0, len(rows), step):
            part = rows[i : i + step]
            index.add(part, np.arange(first + i, first + i + len(part)))
        return index

    if way == "merged":
        quarter = len(base) // 4
        index = added(base[:quarter], quarter)
        for i in range(quarter, len(base), quarter):
            part = base[i : i + quarter]
            index.merge(added(part, len(part), i))
        return index
    if way == "updated":
        half = len(base) // 2
        others = (base[: len(base) - half] / 2).astype(base.dtype)
        index = added(np.concatenate([base[:half], others]), half)
        for i in range(half, len(base), 100):
            part = base[i : i + 100]
            index.update(part, np.arange(i, i + len(part)))
        return index
    index = added(base, {"once": len(base), "1": 1}.get(way, 100))
    if way == "compacted":
        index.compact()
    return index


def peer(name: str, base: Array, metric: str) -> Any:
    """Return a function that searches another library's index of the rows."""
    rows = base.astype(np.float32)
    if name == "hnswlib":
        hnswlib = importlib.import_module("hnswlib")
        other = hnswlib.Index(metric, rows.shape[1])
        other.init_index(len(rows), ef_construction=200, M=16)
        other.add_items(rows, num_threads=1)

        def search(queries: Array, ef: int) -> Array:
            other.set_ef(ef)
            return np.asarray(other.knn_query(queries, K, num_threads=1)[0].astype(np.int64))

        return search
    faiss = importlib.import_module("faiss")
    faiss.omp_set_num_threads(1)
    kind = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
    graph = faiss.IndexHNSWFlat(rows.shape[1], 16, kind)
    graph.hnsw.efConstruction = 200
    graph.add(rows)

    def ask(queries: Array, ef: int) -> Array:
        graph.hnsw.efSearch = ef
        return np.asarray(graph.search(queries, K)[1])

    return ask


def recall(ids: Array, base: Array, queries: Array, metric: str, farthest: Array) -> float:
    """Return recall@k, measured in float64; rows as near as the k-th count."""
    rows, wanted = base.astype(np.float64), queries.astype(np.float64)
    if metric == "cosine":
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    found = 0
    for i, row in enumerate(ids):
        near = rows[np.unique(row[row >= 0])]
        l2 = metric == "l2"
        distances = ((near - wanted[i]) ** 2).sum(1) if l2 else 1 - near @ wanted[i]
        found += int((distances <= farthest[i]).sum())
    return found / ids.size


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sets", default=",".join(MADE + REAL))
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--orders", default="")
    parser.add_argument("--peers", default="")
    parser.add_argument("--label", default="vicinal")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    out = options.out.open("a") if options.out else sys.stdout
    for name in options.sets.split(","):
        rng = np.random.default_rng(17)
        metric = "l2"
        if name in MADE:
            whole, queries = made(name, rng)
        else:
            data = datasets.load(name)
            whole, queries, metric = data.base[:ROWS], data.queries[:QUERIES], data.metric
        for order, numbers in orders(name, whole, rng):
            if options.orders and order not in options.orders.split(","):
                continue
            base = np.ascontiguousarray(whole[numbers])
            truth = vicinal.exact_search(base, queries, K, metric).distances[:, -1]
            farthest = truth.astype(np.float64) * (1 + 1e-5) + 1e-6
            ways: list[tuple[str, str]] = [(options.label, w) for w in options.ways.split(",") if w]
            ways += [(p, "once") for p in options.peers.split(",") if p]
            for index, way in ways:
                begin = time.process_time()
                if index == options.label:
                    ours = build(base, metric, way)

                    def ask(queries: Array, ef: int, ours: vicinal.Index = ours) -> Array:
                        return ours.search(queries, K, ef_search=ef).ids
                else:
                    ask = peer(index, base, metric)
                took = time.process_time() - begin
                found = {
                    ef: round(recall(ask(queries, ef), base, queries, metric, farthest), 4)
                    for ef in EFS
                }
                line = {"set": name, "order": order, "index": index, "way": way}
                print(json.dumps({**line, "recall": found, "cpu": round(took, 2)}), file=out)
                out.flush()


if __name__ == "__main__":
    main()
