"""Float queries to int8 and uint8 indexes: against float64 distances of the queries as given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import reference
import vicinal

Array = np.ndarray[Any, np.dtype[Any]]
DIM = 48


def embeddings(n: int, seed: int, *, positive: bool = False) -> Array:
    middles = np.random.default_rng(0).standard_normal((40, DIM))
    rng = np.random.default_rng(seed)
    rows = middles[rng.integers(0, 40, n)] + 0.6 * rng.standard_normal((n, DIM))
    rows = np.abs(rows) if positive else rows
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("n", [600, 2500])
def test_against_brute_force(metric: str, dtype: str, n: int) -> None:
    positive = dtype == "uint8"
    scale = 250.0 if metric != "l2" else 200.0
    limits = np.iinfo(dtype)
    rows = embeddings(n, 1, positive=positive) * scale
    rows = np.clip(np.rint(rows), limits.min, limits.max).astype(dtype)
    queries = embeddings(25, 2, positive=positive).astype(np.float32)
    if metric == "l2":  # on the scale of the rows
        queries = queries * np.float32(scale)
    index = vicinal.Index(DIM, metric, dtype=dtype)
    index.add(rows)
    every = reference.distances(rows, queries, metric)
    mask = np.random.default_rng(3).random(n) < 0.5
    for filter in (None, mask):
        far = every if filter is None else np.where(filter, every, np.inf)
        found = index.search(queries, 10, filter=filter)
        told = np.take_along_axis(every, found.ids, axis=1)
        np.testing.assert_allclose(found.distances, told, rtol=1e-5, atol=1e-6)
        bound = np.sort(far, axis=1)[:, 9:10]
        assert (found.distances <= bound + 1e-6 * np.abs(bound) + 1e-6).mean() > 0.97
    one = index.search(queries[4], 10)
    assert one.ids.shape == (10,)
    np.testing.assert_array_equal(one.ids, index.search(queries, 10).ids[4])
    radius = float(np.quantile(every, 0.02))
    within = index.range_search(queries, radius, ef_search=2**31 - 1)
    for i in range(len(queries)):
        slack = 1e-5 * abs(radius) + 1e-6
        ids = set(within.of(i).ids.tolist())
        assert set(np.flatnonzero(every[i] <= radius - slack)) <= ids
        assert ids <= set(np.flatnonzero(every[i] <= radius + slack))
    grouped = index.search(queries, 5, groups=np.arange(n) // 3, exclude=[0, 1])
    assert (np.diff(grouped.distances, axis=1) >= 0).all()


def test_whole_floats_are_as_integers_and_the_rest_is_refused() -> None:
    index = vicinal.Index(3, "cosine", dtype="int8")
    index.add([[1, 2, 3], [-1, 0, 5], [7, 7, 7]])
    whole = np.array([1.0, 2.0, 3.0])
    assert (
        index.search(whole, 3).ids.tolist() == index.search(whole.astype(np.int8), 3).ids.tolist()
    )
    assert index.search([0.1, 0.2, 0.3], 3).ids.tolist() == index.search([1, 2, 3], 3).ids.tolist()
    assert index.search([0.1, 0.2, 0.3], 5).ids.tolist()[3:] == [-1, -1]
    with pytest.raises(ValueError, match="queries: row 0 holds NaN or infinity"):
        index.search([np.nan, 0.5, 0.5])
    with pytest.raises(ValueError, match="queries: expected"):
        index.search([0.5, 0.5])
    with pytest.raises(ValueError, match="zero vector"):
        index.search([0.0, 0.0, 0.0])
    with pytest.raises(ValueError, match=r"vectors: row 0 holds 0\.5, expected whole numbers"):
        index.add([[0.5, 1, 1]])
    large = vicinal.Index(2, dtype="uint8")
    large.add([[255, 0], [0, 0]])
    found = large.search([300.5, -3.0], 1)
    assert found.ids.tolist() == [0] and found.distances[0] == np.float32(45.5**2 + 9)
