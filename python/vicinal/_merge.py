"""Making one index of several."""

from __future__ import annotations

from typing import Any, TypeVar

from numpy.typing import NDArray

from vicinal import _info, _search, _storage, _updates, _validate
from vicinal._logging import logged
from vicinal._persistence import own_attributes
from vicinal._progress import Report
from vicinal._state import State

__all__ = ["in_order", "merge"]

# Numbers of the native index that decide, besides the vectors, what an index becomes.
_DECIDING = (_info.EXACT_BELOW, _info.QUANTIZATION, _info.DTYPE, _info.WALK_DIM)

Index = TypeVar("Index", bound=State)


@logged
def merge(
    index: State, other: State, num_threads: int | None, progress: bool | Report | None
) -> NDArray[Any]:
    """See `Index.merge`."""
    if not isinstance(other, State):
        raise TypeError(f"other: expected an Index, got {type(other).__name__}")
    if other is index:
        raise ValueError("other: expected another index, got this one")
    mine, theirs = _kind(index), _kind(other)
    if mine != theirs:
        name = next(key for key in mine if mine[key] != theirs[key])
        raise ValueError(f"other: expected {name}={mine[name]!r}, got {theirs[name]!r}")
    index._require_writable()
    threads = _validate.thread_count(num_threads)
    while True:
        with index._writer_lock.held():
            second = other._writer_lock.held_if_free()
            if second is not None:
                with second:
                    return _add_all_of(index, other, threads, progress)
        # Waits with neither lock held, so that two threads cannot wait for each other.
        other._writer_lock.wait()


def _add_all_of(
    index: State, other: State, threads: int, progress: bool | Report | None
) -> NDArray[Any]:
    """Add all vectors of another index; the caller holds the writer's lock of both."""
    ids = other._to_external(other._internal_ids())
    vectors = _search.get(other, ids)
    rows, given = _validate.as_rows(vectors, "other", index._dim, index._dtype)
    origin = (other._handle, _updates.rows_of(other, ids))
    _updates.write_rows(index, rows, given, ids, threads, progress, origin=origin)
    return ids


def in_order(indexes: tuple[Index, ...]) -> list[Index]:
    """Return which index to copy, and after it those to merge into the copy: the largest one first.

    They change places only if the result is the same kind of index either way.
    """
    for number, index in enumerate(indexes):
        if not isinstance(index, State):
            raise TypeError(f"indexes: expected an Index, got {type(index).__name__} at {number}")
        if any(index is other for other in indexes[:number]):
            raise ValueError(f"indexes: expected each once, got one again at {number}")
    a = indexes[0]
    alike = all(
        own_attributes(each) is None
        and type(each) is type(a)
        and _kind(each) == _kind(a)
        and _parameters(each) == _parameters(a)
        for each in indexes
    )
    largest = max(indexes, key=len) if alike else a
    return [largest, *(each for each in indexes if each is not largest)]


def _kind(index: State) -> dict[str, Any]:
    """Return what two indexes must have in common."""
    return {
        "dim": index._dim,
        "metric": index._metric,
        "dtype": index._dtype,
        "ids": "int64" if index._strings is None else "str",
        "keep_vectors": _storage.alone(index._handle) is None,
        "scale": index._scale,
    }


def _parameters(index: State) -> tuple[Any, ...]:
    """Return what decides, besides the vectors, what an index becomes."""
    asked = (_info.number(index._handle, each) for each in _DECIDING)
    return (index._M, index._ef_construction, index._seed, index._ef_search, *asked)
