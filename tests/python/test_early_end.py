"""Walks that end early: fewer distances, and what they would have found to their end.

One removed row makes walks of the copy go to their end, over the same graph: rows that are not seen
would pass for the nearest. It is the row farthest from all queries, so that nothing else changes
but the width, which is one more than what was asked for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import reference
import vicinal
from vicinal._cpu import native
from vicinal._filters import as_filters

Array = np.ndarray[Any, np.dtype[Any]]
K = 10


def two_ways(data: Any, kind: str | None) -> tuple[Any, Any]:
    """Return an index and its copy whose walks go to their end."""
    dtype = "float32" if kind is not None else data.base.dtype
    index = vicinal.Index(data.base.shape[1], data.metric, dtype=dtype, quantization=kind)
    index.add(data.base)
    every = reference.distances(data.base, data.queries, data.metric)
    whole = index.copy()
    whole.remove([int(every.min(axis=0).argmax())])
    return index, whole


def asked(index: Any, queries: Array, k: int, ef: int) -> tuple[Array, Array, float]:
    """Return ids, distances, and how many distances a query took."""
    before = index.search_stats()["distances"]
    found = index.search(queries, k, ef_search=ef)
    return found.ids, found.distances, (index.search_stats()["distances"] - before) / len(queries)


@pytest.mark.parametrize(
    ("name", "kind", "least"),
    [
        ("sift", "auto", 0.0),  # sparse: what is within the width is not much farther
        ("sift", "none", 0.0),
        ("minilm", "auto", 0.02),
        ("minilm", "sq8", 0.02),
        ("fashion", "auto", 0.12),
        ("fashion", "none", 0.12),
    ],
)
def test_the_same_for_less(
    name: str, kind: str, least: float, request: pytest.FixtureRequest
) -> None:
    data = request.getfixturevalue(name)
    index, whole = two_ways(data, None if kind == "none" else kind)
    every = reference.distances(data.base, data.queries, data.metric)
    truth = np.argsort(every, axis=1, kind="stable")[:, :K]
    for ef in (32, 64, 128):
        early, _, fewer = asked(index, data.queries, K, ef)
        late, _, more = asked(whole, data.queries, K, ef - 1)
        assert fewer <= more * (1 - least), (ef, fewer, more)
        lost = vicinal.recall_at_k(late, truth) - vicinal.recall_at_k(early, truth)
        assert lost <= 0.002, (ef, lost)  # of 1,000 to 2,000 rows


def test_never_less_than_half_the_width(sift: Any) -> None:
    """Half of the width is always expanded, so that no query finds less than with that width."""
    index, whole = two_ways(sift, "auto")
    for ef in (24, 32, 64, 200):
        early = asked(index, sift.queries, K, ef)[1]
        half = asked(whole, sift.queries, K, ef // 2 - 1)[1]
        assert (early[:, K - 1] <= half[:, K - 1]).all()


def test_products_and_narrow_searches_go_to_their_end(sift: Any) -> None:
    """Inner products have no zero to be near to; near k there is no room to end early."""
    for metric, ef in (("ip", 64), ("l2", 3 * K - 1)):
        index = vicinal.Index(sift.base.shape[1], metric)
        index.add(sift.base)
        before = index.search_stats()
        index.search(sift.queries, K, ef_search=ef)
        after = index.search_stats()
        hops = (after["hops"] - before["hops"]) / len(sift.queries)
        assert hops >= ef  # each candidate within the width was expanded


def test_a_far_row_behind_a_few_near_ones() -> None:
    """Small heaps far apart: a walk that has seen a heap through looks on for half of its width."""
    rng = np.random.default_rng(0)
    middles = rng.normal(size=(400, 16)) * 10
    rows = (middles[np.arange(8000) % 400] + rng.normal(size=(8000, 16))).astype(np.float32)
    queries = (middles[:200] + rng.normal(size=(200, 16))).astype(np.float32)
    index = vicinal.Index(16)
    index.add(rows)
    whole = index.copy()
    every = reference.distances(rows, queries, "l2")
    whole.remove([int(every.min(axis=0).argmax())])
    truth = np.argsort(every, axis=1)[:, :K]
    for ef in (32, 64, 128):
        early, _, fewer = asked(index, queries, K, ef)
        late, _, more = asked(whole, queries, K, ef - 1)
        assert fewer < more
        assert vicinal.recall_at_k(early, truth) >= vicinal.recall_at_k(late, truth) - 0.002


def test_walks_behind_a_filter_end_early() -> None:
    """Fewer candidates are expanded than are within the width, and no less is found."""
    rng = np.random.default_rng(1)
    middles = rng.normal(size=(40, 16)) * 2
    rows = (middles[np.arange(8000) % 40] + rng.normal(size=(8000, 16))).astype(np.float32)
    queries = (middles + rng.normal(size=(40, 16))).astype(np.float32)
    index = vicinal.Index(16)
    index.add(rows)
    for share, ef in ((0.5, 64), (0.5, 128), (0.3, 64)):
        allowed = rng.random(len(rows)) < share
        every = reference.distances(rows, queries, "l2")
        every[:, ~allowed] = np.inf
        truth = np.argsort(every, axis=1)[:, :K]
        filters = as_filters(allowed, len(index), len(queries), index._to_internal)
        hops, shares = [], []
        for plan in (2, 4):  # a walk to its end, and one that may choose
            ids, distances = np.empty((40, K), np.int64), np.empty((40, K), np.float32)
            before = index.search_stats()["hops"]
            native.index_search_filtered(
                index._handle, queries, K, ef, 1, *filters, plan, ids, distances
            )
            hops.append(index.search_stats()["hops"] - before)
            shares.append(vicinal.recall_at_k(ids, truth))
        assert index.stats()["filtered"]["scan"] == 0
        assert hops[1] < 0.95 * hops[0], (share, ef, hops)
        assert shares[1] >= shares[0] - 0.002
