"""Many rows that are added to an empty index at once are linked in parts, as `build` links them."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vicinal
from vicinal import _info, _updates
from vicinal.parts import _sizes

RNG = np.random.default_rng(15)
CENTRES = RNG.normal(size=(30, 16))
ROWS = (CENTRES[RNG.integers(0, 30, 6000)] + 0.7 * RNG.normal(size=(6000, 16))).astype(np.float32)
ROWS[3000:3050] = ROWS[:50]
QUERIES = (CENTRES[RNG.integers(0, 30, 200)] + 0.7 * RNG.normal(size=(200, 16))).astype(np.float32)


@pytest.fixture(autouse=True)
def few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_updates, "_MANY_ROWS", 2000)
    monkeypatch.setattr(_sizes, "FEWEST_ROWS", 3000)
    monkeypatch.setattr(_sizes, "ROWS_OF_A_PART", 2400)


def digest(index: vicinal.Index, folder: Path) -> str:
    index.save(folder / "saved")
    return hashlib.sha256((folder / "saved").read_bytes()).hexdigest()


def recall(index: vicinal.Index, rows: Any, queries: Any) -> float:
    ids = vicinal.exact_search(rows, queries, 10, metric=index.metric).ids
    return vicinal.recall_at_k(index.search(queries, 10, ef_search=64).ids, ids)


def in_parts(index: vicinal.Index) -> bool:
    """Rounds of one graph were never made."""
    return index.build_stats()["rounds"] < 400


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_the_bytes_are_those_of_a_build(metric: str, tmp_path: Path) -> None:
    vicinal.build(ROWS, tmp_path / "built", metric=metric)
    wanted = hashlib.sha256((tmp_path / "built").read_bytes()).hexdigest()
    for threads in (1, 2, 3, 8):
        index = vicinal.Index(16, metric)
        assert np.array_equal(index.add(ROWS, num_threads=threads), np.arange(6000))
        assert digest(index, tmp_path) == wanted


@pytest.mark.parametrize(
    ("metric", "dtype"),
    [("l2", "float32"), ("cosine", "float16"), ("ip", "float32"), ("l2", "int8"), ("l2", "uint8")],
)
def test_it_finds_what_one_piece_finds(
    metric: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, queries = ROWS, QUERIES
    if dtype in ("int8", "uint8"):
        rows, queries = (np.rint(10 * x + 64).clip(0, 127) for x in (ROWS, QUERIES))
    rows, queries = rows.astype(dtype), queries.astype(dtype)
    index = vicinal.Index(16, metric, dtype=dtype)
    index.add(rows)
    assert in_parts(index)
    index.check()
    monkeypatch.setattr(_sizes, "FEWEST_ROWS", 10_000)
    one = vicinal.Index(16, metric, dtype=dtype)
    one.add(rows)
    assert not in_parts(one)
    assert np.array_equal(index.get(index.ids), one.get(one.ids))
    assert recall(index, rows, queries) >= recall(one, rows, queries) - 0.01


def test_packed_bits() -> None:
    rows = RNG.integers(0, 256, (6000, 16)).astype(np.uint8)
    index = vicinal.Index(128, "hamming", dtype="b1")
    index.add(rows)
    assert in_parts(index)
    assert np.array_equal(index.get(np.arange(0, 6000, 7)), rows[::7])
    assert index.search(rows[:100], 1).ids[:, 0].tolist() == list(range(100))


def test_the_index_can_be_changed_afterwards(tmp_path: Path) -> None:
    index = vicinal.Index(16)
    ids = RNG.permutation(20_000)[:6000]
    assert np.array_equal(index.add(ROWS, ids), ids)
    assert len(index) == 6000 and np.array_equal(index.ids, ids)
    assert index.add(QUERIES).tolist() == list(range(ids.max() + 1, ids.max() + 201))
    index.remove(ids[:3500])
    index.update(ROWS[:100], ids[3500:3600])
    index.check()
    index.compact()
    index.check()
    assert _info.number(index._handle, _info.IN_GRAPH) > 0
    index.save(tmp_path / "index")
    again = vicinal.open(tmp_path / "index", mode="copy")
    again.add(ROWS[:10])
    again.check()


def test_few_are_left_without_a_graph_when_they_are_made_anew() -> None:
    """From how many rows on there is a graph is what it is for every index."""
    index = vicinal.Index(16)
    index.add(ROWS)
    index.remove(np.arange(5900))
    index.compact()
    assert _info.number(index._handle, _info.IN_GRAPH) == 0
    index.add(ROWS)
    assert _info.number(index._handle, _info.IN_GRAPH) > 0


def test_what_is_refused_leaves_the_index_empty(tmp_path: Path) -> None:
    index = vicinal.Index(16)
    bad = ROWS.copy()
    bad[4321, 3] = np.nan
    with pytest.raises(ValueError, match="row 4321"):
        index.add(bad)
    ids = np.arange(6000)
    ids[77] = 5
    with pytest.raises(ValueError, match="ids"):
        index.add(ROWS, ids)
    assert len(index) == 0 and index.search(QUERIES[0], 3).ids.tolist() == [-1, -1, -1]
    index.add(ROWS)
    fresh = vicinal.Index(16)
    fresh.add(ROWS)
    assert digest(index, tmp_path) == digest(fresh, tmp_path)


@pytest.mark.parametrize("threads", [1, 2])
def test_progress_and_its_end(threads: int, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    index = vicinal.Index(16)

    def stop(done: int, rows: int) -> None:
        told.append((done, rows))
        if len(told) == 3:
            raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        index.add(ROWS, num_threads=threads, progress=stop)
    assert len(index) == 0
    told = []
    index.add(ROWS, num_threads=threads, progress=lambda *now: told.append(now))
    assert told == sorted(told) and told[-1] == (6000, 6000)


def test_searches_see_nothing_or_all() -> None:
    index = vicinal.Index(16)
    seen: set[int] = set()
    done = threading.Event()

    def search() -> None:
        while not done.is_set():
            seen.add(int((index.search(QUERIES[:5], 4).ids >= 0).sum()))

    thread = threading.Thread(target=search)
    thread.start()
    try:
        index.add(ROWS)
    finally:
        done.set()
        thread.join()
    assert seen <= {0, 20}
    assert (index.search(QUERIES[:5], 4).ids >= 0).all()


def test_what_is_linked_in_one_piece(tmp_path: Path) -> None:
    names = [f"row {i}" for i in range(6000)]
    strings = vicinal.Index(16, ids="str")
    strings.add(ROWS, names)
    codes = vicinal.Index(16, keep_vectors=False)
    codes.add(ROWS)
    second = vicinal.Index(16)
    second.add(ROWS[:1])
    second.add(ROWS[1:])
    for index in (strings, codes, second):
        assert not in_parts(index)
        assert len(index) == 6000


def test_batches_are_one_call(tmp_path: Path) -> None:
    index = vicinal.Index(16)
    index.add(ROWS[i : i + 700] for i in range(0, 6000, 700))
    whole = vicinal.Index(16)
    whole.add(ROWS)
    assert in_parts(index)
    assert digest(index, tmp_path) == digest(whole, tmp_path)
