"""Packed bits: builds and searches of vicinal, faiss and usearch on the same bits.

    python bench/bits.py --rows 200000 --bits 256 --library vicinal --out results.jsonl
    python bench/bits.py --rows 200000 --bits 256 --library faiss --out results.jsonl

Bits are signs of embeddings that lie in fewer dimensions, around 1,000 centres. One thread; times
are CPU times, so that other programs hardly disturb them. vicinal goes first: its exact scan finds
the truth, which is kept beside `--out`. All get M = 16 and ef_construction = 100.
`--metric jaccard` is for vicinal and usearch, which calls it tanimoto.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
K, QUERIES, LOW = 10, 2000, 24
EF_CONSTRUCTION, M = 100, 16
WIDTHS = (10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
ENOUGH = 0.995


def made(rows: int, bits: int, seed: int) -> Array:
    common = np.random.default_rng(0)
    turn = common.standard_normal((LOW, bits)).astype(np.float32)
    centres = common.standard_normal((1000, LOW)).astype(np.float32)
    rng = np.random.default_rng(seed)
    parts = []
    for start in range(0, rows, 50_000):
        n = min(50_000, rows - start)
        low = rng.standard_normal((n, LOW)).astype(np.float32)
        low = centres[rng.integers(0, 1000, n)] + np.float32(0.7) * low
        noise = rng.standard_normal((n, bits)).astype(np.float32)
        parts.append(np.packbits(low @ turn + np.float32(0.5) * noise > 0, axis=1))
    return np.concatenate(parts)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.process_time()
    result = work()
    return time.process_time() - begun, result


def adapter(
    library: str, bits: int, metric: str
) -> tuple[Callable[[Array], Any], Callable[[Array, int], Array], str]:
    """Return what adds rows, what searches with a width, and the version."""
    if library == "vicinal":
        import vicinal

        vicinal.set_num_threads(1)
        index = vicinal.Index(bits, metric, dtype="b1", M=M, ef_construction=EF_CONSTRUCTION)
        return (
            index.add,
            lambda queries, width: index.search(queries, K, ef_search=width).distances,
            vicinal.__version__,
        )
    if library == "faiss":
        import faiss

        faiss.omp_set_num_threads(1)
        binary = faiss.IndexBinaryHNSW(bits, M)
        binary.hnsw.efConstruction = EF_CONSTRUCTION

        def search(queries: Array, width: int) -> Array:
            binary.hnsw.efSearch = width
            found: Array = binary.search(queries, K)[0]
            return found

        return binary.add, search, str(faiss.__version__)
    import usearch
    from usearch.index import Index

    named = "tanimoto" if metric == "jaccard" else metric
    other = Index(
        ndim=bits, metric=named, dtype="b1", connectivity=M, expansion_add=EF_CONSTRUCTION
    )

    def look(queries: Array, width: int) -> Array:
        other.expansion_search = width
        found: Array = other.search(queries, K, threads=1).distances
        return found

    return (
        lambda rows: other.add(np.arange(len(rows)), rows, threads=1),
        look,
        str(usearch.__version__),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--bits", type=int, default=256)
    parser.add_argument("--library", choices=("vicinal", "faiss", "usearch"), required=True)
    parser.add_argument("--metric", choices=("hamming", "jaccard"), default="hamming")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if options.metric == "jaccard" and options.library == "faiss":
        parser.error("--library: faiss has no graph for --metric jaccard")
    base, queries = made(options.rows, options.bits, 1), made(QUERIES, options.bits, 2)
    name = "" if options.metric == "hamming" else f"-{options.metric}"
    truth = options.out.with_name(f"truth-{options.rows}-{options.bits}{name}.npy")
    if options.library == "vicinal":
        import vicinal

        seconds, exact = timed(
            lambda: vicinal.exact_search(base, queries, K, options.metric, num_threads=1)
        )
        np.save(truth, exact.distances)
        print(f"exact scan: {seconds:.2f} s for {QUERIES} queries")
    bound = np.load(truth)[:, -1:] + np.float32(
        1e-6
    )  # distances of others may be rounded otherwise
    add, search, version = adapter(options.library, options.bits, options.metric)
    built, _ = timed(lambda: add(base))
    line: dict[str, Any] = {
        "kind": "bits",
        "library": options.library,
        "version": version,
        "rows": options.rows,
        "bits": options.bits,
        "metric": options.metric,
        "build_cpu_s": built,
        "cpus": os.cpu_count(),
        "curve": [],
    }
    print(f"{options.library} {version}: built in {built:.1f} s")
    for width in WIDTHS:
        times, found = [], None
        for _ in range(3):
            seconds, found = timed(lambda width=width: search(queries, width))  # type: ignore[misc]
            times.append(seconds)
        recall = float((found <= bound).mean())
        line["curve"].append([width, recall, QUERIES / min(times)])
        print(f"  width {width}: recall {recall:.4f}, {QUERIES / min(times):.0f} queries/s")
        if recall >= ENOUGH:
            break
    with options.out.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
