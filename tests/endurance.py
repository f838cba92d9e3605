"""A mixed run against a dictionary: one thread changes an index and saves it, four search it.

    python tests/endurance.py --seconds 60     # on the installed library

Values are whole numbers, so that every distance is exact and tells which vector of an id a search
has seen. At the end the index must hold what the dictionary holds, and so must its file.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

import vicinal
from model import Model, asked_as, draw, stored_as

K = 10
MOST_ROWS = 6000
ROOM = "/dev/shm" if os.path.isdir("/dev/shm") else None


class Limit(NamedTuple):
    """When a run is over: after so many seconds, or changes."""

    seconds: float = np.inf
    changes: float = np.inf


class Run:
    """One index, what it must hold, and all that searches may see meanwhile."""

    def __init__(self, metric: str, dtype: str, dim: int, limit: Limit, folder: Path) -> None:
        self.model = Model(metric, dtype, dim)
        self.index = self.empty_index()
        self.path = folder / "index.vicinal"
        self.limit = limit
        self.until = time.monotonic() + limit.seconds
        self.changed_enough = False
        self.rng = np.random.default_rng(0)
        # every vector that an id had since the beginning; a new one is noted before it is there
        self.versions: dict[int, list[np.ndarray]] = {}
        # ids that nobody may find, with the number of the removal: noted once they are gone,
        # forgotten before they come back
        self.gone: dict[int, int] = {}
        self.done: Counter[str] = Counter()
        self.problems: list[str] = []

    def empty_index(self) -> vicinal.Index:
        model = self.model
        return vicinal.Index(model.dim, model.metric, dtype=model.dtype, M=8, ef_construction=40)

    # ---- the writer

    def some_ids(self, most: int) -> np.ndarray:
        ids = np.fromiter(self.model.rows, np.int64, len(self.model.rows))
        return self.rng.choice(ids, min(int(self.rng.integers(1, most)), len(ids)), replace=False)

    def note(self, ids: np.ndarray, values: np.ndarray) -> None:
        for id_, value in zip(ids.tolist(), values, strict=True):
            self.gone.pop(id_, None)
            self.versions.setdefault(id_, []).append(value)

    def add(self) -> None:
        count = int(self.rng.integers(1, 200))
        ids = self.rng.choice(3 * MOST_ROWS, count, replace=False).astype(np.int64)
        ids = np.array([i for i in ids.tolist() if i not in self.model.rows], np.int64)
        values = draw(int(self.rng.integers(2**31)), len(ids), self.model.dim)
        if len(ids) > 20:
            values[:5] = values[5]
        self.note(ids, values)
        self.index.add(stored_as(values, self.model.dtype), ids)
        self.model.put(ids, values)

    def remove(self) -> None:
        ids = self.some_ids(250)
        self.index.remove(ids)
        self.gone.update(dict.fromkeys(ids.tolist(), self.done["remove"]))
        self.model.drop(ids)

    def update(self) -> None:
        ids = self.some_ids(60)
        values = draw(int(self.rng.integers(2**31)), len(ids), self.model.dim)
        self.note(ids, values)
        self.index.update(stored_as(values, self.model.dtype), ids)
        self.model.put(ids, values)

    def refused(self) -> None:
        """A batch with one bad row changes nothing."""
        ids = self.some_ids(5)
        try:
            self.index.add(stored_as(draw(0, len(ids), self.model.dim), self.model.dtype), ids)
        except ValueError:
            return
        raise AssertionError("known ids were added")

    def save(self) -> None:
        self.index.save(self.path)
        opened = vicinal.open(self.path, verify=True)
        self.model.assert_holds(opened)

    def change(self) -> None:
        """Be the writer until the run is over."""
        steps = {"add": 6.0, "refused": 1.0, "save": 0.5}
        steps |= {"remove": 4.0, "update": 3.0, "compact": 0.1}
        names, weights = list(steps), np.array(list(steps.values()))
        self.add()
        while not self.over():
            name = names[self.rng.choice(len(names), p=weights / weights.sum())]
            if name == "add" and len(self.model.rows) > MOST_ROWS:
                name = "remove"
            if len(self.model.rows) < MOST_ROWS // 3 and name in ("remove", "compact"):
                name = "add"
            self.index.compact() if name == "compact" else getattr(self, name)()
            self.done[name] += 1
            self.changed_enough = self.done.total() - self.done["searches"] >= self.limit.changes

    def over(self) -> bool:
        """Tell whether all threads have to end."""
        return self.changed_enough or bool(self.problems) or time.monotonic() >= self.until

    # ---- the searchers

    def look(self, number: int) -> None:
        """Search until the run is over; every answer must be one that was true at some time."""
        rng = np.random.default_rng(number)
        dim = self.model.dim
        while not self.over():
            count = int(rng.choice([1, 1, 3, 40]))
            queries = draw(int(rng.integers(2**31)), count, dim)
            gone = self.gone.copy()
            found = self.index.search(
                asked_as(queries, self.model.dtype), K, ef_search=int(rng.choice([10, 50, 9999]))
            )
            # gone all the while, not back in between
            gone = dict(gone.items() & self.gone.copy().items())
            for ids, distances, query in zip(found.ids, found.distances, queries, strict=True):
                there = ids[ids >= 0].tolist()
                assert len(set(there)) == len(there), f"an id twice: {ids}"
                assert (np.diff(distances[: len(there)]) >= 0).all()
                assert not gone.keys() & set(there), "a row that was removed before"
                for id_, distance in zip(there, distances, strict=False):
                    mine = self.model.distances(query, np.array(self.versions[id_]))
                    assert np.isclose(mine, distance, rtol=1e-5, atol=1e-4).any(), (id_, distance)
            self.done["searches"] += count

    # ---- all of it

    def guard(self, part: str, *arguments: int) -> None:
        try:
            getattr(self, part)(*arguments)
        except BaseException:
            self.problems.append(traceback.format_exc())

    def run(self, searchers: int) -> None:
        """Run all threads, then compare what is left."""
        threads = [threading.Thread(target=self.guard, args=("look", i)) for i in range(searchers)]
        threads.append(threading.Thread(target=self.guard, args=("change",)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self.problems:
            raise AssertionError("\n".join(self.problems))
        self.model.assert_holds(self.index)
        self.index.save(self.path)
        for mode in ("r", "copy"):
            self.model.assert_holds(vicinal.open(self.path, mode=mode, verify=True))
        queries = draw(1, 100, self.model.dim)
        asked = asked_as(queries, self.model.dtype)
        truth = self.index.search(asked, K, ef_search=10**6)
        for ids, distances, query in zip(truth.ids, truth.distances, queries, strict=True):
            self.model.assert_answer(ids, distances, query, exact=True)
        # how well a graph does on such rows depends on the metric; a fresh one is the measure
        fresh = self.empty_index()
        rows = np.array(list(self.model.rows.values()))
        fresh.add(stored_as(rows, self.model.dtype))
        bound = truth.distances[:, -1:]
        mine, best = (
            (index.search(asked, K, ef_search=60).distances <= bound + 1e-6 * abs(bound)).mean()
            for index in (self.index, fresh)
        )
        # inner products with rows that are all positive vary by so much from build to build
        margin = 0.1 if self.model.metric == "ip" else 0.03
        assert mine >= best - margin, f"recall {mine}, of a fresh build {best}"
        self.done["rows at the end"] = len(self.index)


def mixed_run(metric: str, dtype: str, dim: int, limit: Limit, searchers: int = 4) -> str:
    """Do one run; return what was done, or raise what went wrong."""
    with tempfile.TemporaryDirectory(prefix="vicinal-endurance-", dir=ROOM) as folder:
        run = Run(metric, dtype, dim, limit, Path(folder))
        run.run(searchers)
    done = ", ".join(f"{name} {count:,}" for name, count in sorted(run.done.items()))
    return f"{metric} {dtype} {dim}: {done}"


def resident() -> int:
    """KiB of memory that this process has in use."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * (os.sysconf("SC_PAGESIZE") // 1024)


def turnovers(count: int, rows: int = 3000, dim: int = 32) -> list[int]:
    """Replace all rows `count` times, by removing and adding them; KiB in use after each."""
    index = vicinal.Index(dim, quantization=None, M=8, ef_construction=40)
    ids = index.add(draw(0, rows, dim))
    used = []
    for turn in range(count):
        for part in np.array_split(ids, 5):
            index.remove(part)
            index.add(draw(turn + 1, len(part), dim), part)
        index.check()
        used.append(resident())
    return used


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="of all runs together")
    seconds = parser.parse_args().seconds
    kinds = [("l2", "float32", 40), ("l2", "uint8", 16), ("ip", "float16", 100), ("l2", "int8", 64)]
    for kind in kinds:
        print(mixed_run(*kind, Limit(seconds=seconds / len(kinds))), flush=True)
    print("KiB in use after each of 20 turnovers:", *turnovers(20))
    return 0


if __name__ == "__main__":
    sys.exit(main())
