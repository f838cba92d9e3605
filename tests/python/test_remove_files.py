"""Files of indexes from which rows were removed: what is in them, and what damage does."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

import vicinal
import vicinal.index


def sections(image: bytes) -> dict[str, tuple[int, int]]:
    """Return where each section begins and how long it is."""
    count = struct.unpack_from("<q", image, 24)[0]
    found = {}
    for i in range(count):
        name = image[256 + 64 * i : 272 + 64 * i].rstrip(b"\0").decode()
        found[name] = struct.unpack_from("<qq", image, 272 + 64 * i)
    return found


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> vicinal.Index:
    """800 rows, among them 40 copies, of which 330 are gone and some of those pending."""
    monkeypatch.setattr(vicinal.index, "EXACT_BELOW", 100)
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(800, 24)).astype(np.float32)
    rows[500:540] = rows[100:140]
    made = vicinal.Index(24, M=8, ef_construction=60)
    made.add(rows, np.arange(800) + 1000)
    made.remove(rng.choice(np.arange(1200, 1500), 280, replace=False))
    made.remove(np.arange(1100, 1130))
    made.remove(np.arange(1000, 1020))
    made.check()
    return made


def test_the_same_after_opening(index: vicinal.Index, tmp_path: Path) -> None:
    path = tmp_path / "index"
    index.save(path)
    image = path.read_bytes()
    where, length = sections(image)["tombstones"]
    marks = np.frombuffer(image[where : where + length], np.uint8)
    assert length == 800 and set(marks.tolist()) == {0, 1, 2, 5}
    assert (marks != 0).sum() == index.stats()["removed"] == 330
    assert index.stats()["format_version"] == 2
    queries = np.random.default_rng(1).normal(size=(20, 24)).astype(np.float32)
    wanted = index.search(queries, 7, ef_search=20)
    for mode in ("r", "copy"):
        opened = vicinal.open(path, mode=mode, verify=True)
        opened.check()
        assert opened.stats() | {"read_only": False} == index.stats()
        np.testing.assert_array_equal(opened.ids, index.ids)
        found = opened.search(queries, 7, ef_search=20)
        np.testing.assert_array_equal(found.ids, wanted.ids)
        assert 1000 not in opened and 1020 in opened
        opened.save(tmp_path / "again")
        assert (tmp_path / "again").read_bytes() == image
    # what nobody removes anything from has no such section
    index.compact()
    index.save(path)
    assert "tombstones" not in sections(path.read_bytes())


def test_hostile_marks(index: vicinal.Index, tmp_path: Path) -> None:
    """Whatever stands there, searches of the map end and stay inside; a copy refuses the file."""
    path = tmp_path / "index"
    index.save(path)
    image = bytearray(path.read_bytes())
    found = sections(bytes(image))
    where, length = found["tombstones"]
    rng = np.random.default_rng(2)
    queries = rng.normal(size=(12, 24)).astype(np.float32)
    for round in range(60):
        damaged = bytearray(image)
        some = rng.integers(0, length, rng.integers(1, 400))
        values = rng.choice([0, 1, 2, 3, 4, 5, 255] if round % 2 else [0, 1, 2, 5], len(some))
        for place, value in zip(some.tolist(), values.tolist(), strict=True):
            damaged[where + place] = value
        if round % 3 == 0:  # the rings, too
            at, size = found["copies"]
            damaged[at : at + size] = rng.integers(0, 256, size, np.uint8).tobytes()
        path.write_bytes(damaged)
        opened = vicinal.open(path)
        for shown in (queries, queries[0]):
            for width in (8, 64, 800):
                assert opened.search(shown, 9, ef_search=width).ids.shape[-1] == 9
        try:
            assert len(opened.ids) == len(opened)
        except vicinal.CorruptError as error:  # the counts of the header do not fit the marks
            assert "tombstones" in str(error)
        assert len([i for i in range(1000, 1800) if i in opened]) >= 0
        with pytest.raises(vicinal.CorruptError):
            opened.verify()
        try:
            copy = vicinal.open(path, mode="copy")
        except vicinal.CorruptError as error:
            assert "tombstones" in str(error)
        else:  # marks that fit the counts: the index works, though not as it did
            copy.remove(copy.ids[:100])
            copy.add(queries)
            copy.search(queries, 5)
