"""The last step of a build: lists of all parts become one graph, and one file."""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from vicinal import _persistence, _validate
from vicinal._cpu import native
from vicinal._progress import Report, reporting
from vicinal.errors import CorruptError
from vicinal.parts._file import ArrayFile
from vicinal.parts._part import part_digest
from vicinal.parts._plan import Plan

__all__ = ["join"]

_GIVE_BACK_EVERY = 0.003  # seconds, in which two threads read some 20 MB


def join(
    plan: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    num_threads: int | None = None,
    progress: bool | Report | None = None,
) -> None:
    """Join all parts of a plan and save the index, whole, under its name.

    Every row has the links that it has in its parts: of these it keeps those that the rule for
    links elsewhere keeps. The upper levels are linked in rounds, then all rows are made reachable.

    Parameters
    ----------
    plan : str or path-like
        The path that `plan` returned.
    path : str or path-like
        The index file; one of that name is replaced once the new one is whole.
    num_threads : int, optional
        Threads; the bytes do not depend on it.
    progress
        As for `Index.add`.

    Raises
    ------
    OSError
        If a file cannot be read or written; FileNotFoundError for a part that is not built.
    CorruptError
        If a file is damaged, or a part is one of another plan.
    MemoryError
        If memory runs out.
    """
    from vicinal.index import EXACT_BELOW, Index

    known = Plan(plan)
    known.check()
    threads = _validate.thread_count(num_threads)
    arrays: list[Any] = []
    for part in range(known.parts):
        file = ArrayFile(known.part_path(part))
        if file.header.get("digest") != part_digest(known, part):
            raise CorruptError(f"{file.path}: belongs to another plan; build it again")
        arrays += [file.array("rows"), file.array("links")]
        _give_back(arrays[-2:])
    index = _persistence.open_index(Index, known.rows_path(), "r", not known.give_back)
    giving = _giving_back(index, arrays) if known.give_back else contextlib.nullcontext()
    with giving, reporting(progress, known.rows) as report:
        native.index_join(index._handle, tuple(arrays), threads, report, EXACT_BELOW)
        _persistence.save(index, path)


@contextlib.contextmanager
def _giving_back(index: Any, arrays: list[Any]) -> Iterator[None]:
    """Take pages of mapped files out of this process all the time.

    What is mapped counts as memory of the process as long as it is there. Native code reads the
    files, in no order that would tell when it has done with a page; and the system brings 16 pages
    where one is read.
    """
    done = threading.Event()

    def work() -> None:
        while not done.wait(_GIVE_BACK_EVERY):
            native.index_give_back(index._handle)
            _give_back(arrays)

    thread = threading.Thread(target=work, name="vicinal gives back", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _give_back(arrays: list[Any]) -> None:
    """Take the pages of mapped arrays out of this process."""
    for array in arrays:
        held = getattr(array, "_mmap", None)
        if isinstance(array, np.memmap) and held is not None:
            held.madvise(mmap.MADV_DONTNEED)
