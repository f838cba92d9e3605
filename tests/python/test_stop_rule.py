"""Walks that end by distance: fewer distances for a recall that was tuned for."""

from __future__ import annotations

import math
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import reference
import vicinal
from support.files import sections_of
from vicinal import _stop_rule
from vicinal._cpu import native
from vicinal._stop_rule import MOST_HELD, UNIT, StopRule, least_rule, rule_of, with_rule
from vicinal._tuning import tuned_walk, tuned_width

Array = np.ndarray[Any, np.dtype[Any]]
K = 10


def made(count: int = 6000, dim: int = 24, **options: Any) -> tuple[Any, Array, Array]:
    """Return an index of clusters of uneven width, queries to tune with, and others."""
    rng = np.random.default_rng(0)
    middles, spread = rng.normal(size=(60, dim)) * 3, rng.uniform(0.3, 2, 60)

    def drawn(n: int) -> Array:
        which = rng.integers(0, 60, n)
        noise = rng.normal(size=(n, dim)) * spread[which, None]
        return (middles[which] + noise).astype(np.float32)

    index = vicinal.Index(dim, **options)
    index.add(drawn(count))
    return index, drawn(500), drawn(500)


@pytest.fixture(scope="module")
def tuned() -> tuple[Any, Array, Array]:
    """A poor graph; every rule that reaches the recall is taken, be it worth it or not."""
    index, given, fresh = made(M=5, ef_construction=16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_stop_rule, "_WORTH", 2.0)
        for recall in (0.9, 0.99, 0.999):
            assert index.tune(recall, K, given).held is not None
    return index, given, fresh


def asked(index: Any, queries: Array, k: int = K, **how: Any) -> tuple[Array, float]:
    """Return ids, and how many distances a query took."""
    before = index.search_stats()["distances"]
    found = index.search(queries, k, **how)
    return found.ids, (index.search_stats()["distances"] - before) / len(queries)


# ---- what it saves


def test_a_recall_for_fewer_distances(minilm: Any) -> None:
    """Tuned on some queries, asked others: what was promised is found, also by the worst."""
    data = minilm
    index = vicinal.Index(data.base.shape[1], data.metric)
    index.add(data.base)
    every = reference.distances(data.base, data.queries, data.metric)
    truth = np.argsort(every, axis=1, kind="stable")[:, :K]
    half = len(truth) // 2
    ruled = 0
    for wanted in (0.95, 0.98, 0.99, 0.995):
        tuning = index.tune(wanted, K, data.queries[:half])
        width, more = asked(index, data.queries[half:], ef_search=tuning.ef_search)
        rule, fewer = asked(index, data.queries[half:], recall=wanted)
        if tuning.held is None:
            assert fewer == more
            continue
        ruled += 1
        assert tuning.ef_search < tuning.held <= MOST_HELD
        assert fewer < more
        hits = [np.isin(rule, truth[half:]).mean(), np.isin(width, truth[half:]).mean()]
        shares = [
            np.sort([np.isin(a, b).mean() for a, b in zip(ids, truth[half:], strict=True)])
            for ids in (rule, width)
        ]
        assert shares[0].mean() >= wanted - 0.01, hits
        worst = max(1, len(shares[0]) // 50)
        assert shares[0][:worst].mean() >= shares[1][:worst].mean() - 0.15
    assert ruled


def test_hard_queries_get_more_and_easy_ones_less(tuned: Any) -> None:
    index, given, _ = tuned
    tuning = index.tuned[1]
    spread = []
    for walk in (tuning.ef_search, tuned_walk(index, tuning.recall, K)):
        ids, distances = np.empty((len(given), K), np.int64), np.empty((len(given), K), np.float32)
        work = np.zeros(len(given), np.int64)
        native.index_search_counted(index._handle, given, K, walk, 1, ids, distances, work)
        spread.append(work)
    assert (spread[1] < spread[0]).mean() > 0.3 and (spread[1] > spread[0]).any()


def test_the_work_of_each_query_is_counted(tuned: Any) -> None:
    """By walks one by one and several at a time alike, and together as `search_stats` has them."""
    index, given, _ = tuned
    walk = tuned_walk(index, 0.99, K)
    ids, distances = np.empty((len(given), K), np.int64), np.empty((len(given), K), np.float32)
    for threads in (1, 3):
        work = np.zeros(len(given), np.int64)
        before = index.search_stats()["distances"]
        native.index_search_counted(index._handle, given, K, walk, threads, ids, distances, work)
        assert work.sum() == index.search_stats()["distances"] - before
        one = np.zeros(1, np.int64)
        for i in (0, 7, 400):
            native.index_search_counted(
                index._handle, given[i], K, walk, 1, ids[:1], distances[:1], one
            )
            assert one[0] == work[i]
    with pytest.raises(ValueError, match="work of 1 queries, there are 500"):
        native.index_search_counted(index._handle, given, K, walk, 1, ids, distances, one)


# ---- the same everywhere


def test_one_by_one_in_a_batch_and_traced(tuned: Any) -> None:
    index, _, fresh = tuned
    for recall in (0.9, 0.99, 0.999):
        batch = index.search(fresh[:60], K, recall=recall)
        for threads in (1, 2, 3):
            again = index.search(fresh[:60], K, recall=recall, num_threads=threads)
            assert np.array_equal(again.ids, batch.ids)
        tuning = next(t for t in index.tuned if t.recall == recall)
        for query, ids in zip(fresh[:60], batch.ids, strict=True):
            assert np.array_equal(index.search(query, K, recall=recall).ids, ids)
            trace = index.trace(query, K, recall=recall)
            assert np.array_equal(trace.result.ids, ids)
            assert trace.ef_search == tuning.ef_search
            assert trace.width == tuning.held and trace.far == tuning.far


def test_a_walk_ends_where_the_rule_says(tuned: Any) -> None:
    """No candidate that was expanded is beyond, once enough were; the next one is."""
    index, _, fresh = tuned
    tuning = index.tuned[-1]
    ended = 0
    for query in fresh[:40]:
        expanded: set[Any] = set()
        for step in index.trace(query, K, recall=tuning.recall):
            if step.level == 0:
                ids, distances = step.beam.ids, step.beam.distances
                expanded.add(step.id)
        place = next((i for i, id in enumerate(ids) if id not in expanded), None)
        if place is None:
            continue
        ended += 1
        # estimates are allowed an error of a part of the query's distance from the centre
        assert place >= tuning.ef_search // 4
        assert distances[place] > tuning.far * distances[K - 1] * 0.999
    assert ended > 20


def test_filters_and_other_k_go_by_the_width(tuned: Any) -> None:
    index, _, fresh = tuned
    tuning = index.tuned[1]
    assert tuned_width(index, tuning.recall, K) == tuning.ef_search
    assert tuned_walk(index, tuning.recall, K - 1) == tuning.ef_search
    allowed = index.ids % 3 != 0
    for how in ({"filter": allowed}, {"exclude": index.ids[:5]}):
        rule = index.search(fresh[:50], K, recall=tuning.recall, **how)
        width = index.search(fresh[:50], K, ef_search=tuning.ef_search, **how)
        assert np.array_equal(rule.ids, width.ids)


def test_beside_removed_rows_the_width_counts(tuned: Any) -> None:
    """Rows that are not seen would pass for the nearest."""
    index, _, fresh = tuned
    index = index.copy()
    tuning = index.tuned[1]
    index.remove(index.ids[:3])
    rule = index.search(fresh[:100], K, recall=tuning.recall)
    width = index.search(fresh[:100], K, ef_search=tuning.ef_search)
    assert np.array_equal(rule.ids, width.ids)


def test_tuning_is_the_same_for_any_number_of_threads() -> None:
    index, given, _ = made(6000)
    once = index.tune(0.99, K, given, num_threads=1)
    assert all(index.tune(0.99, K, given, num_threads=n) == once for n in (2, 3))


def test_products_have_no_rule() -> None:
    index, given, _ = made(4000, metric="ip")
    tuning = index.tune(0.95, K, given)
    assert (tuning.held, tuning.far) == (None, None)


# ---- the search for it


def test_the_rule_with_the_least_work_is_taken() -> None:
    """Reached from a factor of 1.25 on with 100 candidates, of 1.2 with 200."""

    def reaches(walk: int) -> bool:
        rule = rule_of(walk >> 32)
        assert rule is not None and walk & 0xFFFFFFFF == 50
        return rule.factor >= {100: 1.25, 200: 1.2}[rule.held]

    def work(costs: dict[int, float]) -> Callable[[int], float]:
        def of(walk: int) -> float:
            rule = rule_of(walk >> 32)
            return 1000 if rule is None else costs[rule.held] * rule.factor

        return of

    rule = least_rule(50, 4000, reaches, work({100: 600, 200: 700}))
    assert rule is not None and rule.held == 100 and 1.25 <= rule.factor < 1.26
    rule = least_rule(50, 4000, reaches, work({100: 900, 200: 700}))
    assert rule is not None and rule.held == 200 and 1.2 <= rule.factor < 1.21
    assert least_rule(50, 4000, reaches, work({100: 900, 200: 900})) is None, "not worth it"
    assert least_rule(50, 50, reaches, work({100: 1, 200: 1})) is None, "no more may be held"
    assert least_rule(50, 4000, lambda walk: False, work({100: 1, 200: 1})) is None


def test_a_lucky_rule_is_not_taken() -> None:
    def reaches(walk: int) -> bool:
        factor = (walk >> 47) / UNIT
        return 1.2 < factor < 1.22 or factor > 1.4

    rule = least_rule(50, 100, reaches, lambda walk: 1 if walk >> 32 else 100)
    assert rule is not None and 1.4 < rule.factor < 1.42


def test_a_rule_is_one_number() -> None:
    for rule in (StopRule(1, UNIT), StopRule(MOST_HELD, 16 * UNIT), StopRule(77, 1300)):
        assert rule_of(rule.word()) == rule
        assert with_rule(33, rule) == 33 + (rule.word() << 32)
    assert rule_of(0) is None
    assert with_rule(33, None) == 33
    for word in (-1, 1, MOST_HELD + 1 | UNIT << 15, 5 | (UNIT - 1) << 15, 5 | 1 << 40):
        with pytest.raises(ValueError, match="no rule has the number"):
            rule_of(word)


# ---- kept


def test_it_is_kept(tuned: Any, tmp_path: Path) -> None:
    index, _, fresh = tuned
    assert all(t.held is not None and t.far is not None for t in index.tuned)
    index.save(tmp_path / "index")
    compacted = index.copy()
    compacted.compact()
    for other in (
        vicinal.open(tmp_path / "index", verify=True),
        vicinal.open(tmp_path / "index", mode="copy"),
        pickle.loads(pickle.dumps(index)),
        index.copy(),
        compacted,
    ):
        assert other.tuned == index.tuned
        found = other.search(fresh[:50], K, recall=0.99)
        assert np.array_equal(found.ids, index.search(fresh[:50], K, recall=0.99).ids)


def test_a_living_file_keeps_it(tuned: Any, tmp_path: Path) -> None:
    index, _, _ = tuned
    index.save(tmp_path / "index")
    with vicinal.open(tmp_path / "index", mode="rw") as living:
        living.tune(0.97, K, np.asarray(tuned[1]))
        living.flush()
        expected = living.tuned
    assert vicinal.open(tmp_path / "index", mode="rw").tuned == expected


def test_files_without_rules_are_as_before(tmp_path: Path) -> None:
    """A reader that knows none goes by the width."""
    index, given, _ = made(4000, metric="ip")
    index.tune(0.95, K, given)
    index.save(tmp_path / "index")
    assert "stop_rules" not in sections_of((tmp_path / "index").read_bytes())
    assert vicinal.open(tmp_path / "index").tuned == index.tuned


@pytest.mark.parametrize("word", [-1, 5, 3 << 40])
def test_a_damaged_rule(tuned: Any, tmp_path: Path, word: int) -> None:
    index, _, fresh = tuned
    index.save(tmp_path / "index")
    data = bytearray((tmp_path / "index").read_bytes())
    struct.pack_into("<q", data, sections_of(data)["stop_rules"].offset, word)
    (tmp_path / "index").write_bytes(data)
    opened = vicinal.open(tmp_path / "index")
    assert opened.search(fresh[0]).ids.shape == (10,)
    with pytest.raises(vicinal.CorruptError, match="stop rules is damaged"):
        opened.search(fresh[0], recall=0.9)


def test_any_word_is_searched_with(tuned: Any) -> None:
    """The native search takes a rule as it comes: the numbers of a file cannot make it fail."""
    index, _, fresh = tuned
    rng = np.random.default_rng(1)
    ids, distances = np.empty((1, K), np.int64), np.empty((1, K), np.float32)
    for word in rng.integers(0, 2**62, 200).tolist():
        native.index_search(index._handle, fresh[0], K, word | 1, 1, ids, distances)
        assert (np.diff(distances[0]) >= 0).all() and math.isfinite(distances[0, -1])
