"""What tests need to run a search beside a writer and to count, not time, what becomes of it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import vicinal

HANGS = 300.0  # seconds after which a call counts as one that never ends


class Writer:
    """A thread that repeats a round until it is told to stop.

    Parameters
    ----------
    work : callable
        One round; is given its number.
    most : int
        Rounds after which it stops by itself.
    """

    def __init__(self, work: Callable[[int], object], most: int) -> None:
        self.rounds = 0
        self._work, self._most = work, most
        self._stop = threading.Event()
        self._ended = threading.Event()
        self._moved = threading.Condition()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            while not self._stop.is_set() and self.rounds < self._most:
                self._work(self.rounds)
                with self._moved:
                    self.rounds += 1
                    self._moved.notify_all()
        except BaseException as error:
            self._error = error
        finally:
            self._ended.set()
            with self._moved:
                self._moved.notify_all()

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(HANGS)
        assert not self._thread.is_alive(), "the writer hangs"
        if self._error is not None:
            raise self._error

    def wait_for(self, rounds: int) -> None:
        """Wait until so many rounds are done, or the writer has ended."""
        with self._moved:
            done = self._moved.wait_for(
                lambda: self.rounds >= rounds or self._ended.is_set(), HANGS
            )
        assert done, "the writer hangs"

    @property
    def ended(self) -> bool:
        """Whether no more rounds will come."""
        return self._ended.is_set()


def rounds_beside(call: Callable[[], object], work: Callable[[int], object], most: int) -> int:
    """Run a call beside a writer; return how many rounds of the writer it outlasted.

    The writer begins first. It stops when the call has ended, or after `most` rounds, so that a
    call which ends only when nobody writes gives `most` or a little less, and does not hang.
    """
    failed: list[BaseException] = []
    done = threading.Event()

    def answer() -> None:
        try:
            call()
        except BaseException as error:
            failed.append(error)
        finally:
            done.set()

    with Writer(work, most) as writer:
        writer.wait_for(2)
        before = writer.rounds
        threading.Thread(target=answer, daemon=True).start()
        assert done.wait(HANGS), "the call hangs though nobody writes any more"
        passed = writer.rounds - before
    if failed:
        raise failed[0]
    return passed


@contextmanager
def amidst(call: Callable[[], object]) -> Iterator[list[int]]:
    """Have something done in the middle of the one long call of a block, by its own thread.

    A long call looks at signals now and then; what a signal's handler does is done between two
    pieces of its work. Yields a list with an item for each time that the handler ran: the first
    time it calls `call`. If there is a second item, the first was made within the long call, since
    all signals that come between two looks are one. For the main thread.
    """
    ran: list[int] = []
    failed: list[BaseException] = []

    def handle(*_: object) -> None:
        ran.append(len(ran))
        if len(ran) == 1:
            try:
                call()
            except BaseException as error:
                failed.append(error)

    old = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.01)
    try:
        yield ran
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    if failed:
        raise failed[0]


def search_work(index: vicinal.Index) -> dict[str, int]:
    """Return what searches of an index have done since it was made: `queries` answered, `walks` and
    `scans` begun for them, `distances` measured."""
    work: dict[str, int] = index.search_stats()
    return work


def work_of(index: vicinal.Index, call: Callable[[], Any]) -> dict[str, int]:
    """Return what searches have done during a call."""
    before = search_work(index)
    call()
    after = search_work(index)
    return {name: after[name] - before[name] for name in after}


def resident() -> int:
    """KiB of memory that this process has in use."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * (os.sysconf("SC_PAGESIZE") // 1024)
