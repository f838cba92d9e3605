"""Rows that must not be lost: a living file beside `save` each time, Chroma and LanceDB.

    python bench/durability.py --data synthetic --rows 200000 --out bench/results/durability.jsonl
    python bench/durability.py --data minilm-short-80k --rows 68000 --only vicinal
    python bench/durability.py --data minilm-short-80k --rows 20000 --only chroma,lancedb

On a file of so many rows: single rows added with a wait for the disk after each, by one thread and
by many at a time (group commit); a hundred rows a wait; `save` after each row; bytes written for a
row; how long it takes to open 10,000 rows of journal, replayed many at once and one by one, and the
recall after either; searches beside flushes and beside a checkpoint; the longest that an addition
waits beside a checkpoint and beside a `save`; what readers wait. Lines of JSON; latencies are
milliseconds.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

EXTRA = 11_000  # rows to add
THREADS = 16


def synthetic(rows: int, dim: int = 384) -> tuple[np.ndarray, np.ndarray]:
    """Return rows near a subspace of 32 dimensions at unit length, and queries like them."""
    draw = np.random.default_rng(0)
    plane = draw.standard_normal((32, dim)).astype(np.float32)

    def some(n: int) -> np.ndarray:
        made = draw.standard_normal((n, 32)).astype(np.float32) @ plane
        made += 0.5 * draw.standard_normal((n, dim)).astype(np.float32)
        return made / np.linalg.norm(made, axis=1, keepdims=True)

    return some(rows), some(500)


def summary(seconds: list[float]) -> dict[str, float]:
    many = np.array(seconds) * 1000
    return {
        "n": len(many),
        "p50": round(float(np.percentile(many, 50)), 4),
        "p99": round(float(np.percentile(many, 99)), 4),
        "worst": round(float(many.max()), 4),
        "per_second": round(1000 * len(many) / float(many.sum()), 2),
    }


def timed(work: Callable[[int], object], count: int) -> list[float]:
    taken = []
    for i in range(count):
        start = time.perf_counter()
        work(i)
        taken.append(time.perf_counter() - start)
    return taken


@contextlib.contextmanager
def beside(work: Callable[[], object]) -> Iterator[None]:
    """Do something again and again in another thread while a block runs."""
    ended = threading.Event()

    def turn() -> None:
        while not ended.is_set():
            work()

    thread = threading.Thread(target=turn)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def disk(folder: str) -> dict[str, float]:
    """Return what one wait for this disk takes, with 1,600 bytes written before."""
    file = os.open(os.path.join(folder, "probe"), os.O_WRONLY | os.O_CREAT, 0o600)
    place = 0

    def one(_: int) -> None:
        nonlocal place
        place += os.pwrite(file, b"x" * 1600, place)
        os.fdatasync(file)

    taken = summary(timed(one, 300))
    os.close(file)
    os.unlink(os.path.join(folder, "probe"))
    return taken


def vicinal_tells(
    base: np.ndarray,
    extra: np.ndarray,
    queries: np.ndarray,
    folder: str,
    metric: str,
    say: Callable[..., None],
) -> None:
    import vicinal
    from vicinal.living import replay

    path = os.path.join(folder, "v.vicinal")
    start = time.perf_counter()
    index = vicinal.Index(base.shape[1], metric)
    index.add(base)
    say("build", seconds=round(time.perf_counter() - start, 2))
    index.save(path)
    copy = vicinal.open(path, mode="copy")
    del index

    def save_one(i: int) -> None:
        copy.add(extra[i])
        copy.save(path)

    say("save after each row", **summary(timed(save_one, 10)), bytes=os.path.getsize(path))
    waits: list[float] = []
    with beside(lambda: waits.extend(timed(lambda i: copy.add(extra[i % 1000]), 1))):
        time.sleep(0.1)
        for _ in range(3):
            copy.save(path)
    say("an addition beside save", **summary(waits))
    copy.save(path)

    live = vicinal.open(path, mode="rw")

    def durable(i: int) -> None:
        live.add(extra[i])
        live.flush()

    say(
        "add, flush",
        **summary(timed(durable, 1000)),
        bytes_a_row=live.journal_bytes / 1000,
        values=base.shape[1] * 4,
    )
    before = live.stats()["journal"]["syncs"]
    taken: list[float] = []
    threads = [
        threading.Thread(
            target=lambda n=n: taken.extend(timed(lambda i: durable(1000 + 100 * n + i), 100))
        )
        for n in range(THREADS)
    ]
    start = time.perf_counter()
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    seconds = time.perf_counter() - start
    told = {**summary(taken), "per_second": round(len(taken) / seconds, 2)}
    say(f"add, flush, {THREADS} threads", **told, syncs=live.stats()["journal"]["syncs"] - before)

    def hundred(i: int) -> None:
        for row in extra[2600 + 100 * i :][:100]:
            live.add(row)
        live.flush()

    taken = timed(hundred, 10)
    say("add 100, flush", **summary(taken), rows_per_second=round(1000 / sum(taken), 1))

    def call(i: int) -> None:
        live.add(extra[4600 + 100 * i :][:100])
        live.flush()

    taken = timed(call, 10)
    say("add 100 rows a call, flush", **summary(taken), rows_per_second=round(1000 / sum(taken), 1))
    say("add without flush", **summary(timed(lambda i: live.add(extra[3600 + i]), 1000)))

    # searches beside writers
    one = timed(lambda i: live.search(queries[i % len(queries)]), 3000)
    say("search", **summary(one))
    with beside(lambda: durable(4600 + len(live) % 1000)):
        say(
            "search beside flushes",
            **summary(timed(lambda i: live.search(queries[i % len(queries)]), 3000)),
        )
    searches: list[float] = []
    with beside(lambda: searches.extend(timed(lambda i: live.search(queries[0]), 1))):
        start = time.perf_counter()
        live.checkpoint()
        say("checkpoint", seconds=round(time.perf_counter() - start, 3))
    say("search beside a checkpoint", **summary(searches))
    waits = []
    with beside(lambda: waits.extend(timed(lambda i: live.add(extra[4600 + i]), 1))):
        time.sleep(0.1)
        for _ in range(3):
            live.checkpoint()
    say("an addition beside checkpoints", **summary(waits))
    live.close()

    # reopening
    live = vicinal.open(path, mode="rw")
    first = len(live)
    for row in extra[:10_000]:
        live.add(row)
    live.flush()
    ids = live.ids
    stored = live.get(ids)
    truth = ids[vicinal.exact_search(stored, queries, k=10, metric=metric).ids]

    def recall(asked: Any) -> float:
        found = asked.search(queries, 10)
        return round(float(vicinal.recall_at_k(found.ids, truth)), 4)

    say(
        "recall of the writer",
        recall=recall(live),
        rows_now=len(live),
        journal_rows=len(live) - first,
    )
    live.close(checkpoint=False)
    follow = time.perf_counter()
    reader = vicinal.open(path, follow=True)
    say(
        "open to follow 10,000 rows",
        seconds=round(time.perf_counter() - follow, 3),
        recall=recall(reader),
    )
    say(
        "search of a follower of 10,000 rows",
        **summary(timed(lambda i: reader.search(queries[i % len(queries)]), 1000)),
    )
    for at_once in (16384, 1):
        replay._ROWS_AT_ONCE = at_once
        start = time.perf_counter()
        live = vicinal.open(path, mode="rw")
        say(
            "reopen with 10,000 rows",
            at_once=at_once,
            seconds=round(time.perf_counter() - start, 3),
            recall=recall(live),
        )
        live.close(checkpoint=False)
    replay._ROWS_AT_ONCE = 16384
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the journal
        live = vicinal.open(path, mode="copy")
    say("open a copy", seconds=round(time.perf_counter() - start, 3))
    live = vicinal.open(path, mode="rw")
    live.checkpoint()
    reader = vicinal.open(path, follow=True)
    taken = []
    for i in range(300):
        live.add(extra[i])
        live.flush()
        taken += timed(lambda _: reader.search(queries[0]), 1)
    say("first search of a follower after a flush", **summary(taken))
    live.checkpoint()
    say(
        "first search of a follower after a checkpoint",
        **summary(timed(lambda _: reader.search(queries[0]), 1)),
    )
    say("search of a follower", **summary(timed(lambda i: reader.search(queries[i % 500]), 3000)))
    live.close()


class ChromaRows:
    def __init__(self, folder: str, dim: int, metric: str) -> None:
        import chromadb

        client = chromadb.PersistentClient(
            folder, settings=chromadb.Settings(anonymized_telemetry=False)
        )
        self.made = client.get_or_create_collection(
            "rows", metadata={"hnsw:space": metric}, embedding_function=None
        )

    def add(self, first: int, rows: np.ndarray) -> None:
        for at in range(0, len(rows), 5000):
            part = rows[at : at + 5000]
            self.made.add([str(first + at + i) for i in range(len(part))], part)

    def count(self) -> int:
        return int(self.made.count())

    def search(self, query: np.ndarray) -> None:
        self.made.query([query], n_results=10)


class LanceRows:
    def __init__(self, folder: str, dim: int, metric: str) -> None:
        import lancedb

        self.client = lancedb.connect(folder)
        try:
            self.made = self.client.open_table("rows")
        except Exception:
            self.made = None

    def add(self, first: int, rows: np.ndarray) -> None:
        import pyarrow as pa

        flat = pa.array(np.ascontiguousarray(rows).reshape(-1))
        table = pa.table(
            {
                "id": np.arange(first, first + len(rows)),
                "vector": pa.FixedSizeListArray.from_arrays(flat, rows.shape[1]),
            }
        )
        if self.made is None:
            self.made = self.client.create_table("rows", table)
        else:
            self.made.add(table)

    def count(self) -> int:
        return int(self.made.count_rows())

    def search(self, query: np.ndarray) -> None:
        self.made.search(query).limit(10).to_arrow()


def written() -> int:
    """Return the bytes that this process has handed to the system to write."""
    with open("/proc/self/io", encoding="ascii") as file:
        return int(next(line for line in file if line.startswith("wchar")).split()[1])


def peer_tells(
    kind: Any,
    base: np.ndarray,
    extra: np.ndarray,
    queries: np.ndarray,
    folder: str,
    metric: str,
    say: Callable[..., None],
) -> None:
    made = kind(folder, base.shape[1], metric)
    start = time.perf_counter()
    made.add(0, base)
    say("build", seconds=round(time.perf_counter() - start, 2))
    before = written()
    count = 300
    taken = timed(lambda i: made.add(len(base) + i, extra[i : i + 1]), count)
    say(
        "add one row",
        **summary(taken),
        bytes_a_row=(written() - before) / count,
        values=base.shape[1] * 4,
    )
    taken = timed(lambda i: made.add(len(base) + 300 + 100 * i, extra[300 + 100 * i :][:100]), 10)
    say("add 100 rows a call", **summary(taken), rows_per_second=round(1000 / sum(taken), 1))
    say("search", **summary(timed(lambda i: made.search(queries[i]), 50)))
    rows = made.count()
    start = time.perf_counter()
    again = kind(folder, base.shape[1], metric)
    again.search(queries[0])
    say(
        "reopen, first search",
        seconds=round(time.perf_counter() - start, 3),
        rows_now=again.count(),
        rows_before=rows,
    )


OPENED = """
import sys, time, hashlib, vicinal, numpy as np
path, again, turns = sys.argv[1], sys.argv[2], int(sys.argv[3])
best, taken = [], []
for _ in range(turns):
    start = time.perf_counter(); vicinal.open(path); taken.append(time.perf_counter() - start)
index = vicinal.open(path, mode="copy")
index.add(np.ones((1, index.dim), np.float32) * 0.01)
index.save(again)
print(sorted(taken)[len(taken) // 2] * 1e6, hashlib.sha256(open(again, "rb").read()).hexdigest())
"""


def opening(path: str, old: str, say: Callable[..., None]) -> None:
    """Compare `open` and the bytes of `save` with those of another tree, turn by turn."""
    new = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH", "")]))
    told: dict[str, list[float]] = {"new": [], "old": []}
    sums: dict[str, set[str]] = {"new": set(), "old": set()}
    for _ in range(6):
        for name, where in (("old", old), ("new", new)):
            done = subprocess.run(
                [sys.executable, "-c", OPENED, path, path + ".again", "2000"],
                env={**os.environ, "PYTHONPATH": where},
                capture_output=True,
                text=True,
                check=True,
            )
            taken, sum = done.stdout.split()
            told[name].append(float(taken))
            sums[name].add(sum)
    say(
        "open as before, microseconds",
        **{name: round(min(all), 2) for name, all in told.items()},
        same_bytes=sums["new"] == sums["old"],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="synthetic")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--metric", default="cosine")
    parser.add_argument("--only", default="vicinal,chroma,lancedb")
    parser.add_argument("--old", help="PYTHONPATH of a tree to compare `open` with")
    parser.add_argument("--folder", help="where to write; a temporary folder by default")
    parser.add_argument("--out", help="append to this file")
    options = parser.parse_args()
    if options.data == "synthetic":
        rows, queries = synthetic(options.rows + EXTRA)
    else:
        import datasets

        data = datasets.load(options.data)
        # the name of a package that LanceDB looks for
        del sys.modules["datasets"]
        sys.path.remove(os.path.dirname(os.path.abspath(__file__)))
        rows = np.ascontiguousarray(data.base[: options.rows + EXTRA], np.float32)
        queries = np.ascontiguousarray(data.queries[:500], np.float32)
    base, extra = rows[: options.rows], rows[options.rows :]
    for name in options.only.split(","):
        folder = tempfile.mkdtemp(prefix="durability-", dir=options.folder)
        module = {"chroma": "chromadb"}.get(name, name)

        def say(what: str, name: str = name, module: str = module, **figures: Any) -> None:
            line = json.dumps(
                {
                    "kind": "durability",
                    "library": name,
                    "version": importlib.metadata.version(module) if module != "vicinal" else "",
                    "data": options.data,
                    "rows": options.rows,
                    "what": what,
                    **figures,
                    "load": round(os.getloadavg()[0], 1),
                }
            )
            print(line, flush=True)
            if options.out:
                with open(options.out, "a", encoding="utf-8") as file:
                    file.write(line + "\n")

        try:
            if not importlib.util.find_spec(module):
                continue
            say("one wait for the disk", **disk(folder))
            if name == "vicinal":
                vicinal_tells(base, extra, queries, folder, options.metric, say)
                if options.old:
                    opening(os.path.join(folder, "v.vicinal"), options.old, say)
            else:
                kind = ChromaRows if name == "chroma" else LanceRows
                peer_tells(kind, base, extra, queries, folder, options.metric, say)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
