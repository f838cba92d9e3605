"""Attributes that files keep, indexes as bytes, and pickles that hold a path."""

from __future__ import annotations

import json
import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vicinal

ROWS = np.random.default_rng(0).standard_normal((1200, 8)).astype(np.float32)
GIVEN = {"model": "all-MiniLM-L6-v2", "steps": ["lower", {"trim": True}], "dim": 8, "n": None}


@pytest.fixture
def index() -> vicinal.Index:
    made = vicinal.Index(8)
    made.add(ROWS)
    made.attributes = GIVEN
    return made


def test_everything_keeps_them(index: vicinal.Index, tmp_path: Path) -> None:
    index.save(tmp_path / "a")
    for made in (
        vicinal.open(tmp_path / "a", verify=True),
        vicinal.open(tmp_path / "a", mode="copy"),
        index.copy(),
        pickle.loads(pickle.dumps(index)),
        vicinal.Index.from_bytes(index.to_bytes()),
    ):
        assert dict(made.attributes) == GIVEN
        made.attributes if made.read_only else made.compact()
        assert dict(made.attributes) == GIVEN
        assert "attributes {'dim': 8, 'model':" in repr(made).replace("\n", "")
    index.attributes = {}
    index.save(tmp_path / "a")
    assert dict(vicinal.open(tmp_path / "a").attributes) == {}
    plain = vicinal.Index(8)
    plain.add(ROWS)
    assert (tmp_path / "a").read_bytes() == plain.to_bytes()


def test_what_they_can_be(index: vicinal.Index, tmp_path: Path) -> None:
    for value, kind, message in (
        ([1], TypeError, "expected a mapping, got list"),
        ({1: 2}, TypeError, "expected strings as keys, got 1"),
        ({"a": object()}, TypeError, "what JSON can hold"),
        ({"a": float("nan")}, ValueError, "what JSON can hold"),
        ({"a": "x" * (1 << 20)}, ValueError, "at most 1048576 bytes"),
    ):
        with pytest.raises(kind, match=message):
            index.attributes = value  # type: ignore[assignment]
        assert dict(index.attributes) == GIVEN
    with pytest.raises(TypeError):
        index.attributes["model"] = "other"  # type: ignore[index]
    index.attributes["steps"].append(1)
    assert dict(index.attributes) == GIVEN
    index.save(tmp_path / "a")
    with pytest.raises(ValueError, match="expected a writable one"):
        vicinal.open(tmp_path / "a").attributes = {}


def test_damaged_ones_are_told(index: vicinal.Index, tmp_path: Path) -> None:
    index.attributes = {"model": "aaaa"}
    data = index.to_bytes().replace(b'"aaaa"', b'"aaa\x01"')
    (tmp_path / "a").write_bytes(data)
    opened = vicinal.open(tmp_path / "a")
    with pytest.raises(vicinal.CorruptError, match="its attributes are damaged"):
        opened.attributes  # noqa: B018
    assert "attributes damaged" in repr(opened)
    assert len(opened.search(ROWS[0], 3).ids) == 3
    with pytest.raises(vicinal.CorruptError):
        opened.save(tmp_path / "b")


def test_bytes(index: vicinal.Index, tmp_path: Path) -> None:
    index.save(tmp_path / "a")
    data = index.to_bytes()
    assert data == (tmp_path / "a").read_bytes()
    for form in (data, bytearray(data), memoryview(data)):
        made = vicinal.Index.from_bytes(form)
        made.add(ROWS[:1])
        assert len(made) == 1201
    with pytest.raises(TypeError, match="data: expected bytes, got str"):
        vicinal.Index.from_bytes("a")  # type: ignore[arg-type]
    with pytest.raises(vicinal.FormatError):
        vicinal.Index.from_bytes(b"no index")


class Named(vicinal.Index):
    name = ""


def test_pickles_of_paths(index: vicinal.Index, tmp_path: Path) -> None:
    index.save(tmp_path / "a")
    opened = vicinal.open(tmp_path / "a", pickle="path")
    opened.ef_search = 33
    data = pickle.dumps(opened)
    assert len(data) < 1000 < len(index.to_bytes())
    again = pickle.loads(data)
    assert again.read_only and again.ef_search == 33 and pickle.dumps(again) == data
    np.testing.assert_array_equal(again.search(ROWS[:9]).ids, opened.search(ROWS[:9]).ids)
    assert not opened.copy().read_only  # a copy is one in memory
    assert len(pickle.dumps(vicinal.open(tmp_path / "a"))) > len(index.to_bytes())
    index.add(ROWS[:1])
    index.save(tmp_path / "a")
    with pytest.raises(vicinal.ConflictError, match="not the file that it was"):
        pickle.loads(data)
    (tmp_path / "a").unlink()
    with pytest.raises(FileNotFoundError):
        pickle.loads(data)


def nearest(asked: tuple[Any, Any]) -> list[int]:
    index, query = asked
    found: list[int] = index.search(query, 3).ids.tolist()
    return found


def test_many_processes_open_the_file(index: vicinal.Index, tmp_path: Path) -> None:
    index.save(tmp_path / "a")
    opened = vicinal.open(tmp_path / "a", pickle="path")
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        told = pool.map(nearest, [(opened, row) for row in ROWS[:6]])
    assert told == [opened.search(row, 3).ids.tolist() for row in ROWS[:6]]


def test_the_same_content_has_the_same_fingerprint(index: vicinal.Index, tmp_path: Path) -> None:
    from vicinal._identity import fingerprint

    index.save(tmp_path / "a")
    index.save(tmp_path / "b")
    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "b")
    index.update(ROWS[:1] + 1, ids=[5])
    index.save(tmp_path / "b")
    assert fingerprint(tmp_path / "a") != fingerprint(tmp_path / "b")
    (tmp_path / "c").write_bytes(json.dumps("no").encode())
    with pytest.raises(vicinal.FormatError):
        fingerprint(tmp_path / "c")
