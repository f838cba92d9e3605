"""Additions that are collected first and linked at once: blocks of `bulk`, and iterators.

What is collected lies in an index of its own that never makes a graph: it checks rows and ids
as any index does, and gives them back in the order in which they came. Nothing is noted in the
index that is to get them, and none of its locks is held: a block that ends in whatever way leaves
nothing behind.
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vicinal import _info, _kinds, _search, _updates, _validate
from vicinal._borrowed import copy_mode
from vicinal._cpu import native
from vicinal._progress import Report
from vicinal._state import State

if TYPE_CHECKING:
    from typing_extensions import Self

    from vicinal.vectors_io import VectorSource

__all__ = ["Bulk", "add_batches"]

_NEVER = 2**62  # rows from which on there is a graph


class Bulk:
    """Rows that are added to an index at the end of a `with` block, by one call; see `Index.bulk`.

    `len` tells how many have been collected. Threads: any number may `add` to one block.
    """

    __slots__ = ("_ids", "_index", "_named", "_on_conflict", "_progress", "_rows", "_threads")

    def __init__(
        self,
        index: State,
        on_conflict: str,
        num_threads: int | None,
        progress: bool | Report | None,
    ) -> None:
        index._require_writable()
        _updates.check_conflict(on_conflict)
        self._index = index
        self._on_conflict = on_conflict
        self._threads = _validate.thread_count(num_threads)
        self._progress = progress
        self._rows: State | None = _without_graph(index)
        self._named: bool | None = None
        self._ids: NDArray[Any] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self._end()
        self._rows = None

    def __len__(self) -> int:
        rows, ids = self._rows, self._ids
        return len(rows) if rows is not None else 0 if ids is None else len(ids)

    def add(self, vectors: ArrayLike | VectorSource, ids: ArrayLike | None = None) -> None:
        """Collect vectors; all of them, or none if anything is wrong with one.

        Parameters
        ----------
        vectors : array_like of shape (n, dim) or (dim,), or VectorSource
            As for `Index.add`; of a source the batches stay that come before one that is refused.
        ids : array_like, optional
            As for `Index.add`, with all calls of a block or with none.

        Raises
        ------
        TypeError, ValueError
            As `Index.add`; also if ids are given after calls without, or the other way round, or an
            id was collected before. The block goes on without these vectors if that is caught.
        RuntimeError
            If the block has ended.
        """
        rows = self._rows
        if rows is None:
            raise RuntimeError("bulk: its block has ended")
        named = ids is not None or bool(getattr(vectors, "has_ids", False))
        if self._named is not None and named != self._named:
            raise ValueError(
                "ids: expected with all calls of the block or with none, got a call "
                f"{'with' if named else 'without'}"
            )
        if self._on_conflict == "error" and ids is not None:
            new = np.atleast_1d(self._index._to_internal(ids)[1])
            there = self._index._find_rows(_updates.numbers_of(self._index, new)) >= 0
            if there.any():
                _updates.refuse_id(new, int(np.argmax(there)))
        _updates.add(rows, vectors, ids, "error", True, self._threads, None)
        self._named = named

    @property
    def ids(self) -> NDArray[Any]:
        """The ids of all vectors that were added, in the order in which they came.

        Raises
        ------
        RuntimeError
            If the block has not ended, or by an exception.
        """
        if self._ids is None:
            raise RuntimeError("bulk: there are no ids until the block has ended well")
        return self._ids

    def _end(self) -> None:
        rows = self._rows
        if rows is None:
            raise RuntimeError("bulk: its block has ended")
        internal = rows._internal_ids()
        vectors, _ = _search.read_vectors(rows, internal)
        named = self._named or self._index._strings is not None
        ids = rows._to_external(internal) if named else None
        self._rows = rows = None  # what was collected is in memory twice, not three times
        self._ids = _updates.add(
            self._index, vectors, ids, self._on_conflict, True, self._threads, self._progress
        )


def add_batches(
    index: State,
    batches: Any,
    ids: ArrayLike | None,
    on_conflict: str,
    copy: bool | None,
    num_threads: int | None,
    progress: bool | Report | None,
) -> NDArray[Any]:
    """Add all batches of an iterator in one call; what `Index.add` does when it is given one."""
    if ids is not None:
        raise ValueError(
            "ids: expected None with an iterator, whose batches are arrays or (vectors, ids)"
        )
    if copy_mode(copy) is False:
        raise ValueError("copy: expected True or None for an iterator, got False")
    with Bulk(index, on_conflict, num_threads, progress) as bulk:
        for number, batch in enumerate(batches):
            vectors, names = batch, None
            if isinstance(batch, tuple):
                if len(batch) != 2:
                    raise ValueError(
                        f"batch {number}: expected (vectors, ids), got {len(batch)} items"
                    )
                vectors, names = batch
            try:
                bulk.add(vectors, names)
            except (TypeError, ValueError) as error:
                kind = TypeError if isinstance(error, TypeError) else ValueError
                raise kind(f"batch {number}: {error}") from error
    return bulk.ids


def _without_graph(index: State) -> State:
    """Return an empty index for the same rows and ids that never makes a graph."""
    from vicinal.index import Index

    handle = native.index_new(
        *_kinds.native_codes(index._metric, index._dtype),
        index._dim,
        index._M,
        index._ef_construction,
        index._seed,
        _NEVER,
        _info.number(index._handle, _info.QUANTIZATION),
    )
    if index._strings is not None:
        native.strings_use(handle)
    rows = Index.__new__(Index)
    rows._adopt(handle)
    rows._scale = index._scale
    return rows
