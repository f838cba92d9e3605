"""Asking an index: the nearest vectors of a query, all within a radius, stored vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vicinal import _validate
from vicinal._cpu import native
from vicinal._filters import as_filters
from vicinal._quality import Quality
from vicinal.result import RangeResult, SearchResult

# For the first lines of `search`, where each look-up counts.
_ndarray = np.ndarray
_empty = np.empty
_LARGE = _validate.LARGE_RESULTS
_new_tuple = tuple.__new__  # the constructor of a NamedTuple takes half as long again
_native_search = native.index_search
_INT64 = np.dtype(np.int64)
_FLOAT32 = np.dtype(np.float32)
_READY = 0x0101  # flags.num of an array that is C-contiguous and aligned
_MAX_COUNT = _validate.MAX_COUNT
# All went well and ids are numbers of strings; as a status, so that others pay nothing for it.
_NUMBERS = 7
_CHOOSE = -1  # by costs how a filtered search goes about it


class Searching(Quality):
    """The methods that read rows; safe at any time from any number of threads."""

    __slots__ = ()

    def search(
        self,
        queries: ArrayLike,
        k: int = 10,
        *,
        ef_search: int | None = None,
        recall: float | None = None,
        filter: ArrayLike | Sequence[ArrayLike | None] | None = None,
        num_threads: int | None = None,
    ) -> SearchResult:
        """Find the k nearest vectors of each query.

        Parameters
        ----------
        queries : array_like of shape (dim,) or (n, dim)
            Converted to float32 for float indexes (rounded to nearest), to the stored dtype for
            integer ones (values must fit exactly); C-contiguous arrays of that dtype are used
            without a copy. uint16 queries of a bfloat16 index are taken as bits.
        k : int
            Neighbours wanted, at least 1.
        ef_search : int, optional
            Candidates kept while searching, at least 1; more finds more and takes longer. At least
            `k` are kept. `index.ef_search` by default. Without effect while the index is searched
            exactly.
        recall : float, optional
            In place of `ef_search`: the width that `tune` found for this share of the true
            neighbours, from 0 to 1. The smallest width tuned for as high a recall and as large a k,
            or higher ones, is used.
        filter : array_like of bool, int or str, or list of them, optional
            Which rows may be found: booleans of shape (len(index),) in the order of `index.ids`, or
            ids in any order, of which unknown ones stand for nothing. A list has one of either, or
            None, for each query; the same object for several queries is prepared once.
        num_threads : int, optional
            Threads that share the queries, at least 1; by default one for one query, else as many
            as `vicinal.get_num_threads` tells. Results do not depend on it.

        Returns
        -------
        SearchResult
            `ids` (int64) and `distances` (float32), nearest first, equal distances in the order of
            rows; shape (k,) for one query, (n, k) for a batch. There are always min(k, rows that
            the filter allows) results; the rest is id -1 and distance infinity. String ids come as
            an object array of `str`, with None in place of -1.

        Raises
        ------
        TypeError
            If queries, `k`, `ef_search`, `filter` or `num_threads` are of the wrong kind.
        ValueError
            If a shape is wrong, a number out of range, a query holds NaN or infinity, or is zero
            with metric "cosine"; if the index was not tuned for `recall` and `k`, or `ef_search` is
            given as well; if booleans are not as many as rows, or a list of filters is not as long
            as there are queries.
        CorruptError
            If a filter is given and a mapped file does not have as many rows as it says.
        MemoryError
            If memory is out, or results for more neighbours than there are rows take gigabytes.

        Notes
        -----
        Threads: safe at any time, also while vectors are added, replaced or removed, which it never
        waits for. A search may or may not see rows that are being added; it sees all or none of
        what an `update` or a `remove` does. The GIL is released. While another thread changes the
        index, filter by ids: booleans fit the rows of one moment.
        A filter makes a scan of the rows it allows, a walk that collects them on the way, or a walk
        over them alone, whichever its share of the rows and what it meets near the query make
        cheapest (docs/filtering.md); `index.stats()["filtered"]` counts them.
        Sources: arXiv:1603.09320, algorithms 2 and 5; arXiv:2403.04871.
        """
        # On a small index the checks take longer than the search: those for the usual arguments
        # stand here in a row, everything else goes the long way.
        if (
            type(queries) is _ndarray
            and queries.dtype is self._query_dtype
            and queries.flags.num & _READY == _READY
        ):
            rows = given = queries
            shape = queries.shape
            single = shape == self._single
            if not single and (len(shape) != 2 or shape[1] != self._dim):
                rows, given = _validate.as_rows(
                    queries, "queries", self._dim, self._dtype, queries=True
                )
        else:
            rows, given = _validate.as_rows(
                queries, "queries", self._dim, self._dtype, queries=True
            )
            single = given.ndim == 1
        if type(k) is not int or not 0 < k <= _LARGE:
            k = _validate.whole_number(k, "k", 1, _MAX_COUNT)
            _validate.room_for_results(1 if single else len(rows), k, len(self))
        if ef_search is None:
            ef_search = self._ef_search if recall is None else self._tuned_width(recall, k)
        elif recall is not None:
            raise ValueError("recall: expected ef_search or recall, got both")
        elif type(ef_search) is not int or not 0 < ef_search <= _MAX_COUNT:
            ef_search = _validate.whole_number(ef_search, "ef_search", 1, _MAX_COUNT)
        n = 1
        if not single:
            n = len(rows)
            if n * k > _LARGE:
                _validate.room_for_results(n, k, len(self))
        if num_threads is None:
            num_threads = 1 if n == 1 else _validate.thread_count(None)
        elif type(num_threads) is not int or not 0 < num_threads <= _MAX_COUNT:
            num_threads = _validate.thread_count(num_threads)
        wanted = k if single else (n, k)
        ids = _empty(wanted, _INT64)
        distances = _empty(wanted, _FLOAT32)
        if filter is None:
            status = _native_search(self._handle, rows, k, ef_search, num_threads, ids, distances)
        else:
            self._need_right_counts()
            status = native.index_search_filtered(
                self._handle,
                rows,
                k,
                ef_search,
                num_threads,
                *as_filters(filter, len(self), n, self._known),
                _CHOOSE,
                ids,
                distances,
            )
            if status == 0 and self._strings is not None:
                status = _NUMBERS
        if status:
            if status != _NUMBERS:
                _validate.refuse_rows(status, "queries", rows.reshape(n, self._dim), given)
            return SearchResult(self._named(ids), distances)
        return _new_tuple(SearchResult, (ids, distances))

    def range_search(
        self,
        queries: ArrayLike,
        radius: float,
        *,
        ef_search: int | None = None,
        filter: ArrayLike | Sequence[ArrayLike | None] | None = None,
        num_threads: int | None = None,
    ) -> RangeResult:
        """Find all vectors within a distance of each query.

        Parameters
        ----------
        queries : array_like of shape (dim,) or (n, dim)
            As for `search`.
        radius : float
            Largest distance that counts, rounded to float32, on the scale of the metric: squared
            for "l2". Infinity means all rows.
        ef_search : int, optional
            Candidates kept on the way to the query, at least 1; `index.ef_search` by default. More
            finds more where few rows are within the radius.
        filter : array_like of bool, int or str, or list of them, optional
            As for `search`.
        num_threads : int, optional
            As for `search`.

        Returns
        -------
        RangeResult
            `ids` (int64) and `distances` (float32) of all queries, nearest first for each, and
            `offsets` (int64, shape (n + 1,)) that say where each query's part begins; `of(i)` is
            the part of query i.

        Raises
        ------
        TypeError
            If an argument is of the wrong kind.
        ValueError
            As `search`; also if the radius is NaN.
        CorruptError
            As `search`.
        MemoryError
            If the result does not fit memory.

        Notes
        -----
        Exact where the index is searched exactly, and where more than an eighth of all rows is
        found. Else the graph is walked: docs/filtering.md says how many of the rows it finds.
        Threads: as for `search`.

        Examples
        --------
        >>> import vicinal
        >>> index = vicinal.Index(2)
        >>> index.add([[0, 0], [3, 4], [1, 1]])
        array([0, 1, 2])
        >>> index.range_search([[0, 0], [3, 3]], 2.0).of(0)
        SearchResult(ids=array([0, 2]), distances=array([0., 2.], dtype=float32))
        """
        rows, given = _validate.as_rows(queries, "queries", self._dim, self._dtype, queries=True)
        radius = _validate.real_number(radius, "radius")
        if ef_search is None:
            ef_search = self._ef_search
        else:
            ef_search = _validate.whole_number(ef_search, "ef_search", 1, _MAX_COUNT)
        n = len(rows)
        threads = 1 if num_threads is None and n == 1 else _validate.thread_count(num_threads)
        offsets = _empty(n + 1, _INT64)
        if filter is not None:
            self._need_right_counts()
        found = native.index_range(
            self._handle,
            rows,
            radius,
            ef_search,
            threads,
            *as_filters(filter, len(self), n, self._known),
            offsets,
        )
        if isinstance(found, int):
            _validate.refuse_rows(found, "queries", rows, given)
        ids = _empty(offsets[-1], _INT64)
        distances = _empty(offsets[-1], _FLOAT32)
        native.range_take(found, ids, distances)
        return RangeResult(self._named(ids), distances, offsets)

    def get(self, ids: ArrayLike) -> NDArray[Any]:
        """Return stored vectors.

        Parameters
        ----------
        ids : int or array_like of int, shape (n,)
            Ids, in any order, repeats allowed; strings with `Index(..., ids="str")`.

        Returns
        -------
        ndarray of shape (dim,) for one id, (n, dim) for several
            New array of the stored dtype; bfloat16 values as their bits in uint16. With metric
            "cosine" float vectors come back at unit length, as they are stored.

        Raises
        ------
        KeyError
            If an id is not in the index.
        TypeError
            If ids are not integers, or not strings where ids are.
        ValueError
            If they have another shape or do not fit int64.

        Notes
        -----
        Threads: safe at any time, also while vectors are added, replaced or removed.
        """
        wanted, given = self._known(ids)
        if wanted.ndim > 1:
            raise ValueError(f"ids: expected one id or shape (n,), got {wanted.shape}")
        flat = wanted.reshape(-1)
        out = np.empty((len(flat), self._dim), dtype=_validate.STORED_DTYPES[self._dtype])
        unknown = native.index_get(self._handle, flat, out)
        if unknown >= 0:
            raise KeyError(
                f"ids: {_validate.shown(given.reshape(-1)[unknown])} is not in the index"
            )
        return out if wanted.ndim else out[0]
