"""The backend of txtai, on a base class that does what txtai's does: txtai itself is gigabytes."""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROWS = np.random.default_rng(0).standard_normal((300, 8)).astype(np.float32)
ROWS /= np.linalg.norm(ROWS, axis=1, keepdims=True)


class Base:
    """What a backend inherits: its configuration, settings by name, and notes about the build."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.backend: Any = None
        self.config = config

    def setting(self, name: str, default: Any = None) -> Any:
        own = self.config.get(self.config["backend"]) or {}
        return own.get(name) or default

    def metadata(self, settings: Any) -> None:
        if settings:
            self.config["build"] = {"settings": settings}
        self.config["update"] = "now"


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("txtai", "txtai.ann", "txtai.ann.base"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setattr(sys.modules["txtai.ann.base"], "ANN", Base, raising=False)
    name = "vicinal.integrations.txtai"
    sys.modules.pop(name, None)
    yield importlib.import_module(name).VicinalANN
    sys.modules.pop(name, None)


def config(**settings: Any) -> dict[str, Any]:
    name = "vicinal.integrations.txtai.VicinalANN"
    return {"backend": name, "dimensions": 8, name: settings}


def exact(rows: dict[int, Any], query: Any, k: int) -> list[int]:
    scores = {id: float(np.dot(row, query)) for id, row in rows.items()}
    return sorted(scores, key=lambda id: -scores[id])[:k]


def test_a_life(backend: Any, tmp_path: Path) -> None:
    settings = config(M=8, ef_search=100)
    ann = backend(settings)
    ann.index(ROWS[:200])
    assert (ann.count(), settings["offset"], settings["metric"]) == (200, 200, "ip")
    assert settings["build"] == {"settings": {"M": 8}}
    ann.append(ROWS[200:])
    assert (ann.count(), settings["offset"]) == (300, 300)
    ann.delete([3, 250, 999, 3])
    assert ann.count() == 298
    rows = {i: row for i, row in enumerate(ROWS) if i not in (3, 250)}
    found = ann.search(ROWS[:5], 10)
    for query, pairs in zip(ROWS[:5], found, strict=True):
        assert [id for id, _ in pairs] == exact(rows, query, 10)
        assert [type(id) for id, _ in pairs] == [int] * 10
        scores = [np.dot(rows[id], query) for id, _ in pairs]
        assert [score for _, score in pairs] == pytest.approx(scores, abs=1e-5)
    ann.save(str(tmp_path / "index"))
    again = backend(dict(settings))
    again.load(str(tmp_path / "index"))
    assert again.search(ROWS[:5], 10) == found
    again.append(ROWS[:1])
    assert again.search(ROWS[:1], 1)[0][0][0] in (0, 300) and again.count() == 299


def test_an_empty_index(backend: Any) -> None:
    ann = backend(config())
    ann.index(ROWS[:2])
    ann.delete([0, 1])
    assert ann.count() == 0 and ann.search(ROWS[:2], 5) == [[], []]


def test_without_txtai() -> None:
    if importlib.util.find_spec("txtai") is not None:
        pytest.skip("txtai is installed")
    with pytest.raises(ImportError, match="this module needs txtai"):
        importlib.import_module("vicinal.integrations.txtai")
