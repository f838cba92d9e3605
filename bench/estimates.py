"""What `vicinal.estimate` says beside what an index takes: bytes, and seconds to build.

    python bench/estimates.py --data sift-real-500k-b --rows 200000 --out results.jsonl
    python bench/estimates.py --data gauss-64 --rows 200000 --out results.jsonl

`gauss-64` are made vectors of 64 values. One thread; seconds are wall times, as `build_time` tells
them, so nothing else may be running; the CPU time of the build stands beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np

import datasets
import vicinal


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="sift-real-500k-b")
    parser.add_argument("--rows", type=int)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    vicinal.set_num_threads(1)
    if options.data.startswith("gauss-"):
        dim, metric = int(options.data.split("-")[1]), "l2"
        base = np.random.default_rng(0).standard_normal((options.rows or 200_000, dim))
    else:
        data = datasets.load(options.data)
        base, metric = data.base[: options.rows], data.metric
    base = np.ascontiguousarray(base, np.float32)
    told = vicinal.estimate(len(base), base.shape[1], metric)
    seconds = told.build_time()
    index = vicinal.Index(base.shape[1], metric)
    begun, used = time.perf_counter(), time.process_time()
    index.add(base)
    built, cpu = time.perf_counter() - begun, time.process_time() - used
    line = {
        "kind": "estimate",
        "data": options.data,
        "rows": len(base),
        "dim": base.shape[1],
        "seconds": round(seconds.seconds, 1),
        "low": round(seconds.low, 1),
        "high": round(seconds.high, 1),
        "built_s": round(built, 1),
        "built_cpu_s": round(cpu, 1),
        "bytes": told.bytes,
        "memory": dict(index.memory_usage()),
        "load": os.getloadavg()[0],
    }
    print(line)
    if options.out:
        with options.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
