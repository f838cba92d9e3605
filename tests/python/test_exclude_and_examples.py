"""search(exclude=...), search(like=..., unlike=...) and search(exact=True), against brute force."""

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


def made(n: int = 1500, metric: str = "l2", **options: Any) -> Any:
    index = vicinal.Index(DIM, metric, M=8, ef_construction=60, **options)
    index.add(rows(n), ids=np.arange(n) * 3 - 50)
    return index


@pytest.mark.parametrize("many", [1, 5, 40, 700])
@pytest.mark.parametrize("n", [300, 1500])
def test_exclude_is_a_filter_turned_round(n: int, many: int) -> None:
    index, queries = made(n), rows(9, seed=1)
    out = index.search(queries[0], min(many, n - 20)).ids  # the nearest rows of one query
    found = index.search(queries, 10, exclude=out, exact=True)
    wanted = index.search(queries, 10, filter=~np.isin(index.ids, out), exact=True)
    assert_same(found, wanted)
    loose = index.search(queries, 10, exclude=out)
    assert not np.isin(loose.ids, out).any() and (loose.distances < np.inf).all()
    assert (loose.ids == wanted.ids).mean() > 0.95
    np.testing.assert_array_equal(index.search(queries[0], 10, exclude=out).ids, loose.ids[0])
    mask = np.isin(index.ids, out)
    for form in (out.tolist(), mask, index.filter(out), np.append(out, 10**9)):
        assert_same(index.search(queries, 10, exclude=form, exact=True), wanted)


def test_exclude_for_each_query_and_beside_a_filter() -> None:
    index, queries = made(), rows(4, seed=1)
    every = index.ids
    seen: list[Any] = [every[:3], None, every[::2], every % 5 == 0]
    gone = [np.isin(every, seen[0]), np.zeros(1500, bool), np.isin(every, seen[2]), seen[3]]
    for filter in (None, every % 3 == 1, [None, every % 3 == 1, every[:700], None]):
        given = filter if isinstance(filter, list) else [filter] * 4
        masks = []
        for item, out in zip(given, gone, strict=True):
            may = np.ones(1500, bool) if item is None else item
            masks.append((may if may.dtype == bool else np.isin(every, may)) & ~out)
        found = index.search(queries, 6, exclude=seen, filter=filter, exact=True)
        assert_same(found, index.search(queries, 6, filter=masks, exact=True))
    few = [every[:2], None, every[5:6], every[:0]]
    masks = [~np.isin(every, [] if item is None else item) for item in few]
    assert_same(
        index.search(queries, 6, exclude=few, exact=True),
        index.search(queries, 6, filter=masks, exact=True),
    )


def test_exclude_all_and_more() -> None:
    index = made(30)
    found = index.search(rows(2, seed=1), 4, exclude=index.ids)
    assert (found.ids == -1).all() and np.isinf(found.distances).all()
    found = index.search(rows(1, seed=1)[0], 40, exclude=index.ids[:25])
    assert np.isfinite(found.distances).sum() == 5
    names = vicinal.Index(DIM, ids="str")
    names.add(rows(3), ids=["a", "b", "c"])
    assert names.search(rows(3)[1], 3, exclude=["b", "x"]).ids.tolist()[2] is None
    with pytest.raises(ValueError, match="exclude: expected a list with one for each of 2"):
        index.search(rows(2), exclude=[[1], [2], [3]])
    with pytest.raises(TypeError, match="exclude: "):
        index.search(rows(2), exclude=3.5)


# ---- exact


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
@pytest.mark.parametrize("quantization", [None, "sq8"])
def test_exact_is_brute_force(metric: str, quantization: Any) -> None:
    index, queries = made(1500, metric, quantization=quantization), rows(20, seed=1)
    index.remove(index.ids[::7])
    kept = index.get(index.ids)
    every = reference.distances(kept, queries, metric)
    for mask in (None, index.ids % 2 == 0):
        far = every if mask is None else np.where(mask, every, np.inf)
        found = index.search(queries, 15, filter=mask, exact=True)
        np.testing.assert_array_equal(found.ids, index.ids[np.argsort(far, axis=1)[:, :15]])
    with pytest.raises(ValueError, match="exact: expected exact or ef_search, got both"):
        index.search(queries, exact=True, ef_search=3)
    with pytest.raises(TypeError, match="exact: expected True or False, got 1"):
        index.search(queries, exact=1)
    assert_same(index.search(queries, exact=False), index.search(queries))


# ---- examples


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_like_is_the_mean(metric: str, dtype: str) -> None:
    index = made(1500, metric, dtype=dtype)
    stored = index.get(index.ids)
    if dtype == "bfloat16":
        stored = (stored.astype(np.uint32) << 16).view(np.float32)
    of = dict(zip(index.ids.tolist(), stored.astype(np.float64), strict=True))

    def wanted(query: Array, inputs: list[int]) -> Array:
        mask = ~np.isin(index.ids, inputs)
        return index.search(query.astype(np.float32), 8, filter=mask, exact=True).ids

    a, b, c, d = (int(each) for each in index.ids[[3, 77, 500, 1001]])
    cases = [
        ({"like": a}, of[a], [a]),
        ({"like": [a, b]}, (of[a] + of[b]) / 2, [a, b]),
        ({"like": {a: 3, b: 1}}, (3 * of[a] + of[b]) / 4, [a, b]),
        ({"like": np.array([a]), "unlike": [c]}, 2 * of[a] - of[c], [a, c]),
        (
            {"like": [a, b], "unlike": {c: 1, d: 4}},
            of[a] + of[b] - (of[c] + 4 * of[d]) / 5,
            [a, b, c, d],
        ),
    ]
    for given, query, inputs in cases:
        found = index.search(k=8, exact=True, **given)
        assert found.ids.shape == (8,)
        np.testing.assert_array_equal(found.ids, wanted(query, inputs))
    batch = index.search(like=[[a, b], {c: 1}], unlike=[[c], None], k=8, exact=True)
    np.testing.assert_array_equal(batch.ids[0], wanted(of[a] + of[b] - of[c], [a, b, c]))
    np.testing.assert_array_equal(batch.ids[1], wanted(of[c], [c]))
    loose = index.search(like=[[a, b], [c]], k=8)
    assert not np.isin(loose.ids[0], [a, b]).any() and c not in loose.ids[1]


def test_like_of_integers_strings_and_beside_other_verbs() -> None:
    values = np.random.default_rng(0).integers(-100, 100, (200, DIM)).astype(np.int8)
    index = vicinal.Index(DIM, dtype="int8", ids="str")
    index.add(values, ids=[f"v{i}" for i in range(200)])
    mean = np.rint((values[1].astype(float) + values[2]) / 2).astype(np.int8)
    mask = ~np.isin(index.ids, ["v1", "v2", "v5"])
    found = index.search(like=["v1", "v2"], k=6, exclude=["v5"])
    np.testing.assert_array_equal(found.ids, index.search(mean, 6, filter=mask).ids)
    one = index.search(like="v1", k=5, groups=np.arange(200) % 10)
    assert "v1" not in one.ids and len({int(id[1:]) % 10 for id in one.ids}) == 5


def test_examples_refused() -> None:
    index = made(30)
    first = int(index.ids[0])
    with pytest.raises(KeyError, match="like: 10000 is not in the index"):
        index.search(like=[first, 10000])
    with pytest.raises(KeyError, match="unlike: 10000 is not in the index"):
        index.search(like=[first], unlike=[10000])
    with pytest.raises(ValueError, match="like: expected at least one id, got none"):
        index.search(like=[])
    with pytest.raises(ValueError, match="like: expected ids, got only"):
        index.search(unlike=[first])
    with pytest.raises(TypeError, match="queries: expected none beside like=ids, got both"):
        index.search(rows(1), like=[first])
    with pytest.raises(TypeError, match="queries: expected an array of real numbers, got None"):
        index.search(None)
    with pytest.raises(TypeError, match="by name"):
        index.search(rows(1), 3, 64)  # type: ignore[misc, call-overload]
    with pytest.raises(ValueError, match="like: expected weights above 0"):
        index.search(like={first: -1})
    with pytest.raises(ValueError, match="unlike: expected one list for each of 2 queries"):
        index.search(like=[[first], [first]], unlike=[first])
    with pytest.raises(ValueError, match="per_group: expected groups= as well"):
        index.search(rows(1), per_group=3)
    assert_same(index.search(like=[first], unlike=[]), index.search(like=[first]))
