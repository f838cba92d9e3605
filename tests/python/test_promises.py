"""What `tune` promises and what becomes of it: queries in files, searches that look."""

from __future__ import annotations

import copy
import logging
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vicinal
from support.files import sections_of

Array = np.ndarray[Any, Any]
DIM = 20


def rows_of(count: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)


def made(count: int = 4000, **options: Any) -> vicinal.Index:
    index = vicinal.Index(DIM, **options)
    index.add(rows_of(count))
    return index


def opened(mode: str) -> Callable[[vicinal.Index, Path], vicinal.Index]:
    def way(index: vicinal.Index, path: Path) -> vicinal.Index:
        index.save(path)
        return vicinal.open(path, mode=mode, verify=True)

    return way


def compacted(index: vicinal.Index, path: Path) -> vicinal.Index:
    index.compact()
    return index.copy()


WAYS = [
    opened("r"),
    opened("copy"),
    compacted,
    lambda index, path: index.copy(),
    lambda index, path: copy.deepcopy(index),
    lambda index, path: pickle.loads(pickle.dumps(index)),
]


# ---- kept queries


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize("asked", [150, 1000])
def test_what_comes_of_an_index_has_its_queries(
    way: Any, dtype: str, asked: int, tmp_path: Path
) -> None:
    """And goes on keeping: the sample is what it would be had there been one index all the time."""
    scale = 40 if dtype == "uint8" else 1
    rows = (scale * np.abs(rows_of(3000))).astype(dtype)
    queries = (scale * np.abs(rows_of(asked + 500, 1))).astype(dtype)
    index = vicinal.Index(DIM, dtype=dtype)
    index.add(rows)
    index.keep_queries(300)
    index.search(queries[:asked])
    other = way(index, tmp_path / "index")
    for each in (index, other):
        each.search(queries[asked:])
    tunings = [each.tune(0.9, 5) for each in (index, other)]
    assert tunings[0].queries == tunings[1].queries == "kept"
    assert tunings[0].measured.sample == tunings[1].measured.sample == 300
    assert tunings[0] == tunings[1]


def test_nothing_is_saved_of_queries_unless_they_are_kept(tmp_path: Path) -> None:
    index = made()
    index.search(rows_of(200, 1))

    def section() -> Any:
        index.save(tmp_path / "index")
        return sections_of((tmp_path / "index").read_bytes()).get("kept_queries")

    assert section() is None
    index.keep_queries(50)
    index.search(rows_of(200, 1))
    part = section()
    assert part is not None and part.size == 16 + 50 * DIM * 4
    index.keep_queries(0)
    assert section() is None
    again = vicinal.open(tmp_path / "index")
    assert again.tune(0.9).queries == "assumed"


@pytest.mark.parametrize(
    ("head", "message"),
    [((-1, 3), "damaged"), ((0, 0), "damaged"), ((50, -1), "damaged"), ((9, 9), "damaged")],
)
def test_a_damaged_sample(head: tuple[int, int], message: str, tmp_path: Path) -> None:
    index = made(1200)
    index.keep_queries(50)
    index.search(rows_of(80, 1))
    index.save(tmp_path / "index")
    data = bytearray((tmp_path / "index").read_bytes())
    struct.pack_into("<2q", data, sections_of(data)["kept_queries"].offset, *head)
    (tmp_path / "index").write_bytes(data)
    for mode in ("r", "copy"):
        with pytest.raises(vicinal.CorruptError, match=f"kept queries is {message}"):
            vicinal.open(tmp_path / "index", mode=mode)


# ---- searches that look


def test_a_promise_is_looked_at(caplog: pytest.LogCaptureFixture) -> None:
    """One query of a thousand; nothing is said of less than 30, and nothing without `recall=`."""
    index = made()
    easy = rows_of(4000)[:600]  # stored rows: found at any width
    index.tune(0.9, 5, queries=easy)
    hard = 3 * rows_of(1000, 2)
    before = index.search_stats()
    index.search(hard, 5)
    assert index.search_stats()["queries"] - before["queries"] == 1000
    assert index.stats()["promises"] == ()
    with caplog.at_level(logging.WARNING, logger="vicinal"):
        for step in range(29):
            index.search(np.roll(hard, step, axis=0), 5, recall=0.9)
        (promise,) = index.stats()["promises"]
        assert promise.recall == 0.9 and promise.k == 5 and promise.looked_at == 29
        assert promise.kept is None
        for step in range(29, 60):
            index.search(np.roll(hard, step, axis=0), 5, recall=0.9)
        (promise,) = index.stats()["promises"]
    assert promise.looked_at == 60
    true = index.search(hard, 5, ef_search=10**6).distances
    found = index.search(hard, 5, recall=0.9).distances
    share = float((found <= true[:, -1:]).mean())
    assert promise.low < promise.found < promise.high
    assert abs(promise.found - share) < 0.2
    assert promise.kept is (promise.high >= 0.9)
    warned = [r for r in caplog.records if "recall 0.9 was asked for" in r.getMessage()]
    assert len(warned) == (0 if promise.kept else 1)


def test_any_query_of_a_batch_may_be_looked_at() -> None:
    """Batches that end with their hardest query are not judged by that one."""
    index = made()
    easy = rows_of(4000)[:600]
    index.tune(0.9, 10, queries=easy)
    batch = np.concatenate([easy[:500], 3 * rows_of(500, 2)])  # the last is always a hard one
    for _ in range(60):
        index.search(batch, recall=0.9)
    (promise,) = index.stats()["promises"]
    hard = index.search(batch[-1], recall=0.9).distances
    true = index.search(batch[-1], ef_search=10**6).distances[-1]
    assert promise.looked_at == 60
    assert promise.found > float((hard <= true).mean())
    assert promise.low < promise.high  # they were not all the same one


def test_what_is_looked_at_is_exact() -> None:
    """The shares are those of an exact search: 1 for a scan, less for a narrow walk."""
    index = made(3000)
    index.tune(1.0, 10)
    index.tune(0.3, 10)
    queries = 2 * rows_of(1000, 3)
    for step in range(40):
        for recall in (1.0, 0.3):
            index.search(np.roll(queries, step, axis=0), 10, recall=recall)
    wide, narrow = sorted(index.stats()["promises"], reverse=True)
    assert (wide.recall, narrow.recall) == (1.0, 0.3)
    assert wide.found > narrow.found
    assert wide.found >= 0.97


def test_small_indexes_and_missing_rows() -> None:
    index = vicinal.Index(DIM)
    index.add(rows_of(3))
    index.tune(0.95, 5)
    for _ in range(35):
        index.search(rows_of(1000, 1), 5, recall=0.95)
    (promise,) = index.stats()["promises"]
    assert promise.found == 1 and promise.kept is True
