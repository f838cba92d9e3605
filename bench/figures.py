"""Times that a user notices and no test asserts: import, open, one call, save.

    python bench/figures.py                       # on the installed library
    python bench/figures.py --rows 100000 --json build/figures.jsonl

Each is measured many times, in turns with the same of hnswlib where that is installed, and told as
median with the range of the middle half. What hnswlib has no like of has no figure.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
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

ROOT = Path(__file__).resolve().parent.parent
PEER = "hnswlib"
IMPORT = """
import time, numpy
start = time.perf_counter()
import {module}
print(time.perf_counter() - start)
"""


def import_seconds(module: str) -> float:
    """Import a module in a fresh process that has NumPy already; return what it took."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORT.format(module=module)],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def timed(call: Callable[[], Any], calls: int = 1) -> Callable[[], float]:
    """Return a function that makes `calls` calls and returns the seconds of one."""

    def measure() -> float:
        start = time.perf_counter()
        for _ in range(calls):
            call()
        return (time.perf_counter() - start) / calls

    return measure


def ours(rows: np.ndarray, folder: Path) -> dict[str, Callable[[], float]]:
    """Return a measurement for each figure."""
    index, small = vicinal.Index(rows.shape[1]), vicinal.Index(2)
    index.add(rows)
    small.add(np.zeros((1, 2), np.float32))
    path = folder / "index.vicinal"
    index.save(path)
    query, little = rows[0], np.zeros(2, np.float32)
    return {
        "import": lambda: import_seconds("vicinal"),
        "open": timed(lambda: vicinal.open(path)),
        "open a copy": timed(lambda: vicinal.open(path, mode="copy")),
        "save": timed(lambda: index.save(path)),
        "one call, one row": timed(lambda: small.search(little, 1), 2000),
        "one search, ef 16": timed(lambda: index.search(query, 10, ef_search=16), 500),
    }


def peers(rows: np.ndarray, folder: Path) -> dict[str, Callable[[], float]]:
    """Return the same of hnswlib."""
    import hnswlib

    def made(data: np.ndarray) -> Any:
        index = hnswlib.Index("l2", data.shape[1])
        index.init_index(len(data), ef_construction=200, M=16)
        index.add_items(data)
        index.set_num_threads(1)
        return index

    index, small = made(rows), made(np.zeros((1, 2), np.float32))
    index.set_ef(16)
    path = str(folder / "index.hnswlib")
    index.save_index(path)
    query, little = rows[0], np.zeros(2, np.float32)
    return {
        "import": lambda: import_seconds(PEER),
        "open a copy": timed(lambda: hnswlib.Index("l2", rows.shape[1]).load_index(path)),
        "save": timed(lambda: index.save_index(path)),
        "one call, one row": timed(lambda: small.knn_query(little, 1), 2000),
        "one search, ef 16": timed(lambda: index.knn_query(query, 10), 500),
    }


def told(seconds: float) -> str:
    """Return a time in the unit that suits it."""
    units = (("s", 1.0), ("ms", 1e-3), ("us", 1e-6))
    unit, size = next((each for each in units if seconds >= each[1]), units[-1])
    return f"{seconds / size:.3g} {unit}"


def main() -> int:
    """Measure, print a table, write JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000, help="rows of the index, dimension 128")
    parser.add_argument("--times", type=int, default=15, help="measurements of each figure")
    parser.add_argument("--json", type=Path, default=ROOT / "build" / "figures.jsonl")
    options = parser.parse_args()
    rows = np.random.default_rng(0).standard_normal((options.rows, 128)).astype(np.float32)
    libraries = ["vicinal", *([PEER] if importlib.util.find_spec(PEER) else [])]
    records: list[dict[str, Any]] = [{"kind": "machine", **machine.describe(libraries)}]
    with tempfile.TemporaryDirectory(prefix="vicinal-figures-") as folder:
        makers = {"vicinal": ours, PEER: peers}
        by_library = {name: makers[name](rows, Path(folder)) for name in libraries}
        taken: dict[tuple[str, str], list[float]] = {}
        for _ in range(options.times):
            for library, figures in by_library.items():
                for name, measure in figures.items():
                    taken.setdefault((library, name), []).append(measure())
    print(f"{options.rows} rows of 128 float32, {options.times} times each; median (middle half)")
    for name in by_library["vicinal"]:
        line = f"{name:18}"
        for library in by_library:
            values = taken.get((library, name))
            if values is None:
                continue
            low, median, high = np.percentile(values, [25, 50, 75])
            line += f"  {library} {told(median)} ({told(low)} to {told(high)})"
            records.append(
                {"kind": "figure", "name": name, "library": library, "rows": options.rows}
                | {"median": median, "low": low, "high": high, "values": values}
            )
        print(line)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text("".join(json.dumps(record) + "\n" for record in records))
    return 0


if __name__ == "__main__":
    sys.exit(main())
