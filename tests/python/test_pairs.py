"""index.pairs and index.duplicates: against all pairs, and joining them one by one."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import vicinal
from support.indexes import exact_below
from support.rows import numbers, stored

Array = np.ndarray[Any, np.dtype[Any]]
DIM = 8


def heaps(n: int, seed: int = 0) -> Array:
    """Whole numbers in heaps, some rows equal to others."""
    rng = np.random.default_rng(seed)
    middles = rng.integers(-60, 60, (n // 8, DIM))
    rows = middles[rng.integers(0, len(middles), n)] + rng.integers(-2, 3, (n, DIM))
    rows[: n // 10] = rows[n // 2 : n // 2 + n // 10]
    return rows.astype(np.float32)


def all_pairs(ids: list[Any], rows: Array, radius: float, metric: str) -> dict[Any, float]:
    """The slow way."""
    found = {}
    for i, row in enumerate(rows):
        others = rows[i + 1 :]
        far = ((others - row) ** 2).sum(axis=1) if metric == "l2" else 1 - others @ row
        for j in np.flatnonzero(far <= radius):
            found[frozenset((ids[i], ids[i + 1 + j]))] = float(far[j])
    return found


def groups_of(ids: list[Any], pairs: Any) -> list[list[Any]]:
    """Join groups pair by pair."""
    group = {id: {id} for id in ids}
    for pair in pairs:
        a, b = tuple(pair)
        if group[a] is not group[b]:
            group[a] |= group[b]
            for id in group[b]:
                group[id] = group[a]
    seen: list[list[Any]] = []
    for id in ids:
        members = [other for other in ids if other in group[id]]
        if len(members) > 1 and members not in seen:
            seen.append(members)
    return seen


@pytest.mark.parametrize("names", [False, True])
@pytest.mark.parametrize(
    ("metric", "dtype"),
    [("l2", "float32"), ("l2", "bfloat16"), ("l2", "int8"), ("ip", "float32")],
)
def test_against_all_pairs(metric: str, dtype: str, names: bool) -> None:
    rows = stored(heaps(500), dtype)
    ids = [f"r{i}" for i in range(500)] if names else list(range(1000, 500, -1))
    index = vicinal.Index(DIM, metric, dtype=dtype, ids="str" if names else "int64")
    index.add(rows, ids=ids)
    index.remove(ids[3::11])
    keep = np.ones(500, bool)
    keep[3::11] = False
    radius = 40.0 if metric == "l2" else -9000.0
    left = [id for id, kept in zip(ids, keep, strict=True) if kept]
    wanted = all_pairs(left, numbers(rows[keep]), radius, metric)
    assert len(wanted) > 200
    near = index.pairs(radius)
    found = list(near)
    assert len(found) == len(wanted) and near.share_found == 1
    assert {frozenset(pair[:2]): pair[2] for pair in found} == wanted
    a, b, distances = near.arrays()
    assert list(zip(a.tolist(), b.tolist(), distances.tolist(), strict=True)) == found
    groups = index.duplicates(radius)
    assert [group.tolist() for group in groups] == groups_of(left, wanted)
    assert groups.share_found == 1
    # among some rows only
    some = np.random.default_rng(1).random(len(left)) < 0.5
    few = [id for id, kept in zip(left, some, strict=True) if kept]
    wanted = all_pairs(few, numbers(rows[keep][some]), radius, metric)
    for form in (some, few, index.filter(few)):
        assert {frozenset(p[:2]) for p in index.pairs(radius, filter=form)} == set(wanted)
    assert [g.tolist() for g in index.duplicates(radius, filter=few)] == groups_of(few, wanted)


def test_through_the_graph_with_the_share_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    exact_below(monkeypatch, 0)
    rows = heaps(3000, seed=2)
    index = vicinal.Index(DIM, M=8, ef_construction=60)
    index.add(rows)
    wanted = all_pairs(list(range(3000)), rows.astype(np.float64), 30.0, "l2")
    near = index.pairs(30.0, ef_search=16)
    found = [frozenset(pair[:2]) for pair in near]
    assert len(set(found)) == len(found) and set(found) <= set(wanted)
    share = len(found) / len(wanted)
    assert 0.9 < share <= 1
    assert abs(near.share_found - share) < 0.05
    every = index.pairs(30.0, exact=True)
    assert {frozenset(pair[:2]) for pair in every} == set(wanted) and every.share_found == 1


def test_memory_is_flat_where_rows_are_dense() -> None:
    """All rows are near each other: batches get smaller."""
    index = vicinal.Index(2)
    index.add(np.random.default_rng(0).random((3000, 2)))
    sizes = [len(a) for a, _, _ in index.pairs(np.inf).batches()]
    assert sum(sizes) == 3000 * 2999 // 2
    assert max(sizes) < 3 * 2**18


def test_edges() -> None:
    empty = vicinal.Index(DIM)
    assert list(empty.pairs(1.0)) == [] and empty.duplicates(1.0) == []
    assert all(len(part) == 0 for part in empty.pairs(1.0).arrays())
    index = vicinal.Index(DIM)
    index.add(np.ones((4, DIM)))
    assert len(list(index.pairs(0))) == 6
    assert [group.tolist() for group in index.duplicates(0)] == [[0, 1, 2, 3]]
    assert repr(index.pairs(0.5)) == "vicinal.Pairs within 0.5 of 4 rows"
    line = vicinal.Index(1)
    line.add(np.arange(50.0)[:, None])  # a chain
    assert [group.tolist() for group in line.duplicates(1.0)] == [list(range(50))]
    assert all(b - a == 1 for a, b in pairwise(sorted(line.duplicates(1.0)[0])))
    with pytest.raises(TypeError, match="radius: expected a real number"):
        index.pairs("near")
    with pytest.raises(ValueError, match="exact: expected exact or ef_search, got both"):
        index.pairs(1.0, exact=True, ef_search=3)


def test_rows_that_go_on_the_way_are_left_out() -> None:
    index = vicinal.Index(DIM)
    index.add(np.zeros((200, DIM)) + np.arange(200)[:, None] % 2)
    seen = []
    for a, b, _ in index.pairs(0.0).batches():
        seen.append((a, b))
        if len(seen) == 1:
            index.remove(np.arange(100, 200))
    later = np.concatenate([np.concatenate(pair) for pair in seen[1:]])
    assert len(seen) > 1 and (later < 100).all()
