"""Many threads that add, replace and remove rows of one index at once, each its own.

    python tests/many_writers.py --rows 100000 --threads 8

Every thread keeps a dictionary of what must be there. At the end the index holds what all of them
do, its graph is whole, and it finds as much as one that was made of the same rows in one call.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import vicinal

K = 10
EFS = (16, 64)


class Outcome(NamedTuple):
    """What is left after a run."""

    index: vicinal.Index
    rows: dict[int, Any]
    problems: list[str]
    calls: int
    seconds: float


def clustered(rng: Any, count: int, dim: int) -> Any:
    """Return rows in heaps of many widths, as embeddings have them."""
    centres = np.random.default_rng(1).standard_normal((200, dim))
    near = centres[rng.integers(0, 200, count)]
    return (near + 0.5 * rng.standard_normal((count, dim))).astype(np.float32)


def run(
    threads: int,
    rows: int,
    dim: int,
    draw: Callable[[Any, int, int], Any] = clustered,
    **parameters: Any,
) -> Outcome:
    """Let threads write until so many rows were added or replaced."""
    index = vicinal.Index(dim, **parameters)
    held: list[dict[int, Any]] = [{} for _ in range(threads)]
    problems: list[str] = []
    calls = [0] * threads
    searching = threading.Event()

    def write(worker: int) -> None:
        rng = np.random.default_rng(worker)
        mine = held[worker]
        names: list[int] = []  # of the same ids, to draw from
        done = 0
        try:
            while done < rows // threads and not problems:
                calls[worker] += 1
                size = int(rng.integers(1, 17))
                what = rng.random()
                values = draw(rng, size, dim)
                if what < 0.6 or len(names) < 50:
                    if what < 0.3:
                        new = index.add(values).tolist()
                    else:
                        first = calls[worker] * 16  # negative ids are never automatic ones
                        new = [-1 - worker - threads * (first + i) for i in range(size)]
                        index.add(values, new)
                    names += new
                    mine.update(zip(new, values, strict=True))
                    done += size
                elif what < 0.8:
                    chosen = rng.choice(len(names), size, replace=False)
                    new = [names[i] for i in chosen]
                    index.update(values, new)
                    mine.update(zip(new, values, strict=True))
                    done += size
                else:
                    chosen = sorted(rng.choice(len(names), size, replace=False).tolist())
                    index.remove([names[i] for i in chosen])
                    for i in reversed(chosen):
                        del mine[names[i]]
                        names[i] = names[-1]
                        names.pop()
                if calls[worker] % 64 == 0:
                    same = names[-1]
                    if not (index.get(same) == mine[same]).all():
                        problems.append(f"id {same} holds another vector")
        except BaseException as error:
            problems.append(f"writer {worker}: {error!r}")

    def search() -> None:
        rng = np.random.default_rng(99)
        try:
            while not searching.is_set():
                found = index.search(draw(rng, 4, dim), K, num_threads=1).ids
                for each in found.tolist():
                    real = [id for id in each if id >= 0]
                    if len(set(real)) != len(real):
                        problems.append("an id twice")
        except BaseException as error:
            problems.append(f"search: {error!r}")

    begin = time.perf_counter()
    workers = [threading.Thread(target=write, args=(i,)) for i in range(threads)]
    reader = threading.Thread(target=search)
    for each in (*workers, reader):
        each.start()
    for each in workers:
        each.join()
    seconds = time.perf_counter() - begin
    searching.set()
    reader.join()
    everything = {id: value for part in held for id, value in part.items()}
    return Outcome(index, everything, problems, sum(calls), seconds)


def held(index: vicinal.Index) -> int:
    """Return the bytes that rows, ids, links and codes take."""
    return sum(index.memory_usage()[each] for each in ("vectors", "ids", "graph", "codes"))


def compare(outcome: Outcome, queries: int = 500) -> dict[str, Any]:
    """Compare an index with its model and with a fresh one; AssertionError where it differs."""
    index, rows = outcome.index, outcome.rows
    assert not outcome.problems, outcome.problems[0]
    index.check()
    assert sorted(index.ids.tolist()) == sorted(rows) and len(index) == len(rows)
    ids = np.array(list(rows))
    values = np.array([rows[id] for id in rows])
    assert (index.get(ids) == values).all()
    fresh = vicinal.Index(index.dim, index.metric, M=index.M, ef_construction=index.ef_construction)
    fresh.add(values, ids)
    asked = clustered(np.random.default_rng(7), queries, index.dim)
    truth = ids[vicinal.exact_search(values, asked, K, metric=index.metric).ids]
    recalls = {
        name: {
            ef: round(vicinal.recall_at_k(each.search(asked, K, ef_search=ef).ids, truth), 4)
            for ef in EFS
        }
        for name, each in (("grown", index), ("fresh", fresh))
    }
    alone = sum(
        int(index.search(values[i : i + 1], 1, ef_search=64).ids[0, 0] != ids[i])
        for i in range(0, len(ids), max(1, len(ids) // 2000))
    )
    return {
        "kind": "many_writers",
        "calls": outcome.calls,
        "rows_left": len(rows),
        "seconds": round(outcome.seconds, 1),
        "recall": recalls,
        "rows_that_do_not_find_themselves": alone,
        "bytes": held(index),
        "bytes_fresh": held(fresh),
    }


def main() -> None:
    """Run once and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--dim", type=int, default=32)
    args = parser.parse_args()
    print(json.dumps(compare(run(args.threads, args.rows, args.dim))))


if __name__ == "__main__":
    sys.exit(main())
