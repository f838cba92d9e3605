"""Files, copies and pickles of an index: all three are the bytes of one format."""

from __future__ import annotations

import copy
import os
import reprlib
import tempfile
from typing import IO, Any, TypeVar

import numpy as np

from vicinal import _attributes, _file_status, _identity, _residence
from vicinal._cpu import native
from vicinal._logging import logged
from vicinal._state import PathLike, State

__all__ = [
    "copy_of",
    "deep_copy_of",
    "from_bytes",
    "hand_over",
    "open_index",
    "own_attributes",
    "save",
    "to_bytes",
]

Index = TypeVar("Index", bound=State)
Attributes = dict[str, Any] | tuple[dict[str, Any] | None, dict[str, Any]] | None

_OURS = (*State.__slots__, "__dict__")


@logged
def save(index: State, path: PathLike, force: bool = False) -> None:
    """See `Index.save`."""
    _file_status.path_bytes(path)
    index._check_counts()
    with index._writer_lock.held(), _identity.guarded(index, path, force):
        hand_over(index)
        _file_status.call(
            lambda name, status: native.index_save(index._handle, name, index._ef_search, status),
            path,
        )


@logged
def open_index(
    kind: type[Index], path: PathLike | int, mode: str, verify: bool, resident: str = "auto"
) -> Index:
    """Open a file as an index of a class; see `vicinal.open`. An int is an open descriptor."""
    if mode not in ("r", "copy"):
        raise ValueError(f"mode: expected 'r', 'copy' or 'rw', got {reprlib.repr(mode)}")
    resident = _residence.check(resident, mode)
    descriptor = path if isinstance(path, int) else None
    shown = "" if isinstance(path, int) else path
    found = None
    if not isinstance(path, int):
        _file_status.path_bytes(path)
        found = _identity.look(path)
    index = kind.__new__(kind)
    index._adopt(
        _file_status.call(
            lambda name, status: native.index_open(
                name if descriptor is None else descriptor, mode == "copy", bool(verify), status
            ),
            shown,
        ),
        shown,
    )
    index._origin = found
    if mode == "r":
        index._resident = _residence.keep(index._handle, resident, found)
    return index


def copy_of(index: Index) -> Index:
    """See `Index.copy`."""
    new = _bare_copy(index)
    _set_attributes(new, own_attributes(index))
    return new


def deep_copy_of(index: Index, memo: dict[int, Any]) -> Index:
    """Return what `copy.deepcopy` does."""
    new = memo[id(index)] = _bare_copy(index)
    _set_attributes(new, copy.deepcopy(own_attributes(index), memo))
    return new


def to_bytes(index: State) -> bytes:
    """Return the bytes that `save` would write; what pickling stores."""
    with _nameless_file() as file:
        _write(index, file)
        file.seek(0)
        return file.read()


def from_bytes(kind: type[Index], data: bytes | bytearray | memoryview) -> Index:
    """Make a writable index of the bytes of a file."""
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"data: expected bytes, got {type(data).__name__}")
    with _nameless_file() as file:
        file.write(data)
        file.flush()
        return open_index(kind, file.fileno(), "copy", False)


def own_attributes(index: State) -> Attributes:
    """Return what a subclass has added to an index, as `pickle` takes a state, or None."""
    slots = {}
    for kind in type(index).__mro__:
        names = kind.__dict__.get("__slots__", ())
        for name in (names,) if isinstance(names, str) else names:
            if name.startswith("__") and not name.endswith("__"):
                name = f"_{kind.__name__.lstrip('_')}{name}"
            if name not in _OURS and hasattr(index, name):
                slots[name] = getattr(index, name)
    kept = dict(getattr(index, "__dict__", None) or {}) or None
    return (kept, slots) if slots else kept


def _set_attributes(index: State, attributes: Attributes) -> None:
    """Set what a subclass has added."""
    for part in attributes if isinstance(attributes, tuple) else (attributes,):
        for name, value in (part or {}).items():
            setattr(index, name, value)


def _bare_copy(index: Index) -> Index:
    """Return a copy without what a subclass has added."""
    with _nameless_file() as file:
        _write(index, file)
        return open_index(type(index), file.fileno(), "copy", False)


def _write(index: State, file: IO[bytes]) -> None:
    """Save into an open file that is empty."""
    index._check_counts()
    with index._writer_lock.held():
        hand_over(index)
        _file_status.call(
            lambda _, status: native.index_write(
                index._handle, file.fileno(), index._ef_search, status
            ),
            "",
        )


def hand_over(index: State, mark: tuple[str, int] | None = None) -> None:
    """Give the native index what Python keeps, as files have it; the caller holds the lock."""
    kept = index._kept_queries
    data = np.empty(0, np.uint8) if kept is None else kept.to_bytes()
    native.index_set_kept_queries(index._handle, data)
    _attributes.hand_over(index, mark)


def _nameless_file() -> IO[bytes]:
    """Return an empty file in memory, or where the system has none on the disk, without a name."""
    try:
        return os.fdopen(os.memfd_create("vicinal"), "w+b")
    except OSError:
        return tempfile.TemporaryFile(prefix="vicinal-")
