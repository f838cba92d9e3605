"""vicinal.mmr: against choosing one row after the other, slowly and in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import vicinal
from support.indexes import assert_same
from support.rows import numbers, stored

Array = np.ndarray[Any, np.dtype[Any]]
DIM = 10


def rows(n: int, seed: int = 0) -> Array:
    return np.rint(np.random.default_rng(seed).standard_normal((n, DIM)) * 20).astype(np.float32)


def similarity(a: Array, b: Array, metric: str) -> float:
    if metric == "l2":
        return -float(np.sqrt(((a - b) ** 2).sum()))
    product = float((a * b).sum())
    return product if metric == "ip" else product / float(np.sqrt((a**2).sum() * (b**2).sum()))


def chosen_slowly(query: Array, rows: dict[Any, Array], k: int, weight: float, metric: str) -> list:
    """`rows` are the candidates in order of distance."""
    left, best = list(rows), []  # type: ignore[var-annotated]
    while left and len(best) < k:

        def score(id: Any) -> float:
            alike = [similarity(rows[id], rows[other], metric) for other in best]
            near = similarity(query, rows[id], metric)
            return (1 - weight) * near - (weight * max(alike) if alike else 0.0)

        best.append(max(left, key=score))
        left.remove(best[-1])
    return best


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
@pytest.mark.parametrize("weight", [0.0, 0.3, 0.7, 1.0])
def test_against_choosing_slowly(metric: str, dtype: str, weight: float) -> None:
    index = vicinal.Index(DIM, metric, dtype=dtype, ids="str")
    values = stored(rows(400), dtype)
    index.add(values, ids=[f"r{i}" for i in range(400)])
    index.remove([f"r{i}" for i in range(0, 400, 6)])
    queries = rows(6, seed=1)
    mask = np.random.default_rng(2).random(len(index)) < 0.7
    found = vicinal.mmr(
        index, queries, 5, diversity=weight, candidates=15, filter=mask, exclude=["r1", "r2"]
    )
    near = index.search(queries, 15, filter=mask, exclude=["r1", "r2"])
    agree = 0
    for i, query in enumerate(queries):
        of = {id: numbers(values[int(id[1:])][None])[0] for id in near.ids[i]}
        wanted = chosen_slowly(query.astype(np.float64), of, 5, weight, metric)
        agree += found.ids[i].tolist() == wanted
        far = dict(zip(near.ids[i], near.distances[i], strict=True))
        assert found.distances[i].tolist() == [far[id] for id in found.ids[i]]
    assert agree >= 5  # float32 may turn one tie
    one = vicinal.mmr(index, queries[0], 5, diversity=weight, candidates=15, filter=mask)
    assert one.ids.shape == (5,)


def test_no_diversity_is_the_search_and_few_rows_do() -> None:
    index = vicinal.Index(DIM)
    index.add(rows(2000))
    queries = rows(50, seed=1)
    assert_same(vicinal.mmr(index, queries, 7, diversity=0), index.search(queries, 7))
    few = vicinal.mmr(index, queries[:2], 7, filter=[3, 4, 5])
    assert (np.sort(few.ids[:, :3], axis=1) == [3, 4, 5]).all() and (few.ids[:, 3:] == -1).all()
    assert np.isinf(few.distances[:, 3:]).all()
    empty = vicinal.mmr(vicinal.Index(DIM), queries[:2], 3)
    assert empty.ids.tolist() == [[-1] * 3] * 2
    apart = vicinal.mmr(index, queries, 7, diversity=0.8)

    def spread(found: Any) -> float:
        return float(np.mean([index.get(ids).std(axis=0).mean() for ids in found.ids]))

    assert spread(apart) > spread(index.search(queries, 7))


def test_refused() -> None:
    index = vicinal.Index(DIM)
    index.add(rows(5))
    with pytest.raises(ValueError, match=r"diversity: expected a number from 0 to 1, got 1\.5"):
        vicinal.mmr(index, rows(1), diversity=1.5)
    with pytest.raises(ValueError, match="candidates: expected a whole number from 10"):
        vicinal.mmr(index, rows(1), 10, candidates=9)
    with pytest.raises(TypeError, match="index: expected an Index, got ndarray"):
        vicinal.mmr(rows(5), rows(1))  # type: ignore[arg-type]
