"""One writer of a file at a time: a lock that ends with its process, however that ends."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
from contextlib import suppress

__all__ = ["FileLock", "holder"]

_TRIES = 50  # to find out who has it: whoever has just taken it has yet to write that down
_PAUSE = 0.01

_held: dict[int, FileLock] = {}


def _forget_in_child() -> None:
    # a copy of the descriptor in a child would keep the lock when its parent is gone
    for lock in list(_held.values()):
        with suppress(OSError):
            os.close(lock.file)
        lock.file = -1
    _held.clear()


os.register_at_fork(after_in_child=_forget_in_child)


class FileLock:
    """The right to write to a file, from making this object to `release` or the process's end.

    Raises
    ------
    BlockingIOError
        If somebody has it, naming the process.
    OSError
        If no file can be made in the folder.
    """

    def __init__(self, path: str, about: str) -> None:
        self.path = path
        self.file = -1
        for turn in range(_TRIES):
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                told = _read(file)
                os.close(file)
                if told is not None or turn == _TRIES - 1:
                    raise _refusal(about, told) from None
                time.sleep(_PAUSE)
                continue
            except BaseException:
                os.close(file)
                raise
            if _is_at(file, path):
                break
            os.close(file)  # whoever had it has removed it
        else:
            raise _refusal(about, None)
        self.file = file
        _held[id(self)] = self
        text = f"{os.getpid()} {socket.gethostname()} {time.strftime('%Y-%m-%dT%H:%M:%S')}\n"
        os.ftruncate(file, 0)
        os.pwrite(file, text.encode(), 0)

    def release(self) -> None:
        """Give the right back and remove the file; a second call does nothing."""
        if _held.pop(id(self), None) is None:
            return
        with suppress(OSError):
            os.unlink(self.path)
        os.close(self.file)
        self.file = -1


def holder(path: str) -> str | None:
    """Return who writes to the file of a lock at the moment, None for nobody."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return _read(file) or "another process"
    else:
        return None
    finally:
        os.close(file)


def _is_at(file: int, path: str) -> bool:
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    mine = os.fstat(file)
    return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)


def _read(file: int) -> str | None:
    """Return what the holder wrote about itself, None if that is of an earlier one."""
    words = os.pread(file, 200, 0).decode("utf-8", "replace").rstrip("\n").split(" ")
    if len(words) != 3 or not words[0].isdigit():
        return None
    pid, host, since = words
    if host == socket.gethostname():
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return None
        except OSError:
            pass
    return f"process {pid} on {host}, since {since}"


def _refusal(about: str, told: str | None) -> BlockingIOError:
    who = told or "another process"
    return BlockingIOError(
        errno.EAGAIN,
        f"{who} has it open for writing; one may write until it closes it, others may read it "
        "with follow=True",
        about,
    )
