"""The control groups that bind this process, as far as they can be seen from here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

__all__ = ["folders"]


def folders(controller: str, proc: Path = Path("/proc/self")) -> list[tuple[Path, str]]:
    """Return folder and kind, "cgroup2" or "cgroup", of the group of a process and those above it.

    Parameters
    ----------
    controller : str
        The controller wanted of version 1; groups of version 2 are listed whatever they control.
    proc : Path
        Folder with the files `cgroup` and `mountinfo` of the process.
    """
    try:
        groups = (proc / "cgroup").read_text(encoding="utf-8", errors="replace")
        key = (controller, proc, groups)
        if key not in _known:
            mounts = (proc / "mountinfo").read_text(encoding="utf-8", errors="replace")
            _known[key] = list(_folders(controller, groups, mounts))
    except OSError:
        return []
    return _known[key]


# What was found for a process that is in certain groups: a process may be moved at any time, but
# where groups are mounted stays, and to look takes longer than to open a file.
_known: dict[tuple[str, Path, str], list[tuple[Path, str]]] = {}


def _folders(controller: str, groups: str, mounts: str) -> Iterator[tuple[Path, str]]:
    for line in groups.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if number == "0" and not controllers:
            kind, wanted = "cgroup2", ""
        elif controller in controllers.split(","):
            kind, wanted = "cgroup", controller
        else:
            continue
        for top, mounted in _mounts(mounts, kind, wanted):
            folder = _inside(group, top, mounted)
            while True:
                yield folder, kind
                if folder == mounted or folder == folder.parent:
                    break
                folder = folder.parent


# a space, a tab, a line's end and a backslash, as the system writes them into a list of mounts
_ESCAPED = re.compile(r"\\([0-7]{3})")


def _plain(escaped: re.Match[str]) -> str:
    return chr(int(escaped[1], 8))


def _mounts(mountinfo: str, kind: str, controller: str) -> list[tuple[str, Path]]:
    """Return which part of a hierarchy of control groups can be seen where."""
    found = []
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, of_system = before.split(), after.split()
        if len(fields) < 5 or len(of_system) < 3 or of_system[0] != kind:
            continue
        if not controller or controller in of_system[2].split(","):
            root, point = (_ESCAPED.sub(_plain, part) for part in fields[3:5])
            found.append((root, Path(point)))
    return found


def _inside(group: str, top: str, mounted: Path) -> Path:
    """Return the folder of a group; of one that lies elsewhere, that of the highest seen."""
    if top != "/":
        if group != top and not group.startswith(top + "/"):
            return mounted
        group = group[len(top) :]
    parts = [part for part in group.split("/") if part]
    return mounted if ".." in parts else mounted.joinpath(*parts)
