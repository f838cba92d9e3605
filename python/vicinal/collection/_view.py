"""The vectors of one moment: the saved index, mapped, and what has changed since, in memory."""

from __future__ import annotations

import os
import sqlite3
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vicinal import _kinds, _validate
from vicinal._cpu import native
from vicinal._kept_filter import Filter
from vicinal.collection._database import State, state_of
from vicinal.errors import CorruptError
from vicinal.index import Index
from vicinal.opening import open

__all__ = ["View", "flat_index", "new_index", "rows_at"]

Rows = NDArray[np.int64]
_BATCH = 4096


def new_index(parameters: dict[str, Any]) -> Index:
    """Return an empty index of a collection's parameters."""
    return Index(**parameters)


def flat_index(parameters: dict[str, Any]) -> Index:
    """Return an empty index that is searched by scans however many rows it has.

    Rows are added at the speed of copying; a collection is saved anew before scans get slow.
    """
    metric, dtype = parameters["metric"], parameters["dtype"]
    handle = native.index_new(
        *_kinds.native_codes(metric, dtype),
        _kinds.packed_dim(parameters["dim"], dtype),
        16,
        200,
        0,
        _validate.MAX_COUNT,
        _kinds.quantization_code(None, metric, dtype),
    )
    index = Index.__new__(Index)
    index._adopt(handle)
    return index


def rows_at(
    connection: sqlite3.Connection, after: int, parameters: dict[str, Any]
) -> tuple[Rows, Rows, NDArray[Any]]:
    """Return what is pending since a change: rows that are gone, rows that have new vectors, these.

    Raises
    ------
    CorruptError
        If a vector has another length than the collection's.
    """
    gone: list[int] = []
    rows: list[int] = []
    blobs: list[bytes] = []
    for row, blob in connection.execute(
        "SELECT row, vector FROM pending WHERE seq > ? ORDER BY row", (after,)
    ):
        if blob is None:
            gone.append(row)
        else:
            rows.append(row)
            blobs.append(blob)
    dtype = _kinds.STORED_DTYPES[parameters["dtype"]]
    items = _kinds.row_items(parameters)
    size = items * dtype.itemsize
    if any(len(blob) != size for blob in blobs):
        raise CorruptError(f"documents.sqlite: expected vectors of {size} bytes")
    vectors = np.frombuffer(b"".join(blobs), dtype=dtype).reshape(-1, items)
    return np.array(gone, np.int64), np.array(rows, np.int64), vectors


class View:
    """What searches see; one thread at a time may `advance` it, while none searches."""

    def __init__(self, folder: str, parameters: dict[str, Any]) -> None:
        self._folder = folder
        self._parameters = parameters
        self.state = State(-1, "", 0)
        self._base: Index | None = None
        self._delta = flat_index(parameters)
        # rows of the saved index that are gone or have other vectors by now
        self._stale = np.empty(0, np.int64)

    def __len__(self) -> int:
        return self._base_len() - len(self._stale) + len(self._delta)

    def _base_len(self) -> int:
        return 0 if self._base is None else len(self._base)

    @property
    def pending(self) -> int:
        """Rows in memory and rows of the file that do not count any more."""
        return len(self._stale) + len(self._delta)

    # ---- following

    def advance(self, connection: sqlite3.Connection) -> None:
        """Take in what has changed up to the moment that a transaction sees.

        Raises
        ------
        FileNotFoundError
            If the saved index of that moment is gone: there is a later moment by now.
        """
        state = state_of(connection)
        before, self.state = self.state.seq, State(-1, "", 0)  # if it stops half-way
        if self._file != state.file or before < 0:
            self._load(state.file)
            before = -1
        gone, rows, vectors = rows_at(connection, before, self._parameters)
        changed = np.union1d(gone, rows)
        if self._base is not None and len(changed):
            known = changed[self._base._find_rows(changed) >= 0]
            self._stale = np.union1d(self._stale, known)
        if len(gone):
            self._delta.remove(gone, missing="ignore")
        if len(rows):
            self._delta.add(vectors, rows, on_conflict="update")
        self.state = state

    _file: str | None = ""

    def _load(self, file: str | None) -> None:
        self._file = ""
        self._base = None if file is None else open(os.path.join(self._folder, file))
        base = self._base
        if base is not None and (base.dim, base.metric, base.dtype) != tuple(
            self._parameters[name] for name in ("dim", "metric", "dtype")
        ):
            raise CorruptError(f"{file}: it is an index of another collection")
        self._delta = flat_index(self._parameters)
        self._stale = np.empty(0, np.int64)
        self._file = file

    # ---- reading

    def prepared(self, rows: Rows) -> Filter | None:
        """Return what allows those of sorted rows that still count in the saved index."""
        if self._base is None:
            return None
        return self._base.filter(np.setdiff1d(rows, self._stale, assume_unique=True))

    def search(
        self,
        queries: NDArray[Any],
        k: int,
        ef_search: int | None,
        num_threads: int | None,
        rows: Rows | None = None,
        base_rows: Filter | None = None,
        exact: bool | None = None,
    ) -> list[tuple[Rows, NDArray[np.float32]]]:
        """Return rows and distances for each of (n, dim) queries, nearest first.

        `rows` are those allowed, sorted, and `base_rows` what `prepared` makes of them. `exact`
        scans the saved index too.
        """
        k = min(k, len(self) if rows is None else len(rows))
        if k <= 0 or not len(queries):
            nothing = (np.empty(0, np.int64), np.empty(0, np.float32))
            # also who finds nothing learns what is wrong with a query
            self._delta.search(queries, 1, num_threads=num_threads)
            return [nothing for _ in queries]
        ids, distances = self._delta.search(
            queries, max(1, min(k, len(self._delta))), filter=rows, num_threads=num_threads
        )
        parts = [(ids, distances)]
        if self._base is not None:
            parts.append(self._search_base(queries, k, ef_search, num_threads, base_rows, exact))
        ids = np.concatenate([part[0] for part in parts], axis=1)
        distances = np.concatenate([part[1] for part in parts], axis=1)
        found = []
        for line, far in zip(ids, distances, strict=True):
            there = line >= 0
            line, far = line[there], far[there]
            order = np.lexsort((line, far))[:k]
            found.append((line[order], far[order]))
        return found

    def _search_base(
        self,
        queries: NDArray[Any],
        k: int,
        ef_search: int | None,
        num_threads: int | None,
        allowed: Filter | None,
        exact: bool | None,
    ) -> tuple[Rows, NDArray[np.float32]]:
        """Search the saved index; rows that do not count any more are -1 in the answer."""
        assert self._base is not None
        width = {"exact": True} if exact else {"ef_search": ef_search}
        how: dict[str, Any] = {**width, "num_threads": num_threads}
        if allowed is not None:
            found = self._base.search(queries, k, filter=allowed, **how)
            return found.ids, found.distances
        count = self._base_len()
        more = min(len(self._stale), k)
        found = self._base.search(queries, max(1, min(k + more, count)), **how)
        if not more:
            return found.ids, found.distances
        stale = np.isin(found.ids, self._stale)
        wanted = min(k, count - len(self._stale))
        if ((~stale & (found.ids >= 0)).sum(axis=1) >= wanted).all():
            return np.where(stale, -1, found.ids), found.distances
        found = self._base.search(queries, k, exclude=self._stale, **how)
        return found.ids, found.distances

    def within(
        self,
        query: NDArray[Any],
        radius: float,
        ef_search: int | None,
        rows: Rows | None = None,
        base_rows: Filter | None = None,
    ) -> tuple[Rows, NDArray[np.float32]]:
        """Return rows within a distance of a query of shape (dim,), nearest first."""
        found = self._delta.range_search(query, radius, filter=rows)
        ids, distances = found.ids, found.distances
        if self._base is not None:
            saved = self._base.range_search(query, radius, ef_search=ef_search, filter=base_rows)
            counts = ~np.isin(saved.ids, self._stale)
            ids = np.concatenate([ids, saved.ids[counts]])
            distances = np.concatenate([distances, saved.distances[counts]])
        order = np.lexsort((ids, distances))
        return ids[order], distances[order]

    @property
    def base(self) -> Index | None:
        """The saved index; some of its rows may not count any more."""
        return self._base

    def vectors(self, rows: Rows) -> list[NDArray[Any] | None]:
        """Return the stored vectors of rows, None for those that have none."""
        found: list[NDArray[Any] | None] = [None] * len(rows)
        later = self._delta._find_rows(rows) >= 0
        parts = [(self._delta, np.flatnonzero(later))]
        if self._base is not None:
            saved = ~later & (self._base._find_rows(rows) >= 0) & ~np.isin(rows, self._stale)
            parts.append((self._base, np.flatnonzero(saved)))
        for index, places in parts:
            if len(places):
                for place, vector in zip(places.tolist(), index.get(rows[places]), strict=True):
                    found[place] = vector
        return found
