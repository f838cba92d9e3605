"""How many threads calls use that do not say so: what the process is granted, or what was set."""

from __future__ import annotations

import math
import operator
import os
import reprlib
from pathlib import Path

from vicinal import _control_groups

__all__ = ["default_threads", "get_num_threads", "set_num_threads"]

VARIABLE = "VICINAL_NUM_THREADS"
_MOST = 2**31 - 1

_set: int | None = None
_quota: float | None = None  # once it was looked up; files of the kernel take longer than a search


def set_num_threads(num_threads: int | None) -> None:
    """Set how many threads calls of this process use that give no `num_threads`.

    Parameters
    ----------
    num_threads : int or None
        At least 1. None takes the default again: the environment variable VICINAL_NUM_THREADS if it
        is set, else the cores that this process may run on, or fewer where a quota of its control
        group (a container's, say) grants less time.

    Raises
    ------
    TypeError
        If it is neither.
    ValueError
        If it is below 1.

    Notes
    -----
    Results never depend on it. `search` of one query uses one thread unless its `num_threads` says
    otherwise. Threads: safe at any time, for calls that begin later.
    """
    global _set
    _set = None if num_threads is None else _checked(num_threads, "num_threads")


def get_num_threads() -> int:
    """Return how many threads calls use that give no `num_threads`.

    Raises
    ------
    ValueError
        If the environment variable VICINAL_NUM_THREADS decides and is no number from 1 on.
    """
    return default_threads()


def default_threads() -> int:
    """Return the same; what the library asks."""
    if _set is not None:
        return _set
    text = os.environ.get(VARIABLE)
    if text:
        try:
            return _checked(int(text), VARIABLE)
        except ValueError:
            raise ValueError(
                f"{VARIABLE}: expected a whole number from 1 to {_MOST}, got {reprlib.repr(text)}"
            ) from None
    global _quota
    if _quota is None:
        _quota = cpu_quota()
    return max(1, min(len(os.sched_getaffinity(0)), math.ceil(min(_quota, _MOST))))


def _checked(value: object, name: str) -> int:
    wanted = f"{name}: expected a whole number from 1 to {_MOST}, got {reprlib.repr(value)}"
    if isinstance(value, bool):
        raise TypeError(wanted)
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(wanted) from None
    if not 1 <= number <= _MOST:
        raise ValueError(wanted)
    return number


def cpu_quota(proc: Path = Path("/proc/self")) -> float:
    """Return how many cores' time the control groups of this process grant, infinity for no limit.

    A group is also bound by those above it, as far as they can be seen from here.

    Parameters
    ----------
    proc : Path
        Folder with the files `cgroup` and `mountinfo` of the process.
    """
    granted = (_granted(folder, kind) for folder, kind in _control_groups.folders("cpu", proc))
    return min(granted, default=math.inf)


def _granted(folder: Path, kind: str) -> float:
    """Return the cores' time that one group grants."""
    try:
        if kind == "cgroup2":
            quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text(encoding="ascii")
            period = (folder / "cpu.cfs_period_us").read_text(encoding="ascii")
        time, of = int(quota), int(period)  # "max" is none
    except (OSError, ValueError):
        return math.inf
    return time / of if time > 0 and of > 0 else math.inf
