"""UMAP, hdbscan and scanpy take the neighbours that Vicinal finds."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits, make_blobs
from sklearn.manifold import trustworthiness
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import KNeighborsClassifier

import vicinal
from vicinal.integrations.sklearn import VicinalTransformer

pytestmark = pytest.mark.filterwarnings("default")  # theirs
DIGITS = load_digits()


def test_umap_with_neighbours_found_beforehand() -> None:
    umap = pytest.importorskip("umap")
    rows = DIGITS.data[:800].astype(np.float32)
    graph = vicinal.knn_graph(rows, 15, "euclidean", include_self=True)
    options: dict[str, Any] = {"n_neighbors": 15, "random_state": 3, "n_epochs": 100, "n_jobs": 1}
    ours = umap.UMAP(precomputed_knn=tuple(graph), **options)
    embedded = ours.fit_transform(rows)
    # fewer columns, or others than these, would be thrown away with a warning
    np.testing.assert_array_equal(ours._knn_indices, graph.indices)
    theirs = umap.UMAP(**options).fit_transform(rows)
    difference = trustworthiness(rows, embedded) - trustworthiness(rows, theirs)
    assert abs(difference) <= 0.005


def test_hdbscan() -> None:
    hdbscan = pytest.importorskip("hdbscan")
    rows, labels = make_blobs(300, 5, centers=4, cluster_std=0.4, random_state=7)
    graph = (
        VicinalTransformer(n_neighbors=15)
        .fit(rows)
        .kneighbors_graph(mode="distance", connected=True)
    )
    found = hdbscan.HDBSCAN(min_cluster_size=20, min_samples=5, metric="precomputed").fit(graph)
    assert adjusted_rand_score(labels, found.labels_) > 0.95


def test_scanpy() -> None:
    scanpy = pytest.importorskip("scanpy")
    anndata = pytest.importorskip("anndata")
    rows = DIGITS.data[:500].astype(np.float32)
    ours, theirs = anndata.AnnData(rows), anndata.AnnData(rows)
    scanpy.pp.neighbors(ours, transformer=VicinalTransformer(n_neighbors=15), use_rep="X")
    scanpy.pp.neighbors(theirs, n_neighbors=15, use_rep="X", transformer="sklearn")
    mine, own = (each.obsp["distances"] for each in (ours, theirs))
    assert mine.shape == own.shape == (500, 500)
    together = ours.obsp["connectivities"].minimum(theirs.obsp["connectivities"]).sum()
    assert together > 0.9 * theirs.obsp["connectivities"].sum()
    scanpy.tl.umap(ours, maxiter=20)
    assert ours.obsm["X_umap"].shape == (500, 2)


@pytest.mark.parametrize("count", [900, 4600])  # UMAP does otherwise from 4,096 rows on
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_umap_transforms_new_rows(count: int, metric: str) -> None:
    umap = pytest.importorskip("umap")
    from vicinal.integrations.umap import precomputed_knn

    rng = np.random.default_rng(4)
    digits = rng.integers(0, len(DIGITS.data), count + 300)  # more than there are: with some noise
    rows = (DIGITS.data[digits] + rng.normal(0, 0.5, (count + 300, 64))).astype(np.float32)
    labels = DIGITS.target[digits]
    options: dict[str, Any] = {
        "n_neighbors": 15,
        "random_state": 3,
        "n_epochs": 60,
        "n_jobs": 1,
        "metric": metric,
    }
    neighbours = precomputed_knn(rows[:count], 15, metric)
    ours = umap.UMAP(precomputed_knn=neighbours, **options)
    embedded = ours.fit_transform(rows[:count])
    np.testing.assert_array_equal(ours._knn_indices, neighbours[0])
    placed = ours.transform(rows[count:])
    # a new row lies among rows of its own digit, as it does where UMAP has searched itself
    theirs = umap.UMAP(**options)
    theirs_embedded = theirs.fit_transform(rows[:count])
    theirs_placed = theirs.transform(rows[count:])

    def right(fitted: Any, new: Any) -> float:
        classes = KNeighborsClassifier(5).fit(fitted, labels[:count])
        return float(classes.score(new, labels[count:]))

    assert right(embedded, placed) >= right(theirs_embedded, theirs_placed) - 0.03
    assert right(embedded, placed) > 0.8
    again = pickle.loads(pickle.dumps(neighbours[2]))
    for mine, other in zip(
        again.query(rows[count:], 15, epsilon=0.12),
        neighbours[2].query(rows[count:], 15),
        strict=True,
    ):
        np.testing.assert_array_equal(mine, other)


def test_what_stands_for_nndescent() -> None:
    from pynndescent import NNDescent
    from sklearn.exceptions import NotFittedError

    from vicinal.integrations.umap import as_nndescent, precomputed_knn

    rows = DIGITS.data[:300].astype(np.float32)
    transformer = VicinalTransformer(10).fit(rows)
    made = as_nndescent(transformer)
    assert isinstance(made, NNDescent)
    made.prepare()
    made.compress_index()
    indices, distances = made.query(rows[:5], 3)
    assert indices.dtype == np.int32 and distances.dtype == np.float32
    assert indices[:, 0].tolist() == [0, 1, 2, 3, 4]
    graph = vicinal.knn_graph(rows, 10, "euclidean", include_self=True)
    np.testing.assert_array_equal(made.neighbor_graph[0], graph.indices)
    np.testing.assert_allclose(made.neighbor_graph[1], graph.distances, rtol=1e-6)
    assert precomputed_knn(rows, 1)[0].tolist() == [[i] for i in range(300)]
    with pytest.raises(ValueError, match="does not change"):
        made.update(rows)
    with pytest.raises(TypeError, match="transformer: expected"):
        as_nndescent(rows)
    with pytest.raises(NotFittedError):
        as_nndescent(VicinalTransformer())
    with pytest.raises(ValueError, match="metric: expected"):
        precomputed_knn(rows, metric="manhattan")
