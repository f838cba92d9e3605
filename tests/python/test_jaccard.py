"""metric="jaccard" over packed bits, against counting the bits of both and of either."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import reference
import vicinal
from support.packed_bits import live
from vicinal._cpu import native

Array = np.ndarray[Any, np.dtype[Any]]

pytestmark = pytest.mark.full_build


def bits(n: int, dim: int, seed: int = 0) -> Array:
    """Sets of very different sizes in heaps, packed; some are empty."""
    middles = np.random.default_rng(0).random((20, dim)) < 0.3
    rng = np.random.default_rng(seed)
    kept = rng.random((n, 1)) * rng.integers(0, 2, (n, 1)) + 0.5 * rng.integers(0, 2, (n, 1))
    rows = middles[rng.integers(0, 20, n)] & (rng.random((n, dim)) < kept)
    rows |= rng.random((n, dim)) < 0.02 * (kept > 0)
    return np.packbits(rows, axis=1)


def made(n: int, dim: int, **options: Any) -> Any:
    index = vicinal.Index(dim, "jaccard", dtype="b1", M=8, ef_construction=80, **options)
    index.add(bits(n, dim))
    return index


@pytest.mark.parametrize("size", [1, 2, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 63, 64, 65, 128, 8192])
def test_the_kernel(size: int) -> None:
    rng = np.random.default_rng(size)
    a, b = rng.integers(0, 256, (2, size), np.uint8)
    none, all_ = np.zeros_like(a), np.full_like(a, 255)
    outer = np.full(size + 66, 255, np.uint8)
    for x, y in ((a, b), (a, a), (none, all_), (none, none), (all_, all_), (a & b, a)):
        outer[33 : 33 + size] = y  # at an odd address, between bits that would count
        wanted = np.float32(reference.jaccard(y[None], x[None])[0, 0])
        assert native.distance(4, 4, x, outer[33 : 33 + size]) == wanted
    assert native.distance(4, 4, none, none) == 0 and native.distance(4, 4, none, all_) == 1


@pytest.mark.parametrize("dim", [8, 72, 256, 1024])
def test_exact(dim: int) -> None:
    rows, queries = bits(400, dim), bits(9, dim, seed=1)
    every = reference.jaccard(rows, queries).astype(np.float32)
    order = np.argsort(every, axis=1, kind="stable")[:, :13]
    index = made(400, dim)
    assert (index.dim, index.dtype, index.metric) == (dim, "b1", "jaccard")
    for found in (
        index.search(queries, 13),
        vicinal.exact_search(rows, queries, 13, "jaccard"),
        index.search(queries, 13, exact=True),
    ):
        np.testing.assert_array_equal(found.ids, order)
        np.testing.assert_array_equal(found.distances, np.take_along_axis(every, order, axis=1))
    many = np.tile(queries, (70, 1))  # more than meet a row at a time
    np.testing.assert_array_equal(index.search(many, 13).ids, np.tile(order, (70, 1)))
    mask = np.random.default_rng(2).random(400) < 0.3
    far = np.where(mask, every, 9)
    found = index.search(queries, 13, filter=mask)
    np.testing.assert_array_equal(found.ids, np.argsort(far, axis=1, kind="stable")[:, :13])
    radius = float(np.quantile(every, 0.1))
    for i, shares in enumerate(every):
        inside = index.range_search(queries, radius).of(i)
        np.testing.assert_array_equal(
            np.sort(inside.ids), np.flatnonzero(shares <= np.float32(radius))
        )
    near = index.search(queries, 3)
    np.testing.assert_array_equal(near.similarities, 1 - near.distances)
    with pytest.raises(ValueError, match=r"euclidean: .* got 'jaccard'"):
        near.euclidean  # noqa: B018


def test_graph_filters_changes_and_files(tmp_path: Path) -> None:
    index = made(3000, 256)
    live(index, bits, reference.jaccard, 0.95, tmp_path)
    with pytest.raises(ValueError, match="metric='jaccard'"):
        index.merge(vicinal.Index(256, "hamming", dtype="b1"))


def test_same_bytes_for_any_number_of_threads() -> None:
    saved = []
    for threads in (1, 3):
        index = vicinal.Index(64, "jaccard", dtype="b1", M=8, ef_construction=40)
        index.add(bits(2500, 64), num_threads=threads)
        saved.append(index.to_bytes())
    assert saved[0] == saved[1]


def test_other_verbs(tmp_path: Path) -> None:
    index = made(500, 128)
    rows = index.get(index.ids)
    every = reference.jaccard(rows, rows)
    pairs = {frozenset(pair[:2]) for pair in index.pairs(0.3)}
    within = every.astype(np.float32) <= np.float32(0.3)
    assert pairs == {frozenset((a, b)) for a in range(500) for b in range(a) if within[a, b]}
    owners = np.arange(500) // 5
    asked = bits(4, 128, seed=2)
    best = index.search_multi(asked, owners, k=5, exact=True)
    alike = 1 - reference.jaccard(rows, asked)
    scores = np.array([alike[:, owners == o].max(axis=1).sum() for o in range(100)])
    np.testing.assert_allclose(best.scores, np.sort(scores)[::-1][:5], rtol=1e-5)
    chosen = vicinal.mmr(index, asked, 6, diversity=0.5, candidates=30)
    near = index.search(asked, 30)
    for q in range(4):
        left, taken = near.ids[q].tolist(), []
        for _ in range(6):
            score = [
                0.5 * alike[q, i] - 0.5 * max((1 - every[i, j] for j in taken), default=0)
                for i in left
            ]
            place = int(np.argmax(score))
            assert score[left.index(chosen.ids[q][len(taken)])] == pytest.approx(score[place])
            taken.append(chosen.ids[q][len(taken)])
            left.remove(taken[-1])
    graph = vicinal.knn_graph(rows, 4, "jaccard")
    others = np.sort(every + 9 * np.eye(500), axis=1)[:, :4]
    np.testing.assert_allclose(graph.distances, others, rtol=1e-6)
    collection = vicinal.Collection(tmp_path / "c", dim=128, metric="jaccard", dtype="b1")
    with collection as documents:
        documents.upsert([str(i) for i in range(500)], vectors=rows)
        hit = documents.search(rows[7], k=1)[0]
        assert hit.distance == 0


def test_refused() -> None:
    for options in ({}, {"dtype": "uint8"}):
        with pytest.raises(ValueError, match=r"dtype: expected 'b1' with metric 'hamming' or 'jac"):
            vicinal.Index(256, "jaccard", **options)
    with pytest.raises(ValueError, match="dtype: expected 'b1' with metric"):
        vicinal.exact_search(np.zeros((3, 4), np.float32), np.zeros(4), 1, "jaccard")
