"""What verbs read of a file whose vectors stay on disk, under a limit: bytes, requests, time.

    python bench/scans_on_disk.py --index FILE --queries QUERIES.npy --share 0.25 --out FILE.jsonl

Each verb is run in a process of its own, in a control group whose limit is a share of the file,
opened with resident="walk" and with nothing of the file in memory before. Bytes are those that the
disk was asked for by the process (`read_bytes`), beside those of all vectors.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import machine
import vicinal
from memory_limit import evict, memory_limit

K, QUERIES = 10, 100
Run = Callable[[Any, np.ndarray, Path], object]


def _allowed(index: Any, share: float) -> np.ndarray:
    return np.random.default_rng(1).permutation(len(index))[: max(1, int(len(index) * share))]


def _get_all(index: Any, queries: np.ndarray, folder: Path) -> None:
    for start in range(0, len(index), 1000):
        index.get(np.arange(start, min(start + 1000, len(index))))


def _radius(index: Any, queries: np.ndarray) -> float:
    return float(np.median(index.search(queries[:QUERIES], K).distances[:, -1]))


VERBS: dict[str, Run] = {
    "search, k = 10": lambda i, q, f: i.search(q[:QUERIES], K, ef_search=64),
    "search, k = 100": lambda i, q, f: i.search(q[:QUERIES], 100),
    "search, a filter of 10 rows": lambda i, q, f: i.search(
        q[:QUERIES], K, filter=_allowed(i, 1e-4)
    ),
    "search, a filter of 1 %": lambda i, q, f: i.search(q[:QUERIES], K, filter=_allowed(i, 0.01)),
    "search, a filter of 10 %": lambda i, q, f: i.search(q[:QUERIES], K, filter=_allowed(i, 0.1)),
    "search, a filter of 50 %": lambda i, q, f: i.search(q[:QUERIES], K, filter=_allowed(i, 0.5)),
    "search of all rows (ef = n)": lambda i, q, f: i.search(q[:QUERIES], K, ef_search=len(i)),
    "search of all rows, one query": lambda i, q, f: i.search(q[0], K, ef_search=len(i)),
    "range_search": lambda i, q, f: i.range_search(q[:QUERIES], _radius(i, q)),
    "measure_recall": lambda i, q, f: i.measure_recall(q[:QUERIES], K),
    "get, every row in blocks of 1,000": _get_all,
    "get, 1,000 rows anywhere": lambda i, q, f: i.get(_allowed(i, 1000 / len(i))),
    "vectors(), every row": lambda i, q, f: sum(len(ids) for ids, _ in i.vectors()),
    "to_npy": lambda i, q, f: i.to_npy(f / "rows.npy"),
    "duplicates": lambda i, q, f: i.duplicates(0.0),
    "verify": lambda i, q, f: i.verify(),
    "save": lambda i, q, f: i.save(f / "saved"),
}


def read_bytes() -> int:
    """Return how many bytes this process has had the disk read."""
    text = Path("/proc/self/io").read_text(encoding="ascii")
    return int(text.split("\nread_bytes:")[1].split()[0])


def child(verb: str, index_file: str, queries_file: str, procs: str, folder: str) -> None:
    """Run one verb; in a process of its own."""
    queries = np.load(queries_file)[:1000]
    Path(procs).write_text(str(os.getpid()), encoding="ascii")
    index = vicinal.open(index_file, resident="walk")
    index.search(queries[-1], K)
    before, faults = read_bytes(), resource.getrusage(resource.RUSAGE_SELF)
    asked = index.stats()["reads"]["requests"]
    start = time.perf_counter()
    error = None
    try:
        VERBS[verb](index, queries, Path(folder))
    except MemoryError as refused:
        error = str(refused)
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF)
    told = {
        "seconds": seconds,
        "read": read_bytes() - before,
        "requests": index.stats()["reads"]["requests"] - asked,
        "by": index.stats()["reads"]["by"],
        "major_faults": after.ru_majflt - faults.ru_majflt,
        "cpu": after.ru_utime + after.ru_stime - faults.ru_utime - faults.ru_stime,
        "refused": error,
    }
    print(json.dumps(told))


def main() -> None:
    """Run all verbs."""
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--queries", type=Path, required=True)
    parser.add_argument("--share", type=float, default=0.25)
    parser.add_argument("--only", nargs="+", default=list(VERBS))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    size = options.index.stat().st_size
    opened = vicinal.open(options.index)
    rows, dim = len(opened), opened.dim
    del opened
    result: dict[str, Any] = {
        "kind": "scans_on_disk",
        "machine": machine.describe(["vicinal"]),
        "rows": rows,
        "dim": dim,
        "file_bytes": size,
        "vector_bytes": 4 * rows * dim,
        "limit": int(size * options.share),
        "queries": QUERIES,
        "verbs": {},
    }
    for verb in options.only:
        evict(options.index)
        with (
            tempfile.TemporaryDirectory(dir=options.index.parent) as folder,
            memory_limit(result["limit"]) as group,
        ):
            command = [sys.executable, __file__, "--child", verb, options.index, options.queries]
            done = subprocess.run(
                [*map(str, command), str(group.procs), folder], stdout=subprocess.PIPE, text=True
            )
            told = json.loads(done.stdout) if done.returncode == 0 else {"exit": done.returncode}
            told |= {"peak": group.peak(), "killed": group.killed()}
        result["verbs"][verb] = told
        read = told.get("read", 0)
        print(f"{verb:40} {read / result['vector_bytes']:8.2f} x", json.dumps(told), flush=True)
    if options.out:
        with options.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
