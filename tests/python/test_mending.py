"""Links to removed rows are led past them a slice at a time, and all holds in between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vicinal
from support.files import sections_of

Array = np.ndarray[Any, Any]
SLICE = 1024  # blocks for each row of a change, as `consolidate.mojo` has it


def rows_of(count: int, dim: int = 12, seed: int = 0) -> Array:
    """Rows in heaps, so that links matter."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(40, dim))
    spread = 0.3 * rng.normal(size=(count, dim))
    return (centres[rng.integers(0, 40, count)] + spread).astype(np.float32)


def blocks(index: vicinal.Index) -> int:
    return int(index.build_stats()["blocks"])


def marks(index: vicinal.Index, path: Path) -> Array:
    """The tombstones of a file: 1 for rows that still have links."""
    index.save(path)
    data = path.read_bytes()
    part = sections_of(data).get("tombstones")
    return np.frombuffer(data, np.uint8, part.rows, part.offset) if part else np.empty(0, np.uint8)


def test_each_call_looks_at_a_bounded_number_of_blocks(tmp_path: Path) -> None:
    """Whatever the size of the index: 32 passes of 16,000 blocks and more, a thousand at a time."""
    index = vicinal.Index(12)
    ids = index.add(rows_of(15_000))
    index.add(rows_of(3000, seed=1)[:1])
    order = np.random.default_rng(2).permutation(ids)
    work = []
    for id_ in order[:400]:
        before = blocks(index)
        index.remove(id_)
        work.append(blocks(index) - before)
    assert max(work) <= SLICE
    assert sum(work) >= 4 * 15_000  # passes became due, and were finished
    assert (marks(index, tmp_path / "index") == 1).sum() <= 15_000 // 256 + 2 * 15
    assert (marks(index, tmp_path / "index") == 2).sum() >= 300
    # additions do their share as well, and two rows two shares
    while not 0 < (marks(index, tmp_path / "index") == 1).sum() <= 40:
        index.remove(index.ids[0])
    for id_ in index.ids[:60]:
        before = blocks(index)
        index.remove(id_)
        if blocks(index) - before == SLICE:
            break
    before = blocks(index)
    index.add(rows_of(2, seed=3))
    assert SLICE < blocks(index) - before <= 2 * SLICE + 2


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_lost_between_slices(seed: int, tmp_path: Path) -> None:
    """Rows come, go and are replaced one at a time; files are written and opened in between."""
    rng = np.random.default_rng(seed)
    pool = rows_of(9000, seed=seed)
    index = vicinal.Index(12, M=(4, 16)[seed % 2])
    index.add(pool[:5000])
    held = {i: pool[i] for i in range(5000)}
    between = 0
    for step in range(700):
        what = rng.random()
        some = rng.choice(list(held), int(rng.integers(1, 3)), replace=False).tolist()
        if what < 0.6:
            index.remove(some)
            for id_ in some:
                del held[id_]
        elif what < 0.8:
            row = pool[rng.integers(0, 9000)]
            if rng.random() < 0.3:
                row = held[some[0]]  # a copy
            held[int(index.add(row)[0])] = row
        else:
            index.update(pool[some[0] + 17 : some[0] + 18], some[:1])
            held[some[0]] = pool[some[0] + 17]
        if step % 50 == 0:
            index.check()
            between += int(blocks(index) % 5000 != 0)
            ids = np.array(list(held))
            true = vicinal.exact_search(np.array([held[i] for i in held]), pool[:20], 10)
            found = index.search(pool[:20], 10, ef_search=400)
            assert np.isin(found.ids, ids).all()
            assert (found.distances <= true.distances[:, -1:] * 1.00001 + 1e-6).mean() > 0.99
            if rng.random() < 0.5:
                index.save(tmp_path / "index")
                index = vicinal.open(tmp_path / "index", mode="copy", verify=True)
                index.check()
    assert between > 0
    assert sorted(index.ids.tolist()) == sorted(held)
    np.testing.assert_array_equal(index.get(index.ids), [held[i] for i in index.ids.tolist()])
    index.remove(index.ids[: len(held) // 3])  # many rows: all slices in one call
    index.check()


def test_the_same_bytes_for_any_number_of_threads(tmp_path: Path) -> None:
    rows = rows_of(6000)
    files: set[tuple[int, bytes]] = set()
    for threads in (1, 2, 3):
        index = vicinal.Index(12)
        index.add(rows, num_threads=threads)
        for i in range(0, 400, 2):
            index.remove(i * 7, num_threads=threads)
            if i % 6 == 0:
                index.add(rows[i] + 1, num_threads=threads)
            if i % 50 == 0:
                index.save(tmp_path / "index")
                files.add((i, (tmp_path / "index").read_bytes()))
    assert len(files) == len({i for i, _ in files})


@pytest.mark.parametrize("batch", [1, 3])
def test_as_many_are_found_as_in_a_fresh_graph(batch: int) -> None:
    rows = rows_of(8000, 24)
    queries = rows_of(8300, 24)[8000:]
    index = vicinal.Index(24)
    index.add(rows)
    order = np.random.default_rng(1).permutation(8000)
    for first in range(0, 2400, batch):
        index.remove(order[first : first + batch])
    index.check()
    left = np.sort(order[2400:]) if batch == 1 else index.ids
    fresh = vicinal.Index(24)
    fresh.add(rows[left], left)
    farthest = vicinal.exact_search(rows[left], queries, 10).distances[:, -1:] * 1.00001
    for ef in (16, 64):
        ours, theirs = (
            float((each.search(queries, 10, ef_search=ef).distances <= farthest).mean())
            for each in (index, fresh)
        )
        assert ours >= theirs - 0.005


class Enough(Exception):
    """Ends a call from its progress function."""


def test_a_refused_addition_between_slices_leaves_no_trace(tmp_path: Path) -> None:
    index = vicinal.Index(12)
    index.add(rows_of(6000))
    for i in range(200):
        index.remove(i)
        if i % 20 == 7:
            before = index.search(rows_of(50), 5).ids
            index.save(tmp_path / "a")

            def stop(done: int, total: int) -> None:
                raise Enough

            with pytest.raises(Enough):
                index.add(rows_of(300, seed=5), progress=stop)
            index.save(tmp_path / "b")
            assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
            assert (index.search(rows_of(50), 5).ids == before).all()
    index.check()
