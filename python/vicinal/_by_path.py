"""Pickles that hold the path of a file and its fingerprint, not the bytes of an index."""

from __future__ import annotations

import os
import reprlib
from typing import Any, TypeVar

from vicinal import _identity, _persistence
from vicinal._state import PathLike, State
from vicinal.errors import ConflictError

__all__ = ["opened", "reduced", "reopened"]

Index = TypeVar("Index", bound=State)

_TRIES = 100


def opened(
    kind: type[Index], path: PathLike, mode: str, verify: bool, resident: str, pickle: object
) -> Index:
    """Open a file as an index whose pickles hold its path; see `vicinal.open`."""
    if pickle != "path":
        raise ValueError(f"pickle: expected 'bytes' or 'path', got {reprlib.repr(pickle)}")
    if mode != "r":
        raise ValueError(f"mode: expected 'r' with pickle=\"path\", got {reprlib.repr(mode)}")
    path = os.path.abspath(os.fsdecode(path))
    for _ in range(_TRIES):  # a writer may replace the file between two looks at it
        before = _identity.fingerprint(path)
        index = _persistence.open_index(kind, path, mode, verify, resident)
        if _identity.fingerprint(path) == before:
            break
    index._by_path = before
    return index


def reduced(index: State) -> tuple[Any, ...]:
    """Return what a pickle of such an index holds."""
    about = (type(index), os.fsdecode(index._path), index._by_path, index._resident)
    made = (reopened, (*about, index._ef_search))
    attributes = _persistence.own_attributes(index)
    return made if attributes is None else (*made, attributes)


def reopened(
    kind: type[Index], path: str, fingerprint: str, resident: str, ef_search: int
) -> Index:
    """Open the file of a pickle.

    Raises
    ------
    OSError
        If it cannot be read here.
    ConflictError
        If it is not the file that was pickled.
    """
    index = opened(kind, path, "r", False, "auto" if resident == "all" else resident, "path")
    if index._by_path != fingerprint:
        raise ConflictError(
            f"{path}: not the file that it was when the index was pickled; pickle one of the "
            'present file, or without pickle="path"'
        )
    index._ef_search = ef_search
    return index
