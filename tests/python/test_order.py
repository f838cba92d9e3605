"""Recall does not depend on the order in which rows come, nor on how many come in a call."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import vicinal

Array = np.ndarray[Any, Any]
ROWS = 12_000
EFS = (16, 64)
WAYS = ("once", "100", "1", "compacted", "merged", "updated")


def numbers() -> Array:
    """A sequence: each row lies between those before and behind it."""
    return np.arange(ROWS, dtype=np.float32).reshape(-1, 1) / 2


def clusters() -> Array:
    """One cluster after the other, 100 rows each, far from one another."""
    rng = np.random.default_rng(17)
    centres = np.repeat(rng.normal(size=(ROWS // 100, 64)), 100, axis=0)
    return (2 * centres + 0.5 * rng.normal(size=(ROWS, 64))).astype(np.float32)


def spiral() -> Array:
    """A film: each row is a step away from the last, and what was seen comes back."""
    turn = np.linspace(0, 60 * np.pi, ROWS)
    waves = [np.sin(turn * f + f) for f in (1, 1.01, 2, 2.03, 3, 3.05, 5, 7)]
    return np.stack(waves, axis=1).astype(np.float32)


def build(rows: Array, way: str) -> vicinal.Index:
    """Return an index of rows that came in one way; the ids are their numbers."""
    index = vicinal.Index(rows.shape[1])
    if way == "merged":
        for part in np.array_split(np.arange(len(rows)), 4):
            other = vicinal.Index(rows.shape[1])
            other.add(rows[part], part)
            index.merge(other)
    elif way == "updated":
        index.add(rows[::-1] * 0.5 + 1)
        for part in np.array_split(np.arange(len(rows)), 4):
            index.update(rows[part], part)
    else:
        step = {"once": len(rows), "1": 1}.get(way, 100)
        for i in range(0, len(rows), step):
            index.add(rows[i : i + step])
    if way == "compacted":
        index.compact()
    return index


def recall(index: vicinal.Index, rows: Array) -> list[float]:
    """Return recall@10 at each of EFS for queries near rows; rows as near as the tenth count."""
    rng = np.random.default_rng(5)
    near = rows[rng.integers(0, len(rows), 400)]
    queries = (near + 1e-3 * rows.std(0) * rng.normal(size=near.shape)).astype(np.float32)
    farthest = vicinal.exact_search(rows, queries, 10).distances[:, -1:] * (1 + 1e-5) + 1e-6
    return [
        float((index.search(queries, 10, ef_search=ef).distances <= farthest).mean()) for ef in EFS
    ]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("made", [numbers, spiral])
def test_rows_in_order_are_found(made: Any, way: str) -> None:
    rows = made()
    index = build(rows, way)
    index.check()
    narrow, wide = recall(index, rows)
    assert narrow >= 0.995
    assert wide >= 0.999


@pytest.mark.parametrize(
    ("way", "floors"),
    [
        ("once", (0.99, 0.995)),
        ("compacted", (0.99, 0.995)),
        ("100", (0.97, 0.985)),
        ("1", (0.97, 0.985)),
        ("merged", (0.97, 0.985)),
    ],
)
def test_clusters_in_order_are_found(way: str, floors: tuple[float, float]) -> None:
    """A call that brings a cluster knows none of those to come: hnswlib found .97 to .99, .99."""
    rows = clusters()
    narrow, wide = recall(build(rows, way), rows)
    assert narrow >= floors[0]
    assert wide >= floors[1]


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("way", ["update", "remove and add"])
def test_clusters_that_move_are_found(way: str, shuffled: bool) -> None:
    """Half of all clusters move, 100 rows a call: .91 and .94 while no long link was replaced."""
    rows = clusters()
    half = ROWS // 2
    before = rows.copy()
    before[half:] /= 2
    index = vicinal.Index(rows.shape[1])
    index.add(before)
    moving = np.arange(half, ROWS)
    if shuffled:
        moving = np.random.default_rng(3).permutation(moving)
    for first in range(0, half, 100):
        ids = moving[first : first + 100]
        if way == "update":
            index.update(rows[ids], ids)
        else:
            index.remove(ids)
            index.add(rows[ids], ids)
    index.check()
    narrow, wide = recall(index, rows)
    assert narrow >= 0.97
    assert wide >= 0.985


@pytest.mark.parametrize("step", [30, 128, 700])
def test_rows_of_a_call_link_to_each_other(step: int, always_a_graph: None) -> None:
    """What has come with a row is near to it and nothing else is: its nearest neighbours are."""
    rng = np.random.default_rng(step)
    index = vicinal.Index(8, seed=2)
    index.add(rng.normal(size=(9000, 8)))
    added = (100 + rng.normal(size=(step, 8))).astype(np.float32)
    ids = index.add(added)
    found = index.search(added, 10, ef_search=32)
    farthest = vicinal.exact_search(added, added, 10).distances[:, -1:] * (1 + 1e-5) + 1e-6
    assert np.isin(found.ids, ids).all()
    assert (found.distances <= farthest).mean() >= 0.99


@pytest.mark.parametrize("made", [numbers, clusters])
def test_rows_in_order_give_the_same_bytes(made: Any, tmp_path: Any) -> None:
    """For any number of threads, in calls of any size."""
    rows = made()[:6000]
    for step in (6000, 700, 100):
        files = set()
        for threads in (1, 2, 3, 8):
            index = vicinal.Index(rows.shape[1])
            for i in range(0, len(rows), step):
                index.add(rows[i : i + step], num_threads=threads)
            index.save(tmp_path / "index")
            files.add((tmp_path / "index").read_bytes())
        assert len(files) == 1
