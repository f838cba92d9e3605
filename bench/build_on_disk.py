"""A build over a mapped array that is larger than the memory for it: bytes read, time, peak.

    python bench/build_on_disk.py --rows ROWS.npy --share 0.4 --out FILE.jsonl
    python bench/build_on_disk.py --rows ROWS.npy --share 0 --save INDEX      # no limit

The process joins a control group that limits memory, the cache of files counted, to a share of the
array, after nothing of the array is in memory; then `add(rows, copy=False)`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np

import machine
import vicinal
from memory_limit import evict, memory_limit


def read_bytes() -> int:
    """Return how many bytes this process has had the disk read."""
    text = Path("/proc/self/io").read_text(encoding="ascii")
    return int(text.split("\nread_bytes:")[1].split()[0])


def child(rows_file: str, save: str, threads: str, ef_construction: str, procs: str) -> None:
    """Build; in a process of its own."""
    rows = np.load(rows_file, mmap_mode="r")
    if procs:
        Path(procs).write_text(str(os.getpid()), encoding="ascii")
    before, used = read_bytes(), resource.getrusage(resource.RUSAGE_SELF)
    start = time.perf_counter()
    index = vicinal.Index(rows.shape[1], ef_construction=int(ef_construction))
    index.add(rows, copy=False, num_threads=int(threads) or None)
    after = resource.getrusage(resource.RUSAGE_SELF)
    told = {
        "rows": len(rows),
        "dim": rows.shape[1],
        "data_bytes": rows.nbytes,
        "threads": int(threads) or os.cpu_count(),
        "ef_construction": int(ef_construction),
        "wall": time.perf_counter() - start,
        "cpu": after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime,
        "read": read_bytes() - before,
        "read_by_data": (read_bytes() - before) / rows.nbytes,
        "major_faults": after.ru_majflt - used.ru_majflt,
        "phases": index.build_stats()["seconds"],
    }
    if save:
        start, before = time.perf_counter(), read_bytes()
        index.save(save)
        told |= {"save_seconds": time.perf_counter() - start, "save_read": read_bytes() - before}
    print(json.dumps(told))


def main() -> None:
    """Build under one limit."""
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--share", type=float, default=0.4, help="of the array; 0 sets no limit")
    parser.add_argument("--save", default="", help="where the index is saved afterwards")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--ef-construction", type=int, default=200)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    command = [sys.executable, __file__, "--child", str(options.rows), options.save]
    command += [str(options.threads), str(options.ef_construction)]
    evict(options.rows)
    result = {"kind": "build_on_disk", "machine": machine.describe(["vicinal"])}
    if options.share:
        limit = int(options.rows.stat().st_size * options.share)
        with memory_limit(limit) as group:
            told = json.loads(subprocess.check_output([*command, str(group.procs)], text=True))
            result |= {"limit": limit, "peak": group.peak(), "killed": group.killed(), **told}
    else:
        result |= {"limit": None, **json.loads(subprocess.check_output([*command, ""], text=True))}
    if options.save:
        with open(options.save, "rb") as file:
            crc = 0
            while block := file.read(1 << 22):
                crc = zlib.crc32(block, crc)
        result["file_crc32"] = crc  # the same bytes whatever the limit
    print(json.dumps(result))
    if options.out:
        with options.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
