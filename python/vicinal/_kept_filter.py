"""Filters that are prepared once and kept: sets of ids, and what `&`, `|` and `~` make of them.

A filter is a small tree: leaves are sets of ids, inner nodes combine. What it allows is asked of
the ids that an index has at some moment, so that it stays true to its ids whatever rows come and
go; the answer, a byte and a bit for each row, is kept for as long as the index does not change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vicinal import _info
from vicinal._filters import BITS, IDS, NONE, as_filter
from vicinal._state import State

__all__ = ["Filter", "belong", "combined", "prepare"]

Mask = NDArray[np.bool_]
Moment = tuple[int, int]
Allowed = tuple[Moment, Mask, int, NDArray[np.uint8]]
_TRIES = 3  # to see the index unchanged while a filter is asked; after that ids are handed on
_AND, _OR, _NOT = "&|~"


class Filter:
    """Rows that searches may return, prepared once; `Index.filter` makes it.

    `a & b`, `a | b` and `~a` are filters too, `len(a)` is the number of rows allowed now, `id in a`
    tells of one. A filter is a set of ids, `~` of one all other ids: of rows that are added later
    `~a` allows those that `a` does not, and `a` those whose ids it was given.

    Notes
    -----
    Takes 9 bits for each row of the index, and 8 bytes for each id. Threads: safe at any time, also
    while the index is changed.

    Examples
    --------
    >>> import numpy as np, vicinal
    >>> index = vicinal.Index(2)
    >>> _ = index.add(np.arange(12).reshape(6, 2))
    >>> even = index.filter(lambda ids: ids % 2 == 0)
    >>> index.search([0, 1], k=2, filter=even & ~index.filter([0])).ids
    array([2, 4])
    >>> index.remove([2])
    >>> len(even), index.search([0, 1], k=2, filter=even).ids
    (2, array([0, 4]))
    """

    __slots__ = ("_index", "_kept", "_numbers", "_operation", "_parts", "_unknown")

    _index: State
    _operation: str  # of inner nodes; leaves have none
    _parts: tuple[Filter, ...]
    _numbers: NDArray[np.int64]  # of leaves: internal ids, each once, ascending
    _unknown: NDArray[Any] | None  # of leaves: strings that were no ids when it was made
    # what was allowed at some moment, how many rows, and the same as bits for the native code
    _kept: Allowed | None

    def __init__(self) -> None:
        raise TypeError("Filter: index.filter(...) makes one")

    @classmethod
    def _make(
        cls,
        index: State,
        operation: str = "",
        parts: tuple[Filter, ...] = (),
        numbers: NDArray[np.int64] | None = None,
        unknown: NDArray[Any] | None = None,
    ) -> Filter:
        made = object.__new__(cls)
        made._index, made._operation, made._parts = index, operation, parts
        made._numbers = np.empty(0, np.int64) if numbers is None else numbers
        made._unknown = unknown
        made._kept = None
        return made

    def __and__(self, other: Filter) -> Filter:
        return self._with(_AND, other)

    def __or__(self, other: Filter) -> Filter:
        return self._with(_OR, other)

    def __invert__(self) -> Filter:
        return self._make(self._index, _NOT, (self,))

    def _with(self, operation: str, other: Filter) -> Filter:
        if not isinstance(other, Filter):
            return NotImplemented
        if other._index is not self._index:
            raise ValueError("filter: expected two of one index, got filters of two")
        return self._make(self._index, operation, (self, other))

    def __len__(self) -> int:
        allowed = self._allowed()
        return allowed[2] if isinstance(allowed, tuple) else len(allowed)

    def __contains__(self, id: Any) -> bool:
        if id not in self._index:
            return False
        internal = self._index._to_internal([id])[0]
        return bool(self._of(internal)[0])

    @property
    def ids(self) -> NDArray[Any]:
        """Ids of the rows allowed now, in the order of `Index.ids`, a new array."""
        return self._index._to_external(self._allowed_ids())

    def __repr__(self) -> str:
        return f"vicinal.Filter that allows {len(self)} of {len(self._index)} rows"

    # ---- what it allows

    def _as_array(self, *, by_ids: bool) -> tuple[NDArray[Any], bytes]:
        """Return the filter and its kind, as `as_filters` hands it to the native code.

        Bits are right for as long as the index does not change, ids always.
        """
        if not by_ids:
            allowed = self._allowed()
            if isinstance(allowed, tuple):
                return allowed[3], BITS
            return allowed, IDS
        return self._allowed_ids(), IDS

    def _allowed(self) -> Allowed | NDArray[np.int64]:
        """Return what is allowed now; ids where others change the index all the time."""
        index = self._index
        kept = moment = None
        for _ in range(_TRIES):
            moment = index._moment()
            kept = self._kept
            if kept is not None and kept[0] == moment:
                return kept
            # masks that are kept are as long as this one only if nothing has changed meanwhile
            if _info.number(index._handle, _info.REMOVED) == 0:
                index._check_counts()
                rows = len(index)
                if index._moment() != moment:
                    continue
                mask = self._by_rows(rows, moment)
            else:
                ids = index._internal_ids()
                if index._moment() != moment:
                    continue
                mask = self._of(ids, moment)
            if index._moment() == moment:
                self._kept = kept = _as_kept(moment, mask)
        return self._allowed_ids() if kept is None or kept[0] != moment else kept

    def _allowed_ids(self) -> NDArray[np.int64]:
        ids = self._index._internal_ids()
        return ids[self._of(ids)]

    def _of(self, ids: NDArray[np.int64], moment: Moment | None = None) -> Mask:
        """Tell of each internal id whether it is allowed; they are all ids of a moment if given."""
        kept = self._kept
        if moment is not None and kept is not None and kept[0] == moment:
            return kept[1]
        if not self._operation:
            return np.isin(ids, self._now_known())
        return self._combine([part._of(ids, moment) for part in self._parts])

    def _by_rows(self, rows: int, moment: Moment) -> Mask:
        """Tell of each row whether it is allowed, where none was removed: row numbers are places.

        Of use only if the index is as it was at that moment still.
        """
        kept = self._kept
        if kept is not None and kept[0] == moment:
            return kept[1]
        if self._operation:
            return self._combine([part._by_rows(rows, moment) for part in self._parts])
        found = self._index._find_rows(self._now_known())
        mask = np.zeros(rows, bool)
        mask[found[(found >= 0) & (found < rows)]] = True
        if self._index._moment() == moment:
            self._kept = _as_kept(moment, mask)
        return mask

    def _combine(self, masks: list[Mask]) -> Mask:
        if self._operation == _NOT:
            return ~masks[0]
        return masks[0] & masks[1] if self._operation == _AND else masks[0] | masks[1]

    def _now_known(self) -> NDArray[np.int64]:
        """Return the internal ids of a leaf, with those of strings that have become ids since."""
        if self._unknown is None:
            return self._numbers
        numbers = self._index._to_internal(self._unknown)[0]
        return np.concatenate([self._numbers, numbers[numbers >= 0]])


def _as_kept(moment: Moment, mask: Mask) -> Allowed:
    """Return what is kept of a mask: bits with the number of rows behind them, too."""
    rows = np.array([len(mask)], "<i8").view(np.uint8)
    bits = np.concatenate([np.packbits(mask, bitorder="little"), rows])
    return moment, mask, int(np.count_nonzero(mask)), bits


def prepare(
    index: State,
    allowed: ArrayLike | Callable[[NDArray[Any]], ArrayLike] | Filter,
    name: str = "allowed",
) -> Filter:
    """See `Index.filter`."""
    if isinstance(allowed, Filter):
        belong(index, allowed, name)
        return allowed
    for _ in range(_TRIES):
        moment, rows = index._moment(), len(index)
        given: Any = allowed
        ids = np.empty(0, np.int64)  # ids of rows are asked for only where they are needed
        if callable(allowed):
            ids = index._internal_ids()
            given = np.asarray(allowed(index._to_external(ids)))
            rows = len(ids)
            if given.dtype != bool or given.shape != ids.shape:
                raise ValueError(
                    f"{name}: expected a function that returns booleans of shape {ids.shape}, got "
                    f"{given.dtype} of shape {given.shape}"
                )
        array, kind = as_filter(given, name, rows, index._to_internal)
        if kind == NONE:
            raise TypeError(f"{name}: expected booleans, ids or a function, got None")
        if kind == IDS:
            break
        assert array is not None
        if not callable(allowed):
            ids = index._internal_ids()
            if index._moment() != moment:
                continue
        array = ids[array.view(bool)]
        break
    else:
        raise ValueError(
            f"{name}: expected ids while another thread changes the index, got booleans"
        )
    assert array is not None
    numbers = np.unique(array)
    unknown = None
    if index._strings is not None and kind == IDS and (array < 0).any():
        names = np.array(given, dtype=object).reshape(-1)
        unknown, numbers = names[array.reshape(-1) < 0], numbers[numbers >= 0]
    return Filter._make(index, numbers=numbers, unknown=unknown)


def belong(index: State, given: Any, name: str = "filter") -> bool:
    """Tell whether kept filters are among what was given; ValueError for one of another index."""
    if isinstance(given, Filter):
        if given._index is not index:
            raise ValueError(f"{name}: expected a filter of this index, got one of another")
        return True
    if not isinstance(given, (list, tuple)):
        return False
    # lists of ids are long and of few types
    if not any(issubclass(kind, Filter) for kind in set(map(type, given))):
        return False
    kept = [item for item in given if isinstance(item, Filter)]
    for item in kept:
        belong(index, item, name)
    return bool(kept)


def combined(
    index: State, filter: Any, exclude: Any, numbers: NDArray[np.int64] | None = None
) -> Any:
    """Return what one filter allows and another does not; either may be None.

    `numbers` are the internal ids of the other, each once and ascending, where they are known.
    """
    if exclude is None:
        return filter
    if numbers is None or index._strings is not None:
        rest = ~prepare(index, exclude, "exclude")
    else:
        rest = ~Filter._make(index, numbers=numbers)
    return rest if filter is None else prepare(index, filter, "filter") & rest
