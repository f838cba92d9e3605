"""Search of a file that is larger than the memory for it: latency, reads and recall under a limit.

    python bench/larger_than_memory.py --rows 100000 --dim 768 --share 0.25 --out FILE.jsonl

Rows are those of `bench/mixture.py`, made data. Each way of opening is run in a process of its own,
in a control group whose limit is a share of the file, with nothing of the file in memory before:

    map      as the system does it by itself: no advice
    none     resident="none": advice, nothing kept
    walk     resident="walk": links, codes and ids kept, rows asked for before they are measured
    memory   no limit, resident="all"

"walk-advise" and "walk-uring" are "walk" with VICINAL_IO set: through the cache, or past it.

The bound that "walk" is held against is the median of "memory" plus that of a burst: as many
requests as "walk" makes a query, asked for at once and all awaited, at random places of the rows,
none of them in the cache, measured in the same process after its queries. All cores: all queries in
one call, and beside it what the disk gives to as many threads with one random read at a time each
(`iops`). `--warm` asks so many other queries before, in the same way: the cache holds by then what
it will.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import mmap
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

import machine
import mixture
import vicinal
from memory_limit import evict, memory_limit

K, EF = 10, 64
READERS = 64  # threads that read for `iops`


def read_bytes() -> int:
    """Return how many bytes this process has had the disk read."""
    text = Path("/proc/self/io").read_text(encoding="ascii")
    return int(text.split("\nread_bytes:")[1].split()[0])


def child(
    way: str, index_file: str, queries_file: str, procs: str, count: int, warm: int
) -> dict[str, Any]:
    """Open a file in one way and measure; run in a process of its own."""
    queries = np.load(queries_file)[: count + 2 * warm]
    queries, before_batch, batch = np.split(queries, [count, count + warm])
    if not warm:
        batch = queries
    evict(index_file)
    way, _, io = way.partition("-")
    os.environ["VICINAL_IO"] = io
    if way == "map":  # where all fits, nothing is advised: the limit comes afterwards
        index = vicinal.open(index_file)
    if procs:
        Path(procs).write_text(str(os.getpid()), encoding="ascii")
    start = time.perf_counter()
    if way != "map":
        index = vicinal.open(index_file, resident="all" if way == "memory" else way)
    opened = time.perf_counter() - start
    index.search(queries[0], K, ef_search=EF)
    index.search(before_batch, K, ef_search=EF)
    asked = index.stats()["reads"]
    before, faults = read_bytes(), resource.getrusage(resource.RUSAGE_SELF)
    times, ids = [], []
    for query in queries:
        start = time.perf_counter()
        ids.append(index.search(query, K, ef_search=EF).ids)
        times.append(time.perf_counter() - start)
    after = resource.getrusage(resource.RUSAGE_SELF)
    reads = index.stats()["reads"]
    usage = index.memory_usage()
    result = {
        "open_seconds": opened,
        "p50_us": 1e6 * float(np.percentile(times, 50)),
        "p99_us": 1e6 * float(np.percentile(times, 99)),
        "mean_us": 1e6 * float(np.mean(times)),
        "cpu_us": 1e6
        * (after.ru_utime + after.ru_stime - faults.ru_utime - faults.ru_stime)
        / count,
        "read_bytes_a_query": (read_bytes() - before) / count,
        "major_faults_a_query": (after.ru_majflt - faults.ru_majflt) / count,
        "by": reads["by"],
        "requests_a_query": (reads["requests"] - asked["requests"]) / count,
        "asked_bytes_a_query": (reads["bytes"] - asked["bytes"]) / count,
        "resident": usage["resident"],
        "locked": usage["locked"],
        "ids": np.array(ids).tolist(),
    }
    if way == "walk":
        size = max(1, round(result["requests_a_query"]))
        result["burst"] = burst(index_file, size, count)
    if way in ("walk", "memory"):
        if not warm:
            evict(index_file)
        if way == "memory":
            index.warmup()
        index.search(before_batch, K, ef_search=EF)
        used = resource.getrusage(resource.RUSAGE_SELF)
        start = time.perf_counter()
        index.search(batch, K, ef_search=EF)
        result["batch_qps"] = len(batch) / (time.perf_counter() - start)
        after = resource.getrusage(resource.RUSAGE_SELF)
        result["batch_cpu_us"] = (
            1e6 * (after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime) / len(batch)
        )
    if way == "walk":
        result["iops"] = iops(index_file)
    return result


def burst(path: str, size: int, count: int) -> dict[str, Any]:
    """Ask for pages at random places of a file, all at once, and touch them."""
    advise = ctypes.CDLL(None).madvise
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as pages:
        pages.madvise(mmap.MADV_RANDOM)
        view = np.frombuffer(pages, np.uint8)
        base = view.ctypes.data
        last = len(view) // 4096 - 1
        rng = np.random.default_rng(1)
        evict(path)
        times = []
        for _ in range(count):
            places = [int(place) * 4096 for place in rng.integers(0, last, size)]
            start = time.perf_counter()
            for place in places:
                advise(ctypes.c_void_p(base + place), ctypes.c_size_t(4096), mmap.MADV_WILLNEED)
            for place in places:
                view[place]
            times.append(time.perf_counter() - start)
            pages.madvise(mmap.MADV_DONTNEED)  # so that the next ones are read, too
            for place in places:
                os.posix_fadvise(file.fileno(), place, 4096, os.POSIX_FADV_DONTNEED)
        del view
    return {
        "size": size,
        "p50_us": 1e6 * float(np.percentile(times, 50)),
        "p99_us": 1e6 * float(np.percentile(times, 99)),
    }


def iops(path: str, seconds: float = 2.0) -> float:
    """Read pages at random places with many threads; the reads a second."""
    evict(path)
    size = os.path.getsize(path) // 4096 - 1
    done = [0] * READERS
    end = time.perf_counter() + seconds

    def read(number: int) -> None:
        rng = np.random.default_rng(number)
        file = os.open(path, os.O_RDONLY | os.O_DIRECT)
        room = mmap.mmap(-1, 4096)
        while time.perf_counter() < end:
            for place in rng.integers(0, size, 64):
                os.preadv(file, [room], int(place) * 4096)
            done[number] += 64
        os.close(file)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(READERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / seconds


def run(
    way: str, index_file: Path, queries_file: Path, limit: int, count: int, warm: int
) -> dict[str, Any]:
    """Measure one way in a process of its own."""
    command = [sys.executable, __file__, "--child", way, str(index_file), str(queries_file)]
    evict(index_file)
    if way == "memory":
        counts = ["", str(count), str(warm)]
        return json.loads(subprocess.check_output([*command, *counts], text=True))
    with memory_limit(limit) as group:
        counts = [str(group.procs), str(count), str(warm)]
        text = subprocess.check_output([*command, *counts], text=True)
        return {**json.loads(text), "peak": group.peak(), "killed": group.killed()}


def main() -> None:
    """Measure all ways."""
    if sys.argv[1:2] == ["--child"]:
        way, index_file, queries_file, procs, count, warm = sys.argv[2:]
        print(json.dumps(child(way, index_file, queries_file, procs, int(count), int(warm))))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--warm", type=int, default=0, help="queries before, and of the batch")
    parser.add_argument("--share", type=float, default=0.25, help="limit, as a share of the file")
    parser.add_argument("--ways", nargs="+", default=["memory", "walk", "none", "map"])
    parser.add_argument("--folder", type=Path, help="keeps the index here for the next time")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        index_file = folder / f"{options.rows}x{options.dim}.vicinal"
        queries_file = folder / f"{options.rows}x{options.dim}.npy"
        if not index_file.exists():
            asked = options.queries + 2 * options.warm
            rows, queries = mixture.draw(options.rows, asked, 0, options.dim)
            np.save(queries_file, queries)
            index = vicinal.Index(options.dim)
            index.add(rows)
            index.save(index_file)
            truth = vicinal.exact_search(rows, queries[: options.queries], K).ids
            np.save(folder / f"{options.rows}x{options.dim}-truth.npy", truth)
            del rows, index
        truth = np.load(folder / f"{options.rows}x{options.dim}-truth.npy")
        size = index_file.stat().st_size
        limit = int(size * options.share)
        result: dict[str, Any] = {
            "kind": "larger_than_memory",
            "machine": machine.describe(["vicinal"]),
            "data": "bench/mixture.py, made data",
            "rows": options.rows,
            "dim": options.dim,
            "k": K,
            "ef_search": EF,
            "file_bytes": size,
            "limit": limit,
            "queries": options.queries,
            "ways": {},
        }
        for way in options.ways:
            count = min(options.queries, 20) if way == "map" else options.queries
            warm = 0 if way == "map" else options.warm
            found = run(way, index_file, queries_file, limit, count, warm)
            ids = np.array(found.pop("ids"))
            hits = [len(set(a) & set(b)) for a, b in zip(ids, truth, strict=False)]
            result["ways"][way] = {"queries": count, "recall": float(np.mean(hits)) / K, **found}
            if way == "memory":
                reference = ids
            elif "memory" in result["ways"]:
                result["ways"][way]["same_ids"] = bool((ids == reference[: len(ids)]).all())
            print(way, json.dumps(result["ways"][way]), flush=True)
        ways = result["ways"]
        for way in [way for way in ways if way.startswith("walk") and "memory" in ways]:
            bound = ways["memory"]["p50_us"] + ways[way]["burst"]["p50_us"]
            ways[way]["bound_us"] = bound
            ways[way]["p50_by_bound"] = ways[way]["p50_us"] / bound
            ways[way]["p99_by_bound"] = ways[way]["p99_us"] / bound
            most = ways[way]["iops"] / ways[way]["requests_a_query"]
            ways[way]["qps_by_disk"] = ways[way]["batch_qps"] / most
            told = {name: value for name, value in ways[way].items() if "_by_" in name}
            print(way, *(f"{name} {value:.3g}" for name, value in told.items()))
    if options.out:
        with options.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
