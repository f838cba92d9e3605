"""search(filter=...): against brute force over the allowed rows, by every way of finding them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import reference
import vicinal
import vicinal.index
from support.indexes import exact_below
from vicinal._cpu import native
from vicinal._filters import as_filters

Array = np.ndarray[Any, np.dtype[Any]]

KINDS = [
    (metric, dtype, kind)
    for metric in ("l2", "ip", "cosine")
    for dtype, kinds in {
        "float32": (None, "sq8", "rabitq4"),
        "float16": (None, "rabitq4"),
        "bfloat16": ("sq8",),
        "int8": ("auto",),
        "uint8": ("auto",),
    }.items()
    for kind in kinds
] + [("l2", "float32", "u8"), ("ip", "float32", "u8")]
PLANS = {"scan": 1, "beam": 2, "two_hop": 3, "walk": 4}
DIM = 40


def heaps(n: int, dim: int = DIM, seed: int = 0) -> Array:
    """Return whole numbers from 0 to 100 in 30 heaps, the same heaps for every seed."""
    middles = np.random.default_rng(0).integers(0, 101, size=(30, dim))
    rng = np.random.default_rng(seed)
    rows = middles[rng.integers(0, 30, size=n)] + rng.integers(-9, 10, size=(n, dim))
    return np.clip(rows, 1, 100).astype(np.float32)


def stored(rows: Array, dtype: str) -> Array:
    return rows if dtype in ("float32", "float16", "bfloat16") else rows.astype(dtype)


def made(rows: Array, metric: str = "l2", dtype: str = "float32", kind: Any = "auto") -> Any:
    index = vicinal.Index(
        rows.shape[1], metric, dtype=dtype, quantization=kind, M=8, ef_construction=60
    )
    index.add(stored(rows, dtype))
    return index


def kept(index: Any) -> Array:
    """Return the rows as the index has rounded them."""
    rows = index.get(index.ids)
    if index.dtype == "bfloat16":
        rows = (rows.astype(np.uint32) << 16).view(np.float32)
    return rows


def by_plan(index: Any, queries: Array, k: int, ef: int, given: Any, plan: str) -> Any:
    """Search by one way of finding the allowed rows wherever it is possible."""
    n = len(queries)
    ids, distances = np.empty((n, k), np.int64), np.empty((n, k), np.float32)
    filters = as_filters(given, len(index), n, index._to_internal)
    status = native.index_search_filtered(
        index._handle, queries, k, ef, 1, *filters, PLANS[plan], ids, distances
    )
    assert status == 0
    return vicinal.SearchResult(ids, distances)


def truth(rows: Array, queries: Array, metric: str, allowed: Array, k: int) -> Array:
    """Return the distances of the k nearest allowed rows, by NumPy in float64.

    Rows of float dtypes are of unit length for cosine, up to the rounding of their dtype.
    """
    if metric == "cosine" and rows.dtype.kind == "f":
        lengths = np.sqrt((queries.astype(np.float64) ** 2).sum(axis=1, keepdims=True))
        metric, queries = "ip", queries / lengths
    every = reference.distances(rows, queries, metric)[:, allowed]
    return np.sort(every, axis=1)[:, :k]


def share_found(found: Any, wanted: Array) -> float:
    """Return the share of results that are as near as the wanted ones."""
    bound = wanted[:, -1:]
    return float((found.distances <= bound + 1e-2 * np.abs(bound) + 1e-5).mean())


def assert_allowed(found: Any, allowed: Array, k: int) -> None:
    """Assert min(k, allowed rows) different rows, all of them allowed, nearest first."""
    many = min(k, int(allowed.sum()))
    for ids, distances in zip(found.ids, found.distances, strict=True):
        assert allowed[ids[:many]].all() and len(set(ids[:many])) == many
        assert (ids[many:] == -1).all() and np.isinf(distances[many:]).all()
        assert (np.diff(distances[:many]) >= 0).all()


def same(a: Any, b: Any) -> None:
    np.testing.assert_array_equal(a.ids, b.ids)
    np.testing.assert_array_equal(a.distances, b.distances)


# ---- every kind of index, every way


@pytest.mark.parametrize("share", [0.5, 0.1, 0.01, 0.0])
@pytest.mark.parametrize(("metric", "dtype", "kind"), KINDS)
@pytest.mark.usefixtures("always_a_graph")
def test_against_brute_force(metric: str, dtype: str, kind: Any, share: float) -> None:
    rows, queries = heaps(2000), heaps(20, seed=1)
    index = made(rows, metric, dtype, kind)
    queries = stored(queries, dtype)
    allowed = np.random.default_rng(3).random(2000) < share
    wanted = truth(kept(index), queries, metric, allowed, 10)
    found = index.search(queries, 10, filter=allowed)
    assert_allowed(found, allowed, 10)
    if wanted.shape[1] == 10:
        assert share_found(found, wanted) >= 0.95
    for plan in PLANS:
        found = by_plan(index, queries, 10, 100, allowed, plan)
        assert_allowed(found, allowed, 10)
        if wanted.shape[1] == 10:
            assert share_found(found, wanted) >= (0.99 if plan == "scan" else 0.85), plan


@pytest.mark.parametrize(
    ("metric", "dtype"), [("l2", "float32"), ("cosine", "int8"), ("ip", "uint8")]
)
def test_small_indexes_are_exact(metric: str, dtype: str) -> None:
    rows, queries = heaps(300), heaps(9, seed=1)
    index = made(rows, metric, dtype)
    queries = stored(queries, dtype)
    allowed = np.arange(300) % 3 == 0
    found = index.search(queries, 120, filter=allowed)
    assert_allowed(found, allowed, 120)
    np.testing.assert_allclose(
        found.distances[:, :100],
        truth(kept(index), queries, metric, allowed, 120),
        rtol=1e-4,
        atol=1e-5,
    )
    assert index.stats()["filtered"]["scan"] == 9


@pytest.mark.usefixtures("always_a_graph")
@pytest.mark.parametrize("kind", [None, "sq8", "rabitq4"])
def test_filter_against_the_query(kind: Any) -> None:
    """Only the rows farthest from each query are allowed."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((6000, 96)).astype(np.float32)
    queries = rng.standard_normal((10, 96)).astype(np.float32)
    index = made(rows, kind=kind)
    every = reference.distances(rows, queries, "l2")
    for share in (0.5, 0.2, 0.05, 0.01):
        masks = [far >= np.quantile(far, 1 - share) for far in every]
        found = index.search(queries, 10, ef_search=32, filter=masks)
        wanted = np.sort(np.where(masks, every, np.inf), axis=1)[:, :10]
        close = found.distances <= wanted[:, -1:] * (1 + 1e-5)
        assert close.mean() >= 0.98, share


@pytest.mark.usefixtures("always_a_graph")
def test_ways_are_counted() -> None:
    rows, queries = heaps(4000), heaps(7, seed=1)
    index = made(rows, kind=None)
    allowed = np.random.default_rng(0).random(4000) < 0.3
    for count, plan in enumerate(("scan", "beam", "two_hop"), 1):
        by_plan(index, queries, 5, 40, allowed, plan)
        told = index.stats()["filtered"]
        assert told["scan"] + told["beam"] + told["two_hop"] == 7 * count
        assert told[plan] == 7
    index.search(queries)
    assert sum(index.stats()["filtered"].values()) == 21


@pytest.mark.usefixtures("always_a_graph")
def test_walk_that_finds_too_little_ends_in_a_scan() -> None:
    """Half of the rows are allowed, but none near the query."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((5000, 16)).astype(np.float32)
    query = rows[:1]
    index = made(rows, kind=None)
    every = reference.distances(rows, query, "l2")
    allowed = every[0] >= np.median(every)
    found = by_plan(index, query, 20, 20, allowed, "walk")
    np.testing.assert_allclose(found.distances, truth(rows, query, "l2", allowed, 20), rtol=1e-5)
    told = index.stats()["filtered"]
    assert told == {"scan": 1, "beam": 0, "two_hop": 0, "scan_after_walk": 1}
    # with all rows allowed instead there is nothing to be careful about
    by_plan(index, query, 20, 20, np.ones(5000, bool), "walk")
    assert index.stats()["filtered"]["beam"] == 1


# ---- what a filter may be


@pytest.fixture(scope="module")
def plain() -> Any:
    rows = heaps(1500)
    index = vicinal.Index(DIM)
    index.add(rows, ids=np.arange(1500) * 7 - 100)
    return index


def test_booleans_and_ids_agree(plain: Any) -> None:
    queries = heaps(12, seed=2)
    allowed = np.random.default_rng(1).random(1500) < 0.4
    ids = plain.ids[allowed]
    found = plain.search(queries, filter=allowed)
    shuffled = np.random.default_rng(2).permutation(np.concatenate([ids, ids[:50], [1, 2, -5]]))
    for given in (ids, shuffled, shuffled.tolist(), ids.astype(np.int32), allowed.tolist()):
        same(plain.search(queries, filter=given), found)
    strided = np.zeros((1500, 2), dtype=bool)
    strided[:, 1] = allowed
    same(plain.search(queries, filter=strided[:, 1]), found)
    # bytes other than 0 and 1 behind a boolean view
    same(plain.search(queries, filter=(allowed * np.uint8(2)).view(bool)), found)


def test_one_filter_for_each_query(plain: Any) -> None:
    queries = heaps(5, seed=2)
    few, half = np.array([5, 12, -100]), np.arange(1500) % 2 == 0
    given = [few, None, half, half, [12]]
    found = plain.search(queries, 4, filter=given)
    for i, each in enumerate(given):
        alone = plain.search(queries[i], 4, filter=each)
        np.testing.assert_array_equal(found.ids[i], alone.ids)
        np.testing.assert_array_equal(found.distances[i], alone.distances)
    same(plain.search(queries, 4, filter=tuple(given)), found)
    same(plain.search(queries, 4, filter=[None] * 5), plain.search(queries, 4))


@pytest.mark.parametrize("nothing", [np.zeros(1500, bool), [], np.array([], dtype=int), [10**9]])
def test_filter_that_allows_nothing(plain: Any, nothing: Any) -> None:
    found = plain.search(heaps(3, seed=4), 4, filter=nothing)
    assert (found.ids == -1).all() and np.isinf(found.distances).all()
    assert len(plain.range_search(heaps(1)[0], np.inf, filter=nothing).ids) == 0


def test_filter_that_allows_everything(plain: Any) -> None:
    queries = heaps(8, seed=5)
    same(plain.search(queries, filter=np.ones(1500, bool)), plain.search(queries, ef_search=1500))


def test_threads_and_single_queries_give_the_same(plain: Any) -> None:
    queries = heaps(150, seed=6)
    allowed = np.random.default_rng(5).random(1500) < 0.6
    found = plain.search(queries, 7, filter=allowed, num_threads=1)
    same(plain.search(queries, 7, filter=allowed, num_threads=3), found)
    for i in (0, 31, 149):
        np.testing.assert_array_equal(plain.search(queries[i], 7, filter=allowed).ids, found.ids[i])


@pytest.mark.parametrize("kind", [None, "auto"])
def test_walks_side_by_side_find_what_each_finds_alone(kind: Any) -> None:
    """On an index too large for a core's cache, with all sorts of filters among each other."""
    rng = np.random.default_rng(5)
    rows = heaps(26_000, 32) + rng.random((26_000, 32), dtype=np.float32)
    index = vicinal.Index(32, quantization=kind, M=16, ef_construction=40)
    index.add(rows)
    masks = [rng.random(len(rows)) < share for share in (0.5, 0.2, 0.9, 0.003, 0.1)]
    near = rows[:, 0] < np.quantile(rows[:, 0], 0.3)
    filters = [None, *masks, near, ~near, index.filter(near)]
    queries = rows[rng.integers(0, len(rows), 60)] + np.float32(0.3)
    asked = [filters[i] for i in rng.integers(0, len(filters), len(queries))]
    together = index.search(queries, k=7, ef_search=30, filter=asked, num_threads=1)
    for i, query in enumerate(queries):
        alone = index.search(query, k=7, ef_search=30, filter=asked[i])
        np.testing.assert_array_equal(together.ids[i], alone.ids)
        np.testing.assert_array_equal(together.distances[i], alone.distances)
    counted = index.stats()["filtered"]
    assert counted["beam"] > 20 and counted["scan"] > 5, counted


def test_empty_index_and_no_queries(plain: Any) -> None:
    empty = vicinal.Index(3)
    assert (empty.search([1, 2, 3], 2, filter=[7]).ids == -1).all()
    assert (empty.search([1, 2, 3], 2, filter=np.zeros(0, bool)).ids == -1).all()
    assert plain.search(np.empty((0, DIM), np.float32), 2, filter=[5]).ids.shape == (0, 2)
    assert plain.search(np.empty((0, DIM), np.float32), 2, filter=[]).ids.shape == (0, 2)


def test_more_wanted_than_allowed(plain: Any) -> None:
    allowed = np.arange(1500) < 40
    found = plain.search(heaps(3), 100, filter=allowed)
    assert ((found.ids >= -100).sum(axis=1) == 100).all()
    assert ((found.ids != -1).sum(axis=1) == 40).all()


@pytest.mark.parametrize(
    ("bad", "error", "says"),
    [
        (np.ones(5, bool), ValueError, r"expected booleans of shape \(1500,\).*got 5 booleans"),
        (np.ones(1500), TypeError, "expected integers, got dtype float64"),
        (np.array(["a"]), TypeError, "expected integers, got dtype <U1"),
        (np.ones((2, 1500), bool), ValueError, r"got shape \(2, 1500\)"),
        ([None, None], ValueError, "each of 3 queries, got 2"),
        ([None, None, [1.5]], TypeError, "item 2.*got 1.5"),
        ([None, np.ones(3, bool), None], ValueError, "item 1.*got 3 booleans"),
        ("abc", TypeError, "got str"),
        (7, TypeError, "got int"),
        (np.int64(7), TypeError, "got int64"),
        ({1, 2}, TypeError, "got a set"),
        ([2**63], ValueError, "-2\\*\\*63"),
        (np.ma.array([1, 2]), TypeError, "masked"),
    ],
)
def test_bad_filters(plain: Any, bad: Any, error: type[Exception], says: str) -> None:
    for call in (
        lambda: plain.search(heaps(3), filter=bad),
        lambda: plain.range_search(heaps(3), 1.0, filter=bad),
    ):
        with pytest.raises(error, match=f"^filter: .*{says}|^filter: {says}"):
            call()


def test_bad_queries_are_named(plain: Any) -> None:
    queries = heaps(3)
    queries[1, 2] = np.nan
    with pytest.raises(ValueError, match="queries: row 1 holds NaN"):
        plain.search(queries, filter=[5])


def test_string_ids() -> None:
    index = vicinal.Index(2, ids="str")
    index.add([[0, 0], [1, 1], [2, 2], [3, 3]], ids=["a", "b", "c", "d"])
    found = index.search([[0, 0], [3, 3]], 3, filter=[["c", "x", "b"], np.arange(4) == 0])
    assert found.ids.tolist() == [["b", "c", None], ["a", None, None]]
    within = index.range_search([[0, 0], [3, 3]], 8, filter=["d", "c", "x"])
    assert within.ids.tolist() == ["c", "d", "c"] and within.offsets.tolist() == [0, 1, 3]
    for bad in ([1, 2], np.array([1])):
        with pytest.raises(TypeError, match="filter: expected strings"):
            index.search([0, 0], filter=bad)


# ---- beside a writer


def test_beside_add(monkeypatch: pytest.MonkeyPatch) -> None:
    exact_below(monkeypatch, 100)
    rows = heaps(3000)
    index = made(rows[:500])
    odd = np.arange(1, 6000, 2)
    failures: list[BaseException] = []
    done = threading.Event()

    def search() -> None:
        try:
            while not done.is_set():
                found = index.search(rows[:4], 10, filter=odd)
                assert (found.ids % 2 == 1).all()
                within = index.range_search(rows[0], 500.0, filter=odd)
                assert (within.ids % 2 == 1).all() and (within.distances <= 500).all()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=search) for _ in range(2)]
    for thread in threads:
        thread.start()
    for start in range(500, 3000, 250):
        index.add(rows[start : start + 250])
    done.set()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]


# ---- real data


@pytest.mark.parametrize("name", ["sift", "minilm"])
@pytest.mark.parametrize("share", [0.5, 0.2, 0.05, 0.01])
def test_recall_on_real_data(
    name: str, share: float, request: pytest.FixtureRequest, recall: Callable[[Any, Any], float]
) -> None:
    """At the width that gives 0.95 without a filter there is no less with one."""
    data = request.getfixturevalue(name)
    index = vicinal.Index(data.base.shape[1], data.metric, dtype=data.base.dtype)
    index.add(data.base)
    ef = next(
        ef
        for ef in range(10, 400, 4)
        if recall(index.search(data.queries, 10, ef_search=ef), data) >= 0.95
    )
    every = reference.distances(data.base, data.queries, data.metric)
    rng = np.random.default_rng(0)
    labels = reference.distances(data.base[::97], data.base, data.metric).argmin(axis=1)
    order = rng.permutation(labels.max() + 1)[labels].argsort(kind="stable")
    clustered = np.zeros(len(data.base), bool)
    clustered[order[: int(share * len(order))]] = True
    for masks in (
        [rng.random(len(data.base)) < share] * len(every),
        [clustered] * len(every),
        [far >= np.quantile(far, 1 - share) for far in every],
    ):
        found = index.search(data.queries, 10, ef_search=ef, filter=masks)
        wanted = np.sort(np.where(masks, every, np.inf), axis=1)[:, 9:10]
        assert (found.distances <= wanted + 1e-5 * np.abs(wanted) + 1e-6).mean() >= 0.94


@pytest.mark.usefixtures("always_a_graph")
@pytest.mark.parametrize("kind", [None, "rabitq4"])
def test_copies(kind: Any) -> None:
    """Rows that equal earlier ones, which alone are in the graph: each may be allowed or not."""
    distinct = heaps(1200)
    which = np.random.default_rng(0).integers(0, 1200, size=4000)
    which[:1200] = np.arange(1200)
    which[3000:3900] = 7  # a long ring
    rows, queries = distinct[which], heaps(12, seed=1)
    queries[0] = distinct[7]
    index = made(rows, kind=kind)
    every = reference.distances(rows, queries, "l2")
    for allowed in (
        np.random.default_rng(1).random(4000) < 0.5,
        np.arange(4000) >= 1200,  # copies alone
        np.arange(4000) < 1200,  # originals alone
        np.arange(4000) == 3500,
    ):
        wanted = np.sort(every[:, allowed], axis=1)[:, :10]
        for plan in ("scan", "beam", "two_hop", "walk"):
            found = by_plan(index, queries, 10, 200, allowed, plan)
            assert_allowed(found, allowed, 10)
            if wanted.shape[1] == 10:
                assert share_found(found, wanted) >= 0.95, plan
        radius = float(np.median(np.sort(every, axis=1)[:, 300]))
        within = index.range_search(queries, radius, filter=allowed)
        for i in range(len(queries)):
            ids = within.of(i).ids
            assert allowed[ids].all() and len(set(ids)) == len(ids)
        inside = int(((every <= radius) & allowed).sum())
        assert 0.97 * inside <= len(within.ids) <= inside
