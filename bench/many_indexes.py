"""Memory and addresses of many indexes alive at once, as one for each tenant would be.

    python bench/many_indexes.py
    python bench/many_indexes.py --small 20000 --graphs 2000 --json bench/results/many-indexes.jsonl

First `--small` indexes of 20 rows, then `--graphs` of 1,100 rows, which have a graph, all alive
until the end; `--dim` float32 a row. Prints what each takes on average: bytes of rows, resident
memory, and address space. In the end a row is added to each of 100 of them, and found.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

import machine
import vicinal

FEW, MANY = 20, 1100
LOOKED_AT = 100


def status(name: str) -> int:
    """Return a size in /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


def live(count: int, rows: int, dim: int, kept: list[vicinal.Index]) -> dict[str, Any]:
    """Make indexes, keep them, and return what each has taken."""
    rng = np.random.default_rng(rows)
    vectors = rng.standard_normal((rows, dim), dtype=np.float32)
    made = vicinal.Index(dim)  # what is done once is no part of the figures
    made.add(vectors, num_threads=1)
    before = {name: status(name) for name in ("VmRSS", "VmSize")}
    begin = time.perf_counter()
    for _ in range(count):
        index = vicinal.Index(dim)
        index.add(vectors, num_threads=1)
        kept.append(index)
    seconds = time.perf_counter() - begin
    return {
        "indexes": count,
        "rows": rows,
        "dim": dim,
        "graph": made.stats()["search"] == "graph",
        "row_bytes": rows * dim * 4,
        "resident": (status("VmRSS") - before["VmRSS"]) // count,
        "addresses": (status("VmSize") - before["VmSize"]) // count,
        "microseconds": round(seconds / count * 1e6),
    }


def used(kept: list[vicinal.Index], dim: int) -> None:
    """Add a row to some of the indexes and look for it."""
    row = np.full(dim, 9.0, np.float32)
    for index in kept[:: max(len(kept) // LOOKED_AT, 1)]:
        number = index.add(row)[0]
        found = index.search(row, k=1)
        if found.ids[0] != number:
            raise SystemExit(f"a row that was added is not found: {found}")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", type=int, default=20_000, help=f"indexes of {FEW} rows")
    parser.add_argument("--graphs", type=int, default=2000, help=f"indexes of {MANY} rows")
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--json", type=Path, help="file for the records")
    options = parser.parse_args()
    records: list[dict[str, Any]] = [{"kind": "run", **machine.describe(["vicinal"])}]
    kept: list[vicinal.Index] = []
    for count, rows in ((options.small, FEW), (options.graphs, MANY)):
        if count:
            first = len(kept)
            told = live(count, rows, options.dim, kept)
            used(kept[first:], options.dim)
            records.append({"kind": "many_indexes", **told})
            print(json.dumps(told), flush=True)
    if options.json is not None:
        text = "".join(json.dumps(record) + "\n" for record in records)
        options.json.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
