"""dtype="b1" with metric="hamming": packed bits, against counting bits of all rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vicinal
from support.indexes import assert_same
from support.packed_bits import live
from vicinal._cpu import native

Array = np.ndarray[Any, np.dtype[Any]]

pytestmark = pytest.mark.full_build


def bits(n: int, dim: int, seed: int = 0) -> Array:
    """Packed bits in heaps."""
    middles = np.random.default_rng(0).random((20, dim)) < 0.5
    rng = np.random.default_rng(seed)
    rows = middles[rng.integers(0, 20, n)] ^ (rng.random((n, dim)) < 0.2)
    return np.packbits(rows, axis=1)


def distances(rows: Array, queries: Array) -> Array:
    """The slow way: (m, n) counts."""
    return np.array([[np.unpackbits(row ^ query).sum() for row in rows] for query in queries])


def made(n: int, dim: int, **options: Any) -> Any:
    index = vicinal.Index(dim, "hamming", dtype="b1", M=8, ef_construction=80, **options)
    index.add(bits(n, dim))
    return index


@pytest.mark.parametrize(
    "bytes_", [1, 2, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 63, 64, 65, 128, 8192]
)
def test_the_kernel_counts_bits(bytes_: int) -> None:
    rng = np.random.default_rng(bytes_)
    a, b = rng.integers(0, 256, (2, bytes_), np.uint8)
    outer = np.full(bytes_ + 66, 255, np.uint8)
    outer[33 : 33 + bytes_] = b  # at an odd address, between bits that would count
    for x, y in ((a, b), (a, a), (np.zeros_like(a), np.full_like(a, 255))):
        outer[33 : 33 + bytes_] = y
        wanted = int(np.unpackbits(x ^ y).sum())
        assert native.distance(3, 4, x, outer[33 : 33 + bytes_]) == wanted


@pytest.mark.parametrize("dim", [8, 72, 256, 1024])
def test_exact(dim: int) -> None:
    rows, queries = bits(400, dim), bits(9, dim, seed=1)
    every = distances(rows, queries)
    order = np.argsort(every, axis=1, kind="stable")[:, :13]
    index = made(400, dim)
    assert (index.dim, index.dtype, index.metric) == (dim, "b1", "hamming")
    for found in (
        index.search(queries, 13),
        vicinal.exact_search(rows, queries, 13, "hamming"),
        vicinal.SearchResult(
            *(np.stack(p) for p in zip(*(index.search(q, 13) for q in queries), strict=True))
        ),
    ):
        np.testing.assert_array_equal(found.ids, order)
        np.testing.assert_array_equal(found.distances, np.take_along_axis(every, order, axis=1))
    many = np.tile(queries, (70, 1))  # more than meet a row at a time
    np.testing.assert_array_equal(index.search(many, 13).ids, np.tile(order, (70, 1)))
    mask = np.random.default_rng(2).random(400) < 0.3
    far = np.where(mask, every, 10**9)
    found = index.search(queries, 13, filter=mask)
    np.testing.assert_array_equal(found.ids, np.argsort(far, axis=1, kind="stable")[:, :13])
    radius = float(np.quantile(every, 0.1))
    for i, counts in enumerate(every):
        inside = index.range_search(queries, radius).of(i)
        np.testing.assert_array_equal(np.sort(inside.ids), np.flatnonzero(counts <= radius))
    near = index.search(queries, 3)
    np.testing.assert_allclose(near.similarities, 1 - near.distances / dim, rtol=1e-6)
    np.testing.assert_allclose(near.euclidean, np.sqrt(near.distances), rtol=1e-6)


def test_graph_filters_changes_and_files(tmp_path: Path) -> None:
    index = made(3000, 256)
    live(index, bits, distances, 0.97, tmp_path)


def test_same_bytes_for_any_number_of_threads(tmp_path: Any) -> None:
    saved = []
    for threads in (1, 3):
        index = vicinal.Index(64, "hamming", dtype="b1", M=8, ef_construction=40)
        index.add(bits(2500, 64), num_threads=threads)
        index.save(tmp_path / str(threads))
        saved.append((tmp_path / str(threads)).read_bytes())
    assert saved[0] == saved[1]


def test_other_verbs() -> None:
    index = made(500, 128)
    rows = index.get(index.ids)
    votes = np.unpackbits(rows[[3, 4, 9]], axis=1).mean(axis=0) >= 0.5
    found = index.search(like=[3, 4, 9], k=5)
    wanted = index.search(np.packbits(votes), 5, exclude=[3, 4, 9])
    assert_same(found, wanted)
    pairs = {frozenset(pair[:2]) for pair in index.pairs(20)}
    every = distances(rows, rows)
    assert pairs == {frozenset((a, b)) for a in range(500) for b in range(a) if every[a, b] <= 20}
    apart = vicinal.mmr(index, rows[:3], 5, diversity=0.9)
    assert apart.ids[:, 0].tolist() == [0, 1, 2]
    graph = vicinal.knn_graph(rows, 4, "hamming")
    np.testing.assert_array_equal(
        graph.distances, np.sort(every + np.eye(500, dtype=int) * 10**6, axis=1)[:, :4]
    )
    told = vicinal.estimate(500, 128, "hamming", "b1")
    assert told.vectors == pytest.approx(index.memory_usage()["vectors"], rel=0.05)
    groups = index.search(rows[0], 4, groups=np.arange(500) % 7)
    assert len(set((groups.ids % 7).tolist())) == 4


def test_refused() -> None:
    with pytest.raises(ValueError, match="dtype: expected 'b1' with metric 'hamming'"):
        vicinal.Index(256, "hamming")
    with pytest.raises(ValueError, match="dtype: expected 'b1' with metric 'hamming'"):
        vicinal.Index(256, "l2", dtype="b1")
    with pytest.raises(ValueError, match="dim: expected a multiple of 8 bits for dtype 'b1'"):
        vicinal.Index(100, "hamming", dtype="b1")
    with pytest.raises(ValueError, match='quantization: expected "auto" or None for dtype "b1"'):
        vicinal.Index(256, "hamming", dtype="b1", quantization="u8")
    index = made(20, 256)
    with pytest.raises(ValueError, match=r"vectors: expected \(n, 32\) or \(32,\), got \(1, 256\)"):
        index.add(np.zeros((1, 256), np.uint8))
    with pytest.raises(ValueError, match=r"queries: row 0 holds -1, expected .*add it again"):
        index.search(np.full(32, -1, np.int8))
    with pytest.raises(ValueError, match=r"expected \(n, 32\) .* got \(256,\): packed .*packbits"):
        index.search(np.zeros(256))
    with pytest.raises(ValueError, match="dtype: expected 'b1' with metric 'hamming'"):
        vicinal.exact_search(np.zeros((3, 4), np.float32), np.zeros(4), 1, "hamming")
