"""What every part of the index shares: the native index behind it and what is known about it."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vicinal import _validate, storage
from vicinal._cpu import native
from vicinal._string_ids import StringIds, as_strings
from vicinal._writer_lock import WriterLock

PathLike = str | bytes | os.PathLike[str] | os.PathLike[bytes]

EF_SEARCH = 64

# `which` of native.index_info
COUNT, DIM, METRIC, DTYPE, M, EF_CONSTRUCTION, SEED = range(7)
IN_GRAPH, MAX_LEVEL, BYTES, READ_ONLY = range(7, 11)
EXACT_BELOW, EF_SEARCH_SAVED, CODES, QUANTIZATION = range(12, 16)
VECTORS_BYTES, IDS_BYTES, GRAPH_BYTES, CODES_BYTES, REMOVED = range(16, 21)
FILTERED = 21  # the first of those that `stats` names in "filtered"
BORROWED_BYTES = 25
BUILD = 26  # the first of those of `build_stats`
SEARCHES = 39  # the first of those that `stats` names in "searches"
SCRATCH_BYTES, CHANGES = 44, 45


# All indexes of this process by their `id`: after a fork the child lets go of what searches of
# threads that stayed behind have kept.
_indexes: weakref.WeakValueDictionary[int, State] = weakref.WeakValueDictionary()


def _after_fork() -> None:
    for index in list(_indexes.values()):
        native.index_forked(index._handle)


os.register_at_fork(after_in_child=_after_fork)


class State:
    """The attributes of an index; the classes beside this one add its methods."""

    __slots__ = (
        "_M",
        "__weakref__",
        "_dim",
        "_dtype",
        "_ef_construction",
        "_ef_search",
        "_handle",
        "_metric",
        "_path",
        "_query_dtype",
        "_read_only",
        "_seed",
        "_single",
        "_strings",
        "_widths",
        "_writing",
    )

    def _adopt(self, handle: Any, path: PathLike = "") -> None:
        """Take over a native index, opened from `path` if that is given."""
        self._handle = handle
        self._dim = native.index_info(handle, DIM)
        self._metric = _validate.METRICS[native.index_info(handle, METRIC)]
        self._dtype = _validate.DTYPES[native.index_info(handle, DTYPE)]
        self._M = native.index_info(handle, M)
        self._ef_construction = native.index_info(handle, EF_CONSTRUCTION)
        self._seed = native.index_info(handle, SEED)
        self._read_only = bool(native.index_info(handle, READ_ONLY))
        self._ef_search = native.index_info(handle, EF_SEARCH_SAVED) or EF_SEARCH
        self._path = path
        self._query_dtype = _validate.query_dtype(self._dtype)
        self._single = (self._dim,)
        self._strings = StringIds.of(handle, path)
        # search widths by (recall, k), as far as they were asked for; see _quality.py
        self._widths: dict[tuple[float, int], int] = {}
        self._writing = WriterLock()
        _indexes[id(self)] = self

    def _changes(self) -> int:
        """Return how many changes have taken effect."""
        return native.index_info(self._handle, CHANGES)

    def __len__(self) -> int:
        return native.index_info(self._handle, COUNT)

    def _need_right_counts(self) -> None:
        """Compare the counts of a mapped file with its marks; looks once, at all rows.

        Whoever relies on `len` being the number of rows that are there calls it first.

        Raises
        ------
        CorruptError
            If it contradicts itself.
        """
        if self._read_only:  # what can be changed was compared when it was opened
            storage.call(
                lambda _, status: native.index_compare_counts(self._handle, status), self._path
            )

    def _all_ids(self) -> NDArray[np.int64]:
        """Return the ids of all rows in their order as the native code knows them."""
        self._need_right_counts()
        return np.frombuffer(native.index_ids(self._handle), dtype=np.int64)

    def _rows(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the row number of each id, -1 for unknown ones."""
        # the native code reads and changes its table of ids with the GIL held only
        rows = np.empty(len(ids), dtype=np.int64)
        native.index_rows(self._handle, ids, rows)
        return rows

    # Integer ids are what the native code knows; string ids are numbers there. Whoever takes ids
    # from a caller or gives them back goes through the next three.

    def _known(self, ids: ArrayLike, name: str = "ids") -> tuple[NDArray[np.int64], NDArray[Any]]:
        """Return ids as the native code knows them, and as they were given, for messages.

        A string that is not there is -1, which no row has. The shape is that of `ids`.
        """
        if self._strings is None:
            numbers = _validate.as_ids(ids, name)
            return numbers, numbers
        names = as_strings(ids, name)
        return self._strings.to_numbers(names), names

    def _named(self, numbers: NDArray[np.int64]) -> NDArray[Any]:
        """Return ids that came from the native code as the caller knows them, None for none."""
        return numbers if self._strings is None else self._strings.to_strings(numbers)

    @contextmanager
    def _numbered(self, ids: NDArray[Any] | None) -> Iterator[NDArray[np.int64] | None]:
        """Yield new ids as the native code is to know them, to a block that adds their rows."""
        if self._strings is None or ids is None:
            yield ids
        else:
            with self._strings.taken(ids, self._changes) as numbers:
                yield numbers

    def _must_be_writable(self) -> None:
        """Refuse a change of an index opened with mode="r"."""
        if self._read_only:
            raise ValueError(
                'index: expected a writable one, got one opened with mode="r"; '
                'vicinal.open(path, mode="copy") gives a private copy to change'
            )
