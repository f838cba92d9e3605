"""A few rows far from all others: they cost these neither codes nor recall, and are found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import vicinal
from support.files import sections_of

DIM = 128
N = 3000


def ordinary(seed: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((N, 12)) @ rng.standard_normal((12, DIM))
    queries = rows[:60] + 0.3 * rng.standard_normal((60, DIM))
    return rows.astype(np.float32), queries.astype(np.float32)


def strays(size: float, many: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(6)
    rows = size * (1 + 0.01 * rng.standard_normal((many, DIM)))
    queries = rows + 0.003 * size * rng.standard_normal((many, DIM))
    return rows.astype(np.float32), queries.astype(np.float32)


def recall(index: vicinal.Index, rows: np.ndarray, queries: np.ndarray, k: int = 10) -> float:
    k = min(k, len(rows))
    found = index.search(queries, k)
    wanted = vicinal.exact_search(rows, queries, k)
    return float((found.distances <= wanted.distances[:, -1:] * (1 + 1e-5)).mean())


@pytest.mark.parametrize("size", [1e2, 1e4, 1e6, 1e15])
@pytest.mark.parametrize("many", [1, 20])
@pytest.mark.parametrize("order", ["last", "first", "later"])
def test_they_cost_nothing(size: float, many: int, order: str) -> None:
    rows, queries = ordinary()
    far, near_far = strays(size, many)
    rows = np.concatenate([far, rows] if order == "first" else [rows, far])
    plain = vicinal.Index(DIM, quantization=None)
    index = vicinal.Index(DIM)
    for which in (plain, index):
        if order == "later":
            which.add(rows[:N])
            which.add(rows[N:])
        else:
            which.add(rows)
    assert index.stats()["quantization"] == "rabitq4"
    assert recall(index, rows, queries) >= recall(plain, rows, queries) - 0.005
    assert recall(index, rows, near_far, min(many, 10)) >= 0.9


def test_the_speed_is_that_of_codes() -> None:
    """Queries near ordinary rows measure as much on codes as if there were no strays."""
    rows, queries = ordinary()
    work = []
    for far in (rows[:0], strays(1e4, 20)[0]):
        index = vicinal.Index(DIM)
        index.add(np.concatenate([rows, far]))
        assert index.stats()["quantization"] == "rabitq4"
        before = index.search_stats()
        index.search(queries, 10)
        work.append({name: n - before[name] for name, n in index.search_stats().items()})
    without, beside = work
    assert beside["walks"] == without["walks"] == len(queries) and beside["scans"] == 0
    assert beside["distances"] <= 1.03 * without["distances"]
    assert beside["hops"] <= 1.03 * without["hops"]


def test_queries_among_strays_walk_on_the_rows() -> None:
    rows, queries = ordinary()
    far, near_far = strays(1e4, 20)
    index = vicinal.Index(DIM)
    index.add(np.concatenate([rows, far]))
    assert all(index.trace(query).estimated for query in queries[:10])
    for query in near_far:
        trace = index.trace(query)
        assert not trace.estimated
        np.testing.assert_array_equal(trace.result.ids, index.search(query).ids)
    # in one call, some on the rows and some on codes
    both = np.concatenate([queries[:5], near_far[:3], queries[5:9], near_far[3:5]])
    found = index.search(both)
    for query, ids in zip(both, found.ids, strict=True):
        np.testing.assert_array_equal(index.search(query).ids, ids)
    # with a filter, and within a radius
    allowed = np.arange(N + 20) >= 100
    for query in (near_far[3], queries[3]):
        wanted = vicinal.exact_search(np.concatenate([rows, far])[allowed], query, 5)
        found = index.search(query, 5, filter=allowed)
        np.testing.assert_allclose(found.distances, wanted.distances, rtol=1e-5)
        within = index.range_search(query, float(wanted.distances[3]) * 1.0001, filter=allowed)
        assert set(wanted.ids[:4] + 100) <= set(within.ids.tolist())


def test_many_far_rows_are_no_strays() -> None:
    """A third of the rows elsewhere: the sample decides, as it always did."""
    rows, queries = ordinary()
    far, _ = strays(1e4, N // 2)
    everything = np.concatenate([rows, far])
    index = vicinal.Index(DIM)
    index.add(everything)
    plain = vicinal.Index(DIM, quantization=None)
    plain.add(everything)
    assert recall(index, everything, queries) >= recall(plain, everything, queries) - 0.005


def test_strays_that_came_first() -> None:
    """Codes whose centre was made of what turns out to be strays get another one."""
    rows, queries = ordinary()
    far, _ = strays(1e4, 30)
    index = vicinal.Index(DIM)
    index.add(np.concatenate([far, rows[:1000]]))
    index.add(rows[1000:])
    everything = np.concatenate([far, rows])
    assert index.stats()["quantization"] == "rabitq4"
    assert recall(index, everything, queries) >= 0.98


def test_updates_merges_and_compaction() -> None:
    rows, queries = ordinary()
    far, near_far = strays(1e4, 20)
    index = vicinal.Index(DIM)
    index.add(rows)
    index.update(far, np.arange(20))  # twenty sensors break
    now = rows.copy()
    now[:20] = far
    assert recall(index, now, queries[20:]) >= 0.98
    assert recall(index, now, near_far) >= 0.9
    index.update(rows[:20], np.arange(20))  # and are mended
    assert recall(index, rows, queries) >= 0.98
    other = vicinal.Index(DIM)
    other.add(far, np.arange(10_000, 10_020))
    index.merge(other)
    both = np.concatenate([rows, far])
    assert recall(index, both, queries) >= 0.98
    assert recall(index, both, near_far) >= 0.9
    index.remove(np.arange(500))
    index.compact()
    assert recall(index, both[500:], queries) >= 0.98
    assert recall(index, both[500:], near_far) >= 0.9


@pytest.mark.parametrize("mode", ["r", "copy"])
def test_the_file_carries_the_reach(mode: str, tmp_path: Path) -> None:
    rows, queries = ordinary()
    far, near_far = strays(1e4, 20)
    index = vicinal.Index(DIM)
    index.add(np.concatenate([rows, far]))
    path = tmp_path / "strays.vic"
    index.save(path)
    assert "code_reach" in sections_of(path.read_bytes())
    opened = vicinal.open(path, mode=mode)
    for query in (queries[0], near_far[0]):
        assert opened.trace(query).estimated == index.trace(query).estimated
        np.testing.assert_array_equal(opened.search(query).ids, index.search(query).ids)


@pytest.mark.parametrize("threads", [2, 3])
def test_the_same_bytes_for_any_number_of_threads(threads: int, tmp_path: Path) -> None:
    rows, _ = ordinary()
    far, _ = strays(1e4, 20)
    images = []
    for count in (1, threads):
        index = vicinal.Index(DIM)
        index.add(np.concatenate([far[:7], rows, far[7:]]), num_threads=count)
        index.save(tmp_path / "it.vic")
        images.append((tmp_path / "it.vic").read_bytes())
    assert images[0] == images[1]
