"""One writer at a time, and no wait that cannot end: in a thread, between threads, after a fork."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

__all__ = ["WriterLock"]

# `threading.RLock` is a function in Python 3.10 and its type has no public name.
_Lock = Any

# Guards the first look at a lock after a fork: two threads that look at once would take each other
# for one that was lost.
_first_look: _Lock = threading.RLock()


def _renew_first_look() -> None:
    """Replace the guard in a forked child, where a lost thread may hold it."""
    global _first_look
    _first_look = threading.RLock()


os.register_at_fork(after_in_child=_renew_first_look)


class _Entered(threading.local):
    """Locks that the thread has been given; those that it does not own are over."""

    locks: tuple[_Lock, ...] = ()


_entered = _Entered()


class WriterLock:
    """A lock for which a second thread waits, and which refuses whoever would wait for ever.

    To take it twice in one thread is an error: the second call comes from a progress function or a
    signal handler of the first. So is to take it while the thread holds another one and this one is
    not free: two threads could wait for each other. A lock that a thread of the parent process held
    at a fork is never released in the child, and what that thread was writing is unfinished there:
    to take such a lock is an error, too.

    The lock itself is one of CPython's, which knows its owner from the moment it is taken; whoever
    writes enters it by a `with` of its own. So there is no moment at which a signal handler of the
    same thread could find it held by nobody, or an exception could leave it held: methods __enter__
    and __exit__ in Python, and the generators of `contextlib`, have such moments.
    """

    __slots__ = ("_lock", "_process")

    def __init__(self) -> None:
        self._lock: _Lock = threading.RLock()
        self._process = os.getpid()

    def held(self) -> AbstractContextManager[Any]:
        """Return what holds the lock in a `with` block, which has to follow at once.

        Raises
        ------
        RuntimeError
            If the calling thread holds it already; if it holds another one and this one is not
            free; if another thread held it when the process forked.
        """
        self._refuse_for_ever()
        others = [lock for lock in _entered.locks if lock._is_owned()]
        if others and not self._free():
            raise RuntimeError(
                "index: another thread is writing to it; who writes to one index, as from its "
                "progress function, cannot wait for a second one"
            )
        return self._given(others)

    @staticmethod
    def holds_any() -> bool:
        """Tell whether the calling thread holds any lock of this kind."""
        return True in [lock._is_owned() for lock in _entered.locks]  # one as a rule: no generator

    def still(self) -> AbstractContextManager[Any]:
        """Return what keeps others from writing in a `with` block; a writer itself may read."""
        return nullcontext() if self._lock._is_owned() else self.held()

    def held_if_free(self) -> AbstractContextManager[Any] | None:
        """Return what `held` does, or None if another thread holds the lock at the moment.

        A thread that holds another lock may use it: threads whose locks were each found free after
        the one before was taken cannot wait for each other in a circle.
        """
        self._refuse_for_ever()
        return self._given(_entered.locks) if self._free() else None

    def wait(self) -> None:
        """Wait until nobody holds the lock."""
        with self.held():
            pass

    def _given(self, others: Iterable[_Lock]) -> AbstractContextManager[Any]:
        # Noted before it is taken: a note too many is found out by asking who owns it.
        _entered.locks = (*others, self._lock)
        lock: AbstractContextManager[Any] = self._lock
        return lock

    def _refuse_for_ever(self) -> None:
        if self._lock._is_owned():
            raise RuntimeError(
                "index: its progress function must not write to it, nor a signal handler while "
                "the same thread does"
            )
        process = os.getpid()
        if self._process != process:
            with _first_look:
                # Nobody of this process gets past here before it is noted.
                if self._process != process and not self._free():
                    raise RuntimeError(
                        "index: another thread was writing to it when this process was forked; "
                        "this copy can only be searched"
                    )
                self._process = process

    def _free(self) -> bool:
        """Tell whether nobody holds the lock."""
        taken: list[bool] = []
        try:
            # To take it and to note that is one call, so that no signal comes between.
            taken.extend(map(self._lock.acquire, (False,)))
            return taken[0]
        finally:
            if taken and taken[0]:
                self._lock.release()
