"""The collections of a folder, by name; a name is never a path."""

from __future__ import annotations

import os
import re
import reprlib
import threading
from collections.abc import Callable, Sequence
from typing import Any

from vicinal.collection import Collection

__all__ = ["Folder", "Refused"]

# as the HTTP server has them, so that both can serve one folder
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,126}", re.ASCII)
_MOST = 256
_FILE = "documents.sqlite"

Embed = Callable[[Sequence[str]], Any]


class Refused(Exception):
    """What a client is told; holds no path."""


class Folder:
    """A folder of collections, or the folder of one collection, which then is the only one.

    Parameters
    ----------
    path : str or path-like
    read_only : bool
        Open collections to be read only, and make none.
    only : str, optional
        The one collection that there is to be.
    embed : callable, optional
        Turns a list of texts into vectors; as for `vicinal.Collection`.
    analyzer : str, optional
        How texts of new collections become words.

    Raises
    ------
    FileNotFoundError
        If there is no such folder and it is to be read only.
    ValueError
        If `only` cannot be the name of a collection.

    Notes
    -----
    Collections are opened when they are asked for and stay open. Threads: safe.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        read_only: bool = False,
        only: str | None = None,
        embed: Embed | None = None,
        analyzer: str | None = None,
    ) -> None:
        self._path = os.path.abspath(os.fspath(path))
        self.read_only, self.embed, self._analyzer = read_only, embed, analyzer
        if not os.path.isdir(self._path):
            if read_only:
                raise FileNotFoundError(2, "no such folder", self._path)
            os.makedirs(self._path, exist_ok=True)
        self._single: str | None = None
        if os.path.isfile(os.path.join(self._path, _FILE)):
            self._single = os.path.basename(self._path) or "collection"
            if _NAME.fullmatch(self._single) is None:
                self._single = "collection"
            if only not in (None, self._single):
                raise ValueError(
                    f"collection: the folder is that of one collection, {self._single!r}; got "
                    f"{reprlib.repr(only)}"
                )
        if only is not None and _NAME.fullmatch(only) is None:
            raise ValueError(f"collection: expected {_WANTED}, got {reprlib.repr(only)}")
        self.only = only if self._single is None else self._single
        self._open: dict[str, Collection] = {}
        self._guard = threading.Lock()
        self._closed = False

    def names(self) -> list[str]:
        """Return the names of the collections that there are, in order."""
        if self._single is not None:
            return [self._single]
        found = [
            entry.name
            for entry in os.scandir(self._path)
            if _NAME.fullmatch(entry.name) and self._is_there(entry.name)
        ]
        return sorted(name for name in found if self.only in (None, name))

    def name_of(self, given: str | None) -> str:
        """Return the name of a collection; without one that of the only one there is or may be."""
        if given is None and self.only is not None:
            return self.only
        if given is None:
            names = self.names()
            if len(names) != 1:
                raise Refused(
                    f"collection: expected a name, since there are {len(names)} collections"
                )
            return names[0]
        if _NAME.fullmatch(given) is None:
            raise Refused(f"collection: expected {_WANTED}, got {reprlib.repr(given)}")
        if self.only not in (None, given):
            raise Refused(f"collection: only {self.only!r} is served, got {given!r}")
        return given

    def get(self, given: str | None) -> Collection:
        """Return a collection that is there."""
        name = self.name_of(given)
        with self._guard:
            if name not in self._open:
                if self._closed:
                    raise Refused("the server is going down")
                if not self._is_there(name):
                    there = ", ".join(map(repr, self.names()[:20])) or "none"
                    raise Refused(f"collection: {name!r} is not there; there are: {there}")
                self._open[name] = Collection(
                    self._place(name), read_only=self.read_only, embed=self.embed
                )
            return self._open[name]

    def get_or_make(self, given: str | None, dim: int) -> Collection:
        """Return a collection, made for vectors of a dimension if it is not there."""
        name = self.name_of(given)
        with self._guard:
            if name not in self._open and not self._is_there(name):
                if self.read_only:
                    raise Refused("the server is read-only")
                if len(self.names()) >= _MOST:
                    raise Refused(f"collection: expected at most {_MOST} collections")
                self._open[name] = Collection(
                    self._place(name), dim, "cosine", embed=self.embed, analyzer=self._analyzer
                )
        return self.get(name)

    def is_there(self, given: str | None) -> bool:
        """Tell whether there is a collection of a name that may be one."""
        return self._is_there(self.name_of(given))

    def close(self) -> None:
        """Close all collections; what was committed is on the disk."""
        with self._guard:
            self._closed = True
            opened, self._open = self._open, {}
        for collection in opened.values():
            collection.close()

    def clean(self, message: str) -> str:
        """Return a message without the path of the folder."""
        return message.replace(self._path, "the folder")

    def _place(self, name: str) -> str:
        return self._path if name == self._single else os.path.join(self._path, name)

    def _is_there(self, name: str) -> bool:
        return os.path.isfile(os.path.join(self._place(name), _FILE))


_WANTED = "1 to 127 letters, digits, dots, dashes and underscores, the first a letter or digit"
