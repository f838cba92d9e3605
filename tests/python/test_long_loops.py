"""What lasts long gives way: other threads run meanwhile, and large k is no trap."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vicinal

RNG = np.random.default_rng(0)
ROWS = RNG.standard_normal((30_000, 64)).astype(np.float32)
ROWS[1] = ROWS[0]  # with a copy, a change needs the table that finds copies


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30,000 rows with a graph and ids of their own, one a copy of another."""
    index = vicinal.Index(64, quantization=None, M=4, ef_construction=4)
    index.add(ROWS, np.arange(len(ROWS)) * 2)
    path = tmp_path_factory.mktemp("index") / "file"
    index.save(path)
    return path


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As many rows that are named by strings."""
    index = vicinal.Index(2, M=2, ef_construction=2, ids="str")
    index.add(ROWS[:, :2], [f"name {i}" for i in range(len(ROWS))])
    path = tmp_path_factory.mktemp("index") / "named"
    index.save(path)
    return path


# ---- the GIL

# What a call does first after opening; each goes through all rows once.
CALLS: dict[str, Callable[[vicinal.Index], object]] = {
    "check": lambda index: index.check(),
    "in": lambda index: 3 in index,
    "get": lambda index: index.get([2]),
}


def ran_meanwhile(prepare: Callable[[], vicinal.Index], call: Callable[[Any], object]) -> bool:
    """Tell whether another thread ran while the native code of a call was at work.

    The interpreter is told to let go of the GIL by itself only after longer than any of this
    takes: another thread gets it when native code lets go of it. That may be too short for it to
    wake up, so it is tried a few times.
    """
    interval = sys.getswitchinterval()
    stop = threading.Event()
    counting = [0]

    def count() -> None:
        while not stop.wait(0.0001):
            counting[0] += 1

    thread = threading.Thread(target=count)
    thread.start()
    try:
        for _ in range(40):
            index = prepare()
            sys.setswitchinterval(100)
            time.sleep(0.001)  # who wanted the GIL before has it now
            before = counting[0]
            call(index)
            ran = counting[0] > before
            sys.setswitchinterval(interval)
            if ran:
                return True
        return False
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        thread.join()


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("mode", ["r", "copy"])
def test_others_run_while_an_opened_index_is_looked_at(saved: Path, mode: str, call: str) -> None:
    assert ran_meanwhile(lambda: vicinal.open(saved, mode=mode), CALLS[call])


@pytest.mark.parametrize("mode", ["r", "copy"])
def test_others_run_while_strings_are_looked_at(named: Path, mode: str) -> None:
    assert ran_meanwhile(lambda: vicinal.open(named, mode=mode), lambda index: "name 7" in index)
    index = vicinal.open(named, mode=mode)
    assert "name 29999" in index and "name 30000" not in index


def test_many_threads_look_first(saved: Path, named: Path) -> None:
    """Each may make the table; all find the same, also beside the first change."""
    for path, known, unknown, new in (
        (saved, 59_998, 59_999, 1),
        (named, "name 29999", "name 30000", "new"),
    ):
        for _ in range(5):
            index = vicinal.open(path, mode="copy")
            start = threading.Barrier(5)
            wrong: list[Any] = []

            def look(index=index, start=start, wrong=wrong, known=known, unknown=unknown) -> None:
                start.wait()
                if known not in index or unknown in index:
                    wrong.append("looked")

            def change(index=index, start=start, new=new) -> None:
                start.wait()
                index.add(ROWS[:1, : index.dim], [new])

            threads = [threading.Thread(target=look) for _ in range(4)]
            threads.append(threading.Thread(target=change))
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert not wrong
            assert new in index and known in index and len(index) == len(ROWS) + 1
            index.check()


# ---- large k


@pytest.mark.parametrize("queries", [1, 3, 7, 8])
@pytest.mark.parametrize("k", [255, 257, 700, 1100, 5000, 9000])
def test_all_rows_by_a_scan(k: int, queries: int) -> None:
    """However many are asked for, by whichever code, they are the nearest in order."""
    count = 900 if k < 300 else 5000
    rows = ROWS[:count, :3]
    index = vicinal.Index(3, M=2, ef_construction=2)
    index.add(rows)
    found = index.search(rows[:queries], k, num_threads=1)
    truth = vicinal.exact_search(rows, rows[:queries], k)
    np.testing.assert_array_equal(found.ids, truth.ids)
    np.testing.assert_array_equal(found.distances, truth.distances)
    index.remove([0, count - 1])
    found = index.search(rows[:queries], k, num_threads=1)
    for ids, all_ids in zip(found.ids, truth.ids, strict=True):
        kept = all_ids[~np.isin(all_ids, [0, count - 1, -1])]
        np.testing.assert_array_equal(ids[: len(kept)], kept[:k])


@pytest.mark.parametrize("quantization", ["auto", None])
@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_wide_walks_find_what_is_there(metric: str, quantization: str | None) -> None:
    """Walks whose beam is wider than what lies in one sorted buffer, with and without a filter."""
    rows = ROWS[:20_000, :32]
    index = vicinal.Index(32, metric, M=8, ef_construction=40, quantization=quantization)
    index.add(rows)
    truth = vicinal.exact_search(rows, rows[:4], 2000, metric=metric)
    for width in (1000, 1500, 2400):
        found = index.search(rows[:4], 1000, ef_search=width)
        assert (np.diff(found.distances) >= 0).all()
        recall = np.mean(
            [len(set(a) & set(b)) for a, b in zip(found.ids, truth.ids[:, :1000], strict=True)]
        )
        assert recall >= 850
    found = index.search(rows[:4], 2000)
    assert all(len(set(ids.tolist())) == 2000 for ids in found.ids)
    trace = index.trace(rows[0], 2000)
    np.testing.assert_array_equal(trace.result.ids, found.ids[0])
    allowed = np.arange(20_000) % 2 == 0
    found = index.search(rows[:4], 1500, filter=allowed)
    assert (found.ids % 2 == 0).all() and (np.diff(found.distances) >= 0).all()
    assert all(len(set(ids.tolist())) == 1500 for ids in found.ids)
    wanted = vicinal.exact_search(rows[::2], rows[:4], 1500, metric=metric).ids * 2
    hits = np.mean([len(set(a) & set(b)) for a, b in zip(found.ids, wanted, strict=True)])
    assert hits >= 1350
