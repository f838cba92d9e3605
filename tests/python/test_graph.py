"""The graph as a whole: same bytes, odd data, recall, where it begins, searches while it grows."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import reference
import vicinal
import vicinal.index
from support.indexes import exact_below

Array = np.ndarray[Any, np.dtype[Any]]


def digest(index: vicinal.Index, folder: Path) -> str:
    """Return the SHA-256 of the file that an index saves."""
    index.save(folder / "digest", force=True)  # others were opened from it
    return hashlib.sha256((folder / "digest").read_bytes()).hexdigest()


# ---- the same bytes


@pytest.mark.parametrize(
    ("name", "dtype", "quantization"),
    [
        ("sift", "uint8", "auto"),
        ("sift", "float32", "auto"),
        ("minilm", "float32", "auto"),
        ("minilm", "float32", None),
    ],
)
def test_bytes_do_not_depend_on_threads(
    name: str,
    dtype: str,
    quantization: str | None,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    data = request.getfixturevalue(name)
    rows = data.base[:3500].astype(dtype)

    def saved(num_threads: int, seed: int = 0) -> str:
        index = vicinal.Index(
            rows.shape[1],
            data.metric,
            dtype=dtype,
            quantization=quantization,
            ef_construction=80,
            seed=seed,
        )
        for part in (rows[:500], rows[500:3400], rows[3400:]):
            index.add(part, num_threads=num_threads)
        return digest(index, tmp_path)

    first = saved(1)
    for num_threads in (1, 2, 3, 8, 8):
        assert saved(num_threads) == first, f"{num_threads} threads"
    assert saved(1, seed=1) != first


class Enough(Exception):
    pass


@pytest.mark.parametrize("call", [1, 2, 3, 1000])
@pytest.mark.parametrize(
    ("before", "quantization", "shift", "more_shift"),
    [
        (2000, None, 0.5, 0.5),
        (2000, "auto", 0.0, 0.0),
        (2000, "auto", 0.5, 0.5),
        (2000, "auto", 0.0, 0.5),  # the rows there are would get other codes
        (700, "auto", 0.5, 0.5),  # the graph would be built
    ],
)
def test_an_interrupted_add_leaves_every_byte(
    before: int,
    quantization: str | None,
    shift: float,
    more_shift: float,
    call: int,
    tmp_path: Path,
    sift: Any,
) -> None:
    base = sift.base.astype(np.float32)
    # so slow that progress is asked a few times
    index = vicinal.Index(128, M=32, ef_construction=600, quantization=quantization)
    index.add(base[:before] + np.float32(shift), ids=np.arange(before) * 7)
    saved = digest(index, tmp_path)
    other = vicinal.open(tmp_path / "digest", mode="copy")
    asked: list[int] = []

    def progress(done: int, total: int) -> None:
        asked.append(done)
        if len(asked) == call or done == total:
            raise Enough

    with pytest.raises(Enough):
        index.add(base[before:] + np.float32(more_shift), progress=progress)
    assert digest(index, tmp_path) == saved
    vicinal.open(tmp_path / "digest", verify=True).check()
    index.check()
    # nor does it show in what is added later: rows so far away that codes have to change
    for each in (index, other):
        each.add(base[before : before + 1000] + np.float32(10_000.5))
    assert digest(index, tmp_path) == digest(other, tmp_path)


# ---- invariants on odd data


def normal(n: int, dim: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)


def far_clusters() -> list[Array]:
    """One cluster after the other: every row of the second is as far from all of the first."""
    return [normal(1500, 32), normal(1500, 32, seed=1) + 300]


SHAPES: dict[str, Callable[[], list[Array]]] = {
    "one add": lambda: [normal(3000, 32)],
    "50 adds": lambda: np.array_split(normal(3000, 32), 50),
    "one row at a time": lambda: np.array_split(normal(1500, 32), 1500),
    "copies of one row": lambda: [np.tile(normal(1, 32), (20_000, 1))],
    "100 copies of 200 rows": lambda: [np.tile(normal(200, 32), (100, 1))],
    "one dimension": lambda: [normal(4000, 1)],
    "one dimension, few values": lambda: [normal(4000, 1).round(1)],
    "sorted": lambda: [np.sort(normal(4000, 1), axis=0) * normal(1, 32, seed=1)],
    "sorted, one row at a time": lambda: np.array_split(np.sort(normal(1500, 1), axis=0), 1500),
    "two far clusters": lambda: [np.concatenate(far_clusters())],
    "two far clusters, two adds": far_clusters,
    "three rows": lambda: [normal(3, 32)],
}


@pytest.mark.parametrize("quantization", ["auto", None])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_row_finds_itself(
    shape: str, quantization: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact_below(monkeypatch, 0)
    parts = SHAPES[shape]()
    rows = np.concatenate(parts)
    index = vicinal.Index(rows.shape[1], quantization=quantization)
    for part in parts:
        index.add(part)
    index.check()
    assert index.stats()["graph_rows"] == len(index) == len(rows)
    # wide, but not so wide that all rows are scanned instead
    wide = max(min(500, len(rows) // 8 - 1), 1)
    few = rows[:: len(rows) // 2000 + 1]
    found = index.search(few, 1, ef_search=wide)
    assert (found.distances == 0).all(), f"{(found.distances != 0).sum()} rows do not"
    np.testing.assert_array_equal(rows[found.ids[:, 0]], few)


@pytest.mark.parametrize("quantization", ["auto", None])
@pytest.mark.parametrize("order", ["mixed", "one after the other"])
def test_many_copies(order: str, quantization: str | None) -> None:
    """A search gets as many copies as it asks for, and copies of one row hide no other."""
    rows = np.repeat(normal(200, 32), 100, axis=0)
    if order == "mixed":
        rows = rows[np.random.default_rng(1).permutation(20_000)]
    index = vicinal.Index(32, quantization=quantization)
    for part in np.split(rows, 4):
        index.add(part)
    index.check()
    kinds = np.unique(rows, axis=0)
    for k in (1, 90, 150):
        found = index.search(kinds, k)
        same = (found.distances == 0).sum(axis=1)
        assert (same == min(k, 100)).all()
        for kind, ids in zip(kinds, found.ids[:, :100], strict=True):
            assert (rows[ids] == kind).all()
            # equal distances in the order of rows: the oldest copies
            assert ids.tolist() == np.flatnonzero((rows == kind).all(axis=1))[:k].tolist()


def test_one_row_a_hundred_thousand_times(tmp_path: Path) -> None:
    rows = np.tile(np.arange(8, dtype=np.float32), (100_000, 1))
    index = vicinal.Index(8)
    index.add(rows)
    index.add(rows[:1] + 1)
    index.check()
    index.save(tmp_path / "copies")
    for opened in (index, vicinal.open(tmp_path / "copies", verify=True)):
        opened.check()
        found = opened.search(rows[0], 5_000)
        assert found.ids.tolist() == list(range(5_000)) and not found.distances.any()
        assert opened.search(rows[0] + 1, 3).ids.tolist() == [100_000, 0, 1]
    again = vicinal.open(tmp_path / "copies", mode="copy")
    again.add(rows[:7])
    again.add(rows[:2] + 1)
    again.check()
    assert again.search(rows[0] + 1, 4).ids.tolist() == [100_000, 100_008, 100_009, 0]
    assert len(set(again.search(rows[0], 9_000).ids.tolist())) == 9_000


def test_copies_of_an_addition_that_failed() -> None:
    """They are forgotten: a later row with the same values does not end up behind them."""
    rows = normal(3_000, 24)
    index = vicinal.Index(24)
    index.add(rows[:2_000])

    def refuse(done: int, total: int) -> None:
        raise RuntimeError("enough")

    for _ in range(2):
        with pytest.raises(RuntimeError):
            index.add(np.concatenate([rows[1_000:], rows[2_500:]]), progress=refuse)
        index.check()
    index.add(rows[1_500:])
    index.check()
    assert (index.search(rows[1_500:2_000], 2, ef_search=400).distances == 0).all()
    assert (index.search(rows[2_000:], 2, ef_search=400).distances[:, 1] > 0).all()


# ---- recall

WIDTHS = (16, 32, 64, 128, 256)
SLACK = 0.005
# recall@10 at WIDTHS with M=16, ef_construction=200, seed=0
MEASURED = {
    ("sift-ngt-5k", "auto"): (0.614, 0.782, 0.892, 0.953, 0.986),
    ("sift-ngt-5k", None): (0.614, 0.782, 0.892, 0.953, 0.986),
    ("minilm-4k", "auto"): (0.915, 0.972, 0.996, 1.0, 1.0),
    ("minilm-4k", None): (0.922, 0.978, 0.998, 1.0, 1.0),
    ("fashion-mnist-3k", "auto"): (0.994, 0.999, 1.0, 1.0, 1.0),
    ("fashion-mnist-3k", None): (0.994, 0.999, 1.0, 1.0, 1.0),
    ("minilm-10k", "auto"): (0.920, 0.971, 0.992, 0.999, 1.0),
    ("minilm-10k", None): (0.922, 0.972, 0.992, 0.998, 1.0),
    ("sift-photo-10k", "auto"): (0.940, 0.985, 0.997, 1.0, 1.0),
    ("sift-photo-10k", None): (0.940, 0.985, 0.997, 1.0, 1.0),
    ("fashion-mnist-784", "auto"): (0.969, 0.992, 0.998, 0.999, 1.0),
    ("fashion-mnist-784", None): (0.969, 0.992, 0.998, 0.999, 1.0),
}


@pytest.mark.parametrize(
    ("name", "quantization"),
    [
        pytest.param(*case, marks=pytest.mark.slow) if case[0] == "fashion-mnist-784" else case
        for case in MEASURED
    ],
)
def test_recall(name: str, quantization: str | None, large_set: Any, recall: Any) -> None:
    data = large_set(name)
    index = vicinal.Index(data.base.shape[1], data.metric, quantization=quantization)
    index.add(data.base)
    assert index.stats()["search"] == "graph"
    for ef, measured in zip(WIDTHS, MEASURED[name, quantization], strict=True):
        found = index.search(data.queries.astype(np.float32), 10, ef_search=ef)
        assert recall(found, data) >= measured - SLACK, f"ef_search={ef}"


def mean_recall(index: vicinal.Index, data: Any, recall: Any) -> float:
    return float(
        np.mean([recall(index.search(data.queries, 10, ef_search=ef), data) for ef in WIDTHS])
    )


@pytest.mark.parametrize("calls", [2, 7, 50, 1000])
def test_recall_of_many_adds(calls: int, sift: Any, recall: Any) -> None:
    whole, parts = vicinal.Index(128, dtype="uint8"), vicinal.Index(128, dtype="uint8")
    whole.add(sift.base)
    for part in np.array_split(sift.base, calls):
        parts.add(part)
    parts.check()
    # free slots are filled at the end of a call, in many calls before all neighbours are there
    assert mean_recall(parts, sift, recall) >= mean_recall(whole, sift, recall) - 0.015


# ---- where the graph begins


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize("quantization", ["auto", None])
def test_the_graph_is_built_at_exact_below(
    dtype: str, quantization: str | None, monkeypatch: pytest.MonkeyPatch, sift: Any
) -> None:
    exact_below(monkeypatch, 600)
    rows, queries = sift.base[:700].astype(dtype), sift.queries.astype(dtype)
    index = vicinal.Index(128, dtype=dtype, quantization=quantization)

    def compare(count: int) -> None:
        # a search as wide as an eighth of the rows scans them all, graph or not
        found = index.search(queries, 10, ef_search=(count + 7) // 8)
        ids, distances = reference.nearest(rows[:count], queries, 10, "l2")
        np.testing.assert_array_equal(found.ids, ids)
        np.testing.assert_array_equal(found.distances, distances)

    for count in (1, 300, 599):
        index.add(rows[len(index) : count])
        stats = index.stats()
        assert (stats["search"], stats["graph_rows"], stats["exact_below"]) == ("exact", 0, 600)
        ids, distances = reference.nearest(rows[:count], queries, 10, "l2")
        found = index.search(queries, 10)
        np.testing.assert_array_equal(found.ids, ids)
        np.testing.assert_allclose(found.distances, distances)
        compare(count)
        index.check()
    for count in (600, 601, 700):
        index.add(rows[len(index) : count])
        stats = index.stats()
        assert (stats["search"], stats["graph_rows"]) == ("graph", count)
        index.check()
        truth = reference.nearest(rows[:count], queries, 10, "l2")
        found = index.search(queries, 10, ef_search=64)
        assert (
            np.mean([np.isin(a, b).mean() for a, b in zip(found.ids, truth[0], strict=True)])
            >= 0.98
        )
        compare(count)


# ---- searches meanwhile


@pytest.mark.parametrize(
    ("metric", "dtype", "quantization"),
    [
        ("cosine", "float32", "auto"),
        ("cosine", "float32", None),
        ("l2", "float16", "sq8"),
        ("ip", "float32", "rabitq4"),
    ],
)
def test_searches_while_rows_are_added(
    metric: str, dtype: str, quantization: str | None, minilm: Any
) -> None:
    """From the exact scan on, in several adds, one of which fails."""
    base, queries = minilm.base, minilm.queries
    numbers = np.random.default_rng(0).permutation(len(base)) * 977 - 1_000_000
    row_of = {int(number): row for row, number in enumerate(numbers)}
    if metric == "cosine":
        queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
        base = base / np.linalg.norm(base, axis=1, keepdims=True)
    kept = base.astype(dtype).astype(np.float64)
    true = {"l2": lambda q, r: ((r - q) ** 2).sum(axis=-1)}.get(
        metric, lambda q, r: 1 - (r * q).sum(axis=-1)
    )
    index = vicinal.Index(
        base.shape[1], metric, dtype=dtype, quantization=quantization, ef_construction=100
    )
    index.add(base[:500], numbers[:500])
    wrong: list[str] = []
    rounds = [0, 0, 0]
    done = threading.Event()

    def work(worker: int) -> None:
        rng = np.random.default_rng(worker)
        try:
            while not done.is_set() or rounds[worker] == 0:
                some = queries[rng.integers(0, len(queries), 40)]
                # one by one and in a batch
                shown = some if worker else some[0]
                ids, distances = index.search(shown, 10, ef_search=40, num_threads=1)
                rows = np.array([row_of[i] for i in ids.reshape(-1).tolist()]).reshape(ids.shape)
                wanted = true(shown.astype(np.float64)[..., None, :], kept[rows])
                if not np.allclose(distances, wanted, rtol=1e-4, atol=1e-5):
                    wrong.append(f"distances, off by {np.abs(distances - wanted).max()}")
                if (np.diff(distances, axis=-1) < 0).any():
                    wrong.append("order")
                if any(len(set(row)) < 10 for row in ids.reshape(-1, 10).tolist()):
                    wrong.append("a row twice")
                rounds[worker] += 1
        except Exception as error:
            wrong.append(repr(error))

    def fail(done: int, total: int) -> None:
        if done == total:
            raise Enough

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(3)]
    for thread in threads:
        thread.start()
    try:
        for first, last in ((500, 900), (900, 1300), (1300, 1301), (1301, 2000)):
            index.add(base[first:last], numbers[first:last], num_threads=2)
        with pytest.raises(Enough):
            index.add(base[2000:], numbers[2000:], progress=fail)
        index.add(base[2000:], numbers[2000:], num_threads=2)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not wrong
    assert min(rounds) > 0
    index.check()
    np.testing.assert_array_equal(index.ids, numbers)
