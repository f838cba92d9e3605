"""Folding: the index as it is becomes the file, and the journal begins anew.

The order of steps makes a crash between any two of them harmless: the new file says up to which
record of which journal it goes, so the old journal beside it is read from there on.
"""

from __future__ import annotations

import errno
import os
import signal
import stat
from contextlib import suppress

import numpy as np

from vicinal import _file_status, _info, _persistence
from vicinal._cpu import native
from vicinal._state import State

__all__ = ["TEMPORARY", "replace_file", "write_now"]

TEMPORARY = ".checkpoint"
_STATUS_BYTES = 40
# An index of fewer bytes is written while additions wait: that takes no longer than a fork.
_SMALL = 4 << 20


def write_now(index: State, path: str, mark: tuple[str, int]) -> _Writing:
    """Begin to write an index into a file beside its own; the caller holds the writer's lock.

    The caller lets go of the lock and calls `finish`. Where the system forks, a child process
    writes what there is at this moment; else it is written before this returns.
    """
    temporary = path + TEMPORARY
    with suppress(FileNotFoundError):
        os.unlink(temporary)  # of a process that was killed
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    file = os.open(temporary, flags, stat.S_IMODE(os.stat(path).st_mode))
    writing = _Writing(temporary, file)
    try:
        with suppress(OSError):  # the umask may have taken some away
            os.fchmod(file, stat.S_IMODE(os.stat(path).st_mode))
        _persistence.hand_over(index, mark)
        if _info.number(index._handle, _info.BYTES) < _SMALL or not writing.fork(index):
            writing.here(index)
    except BaseException:
        writing.give_up()
        raise
    return writing


class _Writing:
    """A file that is being written."""

    def __init__(self, temporary: str, file: int) -> None:
        self.temporary, self.file = temporary, file
        self._child = 0
        self._pipe = -1

    def fork(self, index: State) -> bool:
        """Let a child process write; False if there can be none."""
        hears, says = os.pipe()
        child = native.index_write_apart(index._handle, self.file, says, index._ef_search)
        os.close(says)
        if child < 0:
            os.close(hears)
            if -child in (errno.EAGAIN, errno.ENOMEM, errno.ENOSYS, errno.EPERM):
                return False
            raise OSError(-child, os.strerror(-child), self.temporary)
        self._child, self._pipe = child, hears
        return True

    def here(self, index: State) -> None:
        """Write now."""
        _file_status.call(
            lambda _, status: native.index_write(
                index._handle, self.file, index._ef_search, status
            ),
            self.temporary,
        )

    def finish(self) -> None:
        """Return once the file is whole and on the disk; nobody is kept off meanwhile.

        Raises
        ------
        OSError
            If the system refuses, or the process that writes was killed; nothing is left then.
        """
        try:
            if self._child:
                self._hear()
            os.fsync(self.file)
        except BaseException:
            self.give_up()
            raise
        os.close(self.file)
        self.file = -1

    def _hear(self) -> None:
        told = b""
        while len(told) < _STATUS_BYTES:
            piece = os.read(self._pipe, _STATUS_BYTES - len(told))
            if not piece:
                break
            told += piece
        self._reap()
        if len(told) < _STATUS_BYTES:
            raise OSError(
                errno.EIO, "the process that wrote the checkpoint was killed", self.temporary
            )
        _file_status.raise_for_status(np.frombuffer(told, np.int64), self.temporary)

    def _reap(self) -> None:
        if self._child:
            child, self._child = self._child, 0
            with suppress(ChildProcessError):  # a program that waits for any child has had it
                os.waitpid(child, 0)
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1

    def give_up(self) -> None:
        """End the writing and remove the file."""
        if self._child:
            with suppress(ChildProcessError):
                # killed only while it is a child still: else the number may be somebody else's
                if os.waitpid(self._child, os.WNOHANG)[0] == 0:
                    os.kill(self._child, signal.SIGKILL)
        self._reap()
        if self.file >= 0:
            os.close(self.file)
            self.file = -1
        with suppress(OSError):
            os.unlink(self.temporary)


def replace_file(path: str) -> None:
    """Put the finished file in the place of the old one; `sync_folder` makes that durable."""
    os.rename(path + TEMPORARY, path)
