"""range_search: against brute force, small and by graph; what it gives back; bad arguments."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import Any

import numpy as np
import pytest

import reference
import vicinal
import vicinal.index
from support.indexes import exact_below

Array = np.ndarray[Any, np.dtype[Any]]

KINDS = [
    (metric, dtype, kind)
    for metric in ("l2", "ip", "cosine")
    for dtype, kinds in {
        "float32": (None, "sq8", "rabitq4"),
        "float16": (None,),
        "bfloat16": ("rabitq4",),
        "int8": ("auto",),
        "uint8": ("auto",),
    }.items()
    for kind in kinds
] + [("l2", "float32", "u8"), ("ip", "float32", "u8")]
DIM = 40


def heaps(n: int, seed: int = 0) -> Array:
    """Return whole numbers from 1 to 100 in 30 heaps, the same heaps for every seed."""
    middles = np.random.default_rng(0).integers(0, 101, size=(30, DIM))
    rng = np.random.default_rng(seed)
    rows = middles[rng.integers(0, 30, size=n)] + rng.integers(-9, 10, size=(n, DIM))
    return np.clip(rows, 1, 100).astype(np.float32)


def stored(rows: Array, dtype: str) -> Array:
    return rows.astype(dtype) if dtype in ("int8", "uint8") else rows


def made(rows: Array, metric: str, dtype: str, kind: Any) -> Any:
    index = vicinal.Index(DIM, metric, dtype=dtype, quantization=kind, M=8, ef_construction=60)
    index.add(stored(rows, dtype))
    return index


def exact(index: Any, queries: Array) -> Array:
    """Return all distances of the rows as the index keeps them, by NumPy in float64."""
    rows, metric = index.get(index.ids), index.metric
    if index.dtype == "bfloat16":
        rows = (rows.astype(np.uint32) << 16).view(np.float32)
    if metric == "cosine" and index.dtype not in ("int8", "uint8"):
        metric = "ip"  # rows are of unit length, up to rounding
        queries = queries / np.sqrt((queries.astype(np.float64) ** 2).sum(axis=1, keepdims=True))
    return reference.distances(rows, queries, metric)


def compare(found: Any, every: Array, radius: float) -> float:
    """Check each part of a result and return which share of all rows within was found."""
    assert found.offsets[0] == 0 and found.offsets[-1] == len(found.ids) == len(found.distances)
    near = wanted = 0
    for i, distances in enumerate(every):
        ids, told = found.of(i)
        slack = 1e-4 * abs(radius) + 1e-4
        assert (distances[ids] <= radius + slack).all() and (told <= np.float32(radius)).all()
        assert len(set(ids)) == len(ids) and (np.diff(told) >= 0).all()
        np.testing.assert_allclose(told, distances[ids], rtol=1e-3, atol=1e-3)
        inside = np.flatnonzero(distances <= radius - slack)
        near += np.isin(inside, ids).sum()
        wanted += len(inside)
    return near / max(wanted, 1)


@pytest.mark.parametrize("share", [0.001, 0.01, 0.08, 0.5, 1.1])
@pytest.mark.parametrize(("metric", "dtype", "kind"), KINDS)
def test_against_brute_force(
    metric: str, dtype: str, kind: Any, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small indexes find all, the graph nearly all.

    For "ip" the nearest are the longest of these rows, few of which lie near each other: a wider
    search finds no more of them.
    """
    queries = stored(heaps(8, seed=1), dtype)
    for below, rows, least in (
        (10**6, heaps(400), 1.0),
        (0, heaps(2500), 0.7 if metric == "ip" else 0.97),
    ):
        exact_below(monkeypatch, below)
        index = made(rows, metric, dtype, kind)
        every = exact(index, queries)
        radius = float(np.quantile(every, min(share, 1))) + (abs(every.max()) if share > 1 else 0)
        found = index.range_search(queries, radius, num_threads=1)
        assert compare(found, every, radius) >= (1.0 if share > 0.2 else least)
        many = index.range_search(queries, radius, num_threads=3)
        for a, b in zip(found, many, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("rows", [300, 3000])
def test_filter(rows: int) -> None:
    index = made(heaps(rows), "l2", "float32", "auto")
    queries = heaps(4, seed=1)
    every = exact(index, queries)
    for share in (0.7, 0.05, 0.001):
        allowed = np.random.default_rng(0).random(rows) < share
        masked = np.where(allowed, every, np.inf)
        for radius in (300.0, 2500.0, np.inf):
            found = index.range_search(queries, radius, filter=allowed)
            assert allowed[found.ids].all()
            finite = np.where(np.isfinite(masked), masked, 1e30)
            within = np.where(finite < 1e30, finite <= radius, False)
            have = sum(len(found.of(i).ids) for i in range(4))
            assert 0.97 * within.sum() <= have <= within.sum()


def test_shapes_and_order() -> None:
    index = vicinal.Index(2)
    index.add([[0, 0], [3, 4], [1, 1], [1, 1]], ids=[9, 7, 5, 3])
    found = index.range_search([0.0, 0.0], 25)
    np.testing.assert_array_equal(found.ids, [9, 5, 3, 7])
    np.testing.assert_array_equal(found.distances, [0, 2, 2, 25])
    np.testing.assert_array_equal(found.offsets, [0, 4])
    assert found.ids.dtype == found.offsets.dtype == np.int64
    assert found.distances.dtype == np.float32
    batch = index.range_search([[0, 0], [50, 50], [3, 4]], 2.0, filter=[None, None, [7]])
    np.testing.assert_array_equal(batch.offsets, [0, 3, 3, 4])
    np.testing.assert_array_equal(batch.of(-1).ids, [7])
    np.testing.assert_array_equal(batch.of(1).ids, [])
    ids, distances, offsets = batch
    assert ids is batch.ids and distances is batch.distances and offsets is batch.offsets
    for wrong in (3, -4):
        with pytest.raises(IndexError, match="expected a query from 0 to 2"):
            batch.of(wrong)
    none = index.range_search(np.empty((0, 2), np.float32), 1.0)
    assert none.offsets.tolist() == [0] and len(none.ids) == 0


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
def test_border_and_extremes(metric: str) -> None:
    index = vicinal.Index(3, metric)
    index.add([[1, 0, 0], [0, 2, 0], [3, 2, 2]])
    query = np.array([1, 0, 0], np.float32)
    order = index.search(query, 3)
    for i, distance in enumerate(order.distances):  # the radius itself is within
        assert index.range_search(query, distance).ids.tolist() == order.ids[: i + 1].tolist()
        below = np.nextafter(distance, np.float32(-np.inf))
        assert index.range_search(query, below).ids.tolist() == order.ids[:i].tolist()
    assert len(index.range_search(query, np.inf).ids) == 3
    assert len(index.range_search(query, 10**400).ids) == 3
    assert len(index.range_search(query, -np.inf).ids) == 0
    if metric != "ip":
        assert len(index.range_search(query, -1e-9).ids) == 0
    assert len(vicinal.Index(3, metric).range_search(query, np.inf).ids) == 0


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"radius": np.nan}, ValueError, "radius: expected a real number, got NaN"),
        ({"radius": "1"}, TypeError, "radius: expected a real number, got '1'"),
        ({"radius": None}, TypeError, "radius: expected a real number, got None"),
        ({"radius": True}, TypeError, "radius: expected a real number, got True"),
        ({"radius": 1j}, TypeError, "radius: expected a real number"),
        ({"radius": 1, "ef_search": 0}, ValueError, "ef_search: expected"),
        ({"radius": 1, "num_threads": 0}, ValueError, "num_threads: expected"),
        ({"radius": 1, "queries": [1.0]}, ValueError, r"queries: expected \(n, 2\)"),
        ({"radius": 1, "queries": [1.0, np.nan]}, ValueError, "queries: row 0 holds NaN"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], says: str) -> None:
    index = vicinal.Index(2)
    index.add([[0, 0]])
    with pytest.raises(error, match=says):
        index.range_search(**{"queries": [0.0, 0.0], **arguments})


@pytest.mark.parametrize("name", ["sift", "minilm", "fashion"])
def test_recall_on_real_data(name: str, request: pytest.FixtureRequest) -> None:
    data = request.getfixturevalue(name)
    index = vicinal.Index(data.base.shape[1], data.metric, dtype=data.base.dtype)
    index.add(data.base)
    every = reference.distances(data.base, data.queries, data.metric)
    for wanted in (1, 10, 100):
        radius = float(np.median(np.sort(every, axis=1)[:, wanted]))
        found = index.range_search(data.queries, radius)
        inside = every <= radius
        hits = sum(inside[i, found.of(i).ids].sum() for i in range(len(every)))
        assert hits >= 0.97 * inside.sum(), wanted


def test_narrow_widths_find_what_searches_of_that_width_find() -> None:
    """A narrow walk may end in another heap: a search for few rows misses them, a radius fewer."""
    rng = np.random.default_rng(3)
    middles = rng.normal(size=(120, 24)).astype(np.float32)
    spread = rng.normal(size=(120, 8, 24)).astype(np.float32)

    def drawn(count: int) -> Array:
        which = rng.integers(0, len(middles), count)
        along = rng.normal(size=(count, 1, 8)).astype(np.float32) * 0.5
        return (middles[which] + (along @ spread[which])[:, 0]).astype(np.float32)

    rows, queries = drawn(12_000), drawn(200)
    index = vicinal.Index(24, M=6, ef_construction=30)
    index.add(rows)
    every = reference.distances(rows, queries, "l2")
    for wanted in (1, 10):
        radius = float(np.median(np.sort(every, axis=1)[:, wanted]))
        inside = [np.flatnonzero(row <= radius * (1 - 1e-5)) for row in every]
        found = index.range_search(queries, radius, ef_search=8)
        lost = missed = 0
        for i, near in enumerate(inside):
            if len(near):
                searched = index.search(queries[i], len(near), ef_search=8)
                lost += len(near) - np.isin(near, found.of(i).ids).sum()
                missed += len(near) - np.isin(near, searched.ids).sum()
        assert lost <= missed and lost < 0.1 * sum(map(len, inside)), (wanted, lost, missed)


def test_memory_error() -> None:
    """A result that does not fit raises, and the index goes on."""
    program = """
        import numpy as np, resource, vicinal
        rows = np.zeros((300_000, 1), np.uint8)
        vicinal.index.EXACT_BELOW = 10**9
        index = vicinal.Index(1, dtype="uint8")
        index.add(rows)
        queries = np.zeros((40, 1), np.uint8)
        index.search(queries)
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (40 << 20),) * 2)
        try:
            index.range_search(queries, 1.0, num_threads=1)
        except MemoryError as error:
            print(error)
        print(len(index.range_search(queries[0], 1.0).ids))
        """
    said = subprocess.check_output([sys.executable, "-c", textwrap.dedent(program)], text=True)
    assert said.splitlines() == ["no memory for the rows within the radius", "300000"]
