"""Opening a saved index: to search it, to change it in memory or in its file, or to follow it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, overload

from vicinal import _by_path, _identity, _persistence
from vicinal._state import PathLike
from vicinal.index import Index

if TYPE_CHECKING:
    from vicinal.living.follow import Follower
    from vicinal.living.index import LivingIndex

__all__ = ["open"]


@overload
def open(
    path: PathLike,
    *,
    mode: Literal["rw"],
    verify: bool = False,
    flush_changes: int | None = None,
    flush_seconds: float | None = None,
    damaged: str = "error",
) -> LivingIndex: ...


@overload
def open(
    path: PathLike, *, follow: Literal[True], verify: bool = False, resident: str = "auto"
) -> Follower: ...


@overload
def open(
    path: PathLike,
    *,
    mode: str = "r",
    verify: bool = False,
    resident: str = "auto",
    pickle: str = "bytes",
) -> Index: ...


def open(
    path: PathLike,
    *,
    mode: str = "r",
    verify: bool = False,
    resident: str = "auto",
    follow: bool = False,
    flush_changes: int | None = None,
    flush_seconds: float | None = None,
    damaged: str = "error",
    pickle: str = "bytes",
) -> Index | Follower:
    """Open a saved index by memory map, in milliseconds whatever its size if it fits the memory.

    Parameters
    ----------
    path : str or path-like
        A file that `Index.save` wrote.
    mode : {"r", "copy", "rw"}
        "r" searches the file where it lies and cannot be added to; processes that open the same
        file share its memory. "copy" gives a private copy in memory that can be; the file stays as
        it is. "rw" gives a `LivingIndex`, whose changes go to a journal beside the file: `flush`
        makes them durable, `checkpoint` folds them into the file; one process at a time
        (docs/guide/living.md).
    verify : bool
        Compare every byte with the checksums before anything is used.
    resident : {"auto", "all", "walk", "none"}
        What of the file stays in memory with mode="r". "walk": all but the vectors, that is links,
        codes and ids, which are read at once and locked, or copied where the system refuses to lock
        them; the few vectors that a search measures exactly are read from disk, all of a query at
        once. "all": everything is read and locked. "none": nothing is. "auto" leaves the file to
        the system if it fits half of the memory that the machine and the control group have free,
        else it is "walk", or "none" with a warning if not even that fits
        (docs/guide/larger-than-memory.md).
    follow : bool
        True gives a `Follower`, which searches the file and what its writer has flushed since, and
        takes up what comes.
    flush_changes : int, optional
        With mode="rw": flush in the call that makes so many changes since the last time.
    flush_seconds : float, optional
        With mode="rw": flush so often, in a thread of its own; that it failed is a warning of the
        next change.
    damaged : {"error", "cut"}
        With mode="rw", what to do about a journal that is damaged where it was on the disk already:
        refuse, naming the place, or open the index with the changes before that place. The damaged
        journal is kept beside it, its name with ".damaged" behind.
    pickle : {"bytes", "path"}
        With mode="r", what a pickle of the index holds: all of it, or its path and a fingerprint,
        for processes that see the same file. Who unpickles it opens the file; a `ConflictError`
        says that it is not the same any more.

    Returns
    -------
    Index, LivingIndex or Follower

    Raises
    ------
    OSError
        If the file cannot be read, `FileNotFoundError` if it is not there. `BlockingIOError` if
        another process has opened it with mode="rw", naming it.
    ConflictError
        With mode="rw", if the journal beside the file belongs to another one.
    FormatError
        If it is no index, or of a version that this one cannot read.
    CorruptError
        If it is damaged. Without `verify` that is noticed in the header, the section table and the
        size, with mode="copy" also in links, tombstones, duplicates and counts; damage elsewhere
        may give wrong neighbours, never a crash (docs/design/format.md).
    ValueError
        If `mode` or `resident` is unknown, or they contradict each other.
    MemoryError
        If "all" or "walk" was asked for and does not fit the memory that is free.

    Warns
    -----
    RuntimeWarning
        If the system refused to lock what is to stay in memory, or "auto" found no room for it; if
        the file has a journal with changes, which mode="r" and "copy" do not see.

    Notes
    -----
    The file may be replaced or removed while it is open. It must not be changed or shortened in
    place: `save` never does.
    """
    if isinstance(path, int):
        raise TypeError(f"path: expected str, bytes or os.PathLike, got {type(path).__name__}")
    if mode == "rw" or follow:
        from vicinal.living.opening import open_other

        return open_other(
            *(path, mode, verify, resident, bool(follow)),
            *(flush_changes, flush_seconds, damaged, pickle),
        )
    if flush_changes is not None or flush_seconds is not None or damaged != "error":
        raise ValueError('mode: expected "rw" with flush_changes, flush_seconds or damaged')
    if pickle != "bytes":
        return _by_path.opened(Index, path, mode, verify, resident, pickle)
    index = _persistence.open_index(Index, path, mode, verify, resident)
    _identity.warn_of_journal(index)
    return index
