"""index.filter(...): filters that are prepared once, against plain sets of ids."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import vicinal
from support.indexes import assert_same

Array = np.ndarray[Any, np.dtype[Any]]
DIM = 12


def rows(n: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((n, DIM)).astype(np.float32)


def made(n: int = 1500, *, names: bool = False) -> Any:
    index = vicinal.Index(DIM, M=8, ef_construction=60, ids="str" if names else "int64")
    index.add(rows(n), ids=[f"r{i}" for i in range(n)] if names else np.arange(n) * 3 - 50)
    return index


def allowed(index: Any, wanted: set[Any]) -> Array:
    """The slow way: a boolean for each row, from a set of ids."""
    return np.array([id in wanted for id in index.ids.tolist()], bool)


@pytest.mark.parametrize("names", [False, True])
def test_what_a_filter_may_be_made_of(names: bool) -> None:
    index = made(names=names)
    mask = np.random.default_rng(1).random(1500) < 0.3
    ids, queries = index.ids[mask], rows(7, seed=2)
    wanted = index.search(queries, filter=mask)
    kept = set(ids.tolist())
    forms = (mask, mask.tolist(), ids, ids[::-1], ids.tolist(), lambda ids: np.isin(ids, [*kept]))
    for given in forms:
        filter = index.filter(given)
        assert_same(index.search(queries, filter=filter), wanted)
        assert len(filter) == mask.sum()
        np.testing.assert_array_equal(filter.ids, ids)
        assert index.filter(filter) is filter
    assert ids[0] in filter and index.ids[~mask][0] not in filter
    assert repr(filter) == f"vicinal.Filter that allows {mask.sum()} of 1500 rows"


@pytest.mark.parametrize("names", [False, True])
def test_combinations_are_those_of_sets(names: bool) -> None:
    index = made(names=names)
    rng = np.random.default_rng(3)
    a, b, c = (set(index.ids[rng.random(1500) < share].tolist()) for share in (0.5, 0.2, 0.01))
    every = set(index.ids.tolist())
    fa, fb, fc = (index.filter(list(each)) for each in (a, b, c))
    queries = rows(5, seed=4)
    for filter, wanted in [
        (fa & fb, a & b),
        (fa | fc, a | c),
        (~fa, every - a),
        (~(fa | fb) | fc, (every - (a | b)) | c),
        (fa & ~fb & ~fc, a - b - c),
        (fa & ~fa, set()),
        (fa | ~fa, every),
    ]:
        assert len(filter) == len(wanted)
        assert set(filter.ids.tolist()) == wanted
        mask = allowed(index, wanted)
        assert_same(index.search(queries, filter=filter), index.search(queries, filter=mask))


@pytest.mark.parametrize("names", [False, True])
def test_a_filter_stays_true_to_its_ids(names: bool) -> None:
    index = made(names=names)
    rng = np.random.default_rng(5)
    queries = rows(6, seed=6)
    new = [f"n{i}" for i in range(400)] if names else (np.arange(400) + 100_000).tolist()
    some = index.ids[::4].tolist() + new[::2]  # ids that come later count, too
    filter, rest = index.filter(some), ~index.filter(some)

    def agrees() -> None:
        mask = allowed(index, set(some))
        for each, wanted in ((filter, mask), (rest, ~mask)):
            assert len(each) == wanted.sum()
            assert_same(index.search(queries, filter=each), index.search(queries, filter=wanted))

    agrees()
    index.remove(rng.permutation(index.ids)[:300].tolist())
    agrees()
    index.add(rows(400, seed=7), ids=new)
    agrees()
    index.update(rows(50, seed=8), ids=index.ids[:50].tolist())
    agrees()
    index.compact()
    agrees()
    index.remove(index.ids.tolist())
    agrees()
    assert len(filter) == 0 == len(rest)


def test_changes_are_counted_anew_by_compact() -> None:
    """The same count of changes before and after stands for other rows."""
    index = vicinal.Index(DIM)
    index.add(rows(20))
    filter = index.filter(np.arange(10))
    assert len(filter) == 10
    index.compact()
    index.remove([0, 1])
    for _ in range(3):
        assert len(filter) == 8
        index.compact()


def test_lists_ranges_and_exclude_take_them() -> None:
    index = made()
    half, few = index.filter(lambda ids: ids % 2 == 0), index.filter([-50, -47, -44])
    queries = rows(3, seed=9)
    found = index.search(queries, 4, filter=[half, None, few])
    for i, each in enumerate((half, None, few)):
        np.testing.assert_array_equal(found.ids[i], index.search(queries[i], 4, filter=each).ids)
    within = index.range_search(queries, 12.0, filter=half)
    wanted = index.range_search(queries, 12.0, filter=index.ids % 2 == 0)
    assert len(wanted.ids) > 10
    assert_same(within, wanted)
    assert_same(
        index.search(queries, exclude=half), index.search(queries, filter=index.ids % 2 != 0)
    )


def test_of_files_and_pickled_results(tmp_path: Any) -> None:
    index = made()
    index.remove(index.ids[:100])
    index.save(tmp_path / "a")
    opened = vicinal.open(tmp_path / "a")
    queries = rows(3, seed=9)
    filter = opened.filter(opened.ids % 2 == 0)
    assert_same(
        opened.search(queries, filter=filter), index.search(queries, filter=index.ids % 2 == 0)
    )


def test_a_writer_beside_searches_takes_no_filter_apart() -> None:
    """Rows are replaced all the time; what is found is always allowed, and all of it."""
    index = vicinal.Index(DIM, M=8, ef_construction=60)
    index.add(rows(1200))
    even = index.filter(lambda ids: ids % 2 == 0)
    others = ~even
    stop, wrong = threading.Event(), []

    def write() -> None:
        rng = np.random.default_rng(0)
        number = 0
        while not stop.is_set():
            ids = rng.choice(1200, 30, replace=False)
            if number % 2:
                index.remove(ids)
                index.add(rows(30, seed=number), ids=rng.permutation(ids))
            else:
                index.update(rows(30, seed=number), ids=ids)
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for i in range(300):
            found = index.search(rows(2, seed=i), 5, filter=even if i % 2 else others)
            if not (found.ids % 2 == (0 if i % 2 else 1)).all():
                wrong.append(found.ids)
    finally:
        stop.set()
        writer.join()
    assert wrong == []


def test_refused() -> None:
    index, other = made(20), made(20)
    filter = index.filter([1, 2])
    with pytest.raises(ValueError, match="filter: expected a filter of this index"):
        other.search(rows(1)[0], filter=filter)
    with pytest.raises(ValueError, match="filter: expected a filter of this index"):
        other.search(rows(1), filter=[filter])
    with pytest.raises(ValueError, match="exclude: expected a filter of this index"):
        other.search(rows(1), exclude=filter)
    with pytest.raises(ValueError, match="allowed: expected a filter of this index"):
        other.filter(filter)
    with pytest.raises(ValueError, match="filter: expected two of one index"):
        filter & other.filter([1])
    with pytest.raises(TypeError):
        filter & [1]
    with pytest.raises(TypeError, match=r"index\.filter"):
        vicinal.Filter()
    with pytest.raises(TypeError, match="allowed: expected booleans, ids or a function, got None"):
        index.filter(None)
    with pytest.raises(ValueError, match=r"allowed: expected booleans of shape \(20,\)"):
        index.filter(np.ones(3, bool))
    with pytest.raises(ValueError, match="allowed: expected a function that returns booleans"):
        index.filter(lambda ids: ids)
    with pytest.raises(TypeError, match=r"allowed: .*1\.5"):
        index.filter([1.5])
