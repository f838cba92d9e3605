"""UMAP, hdbscan and scanpy take the neighbours that Vicinal finds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits, make_blobs
from sklearn.manifold import trustworthiness
from sklearn.metrics import adjusted_rand_score

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
