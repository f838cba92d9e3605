"""A limit of memory for one process, the cache of files counted: a control group of its own.

    with memory_limit(100 << 20) as group:          # OSError where the system does not allow it
        subprocess.run([... "joins by writing its number to", group.procs])
        group.peak()

Version 2 of control groups is tried first, then version 1. What a process has touched before it
joins is not counted, so a script joins after its imports. Pages of a file that another process
has read are not counted either: `evict` drops them first.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")


class Group:
    """A control group with a limit."""

    def __init__(self, folder: Path, version: int) -> None:
        self.folder = folder
        self.version = version
        self.procs = folder / "cgroup.procs"

    def peak(self) -> int:
        """Return the most bytes that were ever charged."""
        name = "memory.peak" if self.version == 2 else "memory.max_usage_in_bytes"
        return int((self.folder / name).read_text(encoding="ascii"))

    def killed(self) -> int:
        """Return how many processes were killed for want of memory."""
        name = "memory.events" if self.version == 2 else "memory.oom_control"
        text = (self.folder / name).read_text(encoding="ascii")
        return int(dict(line.split() for line in text.splitlines()).get("oom_kill", 0))


@contextmanager
def memory_limit(limit: int) -> Iterator[Group]:
    """Make a control group that limits memory to so many bytes, and take it away afterwards."""
    group = _make(limit)
    try:
        yield group
    finally:
        for _ in range(100):  # the last process may not be gone yet
            try:
                group.folder.rmdir()
                break
            except OSError:
                time.sleep(0.02)


def evict(path: str | os.PathLike[str]) -> None:
    """Drop the pages of a file from memory."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _make(limit: int) -> Group:
    """Make the group by the first way that works."""
    reasons = []
    for version, own in _own_folders():
        # version 2 allows no processes in a group that has groups below it: beside the own one
        for parent in (own, own.parent) if version == 2 else (own,):
            folder = parent / f"vicinal-{os.getpid()}-{time.monotonic_ns()}"
            name = "memory.max" if version == 2 else "memory.limit_in_bytes"
            if not (parent / "cgroup.procs").exists():
                continue
            try:
                folder.mkdir()
            except OSError as error:
                reasons.append(f"{folder}: {error.strerror}")
                continue
            try:
                (folder / name).write_text(str(limit), encoding="ascii")
                with suppress(OSError):  # no way out by swapping
                    if version == 2:
                        (folder / "memory.swap.max").write_text("0", encoding="ascii")
                return Group(folder, version)
            except OSError as error:
                reasons.append(f"{folder / name}: {error.strerror}")
                folder.rmdir()
    raise OSError("no control group that limits memory can be made: " + "; ".join(reasons))


def _own_folders() -> Iterator[tuple[int, Path]]:
    """Yield version and folder of the groups that this process is in, version 2 first."""
    lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    for line in sorted(lines, key=lambda text: text.split(":")[1] != ""):
        _, controllers, place = line.split(":", 2)
        if controllers == "":
            for root in (_ROOT, _ROOT / "unified"):
                if (root / "cgroup.controllers").exists():
                    yield 2, _below(root, place)
        elif "memory" in controllers.split(","):
            yield 1, _below(_ROOT / "memory", place)


def _below(root: Path, place: str) -> Path:
    """Return the folder of a group, the root where a namespace hides it."""
    folder = root / place.strip("/")
    return folder if folder.is_dir() else root
