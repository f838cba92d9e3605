"""What each technique is worth: the library beside copies of itself that lack one thing each.

    python bench/ablations.py --data sift-photo-10k minilm-10k --out bench/results/ablations.jsonl

Every variant (variants.py) is compiled from a changed copy of `mojo/`; all of them are loaded into
this process. Rounds are interleaved as in recall_qps.py. Everything runs on one thread
and is counted in CPU time of that thread, so that a busy machine disturbs little. The native module
is called without the Python package around it; rows are float32, no search is a scan.
Writes one JSON line per measurement, of the kinds `run`, `variant`, `build` and `search`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

import curves
import datasets
import machine
from recall_qps import brief, say, turns
from variants import WHOLE, Variant, compile_all, variants
from worker import WARM_UP

METRICS = ("l2", "ip", "cosine")
FLOAT32 = 0  # position in the stored dtypes, as index_new takes it
RECALLS = (0.95, 0.99, 0.999)
MODES = {"one": "one query a call", "batch": "batch"}
LEAST_RECALL = 0.8  # with the widest search; below, a variant is broken rather than slower


class Subject:
    """One variant on one vector set."""

    def __init__(
        self, variant: Variant, native: ModuleType, data: datasets.DataSet, o: argparse.Namespace
    ) -> None:
        self.variant, self.native, self.data, self.o = variant, native, data, o
        self.ids = np.empty((len(data.queries), o.k), dtype=np.int64)
        self.distances = np.empty((len(data.queries), o.k), dtype=np.float32)
        parts = zip(data.queries, self.ids, self.distances, strict=True)
        self.singles = [tuple(part[None] for part in one) for one in parts]

    def build(self) -> float:
        """Build the index anew and return the seconds of CPU time."""
        o, dim, code = self.o, self.data.base.shape[1], METRICS.index(self.data.metric)
        made = (code, FLOAT32, dim, o.M, o.ef_construction, o.seed, 0, self.variant.quantization)
        self.handle = None  # the old one goes before the new one comes
        self.handle = self.native.index_new(*made)
        ids = np.arange(len(self.data.base))
        how = (False, False, 1, None, False, None, ids)  # ids of our own, one thread, nothing else
        start = time.thread_time()
        status = self.native.index_add(self.handle, self.data.base, ids, *how)
        seconds = time.thread_time() - start
        if status != 0 or self.native.index_check(self.handle) != 0:
            raise RuntimeError(f"{self.variant.name}: the build failed or the index is not sound")
        return seconds

    def search(self, mode: str, ef: int) -> float:
        """Run all queries until the given time is over; return queries per second of CPU time."""
        whole = [(self.data.queries, self.ids, self.distances)]
        calls = self.singles if mode == "one" else whole
        search, handle, k = self.native.index_search, self.handle, self.o.k
        for queries, ids, distances in self.singles[:WARM_UP]:
            search(handle, queries, k, ef, 1, ids, distances)
        self.ids.fill(-1)
        passes, start = 0, time.thread_time()
        while passes == 0 or time.thread_time() - start < self.o.seconds:
            for queries, ids, distances in calls:
                search(handle, queries, k, ef, 1, ids, distances)
            passes += 1
        return passes * len(self.ids) / (time.thread_time() - start)


def measure(name: str, subjects: dict[str, Subject]) -> Iterator[dict[str, Any]]:
    """Yield every record of one set."""
    first = next(iter(subjects.values()))
    o, data = first.o, first.data
    common = {"data": name, "rows": len(data.base), "dim": data.base.shape[1], "threads": 1}
    common |= {"metric": data.metric, "M": o.M, "ef_construction": o.ef_construction}
    common["seed"] = o.seed
    seconds: dict[str, list[float]] = {variant: [] for variant in subjects}
    for number in range(o.build_rounds):
        for variant in turns(list(subjects), number):
            seconds[variant].append(subjects[variant].build())
        say(f"{name}: build round {number + 1} of {o.build_rounds}")
    for variant, values in seconds.items():
        speed = len(data.base) / statistics.median(values)
        fields = {"seconds": curves.stats(values), "vectors_per_second": speed}
        yield {"kind": "build", "index": variant, **common, **fields}
    speeds: dict[tuple[str, str, int], list[float]] = {}
    recalls: dict[tuple[str, int], float] = {}
    for number in range(o.rounds):
        for ef, mode in itertools.product(o.ef, MODES):
            for variant in turns(list(subjects), number):
                speed = subjects[variant].search(mode, ef)
                speeds.setdefault((variant, mode, ef), []).append(speed)
                if number == 0:
                    recall = datasets.recall_at_k(subjects[variant].ids, data, o.k)
                    if recalls.setdefault((variant, ef), recall) != recall:
                        raise RuntimeError(f"{variant}: a batch found other rows than its queries")
                    if ef == o.ef[-1] and recall < LEAST_RECALL:
                        raise RuntimeError(f"{variant}: recall {recall} at ef {ef}")
        say(f"{name}: round {number + 1} of {o.rounds}")
    for (variant, mode, ef), values in speeds.items():
        fields = {"mode": mode, "ef": ef, "k": o.k, "recall": recalls[variant, ef]}
        fields |= {"qps": curves.stats(values), "queries": len(data.queries)}
        yield {"kind": "search", "index": variant, **common, **fields}


def table(records: Sequence[curves.Record], data: str) -> str:
    """Return the table of one set: the library's speeds, and what the variants' are times those."""
    columns = list(itertools.product(MODES, RECALLS))
    heads = ["", *(f"{MODES[mode]}, recall {recall:g}" for mode, recall in columns), "build"]
    built = {
        r["index"]: r["vectors_per_second"] for r in curves.select(records, "build", data=data)
    }
    lines = [f"**{data}**", "", "| " + " | ".join(heads) + " |"]
    lines.append("|---" + "|---:" * (len(heads) - 1) + "|")
    for name in built:
        cells = [name]
        for mode, recall in columns:
            whole, ours = (
                curves.level(records, data, one, recall, mode, 1) for one in (WHOLE, name)
            )
            cells.append(cell(ours, None if name == WHOLE else whole, name == WHOLE))
        times = f"{built[name] / built[WHOLE]:.2f}x"
        cells.append(f"{built[name]:,.0f}/s" if name == WHOLE else times)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def cell(ours: curves.Level | None, whole: curves.Level | None, absolute: bool) -> str:
    """Return a speed, or how many times another it is, as a table shows it."""
    times = curves.ratio(ours, whole)
    if ours is None or (times is None and not absolute):
        return "-"
    return "≥ " * ours.at_least + (f"{ours.qps:,.0f}" if times is None else f"{times:.2f}x")


def legend(records: Sequence[curves.Record]) -> str:
    """Return what the variants are, and where and how steadily they were measured."""
    run = curves.select(records, "run")[0]
    searches = curves.select(records, "search")
    spread = statistics.median(record["qps"]["spread"] for record in searches)
    lines = [f"- {one['index']}: {one['about']}" for one in curves.select(records, "variant")]
    lines.append(
        f"\nQueries per second of CPU time on one thread, k={searches[0]['k']}, "
        f"M={searches[0]['M']}, ef_construction={searches[0]['ef_construction']}, by interpolation "
        f"between search widths; below the first line: times that. Median spread of the rounds "
        f"{spread:.0%}; ≥: the narrowest search already exceeds the recall; -: cannot be told. "
        f"{run['cpu']}, {run['cores']} cores, load {run['load']:.1f}, {run['date'][:10]}."
    )
    return "\n".join(lines)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    names = [variant.name for variant in variants()]
    words = lambda text: text.split(",")  # noqa: E731
    numbers = lambda text: sorted({int(part) for part in text.split(",")})  # noqa: E731
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--data", nargs="+", help="names or paths of vector sets; default: all that are at hand")
    add("--variants", type=words, default=names, help=f"comma-separated; {WHOLE} is always there")
    add("--M", type=int, default=16, help="links per row; 2M in the bottom layer")
    add("--ef-construction", type=int, default=200, help="search width while building")
    add("--ef", type=numbers, default=[10, 16, 24, 32, 64, 128, 256, 512], help="search widths")
    add("--k", type=int, default=10, help="neighbours asked for")
    add("--rounds", type=int, default=5, help="measurements of every search")
    add("--build-rounds", type=int, default=3, help="builds of every variant")
    add("--seconds", type=float, default=0.1, help="least CPU time of one search measurement")
    add("--queries", type=int, default=1000, help="use at most this many queries")
    add("--seed", type=int, default=1, help="seed of the indexes")
    add("--modules", type=Path, help="keep compiled modules here; default: a temporary folder")
    add("--out", type=Path, default=Path("bench/results/ablations.jsonl"), help="results file")
    options = parser.parse_args(argv)
    unknown = sorted(set(options.variants) - set(names))
    if unknown:
        parser.error(f"--variants: expected some of {', '.join(names)}, got {', '.join(unknown)}")
    if min(options.ef) < options.k:
        parser.error(f"--ef: expected widths of at least k = {options.k}, got {min(options.ef)}")
    return options


def main(argv: Sequence[str] | None = None) -> None:
    """Compile, measure, write the results file, and print its tables."""
    options = arguments(argv)
    chosen = [v for v in variants() if v.name == WHOLE or v.name in options.variants]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="vicinal-ablations-") as temporary:
        modules = compile_all(chosen, options.modules or Path(temporary), say)
    records: list[curves.Record] = []
    with options.out.open("w", encoding="utf-8") as out:

        def write(record: dict[str, Any]) -> None:
            records.append(record)
            out.write(json.dumps(record) + "\n")
            out.flush()

        write({"kind": "run", **machine.describe(["vicinal"]), "rounds": options.rounds})
        for variant in chosen:
            changed = {"index": variant.name, "about": variant.about, "file": variant.file}
            write({"kind": "variant", **changed, "old": variant.old, "new": variant.new})
        for given in options.data or datasets.at_hand():
            path = datasets.find(given)
            base, queries, truth, metric = datasets.load(path)
            queries = np.ascontiguousarray(queries[: options.queries], dtype=np.float32)
            truth = truth[: options.queries]
            data = datasets.DataSet(base.astype(np.float32), queries, truth, metric)
            subjects = {v.name: Subject(v, modules[v.name], data, options) for v in chosen}
            for record in measure(path.stem, subjects):
                write(record)
                say(brief(record))
            print(table(records, path.stem))
    print(legend(records))


if __name__ == "__main__":
    main()
