"""measure_recall against a slow reference, and its interval against recall that is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import vicinal
from reference import jaccard
from support.rows import dims, stored
from vicinal._assumed_queries import draw
from vicinal._self_test import graphs
from vicinal._tuning import interval

QUERIES, K = 60, 7


def rows_of(dtype: str, count: int, dim: int, seed: int) -> np.ndarray:
    """Whole numbers, so that each kind of codes can hold them."""
    rows = np.random.default_rng(seed).integers(-40 if dtype == "int8" else 1, 90, (count, dim))
    return stored(rows, dtype)


def measured_by_hand(index: vicinal.Index, queries: np.ndarray) -> np.ndarray:
    """Distances of queries from all rows as they are stored, in float64."""
    rows = index.get(index.ids)
    if index.dtype == "bfloat16":
        rows, queries = (
            (part.astype(np.uint32) << 16).view(np.float32) if part.dtype == np.uint16 else part
            for part in (rows, queries)
        )
    if index.metric == "hamming":
        return np.unpackbits(queries[:, None] ^ rows, axis=2).sum(axis=2).astype(np.float64)
    if index.metric == "jaccard":
        return jaccard(rows, queries)
    rows, queries = rows.astype(np.float64), queries.astype(np.float64)
    if index.metric == "l2":
        return ((queries[:, None] - rows) ** 2).sum(axis=2)
    if index.metric == "cosine":
        queries = queries / np.linalg.norm(queries, axis=1)[:, None]
        if index.dtype in ("int8", "uint8"):
            rows = rows / np.linalg.norm(rows, axis=1)[:, None]
    return 1 - queries @ rows.T


def reference(index: vicinal.Index, queries: np.ndarray, own: np.ndarray | None, ef: int) -> float:
    """Recall as it is defined, one query at a time."""
    shares = []
    position = {id: row for row, id in enumerate(index.ids.tolist())}
    for i, distances in enumerate(measured_by_hand(index, queries)):
        found = index.search(queries[i], K + (own is not None), ef_search=ef).ids.tolist()
        if own is not None:
            distances[position[own[i]]] = np.inf
            if own[i] in found:
                found.remove(own[i])
        farthest = np.sort(distances)[K - 1]
        farthest += abs(farthest) * 1e-6 + 1e-6  # rounding to float32
        shares.append(sum(distances[position[id]] <= farthest for id in found[:K]) / K)
    return float(np.mean(shares))


@pytest.mark.parametrize(("metric", "dtype", "quantization"), graphs())
def test_it_agrees_with_the_definition(metric: str, dtype: str, quantization: str | None) -> None:
    options: dict[str, Any] = {"dtype": dtype, "quantization": quantization}
    index = vicinal.Index(dims(24, dtype), metric, M=4, ef_construction=16, **options)
    index.add(rows_of(dtype, 1500, 24, 1), ids=np.arange(1500) * 3 - 7)
    queries = rows_of(dtype, QUERIES, 24, 2)
    assert index.stats()["search"] == "graph"
    measured = index.measure_recall(queries, K, ef_search=10)
    expected = reference(index, queries, None, 10)
    assert measured.recall == pytest.approx(expected, abs=1e-9)
    assert 0.2 < measured.recall < 0.999, "nothing to measure"
    assert float(measured) == measured.recall
    assert 0 <= measured.low < measured.recall < measured.high <= 1
    assert (measured.k, measured.ef_search, measured.sample) == (K, 10, QUERIES)
    # stored rows look for others than themselves
    rows = index.measure_recall(k=K, sample=QUERIES, ef_search=10)
    own = index.ids[draw(1500, QUERIES)]
    expected = reference(index, index.get(own), own, 10)
    assert rows.recall == pytest.approx(expected, abs=1e-9)
    # so wide a search is a scan
    assert index.measure_recall(queries, K, ef_search=1500).recall == 1


def test_on_real_data(minilm: Any) -> None:
    index = vicinal.Index(384, "cosine")
    index.add(minilm.base)
    found = index.search(minilm.queries, 10, ef_search=16)
    truth = vicinal.exact_search(minilm.base, minilm.queries, 10, "cosine")
    expected = vicinal.recall_at_k(found.ids, truth.ids)
    measured = index.measure_recall(minilm.queries, ef_search=16)
    assert measured.recall == pytest.approx(expected, abs=0.002)
    assert measured.low < expected < measured.high


def test_ties_count_whichever_row_is_found() -> None:
    index = vicinal.Index(2, M=4, ef_construction=20)
    index.add(np.repeat(np.arange(400, dtype=np.float32), 10)[:, None] * [1, 0] + [0, 1])
    queries = np.array([[5, 1], [200, 1], [399, 1]], np.float32)
    # of ten equal rows any three are right, though ids differ from those of an exact search
    truth = index.search(queries, 3, ef_search=4000)
    found = index.search(queries, 3, ef_search=16)
    measured = index.measure_recall(queries, 3, ef_search=16)
    near = (found.distances <= truth.distances[:, -1:]).mean()
    assert measured.recall == near == 1


def test_a_row_does_not_count_itself() -> None:
    index = vicinal.Index(1)
    index.add([[0.0], [1.0]])
    measured = index.measure_recall(k=5)
    assert (measured.recall, measured.sample) == (1, 2)
    # where walks are short, rows find themselves more easily than their neighbours
    many = vicinal.Index(64, M=2, ef_construction=2, quantization=None)
    many.add(np.random.default_rng(0).standard_normal((3000, 64)))
    own = many.measure_recall(k=1, sample=500, ef_search=2)
    assert own.recall < 0.9


def test_duplicates_of_the_query_row() -> None:
    index = vicinal.Index(2)
    index.add(np.ones((50, 2), np.float32))
    # the row itself may not be among the first six of fifty equal ones
    assert index.measure_recall(k=5).recall == 1


@pytest.mark.parametrize("quantization", [None, "rabitq4"])
def test_string_ids_change_nothing(quantization: str | None) -> None:
    rows = np.random.default_rng(4).standard_normal((2000, 32))
    plain = vicinal.Index(32, quantization=quantization, M=4)
    named = vicinal.Index(32, quantization=quantization, M=4, ids="str")
    plain.add(rows)
    named.add(rows, [f"row {i}" for i in range(2000)])
    for queries in (None, rows[:50] + 0.1):
        one, other = (i.measure_recall(queries, ef_search=12) for i in (plain, named))
        assert one == other
        assert one.recall < 1


def test_same_call_same_sample() -> None:
    index = vicinal.Index(16, M=3, ef_construction=8)
    index.add(np.random.default_rng(0).standard_normal((3000, 16)))
    first = index.measure_recall(sample=200, ef_search=10)
    assert first == index.measure_recall(sample=200, ef_search=10, num_threads=1)
    assert first.sample == 200
    assert first.recall < 1
    # a wider search finds more
    assert index.measure_recall(sample=200, ef_search=100).recall > first.recall
    index.ef_search = 10
    assert index.measure_recall(sample=200) == first


@pytest.mark.parametrize(
    ("count", "sample"), [(1, 1), (10, 9), (10, 10), (10, 99), (1000, 3), (1000, 499), (1000, 501)]
)
def test_draw(count: int, sample: int) -> None:
    drawn = draw(count, sample)
    assert len(drawn) == min(count, sample)
    assert (np.diff(drawn) > 0).all()
    assert drawn[0] >= 0
    assert drawn[-1] < count
    assert np.array_equal(drawn, draw(count, sample))


def test_draw_is_even() -> None:
    drawn = draw(1_000_000, 1000)
    assert np.histogram(drawn, 10, (0, 1_000_000))[0].min() > 60


# ---- the interval


@pytest.mark.parametrize("recall", [0.5, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("together", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("sample", [100, 1000])
def test_coverage(recall: float, together: float, sample: int) -> None:
    """Of intervals of samples with a known recall about 95 % hold it.

    `together` is the part of queries whose ten neighbours are found or lost as one.
    """
    rng = np.random.default_rng(int(1000 * recall) + sample)
    rounds, k = 2000, 10
    alone = rng.binomial(k, recall, (rounds, sample)) / k
    as_one = rng.random((rounds, sample)) < recall
    shares = np.where(rng.random((rounds, sample)) < together, as_one, alone).astype(np.float64)
    held = 0
    for row in shares:
        low, high = interval(row, k)
        assert 0 <= low <= row.mean() <= high <= 1
        held += low <= recall <= high
    assert (0.89 if sample == 100 else 0.92) <= held / rounds <= 0.99


def test_interval_by_hand() -> None:
    # Wilson's interval of 8 of 10 hits, from any table
    shares = np.array([1.0] * 8 + [0.0] * 2)
    assert interval(shares, 1) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    # ten of each query together are no more than one
    assert interval(shares, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    # all found: 100 queries at the least
    low, high = interval(np.ones(100), 10)
    assert high == 1
    assert low == pytest.approx(1 / (1 + 1.96**2 / 100), abs=1e-4)
    assert interval(np.array([1.0]), 10)[0] < 0.3


# ---- refused


def test_what_is_refused() -> None:
    index = vicinal.Index(4)
    with pytest.raises(ValueError, match="index: expected rows to measure, got an empty index"):
        index.measure_recall()
    index.add(np.zeros((1, 4)))
    with pytest.raises(ValueError, match="more rows than the one that is the query"):
        index.measure_recall()
    index.add(np.ones((9, 4)))
    for arguments, message in [
        ({"k": 0}, "k: expected a whole number from 1"),
        ({"sample": 0}, "sample: expected a whole number from 1"),
        ({"ef_search": 0}, "ef_search: expected a whole number from 1"),
        ({"num_threads": 0}, "num_threads: expected"),
        ({"queries": np.zeros((2, 5))}, r"queries: expected \(n, 4\) or \(4,\), got \(2, 5\)"),
        ({"queries": np.zeros((0, 4))}, "queries: expected at least one"),
        ({"queries": np.full((3, 4), np.nan)}, "queries: row 0 holds NaN"),
    ]:
        with pytest.raises(ValueError, match=message):
            index.measure_recall(**arguments)
    with pytest.raises(TypeError, match="k: expected a whole number"):
        index.measure_recall(k=2.5)  # type: ignore[arg-type]
    # one query, and more neighbours than rows
    assert index.measure_recall(np.zeros(4), k=100).recall == 1
