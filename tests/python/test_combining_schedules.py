"""Threads that add at once, in thousands of orders of their steps, each order from a seed.

Locks and pauses of `_combining` are replaced by points at which a scheduler decides which thread
goes on; one thread runs at a time. The index is a real one. After each order: every batch is there
whole or was refused by itself, ids ascend in the order in which batches came to wait, the graph is
whole, every row finds itself, and the reader has seen each batch wholly or not at all.

    PYTHONPATH=python:tests python tests/python/test_combining_schedules.py 10000
"""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import pytest

import vicinal
from vicinal import _combining, _updates

DIM = 4
WRITERS = 3
LOOKS = 12  # of the reader
GUARD = 60  # seconds after which a schedule counts as one that hangs


class Stuck(BaseException):
    """Nobody can go on."""


class Scheduler:
    """Lets one of several threads run at a time, which one by a seed."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.turns: list[threading.Semaphore] = []
        self.waiting: dict[int, Lock] = {}
        self.ended: set[int] = set()
        self.current = 0
        self.switches = 0
        self.stuck = False

    def point(self) -> None:
        """Let another thread go on, or not."""
        me = self.current
        if self.stuck:
            raise Stuck
        runnable = [i for i in range(len(self.turns)) if i not in self.ended | set(self.waiting)]
        if not runnable:
            self.stuck = True
            for turn in self.turns:
                turn.release()
            raise Stuck
        if me in runnable and self.rng.random() < 0.5:
            return
        self.pass_to(self.rng.choice(runnable), me)

    def pass_to(self, other: int, me: int) -> None:
        if other == me:
            return
        self.switches += 1
        self.current = other
        self.turns[other].release()
        if me not in self.ended:
            assert self.turns[me].acquire(timeout=GUARD)
            if self.stuck:
                raise Stuck

    def run(self, bodies: list[Callable[[], None]]) -> None:
        """Run threads from their first step to their last."""
        self.turns = [threading.Semaphore(0) for _ in bodies]
        errors: list[BaseException] = []

        def body(number: int) -> None:
            assert self.turns[number].acquire(timeout=GUARD)
            try:
                bodies[number]()
            except BaseException as error:
                errors.append(error)
            self.ended.add(number)
            left = [i for i in range(len(bodies)) if i not in self.ended]
            free = [i for i in left if i not in self.waiting]
            if free:
                self.pass_to(self.rng.choice(free), number)
            elif left:
                self.stuck = True
                for turn in self.turns:
                    turn.release()

        threads = [
            threading.Thread(target=body, args=(i,), daemon=True) for i in range(len(bodies))
        ]
        for thread in threads:
            thread.start()
        self.current = self.rng.randrange(len(bodies))
        self.turns[self.current].release()
        for thread in threads:
            thread.join(GUARD)
            assert not thread.is_alive(), "a thread hangs"
        assert not self.stuck, "all threads wait for each other"
        if errors:
            raise errors[0]


class Lock:
    """A lock whose waiters the scheduler knows."""

    scheduler: Scheduler

    def __init__(self) -> None:
        self.taken = False

    def acquire(self) -> bool:
        self.scheduler.point()
        while self.taken:
            me = self.scheduler.current
            self.scheduler.waiting[me] = self
            self.scheduler.point()
        self.taken = True
        return True

    def release(self) -> None:
        assert self.taken
        self.taken = False
        waiting = self.scheduler.waiting
        for thread in [each for each, lock in waiting.items() if lock is self]:
            del waiting[thread]
        self.scheduler.point()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


@contextmanager
def scheduled(seed: int) -> Iterator[Scheduler]:
    """Let locks and pauses of `_combining` be points of a scheduler."""
    scheduler = Scheduler(seed)
    Lock.scheduler = scheduler
    fakes = mock.Mock(Lock=Lock, get_ident=threading.get_ident, main_thread=threading.main_thread)
    with (
        mock.patch.object(_combining, "threading", fakes),
        mock.patch.object(_combining, "time", mock.Mock(sleep=lambda _: scheduler.point())),
    ):
        yield scheduler


class WriterLock:
    """Stands for the index's own."""

    def __init__(self) -> None:
        self.lock = Lock()

    def held(self) -> Lock:
        return self.lock


def one(seed: int, base: vicinal.Index) -> int:
    """Run one order; returns how many groups there were."""
    index = base.copy()
    rng = np.random.default_rng(1000 + seed)  # other rows than those of the base
    present = len(index)
    batches: list[Any] = []
    for worker in range(WRITERS):
        mine = []
        for call in range(2):
            rows = rng.standard_normal((int(rng.integers(1, 4)), DIM)).astype(np.float32)
            if rng.random() < 0.15:
                rows[-1, 0] = np.nan
            ids = None
            if seed % 3 == 0:  # automatic ids and given ones do not go together
                first = -100 * (worker + 1) - 10 * call
                ids = np.arange(first, first + len(rows))
            mine.append((rows, ids))
        batches.append(mine)
    outcomes: dict[tuple[int, int], Any] = {}
    arrived: list[tuple[int, int]] = []
    wrong: list[str] = []
    groups = 0
    with scheduled(seed) as scheduler:
        combiner = _combining.Combiner()
        lock = WriterLock()
        target = mock.Mock(_writer_lock=lock)

        def write(_: Any, *arguments: Any, **options: Any) -> Any:
            nonlocal groups
            assert lock.lock.taken
            groups += 1
            scheduler.point()
            found = _updates.write_rows(index, *arguments, **options)
            scheduler.point()
            return found

        def writer(worker: int) -> None:
            for call, (rows, ids) in enumerate(batches[worker]):
                scheduler.point()
                batch = _combining.Batch(rows, rows, ids, False, 1)
                arrived.append((worker, call))
                try:
                    outcomes[worker, call] = combiner.add(write, target, batch)
                except ValueError as error:
                    outcomes[worker, call] = error

        def reader() -> None:
            for _ in range(LOOKS):
                scheduler.point()
                ids = set(index.ids.tolist())
                query = rng.standard_normal((1, DIM)).astype(np.float32)
                seen = index.search(query, len(index)).ids[0]
                if len(set(seen.tolist())) != len(seen):
                    wrong.append("a row twice")
                for found in list(outcomes.values()):
                    if isinstance(found, np.ndarray) and not set(found.tolist()) <= ids:
                        wrong.append("a call has returned and its rows are not there")

        scheduler.run([*(lambda i=i: writer(i) for i in range(WRITERS)), reader])
        assert not combiner._led and not combiner._waiting
    assert not wrong, wrong[0]
    count = 0
    for worker, mine in enumerate(batches):
        for call, (rows, ids) in enumerate(mine):
            found = outcomes[worker, call]
            if np.isnan(rows).any():
                assert isinstance(found, ValueError) and f"row {len(rows) - 1} " in str(found)
                continue
            assert isinstance(found, np.ndarray), found
            count += len(rows)
            assert (index.get(found) == rows).all()
            if ids is None:
                assert found.tolist() == list(range(found[0], found[0] + len(rows)))
            else:
                assert found.tolist() == ids.tolist()
    assert len(index) == present + count
    index.check()
    stored = index.get(index.ids)
    assert (index.search(stored, 1, ef_search=200).ids[:, 0] == index.ids).all()
    return groups


def base() -> vicinal.Index:
    """Return an index with a graph."""
    index = vicinal.Index(DIM, M=8, ef_construction=60)
    index.add(np.random.default_rng(0).standard_normal((1010, DIM)).astype(np.float32))
    return index


@pytest.mark.parametrize("part", range(4))
def test_orders_of_steps(part: int) -> None:
    index = base()
    groups = [one(seed, index) for seed in range(25 * part, 25 * part + 25)]
    assert min(groups) < 6  # batches were served together


def main() -> None:
    """Run as many orders as the command line says."""
    index = base()
    groups: dict[int, int] = {}
    for seed in range(int(sys.argv[1])):
        count = one(seed, index)
        groups[count] = groups.get(count, 0) + 1
    print({"orders": int(sys.argv[1]), "calls of the native code": dict(sorted(groups.items()))})


if __name__ == "__main__":
    main()
