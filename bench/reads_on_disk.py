"""Ways of reading vectors on disk, at the same limit and with the same queries: CPU, bytes, speed.

    python bench/reads_on_disk.py --index FILE --queries QUERIES.npy --ways advise uring \
        --shares 0.25 0.5 --warm WARM.npy --out FILE.jsonl

Each run is a process of its own in a control group with a share of the file's bytes, and takes a
few seconds. Queries of WARM are asked first, all in one call, so that the cache holds what it will.
Then 600 queries in one call, then 400 others one by one. CPU is that of the process, the system's
share in it included; what the disk does besides is not in it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import machine
import vicinal
from memory_limit import evict, memory_limit

K, EF, TOGETHER, ONE_BY_ONE = 10, 64, 600, 400


def read_bytes() -> int:
    """Return how many bytes this process has had the disk read."""
    text = Path("/proc/self/io").read_text(encoding="ascii")
    return int(text.split("\nread_bytes:")[1].split()[0])


def child(index_file: str, queries_file: str, warm_file: str, way: str, procs: str) -> None:
    """Ask in one way; in a process of its own."""
    queries = np.load(queries_file)[: TOGETHER + ONE_BY_ONE]
    warm = np.load(warm_file) if warm_file else queries[:0]
    os.environ["VICINAL_IO"] = way
    Path(procs).write_text(str(os.getpid()), encoding="ascii")
    index = vicinal.open(index_file, resident="walk")
    if len(warm):
        index.search(warm, K, ef_search=EF)
    told: dict[str, Any] = {"by": index.stats()["reads"]["by"]}
    for name, asked in (("batch", queries[:TOGETHER]), ("one", queries[-ONE_BY_ONE:])):
        used, read = resource.getrusage(resource.RUSAGE_SELF), read_bytes()
        times = []
        start = time.perf_counter()
        for query in [asked] if name == "batch" else asked:
            begun = time.perf_counter()
            index.search(query, K, ef_search=EF)
            times.append(time.perf_counter() - begun)
        seconds = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_SELF)
        cpu = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
        told[name] = {
            "queries_a_second": len(asked) / seconds,
            "cpu_us": 1e6 * cpu / len(asked),
            "user_us": 1e6 * (after.ru_utime - used.ru_utime) / len(asked),
            "read_bytes_a_query": (read_bytes() - read) / len(asked),
        }
        if name == "one":
            told[name]["p50_us"] = 1e6 * float(np.percentile(times, 50))
            told[name]["p99_us"] = 1e6 * float(np.percentile(times, 99))
    print(json.dumps(told))


def main() -> None:
    """Ask in every way under every limit."""
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--queries", type=Path, required=True)
    parser.add_argument("--warm", default="")
    parser.add_argument("--ways", nargs="+", default=["advise", "uring"])
    parser.add_argument("--shares", nargs="+", type=float, default=[0.25])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    size = options.index.stat().st_size
    for share in options.shares:
        for way in options.ways:
            evict(options.index)
            with memory_limit(int(size * share)) as group:
                command = [sys.executable, __file__, "--child", str(options.index)]
                command += [str(options.queries), options.warm, way, str(group.procs)]
                result = {
                    "kind": "reads_on_disk",
                    "machine": machine.describe(["vicinal"]),
                    "share": share,
                    "warm": bool(options.warm),
                    **json.loads(subprocess.check_output(command, text=True)),
                    "peak": group.peak(),
                    "killed": group.killed(),
                }
            print(json.dumps({**result, "machine": result["machine"]["load"]}), flush=True)
            if options.out:
                with options.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
