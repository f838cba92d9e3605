"""Rows that are collected first and linked at once: blocks of `bulk`, and iterators of batches."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vicinal

DIM = 16
COUNT = 3000


def rows(seed: int, count: int) -> Any:
    return np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)


def saved(index: vicinal.Index, folder: Path) -> bytes:
    path = folder / "index"
    index.save(path)
    return path.read_bytes()


def small(**parameters: Any) -> vicinal.Index:
    return vicinal.Index(DIM, ef_construction=40, **parameters)


@pytest.mark.parametrize("metric", ["l2", "ip"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "uint8"])
@pytest.mark.parametrize("present", [0, 1200])
def test_the_same_bytes_as_one_call(metric: str, dtype: str, present: int, tmp_path: Path) -> None:
    values = rows(1, COUNT)
    if dtype == "uint8":
        values = (values * 20 + 100).clip(0, 255).astype(np.uint8)
    elif dtype == "bfloat16":
        values = (values.view(np.uint32) >> 16).astype(np.uint16)
    one, many, batches = (small(metric=metric, dtype=dtype) for _ in range(3))
    for index in (one, many, batches):
        index.add(values[:present])
    wanted = one.add(values[present:])
    with many.bulk() as bulk:
        for i in range(present, COUNT, 100):
            bulk.add(values[i : i + 100])
            assert len(many) == present and len(bulk) == i + 100 - present
    taken = batches.add(values[i : i + 100] for i in range(present, COUNT, 100))
    assert bulk.ids.tolist() == taken.tolist() == wanted.tolist()
    for index in (many, batches):
        index.check()
        assert index.build_stats()["rounds"] == one.build_stats()["rounds"]
        assert saved(index, tmp_path) == saved(one, tmp_path)


def test_cosine_finds_as_much() -> None:
    values, queries = rows(1, COUNT), rows(2, 50)
    one, many = small(metric="cosine"), small(metric="cosine")
    one.add(values)
    with many.bulk() as bulk:
        for value in values:
            bulk.add(value)
    many.check()
    assert np.allclose(many.get(many.ids), one.get(one.ids), atol=1e-6)
    truth = vicinal.exact_search(values, queries, 10, metric="cosine").ids
    recalls = [vicinal.recall_at_k(index.search(queries, 10).ids, truth) for index in (one, many)]
    assert abs(recalls[0] - recalls[1]) < 0.02


def test_nothing_is_seen_until_the_end() -> None:
    index = small()
    index.add(rows(1, 10))
    with index.bulk() as bulk:
        bulk.add(rows(2, 5))
        assert len(index) == 10 and 12 not in index and index.ids.tolist() == list(range(10))
        assert 12 not in index.search(rows(2, 5)[2], 10).ids
        with pytest.raises(RuntimeError, match=r"^bulk: there are no ids"):
            _ = bulk.ids
    assert bulk.ids.tolist() == [10, 11, 12, 13, 14] and len(bulk) == 5
    assert len(index) == 15 and index.search(rows(2, 5)[2], 1).ids.tolist() == [12]
    with pytest.raises(RuntimeError, match=r"^bulk: its block has ended"):
        bulk.add(rows(3, 1))
    with pytest.raises(RuntimeError, match=r"^bulk: its block has ended"), bulk:
        pass


def test_an_exception_leaves_the_index_as_it_was(tmp_path: Path) -> None:
    index = small()
    index.add(rows(1, 1500))
    before = saved(index, tmp_path)
    for error in (ZeroDivisionError, KeyboardInterrupt, GeneratorExit):
        with pytest.raises(error), index.bulk() as bulk:
            bulk.add(rows(2, 100))
            raise error
        with pytest.raises(RuntimeError, match="no ids"):
            _ = bulk.ids
    assert saved(index, tmp_path) == before
    assert index.add(rows(3, 1)).tolist() == [1500]
    index.check()


def test_an_end_that_is_refused_leaves_the_index_as_it_was(tmp_path: Path) -> None:
    index = small()
    index.add(rows(1, 1500))
    before = saved(index, tmp_path)

    def stop(done: int, total: int) -> None:
        assert total == 100
        raise ArithmeticError

    with pytest.raises(ArithmeticError), index.bulk(progress=stop, num_threads=2) as bulk:
        bulk.add(rows(2, 100))
    assert saved(index, tmp_path) == before
    with (
        pytest.raises(ValueError, match=r"^ids: 5001 at position 1 is already in the index$"),
        index.bulk() as bulk,
    ):
        bulk.add(rows(2, 2), [5000, 5001])
        index.add(rows(3, 1), [5001])
    assert len(index) == 1501 and 5000 not in index


def test_a_batch_that_is_refused_does_not_end_the_block() -> None:
    index = small()
    index.add(rows(1, 5), ids=[10, 11, 12, 13, 14])
    bad = rows(2, 3)
    bad[2, 1] = np.inf
    with index.bulk() as bulk:
        bulk.add(rows(3, 2), ids=[20, 21])
        with pytest.raises(ValueError, match=r"^vectors: row 2 "):
            bulk.add(bad, [22, 23, 24])
        with pytest.raises(ValueError, match=r"^ids: 11 at position 1 is already in the index$"):
            bulk.add(rows(4, 2), ids=[22, 11])
        with pytest.raises(ValueError, match=r"^ids: 21 at position 1 is already in the index$"):
            bulk.add(rows(4, 2), ids=[22, 21])
        with pytest.raises(ValueError, match="ids"):
            bulk.add(rows(4, 2), ids=[30, 30])
        with pytest.raises(ValueError, match=r"^ids: expected \(2,\), got \(1,\)$"):
            bulk.add(rows(4, 2), ids=[30])
        with pytest.raises(ValueError, match=r"\(n, 16\)"):
            bulk.add(np.zeros((2, 3)), [1, 2])
        with pytest.raises(ValueError, match=r"^ids: expected with all calls of the block or wi"):
            bulk.add(rows(4, 2))
        with pytest.raises(TypeError, match=r"^ids: "):
            bulk.add(rows(4, 1), ["a"])
        bulk.add(rows(5, 1)[0], 22)
    assert index.ids.tolist() == [10, 11, 12, 13, 14, 20, 21, 22]
    assert (index.get(22) == rows(5, 1)[0]).all()
    index.check()


def test_conflicts() -> None:
    index = small()
    index.add(rows(1, 4), ids=[1, 2, 3, 4])
    with index.bulk(on_conflict="skip") as bulk:
        bulk.add(rows(2, 2), ids=[4, 5])
    assert bulk.ids.tolist() == [4, 5] and (index.get(4) == rows(1, 4)[3]).all()
    with index.bulk(on_conflict="update") as bulk:
        bulk.add(rows(3, 2), ids=[1, 6])
        with pytest.raises(ValueError, match=r"^ids: 1 at position 0 is already in the index$"):
            bulk.add(rows(3, 1), ids=[1])
        assert (index.get(1) == rows(1, 4)[0]).all()
    assert sorted(index.ids.tolist()) == [1, 2, 3, 4, 5, 6]
    assert (index.get(1) == rows(3, 2)[0]).all() and (index.get(6) == rows(3, 2)[1]).all()
    with pytest.raises(ValueError, match="on_conflict"):
        index.bulk(on_conflict="replace")
    with pytest.raises(ValueError, match="num_threads"):
        index.bulk(num_threads=0)
    index.check()


def test_automatic_ids_are_drawn_at_the_end() -> None:
    index = small()
    index.add(rows(1, 3))
    index.remove(2)
    with index.bulk() as bulk, index.bulk() as other:
        bulk.add(rows(2, 2))
        other.add(rows(3, 2))
        assert index.add(rows(4, 1)).tolist() == [3]
    assert other.ids.tolist() == [4, 5] and bulk.ids.tolist() == [6, 7]
    index.remove(0)
    index.check()
    with index.bulk() as bulk:
        pass
    assert bulk.ids.tolist() == [] and len(index) == 6


def test_strings() -> None:
    index = small(ids="str")
    index.add(rows(1, 1), "a")
    with index.bulk() as bulk:
        bulk.add(rows(2, 2), ["b", "c"])
        with pytest.raises(ValueError, match=r"^ids: 'a' at position 0 is already in the index$"):
            bulk.add(rows(3, 1), ["a"])
        with pytest.raises(ValueError, match=r"^ids: 'c' at position 0 is already in the index$"):
            bulk.add(rows(3, 1), ["c"])
        with pytest.raises(ValueError, match="ids: expected"):
            bulk.add(rows(3, 1))
    assert index.ids.tolist() == ["a", "b", "c"] and bulk.ids.tolist() == ["b", "c"]
    assert index.add((b, n) for b, n in [(rows(4, 1), ["d"]), (rows(5, 1), ["e"])]).tolist() == [
        "d",
        "e",
    ]
    with pytest.raises(ValueError, match=r"^batch 0: ids: expected strings"):
        index.add(iter([rows(6, 1)]))
    with index.bulk():
        pass
    index.check()


def test_several_threads_fill_a_block() -> None:
    index = small()
    with index.bulk() as bulk:
        threads = [
            threading.Thread(
                target=lambda i=i: [
                    bulk.add(rows(100 * i + j, 3), np.arange(3) + 300 * i + 3 * j)
                    for j in range(100)
                ]
            )
            for i in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(bulk.ids.tolist()) == list(range(1800)) and len(index) == 1800
    for i, j in ((0, 0), (3, 50), (5, 99)):
        assert (index.get(np.arange(3) + 300 * i + 3 * j) == rows(100 * i + j, 3)).all()
    index.check()


def test_read_only(tmp_path: Path) -> None:
    index = small()
    index.add(rows(1, 3))
    index.save(tmp_path / "index")
    with pytest.raises(ValueError, match="writable"):
        vicinal.open(tmp_path / "index").bulk()


def test_a_source_in_a_block(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", rows(1, 40))
    index = small()
    with index.bulk() as bulk:
        bulk.add(vicinal.read_vectors(tmp_path / "rows.npy"))
        bulk.add(rows(3, 4))
        assert len(index) == 0
    assert len(index) == 44 and index.search(rows(3, 4)[1], 1).ids.tolist() == [41]


# ---- iterators


def test_an_iterator_that_fails_adds_nothing(tmp_path: Path) -> None:
    index = small()
    index.add(rows(1, 1500))
    before = saved(index, tmp_path)

    def batches(last: Any) -> Iterator[Any]:
        yield rows(2, 50)
        yield rows(3, 50)
        if isinstance(last, BaseException):
            raise last
        yield last

    bad = rows(4, 3)
    bad[1, 0] = np.nan
    for last, said in (
        (OSError("gone"), "gone"),
        (bad, r"^batch 2: vectors: row 1 "),
        (np.zeros((2, 5)), r"^batch 2: vectors: expected"),
        (
            (rows(4, 1), [7]),
            r"^batch 2: ids: expected with all calls of the block or with none, go",
        ),
        ((1, 2, 3), r"^batch 2: expected \(vectors, ids\), got 3 items"),
    ):
        with pytest.raises((OSError, ValueError), match=said):
            index.add(batches(last))
    named = [(rows(2, 2), [5000, 5001]), (rows(3, 2), [5002, 5000])]
    with pytest.raises(ValueError, match=r"^batch 1: ids: 5000 at position 1 is already"):
        index.add(iter(named))
    with pytest.raises(ValueError, match=r"^batch 0: ids: 3 at position 1 is already in the"):
        index.add(iter([(rows(2, 2), [5000, 3])]))
    with pytest.raises(ValueError, match=r"^ids: expected None with an iterator"):
        index.add(iter([rows(2, 2)]), ids=[1, 2])
    with pytest.raises(ValueError, match=r"^copy: "):
        index.add(iter([rows(2, 2)]), copy=False)
    assert saved(index, tmp_path) == before


def test_an_iterator_reads_while_others_write() -> None:
    index = small()

    def batches() -> Iterator[Any]:
        yield rows(1, 2)
        index.add(rows(2, 3))
        yield rows(3, 2)

    assert index.add(batches()).tolist() == [3, 4, 5, 6]
    assert (index.get(5) == rows(3, 2)[0]).all()
    assert index.add(iter([])).tolist() == [] and len(index) == 7
    conflicts = iter([(rows(4, 2), [0, 70]), (rows(5, 1), [71])])
    assert index.add(conflicts, on_conflict="update").tolist() == [0, 70, 71]
    assert (index.get(0) == rows(4, 2)[0]).all() and len(index) == 9
    index.check()
