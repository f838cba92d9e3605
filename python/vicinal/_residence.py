"""What of an opened file stays in memory, by what the machine and the control group have free."""

from __future__ import annotations

import os
import resource
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vicinal import _control_groups, _info, _reads
from vicinal._cpu import native
from vicinal._threads import default_threads

if TYPE_CHECKING:
    from vicinal._identity import Found

__all__ = [
    "ALWAYS_FITS",
    "LEVELS",
    "check",
    "free_memory",
    "keep",
    "needs",
    "read_by",
    "read_for",
    "warm_up",
]

LEVELS = ("none", "walk", "all")  # as the native index numbers them
ALWAYS_FITS = 16 << 20  # files of no more bytes are left alone without asking what is free
_UNLIMITED = 1 << 60  # version 1 says so by the largest multiple of a page


def check(resident: object, mode: str) -> str:
    """Return the argument `resident`, or raise ValueError or TypeError."""
    if not isinstance(resident, str):
        raise TypeError(
            f"resident: expected 'auto', 'all', 'walk' or 'none', got {type(resident).__name__}"
        )
    if resident != "auto" and resident not in LEVELS:
        raise ValueError(f"resident: expected 'auto', 'all', 'walk' or 'none', got {resident!r}")
    if mode == "copy" and resident in ("walk", "none"):
        raise ValueError(
            f"resident: expected 'auto' or 'all' with mode=\"copy\", which takes all of the file "
            f"into memory, got {resident!r}"
        )
    return resident


def keep(handle: Any, resident: str, found: Found | None = None) -> str:
    """Bring parts of the file of a new native index into memory, and return what stays there.

    Parameters
    ----------
    handle : object
        The native index, just opened with mode="r".
    resident : str
        As `check` returned it.
    found : tuple, optional
        Path of the file and what the system said of it when it was opened.

    Returns
    -------
    {"all", "walk", "none"}

    Raises
    ------
    MemoryError
        If what was asked for does not fit the memory that is free.
    """
    size = native.index_residence(handle, _info.FILE_BYTES)
    if resident == "auto" and (size <= ALWAYS_FITS or _surely_fits(2 * size)):
        return "all"
    free = free_memory()
    walk = native.index_residence(handle, _info.WALK_BYTES)
    chosen = resident
    if resident == "auto":
        if 2 * size <= free:
            return "all"
        chosen = "walk" if 4 * walk <= 3 * free else "none"
        if 4 * size <= 3 * free and _would_read_for(handle) == "every hop":
            chosen = "all"  # what walks need is the vectors
        if chosen == "none":
            _warn(
                f"neither the file ({size} bytes) nor what walks need of it ({walk}) fits the "
                f"memory that is free ({free}): all of it is read from disk when it is needed"
            )
    elif (need := {"all": size, "walk": walk, "none": 0}[resident]) > free:
        raise MemoryError(
            f"resident: {resident!r} takes {need} bytes of memory, {free} are free"
            + (f"; 'walk' would take {walk}" if resident == "all" and walk < need else "")
        )
    native.index_keep(handle, LEVELS.index(chosen), True, default_threads())
    if chosen != "all":
        _reads.choose(handle, found, size - walk, free - walk)
    if chosen != "none" and walk != 0:  # without rows there is nothing but the header
        _tell_what_was_refused(handle, chosen, size if chosen == "all" else walk)
    return chosen


def warm_up(handle: Any) -> None:
    """Read into memory what is to stay there."""
    on_disk = native.index_residence(handle, _info.ROWS_ON_DISK)
    native.index_keep(handle, LEVELS.index("walk" if on_disk else "all"), False, default_threads())


def read_for(handle: Any) -> str:
    """Say what searches read from disk for.

    "nothing"; "re-ranking"; "every hop" where the vectors themselves are walked on.
    """
    if not native.index_residence(handle, _info.ROWS_ON_DISK):
        return "nothing"
    return _would_read_for(handle)


def needs(handle: Any) -> dict[str, Any]:
    """Say what an opened file takes in memory by each way, and what "walk" would still read for."""
    walk = native.index_residence(handle, _info.WALK_BYTES)
    return {
        "all": native.index_residence(handle, _info.FILE_BYTES),
        "walk": walk,
        "walk_bytes_a_row": round(walk / max(1, _info.number(handle, _info.COUNT)), 1),
        "walk_reads_for": _would_read_for(handle),
    }


def _would_read_for(handle: Any) -> str:
    codes = _info.number(handle, _info.CODES)
    if codes != 1:
        return "re-ranking" if codes else "every hop"
    if _info.number(handle, _info.DTYPE) < 3:  # floats, of which the codes tell all
        return "nothing"
    # from a cache line on the vectors are their own codes
    return "every hop" if _info.number(handle, _info.DIM) >= 64 else "nothing"


def read_by(handle: Any) -> str | None:
    """Say how vectors on disk are read when they are measured again, see `_reads`; None without."""
    if read_for(handle) == "nothing":
        return None
    return _reads.way_of(handle)


def free_memory() -> int:
    """Return the bytes of memory that this process may still use.

    The cache of files counts as free. It is the least of what the machine has and what the control
    group of the process and those above it leave.
    """
    groups = _control_groups.folders("memory")
    return min(_of_machine(), *(_left(folder, kind) for folder, kind in groups))


def _surely_fits(size: int) -> bool:
    """Tell whether so many bytes are unused and no group limits memory; False if it takes a look.

    Of the groups that is believed for a moment: to look takes longer than to open a file.
    """
    global _unlimited_until, _unlimited_process
    if size > os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES"):
        return False
    now, process = time.monotonic(), os.getpid()
    if now > _unlimited_until or process != _unlimited_process:
        groups = _control_groups.folders("memory")
        if any(_left(folder, kind) < _UNLIMITED for folder, kind in groups):
            return False
        _unlimited_until, _unlimited_process = now + _MOMENT, process
    return True


_MOMENT = 0.2  # seconds
_unlimited_until, _unlimited_process = 0.0, 0


def _of_machine() -> int:
    """Return what the machine has available."""
    try:
        return 1024 * int(_read("/proc/meminfo").split(b"MemAvailable:")[1].split(None, 1)[0])
    except (OSError, ValueError, IndexError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


def _left(folder: Path, kind: str) -> int:
    """Return what a control group leaves, the part of its cache that can be dropped included."""
    limit, usage, *cache = _FILES[kind]
    try:
        most = _read(f"{folder}/{limit}").strip()
        if most == b"max" or int(most) >= _UNLIMITED:
            return _UNLIMITED
        stat = dict(line.split() for line in _read(f"{folder}/memory.stat").splitlines())
        dropped = sum(int(stat.get(name, 0)) for name in cache)
        return max(0, int(most) - max(int(_read(f"{folder}/{usage}")) - dropped, 0))
    except (OSError, ValueError):  # version 2 without a limit has none of the files at the top
        return _UNLIMITED


_FILES: dict[str, tuple[str, str, bytes, bytes]] = {
    "cgroup2": ("memory.max", "memory.current", b"inactive_file", b"active_file"),
    "cgroup": (
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        b"total_inactive_file",
        b"total_active_file",
    ),
}


def _read(path: str) -> bytes:
    """Return what a file of the kernel holds; `Path.read_text` takes several times as long."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(file, 1 << 16)
    finally:
        os.close(file)


def _tell_what_was_refused(handle: Any, level: str, wanted: int) -> None:
    """Warn if the system has not locked all that is to stay in memory."""
    if native.index_residence(handle, _info.LOCKED) > 0:
        return
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    copied = native.index_residence(handle, _info.COPIED)
    _warn(
        f"the system refused to lock {wanted} bytes in memory (RLIMIT_MEMLOCK is {limit}): "
        + (
            f"{copied} bytes were copied into memory of this process instead, which others that "
            "open the file cannot share"
            if level == "walk"
            else "it may drop parts of the file and read them again"
        ),
        stacklevel=7,
    )


def _warn(text: str, *, stacklevel: int = 6) -> None:
    """Warn the caller of `vicinal.open`."""
    warnings.warn(f"resident: {text}", RuntimeWarning, stacklevel=stacklevel)
