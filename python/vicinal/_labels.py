"""Labels of rows: which of many documents each row is a part of."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vicinal import _info, _validate
from vicinal._state import State

__all__ = ["Labels"]

Codes = NDArray[np.int64]


class Labels:
    """A label for each row of an index, and numbers in their place.

    Parameters
    ----------
    index : State
        The index.
    given : array_like of int or str, shape (len(index),), callable or mapping
        Labels in the order of `index.ids`; or what gives the labels of ids, and is asked about
        those that are met only.
    name : str
        Argument's name for messages.
    """

    def __init__(self, index: State, given: Any, name: str) -> None:
        self._index, self._name = index, name
        self._moment = index._moment()
        self._numbers: Codes | None = None
        self._code_of: dict[Any, int] = {}
        self._label_of: list[Any] = []
        self._function: Callable[[NDArray[Any]], ArrayLike] | None = None
        if isinstance(given, Mapping):
            self._function = lambda ids: _looked_up(given, ids, name)
            return
        if callable(given):
            self._function = given
            return
        labels = self._checked(given)
        if labels.shape != (len(index),):
            raise ValueError(
                f"{name}: expected one for each row, of shape ({len(index)},), got {labels.shape}"
            )
        kind = labels.dtype.kind
        if kind in "ib" or (kind == "u" and labels.dtype.itemsize < 8):
            self._numbers = labels.astype(np.int64, copy=False)
        self._labels: NDArray[Any] = labels
        # Rows and their places in `index.ids` are the same numbers until one is removed.
        self._in_place = _info.number(index._handle, _info.REMOVED) == 0

    def of(self, internal: NDArray[np.int64]) -> Codes:
        """Return a number for the label of each id, the same for the same label; any shape.

        Of ids that have come since the labels were given it may be that of another label.
        """
        flat = internal.reshape(-1)
        if self._function is not None:
            return self._asked(flat).reshape(internal.shape)
        if self._in_place and self._index._moment() == self._moment:
            places = self._index._find_rows(flat)
        else:
            self._in_place = False
            ascending, order = self._sorted_ids
            found = np.minimum(np.searchsorted(ascending, flat), len(ascending) - 1)
            places = order[found]
        return self._codes(places).reshape(internal.shape)

    def rows_with(self, codes: Collection[int]) -> NDArray[np.bool_]:
        """Return for each row whether its label has one of these numbers."""
        wanted = np.fromiter(codes, np.int64, len(codes))
        if self._numbers is not None:
            return np.isin(self._numbers, wanted)
        return np.isin(self._all_codes, wanted)

    def values(self, codes: Codes, valid: NDArray[np.bool_]) -> NDArray[Any]:
        """Return the labels of numbers, as they were given; -1 or None where there is none."""
        if self._numbers is not None:
            return np.where(valid, codes, -1)
        labels = np.full(codes.shape, None, object)
        for place in zip(*np.nonzero(valid & (codes >= 0)), strict=True):
            labels[place] = self._label_of[codes[place]]
        return labels

    @cached_property
    def internal(self) -> NDArray[np.int64]:
        """Internal ids of the rows that have labels, in their order."""
        ids = self._index._internal_ids()
        given = len(ids) if self._function is not None else len(self._labels)
        if len(ids) != given or self._index._moment() != self._moment:
            raise ValueError(
                f"{self._name}: expected one for each row, but the index was changed meanwhile"
            )
        return ids

    @cached_property
    def _sorted_ids(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        order = np.argsort(self.internal, kind="stable")
        return self.internal[order], order

    @cached_property
    def _all_codes(self) -> Codes:
        if self._function is not None:
            return self._asked(self.internal)
        return self._codes(np.arange(len(self._labels)))

    def _checked(self, given: Any) -> NDArray[Any]:
        """Return labels as an array."""
        labels = _validate.as_array(given, self._name, "integers or strings")
        _validate.refuse_unordered(given, labels, self._name, "integers or strings")
        if labels.size == 0:
            labels = labels.astype(np.int64)
        if labels.dtype.kind not in "iubUTO":
            raise TypeError(f"{self._name}: expected integers or strings, got dtype {labels.dtype}")
        return labels

    def _asked(self, internal: NDArray[np.int64]) -> Codes:
        """Return numbers for what the function says of ids; -1 for ids that no row has."""
        assert self._function is not None
        each, back = np.unique(internal, return_inverse=True)
        there = self._index._find_rows(each) >= 0
        codes = np.full(len(each), -1, np.int64)
        known = each[there]
        if len(known):
            labels = self._checked(self._function(self._index._to_external(known)))
            if labels.shape != known.shape:
                raise ValueError(
                    f"{self._name}: expected a function that returns one label for each of "
                    f"{len(known)} ids, got shape {labels.shape}"
                )
            codes[there] = self._numbered(labels)
        return codes[back.reshape(-1)]

    def _codes(self, places: NDArray[np.int64]) -> Codes:
        if self._numbers is not None:
            return self._numbers[places]
        return self._numbered(self._labels[places])

    def _numbered(self, labels: NDArray[Any]) -> Codes:
        codes = np.empty(len(labels), np.int64)
        for i, label in enumerate(labels.tolist()):
            try:
                code = self._code_of.get(label)
            except TypeError:
                raise TypeError(
                    f"{self._name}: expected integers or strings, got {type(label).__name__}"
                ) from None
            if code is None:
                code = self._code_of[label] = len(self._label_of)
                self._label_of.append(label)
            codes[i] = code
        return codes


def _looked_up(mapping: Mapping[Any, Any], ids: NDArray[Any], name: str) -> NDArray[Any]:
    """Return the labels that a mapping has for ids."""
    labels = np.empty(len(ids), object)
    for i, id in enumerate(ids.tolist()):
        if id not in mapping:
            raise ValueError(
                f"{name}: expected a label for each id, got none for {reprlib.repr(id)}"
            )
        labels[i] = mapping[id]
    return labels
