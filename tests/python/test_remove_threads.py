"""Searches beside removals and updates return what was there at a moment of the call, once."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import vicinal
import vicinal.index
from support.processes import wait_until

DIM = 8


@pytest.mark.parametrize("count", [300, 3000])
@pytest.mark.parametrize("quantization", ["auto", None])
def test_searches_meanwhile(count: int, quantization: str | None) -> None:
    """Each vector carries its id and a version, which its distance from zero tells apart."""
    index = vicinal.Index(DIM, quantization=quantization, ef_construction=60)
    rng = np.random.default_rng(0)
    numbers = np.arange(count) * 31 + 5

    def rows(ids: Any) -> Any:
        values = rng.normal(size=(len(ids), DIM)).astype(np.float32)
        for id, value in zip(np.asarray(ids).tolist(), values, strict=True):
            history.setdefault(id, []).append(value)
        return values

    history: dict[int, list[Any]] = {}
    index.add(rows(numbers), numbers)
    always = set(numbers[::3].tolist())  # these are updated, never removed
    wrong: list[str] = []
    done = threading.Event()
    rounds = [0] * 4

    def search(worker: int) -> None:
        mine = np.random.default_rng(worker)
        while not done.is_set() and not wrong:
            queries = mine.normal(size=(20, DIM)).astype(np.float32)
            shown = queries if worker % 2 else queries[0]
            # a narrow walk, or a scan of all rows
            k = 10 if worker < 2 else count
            found = index.search(shown, k, ef_search=40, num_threads=1)
            for query, ids, distances in zip(
                np.atleast_2d(shown),
                np.atleast_2d(found.ids),
                np.atleast_2d(found.distances),
                strict=True,
            ):
                real = ids[ids >= 0].tolist()
                if len(set(real)) != len(real):
                    wrong.append("an id twice")
                if k == count and not always <= set(real):
                    wrong.append(f"{len(always - set(real))} ids neither old nor new")
                if k == 10 and len(real) != 10:
                    wrong.append("too few")
                for id, distance in list(zip(real, distances.tolist(), strict=False))[:10]:
                    some = [float(((query - v) ** 2).sum()) for v in list(history[id])]
                    if not np.isclose(some, distance, rtol=1e-3).any():
                        wrong.append(f"{id} is at none of its distances")
            rounds[worker] += 1

    def guarded(worker: int) -> None:
        try:
            search(worker)
        except Exception as error:
            wrong.append(repr(error))

    threads = [threading.Thread(target=guarded, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    others = np.setdiff1d(numbers, list(always))
    try:
        for step in range(40):
            if wrong:
                break
            some = rng.choice(others, len(others) // (3 if step % 4 else 30), replace=False)
            if step % 2:
                for id in some[:40].tolist():
                    index.remove(id)
                some = some[:40]
            else:
                index.remove(some)
            ids = rng.choice(np.array(sorted(always)), len(always) // 5 + 1, replace=False)
            index.update(rows(ids), ids, num_threads=1)
            for id in ids[:20].tolist():
                index.update(rows([id])[0], id)
            index.add(rows(some), some, num_threads=1)
            if step == 20:
                index.compact()
        wait_until(lambda: bool(wrong) or min(rounds) > 0, "a search of every thread")
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not wrong, wrong[:5]
    index.check()
    assert sorted(index.ids.tolist()) == numbers.tolist()
    for id in numbers[:50].tolist():
        np.testing.assert_array_equal(index.get(id), history[id][-1])


def test_get_beside_updates() -> None:
    """A vector is read whole, old or new, while rows are freed and written over."""
    index = vicinal.Index(256, dtype="uint8")
    index.add(np.full((100, 256), 1, np.uint8))
    wrong: list[str] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set() and not wrong:
            got = index.get(np.arange(100))
            if (got != got[:, :1]).any():
                wrong.append("a mixture")
            if (got == 0).any():
                wrong.append("a wiped row")
            if not all(id in index for id in range(100)):
                wrong.append("an id was gone")

    thread = threading.Thread(target=read)
    thread.start()
    for step in range(300):
        ids = np.arange(100)[step % 3 :: 2]
        index.update(np.full((len(ids), 256), 2 + step % 200, np.uint8), ids)
    done.set()
    thread.join()
    assert not wrong, wrong[:3]
