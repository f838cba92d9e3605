"""One part of a build: its rows are linked as if there were no others."""

from __future__ import annotations

import contextlib
import hashlib
import os
from typing import Any

import numpy as np

from vicinal import _info, _validate
from vicinal._borrowed import can_borrow
from vicinal._cpu import native
from vicinal._progress import Report, reporting
from vicinal.parts import _sizes
from vicinal.parts._file import ArrayFile, write_arrays
from vicinal.parts._plan import FORMAT, Plan
from vicinal.parts._rows import RowsFile, new_index
from vicinal.vectors_io._source import Array

__all__ = ["build_part", "is_built", "linked_alone", "links_of", "part_digest"]

_EMPTY = np.uint32(0xFFFFFFFF)


def part_digest(plan: Plan, part: int) -> str:
    """Return the digest of what a part is made of."""
    return hashlib.sha256(f"{FORMAT} {plan.digest} {part}".encode()).hexdigest()


def is_built(plan: Plan, part: int) -> bool:
    """Tell whether the file of a part is there, whole, and of this plan."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        return bool(ArrayFile(plan.part_path(part)).header["digest"] == part_digest(plan, part))
    return False


def build_part(
    plan: str | os.PathLike[str],
    part: int,
    *,
    num_threads: int | None = 1,
    progress: bool | Report | None = None,
) -> str:
    """Link the rows of one part and write their links; the file appears once it is whole.

    Reads the plan and the rows, shares nothing with other parts, and may run anywhere and any
    number of times: the same plan gives the same bytes. A part that is there is not built again.

    Parameters
    ----------
    plan : str or path-like
        The path that `plan` returned.
    part : int
        0 to parts - 1.
    num_threads : int, optional
        Threads; None: as many as `get_num_threads` tells.
    progress
        As for `Index.add`.

    Returns
    -------
    str
        The path of the part.

    Raises
    ------
    OSError, FormatError
        If the plan or the rows cannot be read, or the part cannot be written.
    ValueError
        If there is no such part.
    """
    known = Plan(plan)
    number = _validate.whole_number(part, "part", 0, known.parts - 1)
    threads = _validate.thread_count(num_threads)
    path = known.part_path(number)
    if is_built(known, number):
        return path
    members = known.members(number)
    rows = RowsFile(known.rows_path()).take(members)
    width = _sizes.part_width(known.parameters["ef_construction"], known.parts)
    index = new_index({**known.parameters, "ids": "int64", "ef_construction": width}, 2)
    with reporting(progress, len(members)) as report:
        links = linked_alone(index._handle, rows, members, threads, report)
    header = {"kind": "part", "format": FORMAT, "part": number}
    header["digest"] = part_digest(known, number)
    write_arrays(path, header, {"rows": members, "links": links})
    return path


def linked_alone(
    handle: Any, rows: Array, members: Array, threads: int, progress: Report | None
) -> Array:
    """Add rows to an empty native index and return their links as rows of the whole.

    Parameters
    ----------
    rows : ndarray
        The rows, as `StoredRows.take` returned them.
    members : ndarray of uint32
        Their numbers in the whole.
    """
    room = np.empty(len(rows), np.int64)
    lent = int(can_borrow(None, handle, rows, rows))
    status = native.index_add(handle, rows, room, False, False, threads, progress, lent, None, room)
    if status:
        raise RuntimeError(f"part: row {members[status // 8]} could not be added")
    links = links_of(handle)
    _number_anew(links, members)
    return links


def links_of(handle: Any) -> Array:
    """Return the links of an index on level 0, shape (rows, slots); empty slots are 2**32 - 1."""
    M, count = _info.number(handle, _info.M), _info.number(handle, _info.COUNT)
    width = (2 * ((M + 7) // 8 * 8) + 15) // 16 * 16
    if not _info.number(handle, _info.IN_GRAPH):
        return np.full((count, width), _EMPTY)
    links = np.empty((count, width), np.uint32)
    native.index_links(handle, links)
    return links


def _number_anew(links: Array, members: Array) -> None:
    """Replace numbers of rows within the part by those of the index, a block at a time."""
    names = np.append(members, _EMPTY)
    for start in range(0, len(links), 4096):
        block = links[start : start + 4096]
        np.minimum(block, len(members), out=block)
        block[:] = names[block]
