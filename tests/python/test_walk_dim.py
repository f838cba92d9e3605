"""walk_dim: walks on codes of the first values, results measured on all of them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vicinal
from support.files import sections_of

Array = np.ndarray[Any, np.dtype[Any]]

pytestmark = pytest.mark.full_build


def data(n: int, dim: int, seed: int = 0) -> Array:
    """Rows whose values get smaller, as those of Matryoshka embeddings and principal components."""
    rng = np.random.default_rng(seed)
    scale = 1 / np.sqrt(1 + np.arange(dim))
    return (rng.standard_normal((n, dim)) * scale + 0.1 * scale).astype(np.float32)


def far(rows: Array, queries: Array, metric: str, *, stored: bool = False) -> Array:
    """The slow way; what is `stored` for cosine is measured as it is, of about unit length."""
    x, q = rows.astype(np.float64), queries.astype(np.float64)
    if metric == "l2":
        return np.array([((x - each) ** 2).sum(axis=1) for each in q])
    if metric == "cosine":
        x = x if stored else x / np.linalg.norm(x, axis=1, keepdims=True)
        q = q / np.linalg.norm(q, axis=1, keepdims=True)
    return 1 - q @ x.T


def made(n: int, dim: int, metric: str, walk_dim: int | None, **options: Any) -> vicinal.Index:
    index = vicinal.Index(dim, metric, M=8, ef_construction=80, walk_dim=walk_dim, **options)
    index.add(data(n, dim))
    return index


def share(found: Array, wanted: Array) -> float:
    return float(
        np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found, wanted, strict=True)])
    )


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
@pytest.mark.parametrize(("walk_dim", "kind"), [(100, "rabitq4"), (48, "sq8")])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_the_nearest_are_found(metric: str, walk_dim: int, kind: str, dtype: str) -> None:
    dim, n = 160, 2500
    index = made(n, dim, metric, walk_dim, dtype=dtype)
    queries = data(80, dim, seed=1)
    assert index.stats()["quantization"] == kind
    assert index.stats()["walk_dim"] == walk_dim
    every = far(index_rows(index), queries, metric, stored=True)
    found = index.search(queries, 10, ef_search=150)
    wanted = np.argsort(every, axis=1, kind="stable")[:, :10]
    assert share(found.ids, wanted) >= 0.95
    # whatever was walked on, distances are those of the whole vectors
    own = np.take_along_axis(every, found.ids, axis=1)
    np.testing.assert_allclose(found.distances, own, rtol=2e-5, atol=2e-6)
    exact = index.search(queries, 10, exact=True)
    np.testing.assert_allclose(
        exact.distances, np.sort(every, axis=1)[:, :10], rtol=2e-3, atol=2e-4
    )


def index_rows(index: vicinal.Index) -> Array:
    rows = index.get(index.ids)
    if rows.dtype == np.uint16:
        rows = (rows.astype(np.uint32) << 16).view(np.float32)
    return rows.astype(np.float32)


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
def test_codes_are_of_the_first_values_alone(metric: str) -> None:
    """Codes are as small as those of so many dimensions, and rows that differ behind them alone
    are told apart by measuring again."""
    dim, n = 256, 1500
    index = made(n, dim, metric, 64)
    short = vicinal.Index(64, metric, quantization="sq8")
    short.add(data(n, dim)[:, :64])
    assert index.memory_usage()["codes"] == short.memory_usage()["codes"]
    rows = data(1200, dim)
    rows[:, :64] = rows[0, :64]
    rows[:, 64:] *= np.float32(3)
    blind = vicinal.Index(dim, metric, walk_dim=64)
    blind.add(rows)
    every = far(rows, rows[:5] * np.float32(1.01), metric)
    found = blind.search(rows[:5] * np.float32(1.01), 3, ef_search=1200)
    np.testing.assert_allclose(found.distances, np.sort(every, axis=1)[:, :3], rtol=1e-3, atol=1e-4)


def test_changes_and_files(tmp_path: Path) -> None:
    index = made(1400, 120, "cosine", 40)
    queries = data(30, 120, seed=1)
    index.remove(range(0, 1400, 4))
    index.add(data(500, 120, seed=2))
    index.check()
    found = index.search(queries, 5)
    path = tmp_path / "a.vicinal"
    index.save(path)
    assert "walk_dim" in sections_of(path.read_bytes())
    for other in (
        vicinal.open(path),
        vicinal.open(path, mode="copy", verify=True),
        pickle.loads(pickle.dumps(index)),
    ):
        assert other.stats()["walk_dim"] == 40
        assert "walk_dim=40" in repr(other)
        again = other.search(queries, 5)
        np.testing.assert_array_equal(again.ids, found.ids)
        np.testing.assert_array_equal(again.distances, found.distances)
    index.compact()
    assert index.stats()["walk_dim"] == 40
    assert index.memory_usage()["codes"] <= 1.3 * len(index) * (64 + 8)
    small = made(20, 120, "l2", 40)  # before there is a graph
    small.save(path)
    grown = vicinal.open(path, mode="copy")
    grown.add(data(1500, 120, seed=3))
    assert (grown.stats()["walk_dim"], grown.stats()["quantization"]) == (40, "sq8")


def test_all_values_are_as_none() -> None:
    index = made(1100, 120, "l2", 120)
    assert index.stats()["walk_dim"] is None
    assert pickle.dumps(index) == pickle.dumps(made(1100, 120, "l2", None))


def test_filters_ranges_and_tuning() -> None:
    index = made(2000, 128, "l2", 48)
    queries = data(40, 128, seed=1)
    every = far(data(2000, 128), queries, "l2")
    mask = np.arange(2000) % 7 == 0
    found = index.search(queries, 5, filter=mask, ef_search=200)
    some = np.where(mask, every, np.inf)
    assert mask[found.ids].all()
    assert share(found.ids, np.argsort(some, axis=1)[:, :5]) >= 0.95
    radius = float(np.quantile(every, 0.01))
    near = index.range_search(queries, radius, ef_search=300)
    hits = [set(near.of(i).ids.tolist()) for i in range(40)]
    truth = [set(np.flatnonzero(row <= radius).tolist()) for row in every]
    assert sum(len(a & b) for a, b in zip(hits, truth, strict=True)) >= 0.9 * sum(map(len, truth))
    assert all(a <= b for a, b in zip(hits, truth, strict=True))
    tuned = index.tune(recall=0.95, k=10)
    assert tuned.recall >= 0.95


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"walk_dim": 0}, ValueError, "walk_dim: expected a whole number from 1 to 16, got 0"),
        ({"walk_dim": 17}, ValueError, "walk_dim: expected a whole number from 1 to 16, got 17"),
        ({"walk_dim": 4.5}, TypeError, "walk_dim: expected a whole number"),
        ({"walk_dim": 4, "dtype": "int8"}, ValueError, "walk_dim: expected None with dtype 'int8'"),
        ({"walk_dim": 4, "quantization": None}, ValueError, "with walk_dim, got None"),
        ({"walk_dim": 4, "quantization": "u8"}, ValueError, "with walk_dim, got 'u8'"),
        (
            {"walk_dim": 8, "dtype": "b1", "metric": "hamming"},
            ValueError,
            "walk_dim: expected None with dtype 'b1'",
        ),
    ],
)
def test_refused(options: dict[str, Any], kind: type[Exception], said: str) -> None:
    with pytest.raises(kind) as caught:
        vicinal.Index(16, **options)
    assert said in str(caught.value)
