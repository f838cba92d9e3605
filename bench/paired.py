"""Is one tree slower than another? Two builds of the library, measured in turns.

    python bench/paired.py ../before/python python --data sift-photo-10k minilm-4k
    python bench/paired.py BASE NEW --tasks one,batch,call --sessions 12

Each argument is a folder that holds the package `vicinal` with its native module. A session starts
a fresh process for each tree, since where memory happens to lie makes some per cent of difference
that stays for the life of a process. Within a session every task is measured in short rounds, now
the one tree first and now the other, in CPU time of one thread. A round gives a ratio of two
neighbouring measurements, a session the median of these; sessions give a trimmed mean and its
confidence interval. The same tree twice shows what the machine cannot tell apart.

Writes JSON lines of the kinds `run`, `session` and `pair`, and prints a table.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import statistics
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

import datasets

# Quantiles of Student's distribution for a two-sided 95 % interval, by degrees of freedom.
STUDENT = (
    12.71,
    4.30,
    3.18,
    2.78,
    2.57,
    2.45,
    2.36,
    2.31,
    2.26,
    2.23,
    2.20,
    2.18,
    2.16,
    2.14,
    2.13,
)
NORMAL = 1.96
TRIMMED = 0.2
TREES = ("base", "new")
PART = 20  # this part of the rows is changed by `remove` and `update`
SINGLES = 300  # rows added one by one
TINY_ROWS, TINY_DIM, TINY_CALLS = 100, 8, 2000
# Rounds of a session in which a task is measured: those that need a fresh index are slow.
SLOW = {"build": 3, "remove": 2, "update": 2, "add_one": 2}


# ---- in the process of one tree


class Room:
    """An index of one tree and what is measured on it; every method returns seconds of one unit."""

    def __init__(self, tree: str, data: str, options: dict[str, Any]) -> None:
        sys.path.insert(0, tree)
        import vicinal

        if Path(vicinal.__file__).resolve().parent.parent != Path(tree).resolve():
            raise RuntimeError(f"{tree}: vicinal was imported from {vicinal.__file__}")
        self.vicinal, self.o = vicinal, options
        base, queries, _, self.metric = datasets.load(data)
        self.base = np.ascontiguousarray(base[: options["rows"]], dtype=np.float32)
        self.queries = np.ascontiguousarray(queries[: options["queries"]], dtype=np.float32)
        self.index = self.built()
        self.index.ef_search = options["ef"]
        self.changed: Any = None
        self.left = 0
        self.tiny = vicinal.Index(TINY_DIM)
        self.tiny.add(np.random.default_rng(0).random((TINY_ROWS, TINY_DIM), dtype=np.float32))
        self.rng = np.random.default_rng(1)

    def built(self) -> Any:
        o = self.o
        made = (self.base.shape[1], self.metric)
        index = self.vicinal.Index(*made, M=o["M"], ef_construction=o["ef_construction"])
        index.add(self.base, num_threads=1)
        return index

    def digest(self) -> int:
        """Return a number that tells whether two trees find the same."""
        found = self.index.search(self.queries, self.o["k"], num_threads=1)
        return zlib.crc32(found.ids.tobytes())

    def batch(self) -> float:
        """A query of a batch."""
        start = time.thread_time()
        self.index.search(self.queries, self.o["k"], num_threads=1)
        return (time.thread_time() - start) / len(self.queries)

    def one(self) -> float:
        """A query in a call of its own; the median, since few are disturbed."""
        return self._calls(self.index, list(self.queries), self.o["k"])

    def call(self) -> float:
        """A call on an index so small that the search takes no time."""
        query = np.full(TINY_DIM, 0.5, np.float32)
        return self._calls(self.tiny, [query] * TINY_CALLS, self.o["k"])

    def _calls(self, index: Any, queries: list[Any], k: int) -> float:
        search, clock = index.search, time.perf_counter_ns
        stamps = [clock()]
        for query in queries:
            search(query, k)
            stamps.append(clock())
        return float(np.median(np.diff(stamps))) / 1e9

    def build(self) -> float:
        """A row of a whole build."""
        start = time.thread_time()
        self.built()
        return (time.thread_time() - start) / len(self.base)

    def _some(self) -> Any:
        """Begin with an index as it was built, and choose rows."""
        self.changed = self.index.copy()
        return self.rng.permutation(len(self.base))[: len(self.base) // PART]

    def remove(self) -> float:
        """A removed row, in ten calls."""
        ids = self._some()
        start = time.thread_time()
        for part in np.array_split(ids, 10):
            self.changed.remove(part, num_threads=1)
        return (time.thread_time() - start) / len(ids)

    def update(self) -> float:
        """A replaced vector, in ten calls."""
        ids = self._some()
        rows = self.base[np.roll(ids, 1)]
        start = time.thread_time()
        for part, given in zip(np.array_split(ids, 10), np.array_split(rows, 10), strict=True):
            self.changed.update(given, part, num_threads=1)
        return (time.thread_time() - start) / len(ids)

    def add_one(self) -> float:
        """A row added in a call of its own."""
        rows = self.base[self._some()][:SINGLES] * np.float32(1.001)
        start = time.thread_time()
        for row in rows:
            self.changed.add(row, num_threads=1)
        return (time.thread_time() - start) / len(rows)


TASKS = ("batch", "one", "call", "build", "remove", "update", "add_one")


def serve(tree: str, data: str, options: str) -> None:
    """Answer the parent: a task's name a line in, a number a line out."""
    room = Room(tree, data, json.loads(options))
    print(json.dumps(room.digest()), flush=True)
    for line in sys.stdin:
        print(json.dumps(getattr(room, line.strip())()), flush=True)


# ---- in the parent


class Process:
    """A tree in a process of its own."""

    def __init__(self, tree: Path, data: str, options: dict[str, Any]) -> None:
        command = [sys.executable, __file__, "--serve", str(tree), data, json.dumps(options)]
        self.name = str(tree)
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def answer(self) -> Any:
        """Return the next number."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name}: its process ended with {self.process.wait()}")
        return json.loads(line)

    def __call__(self, task: str) -> float:
        """Measure something."""
        assert self.process.stdin is not None
        self.process.stdin.write(task + "\n")
        self.process.stdin.flush()
        return float(self.answer())

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def session(
    trees: Sequence[Path], data: str, number: int, options: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Measure all tasks in two fresh processes; yield a record for each task."""
    with contextlib.ExitStack() as stack:
        started: dict[int, Process] = {}
        for which in (number % 2, 1 - number % 2):  # neither is always the first
            started[which] = Process(trees[which], data, options)
            stack.callback(started[which].close)
        both = [started[0], started[1]]
        digests = [one.answer() for one in both]
        values: dict[str, tuple[list[float], list[float]]] = {}
        for task in options["tasks"]:  # not counted: caches and pages are cold
            for one in both:
                one(task)
        for turn in range(options["rounds"]):
            for task in options["tasks"]:
                if turn % max(1, options["rounds"] // SLOW.get(task, options["rounds"])):
                    continue
                kept = values.setdefault(task, ([], []))
                # which begins changes from round to round, and from session to session
                first = (turn + number + len(kept[0])) % 2
                for which in (first, 1 - first):
                    kept[which].append(both[which](task))
    for task, (base, new) in values.items():
        yield {
            "kind": "session",
            "data": data,
            "session": number,
            "task": task,
            "same": digests[0] == digests[1],
            "base": base,
            "new": new,
        }


def ratio_of(record: dict[str, Any]) -> tuple[float, float]:
    """Return how many times as long the new tree takes: by paired rounds, and by the best ones."""
    pairs = [new / base for base, new in zip(record["base"], record["new"], strict=True)]
    return statistics.median(pairs), min(record["new"]) / min(record["base"])


def interval(ratios: Sequence[float]) -> tuple[float, float, float]:
    """Return the middle of ratios and its 95 % confidence interval.

    The trimmed geometric mean: a fifth of the sessions at either end was disturbed, or lucky, and
    counts as much as the next one (Yuen 1974, doi:10.1093/biomet/61.1.165).
    """
    logs = sorted(math.log(ratio) for ratio in ratios)
    n = len(logs)
    cut = int(TRIMMED * n)
    kept = logs[cut : n - cut]
    mean = statistics.fmean(kept)
    if len(kept) < 2:
        return math.exp(mean), 0.0, math.inf
    pulled_in = [min(max(value, kept[0]), kept[-1]) for value in logs]
    free = len(kept) - 1
    quantile = STUDENT[free - 1] if free <= len(STUDENT) else NORMAL + 2.4 / free
    half = quantile * statistics.stdev(pulled_in) * math.sqrt((n - 1) / (len(kept) * free))
    return math.exp(mean), math.exp(mean - half), math.exp(mean + half)


def summary(records: Sequence[dict[str, Any]], allowed: float) -> dict[str, Any]:
    """Return what the sessions of one task say: whether the new tree is slower than is allowed."""
    medians, bests = zip(*(ratio_of(record) for record in records), strict=True)
    mean, low, high = interval(medians)
    best, best_low, best_high = interval(bests)
    verdict = "unclear"
    if high <= 1 + allowed:
        verdict = "not slower" if high >= 1 else "faster"
    elif low > 1 + allowed:
        verdict = "slower"
    return {
        "kind": "pair",
        "data": records[0]["data"],
        "task": records[0]["task"],
        "seconds": {t: statistics.median(v for r in records for v in r[t]) for t in TREES},
        "spread": {
            t: statistics.median((max(r[t]) - min(r[t])) / statistics.median(r[t]) for r in records)
            for t in TREES
        },
        "ratio": mean,
        "low": low,
        "high": high,
        "best": {"ratio": best, "low": best_low, "high": best_high},
        "sessions": len(records),
        "same": all(record["same"] for record in records),
        "allowed": allowed,
        "verdict": verdict,
    }


def table(pairs: Sequence[dict[str, Any]]) -> str:
    """Return the summaries as a table."""
    lines = [
        "| data | task | base, us | new, us | new / base | 95 % | by the best rounds | verdict |",
        "|---|---|---:|---:|---:|---|---|---|",
    ]
    for pair in pairs:
        base, new = (1e6 * pair["seconds"][tree] for tree in TREES)
        best = pair["best"]
        lines.append(
            f"| {pair['data']} | {pair['task']} | {base:.3f} | {new:.3f} | {pair['ratio']:.4f} | "
            f"{pair['low']:.4f} to {pair['high']:.4f} | "
            f"{best['ratio']:.4f} ({best['low']:.4f} to {best['high']:.4f}) | {pair['verdict']}"
            f"{'' if pair['same'] else ', finds other rows'} |"
        )
    return "\n".join(lines)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    words: Callable[[str], list[str]] = lambda text: text.split(",")  # noqa: E731
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("base", type=Path, help="folder with the package to compare with")
    add("new", type=Path, help="folder with the package in question")
    add("--data", nargs="+", default=["sift-ngt-5k"], help="names or paths of vector sets")
    add("--tasks", type=words, default=list(TASKS), help="comma-separated")
    add("--sessions", type=int, default=30, help="pairs of fresh processes")
    add("--rounds", type=int, default=6, help="measurements of a task and session")
    add("--allowed", type=float, default=0.02, help="share by which the new tree may be slower")
    add("--rows", type=int, default=5000, help="use at most this many rows")
    add("--queries", type=int, default=500, help="use at most this many queries")
    add("--k", type=int, default=10, help="neighbours asked for")
    add("--ef", type=int, default=64, help="search width")
    add("--M", type=int, default=16, help="links per row")
    add("--ef-construction", type=int, default=100, help="search width while building")
    add("--out", type=Path, help="file for JSON lines; default: none")
    options = parser.parse_args(argv)
    unknown = sorted(set(options.tasks) - set(TASKS))
    if unknown:
        parser.error(f"--tasks: expected some of {', '.join(TASKS)}, got {', '.join(unknown)}")
    for tree in (options.base, options.new):
        if not (tree / "vicinal" / "__init__.py").is_file():
            parser.error(f"{tree}: expected a folder with the package vicinal")
    return options


def run(options: argparse.Namespace, out: TextIO | None) -> list[dict[str, Any]]:
    """Measure everything; return the summaries."""
    import machine

    def write(record: dict[str, Any]) -> None:
        if out is not None:
            out.write(json.dumps(record) + "\n")
            out.flush()

    asked = {name: value for name, value in vars(options).items() if name not in ("out", "data")}
    asked |= {"base": str(options.base), "new": str(options.new)}
    write({"kind": "run", **machine.describe([]), **asked})
    trees = (options.base.resolve(), options.new.resolve())
    pairs = []
    for data in options.data:
        records: dict[str, list[dict[str, Any]]] = {}
        for number in range(options.sessions):
            for record in session(trees, data, number, asked):
                write(record)
                records.setdefault(record["task"], []).append(record)
            print(f"{data}: session {number + 1} of {options.sessions}", file=sys.stderr)
        for some in records.values():
            pairs.append(summary(some, options.allowed))
            write(pairs[-1])
    return pairs


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, write the results file, print the table."""
    given = sys.argv[1:] if argv is None else list(argv)
    if given[:1] == ["--serve"]:
        serve(*given[1:])
        return
    options = arguments(given)
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(options.out.open("w")) if options.out else None
        print(table(run(options, out)))


if __name__ == "__main__":
    main()
