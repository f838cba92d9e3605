"""Explore the schedules of a writer and searches; show that each rule of the protocol is needed.

The program of `tests/schedules` is compiled from a copy of the sources in which every rule that is
listed here can be broken at run time. First all scenarios run with all rules kept, up to a number
of preemptions (`--bound`): no schedule may go wrong. Then those of three writers and a search, in
`--drawn` orders each that seeds draw, and with each thread paused at each of its points. Then each
rule is broken, one at a time, in a scenario that is about it: a schedule must go wrong, or the
explorer would see nothing. `make explore` does it.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import compiler
import native_build

FOLDER = native_build.ROOT / "tests" / "schedules"


@dataclass(frozen=True)
class Rule:
    """A rule, how it is broken, and where that shows."""

    name: str
    file: str
    kept: str
    """The text of the source that keeps it."""
    broken: str
    """What takes its place; both are compiled, and one is chosen at run time."""
    scenario: str
    bound: int = 2


RULES = [
    Rule(
        "the epoch is read again after the pin",
        "walk/readers.mojo",
        "        var pinned = pin\n",
        "        var pinned = UNPINNED if BROKEN else pin\n",
        "pins",
        3,
    ),
    Rule(
        "a search pins before its snapshot",
        "search/answer.mojo",
        "        index.readers.renew(self.scratches[unsafe_offset=worker * self.lanes])\n"
        "        var snapshot = index.snapshot()\n",
        "        if not BROKEN:\n"
        "            index.readers.renew(self.scratches[unsafe_offset=worker * self.lanes])\n"
        "        var snapshot = index.snapshot()\n"
        "        if BROKEN:\n"
        "            index.readers.renew(self.scratches[unsafe_offset=worker * self.lanes])\n",
        "replace, the nearest wanted",
    ),
    Rule(
        "searches of the epoch that ended are waited for",
        "walk/readers.mojo",
        "            if pin != IDLE and pin <= epoch:\n",
        "            if pin != IDLE and (pin < epoch if BROKEN else pin <= epoch):\n",
        "pins",
    ),
    Rule(
        "the number of rows is written before the moment",
        "rows/visibility.mojo",
        "        self.version = version\n",
        "        self.version = version\n"
        "        if BROKEN:\n"
        "            self.moment = UInt64(version) << VERSION_BITS | UInt64(count)\n",
        "add to a scan",
    ),
    Rule(
        "the moment is read twice",
        "index/vector_index.mojo",
        "            if self.states.now() == moment:\n",
        "            if BROKEN or self.states.now() == moment:\n",
        "remove from a scan",
    ),
    Rule(
        "rows are unlinked when no older search is left",
        "update/consolidate.mojo",
        "    if not index.wait_for(index.committed, patience):\n",
        "    if not BROKEN and not index.wait_for(index.committed, patience):\n",
        "replace, the nearest wanted",
    ),
    Rule(
        "rows are wiped when no search is at them",
        "update/consolidate.mojo",
        "    if not index.wait_for(index.unlinked.epoch, PATIENCE):\n",
        "    if not BROKEN and not index.wait_for(index.unlinked.epoch, PATIENCE):\n",
        "remove",
    ),
    Rule(
        "rows that leave a ring lead on",
        "rows/duplicates.mojo",
        "                store_release(self.count, self.count - 1)\n            else:\n",
        "                store_release(self.count, self.count - 1)\n"
        "                if BROKEN:\n"
        "                    next[unsafe_offset=copy] = ALONE\n"
        "            else:\n",
        "first of a ring",
    ),
]


def copy_sources(into: Path) -> Path:
    """Copy the library with rules that can be broken; return the folder to be included."""
    folder = into / "mojo"
    shutil.copytree(native_build.ROOT / "mojo", folder)
    for rule in RULES:
        path = folder / "vicinal" / rule.file
        text = path.read_text(encoding="utf-8")
        if text.count(rule.kept) != 1:
            raise compiler.BuildError(
                f"{path.name}: the text that keeps the rule {rule.name!r} is there "
                f"{text.count(rule.kept)} times; tools/explore.py has to follow the source"
            )
        text = text.replace(rule.kept, rule.broken.replace("BROKEN", f'broken["{rule.name}"]()'))
        if "import broken" not in text:
            at = text.index("\nfrom vicinal.") + 1
            text = text[:at] + "from vicinal.system.point import broken\n" + text[at:]
        path.write_text(text, encoding="utf-8")
    return folder


def main() -> int:
    """Explore; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bound", type=int, default=2, help="most preemptions of a schedule")
    parser.add_argument("--drawn", type=int, default=2000, help="orders of several writers")
    parser.add_argument("words", nargs="*", help="what else to do, see tests/schedules/main.mojo")
    options = parser.parse_args()
    words = options.words
    if not words:
        words = ["all", str(options.bound), "draw", "0", str(options.drawn), "pause", "2"]
        for rule in RULES:
            words += ["rule", rule.name, rule.scenario, str(rule.bound)]
    with tempfile.TemporaryDirectory(prefix="vicinal-schedules-") as folder:
        try:
            sources = copy_sources(Path(folder))
            include = ["-I", str(sources), "-I", str(FOLDER), *native_build.SPACES["few"]]
            start = time.perf_counter()
            done = compiler.mojo(
                ["run", "--Werror", "-D", "EXPLORE", *include, str(FOLDER / "main.mojo"), *words]
            )
        except compiler.BuildError as error:
            print(error)
            return 1
    print(done.stdout + done.stderr, end="")
    well = done.returncode == 0
    print(f"schedules: {'all well' if well else 'FAILED'} ({time.perf_counter() - start:.0f} s)")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
