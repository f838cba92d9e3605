"""The whole of it in a few seconds: real vectors indexed, searched, saved and opened again.

Runs on the small sets of `tests/data`; recall is counted against the exact neighbours, and speed
stands beside NumPy's exact search, the one peer that is always at hand.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import numpy as np

import datasets
import vicinal

K = 10


def main() -> None:
    """Show each set, then a first search in words."""
    info = vicinal.build_info()
    print(f"vicinal {info['version']}, native code for {info['level']}")
    for name in ("minilm-4k", "sift-ngt-5k", "fashion-mnist-3k"):
        show(name)


def show(name: str) -> None:
    """Index, search, save and reopen one set."""
    data = datasets.load(name)
    base = np.ascontiguousarray(data.base, dtype=np.float32)
    queries = np.ascontiguousarray(data.queries, dtype=np.float32)
    print(f"\n{name}: {base.shape[0]:,} x {base.shape[1]}, {data.metric}, {len(queries)} queries")

    index = vicinal.Index(base.shape[1], data.metric)
    start = time.perf_counter()
    index.add(base, num_threads=1)
    took = time.perf_counter() - start
    stats = index.stats()
    print(f"  built in {took:.2f} s on one thread; walks on {stats['quantization']}")

    numpy_qps = rate(lambda: numpy_search(base, queries, data.metric), len(queries))
    nearest = numpy_search(base, queries, data.metric)
    exact_qps = rate(lambda: vicinal.exact_search(base, queries, K, data.metric), len(queries))
    found = vicinal.exact_search(base, queries, K, data.metric)
    recall = vicinal.recall_at_k(nearest, data.truth[:, :K])
    print(f"  NumPy, exact       recall@10 {recall:.3f}  {numpy_qps:9,.0f} queries/s, all at once")
    recall = vicinal.recall_at_k(found.ids, data.truth[:, :K])
    print(f"  exact_search       recall@10 {recall:.3f}  {exact_qps:9,.0f} queries/s, all at once")
    for ef in (16, 64, 256):
        found = index.search(queries, K, ef_search=ef)
        recall = vicinal.recall_at_k(found.ids, data.truth[:, :K])
        qps = rate(lambda ef=ef: one_by_one(index, queries, ef), len(queries))
        print(f"  index, ef {ef:<3}      recall@10 {recall:.3f}  {qps:9,.0f} queries/s, one by one")

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "demo.vicinal")
        index.save(path)
        start = time.perf_counter()
        again = vicinal.open(path)
        took = (time.perf_counter() - start) * 1e3
        size = os.path.getsize(path) / 1e6
        print(f"  saved {size:.1f} MB, opened by memory map in {took:.2f} ms: {again!r}")
        ids, distances = again.search(queries[0], k=3)
        print(f"  nearest to the first query: ids {ids.tolist()}, distances {distances.tolist()}")


def numpy_search(base: np.ndarray, queries: np.ndarray, metric: str) -> np.ndarray:
    """Find the nearest rows exactly with matmul and argpartition, as one does without an index."""
    score = -2 * (queries @ base.T)
    if metric == "l2":
        score += np.einsum("ij,ij->i", base, base)
    nearest = np.argpartition(score, K, axis=1)[:, :K]
    order = np.argsort(np.take_along_axis(score, nearest, axis=1), axis=1)
    return np.take_along_axis(nearest, order, axis=1)


def one_by_one(index: vicinal.Index, queries: np.ndarray, ef: int) -> None:
    """Search each query in a call of its own."""
    for query in queries:
        index.search(query, K, ef_search=ef)


def rate(work: object, count: int) -> float:
    """Return items per second, the best of three runs."""
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        work()  # type: ignore[operator]
        best = min(best, time.perf_counter() - start)
    return count / best


if __name__ == "__main__":
    main()
