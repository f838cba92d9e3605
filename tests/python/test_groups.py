"""search(groups=...): against sorting all rows; complete however the groups are spread."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import reference
import vicinal
from support.indexes import assert_same

Array = np.ndarray[Any, np.dtype[Any]]
DIM = 12


def rows(n: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((n, DIM)).astype(np.float32)


def by_sorting(far: Array, ids: Array, labels: Array, k: int, per_group: int) -> list[list[int]]:
    """The slow way: go through all rows from the nearest on; a group counts from its first row."""
    answer = []
    for distances in far:
        order = [i for i in np.argsort(distances, kind="stable") if distances[i] < np.inf]
        groups = list(dict.fromkeys(labels[i] for i in order))[:k]
        taken = dict.fromkeys(groups, 0)
        best = []
        for i in order:
            if labels[i] in taken and taken[labels[i]] < per_group:
                taken[labels[i]] += 1
                best.append(ids[i])
        answer.append(best)
    return answer


def shown(found: Any) -> list[list[Any]]:
    there = np.isfinite(found.distances)
    assert (np.diff(np.where(there, found.distances, 1e30), axis=1) >= 0).all()
    return [ids[mask].tolist() for ids, mask in zip(found.ids, there, strict=True)]


LABELS = {
    "even": lambda rng, n: rng.integers(0, n // 10, n),
    "one of half": lambda rng, n: np.where(rng.random(n) < 0.5, -7, rng.integers(0, 200, n)),
    "few": lambda rng, n: rng.integers(0, 4, n),
    "each alone": lambda rng, n: rng.permutation(n) * 10**12,
    "strings": lambda rng, n: np.array([f"d{i}" for i in rng.integers(0, 80, n)]),
    "objects": lambda rng, n: np.array([f"d{i}" for i in rng.integers(0, 80, n)], dtype=object),
}


@pytest.mark.parametrize("per_group", [1, 3])
@pytest.mark.parametrize("name", LABELS)
@pytest.mark.parametrize("names", [False, True])
def test_against_sorting(name: str, per_group: int, names: bool) -> None:
    n = 900  # searched exactly
    index = vicinal.Index(DIM, ids="str" if names else "int64")
    ids = [f"r{i}" for i in range(n)] if names else np.arange(n) * 3 - 50
    index.add(rows(n), ids=ids)
    labels = LABELS[name](np.random.default_rng(1), n)
    queries = rows(12, seed=2)
    for removed in (False, True):
        if removed:
            index.remove(index.ids[::9])
            labels = np.delete(labels, np.s_[::9])
        far = reference.distances(index.get(index.ids), queries, "l2")
        found = index.search(queries, 6, groups=labels, per_group=per_group)
        assert found.ids.shape == (12, 6 * per_group)
        assert shown(found) == by_sorting(far, index.ids, labels, 6, per_group)
        mask = np.random.default_rng(3).random(len(index)) < 0.2
        out = index.ids[mask][:20]
        found = index.search(
            queries, 6, groups=labels, per_group=per_group, filter=mask, exclude=out
        )
        far = np.where(mask & ~np.isin(index.ids, out), far, np.inf)
        assert shown(found) == by_sorting(far, index.ids, labels, 6, per_group)
        one = index.search(queries[3], 6, groups=labels, per_group=per_group)
        assert one.ids.shape == (6 * per_group,)


@pytest.mark.parametrize("per_group", [1, 4])
def test_one_large_group_around_the_query_hides_no_other(per_group: int) -> None:
    """5,000 of 5,400 rows are of one group and all nearer than the rest; the graph is walked."""
    near, rest = rows(5000) * 0.1, rows(400, seed=1) + 5
    index = vicinal.Index(DIM, M=8, ef_construction=40, quantization=None)
    index.add(np.concatenate([near, rest]))
    labels = np.concatenate([np.zeros(5000, int), 1 + np.arange(400) // 20])
    queries = rows(3, seed=2) * 0.1
    found = index.search(queries, 8, groups=labels, per_group=per_group)
    assert np.isfinite(found.distances).all()
    for ids in found.ids:
        groups, counts = np.unique(labels[ids], return_counts=True)
        assert len(groups) == 8 and (counts == per_group).all() and 0 in groups
    far = reference.distances(index.get(index.ids), queries, "l2")
    wanted = by_sorting(far, index.ids, labels, 8, per_group)
    shares = [np.isin(a, b).mean() for a, b in zip(shown(found), wanted, strict=True)]
    assert np.mean(shares) > 0.9
    # there are 21 groups: no more are made up
    many = index.search(queries, 30, groups=labels)
    assert (np.isfinite(many.distances).sum(axis=1) == 21).all()


@pytest.mark.parametrize("names", [False, True])
def test_functions_and_mappings(names: bool) -> None:
    """They are asked about ids, so that no array has to keep up with the rows."""
    n = 1500  # walked
    index = vicinal.Index(DIM, ids="str" if names else "int64", M=8, ef_construction=40)
    index.add(rows(n), ids=[f"{i % 97}/{i}" for i in range(n)] if names else np.arange(n) - 700)
    queries = rows(6, seed=2)
    asked: list[int] = []

    def label(id: Any) -> Any:
        return id.split("/")[0] if names else id % 97

    def function(ids: Array) -> Any:
        asked.append(len(ids))
        return [label(id) for id in ids.tolist()]

    mapping = {id: label(id) for id in index.ids.tolist()}
    for change in (lambda: None, lambda: index.remove(index.ids[::9]), index.compact):
        change()
        array = [label(id) for id in index.ids.tolist()]
        for per_group in (1, 3):
            for more in ({}, {"filter": np.arange(len(index)) % 3 > 0, "exclude": index.ids[:5]}):
                wanted = index.search(queries, 7, groups=array, per_group=per_group, **more)
                for groups in (function, mapping):
                    found = index.search(queries, 7, groups=groups, per_group=per_group, **more)
                    assert_same(found, wanted)
        asked.clear()
        index.search(queries[0], 3, groups=function)
        assert sum(asked) < 100
        best = index.search_multi(queries, owners=array, k=4)
        for owners in (function, mapping):
            found = index.search_multi(queries, owners=owners, k=4)
            assert found.owners.tolist() == best.owners.tolist()
            np.testing.assert_array_equal(found.scores, best.scores)
    # more groups than there are, a group that hides others, no rows
    same = index.search(queries, 200, groups=function)
    assert (np.isfinite(same.distances).sum(axis=1) == 97).all()
    heavy = index.search(queries, 2, groups=lambda ids: [label(i) == label(ids[0]) for i in ids])
    assert heavy.ids.shape == (6, 2)
    empty = vicinal.Index(DIM)
    assert (empty.search(queries, 3, groups=function).ids == -1).all()


def test_functions_that_are_wrong() -> None:
    index = vicinal.Index(DIM)
    index.add(rows(5))
    query = rows(1)[0]
    for groups, error, said in (
        (lambda ids: ids[:-1], ValueError, "groups: expected a function that returns one label"),
        (lambda ids: 7, ValueError, "groups: expected a function that returns one label"),
        (lambda ids: ids * 0.5, TypeError, "groups: expected integers or strings, got dtype float"),
        (lambda ids: None, (TypeError, ValueError), "groups: expected"),
        (lambda ids: 1 / 0, ZeroDivisionError, "division"),
        ({0: 1, 1: 1}, ValueError, "groups: expected a label for each id, got none for"),
        ({i: [i] for i in range(5)}, TypeError, "groups: expected integers or strings, got list"),
    ):
        with pytest.raises(error, match=said):
            index.search(query, groups=groups)


def test_lists_and_small_cases() -> None:
    index = vicinal.Index(DIM)
    index.add(rows(5))
    found = index.search(rows(5)[0], 9, groups=["a", "a", "b", "b", "a"])
    assert sorted(found.ids[np.isfinite(found.distances)].tolist())[0] == 0
    assert np.isfinite(found.distances).sum() == 2
    empty = vicinal.Index(DIM)
    assert (empty.search(rows(2), 3, groups=[]).ids == -1).all()
    assert index.search(np.empty((0, DIM)), 3, groups=np.zeros(5, int)).ids.shape == (0, 3)
    same = index.search(rows(3), 5, groups=np.arange(5))
    assert_same(same, index.search(rows(3), 5))


def test_refused() -> None:
    index = vicinal.Index(DIM)
    index.add(rows(5))
    query = rows(1)[0]
    with pytest.raises(ValueError, match=r"groups: expected one for each row, of shape \(5,\)"):
        index.search(query, groups=[1, 2])
    with pytest.raises(TypeError, match="groups: expected integers or strings, got dtype float64"):
        index.search(query, groups=np.ones(5))
    with pytest.raises(TypeError, match="groups: expected integers or strings, got list"):
        labels = np.empty(5, object)
        labels[:] = [[1]] * 5
        index.search(query, groups=labels)
    with pytest.raises(ValueError, match="per_group: expected a whole number from 1"):
        index.search(query, groups=np.arange(5), per_group=0)
