"""A whole build into a file: in one piece, or by plan, parts and join, here or elsewhere."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vicinal import _persistence
from vicinal._progress import Report, reporting
from vicinal.parts import _sizes
from vicinal.parts._join import join
from vicinal.parts._part import build_part, is_built
from vicinal.parts._plan import Plan, make_plan
from vicinal.parts._rows import Batches, Parameters
from vicinal.vectors_io._source import VectorSource

__all__ = ["Share", "build_file", "check_executor", "in_threads"]

_SUFFIX = ".parts"  # of the folder beside the target


class _Stopped(Exception):
    """Ends parts under way once another has failed or the caller wants to stop."""


def check_executor(executor: object) -> None:
    """Refuse what has neither `submit` nor `map`; TypeError."""
    if executor is not None and not (hasattr(executor, "submit") or hasattr(executor, "map")):
        raise TypeError(
            "executor: expected an object with submit, as concurrent.futures has them, or map, "
            f"got {type(executor).__name__}"
        )


def build_file(
    source: VectorSource,
    path: str,
    parameters: Parameters,
    memory: int | None,
    parts: int | None,
    executor: Any,
    scratch: str | None,
    threads: int,
    progress: bool | Report | None,
) -> Any:
    """Write an index file and return the index, opened by map; see `vicinal.build`."""
    from vicinal.index import Index

    _check_target(path)
    if isinstance(source, Batches) and (parts is None or parts == 1):
        shape = parameters["dim"], parameters["dtype"], parameters["M"]
        source = source.hold(lambda rows: parts == 1 or _sizes.is_held(rows, *shape, memory=memory))
    if parts is None and not isinstance(source, Batches):
        parts = _sizes.number_of_parts(
            len(source), parameters["dim"], parameters["dtype"], parameters["M"], memory, threads
        )
    if parts == 1 and not isinstance(source, Batches):
        from vicinal.vectors_io._to_index import add_source

        index = Index(**parameters)
        add_source(index, source, num_threads=threads, progress=progress)
        index.save(path)
        return _persistence.open_index(Index, path, "r", False)
    folder = path + _SUFFIX if scratch is None else scratch
    with _alone(folder):
        plan = make_plan(source, folder, parameters, parts, memory, threads)
        with reporting(progress, plan.rows) as report:
            _build_parts(plan, executor, memory, threads, report)
            join(plan.path, path, num_threads=threads)
            if report is not None:
                report(plan.rows, plan.rows)
        _clear(plan)
    return _persistence.open_index(Index, path, "r", False)


def _check_target(path: str) -> None:
    """Refuse at once a path that no file can be saved at; OSError."""
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), folder)
    if os.path.isdir(path):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)


@contextlib.contextmanager
def _alone(folder: str) -> Iterator[None]:
    """Keep other builds out of a folder, which goes at the end if it is empty and was made here.

    Raises
    ------
    BlockingIOError
        If another build is at work in it.
    """
    made = not os.path.isdir(folder) or folder.endswith(_SUFFIX)
    os.makedirs(folder, exist_ok=True)
    name = os.path.join(folder, "lock")
    handle = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(
                error.errno, "another build is at work in this folder", folder
            ) from None
        try:
            yield
        finally:
            os.unlink(name)
            if made:
                with contextlib.suppress(OSError):  # there is something to go on from
                    os.rmdir(folder)
    finally:
        os.close(handle)


def _clear(plan: Plan) -> None:
    """Remove what a finished build has left."""
    names = [plan.part_path(part) for part in range(plan.parts)]
    for name in [plan.path, *names, plan.rows_path()]:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


class Share:
    """How much of a build is done, as rows."""

    def __init__(self, sizes: NDArray[np.int64], rows: int, report: Report | None) -> None:
        self.sizes, self.rows, self.report = sizes, rows, report
        self.done = 0

    def add(self, part: int) -> None:
        self.done += int(self.sizes[part])
        if self.report is not None:
            # the last row is told of when the index is whole
            share = self.done * self.rows // max(int(self.sizes.sum()), 1)
            self.report(min(share, self.rows - 1), self.rows)


def _build_parts(
    plan: Plan, executor: Any, memory: int | None, threads: int, report: Report | None
) -> None:
    share = Share(plan.sizes(), plan.rows, report)
    missing = []
    for part in range(plan.parts):
        if is_built(plan, part):
            share.add(part)
        else:
            missing.append(part)
    # the largest first, so that none of them is left over at the end
    missing.sort(key=lambda part: (-int(share.sizes[part]), part))
    if executor is not None:
        _elsewhere(plan, missing, executor, share)
    elif memory is not None or threads == 1:
        for part in missing:
            build_part(plan.path, part, num_threads=threads)
            share.add(part)
    else:

        def task(part: int, look: Report) -> None:
            build_part(plan.path, part, num_threads=1, progress=look)

        in_threads(task, missing, threads, share)


def in_threads(
    task: Callable[[int, Report], None], parts: list[int], threads: int, share: Share
) -> None:
    """Do a task for each part, as many side by side as there are threads, one thread each.

    A task is given the part and a report that may end it.
    """
    stop = threading.Event()

    def look(done: int, total: int) -> None:
        if stop.is_set():
            raise _Stopped

    def start(part: int) -> None:
        if stop.is_set():
            raise _Stopped
        task(part, look)

    with ThreadPoolExecutor(min(threads, max(len(parts), 1))) as pool:
        try:
            _collect({pool.submit(start, part): part for part in parts}, share)
        except BaseException:
            stop.set()
            raise


def _elsewhere(plan: Plan, missing: list[int], executor: Any, share: Share) -> None:
    if hasattr(executor, "submit"):
        futures = {executor.submit(build_part, plan.path, part): part for part in missing}
        _collect(futures, share)
    else:
        for _ in executor.map(_Part(plan.path), missing):
            pass
    for part in missing:
        if not is_built(plan, part):
            raise RuntimeError(
                f"executor: part {part} is not at {plan.part_path(part)} though its task is done; "
                "workers must see the same files"
            )


class _Part:
    """A task for executors that have `map` only; can be pickled."""

    def __init__(self, plan: str) -> None:
        self.plan = plan

    def __call__(self, part: int) -> str:
        return build_part(self.plan, part)


def _collect(futures: dict[Any, int], share: Share) -> None:
    """Wait for all tasks; the first exception is raised once the others are told to stop."""
    if not all(isinstance(future, Future) for future in futures):  # of another library
        for future, part in futures.items():
            future.result()
            share.add(part)
        return
    left = set(futures)
    try:
        while left:
            done, left = wait(left, timeout=0.2, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
                share.add(futures[future])
    except BaseException:
        for future in left:
            future.cancel()
        raise
