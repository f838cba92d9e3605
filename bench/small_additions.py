"""What rows cost that come one by one, or from many threads, beside the same rows in one call.

    python bench/small_additions.py ones --data sift-real-500k-b --rows 10000 200000 --out FILE
    python bench/small_additions.py calls --data sift-real-500k-b --rows 10000 500000 --out FILE
    python bench/small_additions.py callers --data sift-real-500k-b --rows 20000 --out FILE
    python bench/small_additions.py searches --data sift-real-500k-b --rows 20000 --out FILE
    python bench/small_additions.py quality --data sift-ngt-5k sift-photo-10k --out FILE
    python bench/small_additions.py unreachable --times 1000 --out FILE

`ones`: two indexes of the same rows; the next rows come to the one in calls of `--block`, to the
other in calls of one row, in turns, on one thread. The ratio is that of CPU time, the median over
all blocks; percentiles of a call are of wall time. `update` and `remove` of one row after it.
`calls`: percentiles of a call of one row, by the clock and in CPU time of the thread, which the
machine's other work disturbs less. The rows are the queries of the set, onto its first rows.
`callers`: 8 threads that add 16 rows a call each, one such thread, and one call on two threads.
`searches`: percentiles of a search alone, beside one writer of 16 rows a call and beside eight.
`quality`: recall of an index that grew by calls of some size, over several seeds.
`unreachable`: ten threads add a hundred rows each; then every row is looked for (usearch #735).
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import datasets
import vicinal

Array = np.ndarray[Any, Any]
M, EF_CONSTRUCTION, K = 16, 200, 10
TASKS = ("ones", "calls", "callers", "searches", "quality", "unreachable")


class Vicinal:
    """The index measured, and how the peers below are called."""

    def __init__(self, dim: int, room: int) -> None:
        self.index = vicinal.Index(dim, M=M, ef_construction=EF_CONSTRUCTION)

    def add(self, rows: Array, first: int, threads: int) -> None:
        self.index.add(rows, num_threads=threads)

    def found(self, rows: Array, ef: int) -> Array:
        """Return the nearest row of each."""
        return np.asarray(self.index.search(rows, 1, ef_search=ef).ids[:, 0])


class Hnswlib:
    def __init__(self, dim: int, room: int) -> None:
        self.index = importlib.import_module("hnswlib").Index("l2", dim)
        self.index.init_index(room, ef_construction=EF_CONSTRUCTION, M=M)

    def add(self, rows: Array, first: int, threads: int) -> None:
        self.index.add_items(rows, np.arange(first, first + len(rows)), num_threads=threads)

    def found(self, rows: Array, ef: int) -> Array:
        self.index.set_ef(ef)
        return np.asarray(self.index.knn_query(rows, 1)[0][:, 0])


class Usearch:
    def __init__(self, dim: int, room: int) -> None:
        self.index = importlib.import_module("usearch.index").Index(
            ndim=dim, metric="l2sq", dtype="f32", connectivity=M, expansion_add=EF_CONSTRUCTION
        )

    def add(self, rows: Array, first: int, threads: int) -> None:
        self.index.add(np.arange(first, first + len(rows)), rows, threads=threads)

    def found(self, rows: Array, ef: int) -> Array:
        self.index.expansion_search = ef
        return np.asarray(self.index.search(rows, 1).keys).reshape(-1)


class Faiss:
    def __init__(self, dim: int, room: int) -> None:
        self.faiss = importlib.import_module("faiss")
        self.index = self.faiss.IndexHNSWFlat(dim, M)
        self.index.hnsw.efConstruction = EF_CONSTRUCTION

    def add(self, rows: Array, first: int, threads: int) -> None:
        self.faiss.omp_set_num_threads(threads)
        self.index.add(rows)

    def found(self, rows: Array, ef: int) -> Array:
        self.index.hnsw.efSearch = ef
        return np.asarray(self.index.search(rows, 1)[1][:, 0])


LIBRARIES: dict[str, Any] = {
    "vicinal": Vicinal,
    "hnswlib": Hnswlib,
    "usearch": Usearch,
    "faiss": Faiss,
}


def percentiles(seconds: list[float]) -> dict[str, float]:
    values = np.array(seconds) * 1e6
    return {
        "p50_us": round(float(np.percentile(values, 50)), 1),
        "p99_us": round(float(np.percentile(values, 99)), 1),
    }


def ones(name: str, base: Array, present: int, block: int, blocks: int) -> dict[str, Any]:
    """Measure one library."""
    room = present + 2 * block * blocks
    pair = [LIBRARIES[name](base.shape[1], room) for _ in range(2)]
    for each in pair:
        each.add(base[:present], 0, 2)
    costs: list[list[float]] = [[], []]
    calls: list[float] = []
    for number in range(blocks):
        first = present + number * block
        for way in (0, 1) if number % 2 else (1, 0):
            begin = time.process_time()
            if way == 0:
                pair[0].add(base[first : first + block], first, 1)
            else:
                for row in range(first, first + block):
                    start = time.perf_counter()
                    pair[1].add(base[row : row + 1], row, 1)
                    calls.append(time.perf_counter() - start)
            costs[way].append((time.process_time() - begin) / block * 1e6)
    record = {
        "kind": "ones",
        "library": name,
        "rows": present,
        "block": block,
        "blocks": blocks,
        "cpu_us_a_row_in_blocks": round(statistics.median(costs[0]), 1),
        "cpu_us_a_row_one_by_one": round(statistics.median(costs[1]), 1),
        "ratio": round(
            statistics.median(a / b for a, b in zip(costs[0], costs[1], strict=True)), 3
        ),
        "call": percentiles(calls),
    }
    if name == "vicinal":
        index = pair[1].index
        fresh = base[present + block * blocks :]  # equal rows would not be linked
        record["update"] = percentiles(
            timed(lambda i: index.update(fresh[i : i + 1], [i], num_threads=1), 500)
        )
        record["remove"] = percentiles(timed(lambda i: index.remove([i], num_threads=1), 500))
    return record


def calls(name: str, base: Array, rows: Array) -> dict[str, Any]:
    """Measure single calls of one library."""
    library = LIBRARIES[name](base.shape[1], len(base) + len(rows))
    library.add(base, 0, 2)
    walls: list[float] = []
    thread: list[float] = []
    for row in range(len(rows)):
        wall, cpu = time.perf_counter(), time.thread_time()
        library.add(rows[row : row + 1], len(base) + row, 1)
        thread.append(time.thread_time() - cpu)
        walls.append(time.perf_counter() - wall)
    return {
        "kind": "calls",
        "library": name,
        "rows": len(base),
        "calls": len(rows),
        "call": percentiles(walls),
        "cpu": percentiles(thread),
    }


def timed(call: Callable[[int], object], times: int) -> list[float]:
    seconds = []
    for i in range(times):
        start = time.perf_counter()
        call(i)
        seconds.append(time.perf_counter() - start)
    return seconds


def callers(base: Array, present: int, count: int, rounds: int) -> dict[str, Any]:
    """Measure rows a second of 8 callers, of one, and of one call, in turns."""
    folder = Path(os.environ.get("TMPDIR", "/tmp"))
    path = folder / f"small-additions-{os.getpid()}"
    first = vicinal.Index(base.shape[1], M=M, ef_construction=EF_CONSTRUCTION)
    first.add(base[:present])
    first.save(path)
    speeds: dict[str, list[float]] = {"eight": [], "one": [], "bulk_two_threads": []}
    ways = list(speeds)
    try:
        for turn in range(rounds):
            for way in ways[turn % 3 :] + ways[: turn % 3]:
                index = vicinal.open(path, mode="copy")
                index.add(base[present : present + 1])
                rows = base[present + 1 : present + 1 + count]
                start = time.perf_counter()
                if way == "bulk_two_threads":
                    index.add(rows, num_threads=2)
                else:
                    add_from(index, rows, 8 if way == "eight" else 1)
                speeds[way].append(count / (time.perf_counter() - start))
                assert len(index) == present + 1 + count
    finally:
        path.unlink()
    record: dict[str, Any] = {"kind": "callers", "rows": present, "added": count, "a_call": 16}
    for way, values in speeds.items():
        record[way] = round(statistics.median(values))
    for way in ("one", "bulk_two_threads"):
        ratios = [a / b for a, b in zip(speeds["eight"], speeds[way], strict=True)]
        record[f"eight_over_{way}"] = round(statistics.median(ratios), 2)
    return record


def add_from(index: vicinal.Index, rows: Array, threads: int) -> None:
    """Add rows, 16 a call on one thread, from several threads."""
    parts = np.array_split(rows, threads)

    def run(part: Array) -> None:
        for i in range(0, len(part), 16):
            index.add(part[i : i + 16], num_threads=1)

    workers = [threading.Thread(target=run, args=(part,)) for part in parts]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def searches(base: Array, present: int, seconds: float, rounds: int) -> dict[str, Any]:
    """Measure single searches of one thread beside none, one and eight that add."""
    queries = base[-1000:]
    times: dict[int, list[float]] = {0: [], 1: [], 8: []}
    added: dict[int, int] = dict.fromkeys(times, 0)
    for turn in range(rounds):
        for writers in sorted(times, key=lambda number: (number + turn) % 3):
            index = vicinal.Index(base.shape[1], M=M, ef_construction=EF_CONSTRUCTION)
            index.add(base[:present])
            done = threading.Event()

            def write(first: int, index: Any = index, done: threading.Event = done) -> None:
                for i in range(first, len(base) - 1016, 8 * 16):
                    if done.is_set():
                        break
                    index.add(base[i : i + 16], num_threads=1)

            workers = [
                threading.Thread(target=write, args=(present + 16 * i,)) for i in range(writers)
            ]
            for worker in workers:
                worker.start()
            end = time.perf_counter() + seconds
            number = 0
            while (start := time.perf_counter()) < end:
                index.search(queries[number % 1000], K)
                times[writers].append(time.perf_counter() - start)
                number += 1
            done.set()
            for worker in workers:
                worker.join()
            added[writers] += len(index) - present
    record: dict[str, Any] = {"kind": "searches", "rows": present, "seconds": seconds * rounds}
    for writers, values in times.items():
        record[f"beside_{writers}"] = {"searches": len(values), "rows_added": added[writers]}
        record[f"beside_{writers}"].update(percentiles(values))
    return record


def quality(data: str, step: int, seeds: int) -> dict[str, Any]:
    """Measure what an index finds that grew in calls of `step` rows; 0: in one call."""
    read = datasets.load(data)
    base, queries = read.base[:20_000], read.queries[:1000]
    truth = vicinal.exact_search(base, queries, K, metric=read.metric).ids
    recalls: dict[int, list[float]] = {16: [], 64: []}
    for seed in range(seeds):
        index = vicinal.Index(
            base.shape[1], read.metric, M=M, ef_construction=EF_CONSTRUCTION, seed=seed
        )
        for i in range(0, len(base), step or len(base)):
            index.add(base[i : i + (step or len(base))])
        for ef, found in recalls.items():
            found.append(vicinal.recall_at_k(index.search(queries, K, ef_search=ef).ids, truth))
    return {
        "kind": "quality",
        "data": data,
        "rows": len(base),
        "a_call": step or len(base),
        "seeds": seeds,
        "recall": {ef: round(float(np.mean(found)), 4) for ef, found in recalls.items()},
    }


def unreachable(name: str, times: int) -> dict[str, Any]:
    """Let ten threads add a hundred rows each, and count the rows that are not found.

    A search that keeps nearly all rows does not find a row only if no links lead to it.
    """
    lost = dict.fromkeys((64, 900), 0)
    for seed in range(times):
        rows = np.random.default_rng(seed).standard_normal((1000, 32)).astype(np.float32)
        library = LIBRARIES[name](32, 1000)

        def run(worker: int, library: Any = library, rows: Array = rows) -> None:
            for row in range(worker * 100, worker * 100 + 100):
                if name == "vicinal":
                    library.index.add(rows[row], [row])
                else:
                    library.add(rows[row : row + 1], row, 1)

        workers = [threading.Thread(target=run, args=(i,)) for i in range(10)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        for ef in lost:
            lost[ef] += int((library.found(rows, ef) != np.arange(1000)).sum())
        if name == "vicinal":
            library.index.check()
    return {
        "kind": "unreachable",
        "library": name,
        "times": times,
        "rows_not_found_at_ef_64": lost[64],
        "unreachable": lost[900],
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--data", nargs="+", default=["sift-real-500k-b"])
    parser.add_argument("--rows", nargs="+", type=int, default=[10_000])
    parser.add_argument("--libraries", default=",".join(LIBRARIES))
    parser.add_argument("--block", type=int, default=200)
    parser.add_argument("--blocks", type=int, default=20)
    parser.add_argument("--steps", default="0,1,16,100")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    names = args.libraries.split(",")

    def tell(record: dict[str, Any]) -> None:
        record["load"] = round(os.getloadavg()[0], 1)
        line = json.dumps(record)
        print(line, flush=True)
        if args.out:
            with args.out.open("a") as file:
                file.write(line + "\n")

    if args.task == "quality":
        for data in args.data:
            for step in args.steps.split(","):
                tell(quality(data, int(step), args.seeds))
    elif args.task == "unreachable":
        for name in names:
            tell(unreachable(name, args.times))
    else:
        most = max(args.rows) + args.block * args.blocks + 10_000
        if args.task == "searches":
            most += 100_000
        read = datasets.load(args.data[0])
        base = read.base[:most].astype(np.float32)
        for present in args.rows:
            if args.task == "calls":
                fresh = read.queries.astype(np.float32)
                for name in names:
                    tell({"data": args.data[0], **calls(name, base[:present], fresh)})
                continue
            if args.task == "callers":
                tell({"data": args.data[0], **callers(base, present, 4096, args.rounds)})
                continue
            if args.task == "searches":
                tell({"data": args.data[0], **searches(base, present, 2.0, args.rounds)})
                continue
            for name in names:
                tell(
                    {
                        "data": args.data[0],
                        **ones(name, base, present, args.block, args.blocks),
                    }
                )


if __name__ == "__main__":
    sys.exit(main())
