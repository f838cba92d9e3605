"""VicinalTransformer is a scikit-learn estimator, and its graphs are what others take."""

from __future__ import annotations

import doctest
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components
from sklearn.base import clone
from sklearn.cluster import DBSCAN, HDBSCAN, SpectralClustering
from sklearn.datasets import load_digits, make_blobs, make_s_curve
from sklearn.manifold import TSNE, Isomap, trustworthiness
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import (
    KNeighborsClassifier,
    KNeighborsTransformer,
    LocalOutlierFactor,
    NearestNeighbors,
)
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks
from threadpoolctl import threadpool_limits

import vicinal
from vicinal.integrations.sklearn import VicinalTransformer, symmetric_graph

DIGITS = load_digits()
SOME = DIGITS.data[:600]  # exact: fewer than 1,000


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Keep the loops of scikit-learn from waiting for cores that others use."""
    with threadpool_limits(1):
        yield


@parametrize_with_checks([VicinalTransformer()])
def test_scikit_learns_own_checks(estimator: Any, check: Any) -> None:
    check(estimator)


# ---- the graph


@pytest.mark.parametrize("mode", ["distance", "connectivity"])
@pytest.mark.parametrize("metric", ["euclidean", "cosine", "sqeuclidean"])
def test_graphs_are_those_of_kneighbors_transformer(mode: str, metric: str) -> None:
    theirs = KNeighborsTransformer(n_neighbors=6, mode=mode, metric=metric, algorithm="brute")
    ours = VicinalTransformer(n_neighbors=6, mode=mode, metric=metric)
    rows = np.random.default_rng(1).standard_normal((400, 10)) + 1
    for wanted, got in (
        (theirs.fit_transform(rows[:300]), ours.fit_transform(rows[:300])),
        (theirs.transform(rows[300:]), ours.transform(rows[300:])),
    ):
        assert got.format == "csr" and got.shape == wanted.shape and got.dtype == wanted.dtype
        np.testing.assert_array_equal(got.indptr, wanted.indptr)
        np.testing.assert_array_equal(got.indices, wanted.indices)
        np.testing.assert_allclose(got.data, wanted.data, rtol=1e-4, atol=2e-6)
    assert list(ours.get_feature_names_out()[:2]) == ["vicinaltransformer0", "vicinaltransformer1"]


def test_every_row_has_as_many_entries_in_order_of_distance() -> None:
    graph = VicinalTransformer(n_neighbors=7).fit_transform(SOME)
    assert (np.diff(graph.indptr) == 8).all()
    distances = graph.data.reshape(-1, 8)
    assert (np.diff(distances, axis=1) >= 0).all()
    assert not graph.has_sorted_indices
    np.testing.assert_array_equal(graph.indices.reshape(-1, 8)[:, 0], np.arange(600))
    assert (distances[:, 0] == 0).all()
    assert graph.indices.dtype == np.int32


def test_itself_first_among_equal_rows() -> None:
    rows = np.repeat(SOME[:20], 12, axis=0)
    graph = VicinalTransformer(n_neighbors=5).fit_transform(rows)
    indices = graph.indices.reshape(-1, 6)
    np.testing.assert_array_equal(indices[:, 0], np.arange(240))
    assert all(len(set(row)) == 6 for row in indices.tolist())
    assert (graph.data == 0).all() and graph.nnz == 240 * 6  # zeros are entries


def test_transform_moves_nothing() -> None:
    rows = np.repeat(SOME[:20], 12, axis=0)
    found = VicinalTransformer(n_neighbors=5).fit(rows).transform(rows)
    assert (found.indices.reshape(-1, 6)[11] == np.arange(6)).all()


def test_fewer_rows_than_neighbours() -> None:
    transformer = VicinalTransformer(n_neighbors=3)
    assert transformer.fit_transform(SOME[:3]).nnz == 9
    assert transformer.fit_transform(SOME[:4]).nnz == 16
    with pytest.raises(ValueError, match="n_samples_fit = 2"):
        transformer.fit_transform(SOME[:2])


def test_dtypes_of_distances() -> None:
    for dtype, wanted in ((np.float32, np.float32), (np.float64, np.float64), (int, np.float64)):
        assert VicinalTransformer().fit_transform(SOME.astype(dtype)).dtype == wanted


def test_rows_far_from_zero_keep_their_digits() -> None:
    rows = np.random.default_rng(4).standard_normal((300, 6)) + 1e6
    wanted = KNeighborsTransformer(n_neighbors=5).fit_transform(rows)
    ours = VicinalTransformer(n_neighbors=5).fit(rows)
    for got in (ours.transform(rows), ours.fit_transform(rows)):
        np.testing.assert_allclose(got.data, wanted.data, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(got.indices, wanted.indices)
    whole = VicinalTransformer().fit(np.round(rows))
    assert whole.shift_ is None  # float32 holds them


@pytest.mark.parametrize("name", ["euclidean", "l2", "minkowski"])
def test_names_of_one_metric(name: str) -> None:
    graph = VicinalTransformer(metric=name).fit_transform(SOME)
    wanted = VicinalTransformer().fit_transform(SOME)
    np.testing.assert_array_equal(graph.data, wanted.data)


def test_inner_products() -> None:
    rows = SOME[:50] / 100
    graph = VicinalTransformer(metric="ip").fit_transform(rows)
    products = 1 - rows @ rows.T
    got = graph.toarray()
    at = graph.nonzero()
    np.testing.assert_allclose(got[at], products[at], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(graph.data.reshape(50, -1)[:, 0], np.diag(products), rtol=1e-5)


# ---- an estimator


def test_the_recall_asked_for() -> None:
    rows = make_blobs(3000, 24, centers=40, cluster_std=4.0, random_state=3)[0].astype(np.float32)
    truth = vicinal.knn_graph(rows, 10, "euclidean", recall=1)
    transformer = VicinalTransformer(n_neighbors=10, recall=0.98, random_state=5).fit(rows)
    assert transformer.index_.stats()["search"] == "graph"
    graph = transformer.fit_transform(rows)
    near = graph.data.reshape(-1, 11)[:, 1:] <= truth.distances[:, -1:] * (1 + 1e-6)
    assert near.mean() >= 0.97
    again = VicinalTransformer(n_neighbors=10, recall=0.98, random_state=5, n_jobs=1)
    np.testing.assert_array_equal(again.fit_transform(rows).indices, graph.indices)
    wide = VicinalTransformer(n_neighbors=10, ef_search=500).fit_transform(rows)
    assert (wide.data.reshape(-1, 11)[:, 1:] <= truth.distances[:, -1:] * (1 + 1e-6)).mean() > 0.999


def test_the_index_is_made_when_it_is_needed() -> None:
    """The graph of the fitted rows needs none; rows from elsewhere do."""
    given = make_blobs(5000, 12, centers=60, cluster_std=2.0, random_state=4)[0].astype(np.float32)
    rows = given.copy()
    transformer = VicinalTransformer(n_neighbors=8, random_state=5)
    graph = transformer.fit_transform(rows)
    assert len(transformer._held.index) == 0
    rows[:] = 7  # whatever the caller does with them
    wanted = vicinal.knn_graph(given, 8, "euclidean", recall=1).distances[:, -1:]
    near = graph.data.reshape(-1, 9)[:, 1:] <= wanted * (1 + 1e-6)
    assert near.mean() >= 0.985
    again = pickle.loads(pickle.dumps(transformer))
    asked = given[:40] + np.float32(0.01)
    elsewhere = VicinalTransformer(n_neighbors=8, random_state=5).fit(given).transform(asked)
    for made in (transformer, again):
        assert (made.transform(asked) != elsewhere).nnz == 0
        assert len(made._held.index) == 5000 and made._held.rows is None
        np.testing.assert_array_equal(made.index_.get([4999])[0], given[4999])


def test_pickles_and_clones() -> None:
    fitted = VicinalTransformer(n_neighbors=4, metric="cosine").fit(SOME + 1)
    again = pickle.loads(pickle.dumps(fitted))
    wanted, got = fitted.transform(SOME[:9] + 1), again.transform(SOME[:9] + 1)
    np.testing.assert_array_equal(got.indices, wanted.indices)
    np.testing.assert_array_equal(got.data, wanted.data)
    assert clone(fitted).get_params() == fitted.get_params()
    assert not hasattr(clone(fitted), "index_")


def test_kneighbors_as_nearest_neighbors_has_it() -> None:
    rows = np.random.default_rng(6).standard_normal((200, 5))
    theirs = NearestNeighbors(n_neighbors=4).fit(rows)
    ours = VicinalTransformer(n_neighbors=4).fit(rows)
    for arguments in ((), (rows[:20],), (rows[:20], 9), (None, 9)):
        far, near = theirs.kneighbors(*arguments)
        distances, indices = ours.kneighbors(*arguments)
        np.testing.assert_array_equal(indices, near)
        np.testing.assert_allclose(distances, far, rtol=1e-4, atol=1e-5)
        only = ours.kneighbors(*arguments, return_distance=False)
        np.testing.assert_array_equal(only, near)
        for mode in ("connectivity", "distance"):
            graph = ours.kneighbors_graph(*arguments, mode=mode)
            wanted = theirs.kneighbors_graph(*arguments, mode=mode)
            np.testing.assert_allclose(graph.toarray(), wanted.toarray(), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="n_neighbors <= 199"):
        ours.kneighbors(None, 200)
    assert ours.kneighbors(rows, 200)[1].shape == (200, 200)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "manhattan"}, "metric: expected one of"),
        ({"mode": "both"}, "mode: expected 'distance'"),
        ({"n_neighbors": 0}, "n_neighbors: expected a whole number from 1"),
        ({"n_jobs": 0}, "n_jobs: expected"),
        ({"quantization": "pq"}, "quantization: expected"),
        ({"ef_search": 0}, "ef_search: expected"),
    ],
)
def test_refusals(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VicinalTransformer(**options).fit_transform(SOME)


# ---- symmetric graphs


def test_symmetric_graphs_keep_equal_rows_apart_by_nothing() -> None:
    rows = np.concatenate([SOME[:60], SOME[:60]])
    transformer = VicinalTransformer(n_neighbors=3).fit(rows)
    graph = transformer.kneighbors_graph(mode="distance", symmetric=True)
    dense = {(i, j) for i, j in zip(*_places(graph), strict=True)}
    assert all((j, i) in dense for i, j in dense)
    assert {(i, i + 60) for i in range(60)} <= dense  # at distance 0, and still there
    _, ids = transformer.kneighbors()
    assert dense == {p for i, row in enumerate(ids.tolist()) for j in row for p in ((i, j), (j, i))}
    for i in range(120):
        assert (np.diff(graph.data[graph.indptr[i] : graph.indptr[i + 1]]) >= 0).all()
    same = symmetric_graph(*vicinal.knn_graph(rows, 3, "euclidean"))
    assert same.nnz == graph.nnz


def _places(graph: Any) -> tuple[Any, Any]:
    rows = np.repeat(np.arange(graph.shape[0]), np.diff(graph.indptr))
    return rows.tolist(), graph.indices.tolist()


def test_bridges_join_all_parts() -> None:
    rows, _ = make_blobs(400, 4, centers=8, cluster_std=0.1, random_state=1)
    transformer = VicinalTransformer(n_neighbors=4).fit(rows)
    apart = transformer.kneighbors_graph(symmetric=True)
    parts, part = connected_components(apart, directed=False)
    assert parts >= 8
    graph = transformer.kneighbors_graph(mode="distance", connected=True)
    assert connected_components(graph, directed=False)[0] == 1
    assert abs(graph - graph.T).max() == 0
    starts, ends = (np.array(places) for places in _places(graph))
    bridges = part[starts] != part[ends]
    assert 2 * (parts - 1) <= bridges.sum() <= 4 * parts
    true = np.linalg.norm(rows[starts[bridges]] - rows[ends[bridges]], axis=1)
    np.testing.assert_allclose(graph.data[bridges], true, rtol=1e-4)
    ones = transformer.kneighbors_graph(connected=True)
    assert (ones.data == 1).all() and ones.nnz == graph.nnz
    with pytest.raises(ValueError, match="X: expected None"):
        transformer.kneighbors_graph(rows, symmetric=True)


# ---- end to end


def test_tsne() -> None:
    """With neighbours found beforehand t-SNE does as well as alone; 3 x perplexity of them."""
    rows = DIGITS.data[:300]
    tsne = {"perplexity": 10.0, "init": "random", "random_state": 0, "max_iter": 250}
    ours = make_pipeline(
        VicinalTransformer(n_neighbors=31), TSNE(metric="precomputed", **tsne)
    ).fit_transform(rows)
    theirs = TSNE(method="barnes_hut", **tsne).fit_transform(rows)
    difference = trustworthiness(rows, ours) - trustworthiness(rows, theirs)
    assert abs(difference) < 0.02


def test_isomap() -> None:
    rows, _ = make_s_curve(400, random_state=1)
    ours = make_pipeline(
        VicinalTransformer(n_neighbors=10), Isomap(n_neighbors=10, metric="precomputed")
    ).fit_transform(rows)
    theirs = Isomap(n_neighbors=10).fit_transform(rows)
    np.testing.assert_allclose(np.abs(ours), np.abs(theirs), rtol=1e-3, atol=1e-3)


def test_dbscan() -> None:
    rows, labels = make_blobs(500, 6, centers=4, cluster_std=0.5, random_state=2)
    ours = make_pipeline(
        VicinalTransformer(n_neighbors=60), DBSCAN(eps=1.2, min_samples=8, metric="precomputed")
    ).fit_predict(rows)
    theirs = DBSCAN(eps=1.2, min_samples=8).fit_predict(rows)
    assert adjusted_rand_score(theirs, ours) > 0.99
    assert adjusted_rand_score(labels, ours) > 0.9


def test_spectral_clustering() -> None:
    rows, _ = make_blobs(300, 3, centers=3, cluster_std=1.0, center_box=(-4, 4), random_state=0)
    ours = make_pipeline(
        VicinalTransformer(n_neighbors=12, mode="connectivity"),
        SpectralClustering(
            3, affinity="precomputed_nearest_neighbors", n_neighbors=12, random_state=0
        ),
    ).fit_predict(rows)
    theirs = SpectralClustering(
        3, affinity="nearest_neighbors", n_neighbors=12, random_state=0
    ).fit_predict(rows)
    assert adjusted_rand_score(theirs, ours) > 0.95


def test_classifier_and_outliers() -> None:
    rows, labels = DIGITS.data, DIGITS.target
    ours = make_pipeline(
        VicinalTransformer(n_neighbors=5), KNeighborsClassifier(5, metric="precomputed")
    ).fit(rows[:900], labels[:900])
    theirs = KNeighborsClassifier(5).fit(rows[:900], labels[:900])
    assert (ours.predict(rows[900:]) == theirs.predict(rows[900:])).mean() > 0.99
    rows, _ = make_s_curve(400, noise=0.2, random_state=1)
    graph = VicinalTransformer(n_neighbors=20).fit_transform(rows)
    mine = LocalOutlierFactor(20, metric="precomputed").fit(graph)
    own = LocalOutlierFactor(20).fit(rows)
    np.testing.assert_allclose(
        mine.negative_outlier_factor_, own.negative_outlier_factor_, rtol=1e-3
    )


def test_hdbscan_of_scikit_learn() -> None:
    """Refuses graphs that are not symmetric or not in one piece: ours are."""
    rows, labels = make_blobs(300, 5, centers=4, cluster_std=0.4, random_state=7)
    transformer = VicinalTransformer(n_neighbors=15).fit(rows)
    graph = transformer.kneighbors_graph(mode="distance", connected=True)
    found = HDBSCAN(min_cluster_size=20, min_samples=5, metric="precomputed", copy=True).fit(graph)
    assert adjusted_rand_score(labels, found.labels_) > 0.95


def test_the_page_in_the_guide() -> None:
    page = Path(__file__).resolve().parents[3] / "docs" / "guide" / "scikit-learn.md"
    text = page.read_text(encoding="utf-8")
    result = doctest.testfile(str(page), module_relative=False, encoding="utf-8")
    assert result.attempted > 15 and text.count("```pycon\n>>> ") == text.count("```pycon") == 3
    assert result.failed == 0
