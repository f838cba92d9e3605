"""Searching by vectors in a moment, behind a filter too: which plan, and hits of what it finds."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vicinal._kept_filter import Filter
from vicinal.collection import _reading
from vicinal.collection._view import View
from vicinal.collection._where import Condition
from vicinal.collection.documents import Hit

__all__ = ["Filters", "hits_by_distance", "hits_of", "search_vectors", "widths"]

Rows = NDArray[np.int64]
Ranked = tuple[Rows, NDArray[np.float32]]
# A filter is first tried on so many of the nearest rows, and then on so many; only where these do
# not have enough of it all documents are looked at. The second takes longer than a search behind a
# filter whose rows are known, and is only done so often before they are asked for.
_TRIES = (64, 512)
_WIDE_TRIES = 2
_KEPT = 32


class Found(NamedTuple):
    """What a filter finds at a moment: all rows, and those of the saved index."""

    seq: int
    rows: Rows
    base_rows: Filter | None


class Filters:
    """Rows of the last filters, kept until something changes."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Condition, Found] = OrderedDict()
        self._tried: OrderedDict[Condition, int] = OrderedDict()
        self._guard = threading.Lock()

    def known(self, where: Condition, seq: int) -> Found | None:
        """Return what a filter finds, if that is known."""
        with self._guard:
            found = self._kept.get(where)
            if found is None or found.seq != seq:
                return None
            self._kept.move_to_end(where)
            return found

    def may_try(self, where: Condition, width: int) -> bool:
        """Tell whether a filter is to be tried on the nearest rows once more."""
        if width == _TRIES[0]:
            return True
        with self._guard:
            before = self._tried.pop(where, 0)
            self._tried[where] = before + 1
            while len(self._tried) > _KEPT:
                self._tried.popitem(last=False)
        return before < _WIDE_TRIES

    def find(self, connection: sqlite3.Connection, view: View, where: Condition) -> Found:
        """Return what a filter finds; asks SQLite if that is not known."""
        seq = view.state.seq
        found = self.known(where, seq)
        if found is None:
            rows = _reading.all_rows(connection, where)
            found = Found(seq, rows, view.prepared(rows))
            with self._guard:
                self._kept[where] = found
                while len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
        return found


def widths(k: int, rows: int) -> list[int]:
    """Return on how many of the nearest a filter is tried, fewer than there are rows."""
    return [width for width in _TRIES if 4 * k <= width < rows // 4]


def search_vectors(
    connection: sqlite3.Connection,
    view: View,
    filters: Filters,
    queries: NDArray[Any],
    k: int,
    where: Condition | None,
    ef_search: int | None,
    num_threads: int | None,
    exact: bool | None = None,
) -> list[Ranked]:
    """Return rows and distances for each query; always min(k, documents that the filter finds)."""
    if where is None:
        return view.search(queries, k, ef_search, num_threads, exact=exact)
    if len(queries) == 1 and not exact and filters.known(where, view.state.seq) is None:
        for width in widths(k, len(view)):
            if not filters.may_try(where, width):
                break
            (tried,) = view.search(queries, width, ef_search, num_threads)
            passed = np.isin(tried[0], _reading.rows_among(connection, where, tried[0]))
            if passed.sum() >= k:
                return [(tried[0][passed][:k], tried[1][passed][:k])]
    found = filters.find(connection, view, where)
    return view.search(queries, k, ef_search, num_threads, found.rows, found.base_rows, exact)


def hits_of(
    connection: sqlite3.Connection,
    rows: Rows,
    make: Callable[[int], dict[str, Any]],
    vectors: list[NDArray[Any] | None] | None = None,
) -> list[Hit]:
    """Return hits of rows; `make` tells by position what they have besides the document."""
    stored = _reading.documents_of(connection, rows)
    hits = []
    for position, row in enumerate(rows.tolist()):
        id, text, metadata = stored[row]
        vector = None if vectors is None else vectors[position]
        hits.append(Hit(id, text, json.loads(metadata), vector, **make(position)))
    return hits


def hits_by_distance(
    connection: sqlite3.Connection, view: View, found: Sequence[Ranked], vectors: bool
) -> list[list[Hit]]:
    """Return the hits of each query of a search by vectors."""
    lists = []
    for rows, distances in found:
        said = [{"score": 1 - far, "distance": far} for far in distances.tolist()]
        kept = view.vectors(rows) if vectors else None
        lists.append(hits_of(connection, rows, said.__getitem__, kept))
    return lists
