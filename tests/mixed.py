"""An index that two threads change in every way while six others read it in every way.

Values are whole numbers, so that every distance is exact and tells which vector of an id a search
has seen. Every answer must be one that was true at a moment of its call, changes are seen wholly or
not at all, and at the end the index and its files hold what the history does. A watchdog ends the
run if a call does not. Searches count what they do: none may begin again.
"""

from __future__ import annotations

import copy
import faulthandler
import pickle
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import vicinal
from beside import HANGS, resident, search_work
from history import History
from model import Model, asked_as, draw, stored_as

K = 10
MOST_ROWS = 3000  # of one writer
WRITERS = 2
GROUP = 12  # ids that are only changed together
EXACT = 10**6


class Stop(Exception):
    """What a progress function raises."""


class Limit(NamedTuple):
    """When a run is over: after so many seconds, or changes."""

    seconds: float = np.inf
    changes: float = np.inf


class Run:
    """One index, what it must hold, and all that may be seen of it meanwhile."""

    def __init__(self, metric: str, dtype: str, dim: int, limit: Limit, folder: Path) -> None:
        self.model = Model(metric, dtype, dim)
        self.index = self.empty_index()
        self.history = History()
        self.folder = folder
        self.until = time.monotonic() + limit.seconds
        self.changes = limit.changes  # left to be made
        self.done: Counter[str] = Counter()
        self.problems: list[str] = []
        # what each thread is doing, and when it began
        self.beats: dict[str, tuple[str, float]] = {}
        self.longest: dict[str, float] = {}  # CPU seconds of one search by kind
        self.work: Counter[str] = Counter()  # of searches in indexes that `compact` has replaced
        self.memory: list[tuple[int, int]] = []  # bytes that the index tells of, KiB in use
        self.grouped = draw(7, WRITERS * GROUP, dim)

    def over(self) -> bool:
        """Tell whether all threads have to end."""
        return self.changes <= 0 or bool(self.problems) or time.monotonic() >= self.until

    def empty_index(self) -> vicinal.Index:
        model = self.model
        return vicinal.Index(model.dim, model.metric, dtype=model.dtype, M=8, ef_construction=40)

    def stored(self, values: Any) -> Any:
        return stored_as(values, self.model.dtype)

    # ---- those who change it; each has ids of its own

    def group(self, writer: int, version: int) -> tuple[Any, Any]:
        """Return the ids and vectors of a group; vectors begin with the version."""
        values = self.grouped[writer * GROUP :][:GROUP].copy()
        values[:, 0] = 1 + version % 100
        return -1 - writer - WRITERS * np.arange(GROUP), values

    def change(self, writer: int) -> None:
        """Change what belongs to one writer until the run is over."""
        rng = np.random.default_rng(writer)
        mine: set[int] = set()
        steps: dict[str, float] = {"add": 6, "upsert": 2, "remove": 5, "update": 3, "group": 3}
        steps |= {"remove_most": 0.1, "merge": 0.5, "refused": 3, "stopped": 1, "compact": 0.1}
        names, weights = list(steps), np.array(list(steps.values()))
        history, index = self.history, self.index
        ids, values = self.group(writer, 0)
        changed = history.bring(ids.tolist(), values)
        index.add(self.stored(values), ids)
        history.end(changed)

        def some(most: int) -> Any:
            count = min(int(rng.integers(1, most)), len(mine))
            return rng.choice(np.fromiter(mine, np.int64, len(mine)), count, replace=False)

        def fresh(most: int) -> tuple[Any, Any]:
            numbers = WRITERS * rng.choice(3 * MOST_ROWS, most, replace=False) + writer
            numbers = np.array([n for n in numbers.tolist() if n not in mine], np.int64)
            drawn = draw(int(rng.integers(2**31)), len(numbers), self.model.dim)
            if len(drawn) > 20:
                drawn[:5] = drawn[5]  # equal rows
            return numbers, drawn

        while not self.over():
            name = names[rng.choice(len(names), p=weights / weights.sum())]
            if len(mine) > MOST_ROWS and name in ("add", "upsert", "merge"):
                name = "remove"
            if len(mine) < MOST_ROWS // 3 and name in ("remove", "remove_most", "compact"):
                name = "add"
            self.beat(name)
            if name in ("add", "upsert", "merge"):
                ids, values = fresh(int(rng.integers(1, 200)))
                if name == "upsert":
                    old = some(40)
                    ids = np.concatenate([ids, old])
                    values = np.concatenate([values, draw(0, len(old), self.model.dim) + 1])
                changed = history.bring(ids.tolist(), values)
                if name == "merge":
                    other = self.empty_index()
                    other.add(self.stored(values), ids)
                    index.merge(other)
                else:
                    conflict = "update" if name == "upsert" else "error"
                    index.add(self.stored(values), ids, on_conflict=conflict)
                mine.update(ids.tolist())
            elif name in ("remove", "remove_most"):
                ids = some(250) if name == "remove" else some(len(mine) + 1)
                changed = history.take(ids.tolist())
                index.remove(ids)
                mine.difference_update(ids.tolist())
            elif name == "compact":
                changed = []
                before = search_work(index)
                index.compact()
                self.work.update(before)  # a few searches of the old one may be lost
            elif name in ("update", "group"):
                ids = some(60)
                values = draw(int(rng.integers(2**31)), len(ids), self.model.dim)
                if name == "group":
                    ids, values = self.group(writer, self.done[f"group {writer}"] + 1)
                    self.done[f"group {writer}"] += 1
                changed = history.bring(ids.tolist(), values)
                index.update(self.stored(values), ids)
            elif name == "stopped":
                ids, values = fresh(30)
                old = some(30)
                ids = np.concatenate([ids, old])
                values = np.concatenate([values, draw(1, len(old), self.model.dim)])
                changed = []  # nobody may ever see any of these
                self.fails(Stop, index.add, self.stored(values), ids, "update", stop)
            else:
                changed = []
                self.refused(some(5), writer)
            history.end(changed)
            self.done[name] += 1
            self.changes -= 1

    def refused(self, known: Any, writer: int) -> None:
        """Changes with one mistake change nothing."""
        index, dim = self.index, self.model.dim
        rows = self.stored(draw(0, len(known) + 1, dim))
        unknown = 10**9 + writer
        self.fails(ValueError, index.add, rows[1:], known)
        self.fails(ValueError, index.add, rows[:, 1:], [*known, unknown])
        self.fails(ValueError, index.add, np.repeat(rows[:1], 2, 0), [unknown, unknown])
        self.fails(KeyError, index.remove, [*known, unknown])
        self.fails(KeyError, index.update, rows, [*known, unknown])
        if self.model.dtype not in ("int8", "uint8"):
            bad = rows.astype(np.float32)
            bad[-1, -1] = np.nan
            self.fails(ValueError, index.add, bad, [*known, unknown], "update")

    def fails(
        self,
        error: type[Exception],
        call: Callable[..., object],
        first: Any,
        ids: Any = None,
        on_conflict: str = "",
        progress: Any = None,
    ) -> None:
        more: dict[str, Any] = {"progress": progress}
        if on_conflict:
            more["on_conflict"] = on_conflict
        try:
            call(first, **more) if ids is None else call(first, ids, **more)
        except error:
            return
        raise AssertionError(f"{call.__name__} was not refused with {error.__name__}")

    # ---- those who search

    def look(self, number: int) -> None:
        """Search in every way until the run is over."""
        rng = np.random.default_rng(100 + number)
        kinds = ["plain", "filtered", "range", "exact", "trace", "group", "group_range"]
        while not self.over():
            kind = str(rng.choice(kinds))
            self.beat(kind)
            count = int(rng.choice([1, 1, 3, 40])) if kind in ("plain", "filtered", "exact") else 1
            queries = draw(int(rng.integers(2**31)), count, self.model.dim)
            wanted: Any = None
            if kind == "filtered":
                share = int(rng.choice([2, 20, 400]))
                wanted = np.arange(0, 3 * MOST_ROWS * WRITERS, share) + int(rng.integers(share))
            if kind.startswith("group"):
                wanted = self.group(int(rng.integers(WRITERS)), 0)[0]
            begin = self.history.begin()
            clock = time.thread_time()
            answers = self.ask(kind, queries, wanted, int(rng.choice([10, 50])))
            self.longest[kind] = max(self.longest.get(kind, 0.0), time.thread_time() - clock)
            end = self.history.finish()
            full = kind == "exact" and rng.random() < 0.2
            must = self.history.must(begin, end) if full else {}
            for (ids, distances), query in zip(answers, queries, strict=True):
                self.check_rows(ids, distances, query, begin, end)
                if wanted is not None:
                    assert set(ids) <= set(wanted.tolist()), "an id that the filter leaves out"
                if kind.startswith("group"):
                    self.check_group(ids, distances, query, wanted, begin, end)
                for id, values in must.items() if full and ids else ():
                    least = self.model.distances(query, np.array(values)).max()
                    missing = id not in ids and least < distances[-1] - 1e-3 * abs(distances[-1])
                    assert not missing, f"{id} at {least} is not among rows to {distances[-1]}"
            self.done[f"{kind} queries"] += count

    def ask(self, kind: str, queries: Any, wanted: Any, ef: int) -> list[tuple[Any, Any]]:
        asked = asked_as(queries, self.model.dtype)
        index = self.index
        if kind == "group_range":
            return [listed(index.range_search(asked, np.inf, filter=wanted).of(0))]
        if kind == "range":
            near = index.search(asked[0], 20, ef_search=ef).distances[-1]
            return [listed(index.range_search(asked, near, ef_search=ef).of(0))]
        if kind == "trace":
            return [listed(index.trace(asked[0], K, ef_search=ef).result)]
        k, width = (GROUP, ef) if kind == "group" else (K, EXACT if kind == "exact" else ef)
        found = index.search(asked, k, ef_search=width, filter=wanted)
        return [listed(one) for one in zip(found.ids, found.distances, strict=True)]

    def check_rows(self, ids: Any, distances: Any, query: Any, begin: int, end: int) -> None:
        """Each id is there once, and lies where one of its vectors of that time does."""
        assert len(set(ids)) == len(ids), f"an id twice: {ids}"
        assert (np.diff(distances) >= 0).all(), "not in order"
        for id, distance in zip(ids, distances, strict=True):
            seen = self.history.seen(id, begin, end)
            assert seen, f"{id} was not there at that time"
            far = self.model.distances(query, np.array(seen))
            assert np.isclose(far, distance, rtol=1e-5, atol=1e-4).any(), (id, distance, far)

    def check_group(
        self, ids: Any, distances: Any, query: Any, group: Any, begin: int, end: int
    ) -> None:
        """All vectors of a group are of one version, and none is missing."""
        if not self.history.must(begin, end).keys() >= set(group.tolist()):
            return  # not there from the beginning
        assert sorted(ids) == sorted(group.tolist()), f"{len(ids)} of a group"
        writer = int(-1 - group[0])
        _, values = self.group(writer, 0)
        by_id = dict(zip(group.tolist(), values, strict=True))
        rows = np.array([by_id[id] for id in ids])
        for value in self.history.seen(ids[0], begin, end):
            rows[:, 0] = value[0]
            if np.allclose(self.model.distances(query, rows), distances, rtol=1e-5, atol=1e-4):
                return
        raise AssertionError("vectors of several versions of a group")

    # ---- those who read it

    def read(self, number: int) -> None:
        """Ask for rows by id until the run is over."""
        rng = np.random.default_rng(200 + number)
        index = self.index
        while not self.over():
            kind = str(rng.choice(["get", "group", "ids", "vectors", "in", "stats", "why_not"]))
            self.beat(kind)
            query = draw(int(rng.integers(2**31)), 1, self.model.dim)[0]
            begin = self.history.begin()
            some = rng.choice(3 * MOST_ROWS * WRITERS, 5).tolist()
            if kind == "group":
                some = self.group(int(rng.integers(WRITERS)), 0)[0].tolist()
            there: dict[int, Any] = {}
            if kind in ("get", "group"):
                try:
                    there = dict(zip(some, index.get(some), strict=True))
                except KeyError:
                    there = {}
            elif kind == "in":
                there = dict.fromkeys(id for id in some if id in index)
            elif kind == "ids":
                there = dict.fromkeys(index.ids.tolist())
            elif kind == "vectors":
                for ids, rows in index.vectors(500):
                    there.update(zip(ids.tolist(), rows, strict=True))
            elif kind == "why_not":
                try:
                    str(index.why_not(asked_as(query[None], self.model.dtype)[0], some[0]))
                except KeyError:
                    there = {}
            else:
                assert len(index) >= 0
                assert index.stats()["count"] >= 0 and repr(index)
                used = index.memory_usage()["total"]
                self.memory.append((used, resident()))
            end = self.history.finish()
            must = self.history.must(begin, end)
            for id, row in there.items():
                seen = self.history.seen(id, begin, end)
                assert seen, f"{kind}: {id} was not there at that time"
                if row is not None:
                    same = [np.array_equal(row, self.stored(value)) for value in seen]
                    assert any(same), f"{kind}: {id} with a vector that it had not"
            needed = set(must) if kind in ("ids", "vectors") else set()
            if kind == "in":
                needed = set(must) & set(some)
            if kind == "group" and set(must) >= set(some):
                needed = set(some)
                assert len({float(row[0]) for row in there.values()}) == 1, "several versions"
            assert needed <= set(there), f"{kind}: ids that were there all the while are missing"
            self.done[kind] += 1

    def keep(self, number: int) -> None:
        """Save, open, copy, pickle and measure until the run is over."""
        rng = np.random.default_rng(300 + number)
        index, path = self.index, self.folder / f"index{number}.vicinal"
        while not self.over():
            kind = str(rng.choice(["save", "copy", "pickle", "check", "measure", "merged"]))
            self.beat(kind)
            begin = self.history.begin()
            kept: vicinal.Index | None = None
            if kind == "save":
                index.save(path)
                kept = vicinal.open(path, mode=str(rng.choice(["r", "copy"])), verify=True)
            elif kind == "copy":
                kept = copy.copy(index)
            elif kind == "pickle":
                kept = pickle.loads(pickle.dumps(index))
            elif kind == "merged":
                kept = vicinal.merge(index, self.empty_index())
            elif kind == "check":
                index.check()
            elif len(index) > 2 * K:
                assert 0 < index.measure_recall(k=K, sample=20).recall <= 1
            end = self.history.finish()
            if kept is not None:
                kept.check()
                ids = kept.ids.tolist()
                rows = kept.get(ids)
                assert len(kept) == len(ids) == len(set(ids))
                for id, row in zip(ids, rows, strict=True):
                    seen = self.history.seen(id, begin, end)
                    assert any(np.array_equal(row, self.stored(value)) for value in seen), id
                missing = self.history.must(begin, end).keys() - set(ids)
                assert not missing, f"{kind}: {sorted(missing)[:5]} are missing"
            self.done[kind] += 1
            time.sleep(0.05)

    # ---- all of it

    def beat(self, doing: str) -> None:
        """Note that the calling thread begins with something."""
        self.beats[threading.current_thread().name] = (doing, time.monotonic())

    def guard(self, part: Callable[[int], None], number: int) -> None:
        try:
            part(number)
        except BaseException:
            self.problems.append(traceback.format_exc())
        self.beat("ended")

    def alone(self) -> dict[str, float]:
        """Return CPU seconds of the longest search of each kind while nobody changes anything."""
        self.longest, beside = {}, self.longest
        self.until, self.changes = time.monotonic() + 0.5, np.inf
        self.look(0)
        self.longest, alone = beside, self.longest
        return alone

    def run(self) -> None:
        """Run all threads under a watchdog, then compare what is left."""
        parts = [self.change] * WRITERS + [self.look] * 4 + [self.read, self.keep]
        threads = [
            threading.Thread(
                target=self.guard, args=(part, i), name=f"{part.__name__} {i}", daemon=True
            )
            for i, part in enumerate(parts)
        ]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            threads[0].join(0.2)
            time.sleep(0.1)
            now = time.monotonic()
            for name, (doing, since) in list(self.beats.items()):
                if now - since > HANGS and doing != "ended":
                    faulthandler.dump_traceback(all_threads=True)
                    raise AssertionError(f"{name}: {doing} does not end")
        if self.problems:
            raise AssertionError("\n".join(self.problems))
        self.compare()

    def compare(self) -> None:
        """Compare index and files with the dictionary, work of searches with their number."""
        rows = self.history.rows()
        self.model.put(np.fromiter(rows, np.int64, len(rows)), np.array(list(rows.values())))
        self.model.assert_holds(self.index)
        path = self.folder / "index.vicinal"
        self.index.save(path)
        for mode in ("r", "copy"):
            self.model.assert_holds(vicinal.open(path, mode=mode, verify=True))
        queries = draw(1, 100, self.model.dim)
        asked = asked_as(queries, self.model.dtype)
        truth = self.index.search(asked, K, ef_search=EXACT)
        for ids, distances, query in zip(truth.ids, truth.distances, queries, strict=True):
            self.model.assert_answer(ids, distances, query, exact=True)
        # how well a graph does on such rows depends on the metric; a fresh one is the measure
        fresh = self.empty_index()
        fresh.add(self.stored(np.array(list(self.model.rows.values()))))
        bound = truth.distances[:, -1:]
        mine, best = (
            (index.search(asked, K, ef_search=60).distances <= bound + 1e-6 * abs(bound)).mean()
            for index in (self.index, fresh)
        )
        # inner products with rows that are all positive vary by so much from build to build
        margin = 0.1 if self.model.metric == "ip" else 0.03
        assert mine >= best - margin, f"recall {mine}, of a fresh build {best}"
        self.work.update(search_work(self.index))
        tries = self.work["walks"] + self.work["scans"]
        assert tries <= 2.5 * self.work["queries"], f"searches began again: {dict(self.work)}"
        self.assert_flat()
        self.done["rows at the end"] = len(rows)

    def assert_flat(self) -> None:
        """Compare memory in the last third of the run with that in the second."""
        if len(self.memory) < 30:
            return
        third = len(self.memory) // 3
        for part, room in ((0, 0), (1, 48 << 10)):
            middle = max(step[part] for step in self.memory[third : 2 * third])
            last = max(step[part] for step in self.memory[2 * third :])
            assert last <= 1.3 * middle + room, f"memory grew from {middle} to {last}"


def listed(found: Any) -> tuple[list[int], list[float]]:
    """Return ids and distances of one query, without those that stand for none."""
    ids, distances = found
    real = np.isfinite(distances)
    return ids[real].tolist(), distances[real].tolist()


def stop(done: int, total: int) -> None:
    """Think better of a change when its work is done."""
    if done == total:
        raise Stop
