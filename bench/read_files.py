"""Memory and speed of reading, and building from, a file of vectors.

    python bench/read_files.py --formats fbin,parquet --gigabytes 2
    python bench/read_files.py --formats fbin --gigabytes 0.05 --build
    python bench/read_files.py --formats fbin --gigabytes 2 --dim 1024 --build --m 8 --ef 24

A line of JSON for each file: rows per second, and the most memory that reading took beyond what the
process had before, or beyond the index with --build. Each is measured in a process of its own, on a
file that was written just before and so lies in the system's cache. Parquet needs pyarrow.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time

import numpy as np

import vicinal
from vicinal.vectors_io._source import SeekableSource


def in_use(name: str) -> int:
    """Bytes of this process: VmHWM, the most there was, or VmRSS now."""
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name + ":"))


class Random(SeekableSource):
    """Random vectors, as many as wanted, without holding them."""

    def _read(self, start: int, stop: int) -> tuple[np.ndarray, None]:
        rng = np.random.default_rng(start)
        return rng.standard_normal((stop - start, self.shape[1]), dtype=np.float32), None


def measure(path: str, build: bool, m: int, ef: int, results: multiprocessing.SimpleQueue) -> None:
    """Read a file, or build an index of it."""
    warm = np.ones((10, 8), np.float32)
    small = f"{path}.small.{path.rpartition('.')[2]}"
    vicinal.write_vectors(small, warm)  # what is imported for the format is not what reading takes
    vicinal.read_vectors(small).read()
    before = in_use("VmRSS")
    start = time.perf_counter()
    source = vicinal.read_vectors(path)
    index_bytes = 0
    if build:
        index = vicinal.build(source, M=m, ef_construction=ef)
        index_bytes = index.memory_usage()["total"]
    else:
        for batch in source.batches():
            batch[:, 0].sum()
    seconds = time.perf_counter() - start
    results.put(
        {
            "rows": len(source),
            "dim": source.shape[1],
            "file_bytes": os.stat(path).st_size,
            "build": build,
            "M": m if build else None,
            "ef_construction": ef if build else None,
            "seconds": round(seconds, 3),
            "rows_per_second": round(len(source) / seconds),
            "index_bytes": index_bytes,
            "peak_bytes_beyond": in_use("VmHWM") - before - index_bytes,
        }
    )


def main() -> None:
    """Measure every format that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--formats", default="fbin,npy,parquet")
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--build", action="store_true")
    parser.add_argument("--m", type=int, default=16)
    parser.add_argument("--ef", type=int, default=200)
    options = parser.parse_args()
    rows = int(options.gigabytes * 1e9 / (4 * options.dim))
    context = multiprocessing.get_context("spawn")
    for format in options.formats.split(","):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, f"vectors.{format}")
            vicinal.write_vectors(path, Random("random", rows, options.dim, np.dtype("f4")))
            results = context.SimpleQueue()
            process = context.Process(
                target=measure, args=(path, options.build, options.m, options.ef, results)
            )
            process.start()
            found = results.get()
            process.join()
            print(
                json.dumps({"kind": "read", "format": format, **found, "cores": os.cpu_count()}),
                flush=True,
            )


if __name__ == "__main__":
    main()
