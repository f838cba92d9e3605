"""tune and search(recall=...): the width found, where it is kept, and what is refused."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vicinal
from support.rows import dims, stored
from vicinal._query_sample import QuerySample
from vicinal._self_test import graphs
from vicinal._tuning import _Sample

RNG = np.random.default_rng(5)
ROWS = RNG.standard_normal((4000, 40)).astype(np.float32)
QUERIES = RNG.standard_normal((300, 40)).astype(np.float32)


@pytest.fixture(scope="module")
def built() -> vicinal.Index:
    index = vicinal.Index(40, M=8, ef_construction=40)
    index.add(ROWS)
    return index


@pytest.fixture
def index(built: vicinal.Index) -> vicinal.Index:
    return built.copy()


@pytest.mark.parametrize("recall", [0.5, 0.8, 0.95, 0.999, 1.0])
def test_the_least_width(index: vicinal.Index, recall: float) -> None:
    tuning = index.tune(recall, 10, QUERIES)
    assert tuning.measured.recall >= recall
    assert index.measure_recall(QUERIES, ef_search=tuning.ef_search).recall >= recall
    least = tuning.ef_search - max(1, tuning.ef_search // 50)
    if tuning.ef_search > 10:
        assert index.measure_recall(QUERIES, ef_search=least).recall < recall
    # what a search of that recall finds is what was measured
    found = index.search(QUERIES, recall=recall)
    truth = index.search(QUERIES, exact=True)
    assert vicinal.recall_at_k(found.ids, truth.ids) == pytest.approx(tuning.measured.recall)
    if tuning.held is None:  # it is what a search of that width finds
        same = index.search(QUERIES, ef_search=tuning.ef_search)
        assert np.array_equal(found.ids, same.ids)


def test_fresh_queries_find_as_much(index: vicinal.Index) -> None:
    index.tune(0.9, 10, QUERIES)
    fresh = np.random.default_rng(9).standard_normal((1000, 40)).astype(np.float32)
    found = index.search(fresh, recall=0.9).ids
    truth = vicinal.exact_search(ROWS, fresh).ids
    assert vicinal.recall_at_k(found, truth) == pytest.approx(0.9, abs=0.02)


@pytest.mark.parametrize(("metric", "dtype", "quantization"), graphs())
def test_every_kind_of_index(metric: str, dtype: str, quantization: str | None) -> None:
    rows = RNG.integers(1, 90, (1500, 20))
    given = stored(rows, dtype)
    index = vicinal.Index(dims(20, dtype), metric, dtype=dtype, M=4, quantization=quantization)
    index.add(given)
    tuning = index.tune(0.9, 5, sample=100)
    assert tuning.measured.recall >= 0.9
    assert index.search(given[:3], 5, recall=0.9).ids.shape == (3, 5)


def test_a_small_index_needs_no_width() -> None:
    index = vicinal.Index(3)
    index.add(np.eye(3))
    assert index.tune(1.0, 2).ef_search == 1
    assert index.search(np.zeros(3), 2, recall=1.0).ids.tolist() == [0, 1]


def test_a_lucky_width_is_not_taken(index: vicinal.Index, monkeypatch: Any) -> None:
    """Recall that falls again with a wider search: the width beyond is taken."""
    real = dict.fromkeys(range(4000), 0.5)
    real |= dict.fromkeys(range(24, 29), 0.95)  # luck
    real |= dict.fromkeys(range(70, 4000), 0.95)
    monkeypatch.setattr(_Sample, "_shares", lambda self, width: np.full(10, real[width]))
    held = _Sample(index, QUERIES, 3, 10, 1)
    assert held.least_width(0.9) == 70
    assert held.least_width(0.5) == 3
    # never reached by a walk: a scan, of an eighth of the rows at the least
    assert held.least_width(0.99) == 500


def test_which_width_serves(index: vicinal.Index) -> None:
    few = index.tune(0.7, 5, QUERIES)
    many = index.tune(0.9, 10, QUERIES)
    assert index.tuned == (few, many)
    assert few.ef_search < many.ef_search

    def width(recall: float, k: int) -> int:
        traced = index.trace(QUERIES[0], k, recall=recall)
        found = index.search(QUERIES[0], k, recall=recall)
        assert np.array_equal(traced.result.ids, found.ids)
        return int(traced.ef_search)

    assert width(0.7, 5) == few.ef_search
    assert width(0.6, 4) == few.ef_search, "less is wanted than was tuned for"
    assert width(0.7, 6) == many.ef_search, "tuned for too small a k"
    assert width(0.8, 5) == many.ef_search, "tuned for too low a recall"
    for recall, k in [(0.91, 10), (0.9, 11), (1, 1)]:
        with pytest.raises(ValueError, match=f"tuned for, got {recall:g} for k={k}; tuned for: "):
            index.search(QUERIES, k, recall=recall)
    # the same pair again takes the place of the old one
    again = index.tune(0.7, 5, QUERIES[:100])
    assert index.tuned == (many, again)
    assert index.search(QUERIES[0], 5, recall=0.7).ids.shape == (5,)


def test_never_tuned(index: vicinal.Index) -> None:
    message = (
        r"recall: expected one that the index was tuned for, got 0\.95 for k=10; tuned for: "
        r"nothing; call index\.tune\(0\.95, k=10\) first"
    )
    with pytest.raises(ValueError, match=message):
        index.search(QUERIES, recall=0.95)
    with pytest.raises(ValueError, match="recall: expected ef_search or recall, got both"):
        index.search(QUERIES, ef_search=10, recall=0.95)


@pytest.mark.parametrize("recall", [0, -1, 1.0001, float("nan"), float("inf")])
def test_no_recall(index: vicinal.Index, recall: float) -> None:
    for call in (index.tune, lambda recall: index.search(QUERIES, recall=recall)):
        with pytest.raises(ValueError, match="recall: expected a number above 0 and at most 1"):
            call(recall)


@pytest.mark.parametrize("recall", ["0.9", True, None, [0.9]])
def test_no_number(index: vicinal.Index, recall: Any) -> None:
    with pytest.raises(TypeError, match="recall: expected a number above 0 and at most 1"):
        index.tune(recall)
    if recall is not None:
        with pytest.raises(TypeError, match="recall: expected a number above 0 and at most 1"):
            index.search(QUERIES, recall=recall)


def test_failed_tuning_changes_nothing(index: vicinal.Index) -> None:
    before = index.tune(0.8, 10, QUERIES)
    with pytest.raises(ValueError, match="queries: row 1 holds NaN"):
        index.tune(0.8, 10, [[0.0] * 40, [np.nan] * 40])
    assert index.tuned == (before,)


# ---- kept


@pytest.mark.parametrize("ids", ["int64", "str"])
def test_it_is_kept(tmp_path: Path, ids: str) -> None:
    index = vicinal.Index(40, M=8, ef_construction=40, ids=ids)
    index.add(ROWS[:2000], [str(i) for i in range(2000)] if ids == "str" else None)
    index.save(tmp_path / "untuned")
    assert vicinal.open(tmp_path / "untuned").tuned == ()
    tuned = (index.tune(0.8, 10, QUERIES), index.tune(0.9, 5, QUERIES))
    index.save(tmp_path / "tuned")
    expected = index.search(QUERIES, recall=0.8)
    opened = [
        vicinal.open(tmp_path / "tuned", verify=True),
        vicinal.open(tmp_path / "tuned", mode="copy"),
        pickle.loads(pickle.dumps(index)),
        index.copy(),
    ]
    for other in opened:
        assert other.tuned == tuned
        assert np.array_equal(other.search(QUERIES, recall=0.8).ids, expected.ids)
    # a read-only index can be tuned as well, and saved over its own file
    third = opened[0].tune(0.5, 3, QUERIES)
    assert opened[0].tuned == (*tuned, third)
    opened[0].save(tmp_path / "tuned")
    assert vicinal.open(tmp_path / "tuned", verify=True).tuned == (*tuned, third)


def test_tuned_once_does_not_change_the_rest_of_the_file(
    built: vicinal.Index, tmp_path: Path
) -> None:
    index = built.copy()
    built.save(tmp_path / "untuned")
    tuning = index.tune(0.8, 10, QUERIES)
    index.save(tmp_path / "tuned")
    one, other = ((tmp_path / name).read_bytes() for name in ("untuned", "tuned"))
    assert struct.unpack_from("<I", other, 8) == (1,), "readers of version 1 may ignore it"
    (before,), (after,) = (struct.unpack_from("<q", data, 24) for data in (one, other))
    assert after == before + 1 + (tuning.held is not None)
    # the sections in front are the same bytes
    (end,) = struct.unpack_from("<q", one, 256 + 64 * (before - 1) + 16)
    assert one[4096:end] == other[4096:end]


@pytest.mark.parametrize(
    ("word", "value"),
    [(0, 0), (1, -5), (1, 2**40), (2, 0), (3, -1), (4, 0), (4, 0x7FF8000000000000), (6, -1)],
)
def test_a_damaged_table(index: vicinal.Index, tmp_path: Path, word: int, value: int) -> None:
    index.tune(0.8, 10, QUERIES)
    index.save(tmp_path / "file")
    data = bytearray((tmp_path / "file").read_bytes())
    (count,) = struct.unpack_from("<q", data, 24)
    (place,) = (
        struct.unpack_from("<q", data, 256 + 64 * i + 16)[0]
        for i in range(count)
        if data[256 + 64 * i :].startswith(b"tuning\0")
    )
    struct.pack_into("<q", data, place + 8 * word, value)
    (tmp_path / "file").write_bytes(data)
    opened = vicinal.open(tmp_path / "file")
    assert opened.search(QUERIES[0]).ids.shape == (10,)
    with pytest.raises(vicinal.CorruptError, match="table of tuned search widths is damaged"):
        opened.search(QUERIES[0], recall=0.8)
    with pytest.raises(vicinal.CorruptError, match="table of tuned search widths is damaged"):
        opened.tune(0.7)


def test_stale() -> None:
    index = vicinal.Index(40, M=4)
    assert not index.stats()["tuning_stale"]
    index.add(ROWS[:1000])
    tuning = index.tune(0.8, 10, QUERIES)
    assert index.stats()["tuned"] == (tuning,)
    index.add(ROWS[1000:2000])
    assert not index.stats()["tuning_stale"]
    index.add(ROWS[2000:2001])
    assert index.stats()["tuning_stale"]
    assert index.search(QUERIES[0], recall=0.8).ids.shape == (10,), "it is told, not refused"
    index.tune(0.8, 10, QUERIES)
    assert not index.stats()["tuning_stale"]
    assert tuning.stale(499)
    assert not tuning.stale(500)


# ---- without queries that are given


def test_assumed_queries_are_harder_than_rows_and_than_queries_like_them(
    recall: Any, minilm: Any
) -> None:
    """A recall that was tuned for is kept with queries that nobody gave."""
    index = vicinal.Index(384, "cosine")
    index.add(minilm.base)
    for wanted in (0.9, 0.95, 0.99):
        tuning = index.tune(wanted)
        assert tuning.queries == "assumed"
        assert recall(index.search(minilm.queries, recall=wanted), minilm) >= wanted
    stored = index.measure_recall(ef_search=tuning.ef_search, sample=1000)
    assert stored.recall > tuning.measured.recall, "stored rows find their neighbours more easily"


def test_assumed_queries_of_bytes(sift: Any) -> None:
    index = vicinal.Index(128, dtype="uint8")
    index.add(sift.base[:4500])
    assert index.tune(0.95) == index.tune(0.95, num_threads=1), "not left to chance"
    found = index.search(sift.base[4500:], recall=0.95)
    truth = vicinal.exact_search(sift.base[:4500], sift.base[4500:])
    assert vicinal.recall_at_k(found.ids, truth.ids) >= 0.95


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
@pytest.mark.parametrize("dtype", ["float32", "int8", "uint8"])
def test_assumed_queries_are_queries(metric: str, dtype: str) -> None:
    """Rows that are all equal, or that cannot be moved, are asked for themselves."""
    for rows in (np.ones((1100, 7)), np.eye(1100, 7) + np.eye(1100, 7, -7)[::-1] * 100):
        rows[:, 0] += 1
        index = vicinal.Index(7, metric, dtype=dtype)
        index.add(rows.astype(dtype))
        assert index.tune(0.5, 3, sample=50).measured.sample == 50
    large = vicinal.Index(2)
    large.add([[2.8e18, 0], [-2.8e18, 0], [0, 1]])
    assert large.tune(0.9, 1).queries == "assumed"


def test_kept_queries(index: vicinal.Index) -> None:
    index.keep_queries(250)
    given = index.tune(0.9, 10, QUERIES)
    assert given.queries == "given"
    for query in QUERIES[:99]:
        index.search(query)
    assert index.tune(0.9).queries == "assumed", "too few are kept"
    index.search(QUERIES[99:])

    kept = index.tune(0.9)
    assert (kept.queries, kept.measured.sample) == ("kept", 250)
    assert index.measure_recall(ef_search=kept.ef_search) == kept.measured
    assert abs(kept.ef_search - given.ef_search) <= given.ef_search // 5
    for other in (index.copy(), pickle.loads(pickle.dumps(index))):
        assert other.tune(0.9) == kept and other.tune(0.9).queries == "kept"
    assert [t.queries for t in index.copy().tuned] == [None]
    index.keep_queries(0)
    assert index.tune(0.9).queries == "assumed"
    for wrong, error in ((-1, ValueError), (1.5, TypeError), (True, TypeError)):
        with pytest.raises(error, match="count: expected a whole number"):
            index.keep_queries(wrong)


def test_refused_queries_are_not_kept(index: vicinal.Index) -> None:
    index.keep_queries()
    index.search(QUERIES)
    with pytest.raises(ValueError, match="queries: row 0 holds NaN"):
        index.search(np.full(40, np.nan, np.float32))
    assert index.measure_recall().sample == 300


def test_each_query_is_kept_as_likely_as_another() -> None:
    counts = np.zeros(1000, int)
    for start in range(200):
        sample = QuerySample(100, 2, np.dtype(np.float32))
        numbers = (np.arange(1000) + start * 5) % 1000  # whoever comes first is another one
        rows = np.stack([numbers, np.ones(1000)], axis=1).astype(np.float32)
        for part in np.split(rows, [3, 90, 140, 141, 700]):
            sample.take(part)
        kept = sample.queries("l2")[:, 0].astype(int)
        assert len(kept) == len(set(kept)) == 100
        counts[kept] += 1
    # 200 samples of a tenth: each about 20 times, by place in the order as well as by number
    assert counts.mean() == 20 and counts.min() > 8 and counts.max() < 35
