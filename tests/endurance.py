"""Long mixed runs: an index is changed, searched, saved and copied by many threads at once.

python tests/endurance.py --seconds 600     # on the installed library
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

import vicinal
from beside import resident
from mixed import Limit, Run
from model import draw

ROOM = "/dev/shm" if os.path.isdir("/dev/shm") else None


def mixed_run(metric: str, dtype: str, dim: int, limit: Limit) -> str:
    """Do one run; return what was done, or raise what went wrong."""
    with tempfile.TemporaryDirectory(prefix="vicinal-endurance-", dir=ROOM) as folder:
        run = Run(metric, dtype, dim, limit, Path(folder))
        pause = sys.getswitchinterval()
        sys.setswitchinterval(2e-4)  # more moments at which threads take turns
        try:
            run.run()
            alone = run.alone()
        finally:
            sys.setswitchinterval(pause)
    counts = ", ".join(f"{name} {count:,}" for name, count in sorted(run.done.items()))
    tries = (run.work["walks"] + run.work["scans"]) / max(1, run.work["queries"])
    longest = ", ".join(
        f"{kind} {1e3 * seconds:.1f} ms, {seconds / alone[kind]:.1f} times that alone"
        for kind, seconds in sorted(run.longest.items())
        if alone.get(kind)
    )
    memory = ", ".join(
        f"{used >> 10:,}/{rss:,}" for used, rss in run.memory[:: len(run.memory) // 5 + 1]
    )
    return (
        f"{metric} {dtype} {dim}: {counts}\n  walks and scans a query: {tries:.3f}\n"
        f"  longest search, CPU: {longest}\n  KiB of the index/of the process: {memory}"
    )


def turnovers(count: int, rows: int = 3000, dim: int = 32) -> list[int]:
    """Replace all rows `count` times, by removing and adding them; KiB in use after each."""
    index = vicinal.Index(dim, quantization=None, M=8, ef_construction=40)
    ids = index.add(draw(0, rows, dim))
    used = []
    for turn in range(count):
        for part in np.array_split(ids, 5):
            index.remove(part)
            index.add(draw(turn + 1, len(part), dim), part)
        index.check()
        used.append(resident())
    return used


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="of all runs together")
    seconds = parser.parse_args().seconds
    kinds = [("l2", "float32", 40), ("l2", "uint8", 16), ("ip", "float16", 100), ("l2", "int8", 64)]
    for kind in kinds:
        print(mixed_run(*kind, Limit(seconds / len(kinds))), flush=True)
    print("KiB in use after each of 20 turnovers:", *turnovers(20))
    return 0


if __name__ == "__main__":
    sys.exit(main())
