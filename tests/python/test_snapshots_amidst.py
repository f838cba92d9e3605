"""Changes in the middle of a search: each query sees the index as of one change.

They are made by a signal's handler, which runs between two pieces of a long call's work, in its own
thread. Where one query is one piece, two threads try many moments.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vicinal
from beside import amidst
from seen import DIM, vectors


def holding(count: int, kind: str, folder: Path) -> vicinal.Index:
    """Return an index that was never changed, was, or was opened."""
    index = vicinal.Index(DIM, M=8, ef_construction=40, quantization=None)
    index.add(vectors(0, count))
    if kind in ("changed", "opened with holes"):
        index.remove([5, 6])
    if kind.startswith("opened"):
        index.save(folder / "file")
        index = vicinal.open(folder / "file", mode="copy")
    return index


Ask = Callable[[vicinal.Index, Any, int], list[tuple[Any, Any]]]


def lines(found: Any) -> list[tuple[Any, Any]]:
    return list(zip(found.ids, found.distances, strict=True))


def ask_plain(index: vicinal.Index, queries: Any, id: int) -> list[tuple[Any, Any]]:
    return lines(index.search(queries, 3, num_threads=1))


def ask_filtered(index: vicinal.Index, queries: Any, id: int) -> list[tuple[Any, Any]]:
    return lines(index.search(queries, 3, filter=np.arange(0, 4000, 2), num_threads=1))


def ask_few(index: vicinal.Index, queries: Any, id: int) -> list[tuple[Any, Any]]:
    return lines(index.search(queries, 3, filter=[id, id + 2, id + 4], num_threads=1))


def ask_flags(index: vicinal.Index, queries: Any, id: int) -> list[tuple[Any, Any]]:
    return lines(index.search(queries, 3, filter=np.ones(len(index), bool), num_threads=1))


def ask_range(index: vicinal.Index, queries: Any, id: int) -> list[tuple[Any, Any]]:
    found = index.range_search(queries, 40.0, num_threads=1)
    return [tuple(found.of(i)) for i in range(len(queries))]  # type: ignore[misc]


def ask_filtered_range(index: vicinal.Index, queries: Any, id: int) -> list[tuple[Any, Any]]:
    found = index.range_search(queries, 40.0, filter=np.arange(0, 4000, 2), num_threads=1)
    return [tuple(found.of(i)) for i in range(len(queries))]  # type: ignore[misc]


ASKED: dict[str, Ask] = {
    name[4:]: call for name, call in list(globals().items()) if name.startswith("ask_")
}


@pytest.mark.parametrize("history", ["fresh", "changed", "opened", "opened with holes"])
@pytest.mark.parametrize(
    ("asked", "by"),
    [
        *((name, "update") for name in ASKED),
        *((name, "upsert") for name in ("plain", "flags", "range")),
    ],
)
@pytest.mark.parametrize("count", [900, 3000])
def test_an_update_in_the_middle_of_a_batch(
    history: str, asked: str, count: int, by: str, tmp_path: Path
) -> None:
    """Each query finds the id once, at its old distance or at its new one; never old after new."""
    id, near = 880, np.float32(2)
    old = vectors(0, count)[id]

    def change(index: vicinal.Index) -> None:
        new = old.copy()
        new[0] += near  # at a distance of 4
        if by == "update":
            index.update(new, id)
            return
        # more than may stay pending, and an id that is new
        others = np.arange(10, 70)
        rows = np.concatenate([new[None], index.get(others) + 1, new[None] + 50])
        index.add(rows, [id, *others, 10_000], on_conflict="update")

    queries = 20_000
    for _ in range(8):
        index = holding(count, history, tmp_path)
        batch = np.repeat(old[None], queries, axis=0)
        with amidst(partial(change, index)) as ran:
            found = ASKED[asked](index, batch, id)
        if len(ran) < 2:
            queries *= 2
            continue
        seen = [far[ids == id].tolist() for ids, far in found]
        twice, never = sum(len(s) > 1 for s in seen), sum(not s for s in seen)
        assert (twice, never) == (0, 0), "queries that find it twice, and never"
        values = [s[0] for s in seen]
        assert set(values) <= {0.0, 4.0}
        assert values == sorted(values), "the old vector after the new one"
        return
    pytest.fail("no look at signals in the middle of any call")


@pytest.mark.parametrize("asked", ["plain", "filtered", "flags", "range"])
@pytest.mark.parametrize("count", [900, 3000])
def test_rows_that_are_freed_and_reused_in_the_middle_of_a_batch(asked: str, count: int) -> None:
    """A place that belongs to another id by now is never taken for the id it had."""
    values = vectors(0, count)
    far = vectors(7, 200) + 1000

    def change(index: vicinal.Index) -> None:
        for turn in range(3):
            ids = np.arange(200) + (10_000 * turn if turn else 0)
            index.remove(ids)
            index.add(far, np.arange(200) + 10_000 * (turn + 1))

    queries = 20_000
    for _ in range(8):
        index = holding(count, "fresh", Path())
        batch = np.repeat(values[300][None], queries, axis=0)
        with amidst(partial(change, index)) as ran:
            found = ASKED[asked](index, batch, 300)
        if len(ran) < 2:
            queries *= 2
            continue
        for ids, distances in found:
            for id, distance in zip(ids.tolist(), distances.tolist(), strict=True):
                if id < 0:
                    continue
                row = values[id] if id < 10_000 else far[id % 10_000]
                assert distance == ((row - values[300]) ** 2).sum()
                assert asked != "filtered" or id % 2 == 0
        return
    pytest.fail("no look at signals in the middle of any call")


@pytest.mark.parametrize("history", ["fresh", "opened", "opened with holes"])
@pytest.mark.parametrize("target", [3, 880])
def test_the_first_update_beside_one_long_scan(history: str, target: int, tmp_path: Path) -> None:
    """One query, whose scan takes as long as an update: the moments are those of two threads."""
    dim, count = 16_384, 900
    values = np.tile(vectors(0, count, 64), dim // 64)
    index = vicinal.Index(dim)
    index.add(values)
    if history == "opened with holes":
        index.remove([5])
    index.save(tmp_path / "file")
    for attempt in range(20):
        if attempt == 0 or history != "fresh":
            index = vicinal.open(tmp_path / "file", mode="copy")
        if history == "fresh":
            index = vicinal.Index(dim)
            index.add(values)
        found: list[Any] = []
        begin = threading.Barrier(2)

        def look(
            index: vicinal.Index = index,
            found: list[Any] = found,
            begin: threading.Barrier = begin,
        ) -> None:
            begin.wait()
            found.extend(index.search(values[target], 3, num_threads=1) for _ in range(3))

        thread = threading.Thread(target=look)
        thread.start()
        begin.wait()
        for _ in range(attempt):
            len(index)  # another moment in each attempt
        index.update(values[target : target + 1] + 1, [target], num_threads=1)
        thread.join()
        for result in found:
            assert (result.ids == target).sum() == 1
