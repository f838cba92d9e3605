"""Exact batch search beside NumPy (matrix product and argpartition), interleaved.

    python bench/exact_vs_numpy.py --data fashion-mnist-784 minilm-10k --threads 1,2

Each of the two runs in a process of its own whose BLAS is held to the given number of threads by
environment variables, the only way that works whatever BLAS NumPy has. Both get the same float32
arrays, norms included in the time, and must find the same neighbours.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

import adapters
import curves
import datasets
import machine
from worker import peak_bytes, start_peak

SIDES = ("vicinal", "numpy")
BLAS_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
EQUAL = 2e-5  # relative difference of distances up to which float32 may order two rows either way


class Side:
    """One of the two in its process, which answers each call with seconds and ids."""

    def __init__(self, side: str, vectors: Path, metric: str, k: int, threads: int) -> None:
        for name in BLAS_VARIABLES:
            os.environ[name] = str(threads)
        self.name = f"{side} with {threads} threads"
        context = multiprocessing.get_context("spawn")
        self.pipe, far_end = context.Pipe()
        self.process = context.Process(
            target=serve, args=(far_end, side, vectors, metric, k, threads), daemon=True
        )
        self.process.start()
        far_end.close()

    def __call__(self) -> dict[str, Any]:
        """Search once."""
        self.pipe.send("search")
        answer = self.pipe.recv()
        if isinstance(answer, str):
            sys.exit(f"{self.name}: {answer}")
        return dict(answer)

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.join()


def serve(pipe: Connection, side: str, vectors: Path, metric: str, k: int, threads: int) -> None:
    """Search whenever asked; the target of the process."""
    base, queries = np.load(vectors / "base.npy"), np.load(vectors / "queries.npy")
    try:
        while True:
            pipe.recv()
            before = start_peak()
            cpu, start = time.process_time(), time.perf_counter()
            ids = search(side, base, queries, metric, k, threads)
            seconds = time.perf_counter() - start
            share = (time.process_time() - cpu) / seconds
            peak = peak_bytes() - before
            pipe.send({"seconds": seconds, "cpu_per_wall": share, "peak_bytes": peak, "ids": ids})
    except EOFError:
        return
    except Exception:
        pipe.send(traceback.format_exc())


def search(
    side: str, base: np.ndarray, queries: np.ndarray, metric: str, k: int, threads: int
) -> np.ndarray:
    """Return the ids of the k nearest rows by the named side, all work included."""
    if side == "vicinal":
        import vicinal

        found = vicinal.exact_search(base, queries, k, metric, num_threads=threads)
        return np.asarray(found.ids)
    numpy_side = adapters.parse("numpy")[0](base.shape[1], metric, 0, 0, 0, Path())
    numpy_side.build(numpy_side.prepare(base), threads)
    return np.asarray(numpy_side.search_batch(queries, k))


def disagreements(first: np.ndarray, second: np.ndarray, data: datasets.DataSet) -> tuple[int, int]:
    """Return how many places differ, and how many of those are not ties up to rounding."""
    places = np.argwhere(first != second)
    wrong = 0
    for query, place in places:
        rows = data.base[[first[query, place], second[query, place]]]
        one, other = datasets.exact_distances(rows, data.queries[query], data.metric)
        wrong += bool(abs(one - other) > EQUAL * max(abs(one), abs(other), 1e-3))
    return len(places), wrong


def compare(name: str, data: datasets.DataSet, threads: int, rounds: int, k: int) -> dict[str, Any]:
    """Return the record of one vector set and number of threads."""
    with tempfile.TemporaryDirectory(prefix="vicinal-bench-") as folder:
        np.save(Path(folder, "base.npy"), data.base)
        np.save(Path(folder, "queries.npy"), data.queries)
        sides = {side: Side(side, Path(folder), data.metric, k, threads) for side in SIDES}
        answers: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
        for number in range(rounds + 1):
            for side in SIDES if number % 2 else reversed(SIDES):
                answer = sides[side]()
                if number:  # the first round warms up
                    answers[side].append(answer)
        for one in sides.values():
            one.close()
    ours, theirs = (answers[side][0]["ids"] for side in SIDES)
    differing, wrong = disagreements(ours, theirs, data)
    seconds = {side: [one["seconds"] for one in answers[side]] for side in SIDES}
    pairs = zip(seconds["numpy"], seconds["vicinal"], strict=True)
    return {
        "kind": "exact",
        "data": name,
        "rows": len(data.base),
        "dim": data.base.shape[1],
        "queries": len(data.queries),
        "metric": data.metric,
        "k": k,
        "threads": threads,
        "seconds": {side: curves.stats(seconds[side]) for side in SIDES},
        "cpu_per_wall": {s: curves.stats([a["cpu_per_wall"] for a in answers[s]]) for s in SIDES},
        "peak_bytes": {side: min(one["peak_bytes"] for one in answers[side]) for side in SIDES},
        "times_numpy": curves.stats([numpy / vicinal for numpy, vicinal in pairs]),
        "differing": differing,
        "wrong": wrong,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Compare on every set and number of threads; fail if the answers differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", required=True, help="names or paths of vector sets")
    parser.add_argument("--threads", default="1,2", help="comma-separated numbers of threads")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--queries", type=int, default=1000, help="use at most this many queries")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--out", type=Path, help="append the records to this results file")
    options = parser.parse_args(argv)
    records: list[dict[str, Any]] = [{"kind": "run", **machine.describe(SIDES)}]
    for name in options.data:
        path = datasets.find(name)
        data = datasets.load(path)
        data = data._replace(
            base=data.base.astype(np.float32),
            queries=data.queries[: options.queries].astype(np.float32),
        )
        for threads in (int(part) for part in options.threads.split(",")):
            record = compare(path.stem, data, threads, options.rounds, options.k)
            records.append(record)
            times, seconds = record["times_numpy"], record["seconds"]
            print(
                f"{record['data']} {record['rows']:,} x {record['dim']}, {record['queries']} "
                f"queries, {threads} threads: vicinal {seconds['vicinal']['median']:.3f} s, "
                f"numpy {seconds['numpy']['median']:.3f} s, {times['median']:.2f}x "
                f"({times['min']:.2f} to {times['max']:.2f}); extra memory "
                f"{record['peak_bytes']['vicinal'] / 1e6:.1f} and "
                f"{record['peak_bytes']['numpy'] / 1e6:.1f} MB; {record['differing']} ids differ, "
                f"{record['wrong']} beyond rounding",
                flush=True,
            )
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with options.out.open("a", encoding="utf-8") as out:
            out.writelines(json.dumps(record) + "\n" for record in records)
    if any(record.get("wrong") for record in records):
        sys.exit("the two do not agree")


if __name__ == "__main__":
    main()
