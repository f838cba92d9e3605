"""The last step of a build: lists of all parts become one graph, and one file."""

from __future__ import annotations

import contextlib
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
    rows, files, offsets = [], [], []
    for part in range(known.parts):
        file = ArrayFile(known.part_path(part))
        if file.header.get("digest") != part_digest(known, part):
            raise CorruptError(f"{file.path}: belongs to another plan; build it again")
        rows.append(np.array(file.array("rows")))
        file.array("links")  # compared with its checksum; read again when it is wanted
        files.append(os.fsencode(file.path))
        offsets.append(file.offset("links"))
    bounded = known.give_back
    resident = "none" if bounded else "auto"
    index = _persistence.open_index(Index, known.rows_path(), "r", not bounded, resident)
    giving = _giving_back(index) if bounded else contextlib.nullcontext()
    with giving, reporting(progress, known.rows) as report:
        native.index_join(
            index._handle,
            tuple(rows),
            tuple(files),
            np.array(offsets, np.int64),
            threads,
            report,
            EXACT_BELOW,
            bounded,
        )
        _persistence.save(index, path)


@contextlib.contextmanager
def _giving_back(index: Any) -> Iterator[None]:
    """Take pages of the vectors out of this process all the time.

    Native code gives back what it has read of the files, but for vectors that walks meet: where the
    rows are not linked on codes, it reads these in no order that would tell when it has done with a
    page.
    """
    done = threading.Event()

    def work() -> None:
        while not done.wait(_GIVE_BACK_EVERY):
            native.index_give_back(index._handle)

    thread = threading.Thread(target=work, name="vicinal gives back", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
