"""Refuse memory at every request of every case; started anew with the library before all others.

From the folder `tests`::

    python -m faults                      # every request of every case; takes minutes
    python -m faults --most 12            # no more than 12 requests of each
    python -m faults --only "add to graph" search

After each refusal the call must have raised MemoryError, or have done all the same what it does
with memory; an index whose call failed must hold what it held before and pass its check, and the
same call must work the next time.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faults import refusal

if TYPE_CHECKING:
    from faults.cases import Case


def main() -> int:
    """Do what the command line says; 1 if anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, default=0, help="requests refused in each case")
    parser.add_argument("--only", nargs="*", help="names of cases")
    parser.add_argument("--say", action="store_true", help="print each refusal before it is tried")
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
        return _Trial(Path(name), given.most, given.say).all(given.only)


class _Trial:
    """Tries cases in this process."""

    def __init__(self, folder: Path, most: int, say: bool) -> None:
        from faults import cases, later_cases
        from vicinal import _cpu

        self.list = cases.CASES + later_cases.CASES
        self.cases, self.folder, self.most, self.say = cases, folder, most, say
        cases.FOLDER.append(folder)
        self.refuse = refusal.Refusal(_cpu.native.__file__)

    def all(self, only: list[str] | None) -> int:
        """Try all cases, or those named."""
        wrong = tried = 0
        for case in self.list:
            if only and case.name not in only:
                continue
            start, before = time.perf_counter(), tried
            for lasting in (False, True):
                which = "all from" if lasting else "only"
                for n, problem in self.one(case, lasting):
                    tried += 1
                    if problem:
                        wrong += 1
                        print(f"WRONG {case.name}, {which} number {n}: {problem}", flush=True)
            seconds = time.perf_counter() - start
            print(f"{case.name}: {tried - before} refusals, {seconds:.1f} s", flush=True)
        print(f"{tried} refusals, {wrong} wrong")
        return 1 if wrong else 0

    def one(self, case: Case, lasting: bool) -> Any:
        """Try one case; yield the number of each request refused and what went wrong, or ""."""
        cases, folder, refuse = self.cases, self.folder, self.refuse
        index = case.state()
        before, held = cases.bytes_of(index, folder), cases.content(index)
        answer = cases.told(case.call(index, folder), folder)
        after, then = cases.bytes_of(index, folder), cases.content(index)
        index = case.state()
        with refuse.at(0, lasting=False):
            case.call(index, folder)
        step = max(refuse.requests // self.most, 1) if self.most else 1
        for n in range(1, refuse.requests + 1, step):
            index = case.state()
            if self.say:
                print(f"{case.name} {n} {lasting}", flush=True)
            found: Any = None
            failed = False
            try:
                with refuse.at(n, lasting=lasting):
                    found = case.call(index, folder)
            except MemoryError:
                failed = True
            except Exception as problem:
                yield n, f"{type(problem).__name__}: {problem}"
                continue
            now = cases.bytes_of(index, folder)
            if failed:
                if now != before and cases.content(index) != held:
                    yield n, "the call failed and the index is another"
                    continue
                index.check()
                found = case.call(index, folder)
                now = cases.bytes_of(index, folder)
            # links may be taken out later if memory is out when they should be: then bytes differ
            if now != after and cases.content(index) != then:
                yield n, f"the index is another after {'the next' if failed else 'the'} call"
            elif cases.told(found, folder) != answer and now == after:
                yield n, f"another answer of {'the next' if failed else 'the'} call"
            else:
                index.check()
                yield n, ""


if __name__ == "__main__":
    sys.exit(main())
