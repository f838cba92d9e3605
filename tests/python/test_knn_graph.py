"""The neighbours of every row are those that all pairs give, and never the row itself."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest

from vicinal import knn_graph

# `vicinal.knn_graph` is the function.
MODULE = importlib.import_module("vicinal.knn_graph")

RNG_ROWS = np.random.default_rng(11).standard_normal((300, 12)).astype(np.float32)


def by_hand(rows: Any, k: int, metric: str) -> tuple[Any, Any]:
    """All pairs in float64, equal distances in order of rows."""
    rows = np.asarray(rows, np.float64)
    dots = rows @ rows.T
    if metric == "ip":
        pairs = 1 - dots
    elif metric == "cosine":
        length = np.sqrt(np.diag(dots))
        pairs = 1 - dots / np.outer(length, length)
    else:
        pairs = ((rows[:, None] - rows[None]) ** 2).sum(-1)
    if metric == "euclidean":
        pairs = np.sqrt(pairs)
    others = pairs.copy()
    np.fill_diagonal(others, np.inf)
    order = np.argsort(others, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(others, order, axis=1)


@pytest.fixture
def by_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """Search by index however few rows there are; itself exact below 1,000."""
    monkeypatch.setattr(MODULE, "EXACT_BELOW", 0)


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine", "euclidean"])
def test_small_arrays_are_exact(metric: str) -> None:
    indices, distances = knn_graph(RNG_ROWS, 7, metric)
    wanted, far = by_hand(RNG_ROWS, 7, metric)
    assert indices.dtype == np.int64 and distances.dtype == np.float32
    np.testing.assert_array_equal(indices, wanted)
    np.testing.assert_allclose(distances, far, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine", "euclidean"])
@pytest.mark.usefixtures("by_graph")
def test_an_index_gives_the_same(metric: str) -> None:
    for include_self in (False, True):
        graph = knn_graph(RNG_ROWS, 7, metric, include_self)
        wanted = knn_graph(RNG_ROWS, 7, metric, include_self, recall=1)
        np.testing.assert_array_equal(graph.indices, wanted.indices)
        np.testing.assert_allclose(graph.distances, wanted.distances, rtol=1e-4, atol=1e-5)


def test_itself_comes_first_where_asked() -> None:
    others = knn_graph(RNG_ROWS, 4)
    both = knn_graph(RNG_ROWS, 5, include_self=True)
    np.testing.assert_array_equal(both.indices[:, 0], np.arange(300))
    assert (both.distances[:, 0] == 0).all()
    np.testing.assert_array_equal(both.indices[:, 1:], others.indices)
    np.testing.assert_array_equal(both.distances[:, 1:], others.distances)
    product = knn_graph(RNG_ROWS, 1, "ip", include_self=True)
    np.testing.assert_allclose(product.distances[:, 0], 1 - (RNG_ROWS**2).sum(1), rtol=1e-5)
    np.testing.assert_array_equal(product.indices[:, 0], np.arange(300))


@pytest.mark.parametrize("limit", [0, 4096])
def test_equal_rows(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "EXACT_BELOW", limit)
    rows = np.repeat(RNG_ROWS[:10], 30, axis=0)
    indices, distances = knn_graph(rows, 8)
    own = np.arange(300)[:, None]
    assert (indices != own).all()
    assert (indices // 30 == own // 30).all()
    assert (distances == 0).all()
    assert (np.diff(indices, axis=1) > 0).all()  # equal distances in order of rows
    first = knn_graph(rows, 8, include_self=True)
    np.testing.assert_array_equal(first.indices[:, 0], own[:, 0])
    assert (first.indices[:, 1:] != own).all()
    assert all(len(set(row)) == 8 for row in first.indices.tolist())


@pytest.mark.parametrize("limit", [0, 4096])
def test_more_neighbours_than_rows(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "EXACT_BELOW", limit)
    graph = knn_graph(RNG_ROWS[:3], 5)
    assert graph.indices.shape == graph.distances.shape == (3, 5)
    assert (graph.indices[:, 2:] == -1).all() and np.isinf(graph.distances[:, 2:]).all()
    assert (graph.indices[:, :2] >= 0).all()
    with_self = knn_graph(RNG_ROWS[:3], 5, include_self=True)
    assert (with_self.indices[:, 3:] == -1).all() and (with_self.indices[:, :3] >= 0).all()
    assert knn_graph(RNG_ROWS[:1], 2).indices.tolist() == [[-1, -1]]
    assert knn_graph(RNG_ROWS[:1], 2, include_self=True).indices.tolist() == [[0, -1]]
    assert knn_graph(RNG_ROWS[:0], 2).indices.shape == (0, 2)
    assert knn_graph(RNG_ROWS[:0], 2, include_self=True).distances.shape == (0, 2)


@pytest.mark.parametrize("dtype", ["float16", "int8", "uint8", "float64", "int64"])
@pytest.mark.parametrize("limit", [0, 4096])
def test_dtypes(dtype: str, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "EXACT_BELOW", limit)
    rows = np.random.default_rng(2).integers(0, 100, (80, 5))
    graph = knn_graph(rows.astype(dtype), 3)
    wanted, far = by_hand(rows, 3, "l2")
    np.testing.assert_array_equal(graph.distances, far)
    np.testing.assert_array_equal(graph.indices, wanted)


def test_rows_that_are_not_in_one_piece() -> None:
    wide = np.asfortranarray(np.repeat(RNG_ROWS, 2, axis=1))
    same = knn_graph(wide[:, ::2], 4)
    np.testing.assert_array_equal(same.indices, knn_graph(RNG_ROWS, 4).indices)


def test_of_real_rows(fashion: Any, sift: Any) -> None:
    """Neighbours found, and the same from any number of threads; a graph is walked here."""
    for rows in (fashion.base, sift.base):
        truth = knn_graph(rows, 15, recall=1)
        graph = knn_graph(rows, 15, ef_search=40, num_threads=1)
        # no farther than the 15th true one
        near = graph.distances <= truth.distances[:, -1:]
        assert near.mean() > 0.98
        assert (np.diff(graph.distances, axis=1) >= 0).all()
        assert (graph.indices != np.arange(len(rows))[:, None]).all()
        again = knn_graph(rows, 15, ef_search=40, num_threads=3)
        np.testing.assert_array_equal(again.indices, graph.indices)
        np.testing.assert_array_equal(again.distances, graph.distances)


@pytest.mark.parametrize("options", [{}, {"ef_search": 10}])
def test_progress(options: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "_AT_ONCE", 128)
    seen = []
    knn_graph(RNG_ROWS, 3, progress=lambda *at: seen.append(at), **options)
    assert seen == ([(128, 300), (256, 300), (300, 300)] if options else [(300, 300)])


def test_the_recall_asked_for(sift: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "EXACT_BELOW", 0)
    truth = knn_graph(sift.base, 10, recall=1)
    shares = []
    for recall in (0.8, 0.99):
        graph = knn_graph(sift.base, 10, recall=recall)
        shares.append(float((graph.distances <= truth.distances[:, -1:]).mean()))
    assert shares[0] >= 0.78 and shares[1] >= 0.985
    assert shares[0] < shares[1]


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: knn_graph([1.0, 2.0], 1), ValueError, r"^X: expected \(n, dim\)"),
        (lambda: knn_graph(np.empty((3, 0)), 1), ValueError, r"^X: expected \(n, dim\)"),
        (lambda: knn_graph(RNG_ROWS > 0, 1), TypeError, "^X: expected an array of real numbers"),
        (lambda: knn_graph("rows", 1), TypeError, "^X: expected an array of real numbers"),
        (lambda: knn_graph([[1.0], [np.nan]], 1), ValueError, "^X: row 1 holds NaN"),
        (lambda: knn_graph([[1.0], [1e300]], 1), ValueError, "^X: row 1 holds 1e"),
        (lambda: knn_graph([[1.0], [0.0]], 1, "cosine"), ValueError, "^X: row 1 is a zero vector"),
        (lambda: knn_graph(RNG_ROWS, 0), ValueError, "^k: expected a whole number from 1"),
        (lambda: knn_graph(RNG_ROWS, 2.0), TypeError, "^k: expected a whole number"),
        (lambda: knn_graph(RNG_ROWS, 2, "manhattan"), ValueError, "^metric: expected"),
        (lambda: knn_graph(RNG_ROWS, 2, None), TypeError, "^metric: expected"),
        (lambda: knn_graph(RNG_ROWS, 2, recall=0), ValueError, "^recall: expected a number above"),
        (lambda: knn_graph(RNG_ROWS, 2, ef_search=0), ValueError, "^ef_search: expected a whole"),
        (lambda: knn_graph(RNG_ROWS, 2, num_threads=0), ValueError, "^num_threads: expected"),
        (lambda: knn_graph(RNG_ROWS, 2**31 - 2), MemoryError, "^k: expected at most 300"),
    ],
)
@pytest.mark.parametrize("limit", [0, 4096])
def test_refusals(
    call: Any, kind: type[Exception], message: str, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MODULE, "EXACT_BELOW", limit)
    with pytest.raises(kind, match=message):
        call()
