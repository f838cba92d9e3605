"""No search ever starts again, whatever a writer does: it ends beside one that never rests.

A search that began again whenever rows are freed or a change is taken back would end only after the
writer has stopped. So the writer makes thousands of rounds, many times what a search takes, and
the search has to end before they are over; and the work of searches is counted.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest

import vicinal
from beside import Writer, rounds_beside, work_of

DIM = 16
WALKED = 4000  # rows of an index that is searched through its graph
SCANNED = 900  # of one that is not
MOST = {"refused": 40000, "known": 40000, "stopped": 1500, "turnover": 800, "update": 800}


class Stop(Exception):
    """What a progress function raises."""


def stop(done: int, total: int) -> None:
    raise Stop


def vectors(seed: int, count: int, dim: int = DIM) -> Any:
    return np.random.default_rng(seed).standard_normal((count, dim), dtype=np.float32)


# ---- what writers do again and again


def refused(index: vicinal.Index, number: int) -> None:
    """Add one row that cannot be taken."""
    with pytest.raises(ValueError, match="NaN"):
        index.add(np.full((1, index.dim), np.nan, np.float32), num_threads=1)


def known(index: vicinal.Index, number: int) -> None:
    """Add a row under an id that is there."""
    with pytest.raises(ValueError, match="already in the index"):
        index.add(np.zeros((1, index.dim), np.float32), [0], num_threads=1)


def stopped(index: vicinal.Index, number: int) -> None:
    """Add rows, and think better of it when they are linked."""
    with pytest.raises(Stop):
        index.add(vectors(number, 2, index.dim), [-1, -2], num_threads=1, progress=stop)


def turnover(index: vicinal.Index, number: int) -> None:
    """Add rows and remove as many as are freed at once."""
    ids = np.arange(40) + 10**6
    index.add(vectors(number, 40, index.dim), ids, num_threads=1)
    index.remove(ids, num_threads=1)


def update(index: vicinal.Index, number: int) -> None:
    """Replace vectors, more than may stay pending."""
    ids = np.arange(40)
    index.update(vectors(number, 40, index.dim), ids, num_threads=1)


WRITERS = {each.__name__: each for each in (refused, known, stopped, turnover, update)}


# ---- searches that take as long as some rounds


class Case(NamedTuple):
    """An index and a search that takes some ten to a hundred milliseconds alone."""

    index: vicinal.Index
    search: Callable[[], object]
    queries: int


def walks(queries: int, **more: Any) -> Case:
    index = vicinal.Index(DIM, ef_construction=40)
    index.add(vectors(0, WALKED))
    call = partial(index.search, vectors(1, queries), 10, num_threads=1, **more)
    return Case(index, call, queries)


def one_scan() -> Case:
    """Queries that are scanned for one by one, since they are few; nothing can shorten a scan."""
    dim = 32_768
    index = vicinal.Index(dim)
    index.add(np.tile(vectors(0, SCANNED, 64), dim // 64))
    queries = np.tile(vectors(1, 7, 64), dim // 64)
    return Case(index, partial(index.search, queries, 3, num_threads=1), 7)


def tiled_scan() -> Case:
    index = vicinal.Index(DIM)
    index.add(vectors(0, SCANNED))
    return Case(index, partial(index.search, vectors(1, 4000), 10, num_threads=1), 4000)


def wide() -> Case:
    """One query that walks through nearly an eighth of a graph, the most that is walked."""
    index = vicinal.Index(DIM, M=8, ef_construction=20)
    index.add(vectors(0, 30_000))
    return Case(index, partial(index.search, vectors(1, 1)[0], 3700), 1)


def ranges(queries: int) -> Case:
    index = walks(1).index
    call = partial(index.range_search, vectors(1, queries), 15.0, num_threads=1)
    return Case(index, call, queries)


def traced() -> Case:
    index = wide().index
    return Case(index, partial(index.trace, vectors(1, 1)[0], 3700), 1)


CASES: dict[str, Callable[[], Case]] = {
    "plain": partial(walks, 1500),
    "wide": wide,
    "one_scan": one_scan,
    "tiled_scan": tiled_scan,
    "filtered": partial(walks, 3000, filter=np.arange(0, WALKED, 3)),
    # of less time than lies between two looks at signals
    "filtered_short": partial(walks, 500, filter=np.arange(0, WALKED, 3)),
    "filter_scanned": partial(walks, 3000, filter=np.arange(0, WALKED, 40)),
    "range": partial(ranges, 1500),
    "trace": traced,
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("case", CASES)
def test_ends_beside_a_writer_that_never_rests(case: str, writer: str) -> None:
    index, search, _ = CASES[case]()
    search()
    passed = rounds_beside(search, partial(WRITERS[writer], index), MOST[writer])
    assert passed < MOST[writer] - 2, "ended only after the writer had stopped"
    index.check()


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("case", CASES)
def test_work_beside_a_writer_is_that_of_the_search_alone(case: str, writer: str) -> None:
    """Rows that are pending or coming widen a walk, or have it made once more, never more often."""
    index, search, queries = CASES[case]()
    alone = work_of(index, search)
    assert alone["queries"] == queries
    assert queries <= alone["walks"] + alone["scans"] <= 2 * queries

    def together() -> None:
        rounds_beside(search, partial(WRITERS[writer], index), MOST[writer])

    added = index.build_stats()["distances"]
    beside = work_of(index, together)
    added = index.build_stats()["distances"] - added
    assert beside["queries"] == queries
    assert beside["walks"] + beside["scans"] <= 3 * queries
    # hidden rows take at most 32 places more in a walk, and a second one is twice to four times as
    # wide, once or twice; what additions measure is counted as well, and by itself
    assert beside["distances"] - added <= 10 * alone["distances"] + 100 * queries


def test_rows_that_all_change_during_one_search() -> None:
    """A piece of a batch that spans many turnovers of the whole index still ends.

    The rows that its walks may meet were counted when it began; all are gone before it ends.
    """
    index = vicinal.Index(DIM, M=6, ef_construction=20)
    index.add(vectors(0, 1100), np.arange(1100))

    def replace(number: int) -> None:
        old = index.ids
        index.add(vectors(number, 1100 + 200 * (number % 8)), None, num_threads=1)
        index.remove(old, num_threads=1)

    queries = vectors(3, 3000)
    for k in (10, 130):
        passed = rounds_beside(partial(index.search, queries, k, num_threads=1), replace, 200)
        assert passed < 198, "ended only after the writer had stopped"
    index.check()


def test_many_searchers_beside_two_kinds_of_writers() -> None:
    """Readers of every kind end beside a writer that frees rows and one that is refused."""
    index = walks(1).index
    queries = vectors(1, 300)
    kept = np.arange(0, WALKED, 3)
    calls = [
        partial(index.search, queries, 10, num_threads=2),
        partial(index.search, queries, 10, filter=kept, num_threads=2),
        partial(index.range_search, queries, 12.0, num_threads=2),
        partial(index.trace, queries[0], 10),
    ]

    def all_calls() -> None:
        for call in calls:
            call()

    with Writer(partial(refused, index), 20_000) as other:
        passed = rounds_beside(all_calls, partial(turnover, index), 800)
        assert not other.ended, "ended only after a writer had stopped"
    assert passed < 798, "ended only after the writer had stopped"
