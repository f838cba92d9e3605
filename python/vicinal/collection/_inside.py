"""Looking closer: ids alone, a radius, recall, why a document was not found, figures, order of ids.

The methods are those of `Collection`, whose own module has what every program needs.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vicinal import _validate
from vicinal._tuning import MeasuredRecall
from vicinal.collection import _reading, _searching
from vicinal.collection._database import Database, state_of
from vicinal.collection._view import View
from vicinal.collection._where import Condition
from vicinal.collection.documents import Document, Hit

__all__ = ["Inside", "Why"]

Where = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Why:
    """What became of one document in one search; `str()` of it is a sentence.

    Attributes
    ----------
    id : str
    fate : str
        "found", "filtered" (the filter leaves it out), "no_vector", "farther" (k others are no
        farther), or how the graph lost it: "not_reranked", "evicted", "refused", "unreached" of
        `vicinal.WhyNot`.
    rank, true_rank : int or None
        Its place among what was found, and among the k nearest by exact distance, from 1.
    distance : float or None
    finds : dict
        A change to the arguments that was tried and finds it, such as ``{"ef_search": 80}``.
    said : str
    """

    id: str
    fate: str
    rank: int | None
    true_rank: int | None
    distance: float | None
    finds: dict[str, int]
    said: str

    def __str__(self) -> str:
        return self.said


class Inside:
    """Methods of `Collection` that look closer than programs usually need to."""

    _database: Database
    _view: View
    _filters: _searching.Filters
    _parameters: dict[str, Any]

    if TYPE_CHECKING:  # what `Collection` has

        def _moment(self) -> AbstractContextManager[sqlite3.Connection]: ...
        def _turn(self) -> AbstractContextManager[None]: ...
        def _queries(self, vector: Any) -> tuple[NDArray[Any], bool]: ...
        def _condition(self, where: Where | None) -> Condition | None: ...
        def _documents(
            self, found: list[tuple[int, _reading.Stored]], vectors: bool
        ) -> list[Document]: ...

    def search_ids(
        self,
        vectors: ArrayLike,
        k: int = 10,
        where: Where | None = None,
        *,
        ef_search: int | None = None,
        exact: bool = False,
        num_threads: int | None = None,
    ) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """Find the ids of the nearest documents, and nothing else of them: faster than `search`.

        Parameters
        ----------
        vectors : array_like of shape (n, dim)
        k, where, ef_search, exact, num_threads
            As for `Collection.search`.

        Returns
        -------
        ids : ndarray of object, shape (n, k)
            Nearest first; None where there are fewer than k.
        distances : ndarray of float32, shape (n, k)
            Infinity where there are fewer than k.
        """
        k = _validate.whole_number(k, "k", 1, _validate.MAX_COUNT)
        condition = self._condition(where)
        queries, single = self._queries(vectors)
        if single:
            raise ValueError(f"vectors: expected (n, {queries.shape[1]}), got {queries.shape[1:]}")
        with self._moment() as connection:
            found = _searching.search_vectors(
                *(connection, self._view, self._filters, queries, k, condition),
                *(ef_search, num_threads, exact),
            )
            wanted = np.unique(np.concatenate([rows for rows, _ in found] or [np.empty(0, int)]))
            names = _reading.ids_of(connection, wanted)
        k = min(k, max((len(rows) for rows, _ in found), default=0))
        ids = np.full((len(found), k), None, object)
        distances = np.full((len(found), k), np.inf, np.float32)
        for place, (rows, far) in enumerate(found):
            ids[place, : len(rows)] = [names[row] for row in rows.tolist()]
            distances[place, : len(rows)] = far
        return ids, distances

    def range_search(
        self,
        vector: ArrayLike | str,
        radius: float,
        where: Where | None = None,
        limit: int | None = None,
        *,
        ef_search: int | None = None,
        vectors: bool = False,
    ) -> list[Hit]:
        """Find all documents whose vectors are within a distance.

        Parameters
        ----------
        vector : array_like of shape (dim,), or str
            As for `Collection.search`.
        radius : float
            Largest distance that counts, on the scale of the metric: squared for "l2".
        where, vectors
            As for `Collection.search`.
        limit : int, optional
            The nearest so many only.
        ef_search : int, optional
            As for `vicinal.Index.range_search`.

        Returns
        -------
        list of Hit
            Nearest first.
        """
        condition = self._condition(where)
        most = None if limit is None else _validate.whole_number(limit, "limit", 0, 2**63 - 1)
        query = self._one(vector)
        with self._moment() as connection:
            among: tuple[Any, ...] = ()
            if condition is not None:
                known = self._filters.find(connection, self._view, condition)
                among = (known.rows, known.base_rows)
            rows, distances = self._view.within(query, radius, ef_search, *among)
            found = [(rows[:most], distances[:most])]
            return _searching.hits_by_distance(connection, self._view, found, vectors)[0]

    def why_not(
        self,
        vector: ArrayLike | str,
        id: str,
        k: int = 10,
        where: Where | None = None,
        *,
        ef_search: int | None = None,
    ) -> Why:
        """Tell what became of one document in a search: where it was lost, or that it was found.

        Parameters
        ----------
        vector, k, where, ef_search
            Those of the search.
        id : str
            A document of the collection.

        Raises
        ------
        KeyError
            If there is no such document.
        """
        k = _validate.whole_number(k, "k", 1, _validate.MAX_COUNT)
        condition = self._condition(where)
        query = self._one(vector)
        if not isinstance(id, str):
            raise TypeError(f"id: expected a string, got {type(id).__name__}")
        with self._moment() as connection:
            row = _reading.rows_of_ids(connection, [id]).get(id)
            if row is None:
                raise KeyError(f"id: {_validate.shown(id)} is not in the collection")
            place = np.array([row], np.int64)
            if condition is not None and not len(_reading.rows_among(connection, condition, place)):
                return Why(
                    id, "filtered", None, None, None, {}, f"{id!r}: the filter leaves it out"
                )
            if self._view.vectors(place)[0] is None:
                return Why(id, "no_vector", None, None, None, {}, f"{id!r} has no vector")
            given = (connection, self._view, self._filters, query.reshape(1, -1), k, condition)
            found = _searching.search_vectors(*given, ef_search, None)[0]
            exact = _searching.search_vectors(*given, None, None, True)[0]
            rank, true_rank = (_rank(row, rows) for rows, _ in (found, exact))
            return self._why(query, id, row, (rank, true_rank), found, ef_search)

    def _why(
        self,
        query: NDArray[Any],
        id: str,
        row: int,
        ranks: tuple[int | None, int | None],
        found: _searching.Ranked,
        ef_search: int | None,
    ) -> Why:
        rank, true_rank = ranks
        if rank is not None:
            distance = float(found[1][rank - 1])
            said = f"{id!r} (distance {distance:g}) was found, as number {rank}"
            return Why(id, "found", rank, true_rank, distance, {}, said)
        base = self._view.base
        if base is None or true_rank is None or base._find_rows(np.array([row]))[0] < 0:
            # scanned, so it is not missed; or it does not belong to the nearest
            last = f", the last at {found[1][-1]:g}" if len(found[1]) else ""
            said = f"{id!r} is not one of the {len(found[0])} nearest that were asked for{last}"
            return Why(id, "farther", None, true_rank, None, {}, said)
        why = replace(base.why_not(query, row, len(found[0]), ef_search=ef_search), id=id)
        return Why(id, why.fate, None, true_rank, why.distance, dict(why.finds), str(why))

    def measure_recall(
        self,
        vectors: ArrayLike | None = None,
        k: int = 10,
        sample: int = 1000,
        *,
        ef_search: int | None = None,
    ) -> MeasuredRecall:
        """Measure which share of the true neighbours searches of the saved index find.

        What changed since the last checkpoint is scanned, so nothing of it is missed. Without a
        saved index everything is: the recall is 1, the sample 0. The arguments are those of
        `vicinal.Index.measure_recall`.
        """
        with self._moment():
            base = self._view.base
        if base is None or not len(base):
            k = _validate.whole_number(k, "k", 1, _validate.MAX_COUNT)
            return MeasuredRecall(1.0, 1.0, 1.0, k, 0, 0)
        return base.measure_recall(vectors, k, sample, ef_search=ef_search)

    def get_by_id_order(
        self,
        start: str | None = None,
        limit: int = 100,
        where: Where | None = None,
        *,
        vectors: bool = False,
    ) -> list[Document]:
        """Return documents in the order of their ids, shorter ones first: 9, 10, 11.

        Parameters
        ----------
        start : str, optional
            From this id on, whether it is there or not.
        limit : int
            How many at most.
        where, vectors
            As for `Collection.get`.
        """
        most = _validate.whole_number(limit, "limit", 0, 2**63 - 1)
        condition = self._condition(where)
        if start is not None and not isinstance(start, str):
            raise TypeError(f"start: expected a string, got {type(start).__name__}")
        with self._moment() if vectors else self._database.reading() as connection:
            found = _reading.page_by_id(connection, condition, start, most)
            return self._documents(found, vectors)

    def note(self, name: str) -> Any:
        """Return what a program has kept with the collection under a name, or None."""
        return (self._database.settings() or {}).get(f"note.{name}")

    def set_note(self, name: str, value: Any) -> None:
        """Keep something that JSON can hold with the collection, for programs built on it."""
        if not isinstance(name, str):
            raise TypeError(f"name: expected a string, got {type(name).__name__}")
        kept = json.dumps(value, allow_nan=False)
        with self._turn(), self._database.writing() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO settings VALUES(?, ?)", (f"note.{name}", kept)
            )

    def stats(self) -> dict[str, Any]:
        """Return figures: documents, pending, parameters, bytes on the disk, the saved index.

        Returns
        -------
        dict
            `documents`, `pending`, `parameters` (dict), `file_bytes`, `filtered` (how the saved
            index answered searches behind filters, since this process opened it) and `indexed`
            (rows of the saved index).
        """
        with self._moment() as connection:
            state = state_of(connection)
            documents = _reading.count(connection, None)
            waiting = connection.execute("SELECT count(*) FROM pending").fetchone()[0]
            base = self._view.base
        folder = self._database.folder
        names: Sequence[str] = ["documents.sqlite", "documents.sqlite-wal", state.file or ""]
        paths = [os.path.join(folder, name) for name in names if name]
        return {
            "documents": documents,
            "pending": int(waiting),
            "parameters": dict(self._parameters),
            "file_bytes": sum(os.path.getsize(path) for path in paths if os.path.exists(path)),
            "filtered": {} if base is None else dict(base.stats()["filtered"]),
            "indexed": 0 if base is None else len(base),
        }

    def _one(self, vector: Any) -> NDArray[Any]:
        queries, single = self._queries(vector)
        if not single:
            raise ValueError(f"vector: expected ({queries.shape[1]},), got {queries.shape}")
        one: NDArray[Any] = queries[0]
        return one


def _rank(row: int, rows: NDArray[np.int64]) -> int | None:
    places = np.flatnonzero(rows == row)
    return int(places[0]) + 1 if len(places) else None
