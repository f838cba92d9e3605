"""Methods that ask the native index more than once tell of one snapshot, and end.

A change is made before each native call. A method that reads until nothing has changed in between
never ends then; one that puts together what several calls tell mixes several moments.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import vicinal
from seen import DIM, vectors
from vicinal._cpu import native


class Interleaved:
    """The native module, with a change of the index before every call."""

    def __init__(self, change: Callable[[], object], most: int) -> None:
        self.change, self.left, self.busy = change, most, False

    def __getattr__(self, name: str) -> Any:
        function = getattr(native, name)
        if not callable(function):
            return function

        def call(*arguments: Any) -> Any:
            if not self.busy:
                self.left -= 1
                assert self.left > 0, "asks again and again as long as somebody writes"
                self.busy = True
                try:
                    self.change()
                finally:
                    self.busy = False
            return function(*arguments)

        return call


@pytest.fixture
def between_calls(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object], int], None]:
    """Have a change made before every native call; a call may make at most so many."""

    def install(change: Callable[[], object], most: int = 1000) -> None:
        module = Interleaved(change, most)
        for place in [m for n, m in sys.modules.items() if n.partition(".")[0] == "vicinal"]:
            if isinstance(getattr(place, "native", None), ModuleType):
                monkeypatch.setattr(place, "native", module)

    return install


def moving(index: vicinal.Index) -> Callable[[], None]:
    """Return a change that moves a window of ids on by some rows, and changes their number."""
    state = {"first": 0, "last": len(index)}

    def change() -> None:
        grown = 3 + state["last"] % 5
        index.add(vectors(state["last"], grown), np.arange(grown) + state["last"], num_threads=1)
        state["last"] += grown
        gone = 4 if state["last"] - state["first"] > 350 else 2
        index.remove(np.arange(gone) + state["first"], num_threads=1)
        state["first"] += gone

    return change


def test_ids_beside_a_writer_that_never_rests(between_calls: Any) -> None:
    index = vicinal.Index(DIM)
    index.add(vectors(0, 300), np.arange(300))
    between_calls(moving(index))
    for _ in range(20):
        ids = index.ids
        np.testing.assert_array_equal(np.sort(ids), np.arange(ids.min(), ids.min() + len(ids)))


def test_iteration_beside_a_writer_that_never_rests(between_calls: Any) -> None:
    """A batch holds those of its rows that are there; a row that is gone is left out."""
    index = vicinal.Index(DIM)
    index.add(vectors(0, 300), np.arange(300))
    between_calls(moving(index))
    seen: set[int] = set()
    for ids, rows in index.vectors(40):
        assert len(ids) == len(rows)
        assert not seen & set(ids.tolist())
        seen |= set(ids.tolist())
    assert len(seen) > 200


@contextmanager
def moved(index: vicinal.Index) -> Iterator[None]:
    """Move the window from another thread, as often as it gets its turn."""
    over = threading.Event()
    change = moving(index)

    def work() -> None:
        while not over.is_set():
            change()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_why_not_beside_a_writer_that_never_rests() -> None:
    """All that it says is of one moment: a row that was there at first does not go meanwhile."""
    index = vicinal.Index(DIM)
    index.add(vectors(0, 300), np.arange(300))
    query = vectors(9, 1)[0]
    told = 0
    with moved(index):
        while told < 20:
            id = int(index.ids.max())
            try:
                why = index.why_not(query, id, 5)
            except KeyError:  # it went before
                continue
            told += 1
            assert why.true_rank == why.rank
            assert why.fate in ("found", "farther")


def test_recall_beside_a_writer_that_never_rests() -> None:
    """Truth and searches are of one moment, in which an exact search finds all."""
    index = vicinal.Index(DIM)
    index.add(vectors(0, 1300), np.arange(1300))
    with moved(index):
        for queries in (None, vectors(1, 20)):
            assert index.measure_recall(queries, sample=20, ef_search=10**6).recall == 1.0


def test_boolean_filters_beside_a_writer_that_never_rests(between_calls: Any) -> None:
    """One is refused only if its length is another than that of the index, and both are told."""
    index = vicinal.Index(DIM)
    index.add(vectors(0, 300), np.arange(300))
    between_calls(moving(index))
    for _ in range(20):
        flags = np.ones(len(index), bool)
        try:
            found = index.search(vectors(1, 1)[0], 5, filter=flags)
        except ValueError as error:
            first, second = (int(word) for word in _numbers(str(error))[:2])
            assert first != second, str(error)
        else:
            assert (found.ids >= 0).all()


def _numbers(text: str) -> list[str]:
    words = "".join(c if c.isdigit() else " " for c in text).split()
    return [word for word in words if word]
