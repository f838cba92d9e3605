"""Filters, radii and traces of indexes from which rows were removed."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import reference
import vicinal
import vicinal.index

Array = np.ndarray[Any, Any]


def living(quantization: str | None, seed: int = 0) -> tuple[vicinal.Index, Array, Array]:
    """An index with a history, copies among its rows; its ids, and its vectors in their order."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(3000, 24)).astype(np.float32)
    rows[2000:2300] = rows[:300]
    index = vicinal.Index(24, quantization=quantization, ef_construction=100)
    index.add(rows, np.arange(3000) * 3)
    index.remove(np.arange(100, 1000) * 3)
    index.remove(np.arange(60) * 3)  # originals of copies
    for i in range(1000, 1020):
        index.remove(i * 3)  # these stay pending
    index.add(rows[100:500] + np.float32(0.5), np.arange(20_000, 20_400))
    index.update(rows[500:600] - np.float32(0.5), np.arange(2500, 2600) * 3)
    index.check()
    ids = index.ids
    return index, ids, index.get(ids)


@pytest.mark.parametrize("quantization", ["auto", None])
def test_filters(quantization: str | None) -> None:
    index, ids, vectors = living(quantization)
    rng = np.random.default_rng(1)
    queries = rng.normal(size=(20, 24)).astype(np.float32)
    for share in (0.7, 0.2, 0.03, 0.003, 0.0):
        allowed = rng.random(len(ids)) < share
        unknown = np.array([300, 303, 5, -7])  # removed, or never there
        wanted = reference.nearest(vectors[allowed], queries, 5, "l2")[1]
        for given in (allowed, np.concatenate([unknown, ids[allowed]])):
            found = index.search(queries, 5, filter=given, ef_search=100)
            assert np.isin(found.ids[found.ids >= 0], ids[allowed]).all()
            assert ((found.ids >= 0).sum(axis=1) == min(5, allowed.sum())).all()
            assert np.isclose(found.distances, wanted, rtol=1e-3, atol=1e-3).mean() > 0.95
    with pytest.raises(ValueError, match="booleans"):
        index.search(queries, 5, filter=np.ones(len(ids) + 1, bool))


@pytest.mark.parametrize("quantization", ["auto", None])
def test_radii(quantization: str | None) -> None:
    index, ids, vectors = living(quantization)
    rng = np.random.default_rng(2)
    # near rows that are there, and where rows were
    queries = np.concatenate([vectors[:10], vectors[-10:] - 0.5]).astype(np.float32)
    every = reference.distances(vectors, queries, "l2")
    allowed = rng.random(len(ids)) < 0.5
    for radius in (1e-6, 20.0, 35.0):
        for given in (None, allowed):
            found = index.range_search(queries, radius, filter=given, ef_search=200)
            met = wanted = 0
            for q in range(len(queries)):
                begin, end = found.offsets[q], found.offsets[q + 1]
                got = found.ids[begin:end].tolist()
                true = ids[(every[q] <= radius) & (True if given is None else allowed)]
                assert len(set(got)) == len(got)
                assert set(got) <= set(
                    ids[(every[q] <= radius * 1.001) & (True if given is None else allowed)]
                )
                met += len(set(got) & set(true.tolist()))
                wanted += len(true)
            assert met >= 0.95 * wanted
            assert wanted > 0


@pytest.mark.parametrize("quantization", ["auto", None])
def test_traces_find_what_searches_find(quantization: str | None) -> None:
    index, _, vectors = living(quantization)
    for query in vectors[::100]:
        trace = index.trace(query, 7, ef_search=30)
        found = index.search(query, 7, ef_search=30)
        np.testing.assert_array_equal(trace.result.ids, found.ids)
        assert len(list(trace)) == len(trace) > 1
        assert index.why_not(query, int(found.ids[0]), k=7).fate == "found"
    with pytest.raises(KeyError):
        index.why_not(vectors[0], 300)


@pytest.mark.parametrize("count", [400, 3000])
def test_filters_beside_changes(count: int) -> None:
    """Results are allowed ids, at a distance that one of their vectors has."""
    rng = np.random.default_rng(0)
    index = vicinal.Index(8, ef_construction=60)
    history: dict[int, list[Array]] = {}

    def rows(ids: Array) -> Array:
        values = rng.normal(size=(len(ids), 8)).astype(np.float32)
        for id, value in zip(ids.tolist(), values, strict=True):
            history.setdefault(id, []).append(value)
        return values

    everything = np.arange(count)
    index.add(rows(everything), everything)
    wrong: list[str] = []
    done = threading.Event()

    def search(worker: int) -> None:
        mine = np.random.default_rng(worker)
        while not done.is_set() and not wrong:
            allowed = np.flatnonzero(mine.random(count) < (0.6 if worker else 0.05))
            query = mine.normal(size=8).astype(np.float32)
            if worker == 2:
                found = index.range_search(query, 3.0, filter=allowed)
            else:
                found = index.search(query, 8, filter=allowed, ef_search=40)
            real = found.ids[found.ids >= 0].tolist()
            if not set(real) <= set(allowed.tolist()) or len(set(real)) != len(real):
                wrong.append("not allowed, or twice")
            for id, distance in zip(real, found.distances.tolist(), strict=False):
                some = [float(((query - v) ** 2).sum()) for v in list(history[id])]
                if not np.isclose(some, distance, rtol=1e-3, atol=1e-5).any():
                    wrong.append(f"{id} is at none of its distances")

    def guarded(worker: int) -> None:
        try:
            search(worker)
        except Exception as error:
            wrong.append(repr(error))

    threads = [threading.Thread(target=guarded, args=(worker,)) for worker in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(60):
            some = rng.choice(everything, count // 4, replace=False)
            index.remove(some)
            index.add(rows(some), some, num_threads=1)
            some = rng.choice(everything, count // 8, replace=False)
            index.update(rows(some), some, num_threads=1)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not wrong, wrong[:5]
    index.check()
