"""Recall and speed for k of 10 to 1,000: codes beside the stored rows and other libraries.

    python bench/large_k.py --out bench/results/large-k.jsonl
    python bench/large_k.py --sets minilm-10k --indexes vicinal,vicinal-None,hnswlib --k 10,100

All indexes get the same rows, M = 16 and ef_construction = 200, and are asked all queries in one
call on one thread at `ef_search` = max(64, k), in turns; the least CPU time of `--rounds` counts.
faiss and usearch take the width that hnswlib takes. A row found counts if it is no farther than
the k-th true one. One JSON line for each set, index and k: `recall` and queries per second of CPU
time (`qps`).
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import datasets
import vicinal
from order import recall

Array = np.ndarray[Any, Any]
Ask = Callable[[Array, int, int], Array]  # queries, k, ef -> ids
SETS = ("fashion-mnist-784-euclidean", "sift-photo-10k", "minilm-10k")
INDEXES = ("vicinal", "vicinal-None", "hnswlib", "faiss", "usearch")
KS = (10, 50, 100, 200, 1000)
QUERIES = 1000


def ours(base: Array, metric: str, quantization: str | None) -> Ask:
    """Build an index of this library."""
    index = vicinal.Index(base.shape[1], metric, dtype=str(base.dtype), quantization=quantization)
    index.add(base)
    return lambda queries, k, ef: index.search(queries, k, ef_search=ef, num_threads=1).ids


def of_hnswlib(base: Array, metric: str) -> Ask:
    """Build an index of hnswlib."""
    index = importlib.import_module("hnswlib").Index(metric, base.shape[1])
    index.init_index(len(base), ef_construction=200, M=16)
    index.add_items(base)

    def ask(queries: Array, k: int, ef: int) -> Array:
        index.set_ef(ef)
        return np.asarray(index.knn_query(queries, k, num_threads=1)[0].astype(np.int64))

    return ask


def of_faiss(base: Array, metric: str) -> Ask:
    """Build an index of faiss; cosine is the inner product of rows of length 1."""
    faiss = importlib.import_module("faiss")
    kind = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
    index = faiss.IndexHNSWFlat(base.shape[1], 16, kind)
    index.hnsw.efConstruction = 200
    index.add(base)

    def ask(queries: Array, k: int, ef: int) -> Array:
        faiss.omp_set_num_threads(1)
        index.hnsw.efSearch = ef
        return np.asarray(index.search(queries, k)[1])

    return ask


def of_usearch(base: Array, metric: str) -> Ask:
    """Build an index of usearch."""
    usearch = importlib.import_module("usearch.index")
    index = usearch.Index(
        ndim=base.shape[1],
        metric={"l2": "l2sq", "ip": "ip", "cosine": "cos"}[metric],
        dtype="f32",
        connectivity=16,
        expansion_add=200,
    )
    index.add(np.arange(len(base)), base)

    def ask(queries: Array, k: int, ef: int) -> Array:
        index.expansion_search = ef
        return np.asarray(index.search(queries, k, threads=1).keys.astype(np.int64))

    return ask


def built(name: str, base: Array, metric: str) -> Ask:
    """Build the index of a name."""
    if name.startswith("vicinal"):
        return ours(base, metric, None if name.endswith("None") else "auto")
    rows = base.astype(np.float32)
    if metric == "cosine":
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return {"hnswlib": of_hnswlib, "faiss": of_faiss, "usearch": of_usearch}[name](rows, metric)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--indexes", default=",".join(INDEXES))
    parser.add_argument("--k", default=",".join(map(str, KS)))
    parser.add_argument("--queries", type=int, default=QUERIES)
    parser.add_argument("--rows", type=int, help="take the first rows of each set only")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    out = options.out.open("a") if options.out else sys.stdout
    names = options.indexes.split(",")
    for set_name in options.sets.split(","):
        data = datasets.load(set_name)
        base = data.base[: options.rows] if options.rows else data.base
        queries = np.ascontiguousarray(data.queries[: options.queries])
        floats = queries.astype(np.float32)
        indexes = {name: built(name, base, data.metric) for name in names}
        for k in (int(k) for k in options.k.split(",")):
            ef = max(64, k)
            true = vicinal.exact_search(base, queries, k, data.metric).distances[:, -1]
            farthest = true.astype(np.float64) * (1 + 1e-5) + 1e-6
            fastest = dict.fromkeys(names, float("inf"))
            for _ in range(options.rounds):
                for name, ask in indexes.items():
                    asked = queries if name.startswith("vicinal") else floats
                    begin = time.process_time()
                    ask(asked, k, ef)
                    fastest[name] = min(fastest[name], time.process_time() - begin)
            for name, ask in indexes.items():
                ids = ask(queries if name.startswith("vicinal") else floats, k, ef)
                line = {
                    "set": set_name,
                    "rows": len(base),
                    "index": name,
                    "k": k,
                    "ef_search": ef,
                    "recall": round(recall(ids, base, queries, data.metric, farthest), 4),
                    "qps": round(len(queries) / fastest[name]),
                }
                for file in {out, sys.stdout}:
                    print(json.dumps(line), file=file, flush=True)


if __name__ == "__main__":
    main()
