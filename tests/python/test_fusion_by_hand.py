"""Golden fusions: small lists whose fused scores were worked out on paper, not by any program."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vicinal import SearchResult, fuse

# words: scores 9, 5, 1, so places 1, 1/2, 0; vectors: 0.8, 0.6, 0.4, so places 1, 1/2, 0
WORDS = (["oak", "elm", "fir"], [9.0, 5.0, 1.0])
VECTORS = (["elm", "yew", "oak"], [0.8, 0.6, 0.4])


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        # elm 1/2 * 1/2 + 1/2 * 1; oak 1/2 * 1 + 0; yew 1/2 * 1/2; fir 0
        ({}, {"elm": 0.75, "oak": 0.5, "yew": 0.25, "fir": 0.0}),
        # elm 0.75 / 2 + 0.25; oak 0.75; yew 0.25 / 2: the words weigh three times as much
        (
            {"weights": [0.75, 0.25]},
            {"oak": 0.75, "elm": 0.625, "yew": 0.125, "fir": 0.0},
        ),
        # elm 1/62 + 1/61; oak 1/61 + 1/63; yew 1/62; fir 1/63
        (
            {"method": "reciprocal"},
            {"elm": 123 / 3782, "oak": 124 / 3843, "yew": 1 / 62, "fir": 1 / 63},
        ),
        # k = 0: elm 1/2 + 1, oak 1 + 1/3, yew 1/2, fir 1/3
        (
            {"method": "reciprocal", "k": 0},
            {"elm": 1.5, "oak": 4 / 3, "yew": 0.5, "fir": 1 / 3},
        ),
        # elm (5 + 0.8) / 2; oak (9 + 0.4) / 2; yew 0.6 / 2; fir 1 / 2
        ({"method": "linear"}, {"oak": 4.7, "elm": 2.9, "fir": 0.5, "yew": 0.3}),
    ],
)
def test_two_lists(options: dict[str, Any], wanted: dict[str, float]) -> None:
    fused = fuse(WORDS, VECTORS, **options)
    assert fused.ids.tolist() == list(wanted)
    assert fused.scores.tolist() == pytest.approx(list(wanted.values()), rel=1e-12, abs=1e-12)


def test_distances_and_a_list_without_scores() -> None:
    # of distances 1, 2, 5 the places are 1, 3/4, 0
    found = SearchResult(np.array([30, 10, 20]), np.array([1.0, 2.0, 5.0], np.float32))
    fused = fuse(found, ([10, 40], [7.0, 3.0]))
    # 40 and 20 have nothing; 40 is second in a list, 20 third
    assert fused.ids.tolist() == [10, 30, 40, 20]
    assert fused.scores.tolist() == [0.875, 0.5, 0.0, 0.0]
    assert fused.ranks.tolist() == [[2, 1, -1, 3], [1, -1, 2, -1]]
    # 1 - distance: 0, -1, -4; whoever is not there gets the least, -4
    fused = fuse(found, ([10, 40], [7.0, 3.0]), method="linear", weights=[1, 1])
    assert fused.ids.tolist() == [10, 30, 40, 20]
    assert fused.scores.tolist() == [6.0, 0.0, -1.0, -4.0]
    fused = fuse(found, ([40, 10, 40], None), method="reciprocal", k=1)
    # 10: 1/3 + 1/3; 30: 1/2; 40: 1/2; 20: 1/4; of 30 and 40, both first in a list, 30 is less
    assert fused.ids.tolist() == [10, 30, 40, 20]
    assert fused.scores.tolist() == pytest.approx([2 / 3, 1 / 2, 1 / 2, 1 / 4])


def test_three_lists_and_equal_scores() -> None:
    # equal scores of a list count as its best: of list 3 both get a third
    fused = fuse(([1, 2], [4.0, 2.0]), ([2, 3], [4.0, 2.0]), ([3, 1], [5.0, 5.0]), limit=2)
    # 1: 1/3 + 1/3; 2: 1/3; 3: 1/3. 2 and 3 are both first in a list, and 2 is less
    assert fused.ids.tolist() == [1, 2]
    assert fused.scores.tolist() == pytest.approx([2 / 3, 1 / 3])
