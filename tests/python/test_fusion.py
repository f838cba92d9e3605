"""Fused lists are what a reference of a few lines says, whatever is missing, tied or repeated."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vicinal
from vicinal import SearchResult, fuse

METHODS = ("relative", "reciprocal", "linear")


def reference(lists: Any, method: str, weights: Any = None, k: int = 60, limit: int = 10) -> Any:
    """Fuse lists of (id, score) pairs one by one, in exact arithmetic: [(id, score, ranks)]."""
    if weights is None:
        weights = [Fraction(1, 1 if method == "reciprocal" else len(lists))] * len(lists)
    total: dict[Any, Fraction] = {}
    ranks: dict[Any, list[int]] = {}
    cleaned = []
    for pairs in lists:
        best: dict[Any, Fraction] = {}
        for name, score in sorted(pairs, key=lambda pair: -pair[1]):
            best.setdefault(name, Fraction(score))
        cleaned.append(best)
    every = set().union(*cleaned)
    for number, (best, weight) in enumerate(zip(cleaned, weights, strict=True)):
        least = min(best.values(), default=Fraction(0))
        span = max(best.values(), default=Fraction(0)) - least
        for name in every:
            part = Fraction(min(least, Fraction(0))) if method == "linear" else Fraction(0)
            if name in best:
                place = 1 + list(best).index(name)
                ranks.setdefault(name, [-1] * len(lists))[number] = place
                if method == "reciprocal":
                    part = Fraction(1, k + place)
                elif method == "relative":
                    part = (best[name] - least) / span if span else Fraction(1)
                else:
                    part = best[name]
            total[name] = total.get(name, Fraction(0)) + Fraction(weight) * part

    def best_rank(name: Any) -> float:
        places = [r for r, w in zip(ranks[name], weights, strict=True) if r > 0 and w > 0]
        return min(places, default=math.inf)

    def key(name: Any) -> Any:
        return best_rank(name) == math.inf, -total[name], best_rank(name), name

    return [(name, float(total[name]), ranks[name]) for name in sorted(every, key=key)][:limit]


def pairs_of(lists: Any) -> list[Any]:
    return [([name for name, _ in pairs], [score for _, score in pairs]) for pairs in lists]


# Few ids and few scores, so that ties, repeats and hits of one list only are frequent. Scores and
# weights are small multiples of powers of two: sums are exact.
SCORES = st.integers(-8, 8).map(lambda number: number / 4)
LISTS = st.lists(
    st.lists(st.tuples(st.integers(-3, 6), SCORES), max_size=8), min_size=1, max_size=4
)


@given(LISTS, st.sampled_from(METHODS), st.data())
@settings(max_examples=300, deadline=None)
def test_any_lists_as_the_reference_fuses_them(lists: Any, method: str, data: Any) -> None:
    weights = data.draw(
        st.none()
        | st.lists(
            st.sampled_from([0, 0.5, 1, 2]), min_size=len(lists), max_size=len(lists)
        ).filter(any)
    )
    limit = data.draw(st.integers(1, 12))
    got = fuse(*pairs_of(lists), method=method, weights=weights, limit=limit)
    wanted = reference(lists, method, weights, limit=100)
    scores = {name: score for name, score, _ in wanted}
    places = {name: ranks for name, _, ranks in wanted}
    assert len(set(got.ids.tolist())) == len(got.ids) == min(limit, len(wanted))
    best = [score for _, score, _ in wanted[:limit]]
    np.testing.assert_allclose(got.scores, best, rtol=1e-12, atol=1e-12)
    # thirds in floating point may part what is equal in fractions
    mine = [scores[name] for name in got.ids.tolist()]
    np.testing.assert_allclose(got.scores, mine, rtol=1e-12, atol=1e-12)
    assert got.ranks.T.tolist() == [places[name] for name in got.ids.tolist()]
    if method == "linear" and weights is not None:  # sums of whole quarters are exact
        assert got.ids.tolist() == [name for name, _, _ in wanted[:limit]]


@given(LISTS, st.sampled_from(METHODS), st.randoms())
@settings(max_examples=100, deadline=None)
def test_the_order_of_the_lists_makes_no_difference(lists: Any, method: str, random: Any) -> None:
    order = list(range(len(lists)))
    random.shuffle(order)
    one = fuse(*pairs_of(lists), method=method, limit=20)
    other = fuse(*pairs_of([lists[i] for i in order]), method=method, limit=20)
    np.testing.assert_array_equal(other.ids, one.ids)
    np.testing.assert_array_equal(other.scores, one.scores)
    np.testing.assert_array_equal(other.ranks, one.ranks[order])
    np.testing.assert_array_equal(other.list_scores, one.list_scores[order])


@pytest.mark.parametrize("method", METHODS)
def test_strings_are_fused_as_integers_are(method: str) -> None:
    one = [(4, 2.0), (1, 2.0), (3, 0.5)], [(3, 9.0), (2, 9.0), (4, 1.0)]
    names = {1: "a", 2: "b", 3: "c\0", 4: "c\0\0"}  # NumPy's strings would lose the zeros
    by_name = [[(names[name], score) for name, score in pairs] for pairs in one]
    numbers, strings = fuse(*pairs_of(one), method=method), fuse(*pairs_of(by_name), method=method)
    assert strings.ids.tolist() == [names[name] for name in numbers.ids.tolist()]
    assert all(type(name) is str for name in strings.ids)
    np.testing.assert_array_equal(strings.scores, numbers.scores)


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_is_its_queries_one_by_one(method: str) -> None:
    rng = np.random.default_rng(5)
    first = rng.integers(0, 12, (20, 6)), rng.integers(0, 5, (20, 6)) / 4.0
    second = rng.integers(0, 12, (20, 9)), rng.integers(-5, 5, (20, 9)) / 4.0
    first[1][3:6, 2:] = -np.inf  # padding
    first[1][7] = -np.inf
    together = fuse(first, second, method=method, limit=15)
    for i in range(20):
        alone = fuse(
            *[(ids[i], scores[i]) for ids, scores in (first, second)], method=method, limit=15
        )
        width = len(alone.ids)
        np.testing.assert_array_equal(together.ids[i, :width], alone.ids)
        np.testing.assert_array_equal(together.scores[i, :width], alone.scores)
        np.testing.assert_array_equal(together.ranks[:, i, :width], alone.ranks)
        np.testing.assert_array_equal(together.list_scores[:, i, :width], alone.list_scores)
        assert (together.ids[i, width:] == -1).all()
        assert (together.scores[i, width:] == -np.inf).all()
        assert (together.ranks[:, i, width:] == -1).all()
        assert np.isnan(together.list_scores[:, i, width:]).all()


def test_reciprocal_ranks_by_hand() -> None:
    fused = fuse(([10, 20, 30], [3.0, 2.0, 1.0]), ([30, 40], [0.9, 0.1]), method="reciprocal")
    assert fused.ids.tolist() == [30, 10, 20, 40]
    np.testing.assert_allclose(fused.scores, [1 / 63 + 1 / 61, 1 / 61, 1 / 62, 1 / 62])
    assert fused.ranks.tolist() == [[3, 1, 2, -1], [1, -1, -1, 2]]
    np.testing.assert_array_equal(
        fused.list_scores, [[1.0, 3.0, 2.0, np.nan], [0.9, np.nan, np.nan, 0.1]]
    )
    again = fuse(([10, 20, 30], None), ([30, 40], None), method="rrf")
    np.testing.assert_array_equal(again.scores, fused.scores)
    assert np.isnan(again.list_scores).all()


def test_relative_scores_by_hand() -> None:
    fused = fuse(([1, 2, 3], [10.0, 5.0, 0.0]), ([3, 4], [0.75, 0.25]))
    assert fused.ids.tolist() == [1, 3, 2, 4]
    assert fused.scores.tolist() == [0.5, 0.5, 0.25, 0.0]
    weighted = fuse(([1, 2, 3], [10.0, 5.0, 0.0]), ([3, 4], [0.75, 0.25]), weights=[0.25, 0.75])
    assert weighted.ids.tolist() == [3, 1, 2, 4]
    assert weighted.scores.tolist() == [0.75, 0.25, 0.125, 0.0]


def test_a_hit_of_one_list_only_is_weighted_and_is_not_lost() -> None:
    fused = fuse(([1], [5.0]), ([2], [5.0]), weights=[0.9, 0.1])
    assert fused.ids.tolist() == [1, 2]
    assert fused.scores.tolist() == [0.9, 0.1]


def test_what_stands_in_lists_of_weight_0_only_comes_last() -> None:
    pure, other = ([1, 2, 3], [0.9, 0.8, 0.1]), ([7, 1], [9.0, 8.0])
    for method in METHODS:
        fused = fuse(pure, other, method=method, weights=[1, 0])
        assert fused.ids.tolist() == [1, 2, 3, 7], method


def test_linear_does_not_reward_absence_where_scores_are_negative() -> None:
    fused = fuse(([1, 2], [-1.0, -50.0]), ([1, 3], [-2.0, -3.0]), method="linear", weights=[1, 1])
    assert fused.ids.tolist() == [1, 2, 3]
    assert fused.scores.tolist() == [-3.0, -53.0, -53.0]


def test_scores_do_not_depend_on_the_limit() -> None:
    rng = np.random.default_rng(3)
    lists = [(rng.permutation(200)[:100], rng.random(100)) for _ in range(2)]
    for method in METHODS:
        long = fuse(*lists, method=method, limit=1000)
        short = fuse(*lists, method=method, limit=7)
        np.testing.assert_array_equal(short.ids, long.ids[:7])
        np.testing.assert_array_equal(short.scores, long.scores[:7])


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
def test_distances_of_a_search_are_turned_round(metric: str) -> None:
    rng = np.random.default_rng(8)
    rows = rng.standard_normal((50, 8), dtype=np.float32)
    index = vicinal.Index(8, metric)
    index.add(rows)
    found = index.search(rows[:5], k=10)
    for method in METHODS:
        alone = fuse(found, method=method)
        np.testing.assert_array_equal(alone.ids, found.ids)  # nearest stays first
        np.testing.assert_array_equal(alone.list_scores[0], found.distances)
    linear = fuse(found, method="linear")
    np.testing.assert_array_equal(linear.scores, 1.0 - found.distances.astype(np.float64))
    by_hand = fuse((found.ids, -found.distances))
    np.testing.assert_array_equal(by_hand.scores, fuse(found).scores)


def test_tiny_distances_stay_apart() -> None:
    found = SearchResult(np.array([5, 6, 7]), np.array([1e-30, 2e-30, 3e-30], np.float32))
    assert fuse(found).scores.tolist() == pytest.approx([1.0, 0.5, 0.0])


def test_padding_of_searches_is_left_out() -> None:
    index = vicinal.Index(2, ids="str")
    index.add([[0, 0], [1, 1]], ids=["a", "b"])
    found = index.search([[0, 0], [1, 1]], k=4)
    none = index.search([[0, 0], [1, 1]], k=4, filter=[])
    assert none.ids.tolist() == [[None] * 4] * 2
    fused = fuse(found, none, (np.array([["c"], ["a"]]), [[3.0], [4.0]]))
    assert fused.ids.tolist() == [["a", "c", "b"], ["a", "b", None]]
    numbers = vicinal.Index(2)
    numbers.add([[0, 0], [1, 1]], ids=[-1, 5])  # -1 is an id like others
    assert fuse(numbers.search([0, 0], k=4)).ids.tolist() == [-1, 5]


def test_nothing_to_fuse() -> None:
    fused = fuse(([], []), ([], []))
    assert fused.ids.shape == fused.scores.shape == (0,)
    assert fused.ranks.shape == fused.list_scores.shape == (2, 0)
    assert fuse((np.empty((3, 0), np.int64), np.empty((3, 0)))).ids.shape == (3, 0)
    assert fuse((np.empty((0, 5), np.int64), np.empty((0, 5)))).ids.shape == (0, 0)
    assert fuse(([], []), (["a"], [1.0])).ids.tolist() == ["a"]


def test_scores_of_any_size() -> None:
    huge = fuse(([1, 2, 3], [1.7e308, 0.0, -1.7e308]))
    assert huge.scores.tolist() == [1.0, 0.5, 0.0]
    with pytest.raises(ValueError, match="within the range of float64"):
        fuse(([1], [1.7e308]), ([1], [1.7e308]), method="linear", weights=[1, 1])


def test_a_fused_list_is_a_list_again() -> None:
    first = fuse(([1, 2], [2.0, 1.0]), ([2, 3], [2.0, 1.0]))
    assert fuse(first[:2]).ids.tolist() == first.ids.tolist()


GOOD = ([1, 2], [0.5, 0.25])
Call = Callable[[], object]


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: fuse(), ValueError, "lists: expected at least one, got none"),
        (lambda: fuse(GOOD, 5), TypeError, r"lists\[1\]: expected a SearchResult or a pair"),
        (lambda: fuse(GOOD, (["a"], [1.0])), TypeError, "lists: expected integers in all or str"),
        (lambda: fuse(([1.5], [1.0])), TypeError, r"lists\[0\] ids: expected integers or strings"),
        (lambda: fuse(([1, "a"], [1.0, 2.0])), TypeError, r"lists\[0\] ids: expected strings"),
        (lambda: fuse(([[[1]]], [[[1.0]]])), ValueError, r"lists\[0\] ids: expected shape"),
        (lambda: fuse(([1, 2], [1.0])), ValueError, r"lists\[0\] scores: expected \(2,\) as ids"),
        (lambda: fuse(([1], ["x"])), TypeError, r"lists\[0\] scores: expected an array of real"),
        (lambda: fuse(([1, 2], [1.0, np.nan])), ValueError, "got nan at position 1"),
        (lambda: fuse(([1, 2], [np.inf, 1.0])), ValueError, "got inf at position 0"),
        (lambda: fuse(GOOD, ([[1]], [[1.0]])), ValueError, "all of one query or all of a batch"),
        (lambda: fuse(([1], None)), ValueError, r"lists\[0\] scores: expected numbers for method"),
        (lambda: fuse(GOOD, method="mean"), ValueError, "method: expected 'relative', 'recip"),
        (lambda: fuse(GOOD, method=None), TypeError, "method: expected"),
        (lambda: fuse(GOOD, weights=[1, 2]), ValueError, r"weights: expected \(1,\)"),
        (lambda: fuse(GOOD, weights=[-1]), ValueError, "weights: expected numbers from 0"),
        (lambda: fuse(GOOD, weights=[0]), ValueError, "weights: expected numbers from 0"),
        (lambda: fuse(GOOD, weights=["a"]), TypeError, "weights: expected an array of real"),
        (lambda: fuse(GOOD, k=-1), ValueError, "k: expected a number from 0, got -1"),
        (lambda: fuse(GOOD, k="60"), TypeError, "k: expected a real number"),
        (lambda: fuse(GOOD, limit=0), ValueError, "limit: expected a whole number from 1"),
    ],
)
def test_refusals(call: Call, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()


def test_words_and_vectors_find_more_than_either(minilm: Any) -> None:
    """Two halves of the same vectors, searched apart: the fused list beats both."""
    base, queries, truth = minilm.base, minilm.queries[:100], minilm.truth[:100, :10]
    halves = []
    for part in (slice(0, 60), slice(60, 120)):
        index = vicinal.Index(60, "cosine")
        index.add(base[:, part])
        halves.append(index.search(queries[:, part], k=100, ef_search=400))
    alone = [vicinal.recall_at_k(found.ids[:, :10], truth) for found in halves]
    for method in METHODS:
        assert vicinal.recall_at_k(fuse(*halves, method=method).ids, truth) > max(alone) + 0.05
