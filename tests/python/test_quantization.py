"""What the graph is walked on: each kind of codes against stored rows and exact search; "auto"."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import reference
import vicinal
import vicinal.index
from support.indexes import assert_same, exact_below

pytestmark = pytest.mark.usefixtures("always_a_graph")

Array = np.ndarray[Any, np.dtype[Any]]

METRICS = ("l2", "ip", "cosine")
FLOATS = ("float32", "float16", "bfloat16")
INTEGERS = ("int8", "uint8")
DIMS = (1, 63, 64, 65, 127, 128, 129, 223, 1000)
ESTIMATES = ("sq8", "rabitq4")


def kinds_of(metric: str, dtype: str) -> tuple[str | None, ...]:
    """Return all that may be asked for."""
    exact = () if metric == "cosine" else ("u8",)
    return (None, *exact) if dtype in INTEGERS else (None, *exact, *ESTIMATES)


def made(rows: Array, metric: str = "l2", kind: str | None = "auto", **options: Any) -> Any:
    options = {"ef_construction": 60, **options}
    index = vicinal.Index(rows.shape[1], metric, quantization=kind, **options)
    index.add(rows)
    return index


def whole(n: int, dim: int, low: int, high: int, seed: int = 0) -> Array:
    """Return whole numbers in 60 heaps, the same for every seed: all have near neighbours."""
    heaps = np.random.default_rng(0).integers(low, high + 1, size=(60, dim))
    rng = np.random.default_rng(seed)
    spread = max((high - low) // 20, 1)
    rows = heaps[rng.integers(0, 60, size=n)] + rng.integers(-spread, spread + 1, size=(n, dim))
    return np.clip(rows, low, high)


def recall(found: Any, wanted: Any) -> float:
    """Return the share of wanted neighbours that were found; equal distances count."""
    bound = wanted.distances[:, -1:]
    return float((found.distances <= bound + 1e-5 * np.abs(bound)).mean())


# ---- "u8": the same results as without codes, and the true ones


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("dtype", FLOATS + INTEGERS)
@pytest.mark.parametrize("metric", ["l2", "ip"])
def test_exact_codes_equal_stored_rows(metric: str, dtype: str, dim: int) -> None:
    # for floats no larger than that sums in float32 stay exact
    limits = {"int8": (-128, 127), "uint8": (0, 255)}.get(dtype, (0, 100))
    rows, queries = whole(700, dim, *limits), whole(60, dim, *limits, seed=1)
    codes, plain = (made(rows, metric, kind, dtype=dtype, M=8) for kind in ("u8", None))
    assert codes.stats()["quantization"] == "u8" and plain.stats()["quantization"] is None
    found = codes.search(queries, 5, ef_search=40)
    assert_same(found, plain.search(queries, 5, ef_search=40))
    every = reference.distances(rows, queries, metric).astype(np.float32)
    np.testing.assert_array_equal(found.distances, np.take_along_axis(every, found.ids, axis=1))
    nearest = np.sort(every, axis=1)[:, :5]
    assert (found.distances == nearest).mean() > (0.9 if metric == "l2" else 0.85)


@pytest.mark.parametrize("metric", ["l2", "ip"])
def test_exact_codes_are_exact_beyond_float32(metric: str) -> None:
    """Sums above 2**24 are rounded once, where float32 sums would be off by several units."""
    rows, queries = whole(500, 2500, 100, 255), whole(30, 2500, 0, 155, seed=1)
    found = made(rows, metric, "u8", M=8).search(queries, 5, ef_search=40)
    every = reference.distances(rows, queries, metric).astype(np.float32)
    assert np.abs(every).max() > 2**24
    np.testing.assert_array_equal(found.distances, np.take_along_axis(every, found.ids, axis=1))


@pytest.mark.parametrize("name", ["sift", "fashion"])
def test_exact_codes_on_real_vectors(name: str, request: pytest.FixtureRequest) -> None:
    data = request.getfixturevalue(name)
    ways = [("uint8", "auto"), ("float32", "auto"), ("float16", "u8"), ("uint8", None)]
    found = [
        made(data.base, kind=kind, dtype=dtype).search(data.queries, 20, ef_search=50)
        for dtype, kind in ways
    ]
    for other in found[1:]:
        assert_same(other, found[0])
    true = ((data.base[found[0].ids].astype(int) - data.queries[:, None].astype(int)) ** 2).sum(2)
    np.testing.assert_array_equal(found[0].distances, true.astype(np.float32))


QUERIES = {
    "fractions": lambda q: q + 0.5,
    "between 0 and 1": lambda q: q / 255,
    "unit length": lambda q: (q - 100) / np.linalg.norm(q - 100, axis=1, keepdims=True),
    "negative": lambda q: q - 300.0,
    "far outside": lambda q: q * 1e4,
    "one element": lambda q: q + np.eye(len(q), q.shape[1]) * 0.25,
}


@pytest.mark.parametrize("metric", ["l2", "ip"])
@pytest.mark.parametrize("name", QUERIES)
def test_queries_that_are_not_bytes(name: str, metric: str) -> None:
    """Such a query finds what it finds without codes, alone and beside others."""
    rows = whole(1500, 40, 0, 3 if name == "between 0 and 1" else 255)
    queries = QUERIES[name](whole(60, 40, 0, 255, seed=1)).astype(np.float32)
    queries[::7] = whole(len(queries[::7]), 40, 0, 255, seed=2)
    index = made(rows, metric)
    assert index.stats()["quantization"] == "u8"
    exact = vicinal.exact_search(rows.astype(np.float32), queries, 10, metric=metric)
    found = index.search(queries, 10)
    plain = made(rows, metric, None).search(queries, 10)
    assert recall(found, exact) >= recall(plain, exact) - 0.005
    true = reference.distances(rows, queries, metric)
    true = np.take_along_axis(true, found.ids, axis=1)
    np.testing.assert_allclose(found.distances, true, rtol=1e-5, atol=1e-5 * np.abs(true).max())
    for i in range(10):
        one = index.search(queries[i], 10)
        np.testing.assert_array_equal(one.ids, found.ids[i])
        np.testing.assert_array_equal(one.distances, found.distances[i])


# ---- the rule of "auto"

INTEGER, WHOLE, FRACTIONS = "8-bit integers", "whole, 0 to 255", "other floats"
LOSSLESS = "all values are whole numbers from 0 to 255, or stored as 8-bit integers"
NOTHING = "there are no exact codes for cosine"
RULE = [
    # metrics, dtypes, values, dimensions, kind, beginning of the reason
    (("l2", "ip"), INTEGERS, INTEGER, (1, 16, 200), "u8", LOSSLESS),
    (("cosine",), INTEGERS, INTEGER, (1, 16, 200), None, NOTHING),
    (("l2", "ip"), FLOATS, WHOLE, (1, 16, 200), "u8", LOSSLESS),
    (("cosine",), FLOATS, WHOLE, (95,), "sq8", "floats of dimension 95"),
    (METRICS, FLOATS, FRACTIONS, (96, 200), "rabitq4", "floats of dimension "),
    (METRICS, FLOATS, FRACTIONS, (32, 95), "sq8", "floats of dimension "),
    (METRICS, FLOATS, FRACTIONS, (1, 31), None, "floats of dimension "),
]
RULES = [
    (metric, dtype, values, dim, kind, reason)
    for metrics, dtypes, values, dims, kind, reason in RULE
    for metric in metrics
    for dtype in dtypes
    for dim in dims
]


@pytest.mark.parametrize(("metric", "dtype", "values", "dim", "kind", "reason"), RULES)
def test_auto(metric: str, dtype: str, values: str, dim: int, kind: Any, reason: str) -> None:
    rows = whole(40, dim, 1, 100).astype(np.float32)
    if values == WHOLE:
        rows[3] = 255
        rows[4, -1] = 0 if dim > 1 else 1
    if values == FRACTIONS:
        rows[39, -1] = 0.5  # one value is enough
    index = vicinal.Index(dim, metric, dtype=dtype)
    assert index.stats()["quantization"] is None
    assert index.stats()["quantization_reason"] == "there is no graph yet"
    index.add(rows)
    stats = index.stats()
    assert stats["quantization"] == kind
    assert stats["quantization_reason"].startswith(reason)
    assert_same(pickle.loads(pickle.dumps(index)).search(rows, 3), index.search(rows, 3))


@pytest.mark.parametrize("value", [256, -1, 1e9, 0.5, 254.99998, -0.25])
def test_auto_looks_at_every_value(value: float) -> None:
    rows = whole(40, 33, 0, 255).astype(np.float32)
    rows[:, 7] = -0.0  # is 0
    assert made(rows).stats()["quantization"] == "u8"
    rows[29, 31] = value
    index = made(rows)
    assert index.stats()["quantization"] == "sq8"  # also where one row is very far from the others
    assert index.get(29)[31] == np.float32(value)


def test_auto_decides_when_the_graph_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    exact_below(monkeypatch, 50)
    rows = whole(80, 40, 0, 255).astype(np.float32)
    for first in (rows[:49] + 0.5, rows[:49]):
        index = vicinal.Index(40)
        index.add(first)
        assert index.stats()["quantization_reason"] == "there is no graph yet"
        assert index.memory_usage()["codes"] == 0
        index.add(rows[49:])
        assert index.stats()["quantization"] == ("u8" if first[0, 0] % 1 == 0 else "sq8")


@pytest.mark.parametrize("dtype", FLOATS + INTEGERS)
@pytest.mark.parametrize("metric", METRICS)
def test_what_was_asked_for(metric: str, dtype: str) -> None:
    rows = whole(40, 8, 1, 100)
    for kind in kinds_of(metric, dtype):
        stats = made(rows, metric, kind, dtype=dtype).stats()
        assert (stats["quantization"], stats["quantization_reason"]) == (kind, "asked for")


@pytest.mark.parametrize("dim", DIMS)
def test_memory_of_codes(dim: int, tmp_path: Path) -> None:
    lines = -(-dim // 64)
    sizes = {"sq8": 64 * lines, "rabitq4": 64 * -(-lines // 2), "u8": 64 * lines, None: 0}
    rows = whole(300, dim, 1, 100)
    for dtype in ("float32", "uint8"):
        for kind in kinds_of("l2", dtype):
            in_place = dtype == "uint8" and dim >= 64  # the stored rows are the codes
            wanted = 300 * ((0 if in_place else sizes[kind]) + (8 if kind else 0))
            index = made(rows, "l2", kind, dtype=dtype, M=4, ef_construction=10)
            usage = index.memory_usage()
            assert wanted <= usage["codes"] < wanted + 2 * 65536 + wanted // 2
            assert usage["total"] == sum(list(usage.values())[: list(usage).index("total")])
            # a file has no room to grow
            index.save(tmp_path / "index")
            assert vicinal.open(tmp_path / "index").memory_usage()["codes"] == wanted


# ---- recall and equality of all ways to ask


REAL = [
    (name, metric, kind)
    for name in ("minilm", "fashion", "sift")
    for metric in METRICS
    for kind in kinds_of(metric, "float32")[1:]
    if kind != "u8" or name != "minilm"  # whose values are fractions
]


@pytest.mark.parametrize(("name", "metric", "kind"), REAL)
def test_recall_is_that_of_the_stored_rows(
    name: str, metric: str, kind: str, request: pytest.FixtureRequest
) -> None:
    data = request.getfixturevalue(name)
    base, queries = data.base.astype(np.float32), data.queries.astype(np.float32)
    truth = vicinal.exact_search(base, queries, 10, metric=metric)
    plain, codes = (
        recall(made(base, metric, way, ef_construction=200).search(queries, 10), truth)
        for way in (None, kind)
    )
    # of 200 queries; where distances are not of a metric, graphs are poor and few rows decide
    assert codes >= plain - (0.015 if metric == "ip" else 0.005)


COMBINATIONS = [
    (metric, dtype, kind)
    for metric in METRICS
    for dtype in FLOATS + INTEGERS
    for kind in kinds_of(metric, dtype)
]


@pytest.mark.parametrize(("metric", "dtype", "kind"), COMBINATIONS)
def test_every_metric_and_dtype(metric: str, dtype: str, kind: Any) -> None:
    """One query, a batch, any number of threads: the same; near to all of the true neighbours."""
    rows, queries = whole(1200, 72, 1, 100), whole(70, 72, 1, 100, seed=1)
    index = made(rows, metric, kind, dtype=dtype)
    batch = index.search(queries, 7, ef_search=100, num_threads=1)
    for threads in (2, 3, None):
        assert_same(index.search(queries, 7, ef_search=100, num_threads=threads), batch)
    for i in range(0, 70, 3):
        one = index.search(queries[i], 7, ef_search=100)
        np.testing.assert_array_equal(one.ids, batch.ids[i])
        np.testing.assert_array_equal(one.distances, batch.distances[i])
    formula, kept = metric, index.get(index.ids)
    if dtype == "bfloat16":
        kept = (kept.astype(np.uint32) << 16).view(np.float32)
    if metric == "cosine" and dtype in FLOATS:  # stored at unit length, and then rounded
        queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
        formula = "ip"
    nearest = vicinal.SearchResult(*reference.nearest(kept, queries, 7, formula))
    assert recall(batch, nearest) > 0.9
    true = np.take_along_axis(reference.distances(kept, queries, formula), batch.ids, axis=1)
    true = true if metric != "cosine" else np.maximum(true, 0)
    np.testing.assert_allclose(batch.distances, true, rtol=1e-5, atol=1e-5)
    index.check()


@pytest.mark.parametrize("kind", ESTIMATES)
@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_scale_of_the_values(kind: str, scale: float) -> None:
    rows = np.random.default_rng(4).normal(size=(1060, 64)) * scale
    index = made(rows[:1000], "l2", kind)
    truth = vicinal.exact_search(rows[:1000].astype(np.float32), rows[1000:].astype(np.float32), 10)
    assert recall(index.search(rows[1000:], 10, ef_search=100), truth) > 0.97


@pytest.mark.parametrize("scale", [1e-3, 1, 1e3])
@pytest.mark.parametrize("offset", [0, 1, 100])
@pytest.mark.parametrize("kind", ESTIMATES)
def test_inner_products_with_queries_unlike_the_rows(
    kind: str, offset: float, scale: float
) -> None:
    """The order of the rows does not depend on the length of a query, nor may what is found."""
    rng = np.random.default_rng(5)
    rows = (rng.normal(size=(1200, 64)) + offset).astype(np.float32)
    queries = (scale * rng.normal(size=(50, 64))).astype(np.float32)
    truth = vicinal.exact_search(rows, queries, 10, metric="ip")
    indexes = [made(rows, "ip", way, M=32, ef_construction=200) for way in (None, kind)]
    plain, codes = (recall(each.search(queries, 10, ef_search=140), truth) for each in indexes)
    assert codes >= plain - 0.02


# ---- saved, opened, pickled


@pytest.mark.parametrize("way", ["r", "copy", "pickle", "copy.copy"])
@pytest.mark.parametrize(("metric", "dtype", "kind"), COMBINATIONS)
def test_saved_and_opened(metric: str, dtype: str, kind: Any, way: str, tmp_path: Path) -> None:
    rows, queries = whole(500, 70, 1, 100), whole(20, 70, 1, 100, seed=1)
    index = made(rows[:450], metric, kind, dtype=dtype, M=8, ef_construction=30)
    if way in ("r", "copy"):
        index.save(tmp_path / "index")
        other = vicinal.open(tmp_path / "index", mode=way, verify=True)
    else:
        other = pickle.loads(pickle.dumps(index)) if way == "pickle" else copy.copy(index)
    told = {**index.stats(), "read_only": way == "r"}
    assert other.stats() == told and told["quantization"] == kind
    assert_same(other.search(queries, 9, ef_search=40), index.search(queries, 9, ef_search=40))
    other.check()
    if way == "r":
        return
    for each in (index, other):
        each.add(rows[450:])
    assert other.stats()["quantization"] == kind
    assert_same(other.search(queries, 9, ef_search=40), index.search(queries, 9, ef_search=40))
    other.save(tmp_path / "other")
    index.save(tmp_path / "index")
    assert (tmp_path / "other").read_bytes() == (tmp_path / "index").read_bytes()
