"""Threads that add few rows at the same moment are served together, each as if it were alone."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vicinal
from support.processes import wait_until

DIM = 8
PRESENT = 1500


def rows(seed: int, count: int) -> Any:
    return np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)


def filled(**parameters: Any) -> vicinal.Index:
    index = vicinal.Index(DIM, ef_construction=40, **parameters)
    ids = None
    if parameters.get("ids") == "str":
        ids = [f"first {i}" for i in range(PRESENT)]
    index.add(rows(0, PRESENT), ids)
    return index


def together(index: vicinal.Index, calls: list[Callable[[], object]]) -> list[Any]:
    """Make calls from threads that wait in this order, and return what came of each."""
    outcomes: list[Any] = [None] * len(calls)

    def run(number: int) -> None:
        try:
            outcomes[number] = calls[number]()
        except Exception as error:
            outcomes[number] = error

    threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(len(calls))]
    with index._writer_lock.held():
        for number, thread in enumerate(threads):
            thread.start()
            # the first leads, and waits for the lock; the others wait for it
            wait_until(lambda: index._combiner._led, "a leader")
            wait_until(lambda number=number: len(index._combiner._waiting) == number, "a place")
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return outcomes


def saved(index: vicinal.Index, folder: Path) -> bytes:
    path = folder / "index"
    index.save(path)
    return path.read_bytes()


@pytest.mark.parametrize("given", [False, True])
def test_one_call_for_all_that_wait(given: bool, tmp_path: Path) -> None:
    """The bytes are those of one call with their rows in the order of their tickets."""
    index, alone = filled(), filled()
    batches = [rows(1 + i, 3 + i) for i in range(6)]
    names = [np.arange(len(b)) + 10_000 * (9 - i) if given else None for i, b in enumerate(batches)]
    before = index._changes()
    outcomes = together(
        index, [lambda i=i: index.add(batches[i], names[i], num_threads=1) for i in range(6)]
    )
    assert index._changes() == before + 1
    wanted = alone.add(np.concatenate(batches), np.concatenate(names) if given else None)  # type: ignore[arg-type]
    assert np.concatenate(outcomes).tolist() == wanted.tolist()
    assert [len(each) for each in outcomes] == [3, 4, 5, 6, 7, 8]
    index.check()
    assert saved(index, tmp_path) == saved(alone, tmp_path)


def test_strings() -> None:
    index = filled(ids="str")
    outcomes = together(
        index, [lambda i=i: index.add(rows(i, 2), [f"{i} a", f"{i} b"]) for i in range(4)]
    )
    assert [each.tolist() for each in outcomes] == [[f"{i} a", f"{i} b"] for i in range(4)]
    assert len(index) == PRESENT + 8 and (index.get("2 b") == rows(2, 2)[1]).all()
    index.check()


def test_errors_of_one_are_no_others() -> None:
    index = filled()
    bad = rows(3, 2)
    bad[1, 4] = np.nan
    outcomes = together(
        index,
        [
            lambda: index.add(rows(1, 2), [5000, 5001]),
            lambda: index.add(bad, [5002, 5003]),
            lambda: index.add(rows(2, 2), [7, 5004]),  # 7 is there
            lambda: index.add(rows(4, 2), [5001, 5005]),  # the first has just added it
            lambda: index.add(rows(5, 1), [5002]),  # the second has not
            lambda: index.add(rows(6, 2), [5006, 5006]),
        ],
    )
    assert outcomes[0].tolist() == [5000, 5001] and outcomes[4].tolist() == [5002]
    said = [str(each) for each in outcomes]
    assert said[1].startswith("vectors: row 1 ")
    assert said[2] == "ids: 7 at position 0 is already in the index"
    assert said[3] == "ids: 5001 at position 0 is already in the index"
    assert said[5].startswith("ids: ") and isinstance(outcomes[5], ValueError)
    assert sorted(set(index.ids.tolist()) - set(range(PRESENT))) == [5000, 5001, 5002]
    index.check()


def test_kinds_that_do_not_go_together_keep_their_order() -> None:
    index = filled()
    before = index._changes()
    outcomes = together(
        index,
        [
            lambda: index.add(rows(1, 2)),
            lambda: index.add(rows(2, 2)),
            lambda: index.add(rows(3, 1), [9000]),
            lambda: index.add(rows(4, 1), [9000], on_conflict="update"),
            lambda: index.add(rows(5, 1), [3], on_conflict="update"),
            lambda: index.add(rows(6, 1)),
        ],
    )
    assert [each.tolist() for each in outcomes] == [
        [1500, 1501],
        [1502, 1503],
        [9000],
        [9000],
        [3],
        [9001],
    ]
    assert index._changes() == before + 4
    assert (index.get(9000) == rows(4, 1)[0]).all() and (index.get(3) == rows(5, 1)[0]).all()
    index.check()


def test_the_main_thread_goes_alone() -> None:
    """Whoever may be interrupted at any moment leads nobody."""
    index = filled()
    assert not index._combiner.serves(1)
    answers: list[bool] = []
    for count in (1, 512, 513):
        thread = threading.Thread(
            target=lambda count=count: answers.append(index._combiner.serves(count))
        )
        thread.start()
        thread.join()
    assert answers == [True, True, False]


def test_a_progress_function_may_not_add() -> None:
    index = filled()
    said: list[str] = []

    def told(done: int, total: int) -> None:
        try:
            index.add(rows(8, 1))
        except RuntimeError as error:
            said.append(str(error))

    thread = threading.Thread(target=lambda: index.add(rows(9, 4), progress=told))
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert said and all("must not write" in each for each in said)
    assert len(index) == PRESENT + 4


def test_many_threads_all_rows() -> None:
    """Nothing is lost, nothing is there twice, and nobody waits for ever."""
    index = vicinal.Index(DIM, ef_construction=40)
    given: list[Any] = []
    refused: list[int] = []

    def add(worker: int) -> None:
        for call in range(40):
            if call % 10 == 9:
                with pytest.raises(ValueError, match="row 0"):
                    index.add(np.full((1, DIM), np.inf, np.float32))
                refused.append(1)
            given.append((index.add(rows(1000 * worker + call, 1 + call % 3)), worker, call))

    threads = [threading.Thread(target=add, args=(i,), daemon=True) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    ids = np.concatenate([each[0] for each in given])
    assert sorted(ids.tolist()) == list(range(len(index))) and len(refused) == 32
    for found, worker, call in given:
        assert (index.get(found) == rows(1000 * worker + call, 1 + call % 3)).all()
    index.check()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_after_a_fork_nobody_waits_for_those_who_stayed_behind() -> None:
    index = filled()
    thread = threading.Thread(target=lambda: index.add(rows(1, 1)), daemon=True)
    with index._writer_lock.held():
        thread.start()
        wait_until(lambda: index._combiner._led, "a leader")
        child = os.fork()
        if child == 0:
            os._exit(int(index._combiner._led or len(index._combiner._waiting) != 0))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    thread.join(60)
    assert len(index) == PRESENT + 1
