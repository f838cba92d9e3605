"""Changing an index: adding vectors."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vicinal import _validate
from vicinal._cpu import native
from vicinal._progress import Report, reporting
from vicinal._state import State
from vicinal._string_ids import as_strings

_DUPLICATE_ID = 4  # of native.index_add, beside the kinds of _validate.refuse_rows


class Changing(State):
    """The methods that change an index; one thread at a time can be in one of them."""

    __slots__ = ()

    def add(
        self,
        vectors: ArrayLike,
        ids: ArrayLike | None = None,
        *,
        num_threads: int | None = None,
        progress: bool | Report | None = None,
    ) -> NDArray[Any]:
        """Add vectors; all of them, or none if anything is wrong with one.

        Parameters
        ----------
        vectors : array_like of shape (n, dim) or (dim,)
            Used without a copy if C-contiguous and of the stored dtype. Other numbers are converted
            once: to a float dtype by rounding to nearest, to an integer dtype only if every value
            fits exactly. A bfloat16 index takes uint16 as the bits of bfloat16 values, and other
            dtypes by value (through float32).
        ids : array_like of int, shape (n,), optional
            Any distinct int64 values that are not in the index; negative ones are allowed. By
            default the n numbers from `max(len(index), largest id + 1)` on, so that an index that
            was never given ids has 0, 1, 2, ... With `Index(..., ids="str")` any distinct strings,
            which must be given.
        num_threads : int, optional
            Threads to use, at least 1; all cores this process may run on by default.
        progress : bool or callable, optional
            True draws a bar (needs tqdm). A callable is called with (rows done, rows in all), from
            the calling thread and a few times a second; an exception in it ends the call.

        Returns
        -------
        ndarray of int64, or of str as objects, shape (n,)
            The ids, also for one vector of shape (dim,).

        Raises
        ------
        TypeError
            If vectors or ids are of the wrong kind: no real numbers, ragged, ids that are floats,
            integers where ids are strings.
        ValueError
            If a shape is wrong, a value is NaN, infinite or does not fit the stored dtype, a vector
            is zero with metric "cosine", an id is repeated or present already, string ids are
            missing, or the index is read-only.

        Notes
        -----
        After any exception, KeyboardInterrupt included, the index is as it was before the call.
        Threads: one writer at a time, a second waits; searches go on meanwhile.
        Source: arXiv:1603.09320, algorithms 1 and 4.
        """
        self._must_be_writable()
        threads = _validate.thread_count(num_threads)
        rows, given = _validate.as_rows(vectors, "vectors", self._dim, self._dtype)
        wanted = self._new_ids(ids)
        if wanted is not None and wanted.shape != (len(rows),):
            raise ValueError(f"ids: expected ({len(rows)},), got {wanted.shape}")
        with (
            self._writing.held(),
            reporting(progress, len(rows)) as report,
            self._numbered(wanted) as chosen,
        ):
            status = native.index_add(self._handle, rows, chosen, threads, report)
            if status % 8 == _DUPLICATE_ID:
                self._refuse_id(wanted, status // 8)
            if status:
                _validate.refuse_rows(status, "vectors", rows, given)
            # the ids of the last rows
            added = np.empty(len(rows), dtype=np.int64)
            native.index_ids(self._handle, added)
        return self._named(added)

    def _new_ids(self, ids: ArrayLike | None) -> NDArray[Any] | None:
        """Return ids of rows to be added as an array of integers or strings, None for automatic."""
        if self._strings is None:
            return None if ids is None else _validate.as_ids(ids)
        if ids is None:
            raise ValueError('ids: expected strings, got None; an index with ids="str" makes none')
        return as_strings(ids)

    def _refuse_id(self, ids: NDArray[Any] | None, position: int) -> NoReturn:
        if ids is None:
            raise ValueError("ids: no automatic ones are left below 2**63; give ids of your own")
        value = repr(ids[position]) if self._strings is not None else ids[position]
        earlier = np.flatnonzero(ids[:position] == ids[position])
        if len(earlier):
            raise ValueError(
                f"ids: {value} stands at position {earlier[0]} and again at {position}"
            )
        raise ValueError(f"ids: {value} at position {position} is already in the index")
