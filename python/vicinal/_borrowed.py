"""Whether an index can read vectors in memory of the caller, or has to copy them."""

from __future__ import annotations

import mmap
import reprlib
from typing import Any

import numpy as np

from vicinal._cpu import native
from vicinal._residence import ALWAYS_FITS, free_memory
from vicinal._validate import Array

# Answers of native.index_must_copy
_REASONS = {
    1: "the index has, or had, other vectors",
    2: 'metric "cosine" stores float vectors at unit length',
    3: "vectors of {bytes} bytes are stored with gaps, those of less than {packed} or of a "
    "multiple of 64 are not",
    4: "with keep_vectors=False only codes are stored",
}


def copy_mode(copy: object) -> bool | None:
    """Return True, None or False of the argument `copy`; TypeError for anything else."""
    if copy is None or isinstance(copy, (bool, np.bool_)):
        return None if copy is None else bool(copy)
    raise TypeError(f"copy: expected True, None or False, got {reprlib.repr(copy)}")


def can_borrow(copy: bool | None, handle: Any, data: object, rows: Array) -> bool:
    """Tell whether vectors that are to be added can stay where they are.

    Parameters
    ----------
    copy : bool or None
        As `copy_mode` returns it.
    handle : object
        The native index; no other writer may be at work.
    data : object
        The vectors as the caller gave them.
    rows : ndarray of shape (n, dim)
        The same as `_validate.as_rows` returned them.

    Raises
    ------
    ValueError
        If `copy` is False and they have to be copied, naming the reason.
    """
    if copy is True or not len(rows):
        return False
    reason = _reason_to_copy(handle, data, rows)
    if reason is not None and copy is False:
        raise ValueError(f"copy: expected True or None, got False: {reason}")
    return reason is None


def shared_map(array: object) -> mmap.mmap | None:
    """Return the shared mapping of a file that an array lies in, if it does.

    Only then may its pages be let go: in a private mapping what was written to them would be lost.
    """
    mode = None
    owner: Any = array
    while isinstance(owner, np.ndarray):
        if isinstance(owner, np.memmap):
            mode = owner.mode
        owner = owner.base
    return owner if isinstance(owner, mmap.mmap) and mode in ("r", "r+", "w+") else None


def on_disk(array: Array) -> bool:
    """Tell whether an array lies in a shared map of a file and takes half of the free memory."""
    if array.nbytes <= ALWAYS_FITS or shared_map(array) is None:
        return False
    return 2 * array.nbytes > free_memory()


def _reason_to_copy(handle: Any, data: object, rows: Array) -> str | None:
    if not isinstance(data, np.ndarray):
        return f"vectors are not a NumPy array but {type(data).__name__}"
    if not np.may_share_memory(rows, data):  # by the bounds: rows are all of data or none of it
        if not data.flags.c_contiguous:
            return "vectors are not C-contiguous"
        if not data.flags.aligned:
            return "vectors are not aligned to the size of their items"
        return f"vectors are of dtype {data.dtype.str} and stored as {rows.dtype.str}"
    reason = _REASONS.get(native.index_must_copy(handle))
    if reason is None:
        return None
    packed = 256 if rows.dtype.itemsize > 1 else 64
    return reason.format(bytes=rows.shape[1] * rows.dtype.itemsize, packed=packed)
