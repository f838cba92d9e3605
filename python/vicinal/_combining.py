"""Threads that add few rows at the same moment are served together, as by a group commit.

The first of them leads: it takes all that wait, in the order in which they came, and adds their
rows in one call, with as many threads as they have asked for together. The others sleep meanwhile.
What is refused together is added one by one, so that each gets its own answer and no other's error.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vicinal._threads import default_threads

if TYPE_CHECKING:
    from vicinal._state import State

__all__ = ["Batch", "Combiner"]

_MOST_ROWS = 512  # of a batch that is served together with others
_GROUP_ROWS = 4096  # of those that are

# `_updates.write_rows`
Write = Callable[..., NDArray[np.int64]]


class Batch:
    """The rows that one caller adds, checked, and what became of them."""

    __slots__ = ("done", "error", "found", "gate", "given", "ids", "replaces", "rows", "threads")

    def __init__(
        self,
        rows: NDArray[Any],
        given: NDArray[Any],
        ids: NDArray[Any] | None,
        replaces: bool,
        threads: int,
    ) -> None:
        self.rows, self.given, self.ids = rows, given, ids
        self.replaces, self.threads = replaces, threads
        self.done = False
        self.error: BaseException | None = None
        self.found: NDArray[np.int64] | None = None
        self.gate: Any = None

    def goes_with(self, other: Batch) -> bool:
        """Tell whether one call can add both."""
        return (self.ids is None) == (other.ids is None) and self.replaces == other.replaces


class Combiner:
    """Those who wait to add rows to one index.

    A thread in which Python raises KeyboardInterrupt, the main one, never waits here: whatever
    moment it is interrupted at, nobody is left without a leader.
    """

    __slots__ = ("_guard", "_last", "_led", "_waiting")

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._led = False
        self._waiting: deque[Batch] = deque()
        self._last = 1  # batches of the group before

    @staticmethod
    def serves(rows: int) -> bool:
        """Tell whether the calling thread may wait here, with so many rows."""
        return rows <= _MOST_ROWS and threading.get_ident() != threading.main_thread().ident

    def add(self, write: Write, index: State, batch: Batch) -> NDArray[np.int64]:
        """Add a batch by `write`, with others or as their leader, and return its internal ids.

        Raises
        ------
        ValueError, MemoryError, RuntimeError
            As `write` would alone.
        """
        if self._leads(batch) or not self._wait(batch):
            self._lead(write, index, batch)
        if batch.error is not None:
            raise batch.error
        assert batch.found is not None
        return batch.found

    def _leads(self, batch: Batch) -> bool:
        """Tell whether nobody leads, so that the caller does now; else let the batch wait."""
        with self._guard:
            if not self._led:
                self._led = True
                return True
            batch.gate = threading.Lock()
            batch.gate.acquire()
            self._waiting.append(batch)
            return False

    def _wait(self, batch: Batch) -> bool:
        """Wait until the batch is done, or it is its turn to lead: False."""
        batch.gate.acquire()
        return batch.done

    def _lead(self, write: Write, index: State, batch: Batch) -> None:
        """Add the batch and all that wait with it, then let the next one lead."""
        group = [batch]
        try:
            with index._writer_lock.held():
                self._take(group)
                _write(write, index, group)
        except BaseException as error:
            for each in group:
                if each.found is None and each.error is None:
                    each.error = error
            raise
        finally:
            self._hand_over(group)

    def _take(self, group: list[Batch]) -> None:
        """Let those who wait join, from the first on, as long as one call can add them."""
        first, rows = group[0], len(group[0].rows)
        looks = self._last
        # Those of the group before are about to come again: they are let run, each once.
        while len(self._waiting) + 1 < self._last and looks > 0:
            time.sleep(0)
            looks -= 1
        with self._guard:
            while self._waiting and first.goes_with(self._waiting[0]):
                rows += len(self._waiting[0].rows)
                if rows > _GROUP_ROWS:
                    break
                group.append(self._waiting.popleft())
            self._last = len(group)

    def _hand_over(self, group: list[Batch]) -> None:
        with self._guard:
            following = self._waiting.popleft() if self._waiting else None
            self._led = following is not None
        for each in group[1:]:
            each.done = True
            each.gate.release()
        if following is not None:
            following.gate.release()


def _write(write: Write, index: State, group: list[Batch]) -> None:
    """Add the batches of a group; the caller holds the writer's lock."""
    if len(group) > 1 and _together(write, index, group):
        return
    for each in group:
        try:
            each.found = write(
                index,
                each.rows,
                each.given,
                each.ids,
                each.threads,
                None,
                replace=each.replaces,
            )
        except Exception as error:
            each.error = error


def _together(write: Write, index: State, group: list[Batch]) -> bool:
    """Add the batches in one call; False, and nothing has changed, if anything is wrong with it."""
    threads = max(
        max(each.threads for each in group),
        min(sum(each.threads for each in group), default_threads()),
    )
    try:
        rows = np.concatenate([each.rows for each in group])
        ids = None
        if group[0].ids is not None:
            ids = np.concatenate([each.ids for each in group if each.ids is not None])
        found = write(index, rows, rows, ids, threads, None, replace=group[0].replaces)
    except Exception:
        return False
    begin = 0
    for each in group:
        each.found = found[begin : begin + len(each.rows)].copy()
        begin += len(each.rows)
    return True
