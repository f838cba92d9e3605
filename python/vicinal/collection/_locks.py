"""Who may write to a folder, and who waits for whom inside a process."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

__all__ = ["SharedLock", "WriterRight"]


class SharedLock:
    """A lock that any number of threads share, or one has alone; who wants it alone goes first."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._shared = 0
        self._alone = False
        self._waiting = 0

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Hold it together with others."""
        with self._changed:
            while self._alone or self._waiting:
                self._changed.wait()
            self._shared += 1
        try:
            yield
        finally:
            self._release_shared()

    @contextmanager
    def alone_then_shared(self, work: object) -> Iterator[None]:
        """Call `work` alone, then hold the lock together with others, with nobody between."""
        assert callable(work)
        with self._changed:
            self._waiting += 1
            try:
                while self._alone or self._shared:
                    self._changed.wait()
                self._alone = True
            finally:
                self._waiting -= 1
                self._changed.notify_all()
        done = False
        try:
            work()
            done = True
        finally:
            with self._changed:
                self._alone = False
                self._shared += done
                self._changed.notify_all()
        try:
            yield
        finally:
            self._release_shared()

    def _release_shared(self) -> None:
        with self._changed:
            self._shared -= 1
            self._changed.notify_all()


class _Right:
    """The right of this process to write to one folder, shared by all who write here."""

    def __init__(self, file: int) -> None:
        self.file = file
        self.users = 0
        self.turn = threading.RLock()
        self.saving = threading.RLock()


_rights: dict[tuple[int, int], _Right] = {}
_guard = threading.Lock()


def _renew() -> None:
    """Forget all rights in a forked child: they are its parent's."""
    global _guard
    _guard = threading.Lock()
    for right in _rights.values():
        # closing a copy of the descriptor leaves the parent's lock where it is
        with suppress(OSError):
            os.close(right.file)
    _rights.clear()


os.register_at_fork(after_in_child=_renew)


class WriterRight:
    """The right to write to a folder: taken at the first change, kept until `release`.

    One process has it at a time; the system takes it back when the process ends, however it ends.
    Threads and objects of that process take turns.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._key: tuple[int, int] | None = None
        self._process = os.getpid()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Hold the right, alone in this process.

        Raises
        ------
        BlockingIOError
            If another process has it.
        """
        right = self._take()
        with right.turn:
            yield

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Hold the right to save the index, alone in this process; taken before a turn, if both.

        Raises
        ------
        BlockingIOError
            If another process writes.
        """
        with self._take().saving:
            yield

    def _take(self) -> _Right:
        if self._process != os.getpid():
            self._process, self._key = os.getpid(), None
        with _guard:
            if self._key is not None and self._key in _rights:
                return _rights[self._key]
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                about = os.fstat(file)
                key = (about.st_dev, about.st_ino)
                right = _rights.get(key)
                if right is None:
                    self._lock(file)
                    right = _rights[key] = _Right(file)
                    file = -1
            finally:
                if file >= 0:
                    os.close(file)
            right.users += 1
            self._key = key
            return right

    def _lock(self, file: int) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(
                errno.EAGAIN,
                "another process is writing to this collection; one may write until it closes it, "
                "others may read",
                os.path.dirname(self._path),
            ) from None

    def release(self) -> None:
        """Give the right back, if this object is the last of the process that has it."""
        if self._process != os.getpid() or self._key is None:
            return
        with _guard:
            right = _rights.get(self._key)
            self._key = None
            if right is None:
                return
            right.users -= 1
            if not right.users:
                _rights.pop(next(key for key, each in _rights.items() if each is right))
                # not by closing alone: forked children have the file open, too
                fcntl.flock(right.file, fcntl.LOCK_UN)
                os.close(right.file)
