"""Links set by compare-and-swap, a prototype, beside calls that are served together.

    python bench/side_by_side.py --data sift-real-500k-b --rows 10000 --rounds 5 --out FILE

Ways, `calls x rows, threads`: `cas 1x1 t2` is two threads that add one row a call side by side,
`together 8x1 t2` what the library makes of eight callers of one row on two threads. All ways start
from one saved index and run in turns, each in a process of its own (`bench/side_by_side/main.mojo`,
which is compiled first); figures are medians over the rounds. Nothing of Python is in them: callers
of the library also take the GIL for some microseconds a call, whatever way is taken below.

`--stops` stops one thread at each step in the middle of its row until seven others have done all
the rest.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import datasets
import vicinal

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import compiler  # noqa: E402  (the tools folder is no package)

WAYS = (
    "cas 1x1 t1",
    "cas 1x1 t2",
    "cas 1x1 t8",
    "cas 1x16 t2",
    "cas 1x16 t8",
    "together 1x1 t1",
    "together 2x1 t2",
    "together 8x1 t2",
    "together 1x16 t1",
    "together 8x16 t2",
    "together 1x4096 t1",
    "together 1x4096 t2",
)
STOPS = ("own links set", "among links back", "while pruning", "before its commit", "half visible")
SUMMED = ("retries", "lost", "doubles", "flickers", "unreachable")


def arguments_of(way: str) -> list[str]:
    """Return the program's arguments for a way."""
    kind, shape, threads = way.split()
    callers, rows = shape.split("x")
    found = ["--batch", rows, "--threads", threads[1:]]
    return found if kind == "cas" else [*found, "--callers", callers]


def compiled(folder: Path) -> Path:
    """Compile the program."""
    source = ROOT / "bench" / "side_by_side" / "main.mojo"
    includes = ["-I", str(ROOT / "mojo"), "-I", str(ROOT / "bench" / "native")]
    command = ["build", "--Werror", "-D", "SPACES=few", *includes, str(source)]
    compiler.measured([*command, "-o", str(folder / "side-by-side")])
    return folder / "side-by-side"


def quality(path: Path, data: datasets.DataSet, rows: int) -> dict[str, Any]:
    """Check an index that was saved, and measure what it finds."""
    index = vicinal.open(path, mode="copy")
    index.check()
    queries = data.queries[:1000].astype(np.float32)
    base = data.base[: len(index)].astype(np.float32)
    truth = vicinal.exact_search(base, queries, 10).ids
    own = index.search(base[rows:], 1, ef_search=64).distances[:, 0]
    return {
        "rows": len(index),
        "recall": {
            ef: round(vicinal.recall_at_k(index.search(queries, 10, ef_search=ef).ids, truth), 4)
            for ef in (16, 64)
        },
        "new_rows_not_found": int((own != 0).sum()),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", default="sift-real-500k-b")
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--add", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--stops", action="store_true")
    parser.add_argument("--program", type=Path, help="compiled before")
    parser.add_argument("--start", type=Path, help="an index of the first rows, saved before")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    data = datasets.load(args.data)
    ways = args.ways.split(",")
    if args.stops:
        ways = [f"cas 1x1 t8 stopped: {name}" for name in STOPS]

    def tell(record: dict[str, Any]) -> None:
        record["load"] = round(os.getloadavg()[0], 1)
        line = json.dumps(record)
        print(line, flush=True)
        if args.out:
            with args.out.open("a") as file:
                file.write(line + "\n")

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        program = args.program or compiled(folder)
        start = args.start
        if start is None:
            start = folder / "start"
            index = vicinal.Index(data.base.shape[1], M=16, ef_construction=200)
            index.add(data.base[: args.rows].astype(np.float32))
            index.save(start)
        np.save(folder / "base.npy", data.base[: args.rows + args.add])
        fixed = ["--open", str(start), "--base", str(folder / "base.npy")]
        fixed += ["--first", str(args.rows), "--add", str(args.add)]
        runs: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
        for turn in range(args.rounds):
            shift = turn % len(ways)
            for way in ways[shift:] + ways[:shift]:
                plain, _, stop = way.partition(" stopped: ")
                more = ["--stop-at", str(STOPS.index(stop) + 1)] if stop else []
                more += ["--save", str(folder / "made")] if turn == 0 else []
                done = subprocess.run(
                    [str(program), *fixed, *arguments_of(plain), *more],
                    check=True,
                    capture_output=True,
                    text=True,
                )
                runs[way].append(json.loads(done.stdout))
                if turn == 0:
                    runs[way][0]["quality"] = quality(folder / "made", data, args.rows)
    for way, found in runs.items():
        rows = found[0]["rows"]
        wall = [rows / run["wall_ns"] * 1e9 for run in found]
        cpu = [run["cpu_ns"] / rows / 1e3 for run in found]
        record: dict[str, Any] = {"way": way, "data": args.data, "added": rows}
        record |= {
            "rows_a_second": round(statistics.median(wall)),
            "rows_a_second_all": [round(value) for value in wall],
            "cpu_us_a_row": round(statistics.median(cpu), 1),
            "cpu_us_a_row_all": [round(value, 1) for value in cpu],
            "distances_a_row": round(found[0]["distances"] / rows),
            "prunes_a_row": round(found[0]["prunes"] / rows, 2),
            "quality": found[0]["quality"],
        }
        record |= {key: sum(run[key] for run in found) for key in SUMMED if key in found[0]}
        record |= {
            key.replace("_ns", "_us_a_row"): round(
                statistics.median(run[key] / rows / 1e3 for run in found), 1
            )
            for key in found[0]
            if key.endswith("_ns") and key not in ("wall_ns", "cpu_ns")
        }
        tell(record)


if __name__ == "__main__":
    main()
