"""Removing, replacing, conflicts, reuse and compaction, against a dictionary and a scan of it."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import reference
import vicinal
import vicinal.index
from support.files import sections_of
from support.indexes import exact_below
from support.rows import numbers, stored

Array = np.ndarray[Any, Any]
METRICS = ("l2", "ip", "cosine")
DTYPES = ("float32", "float16", "bfloat16", "int8", "uint8")
DIM = 12


def random_rows(n: int, dtype: str, rng: np.random.Generator, dim: int = DIM) -> Array:
    """Return rows that every dtype stores as they are, bfloat16 as bits."""
    whole = rng.integers(1, 100, size=(n, dim))
    return stored(whole, dtype)


class Model:
    """An index and what it should hold."""

    def __init__(self, metric: str, dtype: str, dim: int = DIM, **options: Any) -> None:
        self.index = vicinal.Index(dim, metric, dtype=dtype, **options)
        self.held: dict[int, Array] = {}

    def add(self, rows: Array, ids: Any = None, **options: Any) -> list[int]:
        given = self.index.add(rows, ids, **options).tolist()
        self.held.update(zip(given, rows, strict=True))
        return given

    def update(self, rows: Array, ids: list[int]) -> None:
        self.index.update(rows, ids)
        self.held.update(zip(ids, rows, strict=True))

    def remove(self, ids: list[int]) -> None:
        self.index.remove(ids)
        for id in ids:
            del self.held[id]

    def vectors(self) -> Array:
        """What is held, in the order of the index."""
        return np.array([self.held[i] for i in self.index.ids.tolist()])

    def compare(self, rng: np.random.Generator, least: float = 1.0) -> None:
        """Compare everything that can be asked; `least` is the recall wanted of the graph."""
        index, held = self.index, self.held
        index.check()
        assert len(index) == len(held) == index.stats()["count"]
        ids = index.ids
        assert sorted(ids.tolist()) == sorted(held)
        assert all(id in index for id in list(held)[:20])
        if index.metric != "cosine" or index.dtype in ("int8", "uint8"):
            some = list(held)[:: max(len(held) // 50, 1)]
            if some:
                np.testing.assert_array_equal(index.get(some), np.array([held[i] for i in some]))
        dtype = "float32" if index.dtype not in ("int8", "uint8") else index.dtype
        queries = random_rows(9, dtype, rng, index.dim)  # enough for tiles
        k = 10
        everything = max(len(held), 1)
        base = numbers(self.vectors()) if held else np.empty((0, index.dim))
        _, distances = reference.nearest(base, numbers(queries), k, index.metric)
        for shown in (queries, queries[:1], queries[0]):
            for width in (64, everything):
                found = index.search(shown, k, ef_search=width)
                got = found.distances.reshape(-1, k)
                wanted = distances[: len(got)]
                assert (np.isfinite(got).sum(axis=1) == min(k, len(held))).all()
                assert all(i in held for i in found.ids.reshape(-1).tolist() if i != -1)
                for row in found.ids.reshape(-1, k):
                    real = row[row >= 0]
                    assert len(set(real.tolist())) == len(real)
                tolerance = 1e-5 if index.dtype in ("float32", "int8", "uint8") else 1e-2
                near = np.isclose(got, wanted, rtol=tolerance, atol=tolerance)
                if width == everything:
                    assert near.all()
                elif len(got) == len(queries):
                    assert (got <= wanted[:, -1:] + tolerance).mean() >= least


HISTORY = 60


@pytest.mark.parametrize("graph_from", [0, 1000])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", METRICS)
def test_any_history(
    metric: str, dtype: str, graph_from: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    exact_below(monkeypatch, graph_from)
    rng = np.random.default_rng(METRICS.index(metric) * 5 + DTYPES.index(dtype))
    model = Model(metric, dtype, M=8, ef_construction=60)
    least = 0.8 if metric == "ip" else 0.9  # M=8 makes poor graphs of inner products
    model.add(random_rows(150, dtype, rng))
    next_id = 10_000
    for step in range(HISTORY):
        held = list(model.held)
        action = rng.integers(0, 7)
        if action <= 1 or len(held) < 30:
            count = int(rng.integers(1, 90))
            if rng.random() < 0.5:
                model.add(random_rows(count, dtype, rng))
            else:
                next_id = max(next_id, *held, 0) + 1
                ids = list(range(next_id, next_id + count))
                next_id += count
                model.add(random_rows(count, dtype, rng), ids)
        elif action == 2:
            for id in rng.choice(held, 5, replace=False).tolist():
                model.remove([id])
        elif action == 3:
            share = rng.choice([0.1, 0.4, 0.8])
            model.remove(rng.choice(held, int(len(held) * share), replace=False).tolist())
        elif action == 4:
            ids = rng.choice(held, int(rng.integers(1, len(held) // 2)), replace=False).tolist()
            model.update(random_rows(len(ids), dtype, rng), ids)
        elif action == 5:
            next_id = max(next_id, *held) + 2
            ids = [*rng.choice(held, 5, replace=False).tolist(), next_id, next_id - 1]
            model.add(random_rows(7, dtype, rng), ids, on_conflict="update")
        elif rng.random() < 0.5:
            model.index.compact()
            assert model.index.stats()["removed"] == 0
        else:
            model.index.save(tmp_path / "index")
            read_only = Model(metric, dtype)
            read_only.index = vicinal.open(tmp_path / "index")
            read_only.held = model.held
            read_only.index.verify()
            if step % 3 == 0:
                read_only.compare(rng, least)
            model.index = vicinal.open(tmp_path / "index", mode="copy")
        if step % 4 == 0:
            model.compare(rng, least)
    model.compare(rng, least)


# ---- what is refused


def test_refused_calls_change_nothing(tmp_path: Path) -> None:
    index = vicinal.Index(2)
    index.add([[0, 0], [3, 4], [1, 1], [5, 5]])
    index.remove(3)
    index.save(tmp_path / "before")
    with pytest.raises(KeyError, match="ids: 7 is not in the index"):
        index.remove([0, 7, 8])
    with pytest.raises(KeyError, match="ids: 3 is not in the index"):
        index.remove(3)
    with pytest.raises(ValueError, match="ids: 1 stands at position 0 and again at 2"):
        index.remove([1, 0, 1])
    with pytest.raises(ValueError, match=r"one id or shape \(n,\), got \(1, 1\)"):
        index.remove([[1]])
    with pytest.raises(TypeError, match="expected integers"):
        index.remove([1.0])
    with pytest.raises(KeyError, match="ids: 3 is not in the index"):
        index.update([[1, 2], [3, 4]], [0, 3])
    with pytest.raises(ValueError, match="ids: 1 stands at position 0 and again at 1"):
        index.update([[1, 2], [3, 4]], [1, 1])
    with pytest.raises(ValueError, match=r"ids: expected \(2,\), got \(1,\)"):
        index.update([[1, 2], [3, 4]], [1])
    with pytest.raises(ValueError, match="vectors"):
        index.update([[1, 2], [np.nan, 4]], [0, 1])
    with pytest.raises(ValueError, match="ids: 9 stands at position 1 and again at 2"):
        index.add(np.ones((3, 2)), [0, 9, 9], on_conflict="update")
    with pytest.raises(ValueError, match="ids: 9 stands at position 1 and again at 2"):
        index.add(np.ones((3, 2)), [0, 9, 9], on_conflict="skip")
    with pytest.raises(ValueError, match="ids: 0 at position 0 is already in the index"):
        index.add(np.ones((2, 2)), [0, 9])
    with pytest.raises(ValueError, match="on_conflict: expected"):
        index.add(np.ones((2, 2)), [0, 9], on_conflict="ignore")
    with pytest.raises(KeyError):
        index.get(3)
    index.save(tmp_path / "after")
    assert (tmp_path / "before").read_bytes() == (tmp_path / "after").read_bytes()
    read_only = vicinal.open(tmp_path / "after")
    calls: list[Callable[[], object]] = [
        lambda: read_only.remove(0),
        lambda: read_only.update([1, 2], 0),
        lambda: read_only.compact(),
        lambda: read_only.add([1, 2], on_conflict="update"),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="index: expected a writable one"):
            call()


def test_what_conflicts_do() -> None:
    index = vicinal.Index(2)
    index.add([[0, 0], [1, 0]], [5, 6])
    ids = index.add([[9, 9], [2, 0]], [5, 7], on_conflict="skip")
    assert ids.tolist() == [5, 7]
    np.testing.assert_array_equal(index.get([5, 6, 7]), [[0, 0], [1, 0], [2, 0]])
    # vectors that are skipped are not looked at; positions are those of the call
    index.add([[np.nan, 9], [3, 0]], [5, 8], on_conflict="skip")
    with pytest.raises(ValueError, match=r"position \(?1|row 1|vectors\[1"):
        index.add([[1, 9], [np.nan, 0]], [5, 9], on_conflict="skip")
    ids = index.add([[9, 9], [4, 0]], [5, 9], on_conflict="update")
    assert ids.tolist() == [5, 9]
    np.testing.assert_array_equal(index.get([5, 9]), [[9, 9], [4, 0]])
    assert len(index) == 5
    index.add([[7, 7]], on_conflict="update")  # automatic ids never conflict
    assert 10 in index
    index.update([0, 1], 10)
    np.testing.assert_array_equal(index.get(10), [0, 1])


def test_empty_calls_do_nothing() -> None:
    index = vicinal.Index(2)
    index.remove([])
    index.update(np.empty((0, 2)), [])
    index.compact()
    index.add([[1, 2]])
    index.remove([])
    index.update(np.empty((0, 2)), [])
    assert len(index) == 1 and index.stats()["removed"] == 0


def test_automatic_ids_after_removals() -> None:
    """None is given out a second time."""
    index = vicinal.Index(1)
    index.add(np.zeros((10, 1)))
    index.remove([2, 3, 9])
    assert index.add(np.zeros((2, 1))).tolist() == [10, 11]
    index.remove(index.ids)
    assert len(index) == 0 and index.ids.shape == (0,)
    assert index.add(np.zeros((3, 1))).tolist() == [12, 13, 14]
    index.add([[0.0]], [100])
    index.remove(100)
    index.add([[0.0]], [-5])
    assert index.add([0.0]).tolist() == [101]
    index.remove(101)
    index.add([[0.0]], [101])  # ids of the caller's own may come back
    assert index.add([0.0]).tolist() == [102]


def test_a_refused_call_uses_up_no_automatic_ids() -> None:
    index = vicinal.Index(1)
    index.add(np.zeros((3, 1)))
    with pytest.raises(ValueError, match="NaN"):
        index.add([[1.0], [np.nan]])
    with pytest.raises(ValueError, match="already in the index"):
        index.add(np.zeros((2, 1)), [50, 1])
    assert index.add([0.0]).tolist() == [3]


def through_a_file(index: vicinal.Index, path: Path) -> vicinal.Index:
    index.save(path)
    return vicinal.open(path, mode="copy")


def compacted(index: vicinal.Index, path: Path) -> vicinal.Index:
    index.compact()
    return index


def compacted_after_opening(index: vicinal.Index, path: Path) -> vicinal.Index:
    return compacted(through_a_file(index, path), path)


def merged_into_another(index: vicinal.Index, path: Path) -> vicinal.Index:
    index.save(path)
    other = vicinal.Index(3)
    other.merge(vicinal.open(path))
    return other


@pytest.mark.parametrize("rows", [10, 1500])
@pytest.mark.parametrize("left", ["most", "none"])
@pytest.mark.parametrize(
    "way",
    [
        through_a_file,
        compacted,
        compacted_after_opening,
        merged_into_another,
        lambda index, path: index.copy(),
        lambda index, path: pickle.loads(pickle.dumps(index)),
        lambda index, path: copy.deepcopy(index),
        lambda index, path: vicinal.merge(index, vicinal.Index(3)),
        lambda index, path: vicinal.merge(vicinal.Index(3), index),
    ],
)
def test_an_automatic_id_is_not_given_out_again_by_what_comes_of_an_index(
    way: Any, left: str, rows: int, tmp_path: Path
) -> None:
    vectors = np.random.default_rng(4).normal(size=(rows, 3))
    index = vicinal.Index(3)
    ids = index.add(vectors)
    index.remove(ids if left == "none" else ids[-3:])
    for generation in range(2):
        index = way(index, tmp_path / f"index {generation}")
        assert index.add(vectors[0]).tolist() == [rows + generation]
        index.remove(rows + generation)
    assert len(index) == (0 if left == "none" else rows - 3)


def test_a_file_names_the_largest_id_only_if_its_rows_do_not_tell(tmp_path: Path) -> None:
    index = vicinal.Index(2)

    def names_it() -> bool:
        index.save(tmp_path / "index")
        return "largest_id" in sections_of((tmp_path / "index").read_bytes())

    index.add(np.ones((20, 2)))
    index.remove([3, 4])
    assert not names_it()
    index.remove(19)
    assert names_it()
    index.add([1.0, 2.0])
    assert not names_it()
    index.add([[1.0, 1.0]], [70])
    assert not names_it()
    index.remove(70)
    assert names_it()
    assert vicinal.open(tmp_path / "index", mode="copy").add([0, 0]).tolist() == [71]


def test_equal_distances_come_in_the_order_of_rows() -> None:
    index = vicinal.Index(1)
    index.add(np.zeros((200, 1)))
    index.remove(np.arange(0, 200, 2))
    index.add(np.zeros((100, 1)), np.arange(1000, 1100))
    index.compact()
    assert index.search([0.0], k=200).ids.tolist() == index.ids.tolist()


# ---- interruption


class Enough(Exception):
    """Ends a call from its progress function."""


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("what", ["remove", "update", "add", "compact"])
def test_an_interrupted_call_leaves_no_trace(
    what: str, share: float, metric: str, tmp_path: Path, minilm: Any
) -> None:
    base = minilm.base.astype(np.float32)
    index = vicinal.Index(384, metric, ef_construction=40)
    index.add(base[:2000])
    index.remove(np.arange(0, 600, 2))  # rows to be used again
    index.remove([1, 3])
    ids = index.ids[: int(len(index) * share)]

    def call(index: vicinal.Index, progress: Any = None) -> None:
        if what == "remove":
            index.remove(ids, progress=progress)
        elif what == "update":
            index.update(base[-len(ids) :], ids, progress=progress)
        elif what == "add":
            index.add(base[-len(ids) :], progress=progress)
        else:
            index.compact(progress=progress)

    index.save(tmp_path / "before")
    other = vicinal.open(tmp_path / "before", mode="copy")
    stats = index.stats()
    for stop in (1, 2, 10**9):  # the first report, the second, the last
        seen: list[int] = []

        def progress(done: int, total: int, seen: list[int] = seen, stop: int = stop) -> None:
            seen.append(done)
            assert 0 <= done <= total
            if len(seen) == stop or done == total:
                raise Enough

        with pytest.raises(Enough):
            call(index, progress)
        assert index.stats() == stats
        index.check()
        index.save(tmp_path / "after")
        assert (tmp_path / "before").read_bytes() == (tmp_path / "after").read_bytes()
    # nor does it show in what comes later
    call(index)
    call(other)
    index.check()
    index.save(tmp_path / "after")
    other.save(tmp_path / "before")
    assert (tmp_path / "before").read_bytes() == (tmp_path / "after").read_bytes()


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_the_same_bytes_from_any_number_of_threads(threads: int, tmp_path: Path, sift: Any) -> None:
    saved = []
    for count in (1, threads):
        index = vicinal.Index(128, dtype="uint8", ef_construction=60)
        index.add(sift.base, num_threads=count)
        rng = np.random.default_rng(0)
        index.remove(rng.choice(5000, 1500, replace=False), num_threads=count)
        index.add(sift.base[:700], num_threads=count)
        index.update(sift.base[:900], index.ids[::4][:900], num_threads=count)
        index.remove(index.ids[: len(index) * 2 // 3], num_threads=count)
        index.check()
        index.save(tmp_path / "index")
        saved.append((tmp_path / "index").read_bytes())
    assert saved[0] == saved[1]


# ---- compact


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", METRICS)
def test_compact_makes_what_one_add_would(
    metric: str, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact_below(monkeypatch, 300)
    rng = np.random.default_rng(0)
    model = Model(metric, dtype, M=8, ef_construction=60)
    model.add(random_rows(1500, dtype, rng))
    model.remove(list(range(100, 900)))
    model.add(random_rows(300, dtype, rng), list(range(-300, 0)))
    model.index.ef_search = 33
    model.index.compact()
    model.compare(rng, 0.9)
    assert model.index.stats()["removed"] == 0
    assert model.index.ef_search == 33
    if metric == "cosine" and dtype in ("float32", "float16", "bfloat16"):
        return  # vectors that have been brought to unit length once are not divided again
    fresh = vicinal.Index(DIM, metric, dtype=dtype, M=8, ef_construction=60)
    fresh.add(model.vectors(), model.index.ids)
    fresh.ef_search = 33
    fresh.save(tmp_path / "fresh")
    model.index.save(tmp_path / "compact")
    assert (tmp_path / "fresh").read_bytes() == (tmp_path / "compact").read_bytes()


def test_compact_gives_memory_back(tmp_path: Path, minilm: Any) -> None:
    index = vicinal.Index(384, "cosine")
    index.add(minilm.base)
    before = index.memory_usage()["total"]
    index.remove(np.arange(0, 4000, 8))
    index.remove(index.ids[:3000])
    index.save(tmp_path / "holes")
    again = pickle.loads(pickle.dumps(index))
    assert again.stats() == index.stats()
    assert again.ids.tolist() == index.ids.tolist()
    index.compact()
    index.save(tmp_path / "compact")
    assert len(index) == 500
    assert index.memory_usage()["total"] < before / 4
    assert (tmp_path / "compact").stat().st_size < (tmp_path / "holes").stat().st_size / 4


def test_what_was_removed_is_not_in_the_file(tmp_path: Path) -> None:
    index = vicinal.Index(64, dtype="uint8")
    secret = np.frombuffer(
        b"twenty-six letters, no one may read them, after they went away!!", np.uint8
    )
    index.add(np.tile(secret, (40, 1)))
    index.add(np.ones((10, 64), np.uint8))
    index.remove(np.arange(40))
    index.save(tmp_path / "index")
    assert b"no one may read" not in (tmp_path / "index").read_bytes()


# ---- copies, which stay out of the graph


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize("seed", range(4))
def test_any_history_of_copies(
    dtype: str, seed: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Few kinds of rows, so that originals go before their copies and come back after them."""
    exact_below(monkeypatch, 0)
    rng = np.random.default_rng(seed)
    kinds = random_rows(120, dtype, rng)
    model = Model("l2", dtype, M=8, ef_construction=60)
    model.add(kinds[rng.integers(0, 120, 800)])
    for step in range(60):
        held = list(model.held)
        action = rng.integers(0, 6)
        if action <= 1 or len(held) < 100:
            model.add(kinds[rng.integers(0, 120, int(rng.integers(1, 200)))])
        elif action == 2:  # all of some kinds, or all but one
            some = rng.integers(0, 120, 12)
            gone = [i for i, row in model.held.items() if (row == kinds[some]).all(axis=1).any()]
            model.remove(gone[: len(gone) - int(rng.integers(0, 2))])
        elif action == 3:  # the first of each kind: those that are in the graph
            model.remove(held[:40])
        elif action == 4:
            ids = rng.choice(held, len(held) // 4, replace=False).tolist()
            model.update(kinds[rng.integers(0, 120, len(ids))], ids)
        else:
            model.remove(rng.choice(held, len(held) // 3, replace=False).tolist())
        if step % 7 == 6:
            model.index.save(tmp_path / "index")
            model.index = vicinal.open(tmp_path / "index", mode="copy", verify=True)
        model.index.check()
        if step % 3 == 0:
            model.compare(rng, 0.9)
    # each kind finds all that equal it, and nothing else, through the graph
    for kind in kinds[:40]:
        equal = {i for i, row in model.held.items() if (row == kind).all()}
        k = len(equal) + 1
        found = model.index.search(kind.astype(found_dtype(dtype)), k, ef_search=max(k, 8))
        assert set(found.ids[found.distances == 0].tolist()) == equal
    model.index.compact()
    model.compare(rng, 0.9)


def found_dtype(dtype: str) -> str:
    """Return what queries of an index are."""
    return dtype if dtype in ("int8", "uint8") else "float32"


def test_copies_outlive_their_original(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    index = vicinal.Index(16)
    index.add(rng.normal(size=(3000, 16)))
    originals = index.get(np.arange(500)).copy()
    index.add(originals, np.arange(10_000, 10_500))
    index.remove(np.arange(500))
    index.check()
    assert index.stats()["removed"] == 500
    found = index.search(originals, 2, ef_search=20)
    assert (found.ids[:, 0] == np.arange(10_000, 10_500)).all()
    assert (found.distances[:, 1] > 0).all()
    index.remove(np.arange(10_000, 10_250))
    index.check()
    assert index.stats()["removed"] == 750
    found = index.search(originals, 1, ef_search=20)
    assert (found.distances[:250] > 0).all() and (found.distances[250:] == 0).all()
    index.add(originals[:100], np.arange(20_000, 20_100))
    index.check()
    assert (index.search(originals[:100], 1, ef_search=20).distances == 0).all()
    index.save(tmp_path / "index")
    again = vicinal.open(tmp_path / "index")
    assert again.ids.tolist() == index.ids.tolist()
    assert (again.search(originals, 1).ids == index.search(originals, 1).ids).all()


# ---- string ids


def test_strings_as_ids() -> None:
    index = vicinal.Index(2, ids="str")
    index.add([[0, 0], [1, 0], [2, 0]], ["a", "b", "c"])
    index.remove("b")
    assert "b" not in index and index.ids.tolist() == ["a", "c"]
    with pytest.raises(KeyError, match="ids: 'b' is not in the index"):
        index.remove(["a", "b"])
    with pytest.raises(KeyError, match="ids: 'never' is not in the index"):
        index.update([[1, 1]], ["never"])
    with pytest.raises(ValueError, match="ids: 'a' stands at position 0 and again at 1"):
        index.remove(["a", "a"])
    index.update([5, 5], "a")
    assert index.add([[7, 7], [8, 8]], ["c", "d"], on_conflict="skip").tolist() == ["c", "d"]
    index.add([[9, 9], [6, 6]], ["c", "b"], on_conflict="update")
    held = {"a": [5, 5], "b": [6, 6], "c": [9, 9], "d": [8, 8]}
    for compacted in range(2):
        assert sorted(index.ids.tolist()) == sorted(held)
        for name, vector in held.items():
            np.testing.assert_array_equal(index.get(name), vector)
            assert index.search(vector, 1).ids.tolist() == [name]
        if not compacted:
            index.compact()
    index.add([[1, 2]], ["e"])
    assert index.search([1, 2], 1).ids.tolist() == ["e"]
    again = pickle.loads(pickle.dumps(index))
    assert again.ids.tolist() == index.ids.tolist()
