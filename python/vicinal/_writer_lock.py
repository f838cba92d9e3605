"""One writer at a time, and no lock that is never released after a fork."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["WriterLock"]


class WriterLock:
    """A lock for which a second thread waits; to take it twice in one thread is an error.

    A lock that a thread of the parent process held at a fork is never released in the child, and
    what that thread was writing is unfinished there: to take such a lock is an error too. Looking
    at whose lock it is costs less than a fork hook for every index.
    """

    __slots__ = ("_lock", "_process", "_thread")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Set before the lock is taken, so that it is right whenever the lock is seen held.
        self._process = os.getpid()
        # Not 0 while the lock is held and the holder is known.
        self._thread = 0

    def mine(self) -> bool:
        """Tell whether the calling thread holds the lock."""
        return self._thread == threading.get_ident()

    # A generator, since no signal can come between taking the lock and entering the block of its
    # `with`; methods __enter__ and __exit__ in Python would leave such a moment.
    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock in a `with` block.

        Raises
        ------
        RuntimeError
            If the calling thread holds it already, or another thread did when the process forked.
        """
        if not self._lock.locked():
            self._process = os.getpid()
        elif self._process != os.getpid():
            raise RuntimeError(
                "index: another thread was writing to it when this process was forked; this copy "
                "can only be searched"
            )
        elif self.mine():
            raise RuntimeError("index: its progress function must not write to it")
        with self._lock:
            try:
                self._thread = threading.get_ident()
                yield
            finally:
                self._thread = 0
