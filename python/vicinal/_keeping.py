"""Keeping an index: files and pickles."""

from __future__ import annotations

import reprlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vicinal import storage
from vicinal._cpu import native
from vicinal._state import PathLike, State

if TYPE_CHECKING:
    from typing_extensions import Self


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
        with self._writing.held():
            storage.call(
                lambda name, status: native.index_save(self._handle, name, self._ef_search, status),
                path,
            )

    def __reduce__(self) -> tuple[Any, ...]:
        # A pickle holds the bytes of a file, so there is one format to check and to keep readable.
        with tempfile.TemporaryDirectory(prefix="vicinal-") as folder:
            path = Path(folder, "index")
            self.save(path)
            return type(self)._from_bytes, (path.read_bytes(),)

    @classmethod
    def _from_bytes(cls, data: bytes) -> Self:
        """Make a writable index of the bytes of a file; what unpickling calls."""
        with tempfile.TemporaryDirectory(prefix="vicinal-") as folder:
            path = Path(folder, "index")
            path.write_bytes(data)
            return cls._open(path, "copy", False)

    @classmethod
    def _open(cls, path: PathLike, mode: str, verify: bool) -> Self:
        """Open a file; `vicinal.open` says what the arguments are."""
        if mode not in ("r", "copy"):
            raise ValueError(f"mode: expected 'r' or 'copy', got {reprlib.repr(mode)}")
        index = cls.__new__(cls)
        index._adopt(
            storage.call(
                lambda name, status: native.index_open(name, mode == "copy", bool(verify), status),
                path,
            ),
            path,
        )
        return index
