"""Changing an index: adding, removing and replacing vectors."""

from __future__ import annotations

import reprlib
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vicinal import _validate
from vicinal._cpu import native
from vicinal._lending import copy_mode, stays
from vicinal._progress import Report, reporting
from vicinal._state import State
from vicinal._string_ids import StringIds, as_strings

if TYPE_CHECKING:
    from vicinal.vectors_io import VectorSource

_DUPLICATE_ID = 4  # of native.index_add, beside the kinds of _validate.refuse_rows
_MISSING = ("error", "ignore")
_CONFLICTS = ("error", "update", "skip")


class Changing(State):
    """The methods that change an index; one thread at a time can be in one of them."""

    __slots__ = ()

    def add(
        self,
        vectors: ArrayLike | VectorSource,
        ids: ArrayLike | None = None,
        *,
        on_conflict: str = "error",
        copy: bool | None = True,
        num_threads: int | None = None,
        progress: bool | Report | None = None,
    ) -> NDArray[Any]:
        """Add vectors; all of them, or none if anything is wrong with one.

        Parameters
        ----------
        vectors : array_like of shape (n, dim) or (dim,), or VectorSource
            A source that `read_vectors` returned is added a batch at a time, each of them whole or
            not at all. Arrays are stored as they are if of the stored dtype. Other numbers are
            converted once: to a float dtype by rounding to nearest, to an integer dtype only if
            every value fits exactly. A bfloat16 index takes uint16 as the bits of bfloat16 values,
            and other dtypes by value (through float32).
        ids : int or array_like of int, shape (n,), optional
            Any distinct int64 values that are not in the index; negative ones are allowed. By
            default the n numbers from `max(len(index), largest id + 1)` on, so that an index that
            was never given ids has 0, 1, 2, ... Only ids that are in the index count: that of the
            last vector is given out again once it is removed. With `Index(..., ids="str")` any
            distinct strings, which must be given.
        on_conflict : {"error", "update", "skip"}
            What to do about ids that are in the index already: refuse the call, replace their
            vectors as `update` does, or leave them alone without a look at the new vectors. An id
            twice in `ids` is always refused.
        copy : bool or None
            True stores the vectors in memory of the index. None lets it read them where they are,
            if it can; False refuses the call if it cannot. See Notes.
        num_threads : int, optional
            Threads to use, at least 1; by default as many as `vicinal.get_num_threads` tells.
        progress : bool or callable, optional
            True draws a bar (needs tqdm). A callable is called with (rows done, rows in all), from
            the calling thread and a few times a second; an exception in it ends the call.

        Returns
        -------
        ndarray of int64, or of str as objects, shape (n,)
            The ids, also for one vector of shape (dim,), and also those that were skipped.

        Raises
        ------
        TypeError
            If vectors or ids are of the wrong kind: no real numbers, ragged, ids that are floats,
            integers where ids are strings.
        ValueError
            If a shape is wrong, a value is NaN, infinite or does not fit the stored dtype, a vector
            is zero with metric "cosine", an id is repeated or present already, string ids are
            missing, `on_conflict` is unknown, vectors cannot stay where they are with `copy=False`,
            or the index is read-only.
        MemoryError
            If memory or addresses are out, as with `update` and `remove`.

        Notes
        -----
        After any exception the index is as it was before the call; KeyboardInterrupt may also come
        when all of it is done: `len` and `in` tell.

        Vectors can stay where they are if they are the first of the index and a NumPy array, an
        `np.memmap` of a file for instance, that holds just what would be stored: of the stored
        dtype, C-contiguous and aligned, each of a multiple of 64 bytes or short (less than 256
        bytes of floats, 64 of integers); not floats with metric "cosine", which are stored at unit
        length. The array may be read-only; it must not be changed as long as the index reads it.
        Results and saved files are the same. The index keeps the array alive. The next call that
        writes vectors or frees rows copies them first, and lets the array go as soon as no search
        reads it, which such calls look for.

        Threads: one writer at a time, a second waits; searches go on meanwhile.
        Source: arXiv:1603.09320, algorithms 1 and 4.
        """
        self._must_be_writable()
        if hasattr(vectors, "pieces"):
            if copy is False:
                raise ValueError("copy: expected True or None for a source, got False")
            from vicinal.vectors_io._to_index import add_source

            return add_source(
                self,  # type: ignore[arg-type]
                vectors,  # type: ignore[arg-type]
                ids,
                on_conflict=on_conflict,
                num_threads=num_threads,
                progress=progress,
            )
        if on_conflict not in _CONFLICTS:
            raise ValueError(
                "on_conflict: expected 'error', 'update' or 'skip', got "
                f"{reprlib.repr(on_conflict)}"
            )
        threads = _validate.thread_count(num_threads)
        mode = copy if copy is True else copy_mode(copy)
        rows, given = _validate.as_rows(vectors, "vectors", self._dim, self._dtype)
        wanted = self._new_ids(ids)
        if wanted is not None and wanted.ndim == 0 and len(rows) == 1:
            wanted = wanted.reshape(1)
        if wanted is not None and wanted.shape != (len(rows),):
            raise ValueError(f"ids: expected ({len(rows)},), got {wanted.shape}")
        with self._writing.held():
            lent = mode is not True and stays(mode, self._handle, vectors, rows)
            some = None
            if wanted is not None and on_conflict == "skip":
                _validate.refuse_repeats(wanted)
                numbers = wanted if self._strings is None else self._strings.to_numbers(wanted)
                some = np.flatnonzero(self._rows(numbers) < 0)
            replaces = on_conflict == "update"
            new = self._put(rows, given, wanted, replaces, threads, progress, some, lent)
        return self._named(new) if wanted is None else wanted.copy()

    def update(
        self,
        vectors: ArrayLike,
        ids: ArrayLike,
        *,
        num_threads: int | None = None,
        progress: bool | Report | None = None,
    ) -> None:
        """Replace the vectors of ids; all of them, or none if anything is wrong with one.

        Parameters
        ----------
        vectors : array_like of shape (n, dim) or (dim,)
            As `add` takes them.
        ids : int or array_like of int, shape (n,)
            Ids that are in the index, each once; strings with `Index(..., ids="str")`.
        num_threads, progress
            As for `add`.

        Raises
        ------
        KeyError
            If an id is not in the index.
        TypeError
            If an argument is of the wrong kind.
        ValueError
            If a shape is wrong, a vector is one that `add` would refuse, an id is repeated, or the
            index is read-only.

        Notes
        -----
        The new vectors get rows of their own, and take over the ids at one moment when all is done:
        a search meanwhile finds an id with its old or with its new vector, not with both. Until
        then the index holds both; the rows of the old ones serve later calls.

        After any exception the index is as it was before the call; KeyboardInterrupt may also come
        when all of it is done: `len` and `in` tell.
        Threads: one writer at a time, a second waits; searches go on meanwhile.
        """
        self._must_be_writable()
        threads = _validate.thread_count(num_threads)
        rows, given = _validate.as_rows(vectors, "vectors", self._dim, self._dtype)
        wanted = self._wanted(ids)
        if len(wanted) != len(rows):
            raise ValueError(f"ids: expected ({len(rows)},), got {wanted.shape}")
        with self._writing.held():
            self._known_rows(wanted)
            self._put(rows, given, wanted, True, threads, progress)

    def remove(
        self,
        ids: ArrayLike,
        *,
        missing: str = "error",
        num_threads: int | None = None,
        progress: bool | Report | None = None,
    ) -> None:
        """Remove vectors; all of them, or none if anything is wrong with one.

        Parameters
        ----------
        ids : int or array_like of int, shape (n,)
            Ids that are in the index, each once; strings with `Index(..., ids="str")`.
        missing : {"error", "ignore"}
            What to do about ids that are not in the index: refuse the call, or leave them out.
        num_threads : int, optional
            Threads to use, at least 1; by default as many as `vicinal.get_num_threads` tells.
        progress : bool or callable, optional
            As for `add`.

        Raises
        ------
        KeyError
            If an id is not in the index and `missing` is "error"; the first such id is named.
        TypeError
            If an argument is of the wrong kind.
        ValueError
            If ids have another shape or do not fit int64, an id is repeated, `missing` is unknown,
            or the index is read-only.

        Notes
        -----
        No search that begins later returns them. A few removed rows stay in the graph as ways
        through; when there are more than 32, or more than 1/256 of all, the graph is mended around
        them, their content is wiped, and later additions use their place. The index keeps its size
        until `compact`; docs/deleting.md has figures.

        After any exception the index is as it was before the call; KeyboardInterrupt may also come
        when all of it is done: `len` and `in` tell.
        Threads: one writer at a time, a second waits; searches go on meanwhile.
        Source: FreshDiskANN, arXiv:2105.09613.

        Examples
        --------
        >>> import vicinal
        >>> index = vicinal.Index(2)
        >>> index.add([[0, 0], [3, 4], [1, 1]])
        array([0, 1, 2])
        >>> index.remove([0, 2])
        >>> index.search([0, 0], k=2)
        SearchResult(ids=array([ 1, -1]), distances=array([25., inf], dtype=float32))
        """
        self._must_be_writable()
        if missing not in _MISSING:
            raise ValueError(f"missing: expected 'error' or 'ignore', got {reprlib.repr(missing)}")
        threads = _validate.thread_count(num_threads)
        wanted = self._wanted(ids)
        with self._writing.held():
            if missing == "ignore":
                rows = self._rows(self._numbers(wanted))
                rows = rows[rows >= 0]
            else:
                rows = self._known_rows(wanted)
            _validate.refuse_repeats(wanted)
            with reporting(progress, len(rows)) as report:
                status = native.index_remove(self._handle, rows, threads, report)
        if status:
            raise RuntimeError(f"index: row {status // 8} could not be removed")

    def compact(
        self, *, num_threads: int | None = None, progress: bool | Report | None = None
    ) -> None:
        """Build the index anew from the vectors that it holds, in as little memory as they need.

        Removed rows go, the graph is linked as if all vectors had been added at once in the order
        of `ids`, and the codes that it is walked on are chosen and made anew. Ids and their order
        stay as they are; so does the text of strings that were ids once.

        Parameters
        ----------
        num_threads : int, optional
            Threads to use, at least 1; by default as many as `vicinal.get_num_threads` tells.
        progress : bool or callable, optional
            As for `add`.

        Raises
        ------
        MemoryError
            If there is no memory for the new index beside the old one.
        TypeError
            If an argument is of the wrong kind.
        ValueError
            If the index is read-only.

        Notes
        -----
        Takes as long as adding all vectors again, and memory for both indexes until it is done.
        After any exception the index is as it was before the call; KeyboardInterrupt may also come
        when all of it is done: `len` and `in` tell.
        Threads: one writer at a time, a second waits; searches go on in the old index meanwhile.
        """
        self._must_be_writable()
        threads = _validate.thread_count(num_threads)
        with self._writing.held(), reporting(progress, len(self)) as report:
            handle = native.index_compact(self._handle, threads, report)
            # Strings first: they name what searches find in either, and those under way use both.
            self._strings = StringIds.of(handle, self._path)
            self._handle = handle

    # ---- what they share

    def _put(
        self,
        rows: NDArray[Any],
        given: NDArray[Any],
        ids: NDArray[Any] | None,
        replaces: bool,
        threads: int,
        progress: bool | Report | None,
        some: NDArray[np.intp] | None = None,
        lent: bool = False,
        origin: tuple[Any, NDArray[np.int64]] | None = None,
    ) -> NDArray[np.int64]:
        """Write rows, or those at the positions `some`, or let them stay where they are if `lent`.

        The caller holds the writer's lock.

        `origin` names a native index that holds the same rows, and their numbers there.
        Returns their ids as the native code knows them.
        """
        names = ids
        if some is not None and ids is not None and len(some) < len(ids):
            rows_written, names = rows[some], ids[some]
        else:
            rows_written, some = rows, None
        with (
            reporting(progress, len(rows_written)) as report,
            self._numbered(names) as numbers,
        ):
            new = np.empty(len(rows), np.int64) if numbers is None else numbers.copy()
            named = numbers is not None
            status = native.index_add(
                self._handle,
                rows_written,
                new,
                named,
                replaces,
                threads,
                report,
                lent,
                *(origin or (None, new)),
            )
            if status:
                position, kind = divmod(status, 8)
                if some is not None:
                    position = int(some[position])
                if kind == _DUPLICATE_ID:
                    self._refuse_id(ids, position)
                _validate.refuse_rows(position * 8 + kind, "vectors", rows, given)
        return new

    def _wanted(self, ids: ArrayLike) -> NDArray[Any]:
        """Return ids that should be there as an array of integers or strings of shape (n,)."""
        wanted = _validate.as_ids(ids) if self._strings is None else as_strings(ids)
        if wanted.ndim > 1:
            raise ValueError(f"ids: expected one id or shape (n,), got {wanted.shape}")
        return wanted.reshape(-1)

    def _numbers(self, ids: NDArray[Any]) -> NDArray[np.int64]:
        """Return ids that may be there as the native code knows them."""
        return ids if self._strings is None else self._strings.to_numbers(ids)

    def _known_rows(self, ids: NDArray[Any]) -> NDArray[np.int64]:
        """Return the row of each id, all of which must be there."""
        rows = self._rows(self._numbers(ids))
        unknown = np.flatnonzero(rows < 0)
        if len(unknown):
            raise KeyError(f"ids: {_validate.shown(ids[unknown[0]])} is not in the index")
        return rows

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
        _validate.refuse_repeats(ids[: position + 1])
        value = _validate.shown(ids[position])
        raise ValueError(f"ids: {value} at position {position} is already in the index")
