"""What `filter=` may be, turned into what the native code takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from vicinal import _validate

__all__ = ["BITS", "IDS", "NONE", "NativeFilters", "as_filter", "as_filters", "is_list"]

FLAGS, BITS, IDS, NONE = b"b", b"p", b"i", b"n"

_PLAIN = (int, float, str, bytes, np.generic)  # what is one id, or none that can be

ToInternal = Callable[[Any, str], tuple[NDArray[np.int64], Any]]


class NativeFilters(NamedTuple):
    """Distinct filters of a call and which of them each query has.

    `arrays` holds uint8 with a byte for each row where `kinds` has "b", with a bit for each and
    behind them the number of rows in eight bytes where it has "p", int64 ids where it has "i", None
    where it has "n": all rows are allowed. `which` numbers them, one for each query.
    """

    arrays: tuple[NDArray[Any] | None, ...]
    kinds: bytes
    which: NDArray[np.int64]


class Kept(Protocol):
    """A filter that was prepared: `vicinal._kept_filter.Filter`, which imports this module."""

    def _as_array(self, *, by_ids: bool) -> tuple[NDArray[Any], bytes]: ...


def as_filters(
    given: Any, rows: int, queries: int, to_internal: ToInternal, *, by_ids: bool = False
) -> NativeFilters:
    """Check a filter.

    Parameters
    ----------
    given : None, array_like, or list
        A boolean array with an item for each row, an array of ids, None for all rows, or a
        list or tuple with one of these for each query.
    rows : int
        Rows of the index.
    queries : int
        Queries of the call.
    to_internal : callable
        Turns ids, given with the argument's name, into int64.
    by_ids : bool
        Hand kept filters on as ids, not as bits, which are of one moment.

    Raises
    ------
    TypeError
        If it is none of these, for instance of floats.
    ValueError
        If it has the wrong shape, or a list is not as long as there are queries.
    """
    which = np.zeros(queries, dtype=np.int64)
    if not is_list(given):
        array, kind = as_filter(given, "filter", rows, to_internal, by_ids)
        return NativeFilters((array,), kind, which)
    if len(given) != queries:
        raise ValueError(
            f"filter: expected a list with one for each of {queries} queries, got {len(given)}"
        )
    arrays: list[NDArray[Any] | None] = []
    kinds: list[bytes] = []
    numbers: dict[int, int] = {}  # the same object for several queries is one filter
    for position, item in enumerate(given):
        number = numbers.setdefault(id(item), len(arrays))
        if number == len(arrays):
            name = f"filter: item {position}"
            array, kind = as_filter(item, name, rows, to_internal, by_ids)
            arrays.append(array)
            kinds.append(kind)
        which[position] = number
    return NativeFilters(tuple(arrays), b"".join(kinds), which)


def is_list(given: Any) -> bool:
    """Tell whether it is one filter for each query; a list of plain ids is a single one."""
    if not isinstance(given, (list, tuple)):
        return False
    # Lists of ids are long and of few types: only of others each item is asked.
    others = tuple(kind for kind in set(map(type, given)) if not issubclass(kind, _PLAIN))
    asked = filter(lambda item: isinstance(item, others), given) if others else ()
    return any(
        item is None
        or isinstance(item, (list, tuple))
        or hasattr(item, "_as_array")
        or np.ndim(item) != 0
        for item in asked
    )


def as_filter(
    given: Any, name: str, rows: int, to_internal: ToInternal, by_ids: bool = False
) -> tuple[NDArray[Any] | None, bytes]:
    """Return one filter and its kind."""
    if given is None:
        return None, NONE
    if hasattr(given, "_as_array"):
        kept: Kept = given
        return kept._as_array(by_ids=by_ids)
    if isinstance(given, (list, tuple)) and len(given) == 0:
        return np.empty(0, dtype=np.int64), IDS
    wanted = f"{name}: expected booleans of shape ({rows},) or ids of shape (n,), got "
    if isinstance(given, (list, tuple)) and isinstance(given[0], str):
        return to_internal(given, name)[0], IDS
    array = _validate.as_array(given, name, "booleans or ids")
    _validate.refuse_unordered(given, array, name, "booleans or ids")
    if isinstance(given, (str, bytes)) or array.ndim != 1:
        kind = ValueError if isinstance(given, np.ndarray) or array.ndim > 1 else TypeError
        what = f"shape {array.shape}" if kind is ValueError else type(given).__name__
        hint = "; index.filter(function) makes a filter of it" if callable(given) else ""
        raise kind(f"{wanted}{what}{hint}")
    if array.dtype.kind == "b":
        if len(array) != rows:
            raise ValueError(f"{wanted}{len(array)} booleans")
        return np.ascontiguousarray(array).view(np.uint8), FLAGS
    if array.dtype.kind in "iu":
        if len(array) == rows and _is_mask(array):
            raise ValueError(
                f"{wanted}{rows} integers, all of them 0 or 1: booleans are made of them by "
                "np.asarray(filter, dtype=bool); as ids, 0 and 1 need to be given once only"
            )
        given = array  # made once; other lists are for `to_internal` to look at
    return to_internal(given, name)[0], IDS


def _is_mask(array: NDArray[Any]) -> bool:
    """Tell whether integers, one for each row, are meant for booleans: 0 and 1, not each once."""
    return len(array) > len(set(array[:3].tolist())) and bool(((array == 0) | (array == 1)).all())
