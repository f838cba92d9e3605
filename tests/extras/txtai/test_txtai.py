"""The backend in txtai itself: its contract, and indexes with texts, changed and opened again."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from txtai import Embeddings
from txtai.ann import ANNFactory

from support.pages import run_examples
from support.texts import DIM, embed

NAME = "vicinal.integrations.txtai.VicinalANN"
ROWS = np.random.default_rng(0).standard_normal((3000, 16)).astype(np.float32)
ROWS /= np.linalg.norm(ROWS, axis=1, keepdims=True)
TEXTS = [
    "apples grow on trees",
    "pears grow on trees too",
    "cars drive on roads",
    "ships sail on the sea",
    "planes fly in the air",
]


def exact(rows: dict[int, Any], query: Any, k: int) -> list[int]:
    return sorted(rows, key=lambda id: -float(rows[id] @ query))[:k]


@pytest.mark.parametrize("backend", [NAME, "numpy"])
def test_the_contract_of_backends(backend: str, tmp_path: Path) -> None:
    """The same steps with our backend and with txtai's exact one."""
    settings = {"backend": backend, "dimensions": 16, backend: {"M": 8, "ef_search": 200}}
    ann = ANNFactory.create(settings)
    ann.index(ROWS[:2500])
    assert ann.count() == 2500 and settings["offset"] == 2500
    ann.append(ROWS[2500:])
    assert ann.count() == 3000 and settings["offset"] == 3000
    ann.delete([3, 2600])
    assert ann.count() == 2998
    rows = {i: row for i, row in enumerate(ROWS) if i not in (3, 2600)}
    found = ann.search(ROWS[:20].copy(), 10)
    for query, pairs in zip(ROWS[:20], found, strict=True):
        wanted = exact(rows, query, 10)
        assert len(set(wanted) & {id for id, _ in pairs}) >= 9
        for id, score in pairs:
            assert score == pytest.approx(float(rows[id] @ query), abs=1e-5)
    ann.save(str(tmp_path / "ann"))
    again = ANNFactory.create(settings)
    again.load(str(tmp_path / "ann"))
    assert again.count() == 2998
    assert [[id for id, _ in pairs] for pairs in again.search(ROWS[:20].copy(), 10)] == [
        [id for id, _ in pairs] for pairs in found
    ]


def made(**options: Any) -> Embeddings:
    return Embeddings(method="external", transform=embed, dimensions=DIM, backend=NAME, **options)


def test_an_index_of_texts(tmp_path: Path) -> None:
    index = made(content=True)
    index.index([(f"d{i}", text, None) for i, text in enumerate(TEXTS)])
    assert index.search("a pear on a tree", 1)[0]["id"] == "d1"
    index.upsert([("d5", "trains run on rails", None), ("d2", "a car needs a road", None)])
    assert index.count() == 6
    assert index.search("trains on rails", 1)[0]["text"] == "trains run on rails"
    assert index.search("cars drive on roads", 1)[0]["text"] == "a car needs a road"
    assert sorted(index.delete(["d0", "d5"])) == ["d0", "d5"]
    assert index.count() == 4
    assert [found["id"] for found in index.search("trains on rails", 10)].count("d5") == 0
    found = index.search("select id, score from txtai where similar('ships on the sea') limit 2")
    assert found[0]["id"] == "d3" and found[0]["score"] > 0.6
    index.save(str(tmp_path / "index"))
    again = Embeddings()
    again.load(str(tmp_path / "index"), config={"transform": embed})
    assert again.config["backend"] == NAME and type(again.ann).__name__ == "VicinalANN"
    again.config["transform"] = embed
    assert again.batchsearch(["planes in the air", "ships"], 1)[0][0]["id"] == "d4"
    again.upsert([("d6", "boats float on lakes", None)])
    assert again.search("boats on lakes", 1)[0]["id"] == "d6"


def test_words_and_vectors() -> None:
    index = made(content=True, hybrid=True)
    index.index([(f"d{i}", text, None) for i, text in enumerate(TEXTS)])
    assert index.search("sail", 1)[0]["id"] == "d3"


def test_the_page() -> None:
    print(importlib.metadata.version("txtai"))
    assert run_examples("txtai.md") == 1
