"""knn_graph without an index: rows that meet in groups find what measuring all pairs finds."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import threading
from typing import Any

import numpy as np
import pytest

import vicinal
from vicinal import _self_join, knn_graph
from vicinal._cpu import native

# `vicinal.knn_graph` is the function.
MODULE = importlib.import_module("vicinal.knn_graph")
RNG = np.random.default_rng(5)


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Join however few rows there are, in small groups, and make no index; tells the pairs."""
    monkeypatch.setattr(MODULE, "EXACT_BELOW", 0)
    monkeypatch.setattr(_self_join, "LEAST_GROUP", 100)
    monkeypatch.setattr(_self_join, "GROUP_BY_DIM", 0)

    def no_index(*_: Any, **__: Any) -> None:
        raise AssertionError("an index was made")

    monkeypatch.setattr(MODULE, "Index", no_index)
    pairs: list[int] = []
    new = native.join_new
    take = native.join_take
    monkeypatch.setattr(native, "join_new", lambda *a: pairs.append(0) or new(*a))

    def counted(handle: Any, *rest: Any) -> Any:
        pairs[-1] = native.join_pairs(handle)
        return take(handle, *rest)

    monkeypatch.setattr(native, "join_take", counted)
    return pairs


def heaps(n: int, dim: int, seed: int = 0) -> Any:
    """Rows around a few hundred centres."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(n // 20, dim)) * 3
    return (centres[rng.integers(0, len(centres), n)] + rng.normal(size=(n, dim))).astype("f4")


def share(found: Any, truth: Any) -> float:
    """Return the share of neighbours found; of equally far ones any will do."""
    near = found.distances <= truth.distances[:, -1:]
    near |= (found.indices[:, :, None] == truth.indices[:, None, :]).any(axis=2)
    return float(near.mean())


def check(found: Any, truth: Any) -> None:
    """Assert what every graph must be."""
    own = np.arange(len(found.indices))[:, None]
    assert (found.indices != own).all()
    assert (found.indices >= 0).all()
    assert (np.sort(found.indices, axis=1)[:, 1:] != np.sort(found.indices, axis=1)[:, :-1]).all()
    ordered = np.diff(found.distances, axis=1)
    assert (ordered >= 0).all()
    assert (np.diff(found.indices, axis=1)[ordered == 0] > 0).all()
    # whoever is in both is as far in both, to the last bit
    same = found.indices[:, :, None] == truth.indices[:, None, :]
    row, mine, theirs = np.nonzero(same)
    np.testing.assert_array_equal(found.distances[row, mine], truth.distances[row, theirs])


@pytest.mark.parametrize("metric", ["l2", "euclidean", "cosine"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8", "int8", "float64"])
def test_real_rows(sift: Any, metric: str, dtype: str, joined: list[Any]) -> None:
    rows = sift.base[:3000]
    if dtype == "int8":
        rows = (rows.astype(int) - 128).clip(-128, 127)
    rows = rows.astype(dtype)
    truth = knn_graph(rows, 15, metric, recall=1)
    found = knn_graph(rows, 15, metric, recall=0.95)
    check(found, truth)
    assert share(found, truth) >= 0.945
    # without an index and without all pairs
    assert 0 < joined[-1] < 3000 * 2999 // 2 * 0.9


def test_bits_of_bfloat16(joined: list[Any]) -> None:
    rows = heaps(700, 16)
    bits = (rows.view(np.uint32) >> 16).astype(np.uint16)
    found = _self_join.self_join(bits, 6, "l2", "bfloat16", 0.95, 0, 2)
    assert found is not None
    rounded = (bits.astype(np.uint32) << 16).view(np.float32)
    truth = knn_graph(rounded, 6, recall=1)
    check(MODULE.NeighbourGraph(*found), truth)
    assert (found[0] == truth.indices).mean() > 0.94


def test_sentences(minilm: Any, joined: list[Any]) -> None:
    truth = knn_graph(minilm.base, 10, "cosine", recall=1)
    found = knn_graph(minilm.base, 10, "cosine", recall=0.95)
    check(found, truth)
    assert share(found, truth) >= 0.94


def test_threads_and_seeds(fashion: Any, joined: list[Any]) -> None:
    rows = fashion.base
    one = knn_graph(rows, 10, num_threads=1)
    for threads in (2, 5):
        again = knn_graph(rows, 10, num_threads=threads)
        np.testing.assert_array_equal(again.indices, one.indices)
        np.testing.assert_array_equal(again.distances, one.distances)
    assert len(set(joined)) == 1
    other = knn_graph(rows, 10, seed=9)
    truth = knn_graph(rows, 10, recall=1)
    assert joined[-1] != joined[0]
    assert share(one, truth) >= 0.985 and share(other, truth) >= 0.985


def test_more_recall_is_more_work(sift: Any, joined: list[Any]) -> None:
    truth = knn_graph(sift.base, 10, recall=1)
    shares = []
    for recall in (0.5, 0.9, 0.97):
        shares.append(share(knn_graph(sift.base, 10, recall=recall), truth))
        assert shares[-1] >= recall - 0.01
    assert joined[0] < joined[1] < joined[2]


def test_rows_in_order(joined: list[Any]) -> None:
    """That near rows stand together must not matter, nor that they do not."""
    rows = heaps(2000, 16)
    rows = rows[np.lexsort(rows.T)]
    truth = knn_graph(rows, 10, recall=1)
    found = knn_graph(rows, 10)
    check(found, truth)
    assert share(found, truth) >= 0.985


def test_many_copies(joined: list[Any]) -> None:
    """Half of all rows are one: more than any group may have."""
    rows = heaps(1500, 12)
    rows[::2] = rows[0]
    rows[1:300:2] = rows[1]
    truth = knn_graph(rows, 8, recall=1)
    found = knn_graph(rows, 8)
    check(found, truth)
    assert (found.distances[::2] == 0).all()
    assert share(found, truth) >= 0.985
    same = knn_graph(np.ones((700, 3), np.float32), 6)
    assert (same.distances == 0).all()
    assert (same.indices != np.arange(700)[:, None]).all()


def test_strays(joined: list[Any]) -> None:
    """A few rows far out: theirs are found, too, and they do not coarsen the codes of others."""
    rows = heaps(1200, 10)
    rows[100:103] *= 1e6
    rows[700] = -3e7
    truth = knn_graph(rows, 5, recall=1)
    found = knn_graph(rows, 5)
    assert found.indices.min() >= 0
    assert share(found, truth) >= 0.985


def test_rows_that_are_near_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where groups do not pay, an index is made, and finds what was asked for."""
    monkeypatch.setattr(MODULE, "EXACT_BELOW", 0)
    monkeypatch.setattr(_self_join, "LEAST_GROUP", 40)
    rows = RNG.normal(size=(1500, 150)).astype(np.float32)
    assert _self_join.self_join(rows, 10, "l2", "float32", 0.99, 0, 1) is None
    truth = knn_graph(rows, 10, recall=1)
    assert share(knn_graph(rows, 10), truth) >= 0.98


def test_itself_and_one_neighbour(joined: list[Any]) -> None:
    rows = heaps(900, 8)
    alone = knn_graph(rows, 4)
    both = knn_graph(rows, 5, include_self=True)
    np.testing.assert_array_equal(both.indices[:, 0], np.arange(900))
    np.testing.assert_array_equal(both.indices[:, 1:], alone.indices)
    assert knn_graph(rows, 1).indices.shape == (900, 1)


def test_what_cannot_join() -> None:
    assert _self_join.can_join(5000, 32768, 128, "l2", "float32")
    assert not _self_join.can_join(5000, 32769, 128, "l2", "float32")
    assert not _self_join.can_join(5000, 8, 129, "l2", "float32")
    assert not _self_join.can_join(5000, 8, 0, "l2", "float32")
    assert not _self_join.can_join(5000, 8, 5, "ip", "float32")
    assert not _self_join.can_join(5000, 64, 5, "hamming", "b1")
    assert not _self_join.can_join(6, 8, 5, "l2", "float32")


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_refused_rows(metric: str, joined: list[Any]) -> None:
    rows = heaps(600, 4)
    rows[417] = np.nan
    with pytest.raises(ValueError, match=r"^X: row 417 holds NaN"):
        knn_graph(rows, 5, metric)
    rows[417] = 0
    rows[418] = 0
    if metric == "cosine":
        with pytest.raises(ValueError, match=r"^X: row 417 is a zero vector"):
            knn_graph(rows, 5, metric)
    else:
        assert knn_graph(rows, 5, metric).indices[417, 0] == 418
    rows[3] = 1e30
    with pytest.raises(ValueError, match=r"^X: row 3 is too large"):
        knn_graph(rows, 5, metric)
    with pytest.raises(ValueError, match=r"^seed: expected a whole number"):
        knn_graph(rows, 5, metric, seed=-1)


def test_tiny_and_huge_rows(joined: list[Any]) -> None:
    """Cosine does not feel lengths, those at the ends of float32 included."""
    rows = heaps(800, 6)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    plain = knn_graph(rows, 5, "cosine")
    lengths = np.float32([1e-42, 1e-20, 1, 1e15])[np.arange(800) % 4][:, None]
    short = rows * lengths
    truth = knn_graph(short, 5, "cosine", recall=1)
    found = knn_graph(short, 5, "cosine")
    check(found, truth)
    assert share(found, truth) >= 0.985
    assert plain.distances.shape == found.distances.shape


def test_steps_are_told(joined: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Any] = []
    with caplog.at_level(logging.DEBUG, "vicinal"):
        knn_graph(heaps(900, 8), 4, progress=lambda *at: seen.append(at))
    assert any("share" in record.getMessage() for record in caplog.records)
    assert seen[-1] == (900, 900)


def test_an_exception_of_progress_ends_it(joined: list[Any]) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        knn_graph(heaps(900, 8), 4, progress=stop)


def test_ctrl_c(joined: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal that comes while rows meet is heard before they are done."""
    monkeypatch.setattr(_self_join, "LEAST_GROUP", 5_000)
    rows = RNG.normal(size=(30_000, 32)).astype(np.float32)
    begun = threading.Event()
    groups = native.join_groups

    def slow(*arguments: Any) -> Any:
        begun.set()
        return groups(*arguments)

    monkeypatch.setattr(native, "join_groups", slow)

    def interrupt() -> None:
        begun.wait()
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # workers of xdist ignore it
    try:
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            knn_graph(rows, 4, num_threads=2)
        thread.join()
    finally:
        signal.signal(signal.SIGINT, before)


def test_native_refusals() -> None:
    rows = heaps(500, 4)
    for bad in [(0, 0, rows, 0, 1), (0, 0, rows, 8, 0), (0, 0, rows, 10**6, 1), (9, 0, rows, 8, 1)]:
        with pytest.raises(ValueError):
            native.join_new(*bad)
    handle = native.join_new(0, 0, rows, 8, 1)
    with pytest.raises(ValueError):  # there were no groups yet
        native.join_neighbours(handle, 5, 1)
    with pytest.raises(ValueError):
        native.join_order(handle, np.empty(500, np.uint32))
    for bad in [(0, 4, 0, 1), (50, 0, 0, 1), (50, 5, 0, 1), (50, 4, 0, 0)]:
        with pytest.raises(ValueError):
            native.join_groups(handle, *bad)
    native.join_groups(handle, 50, 4, 0, 1)
    with pytest.raises(ValueError):
        native.join_order(handle, np.empty(499, np.uint32))
    all_rows = np.arange(500, dtype=np.uint32)
    ids, distances = np.empty((500, 3), np.int64), np.empty((500, 3), np.float32)
    native.join_take(handle, 0, 0, rows, all_rows, all_rows, 1, None, ids, distances)
    assert (ids >= 0).all()
    for chosen, places in [(all_rows + 1, all_rows), (all_rows, all_rows + 1)]:
        with pytest.raises(ValueError):
            native.join_take(handle, 0, 0, rows, chosen, places, 1, None, ids, distances)
    with pytest.raises(ValueError):
        native.join_take(handle, 0, 0, rows[:499], all_rows, all_rows, 1, None, ids, distances)
    with pytest.raises(ValueError):
        native.join_take(
            handle, 0, 0, rows, all_rows, all_rows, 1, None, ids[:, :2].copy(), distances
        )


def test_rows_of_few_that_none_is_near(monkeypatch: pytest.MonkeyPatch, joined: list[Any]) -> None:
    """Who has met fewer than k others is measured against all."""
    monkeypatch.setattr(_self_join, "_reached", lambda handle, *_: bool(one_group(handle)))

    def one_group(handle: Any) -> bool:
        native.join_groups(handle, 3, 1, 0, 1)
        return True

    rows = heaps(400, 5)
    truth = knn_graph(rows, 6, recall=1)
    found = knn_graph(rows, 6)
    check(found, truth)
    # and those that were have exactly the true ones
    assert (found.indices == truth.indices).all(axis=1).sum() > 50


def test_it_is_the_same_from_many_threads(joined: list[Any]) -> None:
    rows = heaps(1000, 8)
    wanted = knn_graph(rows, 6)
    results: list[Any] = [None] * 4

    def work(i: int) -> None:
        results[i] = knn_graph(rows, 6, num_threads=1 + i % 2)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        np.testing.assert_array_equal(result.indices, wanted.indices)


def test_it_is_used(sift: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """5,000 rows are enough; with a search width, and for products, an index is made."""
    made = []
    monkeypatch.setattr(MODULE, "Index", lambda *a, **o: made.append(a) or vicinal.Index(*a, **o))
    rows = sift.base.astype(np.float32)
    knn_graph(rows, 5)
    assert not made
    knn_graph(rows, 5, ef_search=20)
    assert len(made) == 1
    knn_graph(rows, 5, "ip", recall=0.5)
    assert len(made) == 2
