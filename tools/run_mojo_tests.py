"""Run every tests/mojo/test_*.mojo with all assertions and bounds checks on.

All files run, a few side by side, whatever fails; the exit status is 1 if one did. Names given on
the command line choose files::

    python tools/run_mojo_tests.py test_distance test_graph
"""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import native_build

FOLDER = native_build.ROOT / "tests" / "mojo"
# What some files need besides.
MORE = {
    "test_schedules": [
        *native_build.SPACES["few"],
        *["-D", "EXPLORE", "-I", str(native_build.ROOT / "tests" / "schedules")],
    ],
}


def run(path: Path) -> tuple[bool, str]:
    """Run one file; return whether it passed, and what to print about it."""
    start = time.perf_counter()
    include = str(native_build.ROOT / "mojo")
    options = ["--Werror", "-D", "ASSERT=all", "-I", include, *MORE.get(path.stem, [])]
    done = native_build.mojo(["run", *options, str(path)])
    seconds = time.perf_counter() - start
    passed = done.returncode == 0
    line = f"{path.stem}: {'passed' if passed else 'FAILED'} ({seconds:.1f} s)"
    return passed, line if passed else f"{line}\n{done.stdout}{done.stderr}"


def main(names: list[str]) -> int:
    """Run the named files, or all of them."""
    paths = sorted(FOLDER.glob("test_*.mojo"))
    if names:
        unknown = sorted(set(names) - {path.stem for path in paths})
        if unknown:
            print(f"no such file in tests/mojo: {', '.join(unknown)}", file=sys.stderr)
            return 2
        paths = [path for path in paths if path.stem in names]
    if not paths:
        print("tests/mojo: no test_*.mojo found", file=sys.stderr)
        return 2
    failed = 0
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        for passed, text in pool.map(run, paths):
            failed += not passed
            print(text, flush=True)
    print(f"Mojo tests: {len(paths) - failed} files passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
