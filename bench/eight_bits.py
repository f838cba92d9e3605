"""Floats stored in 8 bits: recall of the ten nearest of the floats, bytes and speed, by `scale`.

    python bench/eight_bits.py --data minilm-10k --out results.jsonl
    python bench/eight_bits.py --data minilm-10k --peers --out results.jsonl

The rows of a data set at unit length, whole as float32, and in int8: with "cosine" by scale="auto"
(each row as large as 8 bits hold) and by 1/127 (what usearch's i8 and others that take values from
-1 to 1 do), with "l2" by the largest value of all / 127; queries are floats, and once more rounded
to int8 by hand. `--peers`: HNSW of faiss over its scalar quantizer with 8 bits, and usearch i8. One
thread, CPU time, k = 10, M = 16, ef_construction = 200.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import datasets

Array = np.ndarray[Any, np.dtype[Any]]
K, QUERIES, ROUNDS = 10, 1000, 3
WIDTHS = (16, 32, 64, 128, 256)
Search = Callable[[Array, int], Array]


def unit(rows: Array) -> Array:
    return (rows / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)).astype("f4")


def filled(rows: Array) -> Array:
    return np.rint(rows * (127 / np.abs(rows).max(axis=1, keepdims=True))).astype(np.int8)


def ours(base: Array) -> Iterator[tuple[str, float, int, Search]]:
    import vicinal

    vicinal.set_num_threads(1)
    largest = float(np.abs(base).max())
    for name, metric, options in (
        ("vicinal float32", "cosine", {}),
        ("vicinal int8, cosine, auto", "cosine", {"dtype": "int8", "scale": "auto"}),
        ("vicinal int8, cosine, 1/127", "cosine", {"dtype": "int8", "scale": 1 / 127}),
        ("vicinal int8, l2, largest/127", "l2", {"dtype": "int8", "scale": largest / 127}),
        ("vicinal int8, ip, largest/127", "ip", {"dtype": "int8", "scale": largest / 127}),
    ):
        index = vicinal.Index(base.shape[1], metric, **options)
        begun = time.process_time()
        index.add(base)
        built = time.process_time() - begun

        def search(queries: Array, width: int, index: Any = index) -> Array:
            found: Array = index.search(queries, K, ef_search=width).ids
            return found

        yield name, built, len(index.to_bytes()), search
        if name.endswith("auto"):
            yield (
                "vicinal int8, queries int8",
                built,
                len(index.to_bytes()),
                lambda q, width, search=search: search(filled(q), width),
            )


def peers(base: Array) -> Iterator[tuple[str, float, int, Search]]:
    import faiss
    from usearch.index import Index

    faiss.omp_set_num_threads(1)
    index = faiss.index_factory(base.shape[1], "HNSW16,SQ8", faiss.METRIC_L2)
    index.hnsw.efConstruction = 200
    begun = time.process_time()
    index.train(base)
    index.add(base)
    built = time.process_time() - begun

    def search(queries: Array, width: int) -> Array:
        index.hnsw.efSearch = width
        return np.asarray(index.search(queries, K)[1])

    yield "faiss SQ8", built, len(faiss.serialize_index(index)), search
    other = Index(ndim=base.shape[1], metric="cos", dtype="i8", connectivity=16, expansion_add=200)
    begun = time.process_time()
    other.add(np.arange(len(base)), base, threads=1)
    built = time.process_time() - begun

    def look(queries: Array, width: int) -> Array:
        other.expansion_search = width
        return np.asarray(other.search(queries, K, threads=1).keys)

    yield "usearch i8", built, other.serialized_length, look


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="minilm-10k")
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    data = datasets.load(options.data)
    base, queries = unit(data.base), unit(data.queries[:QUERIES])
    truth = np.argsort(-(queries @ base.T), axis=1)[:, :K]
    for name, built, size, search in (peers if options.peers else ours)(base):
        curve = []
        for width in WIDTHS:
            times, found = [], None
            for _ in range(ROUNDS):
                begun = time.process_time()
                found = search(queries, width)
                times.append(time.process_time() - begun)
            assert found is not None
            hits = [len(set(a) & set(b)) / K for a, b in zip(found, truth, strict=True)]
            curve.append([width, round(float(np.mean(hits)), 4), round(len(queries) / min(times))])
        line = {
            "kind": "eight_bits",
            "data": options.data,
            "rows": len(base),
            "dim": base.shape[1],
            "what": name,
            "build_cpu_s": round(built, 2),
            "bytes_a_row": round(size / len(base), 1),
            "curve": curve,
        }
        print(line)
        if options.out:
            with options.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
