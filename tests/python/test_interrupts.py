"""KeyboardInterrupt at any moment of a change: the index is as it was, or wholly changed.

Which of the two, `len` and `in` tell. A timer interrupts each change at many moments, before, in
and after the native call; the index is compared with both dictionaries that it may equal.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import vicinal

DIM = 8
COUNT = 2500
TRIES = 30


class Interrupt(KeyboardInterrupt):
    """What the timer raises, as Ctrl-C would."""


@pytest.fixture
def interrupts() -> Iterator[Callable[[float], None]]:
    """Arm a timer that raises Interrupt in the main thread, wherever that is."""

    def handle(*_: object) -> None:
        raise Interrupt

    old = signal.signal(signal.SIGALRM, handle)
    yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds) and None
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, old)


def vectors(seed: int, count: int) -> Any:
    return np.random.default_rng(seed).integers(1, 100, (count, DIM)).astype(np.float32)


def names(numbers: Any, kind: str) -> Any:
    listed = [int(number) for number in numbers]
    return listed if kind == "int64" else [f"id {number}" for number in listed]


Rows = dict[Any, Any]


def differs(index: vicinal.Index, rows: Rows, others: Any) -> str:
    """Return what is not as in a dictionary, nothing if all is; no id of `others` may be there."""
    if len(index) != len(rows):
        return f"{len(index)} rows, not {len(rows)}"
    if set(index.ids.tolist()) != set(rows):
        return "other ids"
    if any(id in index for id in others if id not in rows):
        return "an id that should not be there"
    ids = list(rows)
    try:
        values = index.get(ids)
    except KeyError as error:
        return str(error)
    if not np.array_equal(values, np.array(list(rows.values()))):
        return "other vectors"
    found = index.search(values[::50], 3, ef_search=10**6, num_threads=1)
    if not set(found.ids.ravel().tolist()) <= set(rows):
        return "ids found that should not be there"
    if (found.distances[:, 0] != 0).any():
        return "rows that do not find themselves"
    return ""


Change = Callable[[vicinal.Index, int, str], tuple[Callable[[], object], Rows, list[Any]]]


def added(index: vicinal.Index, seed: int, kind: str) -> tuple[Callable[[], object], Rows, Any]:
    ids, rows = names(range(3000, 3300), kind), vectors(seed, 300)
    return lambda: index.add(rows, ids), dict(zip(ids, rows, strict=True)), []


def upserted(index: vicinal.Index, seed: int, kind: str) -> tuple[Callable[[], object], Rows, Any]:
    ids, rows = names(range(2400, 2700), kind), vectors(seed, 300)
    call = lambda: index.add(rows, ids, on_conflict="update")  # noqa: E731
    return call, dict(zip(ids, rows, strict=True)), []


def updated(index: vicinal.Index, seed: int, kind: str) -> tuple[Callable[[], object], Rows, Any]:
    ids, rows = names(range(100, 400), kind), vectors(seed, 300)
    return lambda: index.update(rows, ids), dict(zip(ids, rows, strict=True)), []


def removed(index: vicinal.Index, seed: int, kind: str) -> tuple[Callable[[], object], Rows, Any]:
    ids = names(range(500, 900), kind)
    return lambda: index.remove(ids), {}, ids


def relinked(index: vicinal.Index, seed: int, kind: str) -> tuple[Callable[[], object], Rows, Any]:
    ids = names(range(200, 2000), kind)
    return lambda: index.remove(ids), {}, ids


def compacted(index: vicinal.Index, seed: int, kind: str) -> tuple[Callable[[], object], Rows, Any]:
    return index.compact, {}, []


def merged(index: vicinal.Index, seed: int, kind: str) -> tuple[Callable[[], object], Rows, Any]:
    ids, rows = names(range(3000, 3300), kind), vectors(seed, 300)
    other = vicinal.Index(DIM, M=4, ef_construction=10, ids=kind)
    other.add(rows, ids)
    return lambda: index.merge(other), dict(zip(ids, rows, strict=True)), []


CHANGES: dict[str, Any] = {
    each.__name__: each for each in (added, upserted, updated, removed, relinked, compacted, merged)
}


@pytest.mark.parametrize("kind", ["int64", "str"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_that_is_interrupted(
    change: str, kind: str, interrupts: Callable[[float], None]
) -> None:
    values = vectors(0, COUNT)
    ids = names(range(COUNT), kind)
    base = vicinal.Index(DIM, M=4, ef_construction=10, ids=kind)
    base.add(values, ids)
    start = dict(zip(ids, values, strict=True))

    def fresh() -> tuple[vicinal.Index, Callable[[], object], Rows, Any]:
        index = base.copy()
        call, new, gone = CHANGES[change](index, 1, kind)
        return index, call, {**{id: v for id, v in start.items() if id not in gone}, **new}, new

    index, call, after, new = fresh()
    begin = time.perf_counter()
    call()
    took = time.perf_counter() - begin
    assert not differs(index, after, [])
    outcomes = {"before": 0, "after": 0}
    for number in range(TRIES):
        index, call, after, new = fresh()
        try:
            # moments from the first instruction to some time after the last
            interrupts(max(1e-5, 1.2 * took * number / TRIES))
            call()
            interrupts(0)
        except Interrupt:
            pass
        interrupts(0)
        wrong = differs(index, after, [])
        if wrong:
            undone = differs(index, start, new)
            assert not undone, f"neither changed ({wrong}) nor as it was ({undone})"
            outcomes["before"] += 1
        else:
            outcomes["after"] += 1
        index.check()
        # nobody holds it, and it can still be changed and read back
        more = names(range(9000, 9010), kind)
        index.add(vectors(5, 10), more)
        index.remove(more[:5])
        again = index.copy()
        assert sorted(again.ids.tolist()) == sorted(index.ids.tolist())
    print(change, kind, outcomes)


def test_an_interrupt_after_a_change_has_taken_effect(
    interrupts: Callable[[float], None],
) -> None:
    """As soon as `len` tells that rows are gone they are gone, whatever is raised afterwards."""
    values = vectors(0, COUNT)
    for number in range(20):
        index = vicinal.Index(DIM, M=4, ef_construction=10)
        index.add(values)
        raised = False
        try:
            interrupts(1e-4 * (number + 1))
            index.remove(np.arange(1000))
        except Interrupt:
            raised = True
        interrupts(0)
        assert len(index) in (COUNT, COUNT - 1000) if raised else len(index) == COUNT - 1000
        gone = len(index) == COUNT - 1000
        assert all((id in index) != gone for id in range(1000))
        with pytest.raises(KeyError if gone else ValueError):
            # there: it is added under a known id, refused; not there: it cannot be replaced
            index.update(values[:1], [0]) if gone else index.add(values[:1], [0])
