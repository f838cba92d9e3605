"""`build_stats()`: what changes of an index have done and taken."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

import vicinal

PHASES = ["store", "encode", "sort", "search", "link_back", "fill", "repair"]
COUNTS = ["rows", "rounds", "distances", "hops", "selections", "prunes", "blocks"]


def rows_of(count: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal((count, 24)).astype(np.float32)


def counts(index: vicinal.Index) -> dict[str, int]:
    build = index.build_stats()
    assert list(build) == [*COUNTS, "seconds"]
    assert list(build["seconds"]) == PHASES
    return {name: build[name] for name in COUNTS}


def rounds_of(rows: int, present: int = 0) -> int:
    """Return in how many rounds rows are linked: each is 1/256 of those there, at least one."""
    rounds, done = 0, 0
    while done < rows:
        done += max(min((present + done) // 256, 4096), 1)
        rounds += 1
    return rounds


def test_nothing_has_been_built() -> None:
    index = vicinal.Index(24)
    assert set(counts(index).values()) == {0}
    assert set(index.build_stats()["seconds"].values()) == {0.0}
    index.add(rows_of(900))  # no graph yet
    assert set(counts(index).values()) == {0}
    seconds = index.build_stats()["seconds"]
    assert seconds.pop("store") > 0
    assert set(seconds.values()) == {0.0}


@pytest.mark.parametrize(
    ("metric", "dtype", "quantization"),
    [("l2", "float32", "auto"), ("ip", "float16", "sq8"), ("cosine", "int8", None)],
)
def test_counts_do_not_depend_on_threads(metric: str, dtype: str, quantization: str | None) -> None:
    rows = (20 * rows_of(3000)).astype(dtype)
    rows[:, 0] += 1
    found = []
    for threads in (1, 2, 3):
        index = vicinal.Index(24, metric, dtype=dtype, M=8, quantization=quantization)
        index.add(rows, num_threads=threads)
        found.append(counts(index))
    assert found[0] == found[1] == found[2]
    assert found[0]["rows"] == 3000
    assert found[0]["rounds"] == rounds_of(3000)
    # one for every row but the first, and one for every level above that of those that reach higher
    assert 2999 <= found[0]["selections"] <= 2999 + 3000 * 0.3
    assert found[0]["hops"] > 3000 * index.ef_construction / 2
    assert found[0]["distances"] > found[0]["hops"]
    assert 0 < found[0]["prunes"] < 8 * 3000


def test_seconds_are_parts_of_the_time_taken() -> None:
    rows = rows_of(8000)
    index = vicinal.Index(24)
    start = time.perf_counter()
    index.add(rows, num_threads=1)
    taken = time.perf_counter() - start
    seconds = index.build_stats()["seconds"]
    assert all(value > 0 for value in seconds.values())
    assert sum(seconds.values()) <= taken


def test_all_changes_count() -> None:
    index = vicinal.Index(24, M=8, ef_construction=40)
    rows = rows_of(2500)
    index.add(rows[:1500], num_threads=1)
    first = counts(index)
    assert (first["rows"], first["rounds"]) == (1500, rounds_of(1500))
    before = index.build_stats()["seconds"]
    index.search(rows, 10)
    assert counts(index) == first, "searches are not counted"
    index.add(rows[1500:2000], num_threads=1)
    second = counts(index)
    assert (second["rows"], second["rounds"]) == (2000, rounds_of(1500) + rounds_of(500, 1500))
    index.remove(range(300))
    third = counts(index)
    assert third["rows"] == 2000
    assert index.build_stats()["seconds"]["repair"] > before["repair"]
    index.add(np.repeat(rows[2000:2001], 100, axis=0))  # copies stay out of the graph
    assert counts(index)["rows"] == 2001
    index.compact()
    again = counts(index)
    assert again["rows"] == 1701, "a new index begins anew"
    assert set(counts(index.copy()).values()) == {0}


def test_what_was_taken_back_counts() -> None:
    class Enough(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done > 4000:
            raise Enough

    index = vicinal.Index(24)
    with pytest.raises(Enough):
        index.add(rows_of(30_000), num_threads=1, progress=stop)
    assert len(index) == 0
    assert 0 < counts(index)["rows"] < 30_000
    assert index.build_stats()["seconds"]["search"] > 0
