"""Codes alone: bytes a row, recall and speed of vicinal and faiss, each without the vectors.

    python bench/codes_alone.py --data minilm-10k --library vicinal --out results.jsonl
    python bench/codes_alone.py --data minilm-10k --library faiss --out results.jsonl

One thread; times are CPU times, so that other programs hardly disturb them. All get M = 16 and
ef_construction = 200. Bytes are those of the saved index, links and ids included. Recall is that of
the ten nearest of the whole vectors, which are kept beside `--out` once found. Writes JSON lines.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import datasets

Array = np.ndarray[Any, np.dtype[Any]]
K, QUERIES = 10, 1000
M, EF_CONSTRUCTION = 16, 200
WIDTHS = (10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384)
ROUNDS = 3
KINDS = {
    "vicinal": ("whole", "sq8", "sq4"),
    "faiss": ("SQ8", "SQ4", "RaBitQ", "RaBitQ4"),
}
Search = Callable[[Array, int], Array]


def unit(rows: Array) -> Array:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def of_vicinal(kind: str, base: Array, metric: str) -> tuple[float, float, Search]:
    import vicinal

    vicinal.set_num_threads(1)
    options: dict[str, Any] = {}
    if kind != "whole":
        options = {"keep_vectors": False, "quantization": kind}
    index = vicinal.Index(base.shape[1], metric, M=M, ef_construction=EF_CONSTRUCTION, **options)
    begun = time.process_time()
    index.add(base)
    built = time.process_time() - begun
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "index")
        index.save(path)
        size = os.path.getsize(path)
    return built, size, lambda q, width: index.search(q, K, ef_search=width).ids


def of_faiss(kind: str, base: Array, metric: str) -> tuple[float, float, Search]:
    import faiss

    faiss.omp_set_num_threads(1)
    rows = unit(base) if metric == "cosine" else base
    index = faiss.index_factory(base.shape[1], f"HNSW{M},{kind}", faiss.METRIC_L2)
    index.hnsw.efConstruction = EF_CONSTRUCTION
    begun = time.process_time()
    index.train(rows)
    index.add(rows)
    built = time.process_time() - begun

    def search(queries: Array, width: int) -> Array:
        index.hnsw.efSearch = width
        return np.asarray(index.search(unit(queries) if metric == "cosine" else queries, K)[1])

    return built, len(faiss.serialize_index(index)), search


def recall(found: Array, truth: Array) -> float:
    return float(np.mean([len(set(a) & set(b)) / K for a, b in zip(found, truth, strict=True)]))


def true_neighbours(base: Array, queries: Array, metric: str) -> Array:
    """Ids of the ten nearest, by all products; float32 is enough to tell neighbours apart here."""
    rows, asked = (unit(base), unit(queries)) if metric == "cosine" else (base, queries)
    squares = np.einsum("ij,ij->i", rows, rows)
    near = []
    for query in asked:
        far = squares - 2 * (rows @ query)
        some = np.argpartition(far, K)[: K + 1]
        near.append(some[np.argsort(far[some], kind="stable")][:K])
    return np.array(near)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", default="minilm-10k")
    parser.add_argument("--rows", type=int, help="the first so many rows only")
    parser.add_argument("--library", choices=tuple(KINDS), required=True)
    parser.add_argument("--kinds", nargs="*")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    data = datasets.load(options.data)
    base = np.ascontiguousarray(data.base[: options.rows], np.float32)
    queries = np.ascontiguousarray(data.queries[:QUERIES], np.float32)
    kept = options.out.with_name(f"truth-{options.data}-{len(base)}.npy")
    if kept.exists():
        truth = np.load(kept)
    else:
        truth = true_neighbours(base, queries, data.metric)
        np.save(kept, truth)
    adapter = of_vicinal if options.library == "vicinal" else of_faiss
    for kind in options.kinds or KINDS[options.library]:
        built, size, search = adapter(kind, base, data.metric)
        curve = []
        for width in WIDTHS:
            times = []
            for _ in range(ROUNDS):
                begun = time.process_time()
                found = search(queries, width)
                times.append(time.process_time() - begun)
            curve.append([width, round(recall(found, truth), 4), round(len(queries) / min(times))])
        line = {
            "kind": "codes_alone",
            "data": options.data,
            "rows": len(base),
            "dim": base.shape[1],
            "metric": data.metric,
            "library": options.library,
            "codes": kind,
            "bytes_a_row": round(size / len(base), 1),
            "build_cpu_s": round(built, 1),
            "curve": curve,
        }
        with options.out.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(line)


if __name__ == "__main__":
    main()
