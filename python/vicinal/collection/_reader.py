"""The methods of a collection that read documents without searching for them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from vicinal import _validate
from vicinal.collection import _changes, _reading
from vicinal.collection._opened import Ids, Opened, Where
from vicinal.collection._where import Condition, field_path
from vicinal.collection.documents import Document

__all__ = ["Reader"]


class Reader(Opened):
    """What is there, by ids and filters."""

    def get(
        self,
        ids: Ids | None = None,
        where: Where | None = None,
        limit: int | None = None,
        offset: int = 0,
        *,
        vectors: bool = False,
    ) -> list[Document]:
        """Return documents: of ids in their order, unknown ones left out, or in that of insertion.

        Parameters
        ----------
        ids : str or sequence of str, optional
        where : dict, optional
            Only those that a filter finds.
        limit, offset : int
            How many at most, after how many others.
        vectors : bool
            With their vectors.
        """
        names = None if ids is None else _changes.string_ids(ids)
        condition = self._condition(where)
        most = -1 if limit is None else _validate.whole_number(limit, "limit", 0, 2**63 - 1)
        offset = _validate.whole_number(offset, "offset", 0, 2**63 - 1)
        with self._moment() if vectors else self._database.reading() as connection:
            if names is None:
                found = _reading.page(connection, condition, -1, most, offset)
            else:
                rows = np.array(list(_reading.rows_of_ids(connection, names).values()), np.int64)
                if condition is not None:
                    rows = rows[np.isin(rows, _reading.rows_among(connection, condition, rows))]
                rows = rows[offset:] if limit is None else rows[offset : offset + most]
                stored = _reading.documents_of(connection, rows)
                found = [(row, stored[row]) for row in rows.tolist()]
            return self._documents(found, vectors)

    def _documents(self, found: list[tuple[int, _reading.Stored]], vectors: bool) -> list[Document]:
        parts = (
            self._view.vectors(np.array([row for row, _ in found], np.int64)) if vectors else None
        )
        return [
            Document(id, text, json.loads(metadata), None if parts is None else parts[place])
            for place, (_, (id, text, metadata)) in enumerate(found)
        ]

    def scroll(
        self, where: Where | None = None, batch_size: int = 100, *, vectors: bool = False
    ) -> Iterator[Document]:
        """Go through documents in the order of insertion, without holding any moment.

        What is added meanwhile may be met, what is deleted is not met any more; nothing twice.
        """
        size = _validate.whole_number(batch_size, "batch_size", 1, _validate.MAX_COUNT)
        condition = self._condition(where)
        return self._scroll(condition, size, vectors)

    def _scroll(self, where: Condition | None, size: int, vectors: bool) -> Iterator[Document]:
        after = -1
        while True:
            with self._moment() if vectors else self._database.reading() as connection:
                found = _reading.page(connection, where, after, size, 0)
                documents = self._documents(found, vectors)
            yield from documents
            if len(found) < size:
                return
            after = found[-1][0]

    def count(self, where: Where | None = None) -> int:
        """Return how many documents there are, or how many a filter finds."""
        condition = self._condition(where)
        with self._database.reading() as connection:
            return _reading.count(connection, condition)

    def __len__(self) -> int:
        return self.count()

    def __contains__(self, id: object) -> bool:
        if not isinstance(id, str):
            raise TypeError(f"id: expected a string, got {type(id).__name__}")
        with self._database.reading() as connection:
            return bool(_reading.rows_of_ids(connection, [id]))

    def distinct(self, field: str | Sequence[str], where: Where | None = None) -> list[Any]:
        """Return the values of a field, each once, in order: booleans, numbers, strings.

        Of lists come their elements; objects and nulls are left out. 1 and 1.0 are two values.
        """
        path, condition = field_path(field), self._condition(where)
        with self._database.reading() as connection:
            return _reading.distinct(connection, path, condition)

    def min_max(
        self, field: str | Sequence[str], where: Where | None = None
    ) -> tuple[Any, Any] | None:
        """Return the least and greatest number of a field, or string where there are no numbers.

        None where there are neither.
        """
        path, condition = field_path(field), self._condition(where)
        with self._database.reading() as connection:
            return _reading.min_max(connection, path, condition)
