"""Does a build whose workers and whose join are killed at random make the same file?

    python bench/build_kills.py --data sift-real-500k-b:100000 --parts 10 --kills 20 --out FILE

A build with one worker process is started again and again in one folder. Of the kills (SIGKILL) one
half hits the worker at a random moment, the other the process that joins, once all parts are
there. After the last one a build ends undisturbed, and its bytes are compared with those of
a build that nobody has touched. Parts may be done before as many workers as wanted are
killed: then the folder is emptied, and it begins anew.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import datasets

BUILD = """
import os, sys
from concurrent.futures import ProcessPoolExecutor
import vicinal
rows, index, scratch, metric, parts = sys.argv[1:]
if __name__ == "__main__":
    with ProcessPoolExecutor(1) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        vicinal.build(
            rows, index, metric=metric, parts=int(parts),
            scratch=scratch, executor=pool, num_threads=1,
        )
"""


class Build:
    """A build under way, in a process of its own, with one worker."""

    def __init__(self, folder: Path, metric: str, parts: int) -> None:
        self.folder, self.parts = folder, parts
        command = [sys.executable, "-c", BUILD, str(folder / "rows.npy"), str(folder / "index")]
        command += [str(folder / "scratch"), metric, str(parts)]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self.process.stdout is not None
        self.worker = int(self.process.stdout.readline())

    def there(self) -> int:
        """Return how many parts are whole."""
        return sum((self.folder / "scratch" / f"part-{i:05}").exists() for i in range(self.parts))

    def wait_for(self, parts: int) -> bool:
        """Wait until so many parts are there; False if the build has ended before."""
        while self.there() < parts:
            if self.process.poll() is not None:
                return False
            time.sleep(0.002)
        return True

    def end(self) -> int:
        """Wait for the end, return the exit status."""
        return self.process.wait()


def killed(
    folder: Path, metric: str, parts: int, whom: str, seconds: float, chance: random.Random
) -> dict[str, Any] | None:
    """Start a build and kill one of its processes; None if it was done before."""
    build = Build(folder, metric, parts)
    before = build.there()
    if not build.wait_for(parts if whom == "join" else min(before + 1, parts)):
        return None
    time.sleep(chance.random() * seconds)
    if build.process.poll() is not None:
        return None
    with contextlib.suppress(ProcessLookupError):  # a worker that is done goes before the build
        os.kill(build.process.pid if whom == "join" else build.worker, signal.SIGKILL)
    status = build.end()
    with contextlib.suppress(ProcessLookupError):  # Python's workers wait on when their parent dies
        os.kill(build.worker, signal.SIGKILL)
    if status == 0:
        return None
    return {"killed": whom, "parts_before": before, "parts_after": build.there()}


def main() -> int:
    """Kill, compare, write, return the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True, help="a set, or SET:ROWS")
    parser.add_argument("--parts", type=int, default=10)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    name, _, count = options.data.partition(":")
    data = datasets.load(name)
    rows = data.base[: int(count or len(data.base))].astype(np.float32)
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory(dir=options.folder) as made:
        folder = Path(made)
        np.save(folder / "rows.npy", rows)
        start = time.monotonic()
        build = Build(folder, data.metric, options.parts)
        build.wait_for(options.parts)
        parts_end = time.monotonic()
        assert build.end() == 0
        a_part = (parts_end - start) / options.parts
        a_join = time.monotonic() - parts_end
        expected = hashlib.sha256((folder / "index").read_bytes()).hexdigest()
        kills: list[dict[str, Any]] = []
        wanted = ["worker"] * (options.kills // 2) + ["join"] * (options.kills - options.kills // 2)
        while len(kills) < len(wanted):
            whom = wanted[len(kills)]
            (folder / "index").unlink(missing_ok=True)
            seconds = a_join if whom == "join" else a_part
            told = killed(folder, data.metric, options.parts, whom, seconds, chance)
            if told is not None:
                kills.append(told)
            elif whom == "worker":
                shutil.rmtree(folder / "scratch", ignore_errors=True)
        (folder / "index").unlink(missing_ok=True)
        status = Build(folder, data.metric, options.parts).end()
        found = hashlib.sha256((folder / "index").read_bytes()).hexdigest()
        left = sorted(os.listdir(folder))
    record = {
        "kind": "build-kills",
        "data": name,
        "rows": len(rows),
        "parts": options.parts,
        "kills": kills,
        "equal": status == 0 and found == expected,
        "left": left,
    }
    print(json.dumps(record), flush=True)
    if options.out is not None:
        with open(options.out, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
    return 0 if record["equal"] else 1


if __name__ == "__main__":
    sys.exit(main())
