"""Keeping an index: files, copies and pickles."""

from __future__ import annotations

import copy
import os
import reprlib
import tempfile
from typing import IO, TYPE_CHECKING, Any

from vicinal import storage
from vicinal._cpu import native
from vicinal._state import PathLike, State

if TYPE_CHECKING:
    from typing_extensions import Self


def _nameless_file() -> IO[bytes]:
    """Return an empty file in memory, or where the system has none on the disk, without a name."""
    try:
        return os.fdopen(os.memfd_create("vicinal"), "w+b")
    except OSError:
        return tempfile.TemporaryFile(prefix="vicinal-")


Attributes = dict[str, Any] | tuple[dict[str, Any] | None, dict[str, Any]] | None


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


_OURS = (*State.__slots__, "__dict__")


class Keeping(State):
    """The methods that write an index down."""

    __slots__ = ()

    def save(self, path: PathLike) -> None:
        """Write the index to one file, which replaces a file of that name only once it is whole.

        Parameters
        ----------
        path : str or path-like
            May be the file that this index was opened from.

        Raises
        ------
        OSError
            If the system refuses; an old file is untouched then and no other is left behind.
        CorruptError
            If this index is a mapped file that does not have as many rows as it says.

        Notes
        -----
        The file holds everything, `ef_search` included, and is on the disk when the call returns.
        Threads: a writer like `add`; searches go on meanwhile.

        Examples
        --------
        >>> import tempfile, vicinal
        >>> index = vicinal.Index(2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     index.save(f"{folder}/small.vicinal")
        ...     vicinal.open(f"{folder}/small.vicinal")
        vicinal.Index(dim=2, metric='l2', dtype='float32', M=16, ef_construction=200, seed=0) \
with 0 rows, read-only
        """
        self._need_right_counts()
        with self._writing.held():
            storage.call(
                lambda name, status: native.index_save(self._handle, name, self._ef_search, status),
                path,
            )

    def copy(self) -> Self:
        """Return an independent copy in memory that can be changed, also of a read-only index.

        The copy holds everything that `save` writes; it takes memory for two copies while it is
        made. `copy.copy` does the same; so does `copy.deepcopy`, but that it copies deeply what a
        subclass has added. Attributes of a subclass go with pickles, too.

        Raises
        ------
        OSError
            If the system refuses, for instance because memory is out.
        CorruptError
            If this index is a mapped file that contradicts itself, as `open` with mode="copy".

        Notes
        -----
        Threads: a writer like `add`; searches go on meanwhile.
        """
        new = self._copy()
        new._take_on(own_attributes(self))
        return new

    def _copy(self) -> Self:
        with _nameless_file() as file:
            self._write(file)
            return self._open(file.fileno(), "copy", False)

    def _take_on(self, attributes: Attributes) -> None:
        """Set what a subclass has added."""
        for part in attributes if isinstance(attributes, tuple) else (attributes,):
            for name, value in (part or {}).items():
                setattr(self, name, value)

    def __copy__(self) -> Self:
        return self.copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        new = memo[id(self)] = self._copy()
        new._take_on(copy.deepcopy(own_attributes(self), memo))
        return new

    def __reduce__(self) -> tuple[Any, ...]:
        # A pickle holds the bytes of a file, so there is one format to check and to keep readable.
        with _nameless_file() as file:
            self._write(file)
            file.seek(0)
            data = file.read()
        attributes = own_attributes(self)
        made = (type(self)._from_bytes, (data,))
        return made if attributes is None else (*made, attributes)

    @classmethod
    def _from_bytes(cls, data: bytes) -> Self:
        """Make a writable index of the bytes of a file; what unpickling calls."""
        with _nameless_file() as file:
            file.write(data)
            file.flush()
            return cls._open(file.fileno(), "copy", False)

    def _write(self, file: IO[bytes]) -> None:
        """Save into an open file that is empty."""
        self._need_right_counts()
        with self._writing.held():
            storage.call(
                lambda _, status: native.index_write(
                    self._handle, file.fileno(), self._ef_search, status
                ),
                "",
            )

    @classmethod
    def _open(cls, path: PathLike | int, mode: str, verify: bool) -> Self:
        """Open a file; `vicinal.open` says what the arguments are. Ours may have no name."""
        if mode not in ("r", "copy"):
            raise ValueError(f"mode: expected 'r' or 'copy', got {reprlib.repr(mode)}")
        file = path if isinstance(path, int) else None  # its descriptor
        named = "" if isinstance(path, int) else path
        index = cls.__new__(cls)
        index._adopt(
            storage.call(
                lambda name, status: native.index_open(
                    name if file is None else file, mode == "copy", bool(verify), status
                ),
                named,
            ),
            named,
        )
        return index
