"""Refuse memory at every request of every case; started anew with the library before all others.

From the folder `tests`::

    python -m faults                      # every request of every case; takes a while
    python -m faults --most 12            # no more than 12 requests of each
    python -m faults --only "add to graph" search
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from faults import refusal


def main() -> int:
    """Do what the command line says; 1 if anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, default=0, help="requests refused in each case")
    parser.add_argument("--only", nargs="*", help="names of cases")
    parser.add_argument("--told", action="store_true", help="print each case before it is tried")
    given = parser.parse_args()
    why = refusal.why_not()
    if why is not None:
        print(f"skipped: {why}")
        return 0
    with tempfile.TemporaryDirectory() as name:
        if "LD_PRELOAD" not in os.environ:
            environment = {**os.environ, "LD_PRELOAD": str(refusal.build(Path(name)))}
            command = [sys.executable, "-X", "faulthandler", "-m", "faults", *sys.argv[1:]]
            return os.spawnve(os.P_WAIT, sys.executable, command, environment)
        return _try_all(Path(name), given.most, given.only, given.told)


def _try_all(folder: Path, most: int, only: list[str] | None, say: bool) -> int:
    from faults import cases
    from vicinal import _cpu

    cases.FOLDER.append(folder)
    refuse = refusal.Refusal(_cpu.native.__file__)
    wrong = tried = 0
    for case in cases.CASES:
        if only and case.name not in only:
            continue
        start = time.perf_counter()
        if say:
            print(f"{case.name} ...", flush=True)
        for lasting in (False, True):
            done = _try(case, refuse, folder, most, lasting, cases)
            tried += done[0]
            wrong += len(done[1])
            for line in done[1][:5]:
                print(f"WRONG {case.name}, {'all from' if lasting else 'only'} {line}", flush=True)
        print(f"{case.name}: {done[2]} requests, {time.perf_counter() - start:.1f} s", flush=True)
    print(f"{tried} refusals, {wrong} wrong")
    return 1 if wrong else 0


def _try(
    case: Any, refuse: refusal.Refusal, folder: Path, most: int, lasting: bool, cases: Any
) -> tuple[int, list[str], int]:
    """Try one case; return refusals, what went wrong, and how many requests it makes."""
    with refuse.at(0, lasting=False):
        first = case.state()
        answer = cases.told(case.call(first, folder), folder)
    after = cases.bytes_of(first, folder)
    fresh = case.state()
    before = cases.bytes_of(fresh, folder)
    with refuse.at(0, lasting=False):
        case.call(fresh, folder)
    requests = refuse.requests
    step = max(requests // most, 1) if most else 1
    wrong: list[str] = []
    tried = 0
    for n in range(1, requests + 1, step):
        index = case.state()
        tried += 1
        failed = False
        found: Any = None
        try:
            with refuse.at(n, lasting=lasting):
                found = case.call(index, folder)
        except MemoryError:
            failed = True
        except Exception as problem:
            wrong.append(f"{n} of {requests}: {type(problem).__name__}: {problem}")
            continue
        told = None if failed else cases.told(found, folder)
        now = cases.bytes_of(index, folder)
        if not failed and told != answer:
            wrong.append(f"{n} of {requests}: another answer")
        elif now != (before if failed else after):
            wrong.append(f"{n} of {requests}: the index is another, failed {failed}")
        elif failed:
            index.check()
            if cases.told(case.call(index, folder), folder) != answer:
                wrong.append(f"{n} of {requests}: the next call gave another answer")
            elif cases.bytes_of(index, folder) != after:
                wrong.append(f"{n} of {requests}: the next call made another index")
    return tried, wrong, requests


if __name__ == "__main__":
    sys.exit(main())
