"""Speed at equal recall beside research code: SymphonyQG, RaBitQ's HNSW and pyglass.

    python bench/research.py --path SITE_PACKAGES --data sift-photo-10k --out results.jsonl
    python bench/research.py --path SITE_PACKAGES --data sift-real-500k-b --rows 50000 200000 \\
        --indexes vicinal symqg --k 10 100 --out results.jsonl
    python bench/research.py --data sift-real-500k-b --rows 200000 --keep FOLDER --only-build
    python bench/research.py --table results.jsonl

The others are built from their public sources, outside this repository: `rabitqlib` is the Python
package of RaBitQ-Library, `glass` that of pyglass. `--path` is the folder that holds them, which
comes first on the path of their processes. Every index lives in a process of its own and is asked
all queries in one call on one thread, in turns at each width, `--rounds` times; what counts is the
CPU time of the process, since the machine may be shared. `vicinal-one` is asked query by query.
Others than Vicinal and pyglass have no cosine: they get rows and queries of unit length. Indexes
that were built before are opened from the folder that `--keep` names; nothing is built in the runs
that are timed then.

Writes JSON lines (`build` and `search`); `--table` prints queries per second at fixed recalls, by
interpolation between widths on the median of the rounds, with the spread of the rounds.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import datasets

Array = np.ndarray[Any, Any]
Ask = Callable[[Array, int, int], Array]  # queries, k, width -> ids
INDEXES = ("vicinal", "vicinal-one", "symqg", "rabitq", "glass")
RECALLS = (0.9, 0.95, 0.99, 0.999)
WIDTHS = {
    10: (10, 12, 16, 20, 24, 32, 40, 48, 64, 96, 128, 192, 256, 384, 512, 800),
    100: (100, 128, 160, 200, 256, 320, 400, 512, 640, 800, 1200),
}
DEGREE, WIDE_DEGREE, EF_CONSTRUCTION = 16, 32, 200


# ---- in the process of one index


def of_vicinal(base: Array, metric: str, kept: Path | None, singly: bool) -> Ask:
    """Build or open an index of this library."""
    import vicinal

    if kept is not None and kept.exists():
        index = vicinal.open(kept, mode="copy")
    else:
        index = vicinal.Index(base.shape[1], metric, M=DEGREE, ef_construction=EF_CONSTRUCTION)
        index.add(base, num_threads=1)
        if kept is not None:
            index.save(kept)

    def ask(queries: Array, k: int, width: int) -> Array:
        if singly:
            found = [index.search(q, k, ef_search=width, num_threads=1).ids for q in queries]
            return np.array(found)
        return index.search(queries, k, ef_search=width, num_threads=1).ids

    return ask


def of_symqg(base: Array, metric: str, kept: Path | None) -> Ask:
    """Build SymphonyQG's graph, in its authors' newer library."""
    kind = importlib.import_module("rabitqlib").SymqgIndex
    if kept is not None and kept.exists():
        index = kind.load(str(kept))
    else:
        index = kind(base.shape[1], WIDE_DEGREE, "l2")
        index.build(base, EF_CONSTRUCTION, 1)
        if kept is not None:
            index.save(str(kept))
    return lambda queries, k, width: index.search(queries, k, width, 1)[0].astype(np.int64)


def of_rabitq(base: Array, metric: str, kept: Path | None) -> Ask:
    """Build RaBitQ-Library's HNSW on codes of 8 bits; the clusters are faiss's."""
    kind = importlib.import_module("rabitqlib").HnswIndex
    if kept is not None and kept.exists():
        index = kind.load(str(kept))
    else:
        faiss = importlib.import_module("faiss")
        means = faiss.Kmeans(base.shape[1], 16, niter=10, seed=1)
        means.train(base)
        which = means.index.search(base, 1)[1].astype(np.uint32).ravel()
        index = kind(
            dim=base.shape[1],
            max_elements=len(base),
            M=DEGREE,
            ef_construction=EF_CONSTRUCTION,
            nbits=8,
            metric="l2",
        )
        index.build(base, means.centroids, which, num_threads=1, fast_quantization=False)
        if kept is not None:
            index.save(str(kept))
    return lambda queries, k, width: np.asarray(index.search(queries, k, width, 1)[0], np.int64)


def of_glass(base: Array, metric: str, kept: Path | None) -> Ask:
    """Build pyglass's HNSW on 8-bit codes, searched on them, too, and tuned by itself."""
    glass = importlib.import_module("glass")
    glass.set_num_threads(1)
    name = "IP" if metric == "cosine" else "L2"
    if kept is not None and kept.exists():
        graph = glass.Graph(str(kept))
    else:
        graph = glass.Index("HNSW", name, "SQ8U", WIDE_DEGREE, EF_CONSTRUCTION).build(base)
        if kept is not None:
            graph.save(str(kept))
    searcher = glass.Searcher(graph, base, name, "SQ8U", "FP32")
    searcher.optimize(1)

    def ask(queries: Array, k: int, width: int) -> Array:
        searcher.set_ef(max(width, k))
        return np.asarray(searcher.batch_search(queries, k, 1)[0], np.int64)

    return ask


def serve(name: str, data: str, rows: int, most: int, folder: str) -> None:
    """Build the index that `name` says and answer one line of JSON for each line of input."""
    base, queries, truth, metric = loaded(data, rows, most)
    if metric == "cosine" and not name.startswith("vicinal"):
        base, queries = unit(base), unit(queries)
    kept = Path(folder) / f"{name.removesuffix('-one')}-{data}-{rows}.index" if folder else None
    opened = kept is not None and kept.exists()
    start = time.process_time()
    if name.startswith("vicinal"):
        ask = of_vicinal(base, metric, kept, name.endswith("-one"))
    else:
        ask = {"symqg": of_symqg, "rabitq": of_rabitq, "glass": of_glass}[name](base, metric, kept)
    spent = time.process_time() - start
    told = {"open_cpu_s" if opened else "build_cpu_s": spent}
    print("@", json.dumps(told), flush=True)
    for line in sys.stdin:
        k, width = json.loads(line)
        start, wall = time.process_time(), time.perf_counter()
        ids = ask(queries, k, width)
        spent, wall = time.process_time() - start, time.perf_counter() - wall
        hits = sum(len(np.intersect1d(a, b[:k])) for a, b in zip(ids, truth, strict=True))
        told = {"us": spent / len(queries) * 1e6, "recall": hits / (k * len(queries))}
        told["wall_us"] = wall / len(queries) * 1e6
        print("@", json.dumps(told), flush=True)


def unit(vectors: Array) -> Array:
    """Return vectors of length 1."""
    return np.ascontiguousarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def loaded(data: str, rows: int, most: int) -> datasets.DataSet:
    """Read a set as float32: its first `rows` rows and at most so many queries."""
    whole = datasets.load(data)
    part = datasets.first_rows(whole, min(rows or len(whole.base), len(whole.base)))
    return part._replace(
        base=np.ascontiguousarray(part.base, np.float32),
        queries=np.ascontiguousarray(part.queries[:most], np.float32),
        truth=part.truth[:most],
    )


# ---- in the process that asks


class Served:
    """An index in a process of its own."""

    def __init__(self, name: str, data: str, rows: int, options: argparse.Namespace) -> None:
        paths = [*options.path, os.environ.get("PYTHONPATH", "")]
        self.name = name
        self.process = subprocess.Popen(
            [
                *(sys.executable, __file__, "--serve", name, data, str(rows)),
                *(str(options.queries), str(options.keep or "")),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        )
        self.built = self._answer()

    def _answer(self) -> dict[str, float]:
        assert self.process.stdout is not None
        for line in self.process.stdout:  # libraries print, too
            if line.startswith("@ "):
                told: dict[str, float] = json.loads(line[2:])
                return told
        raise RuntimeError(f"{self.name}: the process ended")

    def ask(self, k: int, width: int) -> dict[str, float]:
        """Search at a width."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([k, width]) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()  # closes the pipes, too


def measure(options: argparse.Namespace) -> None:
    """Measure all indexes on all sets and write what comes out."""
    with options.out.open("a", encoding="utf-8") as out:

        def write(record: dict[str, Any]) -> None:
            print(json.dumps(record), file=out, flush=True)

        for data in options.data:
            for rows in options.rows:
                about = {"data": data, "rows": rows}
                served = [Served(name, data, rows, options) for name in options.indexes]
                for one in served:
                    write({"kind": "build", **about, "index": one.name, **one.built})
                for k in () if options.only_build else options.k:
                    sweep(served, k, options.rounds, {"kind": "search", **about, "k": k}, write)
                for one in served:
                    one.close()


def sweep(
    served: list[Served],
    k: int,
    rounds: int,
    about: dict[str, Any],
    write: Callable[[dict[str, Any]], None],
) -> None:
    """Ask all indexes at all widths in turns, each until it finds more than is looked at."""
    enough: set[str] = set()
    for width in WIDTHS.get(k, tuple(k * times // 4 for times in range(4, 40, 4))):
        open_ones = [one for one in served if one.name not in enough]
        times: dict[str, list[float]] = defaultdict(list)
        walls: dict[str, list[float]] = defaultdict(list)
        recall: dict[str, float] = {}
        for turn in range(rounds + 1):
            shift = turn % max(len(open_ones), 1)
            for one in open_ones[shift:] + open_ones[:shift]:
                told = one.ask(k, width)
                recall[one.name] = told["recall"]
                if turn:  # the first warms up
                    times[one.name].append(told["us"])
                    walls[one.name].append(told["wall_us"])
        for one in open_ones:
            found = {"recall": recall[one.name], "us": times[one.name], "wall_us": walls[one.name]}
            write({**about, "index": one.name, "width": width, **found})
            if recall[one.name] > RECALLS[-1]:
                enough.add(one.name)


# ---- the table


def at_recall(curve: list[tuple[float, float]], wanted: float) -> float | None:
    """Return microseconds at a recall, interpolated; None if it is not reached.

    Where the first point exceeds it, that point: the index is as fast at least.
    """
    last: tuple[float, float] | None = None
    for recall, us in curve:
        if recall >= wanted:
            if last is None or recall == last[0]:
                return us
            low, high = (math.log(1.0001 - x) for x in (last[0], recall))
            share = (low - math.log(1.0001 - wanted)) / (low - high)
            return math.exp(math.log(last[1]) + share * (math.log(us) - math.log(last[1])))
        last = (recall, us)
    return None


def table(path: Path) -> None:
    """Print queries a second at fixed recalls, and how many times the best other."""
    curves: dict[tuple[str, int, int], dict[str, list[tuple[float, float]]]] = defaultdict(dict)
    spreads: list[float] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if record["kind"] == "search":
            key = (record["data"], record["rows"], record["k"])
            us = statistics.median(record["us"])
            spreads.append((max(record["us"]) - min(record["us"])) / us)
            curves[key].setdefault(record["index"], []).append((record["recall"], us))
    print("| set | rows | k | index |", " | ".join(f"{r}" for r in RECALLS), "|")
    print("|---|---:|---:|---|" + "---:|" * len(RECALLS))
    for (data, rows, k), indexes in curves.items():
        best: list[float] = []
        for recall in RECALLS:
            others = (at_recall(c, recall) for n, c in indexes.items() if "vicinal" not in n)
            best.append(min((us for us in others if us is not None), default=math.nan))
        for name, curve in indexes.items():
            cells = []
            for recall, other in zip(RECALLS, best, strict=True):
                us = at_recall(curve, recall)
                cells.append("-" if us is None else f"{1e6 / us:,.0f} ({other / us:.2f}x)")
            print(f"| {data} | {rows or 'all'} | {k} | {name} |", " | ".join(cells), "|")
    spread = statistics.median(spreads)
    print(f"\nIn brackets: times the best of the others. Median spread {spread:.0%}.")


def main() -> None:
    """Measure, or print the table of a file."""
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]), sys.argv[6])
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=["sift-photo-10k", "minilm-10k"])
    parser.add_argument("--rows", nargs="+", type=int, default=[0], help="0: all")
    parser.add_argument("--indexes", nargs="+", choices=INDEXES, default=list(INDEXES))
    parser.add_argument("--k", nargs="+", type=int, default=[10, 100])
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--path", nargs="*", default=[], help="folders of the others' packages")
    parser.add_argument("--keep", type=Path, help="folder of built indexes, written and opened")
    parser.add_argument("--only-build", action="store_true", help="fill that folder only")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    if options.table:
        table(options.table)
    elif options.out:
        measure(options)
    else:
        parser.error("give --out or --table")


if __name__ == "__main__":
    main()
