"""What searches return: similarities, Euclidean distances, `repr`, copies, pickles, tables."""

from __future__ import annotations

import copy
import pickle
import sys
import types
from typing import Any

import numpy as np
import pytest

import vicinal
from support.indexes import assert_same
from vicinal import RangeResult, SearchResult

ROWS = np.random.default_rng(0).standard_normal((60, 6)).astype(np.float32)
QUERIES = np.random.default_rng(1).standard_normal((4, 6)).astype(np.float32)


def made(metric: str) -> Any:
    index = vicinal.Index(6, metric)
    index.add(ROWS)
    return index


def unit(rows: Any) -> Any:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
def test_similarities_are_true(metric: str) -> None:
    index = made(metric)
    within = index.range_search(QUERIES, np.inf).of(2)
    for found in (index.search(QUERIES, 70), vicinal.exact_search(ROWS, QUERIES, 70, metric)):
        for i, query in enumerate(QUERIES.astype(np.float64)):
            rows = ROWS[found.ids[i, :60]].astype(np.float64)
            lengths = np.sqrt(((rows - query) ** 2).sum(axis=1))
            alike = {
                "l2": 1 / (1 + lengths),
                "ip": rows @ query,
                "cosine": unit(rows) @ unit(query),
            }[metric]
            np.testing.assert_allclose(found.similarities[i, :60], alike, rtol=1e-5, atol=1e-6)
            assert (found.similarities[i, 60:] == (0 if metric == "l2" else -np.inf)).all()
            if metric == "ip":
                continue
            if metric == "cosine":
                lengths = np.sqrt(((unit(rows) - unit(query)) ** 2).sum(axis=1))
            np.testing.assert_allclose(found.euclidean[i, :60], lengths, rtol=1e-4)
            assert np.isposinf(found.euclidean[i, 60:]).all()
        assert found.similarities.dtype == np.float32
        assert (np.diff(found.similarities[:, :60], axis=1) <= 0).all()
        np.testing.assert_allclose(within.similarities, found.similarities[2, :60], atol=3e-7)


def test_what_cannot_be_told() -> None:
    with pytest.raises(ValueError, match="euclidean: expected the result of another metric, got"):
        _ = made("ip").search(QUERIES).euclidean
    alone = SearchResult(np.array([1]), np.array([1.0], np.float32))
    for name in ("similarities", "euclidean"):
        with pytest.raises(ValueError, match=f"{name}: expected the result of a search"):
            getattr(alone, name)


def test_rounding_below_zero_has_a_root() -> None:
    kind = type(made("cosine").search(QUERIES))
    found = kind(np.arange(3), np.array([-6e-8, 0, 0.5], np.float32))
    np.testing.assert_array_equal(found.euclidean, np.array([0, 0, 1], np.float32))


def test_repr_fits_a_screen() -> None:
    index = vicinal.Index(6, ids="str")
    index.add(np.tile(ROWS, (5, 1)), ids=[f"{i:06d}" * 30 for i in range(300)])
    for found in (index.search(ROWS, 100), index.search(ROWS[0], 300)):
        lines = repr(found).splitlines()
        assert len(lines) < 25 and max(map(len, lines)) < 200
        assert repr(found).startswith("SearchResult(ids=array([")
    within = index.range_search(ROWS, np.inf)
    assert len(repr(within).splitlines()) < 25 and repr(within).startswith("RangeResult(ids=")
    few = made("l2").search(ROWS[0], 2)
    shown = f"SearchResult(ids={few.ids!r}, distances={few.distances!r})"
    assert repr(few) == shown


def test_copies_and_pickles() -> None:
    index = made("cosine")
    found, within = index.search(QUERIES), index.range_search(QUERIES, 0.5)
    for again in (pickle.loads(pickle.dumps(found)), copy.copy(found), copy.deepcopy(found)):
        assert isinstance(again, SearchResult)
        assert_same(again, found)
        np.testing.assert_array_equal(again.similarities, found.similarities)
    again = pickle.loads(pickle.dumps(within))
    assert isinstance(again, RangeResult)
    np.testing.assert_array_equal(again.of(1).similarities, within.of(1).similarities)
    ids, distances = found
    assert ids is found.ids and distances is found.distances
    plain = SearchResult(ids, distances)
    assert_same(pickle.loads(pickle.dumps(plain)), plain)


def test_to_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of pandas only the constructor is used; a module with it stands in where it is not there."""
    tables = types.ModuleType("pandas")
    tables.DataFrame = dict  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pandas", tables)
    found = made("l2").search(QUERIES, 61)
    table = found.to_pandas()
    assert list(table) == ["query", "rank", "id", "distance"]
    assert len(table["id"]) == 4 * 60 and table["rank"].max() == 59
    np.testing.assert_array_equal(table["id"], found.ids[:, :60].ravel())
    one = made("l2").search(QUERIES[0], 3).to_pandas()
    assert one["query"].tolist() == [0, 0, 0]
    near = made("l2").pairs(float(np.median(found.distances[np.isfinite(found.distances)])))
    table = near.to_pandas()
    assert list(table) == ["a", "b", "distance"]
    for column, wanted in zip(table.values(), near.arrays(), strict=True):
        np.testing.assert_array_equal(column, wanted)
    monkeypatch.setitem(sys.modules, "pandas", None)
    for each in (found, near):
        with pytest.raises(ImportError, match="pandas, which is not installed"):
            each.to_pandas()


def test_to_pandas_with_pandas() -> None:
    pandas = pytest.importorskip("pandas")
    table = made("l2").search(QUERIES, 3).to_pandas()
    assert isinstance(table, pandas.DataFrame) and table.shape == (12, 4)
