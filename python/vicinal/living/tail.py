"""What a reader has of one file and its journal: the mapped file, and the changes since in memory.

Rows of the journal are in a small index of their own, each under a key that is its number there. A
row that the file has in an older form, or that was removed, is left out of what the file is asked.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vicinal import _attributes, _identity, _persistence, _storage, _updates, _validate
from vicinal._kept_filter import Filter
from vicinal.errors import CorruptError
from vicinal.index import Index
from vicinal.living import records
from vicinal.living.journal import read_at
from vicinal.living.records import HEADER_BYTES, Change, Header

__all__ = ["Tail", "View"]

READ_BYTES = 1 << 20  # of the journal, between two searches
APPLY_ROWS = 256  # likewise


class View(NamedTuple):
    """What searches see: a state that the writer has flushed. Never changed."""

    base: Index
    gone: Filter | None
    """Rows of the file that are not there any more, or in another form."""
    gone_count: int
    fresh: Index | None
    """Rows of the journal, by key; those from `keys` on are not to be seen yet."""
    dead: Filter | None
    """Keys of rows that were replaced or removed since."""
    keys: int
    names: NDArray[Any]
    """The id of each key; longer than `keys`, maybe."""
    live: dict[Any, int]
    """The key of each id whose row is in the journal."""
    ef_search: int
    attributes: Any


class Tail:
    """Reads the journal of one file, a bounded piece at a time; one thread at a time."""

    def __init__(self, path: str, verify: bool, resident: str) -> None:
        self.path = path
        self.identity = _identity.of_path(path)
        self.base = _persistence.open_index(Index, path, "r", verify, resident)
        base_name = _identity.fingerprint(path)
        self._journal = -1
        self.journal_identity: tuple[int, int] | None = None
        self._header: Header | None = None
        self._skip = 0
        self._open_journal(base_name)
        # a new file comes before its journal: if it is this one still, they belong together
        if _identity.of_path(path) != self.identity:
            raise BlockingIOError(f"{path} was replaced just now")
        self._offset = HEADER_BYTES
        self._buffer = b""  # bytes behind the last whole change
        self._number = 0
        self._size = -1  # of the journal when it was read to its end
        self._synced = 0
        self._changes: list[Change] = []  # whole, not made yet
        self._rows: tuple[NDArray[Any], NDArray[Any], int] | None = None  # of the first, in part
        # made but not shown yet: ids with their keys, or -1 where they are gone
        self._unseen: list[tuple[Any, int]] = []
        self._settings: dict[str, Any] | None = None
        self._fresh: Index | None = None
        self._taken: list[NDArray[Any]] = []  # rows with keys that are not in it yet
        self._keys = 0
        self._names: NDArray[Any] = np.empty(0, object if self._strings else np.int64)
        self._live: dict[Any, int] = {}
        self._gone: dict[Any, None] = {}
        self._dead: list[int] = []
        self.made = 0  # number of the last change that is in `view`
        self.view = View(
            self.base,
            None,
            0,
            None,
            None,
            0,
            self._names,
            {},
            self.base.ef_search,
            _attributes.attributes(self.base),
        )

    def __del__(self) -> None:
        if getattr(self, "_journal", -1) >= 0:
            os.close(self._journal)

    @property
    def _strings(self) -> bool:
        return self.base._strings is not None

    def _open_journal(self, base: str) -> None:
        name = _identity.journal_of(self.path)
        try:
            self._journal = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        about = os.fstat(self._journal)
        self.journal_identity = about.st_dev, about.st_ino
        try:
            header = records.decode_header(read_at(self._journal, HEADER_BYTES, 0), name)
        except CorruptError:
            return  # the file is what there is
        mark = _attributes.mark(self.base)
        if mark is not None and mark[0] == header.id:
            self._header, self._skip = header, mark[1]
        elif header.base == base:
            self._header = header

    def current(self) -> bool:
        """Tell whether file and journal are those that this one reads."""
        if _identity.of_path(self.path) != self.identity:
            return False
        try:
            about = os.stat(self.path + ".journal")
        except FileNotFoundError:
            return self.journal_identity is None
        return (about.st_dev, about.st_ino) == self.journal_identity and (
            about.st_size >= self._offset
        )

    def advance(self, rows: int, size: int) -> bool:
        """Read and make so many rows and bytes at most; True if all that is flushed is seen."""
        if self._header is None:
            return True
        if not self._changes or self._changes[0].number > self._synced:
            self._read(size)
        while self._changes and self._changes[0].number <= self._synced and rows > 0:
            rows -= self._make(rows)
        self._write()
        if self._changes and self._changes[0].number <= self._synced:
            return False
        self._show()
        return self._size == os.fstat(self._journal).st_size

    # ---- reading

    def _read(self, size: int) -> None:
        """Read a piece of the journal, and take whole changes from it."""
        assert self._header is not None
        there = os.fstat(self._journal).st_size
        if there == self._size:
            return
        begin = self._offset + len(self._buffer)
        piece = read_at(self._journal, size, begin)
        data = self._buffer + piece
        found = records.scan(memoryview(data), self._header.salt, self._number, self._offset)
        self._changes += [change for change in found.changes if change.number > self._skip]
        if found.changes:
            self._number = found.changes[-1].number
        self._synced = max(self._synced, found.synced)
        self._buffer = data[found.end - self._offset :]
        self._offset = found.end
        # what is behind the last whole change is read again where the file has not grown
        self._size = there if begin + len(piece) >= there else -1

    # ---- making changes, unseen

    def _make(self, most: int) -> int:
        """Make the first change, or so many of its rows; return what it counts for."""
        assert self._header is not None
        change = self._changes[0]
        if change.kind == records.ROWS:
            if self._rows is None:
                self._rows = (*records.to_rows(change.content, self._header), 0)
            ids, rows, done = self._rows
            end = min(len(ids), done + most)
            self._take(ids[done:end], rows[done:end])
            if end < len(ids):
                self._rows = ids, rows, end
                return end - done
            self._rows = None
            count = end - done
        elif change.kind == records.REMOVED:
            ids, _ = records.to_ids(change.content, self._header.strings)
            self._unseen += [(id, -1) for id in ids.tolist()]
            count = len(ids)
        else:
            self._settings = records.to_settings(change.content)
            count = 1
        self._changes.pop(0)
        return max(count, 1)

    def _take(self, ids: NDArray[Any], rows: NDArray[Any]) -> None:
        """Give rows their keys; `_write` puts all of them into the index at once."""
        end = self._keys + len(ids)
        if end > len(self._names):  # views hold the old one
            names = np.empty(max(2 * len(self._names), end, 256), self._names.dtype)
            names[: self._keys] = self._names[: self._keys]
            self._names = names
        self._names[self._keys : end] = ids
        self._unseen += zip(ids.tolist(), range(self._keys, end), strict=True)
        self._taken.append(rows)
        self._keys = end

    def _write(self) -> None:
        if not self._taken:
            return
        base = self.base
        if self._fresh is None:
            alone = _storage.alone(base._handle)
            self._fresh = Index(
                base.dim,
                base.metric,
                dtype=base.dtype,
                M=base.M,
                ef_construction=base.ef_construction,
                keep_vectors=alone is None,
                quantization=alone or "auto",
                scale=base.scale,
            )
        rows = np.concatenate(self._taken)
        keys = np.arange(self._keys - len(rows), self._keys, dtype=np.int64)
        # a piece between two searches is too small to be shared
        threads = 1 if len(rows) <= APPLY_ROWS else _validate.thread_count(None)
        with self._fresh._writer_lock.held():
            _updates.write_rows(self._fresh, rows, rows, keys, threads, None, replace=True)
        self._taken = []

    # ---- showing them

    def _show(self) -> None:
        """Let the view be what all changes that were made have led to."""
        if not self._unseen and self._settings is None:
            return
        touched: dict[Any, None] = {}
        live, dead = dict(self._live), list(self._dead)
        for id, key in self._unseen:
            before = live.pop(id, None)
            if before is not None:
                dead.append(before)
            if key >= 0:
                live[id] = key
            touched[id] = None
        gone = dict(self._gone)
        if touched:
            asked = self._array(list(touched))
            there = self.base._find_rows(_updates.numbers_of(self.base, asked)) >= 0
            gone.update(dict.fromkeys(asked[there].tolist()))
        view = self.view
        ef_search, attributes = view.ef_search, view.attributes
        if self._settings is not None:
            ef_search = int(self._settings["ef_search"])
            attributes = self._settings["attributes"]
        self.view = View(
            self.base,
            view.gone if len(gone) == view.gone_count else self._gone_filter(gone),
            len(gone),
            self._fresh,
            self._dead_filter(dead),
            self._keys,
            self._names,
            live,
            ef_search,
            attributes,
        )
        self._live, self._gone, self._dead = live, gone, dead
        self._unseen, self._settings = [], None

    def _gone_filter(self, gone: dict[Any, None]) -> Filter:
        return self.base.filter(self._array(list(gone)))

    def _dead_filter(self, dead: list[int]) -> Filter | None:
        if not dead or self._fresh is None:
            return None
        if len(dead) == len(self._dead):
            return self.view.dead
        return self._fresh.filter(np.array(dead, np.int64))

    def _array(self, ids: list[Any]) -> NDArray[Any]:
        if not self._strings:
            return np.array(ids, np.int64)
        names = np.empty(len(ids), object)
        names[:] = ids
        return names
