"""Many rows that are the first of an index in memory: linked in parts by threads, then joined.

What a file is built by, without files: rows and lists of links stay in memory. The index gets the
new graph whole, by one assignment, as after `compact`; until then, and after an error, it is empty.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vicinal import _info, _storage
from vicinal._cpu import native
from vicinal._progress import Report
from vicinal.parts import _sizes
from vicinal.parts._build import Share, in_threads
from vicinal.parts._part import linked_alone
from vicinal.parts._plan import assign
from vicinal.parts._rows import NEVER, HeldRows

if TYPE_CHECKING:
    from vicinal._state import State

__all__ = ["add_at_once", "comes_first"]

_METRICS = ("l2", "ip", "cosine", "hamming")


def comes_first(index: State, rows: int) -> bool:
    """Tell whether so many rows, the first of an index, are linked in parts.

    Where strings name rows, a living file takes note, codes are all there is, or the metric is one
    that clusters were not measured for, they are not.
    """
    handle = index._handle
    return (
        not _sizes.is_one_piece(rows)
        and _info.number(handle, _info.COUNT) == 0
        and index._moment() == (0, 0)
        and not index._path
        and index._strings is None
        and index._log is None
        and index._metric in _METRICS
        and _storage.alone(handle) is None
        and _info.number(handle, _info.WALK_DIM) == 0
        and _info.number(handle, _info.EXACT_BELOW) == native.exact_below()
    )


def add_at_once(
    index: State,
    rows: NDArray[Any],
    internal: NDArray[np.int64],
    given: bool,
    threads: int,
    report: Report | None,
) -> int:
    """Add rows to an index of which `comes_first` is true; the caller holds the writer's lock.

    Parameters
    ----------
    rows : ndarray
        In the stored dtype, C-contiguous.
    internal : ndarray of int64
        Ids, or with `given` False room for them.

    Returns
    -------
    int
        0, or what `native.index_add` says of a row or an id; then the index is as it was.
    """
    whole = _like(index, NEVER, index._ef_construction)
    status = native.index_add(whole, rows, internal, given, False, threads, None, 0, None, internal)
    if status:
        return status
    stored = HeldRows(whole, internal)
    parts = _sizes.parts_of_rows(len(rows))
    starts, members = assign(stored, parts, index._seed)
    sizes = np.diff(starts)
    width = _sizes.part_width(index._ef_construction, len(sizes))
    rows_of: list[Any] = [None] * len(sizes)
    links: list[Any] = [None] * len(sizes)

    def task(part: int, look: Report | None) -> None:
        mine = members[starts[part] : starts[part + 1]]
        handle = _like(index, 2, width)
        rows_of[part] = mine
        links[part] = linked_alone(handle, stored.take(mine), mine, 1, look)

    share = Share(sizes, len(rows), report)
    order = sorted(range(len(sizes)), key=lambda part: (-int(sizes[part]), part))
    if threads == 1:
        for part in order:
            task(part, None)
            share.add(part)
    else:
        in_threads(task, order, threads, share)
    below = native.exact_below()
    native.index_join(whole, tuple(rows_of), tuple(links), None, threads, None, below, False)
    # as in `compact`: changes are counted anew
    index._compactions += 1
    index._handle = whole
    index._compactions += 1
    if report is not None:
        report(len(rows), len(rows))
    return 0


def _like(index: State, exact_below: int, ef_construction: int) -> Any:
    """Return a native index with the parameters of another."""
    handle = index._handle
    return native.index_new(
        _info.number(handle, _info.METRIC),
        _info.number(handle, _info.DTYPE),
        _info.number(handle, _info.DIM),
        index._M,
        ef_construction,
        index._seed,
        exact_below,
        _info.number(handle, _info.QUANTIZATION),
    )
