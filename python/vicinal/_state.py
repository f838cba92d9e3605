"""What every operation on an index shares: the native index and what is known about it.

Ids have two forms. *External* ids are the caller's. *Internal* ids are the int64 that the native
index knows rows by: the same numbers where ids are integers, numbers of strings where ids are
strings. Whoever takes ids from a caller or gives them back converts them with the methods here.
"""

from __future__ import annotations

import os
import reprlib
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vicinal import _file_status, _info, _kinds, _scale, _validate
from vicinal._combining import Combiner
from vicinal._cpu import native
from vicinal._promises import Promises
from vicinal._query_sample import QuerySample
from vicinal._string_ids import StringIds, as_strings
from vicinal._writer_lock import WriterLock
from vicinal.result import of_metric

PathLike = str | bytes | os.PathLike[str] | os.PathLike[bytes]

EF_SEARCH = 64  # the width of searches that give none
# So wide a search is a scan of all rows: exact whatever the size of the index.
EXHAUSTIVE = _validate.MAX_COUNT
# Success, and the ids are string numbers. A status value, so that integer ids need no extra check.
STRING_NUMBERS = -3

_COUNT = _info.COUNT

# All indexes of this process by their `id`: after a fork the child releases what searches of
# threads that exist in the parent only have pinned.
_indexes: weakref.WeakValueDictionary[int, State] = weakref.WeakValueDictionary()


def _after_fork() -> None:
    for index in list(_indexes.values()):
        native.index_forked(index._handle)
        index._combiner = Combiner()  # those who waited stayed behind


os.register_at_fork(after_in_child=_after_fork)


class State:
    """The attributes of an index; `Index` adds the methods."""

    __slots__ = (
        "_M",
        "__weakref__",
        "_attributes",
        "_by_path",
        "_combiner",
        "_compactions",
        "_dim",
        "_dtype",
        "_ef_construction",
        "_ef_search",
        "_handle",
        "_kept_queries",
        "_log",
        "_metric",
        "_origin",
        "_path",
        "_promises",
        "_query_dtype",
        "_query_shape",
        "_read_only",
        "_resident",
        "_result",
        "_scale",
        "_seed",
        "_strings",
        "_tuned_widths",
        "_writer_lock",
    )

    def _adopt(self, handle: Any, path: PathLike = "") -> None:
        """Take over a native index, opened from `path` if that is given."""
        self._handle = handle
        self._dim = _info.number(handle, _info.DIM)
        self._metric, self._dtype = _kinds.names_of(
            _info.number(handle, _info.METRIC), _info.number(handle, _info.DTYPE)
        )
        self._M = _info.number(handle, _info.M)
        self._ef_construction = _info.number(handle, _info.EF_CONSTRUCTION)
        self._seed = _info.number(handle, _info.SEED)
        self._read_only = bool(_info.number(handle, _info.READ_ONLY))
        self._ef_search = _info.number(handle, _info.EF_SEARCH) or EF_SEARCH
        self._path = path
        self._resident = "all"
        self._query_dtype: np.dtype[Any] | None = _kinds.query_dtype(self._dtype)
        self._query_shape = (self._dim,)
        self._attributes = native.index_attributes(handle)  # as files have them, unread
        # what a stored whole number is worth; see _scale.py
        self._scale = _scale.of_text(self._attributes, self._dtype, os.fsdecode(path))
        self._result = of_metric(self._metric, 8 * self._dim)
        self._strings = StringIds.of(handle, path)
        self._promises = Promises()
        kept = native.index_kept_queries(handle)
        self._keep(QuerySample.of_bytes(kept, self._dim, self._query_dtype) if kept else None)
        # search widths by (recall, k), as far as they were asked for; see _tuning.py
        self._tuned_widths: dict[tuple[float, int], int] = {}
        # with pickle="path" the fingerprint of the file
        self._by_path: str | None = None
        # of a living file: what takes note of changes; see `vicinal.living`
        self._log: Any = None
        # the file that has the same content, and what it was; see `_identity`
        self._origin: tuple[str, os.stat_result] | None = None
        self._writer_lock = WriterLock()
        self._combiner = Combiner()
        self._compactions = 0
        _indexes[id(self)] = self

    def _keep(self, sample: QuerySample | None) -> None:
        """Hand queries over to a sample from now on, or to none."""
        self._kept_queries = sample
        # No array has a dtype of None: then every search goes the way on which queries are kept, or
        # distances multiplied.
        plain = sample is None and _scale.without_loss(self)
        self._query_dtype = _kinds.query_dtype(self._dtype) if plain else None

    def __len__(self) -> int:
        return native.index_info(self._handle, _COUNT)

    def __contains__(self, id: object) -> bool:
        if self._strings is not None:
            if not isinstance(id, str):
                raise TypeError(f"id: expected a string, got {reprlib.repr(id)}")
            return bool(self._find_rows(self._to_internal([id])[0])[0] >= 0)
        number = _validate.as_id(id)
        return number is not None and self._find_rows(np.array([number], dtype=np.int64))[0] >= 0

    def _changes(self) -> int:
        """Return how many changes have taken effect."""
        return _info.number(self._handle, _info.CHANGES)

    def _moment(self) -> tuple[int, int]:
        """Return what is equal as long as the same ids are there in the same order."""
        return self._compactions, self._changes()

    def _require_writable(self) -> None:
        """Refuse a change of an index opened with mode="r"."""
        if self._read_only:
            raise ValueError(
                'index: expected a writable one, got one opened with mode="r"; '
                'vicinal.open(path, mode="copy") gives a private copy to change'
            )

    def _check_counts(self) -> None:
        """Compare the counts of a mapped file with its tombstones; reads all rows once.

        Whoever relies on `len` being the number of rows that are there calls it first.

        Raises
        ------
        CorruptError
            If it contradicts itself.
        """
        if self._read_only:  # what can be changed was compared when it was opened
            _file_status.call(
                lambda _, status: native.index_compare_counts(self._handle, status), self._path
            )

    # ---- ids

    def _internal_ids(self) -> NDArray[np.int64]:
        """Return the internal ids of all rows in their order."""
        self._check_counts()
        return np.frombuffer(native.index_ids(self._handle), dtype=np.int64)

    def _find_rows(self, internal: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the row number of each internal id, -1 for unknown ones."""
        # the native code reads and changes its table of ids with the GIL held only
        rows = np.empty(len(internal), dtype=np.int64)
        native.index_rows(self._handle, internal, rows)
        return rows

    def _to_internal(
        self, ids: ArrayLike, name: str = "ids"
    ) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """Return ids of a caller as internal ones, and as they were given, for messages.

        A string that is not there is -1, which no row has. The shape is that of `ids`.
        """
        if self._strings is None:
            numbers = _validate.as_ids(ids, name)
            return numbers, numbers
        strings = as_strings(ids, name)
        return self._strings.to_numbers(strings), strings

    def _to_external(self, internal: NDArray[np.int64]) -> NDArray[Any]:
        """Return internal ids as the caller knows them, None for the string id of no row."""
        return internal if self._strings is None else self._strings.to_strings(internal)

    @contextmanager
    def _allocate_internal(self, ids: NDArray[Any] | None) -> Iterator[NDArray[np.int64] | None]:
        """Yield internal ids for new rows, to a block that adds them; None: automatic ones."""
        if self._strings is None or ids is None:
            yield ids
        else:
            with self._strings.allocate(ids, self._changes) as numbers:
                yield numbers
