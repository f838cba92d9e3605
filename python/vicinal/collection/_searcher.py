"""The methods of a collection that search it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vicinal import _kinds, _validate
from vicinal.collection import _searching, _text_search
from vicinal.collection._opened import Opened, Where
from vicinal.collection.documents import Hit

__all__ = ["Searcher"]


class Searcher(Opened):
    """Searches by vector, by words, by both."""

    def search(
        self,
        vector: ArrayLike | str,
        k: int = 10,
        where: Where | None = None,
        *,
        ef_search: int | None = None,
        exact: bool = False,
        vectors: bool = False,
        num_threads: int | None = None,
    ) -> Any:
        """Find the k documents whose vectors are nearest.

        Parameters
        ----------
        vector : array_like of shape (dim,) or (n, dim), or str
            A text where the collection has `embed`.
        k : int
            Documents wanted, at least 1.
        where : dict, optional
            Only documents that a filter finds: docs/guide/collection.md.
        ef_search, num_threads : int, optional
            As for `vicinal.Index.search`.
        exact : bool
            Measure all documents that the filter finds: nothing is missed.
        vectors : bool
            Hits with their vectors.

        Returns
        -------
        list of Hit, or for (n, dim) a list of these lists
            Nearest first; always min(k, documents with a vector that the filter finds). Which of
            equally near documents are the last of the k is not settled.
        """
        k = _validate.whole_number(k, "k", 1, _validate.MAX_COUNT)
        condition = self._condition(where)
        queries, single = self._queries(vector)
        with self._moment() as connection:
            found = _searching.search_vectors(
                *(connection, self._view, self._filters, queries, k, condition),
                *(ef_search, num_threads, exact),
            )
            hits = _searching.hits_by_distance(connection, self._view, found, vectors)
        return hits[0] if single else hits

    def search_text(
        self, text: str, k: int = 10, where: Where | None = None, *, vectors: bool = False
    ) -> list[Hit]:
        """Find the k documents whose texts fit words best; needs the extra `hybrid`.

        The first call, of any process, makes the index of words; from then on it is kept in step.

        Parameters
        ----------
        text : str
            Any text; signs in it mean nothing.
        k : int
            Documents wanted, at least 1.
        where, vectors
            As for `search`.

        Returns
        -------
        list of Hit
            Best first, `score` is BM25; only documents that have one of the words.

        Raises
        ------
        ImportError
            If tantivy is not installed.
        ValueError
            If the collection is read only and has no index of words.
        """
        k = _validate.whole_number(k, "k", 1, _validate.MAX_COUNT)
        condition, words = self._condition(where), self._words_for(text)
        with _text_search.moment_of_words(words, self._database, self._moment, vectors) as at:
            rows, scores = _text_search.search_words(at, words, text, k, condition)
            listed = scores.tolist()
            return _searching.hits_of(
                at.connection,
                rows,
                lambda place: {"score": listed[place], "text_score": listed[place]},
                self._view.vectors(rows) if vectors else None,
            )

    def search_hybrid(
        self,
        text: str,
        vector: ArrayLike | None = None,
        k: int = 10,
        where: Where | None = None,
        *,
        alpha: float = 0.5,
        method: str = "relative",
        window: int = 100,
        constant: float = 60,
        ef_search: int | None = None,
        vectors: bool = False,
    ) -> list[Hit]:
        """Find documents by words and by vector at once; needs the extra `hybrid`.

        Parameters
        ----------
        text : str
            What the words are looked for.
        vector : array_like of shape (dim,), optional
            By default `embed` of the text.
        k : int
            Documents wanted, at least 1.
        where : dict, optional
            For both sides.
        alpha : float
            Weight of the vectors, 0 to 1; that of the words is 1 - alpha.
        method : {"relative", "reciprocal", "linear"}
            As for `vicinal.fuse`; "rrf" is "reciprocal".
        window : int
            Results that each side gives, or k if that is more. Scores depend on it, not on k.
        constant : float
            `k` of `vicinal.fuse`, for "reciprocal".
        ef_search, vectors
            As for `search`.

        Returns
        -------
        list of Hit
            `score` is the fused one; what each side said is in the other attributes.
        """
        k = _validate.whole_number(k, "k", 1, _validate.MAX_COUNT)
        window = max(k, _validate.whole_number(window, "window", 1, _validate.MAX_COUNT))
        alpha = _validate.real_number(alpha, "alpha")
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha: expected a number from 0 to 1, got {alpha}")
        condition, words = self._condition(where), self._words_for(text)
        queries, single = self._queries(text if vector is None else vector)
        if not single:
            raise ValueError(f"vector: expected ({self.dim},), got {queries.shape}")
        with _text_search.moment_of_words(words, self._database, self._moment, True) as at:
            (by_vector,) = _searching.search_vectors(
                at.connection,
                self._view,
                self._filters,
                queries,
                window,
                condition,
                ef_search,
                None,
            )
            by_words = _text_search.search_words(at, words, text, window, condition)
            both = _text_search.fused(by_vector, by_words, alpha, method, constant, k)
            return _searching.hits_of(
                at.connection,
                both.found.ids,
                both.parts,
                self._view.vectors(both.found.ids) if vectors else None,
            )

    def _queries(self, vector: Any) -> tuple[NDArray[Any], bool]:
        """Return (n, dim) queries and whether one vector was given."""
        if isinstance(vector, str):
            if self._embed is None:
                raise TypeError(
                    "vector: expected numbers, got a text, for which the collection needs embed="
                )
            vector = np.asarray(self._embed([vector])).reshape(-1)
        rows, given = _validate.as_rows(
            vector,
            "vector",
            _kinds.row_items(self._parameters),
            self._parameters["dtype"],
            queries=True,
        )
        return rows, given.ndim == 1
