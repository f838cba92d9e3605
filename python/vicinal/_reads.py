"""How the vectors of an opened file that stay on disk are read to be measured again."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING, Any

from vicinal import _info
from vicinal._cpu import native

if TYPE_CHECKING:
    from vicinal._identity import Found

__all__ = ["VARIABLE", "WAYS", "choose", "way_of"]

WAYS = ("fault", "advise", "uring")  # as the native index numbers them
VARIABLE = "VICINAL_IO"
CACHED = 0.5  # of the vectors: from so many on that the cache may hold, it is worth going by it


def choose(handle: Any, found: Found | None, vectors: int, room: int) -> None:
    """Tell a native index, just opened, how to read vectors.

    By "uring" (io_uring, past the cache) where the cache has room for few of them, else, and
    wherever the system refuses that, by "advise" (through the cache, asked for ahead). The
    environment variable VICINAL_IO names one for tests and comparisons; "fault" asks for nothing.

    Parameters
    ----------
    handle : object
        The native index.
    found : tuple, optional
        Path of its file and what the system said of it when it was opened.
    vectors : int
        Bytes of vectors on disk.
    room : int
        Bytes of memory that is left for the cache.

    Raises
    ------
    ValueError
        If VICINAL_IO names no such way.
    """
    wanted = os.environ.get(VARIABLE, "")
    if wanted and wanted not in WAYS:
        raise ValueError(f"{VARIABLE}: expected 'uring', 'advise' or 'fault', got {wanted!r}")
    way = wanted or ("advise" if room >= CACHED * vectors else "uring")
    file = _past_the_cache(found) if way == "uring" and _rings_work(os.getpid()) else -1
    if way == "uring" and file < 0:
        way = "advise"
    native.index_read_by(handle, WAYS.index(way), file)


def way_of(handle: Any) -> str:
    """Return how vectors on disk are read."""
    return WAYS[native.index_residence(handle, _info.READ_BY)]


@cache
def _rings_work(process: int) -> bool:
    """Tell whether the system lets this process have a ring; it is asked once."""
    return bool(native.rings_work())


def _past_the_cache(found: Found | None) -> int:
    """Open a file once more for reads past the cache; return its descriptor, -1 if that is refused.

    Only the very file that was opened will do, not one that has taken its place since.
    """
    if found is None:
        return -1
    path, about = found
    try:
        file = os.open(path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC | os.O_NOCTTY)
    except (OSError, AttributeError):  # tmpfs and some network file systems have no such reads
        return -1
    now = os.fstat(file)
    if (now.st_dev, now.st_ino, now.st_size) != (about.st_dev, about.st_ino, about.st_size):
        os.close(file)
        return -1
    return file
