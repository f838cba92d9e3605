r"""Recall against speed of our index and its peers, on one machine, in one run.

    python bench/recall_qps.py --data sift-photo-10k minilm-10k --out bench/results/run.jsonl

Each index lives in a process of its own, which is stopped while another is measured. Rounds are
interleaved: at every search width all indexes take their turn before any is measured again, and
each round starts with another index, so that a drift of the machine meets all of them alike.
`--rows` takes the first rows of each set, once for each number, and adds a table of build speeds:

    python bench/recall_qps.py --data FOLDER --rows 25000,50000,100000,200000 --build-rounds 3 \
        --build-threads 1,2 --modes one --threads 1 --ef 64 --rounds 1 --out growth.jsonl

Without `--data` the sets in the folder of VICINAL_DATA are used, or else those of tests/data.
Writes one JSON line per measurement; `bench/results/README.md` describes them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import adapters
import curves
import datasets
import machine
import summary
from worker import Worker, WorkerError

TINY = {"rows": 100, "dim": 16}
TINY_CALLS = 2000
MOST_CPU = 1.15  # CPU seconds per wall second and thread; above, the setting was ignored
LEAST_CPU = 0.9  # below, on one thread, something else had the processor


class Bench:
    """One data set: the workers of all indexes on it, and the records they give.

    Parameters
    ----------
    name : str
        The name that the records carry.
    data : DataSet
        Vectors and ground truth; rows are handed out as float32.
    options : argparse.Namespace
        The command line.
    folder : Path
        Scratch folder, for the vectors and the saved indexes.
    """

    def __init__(
        self, name: str, data: datasets.DataSet, options: argparse.Namespace, folder: Path
    ) -> None:
        queries = np.ascontiguousarray(data.queries[: options.queries], dtype=np.float32)
        self.name = name
        self.data = data._replace(queries=queries, truth=data.truth[: options.queries])
        self.options = options
        self.folder = folder
        np.save(folder / "base.npy", data.base.astype(np.float32))
        np.save(folder / "queries.npy", queries)
        self.settings = {
            "metric": data.metric,
            "M": options.M,
            "ef_construction": options.ef_construction,
            "seed": options.seed,
        }
        self.workers: dict[str, Worker] = {}
        self.started = 0

    def run(self) -> Iterator[dict[str, Any]]:
        """Yield every record of this set."""
        try:
            yield from self.builds()
            yield from self.files()
            yield from self.overheads()
            yield from self.searches()
        finally:
            for worker in self.workers.values():
                worker.close()

    def record(self, kind: str, spec: str, **fields: Any) -> dict[str, Any]:
        """Return a record with what all of this set have in common."""
        shape = {"rows": len(self.data.base), "dim": self.data.base.shape[1]}
        return {"kind": kind, "data": self.name, "index": spec, **shape, **self.settings, **fields}

    def start(self, spec: str) -> Worker:
        """Start a fresh process for an index."""
        self.started += 1
        return Worker(spec, self.folder, self.folder / f"worker-{self.started}", self.settings)

    def builds(self) -> Iterator[dict[str, Any]]:
        """Build every index with every number of threads, each time in a fresh process.

        The last process with the fewest threads keeps its index and answers the searches.
        """
        o = self.options
        thread_counts = sorted(set(o.build_threads), reverse=True)
        seen: dict[tuple[str, int], list[dict[str, float]]] = {}
        failed: set[str] = set()
        for number in range(o.build_rounds):
            for threads in thread_counts:
                for spec in turns(o.indexes, number):
                    if spec in failed:
                        continue
                    try:
                        worker = self.start(spec)
                        answer = worker("build", threads=threads)
                    except WorkerError as error:
                        failed.add(spec)
                        say(f"{spec} left out: {error}")
                        continue
                    seen.setdefault((spec, threads), []).append(answer)
                    if threads == thread_counts[-1] and number == o.build_rounds - 1:
                        self.workers[spec] = worker
                    else:
                        worker.close()
        for (spec, threads), answers in seen.items():
            seconds = curves.stats([answer["seconds"] for answer in answers])
            cpu = curves.stats([one["cpu_seconds"] / one["seconds"] for one in answers])
            note_cpu(f"{spec} build", threads, cpu)
            yield self.record(
                "build",
                spec,
                threads=threads,
                seconds=seconds,
                vectors_per_second=len(self.data.base) / seconds["median"],
                cpu_per_wall=cpu,
                peak_bytes=min(answer["peak_bytes"] for answer in answers),
                resident_bytes=min(answer["resident_bytes"] for answer in answers),
            )

    def files(self) -> Iterator[dict[str, Any]]:
        """Save every index, then open each in fresh processes."""
        saved = {
            spec: worker("save", path=self.folder / f"saved-{number}")
            for number, (spec, worker) in enumerate(self.workers.items())
        }
        opened: dict[str, list[dict[str, float]]] = {spec: [] for spec in saved}
        for number in range(self.options.rounds):
            for spec in turns(list(saved), number):
                worker = self.start(spec)
                path = self.folder / f"saved-{list(saved).index(spec)}"
                ef = max(self.options.ef[0], self.options.k)
                opened[spec].append(worker("open", path=path, ef=ef, k=self.options.k))
                worker.close()
        for spec, answer in saved.items():
            yield self.record(
                "file",
                spec,
                bytes=answer["bytes"],
                save_seconds=answer["seconds"],
                open_ms=curves.stats([one["open_ms"] for one in opened[spec]]),
                first_search_ms=curves.stats([one["first_ms"] for one in opened[spec]]),
            )

    def overheads(self) -> Iterator[dict[str, Any]]:
        """Time single searches in an index so small that the call itself is what they cost."""
        k = self.options.k
        times: dict[str, list[float]] = {spec: [] for spec in self.workers}
        for number in range(self.options.rounds):
            for spec in turns(list(times), number):
                worker = self.workers[spec]
                call = worker("overhead", **TINY, ef=max(k, 16), k=k, calls=TINY_CALLS)
                times[spec].append(call)
        for spec, values in times.items():
            yield self.record("call", spec, **TINY, k=k, call_us=curves.stats(values))

    def searches(self) -> Iterator[dict[str, Any]]:
        """Measure all indexes at every search width, in every mode and number of threads.

        One round covers everything, so that the runs behind a median lie far apart in time.
        """
        o = self.options
        answers: dict[tuple[str, str, int, int], list[dict[str, Any]]] = {}
        for number in range(o.rounds):
            for ef, mode, threads in itertools.product(o.ef, o.modes, o.threads):
                for spec in turns(list(self.workers), number):
                    adapter, _ = adapters.parse(spec)
                    if mode == "one" and threads > 1 and not adapter.concurrent:
                        continue
                    if not adapter.uses_ef and ef != o.ef[0]:
                        continue
                    answer = self.search(spec, mode, threads, ef)
                    answers.setdefault((spec, mode, threads, ef), []).append(answer)
            say(f"{self.name}: round {number + 1} of {o.rounds}")
        for (spec, mode, threads, ef), of_run in answers.items():
            fields: dict[str, Any] = {"mode": mode, "threads": threads, "ef": ef, "k": o.k}
            fields["recall"] = datasets.recall_at_k(of_run[0]["ids"], self.data, o.k)
            fields["qps"] = curves.stats([answer["qps"] for answer in of_run])
            fields["queries"] = len(self.data.queries)
            fields["cpu_per_wall"] = curves.stats([answer["cpu_per_wall"] for answer in of_run])
            note_cpu(f"{spec} {mode}", threads, fields["cpu_per_wall"])
            if mode == "batch":
                fields["native_batch"] = adapters.parse(spec)[0].native_batch
            if "latency_us" in of_run[0]:
                fields["latency_us"] = {
                    name: float(np.median([answer["latency_us"][name] for answer in of_run]))
                    for name in of_run[0]["latency_us"]
                }
            yield self.record("search", spec, **fields)

    def search(self, spec: str, mode: str, threads: int, ef: int) -> dict[str, Any]:
        """Measure one index once; again, a few times, if one thread did not get one processor.

        What is kept is the try that got most of a processor, not the fastest.
        """
        o = self.options
        asked = {"mode": mode, "threads": threads, "ef": ef, "k": o.k, "seconds": o.seconds}
        tries = [self.workers[spec]("search", **asked)]
        while threads == 1 and tries[-1]["cpu_per_wall"] < LEAST_CPU and len(tries) <= o.retries:
            tries.append(self.workers[spec]("search", **asked))
        return max(tries, key=_processor_share)


def _processor_share(answer: dict[str, Any]) -> float:
    return float(answer["cpu_per_wall"])


def turns(specs: Sequence[str], number: int) -> list[str]:
    """Return the indexes in the order of a round: each round starts with the next one."""
    start = number % len(specs) if specs else 0
    return [*specs[start:], *specs[:start]]


def note_cpu(what: str, threads: int, cpu: dict[str, Any]) -> None:
    """Say when a measurement used more processors than it was given, or did not get its one."""
    if cpu["max"] > MOST_CPU * threads:
        say(f"note: {what} with {threads} threads used {cpu['max']:.2f} CPUs")
    if threads == 1 and cpu["min"] < LEAST_CPU:
        say(f"note: {what} was disturbed, it got {cpu['min']:.2f} of one CPU")


def say(text: str) -> None:
    """Print progress where it does not mix with results."""
    print(text, file=sys.stderr, flush=True)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    cores = len(os.sched_getaffinity(0))
    numbers = lambda text: [int(part) for part in text.split(",")]  # noqa: E731
    words = lambda text: text.split(",")  # noqa: E731
    parser = argparse.ArgumentParser(
        description="Recall against queries per second, build, memory and file of vector indexes.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--data", nargs="+", help="names or paths of vector sets; default: all that are at hand")
    add(
        "--rows",
        type=numbers,
        help="first so many rows of each set, one after another; default: all",
    )
    add("--metric", help="l2, ip or cosine, for sets that do not say")
    add("--indexes", type=words, help="comma-separated; default: all that are installed")
    add("--M", type=int, default=16, help="links per row; 2M in the bottom layer")
    add("--ef-construction", type=int, default=200, help="search width while building")
    add("--ef", type=numbers, default=[10, 16, 32, 64, 128, 256], help="search widths")
    add("--k", type=int, default=10, help="neighbours asked for")
    add("--threads", type=numbers, default=[1, cores], help="threads that search")
    add("--build-threads", type=numbers, help="threads that build; default: as --threads")
    add("--modes", type=words, default=["one", "batch"], help="one query per call, or a batch")
    add("--rounds", type=int, default=3, help="measurements of everything but builds")
    add("--build-rounds", type=int, default=1, help="builds per index and number of threads")
    add("--seconds", type=float, default=0.2, help="least time of one search measurement")
    add("--retries", type=int, default=3, help="further tries where one thread was disturbed")
    add("--queries", type=int, default=1000, help="use at most this many queries")
    add("--seed", type=int, default=1, help="seed of the indexes that take one")
    add("--peer", default="hnswlib", help="index that the printed ratios are against")
    add("--out", type=Path, default=Path("bench/results/run.jsonl"), help="results file")
    options = parser.parse_args(argv)
    options.data = options.data or datasets.at_hand()
    options.indexes = options.indexes or adapters.available()
    options.threads = sorted(set(options.threads))
    options.build_threads = options.build_threads or options.threads
    options.ef = sorted(set(options.ef))
    if min(options.ef) < options.k:
        parser.error(f"--ef: expected widths of at least k = {options.k}, got {min(options.ef)}")
    return options


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, write the results file, and print its summary."""
    options = arguments(argv)
    for spec in options.indexes:
        if adapters.version(spec) is None:
            sys.exit(f"{spec}: not installed")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("w", encoding="utf-8") as out:

        def write(record: dict[str, Any]) -> None:
            out.write(json.dumps(record) + "\n")
            out.flush()

        write({"kind": "run", **machine.describe(options.indexes), "rounds": options.rounds})
        for name in options.data:
            path = datasets.find(name)
            data = datasets.load(path, metric=options.metric)
            for rows in options.rows or [len(data.base)]:
                label = f"{path.stem}-{rows}" if options.rows else path.stem
                part = datasets.first_rows(data, rows)
                with tempfile.TemporaryDirectory(prefix="vicinal-bench-") as folder:
                    for record in Bench(label, part, options, Path(folder)).run():
                        write(record)
                        say(brief(record))
    records = curves.read([options.out])
    print(summary.tables(records, options.peer))
    if options.rows:
        print(f"\n{summary.growth(records)}")


def brief(record: dict[str, Any]) -> str:
    """Return one line of progress for a record."""
    start = f"{record['data']} {record['index']} {record['kind']}"
    if record["kind"] == "search":
        return (
            f"{start} {record['mode']} threads={record['threads']} ef={record['ef']} "
            f"recall={record['recall']:.4f} qps={record['qps']['median']:,.0f} "
            f"(spread {record['qps']['spread']:.0%})"
        )
    if record["kind"] == "build":
        return f"{start} threads={record['threads']} {record['vectors_per_second']:,.0f} vectors/s"
    if record["kind"] == "file":
        return f"{start} {record['bytes']:,} bytes, open {record['open_ms']['median']:.2f} ms"
    return f"{start} {record['call_us']['median']:.2f} us"


if __name__ == "__main__":
    main()
