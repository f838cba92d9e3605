"""Searching by words, and by words and vectors together, in one moment."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vicinal.collection import _reading
from vicinal.collection._database import Database, state_of
from vicinal.collection._where import Condition
from vicinal.collection._words import Words, waiting_rows
from vicinal.fusion import FusedResult, fuse

__all__ = ["Both", "fused", "moment_of_words", "search_words"]

Rows = NDArray[np.int64]
_ATTEMPTS = 3
_TRIES = (64, 512)
# a filter that finds no more rows is part of the query of words
_IN_QUERY = 10_000


class Moment(NamedTuple):
    """A transaction, a searcher of words of the same moment, and rows that it is wrong about."""

    connection: sqlite3.Connection
    searcher: Any
    stale: Rows


@contextmanager
def moment_of_words(
    words: Words, database: Database, moment: Any, with_vectors: bool
) -> Iterator[Moment]:
    """Lend what a search by words needs.

    A searcher is as old as the transaction if nothing was written to the words between a look
    before it was made and the transaction, and nothing waits to be. If changes come too fast for
    that, rows that wait are left out.
    """
    for attempt in range(_ATTEMPTS):
        words.catch_up()
        with database.reading() as connection:
            before = state_of(connection).words
        searcher = words.searcher(before)
        lent: AbstractContextManager[Any] = moment() if with_vectors else database.reading()
        with lent as connection:
            stale = waiting_rows(connection)
            same = state_of(connection).words == before
            if (same and (not len(stale) or database.read_only)) or attempt == _ATTEMPTS - 1:
                yield Moment(connection, searcher, stale)
                return


def search_words(
    at: Moment,
    words: Words,
    text: str,
    k: int,
    where: Condition | None,
) -> tuple[Rows, NDArray[np.float64]]:
    """Return the k best rows and their scores; always min(k, documents with a word that pass)."""
    if where is None:
        width = k + len(at.stale)
        return _first(*words.search(at.searcher, text, width), at.stale, k)
    for width in [width for width in _TRIES if width >= 4 * k]:
        rows, scores = words.search(at.searcher, text, width)
        kept = np.isin(rows, _reading.rows_among(at.connection, where, rows))
        kept &= ~np.isin(rows, at.stale)
        if kept.sum() >= k or len(rows) < width:
            return rows[kept][:k], scores[kept][:k]
    allowed = np.setdiff1d(_reading.all_rows(at.connection, where), at.stale, assume_unique=True)
    if len(allowed) <= _IN_QUERY:
        return words.search(at.searcher, text, k, allowed)
    width = max(_TRIES[-1], k)
    while True:
        width *= 8
        rows, scores = words.search(at.searcher, text, width)
        kept = np.isin(rows, allowed)
        if kept.sum() >= k or len(rows) < width:
            return rows[kept][:k], scores[kept][:k]


def _first(
    rows: Rows, scores: NDArray[np.float64], stale: Rows, k: int
) -> tuple[Rows, NDArray[np.float64]]:
    if len(stale):
        kept = ~np.isin(rows, stale)
        rows, scores = rows[kept], scores[kept]
    return rows[:k], scores[:k]


class Both(NamedTuple):
    """What vectors and words found, made into one list, and the distances of the vectors."""

    found: FusedResult
    distances: dict[int, float]

    def parts(self, place: int) -> dict[str, Any]:
        """Return what a hit has besides its document."""
        ranks, said = self.found.ranks[:, place].tolist(), self.found.list_scores[:, place].tolist()
        return {
            "score": float(self.found.scores[place]),
            "distance": self.distances.get(int(self.found.ids[place])),
            "vector_rank": ranks[0] if ranks[0] > 0 else None,
            "text_rank": ranks[1] if ranks[1] > 0 else None,
            "text_score": said[1] if ranks[1] > 0 else None,
        }


def fused(
    by_vector: tuple[Rows, NDArray[np.float32]],
    by_words: tuple[Rows, NDArray[np.float64]],
    alpha: float,
    method: str,
    constant: float,
    k: int,
) -> Both:
    """Fuse both lists; `alpha` is the weight of the vectors."""
    rows, distances = by_vector
    found = fuse(
        (rows, 1 - distances.astype(np.float64)),
        by_words,
        method=method,
        weights=[alpha, 1 - alpha],
        k=constant,
        limit=k,
    )
    return Both(found, dict(zip(rows.tolist(), distances.tolist(), strict=True)))
