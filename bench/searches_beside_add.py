"""Many searches of a file larger than memory beside an `add` in the process: is the limit kept?

    python bench/searches_beside_add.py --index FILE --queries QUERIES.npy --rows ROWS.npy \
        --count 100000 --share 0.25 --out FILE.jsonl

One thread asks one query after another of an index that was opened with resident="walk"; one asks
them in blocks; a third builds indexes over a mapped array of `--added` rows, one after another,
until the queries are done. All of it in a control group with a share of the file's bytes. Told are
the peak that was charged, whether the system killed anything, and whether each result was the one
found without company.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

import machine
import vicinal
from memory_limit import evict, memory_limit

K, EF, BLOCK = 10, 64, 100


def child(index_file: str, queries_file: str, rows_file: str, procs: str, count: int) -> None:
    """Search and add; in a process of its own."""
    queries = np.load(queries_file)[:1000]
    added = np.load(rows_file, mmap_mode="r")
    Path(procs).write_text(str(os.getpid()), encoding="ascii")
    index = vicinal.open(index_file, resident="walk")
    wanted = index.search(queries, K, ef_search=EF).ids
    stop = threading.Event()
    builds, wrong, times = [0], [0], []

    def add() -> None:
        while not stop.is_set():
            other = vicinal.Index(added.shape[1])
            other.add(added, copy=False, num_threads=1)
            builds[0] += 1

    def ask_blocks(blocks: int) -> None:
        for i in range(blocks):
            first = i * BLOCK % len(queries)
            found = index.search(queries[first : first + BLOCK], K, ef_search=EF, num_threads=1)
            wrong[0] += int((found.ids != wanted[first : first + BLOCK]).any(axis=1).sum())

    adder = threading.Thread(target=add)
    asker = threading.Thread(target=ask_blocks, args=(count // 2 // BLOCK,))
    start = time.perf_counter()
    adder.start()
    asker.start()
    for i in range(count // 2):
        begun = time.perf_counter()
        found = index.search(queries[i % len(queries)], K, ef_search=EF)
        times.append(time.perf_counter() - begun)
        wrong[0] += int((found.ids != wanted[i % len(queries)]).any())
    asker.join()
    seconds = time.perf_counter() - start
    stop.set()
    adder.join()
    told = {
        "queries": count // 2 + count // 2 // BLOCK * BLOCK,
        "seconds": seconds,
        "p50_us": 1e6 * float(np.percentile(times, 50)),
        "p99_us": 1e6 * float(np.percentile(times, 99)),
        "other_results": wrong[0],
        "indexes_built": builds[0],
        "rows_of_each": len(added),
        "reads": index.stats()["reads"],
    }
    print(json.dumps(told))


def main() -> None:
    """Run it under the limit."""
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:6], int(sys.argv[6]))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--queries", type=Path, required=True)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--added", type=int, default=10_000)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--share", type=float, default=0.25)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    few = options.index.parent / "added.npy"
    np.save(few, np.load(options.rows, mmap_mode="r")[: options.added])
    evict(few)
    evict(options.index)
    limit = int(options.index.stat().st_size * options.share)
    with memory_limit(limit) as group:
        command = [sys.executable, __file__, "--child", options.index, options.queries, few]
        done = subprocess.run(
            [*map(str, command), str(group.procs), str(options.count)],
            stdout=subprocess.PIPE,
            text=True,
        )
        result = {
            "kind": "searches_beside_add",
            "machine": machine.describe(["vicinal"]),
            "file_bytes": options.index.stat().st_size,
            "limit": limit,
            "exit": done.returncode,
            "peak": group.peak(),
            "killed": group.killed(),
        }
    few.unlink()
    if done.returncode == 0:
        result |= json.loads(done.stdout)
    print(json.dumps(result))
    if options.out:
        with options.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
