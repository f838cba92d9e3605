"""A collection of packed bits, against counting them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vicinal

Array = np.ndarray[Any, np.dtype[Any]]

pytestmark = pytest.mark.full_build

DIM = 64


def nearest(rows: Array, query: Array, allowed: Array, k: int) -> list[float]:
    """The slow way: the k least counts of bits that differ."""
    counts = np.unpackbits(rows ^ query, axis=1).sum(axis=1)
    return [float(count) for count in np.sort(counts[allowed])[:k]]


def test_bits(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    bits = np.packbits(rng.random((1500, DIM)) < 0.5, axis=1)
    names = [str(i) for i in range(1500)]
    there = np.ones(1500, dtype=bool)
    threes = np.arange(1500) % 7 == 3
    with vicinal.Collection(
        tmp_path / "c", dim=DIM, metric="hamming", dtype="b1", checkpoint_rows=600
    ) as documents:
        assert documents.dim == DIM
        for start in (0, 500, 1000):
            part = slice(start, start + 500)
            documents.add(
                names[part],
                bits[part],
                metadata=[{"n": i % 7} for i in range(500 * (start // 500), start + 500)],
            )
        hits = documents.search(bits[5], k=3)
        assert hits[0].id == "5"
        assert [hit.distance for hit in hits] == nearest(bits, bits[5], there, 3)
        found = documents.search(bits[5], k=3, where={"field": "n", "op": "eq", "value": 3})
        assert [hit.distance for hit in found] == nearest(bits, bits[5], threes, 3)
        documents.upsert(["5"], bits[6:7])
        documents.delete(["9"])
        assert len(documents) == 1499
    moved = bits.copy()
    moved[5] = bits[6]
    there[9] = False
    with vicinal.Collection(tmp_path / "c") as documents:
        assert (documents.dim, documents.metric) == (DIM, "hamming")
        for query in (bits[5], bits[9], bits[6]):
            hits = documents.search(query, k=4)
            assert [hit.distance for hit in hits] == nearest(moved, query, there, 4)
        many = documents.search(bits[:3], k=2)
        assert [len(each) for each in many] == [2, 2, 2]
        with pytest.raises(ValueError, match=r"vector: expected \(n, 8\) or \(8,\), got \(64,\)"):
            documents.search(np.zeros(DIM, np.uint8), k=1)
        with pytest.raises(ValueError, match=r"vectors: expected \(n, 8\)"):
            documents.add(["x"], np.zeros((1, DIM), np.uint8))


def test_what_does_not_go(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="dtype: expected 'b1' with metric 'hamming'"):
        vicinal.Collection(tmp_path / "a", dim=64, metric="hamming")
    with pytest.raises(TypeError, match=r"index_parameters: expected .*, got 'keep_vectors'"):
        vicinal.Collection(tmp_path / "b", dim=64, keep_vectors=False)
