"""What a change has replaced and what a search needed is given back, searches or not.

Replaced codes, graphs and lent arrays may be kept for as long as a search that began before reads
them, not longer; buffers of a large search are not kept for small ones.
"""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest

import vicinal
from beside import HANGS

DIM = 128
HALF = 1000  # rows that come and go in each round


class Stop(Exception):
    """What a progress function raises."""


def stop(done: int, total: int) -> None:
    raise Stop


@contextmanager
def searching(index: vicinal.Index, threads: int) -> Iterator[None]:
    """Let threads search so that at any time at least one of them is at work.

    Each hands over to the next only once that one has begun.
    """
    done = threading.Event()
    queries = np.random.default_rng(3).standard_normal((40, index.dim), dtype=np.float32)
    turns = [0] * threads

    def search(number: int) -> None:
        while not done.is_set():
            index.search(queries, 10, num_threads=1)
            turns[number] += 1

    every = [threading.Thread(target=search, args=(number,)) for number in range(threads)]
    for thread in every:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in every:
            thread.join(HANGS)
    assert not any(thread.is_alive() for thread in every)
    assert not threads or min(turns) > 0


def heap(step: int) -> Any:
    """Rows around a centre that is far from that of the step before: they need other codes."""
    rng = np.random.default_rng(step)
    return rng.standard_normal((HALF, DIM), dtype=np.float32) + np.float32(40 * step)


@pytest.mark.parametrize("quantization", ["auto", "sq8", "rabitq4", None])
@pytest.mark.parametrize("searchers", [0, 3])
def test_a_window_that_moves(quantization: str | None, searchers: int) -> None:
    index = vicinal.Index(DIM, M=4, ef_construction=16, quantization=quantization)
    used: list[dict[str, int]] = []
    with searching(index, searchers):
        for step in range(24):
            index.add(heap(step), np.arange(HALF) + step * HALF, num_threads=1)
            if step > 1:
                index.remove(np.arange(HALF) + (step - 2) * HALF, num_threads=1)
            used.append(index.memory_usage())
    # a searcher that is held up may hold what one or two rounds have replaced
    room = 1.3 if searchers == 0 else 2.5
    for part in ("vectors", "ids", "graph", "codes", "total"):
        first = max(step[part] for step in used[3:8])
        last = min(step[part] for step in used[-3:])
        assert last <= room * first, f"{part}: {[step[part] for step in used]}"


def test_additions_that_are_taken_back_after_codes_were_chosen_anew() -> None:
    index = vicinal.Index(DIM, M=4, ef_construction=16)
    whole = np.random.default_rng(0).integers(0, 256, (3000, DIM)).astype(np.float32)
    index.add(whole)
    odd = np.random.default_rng(1).standard_normal((10, DIM), dtype=np.float32)  # 8 bits cannot
    used = []
    for _ in range(12):
        with pytest.raises(Stop):
            index.add(odd, progress=stop)
        used.append(index.memory_usage())
    assert used[-1]["codes"] <= 1.1 * used[1]["codes"], [step["codes"] for step in used]
    assert used[-1]["total"] <= 1.1 * used[1]["total"], [step["total"] for step in used]


def test_graphs_that_are_linked_anew() -> None:
    """The graph that a large removal replaces is given back."""
    index = vicinal.Index(DIM, M=8, ef_construction=16, quantization=None)
    used = []
    with searching(index, 2):
        for step in range(16):
            index.add(heap(0), np.arange(HALF) + 2 * step * HALF, num_threads=1)
            index.add(heap(1), np.arange(HALF) + (2 * step + 1) * HALF, num_threads=1)
            index.remove(index.ids[: 2 * HALF - 100], num_threads=1)
            index.remove(index.ids[100:], num_threads=1)
            used.append(index.memory_usage())
    first = max(step["total"] for step in used[2:6])
    assert min(step["total"] for step in used[-3:]) <= 1.5 * first, [s["total"] for s in used]


@pytest.mark.parametrize("threads", [1, 8, 32])
@pytest.mark.parametrize("change", ["add", "update", "remove"])
def test_a_lent_array_after_wide_searches(threads: int, change: str) -> None:
    """However many searches were under way at a time, the array is let go once none reads it."""
    rows = np.random.default_rng(0).standard_normal((8000, DIM), dtype=np.float32)
    index = vicinal.Index(DIM, M=4, ef_construction=16, quantization=None)
    index.add(rows, copy=False)
    queries = rows[:2000].copy()
    held = weakref.ref(rows)
    del rows
    index.search(queries, 3, num_threads=threads)
    assert index.memory_usage()["borrowed"] > 0 and held() is not None
    for step in range(4):  # the first copies the rows, any later one may let the array go
        new = np.random.default_rng(9 + step).standard_normal((1, DIM), dtype=np.float32)
        if change == "add" or step == 0:
            index.add(new)
        elif change == "update":
            index.update(new, [step])
        else:
            index.remove(np.arange(1100) + 1100 * (step - 1))
        gc.collect()
    assert held() is None, "the array is still held"
    assert index.memory_usage()["borrowed"] == 0


def test_a_lent_array_beside_searches_that_never_rest() -> None:
    rows = np.random.default_rng(0).standard_normal((4000, DIM), dtype=np.float32)
    index = vicinal.Index(DIM, M=4, ef_construction=16, quantization=None)
    index.add(rows, copy=False)
    held = weakref.ref(rows)
    del rows
    with searching(index, 3):
        for step in range(400):
            index.add(np.full((1, DIM), step, np.float32))
            if held() is None:
                break
        gc.collect()
        assert held() is None, "held as long as anybody searches"


def scratch_of(index: vicinal.Index) -> int:
    """Return the bytes of buffers that searches have and may leave for the next."""
    used = index.memory_usage()
    parts = ("vectors", "ids", "id_strings", "graph", "codes", "scratch")
    assert used["total"] == sum(used[part] for part in parts)
    return used["scratch"]


@pytest.mark.parametrize("way", ["k", "ef", "filter", "range"])
def test_buffers_of_large_searches(way: str) -> None:
    """They are counted, and not kept once the search is over."""
    rows = np.random.default_rng(0).standard_normal((40_000, 2), dtype=np.float32)
    index = vicinal.Index(2, M=2, ef_construction=2)
    index.add(rows)
    index.search(rows[:40], 10, num_threads=4)
    small = scratch_of(index)
    large = len(rows) // 4
    calls = {
        "k": partial(index.search, rows[:3], large, num_threads=1),
        "ef": partial(index.search, rows[:3], 10, ef_search=large, num_threads=1),
        "filter": partial(index.search, rows[:3], large, filter=np.arange(large)),
        "range": partial(index.range_search, rows[:3], np.inf, num_threads=1),
    }
    threads = 12
    begin = threading.Barrier(threads)

    def search() -> None:
        begin.wait()
        calls[way]()

    every = [threading.Thread(target=search) for _ in range(threads)]
    for thread in every:
        thread.start()
    for thread in every:
        thread.join(HANGS)
    index.search(rows[0], 10)
    after = scratch_of(index)
    # as many threads may each leave what a search of usual width needs
    assert after <= small + threads * 300_000, f"{small} bytes before, {after} after"
