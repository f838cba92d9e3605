"""Exact search: the nearest rows of an array, by measuring them all."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vicinal import _kinds, _validate
from vicinal._borrowed import on_disk, shared_map
from vicinal._cpu import native
from vicinal.result import SearchResult, of_metric

__all__ = ["exact_search"]

Array = np.ndarray[Any, np.dtype[Any]]

DEFAULT_MEMORY = 256 << 20
MAX_DIM = 65536
# Answers of the native code have this bit set when a query was refused, not a row of the base.
_IN_QUERIES = 1 << 62
_AT_ONCE = 1 << 20  # values converted at a time


def exact_search(
    base: ArrayLike,
    queries: ArrayLike,
    k: int = 10,
    metric: str = "l2",
    *,
    num_threads: int | None = None,
    max_memory: int | None = None,
    dtype: object = None,
) -> SearchResult:
    """Find the k nearest rows of each query, without an index and without error.

    Parameters
    ----------
    base : array_like of shape (n, dim), dim from 1 to 65536
        Rows to search: float32, float16, bfloat16, int8 or uint8. Other integers and floats are
        rounded to float32. A C-contiguous array is used where it lies and is never copied; it may
        be a `numpy.memmap` larger than memory. Any other array is copied block by block, within
        `max_memory`.
    queries : array_like of shape (dim,) or (m, dim)
        Converted to float32, for int8 and uint8 rows to those (values must fit exactly).
    k : int, >= 1
        Neighbours wanted.
    metric : {"l2", "ip", "cosine", "hamming", "jaccard"}
        Squared Euclidean distance, 1 - dot product, 1 - cosine, or the bits that differ of uint8
        rows, each value of which holds eight. Smaller is nearer for each.
    num_threads : int, >= 1, optional
        Threads to use; by default as many as `vicinal.get_num_threads` tells.
    max_memory : int, >= 1, optional
        Bytes that the call may use besides `base`, `queries` converted and the result; by default
        256 MiB. The need does not grow with n. Less memory means more passes over `base`; what one
        query needs (some 100 bytes and 24 for each neighbour, for each thread) is always taken, and
        where rows have to be copied, room for a few times k of them.
    dtype : str or dtype, optional
        "bfloat16" says that `base` is uint16 because it holds the bits of bfloat16 values (uint16
        queries are then taken the same way). `ml_dtypes.bfloat16` arrays need not be announced.

    Returns
    -------
    SearchResult
        `ids` are row numbers, int64, and `distances` float32, nearest first; (k,) for one query,
        (m, k) for m. Equal distances come in order of row. -1 and infinity where n < k.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If a shape or number is out of range, a vector holds NaN or infinity or has a squared length
        above 8e37, or, for cosine, is a zero vector, or, for others, has elements that are not all
        0 but below 1e-19 on average. Every row is looked at.

    Notes
    -----
    The result does not depend on `num_threads` or `max_memory`. Sums over int8 and uint8 are exact;
    floats are summed in float32, so rows whose distances differ by less than that rounding may
    change places.

    Pages of a shared memory map (`numpy.memmap` with mode "r", "r+" or "w+") are let go as soon as
    they are read, so the process does not grow with the file.

    Safe from many threads at once, as long as nobody writes to the arrays. Ctrl-C ends a long call.

    Examples
    --------
    >>> import numpy as np
    >>> from vicinal import exact_search
    >>> base = np.array([[0, 0], [3, 4], [6, 8]], np.float32)
    >>> exact_search(base, [3, 3], k=2)
    SearchResult(ids=array([1, 0]), distances=array([ 1., 18.], dtype=float32))
    """
    metric = _kinds.metric_name(metric)
    wanted = _validate.whole_number(k, "k", 1, _validate.MAX_COUNT)
    threads = _validate.thread_count(num_threads)
    budget = DEFAULT_MEMORY
    if max_memory is not None:
        budget = _validate.whole_number(max_memory, "max_memory", 1, 2**62)
    given = base if isinstance(base, np.ndarray) else _validate.as_numbers(base, "base")
    if given.ndim != 2 or not 1 <= given.shape[1] <= MAX_DIM:
        raise ValueError(f"base: expected (n, dim) with dim from 1 to {MAX_DIM}, got {given.shape}")
    if len(given) > _validate.MAX_COUNT:
        raise ValueError(f"base: expected at most {_validate.MAX_COUNT} rows, got {len(given)}")
    name = _stored_dtype(given, dtype)
    if metric in _kinds.BIT_METRICS and name == "uint8":
        name = _kinds.PACKED
    codes = _kinds.native_codes(metric, name)
    rows, given_queries = _validate.as_rows(queries, "queries", given.shape[1], name, queries=True)
    _validate.room_for_results(len(rows), wanted, len(given))

    def refuse(status: int, row: int) -> NoReturn:
        if status & _IN_QUERIES:
            _validate.refuse_rows(status ^ _IN_QUERIES, "queries", rows, given_queries)
        # only shape and dtype of the rows as they were converted are looked at
        like = np.broadcast_to(np.zeros((), _kinds.STORED_DTYPES[name]), given.shape)
        _validate.refuse_rows(status % 8 + 8 * row, "base", like, given)

    call = _Call(*codes, wanted, threads, refuse)
    stored = _as_it_lies(given, name)
    if stored is None:
        result = _in_blocks(call, given, name, rows, budget)
    else:
        mapped = 0 if shared_map(given) is None else 2 if on_disk(stored) else 1
        result = call.search(stored, rows, budget, mapped=mapped)
    found = of_metric(metric, 8 * given.shape[1])
    if given_queries.ndim == 1:
        return found(result.ids[0], result.distances[0])
    return found(*result)


class _Call(NamedTuple):
    """What all native calls of one search have in common."""

    metric: int
    dtype: int
    k: int
    threads: int
    refuse: Callable[[int, int], NoReturn]

    def search(
        self,
        stored: Array,
        queries: Array,
        budget: int,
        *,
        mapped: int = 0,
        numbers: NDArray[np.int64] | None = None,
    ) -> SearchResult:
        """Search rows in the form the native code takes; `numbers` are theirs in the base."""
        ids = np.empty((len(queries), self.k), np.int64)
        distances = np.empty((len(queries), self.k), np.float32)
        status = native.exact_search(
            *(self.metric, self.dtype, stored, queries, self.k, self.threads, budget),
            *(ids, distances, mapped),
        )
        if status:
            row = 0 if status & _IN_QUERIES else status // 8
            self.refuse(status, row if numbers is None else int(numbers[row]))
        return SearchResult(ids, distances)


def _in_blocks(call: _Call, base: Array, name: str, queries: Array, budget: int) -> SearchResult:
    """Search rows that have to be converted, some at a time.

    The rows found so far are put in front of the next ones, so every search sees all rows that may
    be in the result, in order of row, and its order is the order of one search of all rows.
    """
    n, dim = base.shape
    kept = min(call.k, n)
    target = _kinds.STORED_DTYPES[name]
    room = min(n, max(budget // 4 // (dim * target.itemsize), 4 * kept, 16))
    # at most half of the room for rows found before
    group = max(1, len(queries) if room == n else room // 2 // kept)
    result = SearchResult(
        np.full((len(queries), call.k), -1, np.int64),
        np.full((len(queries), call.k), np.inf, np.float32),
    )
    rows = np.empty((room, dim), target)
    numbers = np.empty(room, np.int64)
    # one round even without queries: the rows have to be checked
    for first in range(0, max(1, len(queries)), group):
        part = slice(first, first + group)
        held = start = 0
        while start < n:
            stop = min(n, start + room - held)
            filled = held + stop - start
            _convert(base, start, stop, name, rows[held:filled])
            numbers[held:filled] = np.arange(start, stop)
            found = call.search(rows[:filled], queries[part], budget // 2 + 1, numbers=numbers)
            exist = found.ids >= 0
            result.ids[part] = np.where(exist, numbers[found.ids], -1)
            result.distances[part] = found.distances
            keep = np.unique(found.ids[exist])
            held = len(keep)
            rows[:held] = rows[keep]
            numbers[:held] = numbers[keep]
            start = stop
    return result


def _convert(base: Array, start: int, stop: int, name: str, rows: Array) -> None:
    """Convert rows start .. stop-1 of the base into `rows`, a few MB at a time."""
    pages = shared_map(base)
    step = max(1, _AT_ONCE // base.shape[1])
    for begin in range(start, stop, step):
        end = min(stop, begin + step)
        block, _ = _validate.as_rows(base[begin:end], "base", base.shape[1], name)
        rows[begin - start : end - start] = block
        if pages is not None:
            pages.madvise(mmap.MADV_DONTNEED)


def _stored_dtype(base: Array, dtype: object) -> str:
    """Return the name of the dtype that rows of `base` are measured in."""
    bits = base.dtype.kind == "u" and base.dtype.itemsize == 2
    own = base.dtype.name if base.dtype.name in _kinds.DTYPES else "float32"
    if dtype is None:
        if bits:
            raise ValueError(
                "base: uint16 may be the bits of bfloat16 values, which dtype='bfloat16' says, or "
                "numbers, which have to be converted to float32"
            )
        return own
    name = _kinds.dtype_name(dtype)
    if name != ("bfloat16" if bits else own):
        raise ValueError(f"dtype: {name!r} was given, but base is {base.dtype}; convert it first")
    return name


def _as_it_lies(base: Array, name: str) -> Array | None:
    """Return `base` as the native code takes it, or None if that would be a copy."""
    target = _kinds.STORED_DTYPES[name]
    if not base.flags.c_contiguous or not base.flags.aligned or hasattr(base, "mask"):
        return None
    if name == "bfloat16" and base.dtype.name == name:
        return base.view(target)
    # == alone would take the other byte order for equal
    return base if base.dtype == target and base.dtype.isnative else None
