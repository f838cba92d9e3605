"""Golden hybrid searches: BM25, distances and fused scores of four documents, done on paper."""

from __future__ import annotations

from math import log
from pathlib import Path
from typing import Any

import pytest

from vicinal.collection import Collection

# Two words each, the average length: a word that is there once counts its idf, one that is there
# twice 2 * 2.2 / (2 + 1.2) = 1.375 of it (k1 = 1.2). "red" is in two of four documents:
# idf = log(1 + (4 - 2 + 0.5) / (2 + 0.5)) = log 2.
TEXTS = {"a": "red fox", "b": "red red", "c": "blue fox", "d": "grey hen"}
VECTORS = {"a": [0.0], "b": [3.0], "c": [1.0], "d": [2.0]}
RED = log(2)


@pytest.fixture
def made(tmp_path: Path) -> Any:
    with Collection(tmp_path / "c", 1, "l2") as made:
        made.upsert(list(TEXTS), list(VECTORS.values()), list(TEXTS.values()))
        yield made


def test_words(made: Collection) -> None:
    found = made.search_text("red")
    assert [hit.id for hit in found] == ["b", "a"]
    assert [hit.score for hit in found] == pytest.approx([1.375 * RED, RED], rel=1e-5)
    # "fox" is as rare as "red", "hen" is in one: log(1 + 3.5 / 1.5) = log(10 / 3)
    found = made.search_text("fox red hen")
    assert [hit.id for hit in found] == ["a", "d", "b", "c"]
    wanted = [2 * RED, log(10 / 3), 1.375 * RED, RED]
    assert [hit.score for hit in found] == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        # From [0] the distances are a 0, c 1, d 4, b 9: places 1, 8/9, 5/9, 0. Words: b 1, a 0.
        # a and b have a half each and are first in a list each; a was written first.
        ({}, {"a": 1 / 2, "b": 1 / 2, "c": 4 / 9, "d": 5 / 18}),
        ({"alpha": 0.25}, {"b": 3 / 4, "a": 1 / 4, "c": 2 / 9, "d": 5 / 36}),
        ({"alpha": 1}, {"a": 1, "c": 8 / 9, "d": 5 / 9, "b": 0}),
        # ranks by vector a 1, c 2, d 3, b 4; by words b 1, a 2
        (
            {"method": "reciprocal"},
            {"a": (1 / 61 + 1 / 62) / 2, "b": (1 / 64 + 1 / 61) / 2, "c": 1 / 124, "d": 1 / 126},
        ),
        (
            {"method": "rrf", "constant": 1},
            {"a": (1 / 2 + 1 / 3) / 2, "b": (1 / 5 + 1 / 2) / 2, "c": 1 / 6, "d": 1 / 8},
        ),
        # 1 - distance: 1, 0, -3, -8
        (
            {"method": "linear"},
            {"a": (1 + RED) / 2, "c": 0, "d": -3 / 2, "b": (-8 + 1.375 * RED) / 2},
        ),
        # windows of two: a and c by vector (places 1 and 0), b and a by words (1 and 0)
        ({"window": 2, "k": 2}, {"a": 1 / 2, "b": 1 / 2}),
    ],
)
def test_both(made: Collection, options: dict[str, Any], wanted: dict[str, float]) -> None:
    found = made.search_hybrid("red", [0.0], **options)
    assert [hit.id for hit in found] == list(wanted)
    assert [hit.score for hit in found] == pytest.approx(list(wanted.values()), rel=1e-5, abs=1e-9)


def test_the_parts_are_told(made: Collection) -> None:
    first, second, *_, last = made.search_hybrid("red", [0.0])
    assert (first.distance, first.vector_rank, first.text_rank) == (0, 1, 2)
    assert (second.distance, second.vector_rank, second.text_rank) == (9, 4, 1)
    assert second.text_score == pytest.approx(1.375 * RED, rel=1e-5)
    assert (last.distance, last.vector_rank, last.text_rank, last.text_score) == (4, 3, None, None)
