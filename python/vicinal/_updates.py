"""Changing an index: adding, replacing and removing vectors, building it anew."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vicinal import _scale, _validate
from vicinal._borrowed import can_borrow, copy_mode, on_disk
from vicinal._combining import Batch
from vicinal._cpu import native
from vicinal._logging import logged
from vicinal._progress import Report, reporting
from vicinal._state import State
from vicinal._string_ids import StringIds, as_strings

if TYPE_CHECKING:
    from vicinal.vectors_io import VectorSource

__all__ = [
    "add",
    "check_conflict",
    "compact",
    "numbers_of",
    "refuse_id",
    "remove",
    "rows_of",
    "update",
    "write_rows",
]

_DUPLICATE_ID = 4  # of native.index_add, beside the kinds of _validate.refuse_rows
_MISSING = ("error", "ignore")
_CONFLICTS = ("error", "update", "skip")
_MANY_ROWS = 1 << 16  # fewer are never linked in parts; see parts/_sizes.py
_UNNOTED: AbstractContextManager[None] = nullcontext()


@logged
def add(
    index: State,
    vectors: ArrayLike | VectorSource | Iterator[Any],
    ids: ArrayLike | None,
    on_conflict: str,
    copy: bool | None,
    num_threads: int | None,
    progress: bool | Report | None,
) -> NDArray[Any]:
    """See `Index.add`."""
    index._require_writable()
    if not isinstance(vectors, np.ndarray):
        if hasattr(vectors, "pieces"):
            from vicinal.vectors_io._to_index import add_source

            return add_source(index, vectors, ids, on_conflict, copy, num_threads, progress)
        if hasattr(vectors, "__next__"):
            from vicinal._deferred import add_batches

            return add_batches(index, vectors, ids, on_conflict, copy, num_threads, progress)
    if on_conflict != "error":
        check_conflict(on_conflict)
    threads = _validate.thread_count(num_threads)
    mode = copy if copy is True else copy_mode(copy)
    stored = vectors if index._scale is None else _scale.as_stored(index, vectors)
    rows, given = _validate.as_rows(stored, "vectors", index._dim, index._dtype)
    new_ids = _ids_of_new_rows(index, ids)
    if new_ids is not None and new_ids.ndim == 0 and len(rows) == 1:
        new_ids = new_ids.reshape(1)
    if new_ids is not None and new_ids.shape != (len(rows),):
        raise ValueError(f"ids: expected ({len(rows)},), got {new_ids.shape}")
    if (
        mode is True
        and on_conflict != "skip"
        and (progress is None or progress is False)
        and index._combiner.serves(len(rows))
        and not index._writer_lock.holds_any()
    ):
        batch = Batch(rows, given, new_ids, on_conflict == "update", threads)
        internal = index._combiner.add(write_rows, index, batch)
        return index._to_external(internal) if new_ids is None else new_ids.copy()
    with index._writer_lock.held():
        borrow = mode is not True and can_borrow(mode, index._handle, vectors, rows)
        only = None
        if new_ids is not None and on_conflict == "skip":
            _validate.refuse_repeats(new_ids)
            only = np.flatnonzero(index._find_rows(numbers_of(index, new_ids)) < 0)
        internal = write_rows(
            index,
            rows,
            given,
            new_ids,
            threads,
            progress,
            replace=on_conflict == "update",
            only=only,
            borrow=borrow,
        )
    return index._to_external(internal) if new_ids is None else new_ids.copy()


@logged
def update(
    index: State,
    vectors: ArrayLike,
    ids: ArrayLike,
    num_threads: int | None,
    progress: bool | Report | None,
) -> None:
    """See `Index.update`."""
    index._require_writable()
    threads = _validate.thread_count(num_threads)
    stored = vectors if index._scale is None else _scale.as_stored(index, vectors)
    rows, given = _validate.as_rows(stored, "vectors", index._dim, index._dtype)
    known = _ids_of_present_rows(index, ids)
    if len(known) != len(rows):
        raise ValueError(f"ids: expected ({len(rows)},), got {known.shape}")
    with index._writer_lock.held():
        rows_of(index, known)
        write_rows(index, rows, given, known, threads, progress, replace=True)


@logged
def remove(
    index: State,
    ids: ArrayLike,
    missing: str,
    num_threads: int | None,
    progress: bool | Report | None,
) -> None:
    """See `Index.remove`."""
    index._require_writable()
    if missing not in _MISSING:
        raise ValueError(f"missing: expected 'error' or 'ignore', got {reprlib.repr(missing)}")
    threads = _validate.thread_count(num_threads)
    known = _ids_of_present_rows(index, ids)
    with index._writer_lock.held():
        if missing == "ignore":
            rows = index._find_rows(numbers_of(index, known))
            rows = rows[rows >= 0]
        else:
            rows = rows_of(index, known)
        _validate.refuse_repeats(known)
        with (
            _noted(index, lambda log: log.removed(known)),
            reporting(progress, len(rows)) as report,
        ):
            status = native.index_remove(index._handle, rows, threads, report)
    if status:
        raise RuntimeError(f"index: row {status // 8} could not be removed")


@logged
def compact(index: State, num_threads: int | None, progress: bool | Report | None) -> None:
    """See `Index.compact`."""
    index._require_writable()
    threads = _validate.thread_count(num_threads)
    with index._writer_lock.held(), reporting(progress, len(index)) as report:
        handle = native.index_compact(index._handle, threads, report)
        # Strings first: they name what searches find in either, and those under way use both.
        index._strings = StringIds.of(handle, index._path)
        # Changes are counted anew: what was true after as many of them before need not be so now.
        index._compactions += 1
        index._handle = handle
        index._compactions += 1
        if index._log is not None:
            index._log.compacted()


def check_conflict(on_conflict: str) -> None:
    """Refuse what `on_conflict` cannot be."""
    if on_conflict not in _CONFLICTS:
        raise ValueError(
            f"on_conflict: expected 'error', 'update' or 'skip', got {reprlib.repr(on_conflict)}"
        )


def write_rows(
    index: State,
    rows: NDArray[Any],
    given: NDArray[Any],
    ids: NDArray[Any] | None,
    threads: int,
    progress: bool | Report | None,
    *,
    replace: bool = False,
    only: NDArray[np.intp] | None = None,
    borrow: bool = False,
    origin: tuple[Any, NDArray[np.int64]] | None = None,
) -> NDArray[np.int64]:
    """Add rows, or replace those of ids that are there; the caller holds the writer's lock.

    Parameters
    ----------
    rows, given : ndarray
        As `_validate.as_rows` returned them.
    ids : ndarray or None
        External ids, None for automatic ones.
    only : ndarray or None
        Positions of the rows to write; None: all of them.
    borrow : bool
        Leave the rows where they are.
    origin : tuple or None
        A native index that holds the same rows, and their row numbers there.

    Returns
    -------
    ndarray of int64
        The internal ids.
    """
    silent = progress is None or progress is False
    plain = only is None and origin is None and not borrow and len(rows) < _MANY_ROWS
    if silent and plain and index._log is None and index._strings is None:
        # as below, for calls of few rows, which would notice what comes with it
        internal = np.empty(len(rows), np.int64) if ids is None else ids.copy()
        status = native.index_add(
            index._handle,
            rows,
            internal,
            ids is not None,
            replace,
            threads,
            None,
            0,
            None,
            internal,
        )
        if status:
            _refuse(status, rows, given, ids, None)
        return internal
    written, written_ids = rows, ids
    if only is not None and ids is not None and len(only) < len(ids):
        written, written_ids = rows[only], ids[only]
    else:
        only = None

    at_once = False
    if len(written) >= _MANY_ROWS and not (replace or borrow or origin or only is not None):
        from vicinal.parts._at_once import add_at_once, comes_first

        at_once = comes_first(index, len(written))

    def written_by(numbers: NDArray[np.int64] | None, report: Report | None) -> NDArray[np.int64]:
        internal = np.empty(len(rows), np.int64) if numbers is None else numbers.copy()
        names = internal if written_ids is None else written_ids
        with _noted(index, lambda log: log.wrote(names, written)):
            if at_once:
                status = add_at_once(index, written, internal, numbers is not None, threads, report)
            else:
                status = native.index_add(
                    index._handle,
                    written,
                    internal,
                    numbers is not None,
                    replace,
                    threads,
                    report,
                    2 if borrow and on_disk(written) else int(borrow),
                    *(origin or (None, internal)),
                )
        if status:
            _refuse(status, rows, given, ids, only)
        return internal

    if silent and (ids is None or index._strings is None):
        return written_by(written_ids, None)
    with (
        reporting(progress, len(written)) as report,
        index._allocate_internal(written_ids) as numbers,
    ):
        return written_by(numbers, report)


def _refuse(
    status: int,
    rows: NDArray[Any],
    given: NDArray[Any],
    ids: NDArray[Any] | None,
    only: NDArray[np.intp] | None,
) -> NoReturn:
    """Raise what `native.index_add` found wrong; `only`: positions of the rows that it got."""
    position, kind = divmod(status, 8)
    if only is not None:
        position = int(only[position])
    if kind == _DUPLICATE_ID:
        refuse_id(ids, position)
    _validate.refuse_rows(position * 8 + kind, "vectors", rows, given)


def _noted(index: State, note: Callable[[Any], None]) -> AbstractContextManager[None]:
    """Let a living file take note of a change that a `with` block makes, if it takes effect."""
    return _UNNOTED if index._log is None else _noting(index, note)


@contextmanager
def _noting(index: State, note: Callable[[Any], None]) -> Iterator[None]:
    index._log.require_open()  # somebody may have closed it while this one waited
    before = index._changes()
    try:
        yield
    finally:
        if index._changes() != before:  # also where Ctrl-C came after the last row
            index._log.begun_at(before)
            note(index._log)


def rows_of(index: State, ids: NDArray[Any]) -> NDArray[np.int64]:
    """Return the row of each external id, all of which must be there."""
    rows = index._find_rows(numbers_of(index, ids))
    unknown = np.flatnonzero(rows < 0)
    if len(unknown):
        raise KeyError(f"ids: {_validate.shown(ids[unknown[0]])} is not in the index")
    return rows


def numbers_of(index: State, ids: NDArray[Any]) -> NDArray[np.int64]:
    """Return checked external ids as internal ones, -1 for unknown strings."""
    return ids if index._strings is None else index._strings.to_numbers(ids)


def _ids_of_present_rows(index: State, ids: ArrayLike) -> NDArray[Any]:
    """Return ids that should be there as an array of integers or strings of shape (n,)."""
    known = _validate.as_ids(ids) if index._strings is None else as_strings(ids)
    if known.ndim > 1:
        raise ValueError(f"ids: expected one id or shape (n,), got {known.shape}")
    return known.reshape(-1)


def _ids_of_new_rows(index: State, ids: ArrayLike | None) -> NDArray[Any] | None:
    """Return ids of rows to be added as an array of integers or strings, None for automatic."""
    if index._strings is None:
        return None if ids is None else _validate.as_ids(ids)
    if ids is None:
        raise ValueError('ids: expected strings, got None; an index with ids="str" makes none')
    return as_strings(ids)


def refuse_id(ids: NDArray[Any] | None, position: int) -> NoReturn:
    """Raise what is wrong with an id of a batch; with automatic ones it is that there are none."""
    if ids is None:
        raise ValueError("ids: no automatic ones are left below 2**63; give ids of your own")
    _validate.refuse_repeats(ids[: position + 1])
    value = _validate.shown(ids[position])
    raise ValueError(f"ids: {value} at position {position} is already in the index")
