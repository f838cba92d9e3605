"""Labels of rows: which of many documents each row is a part of."""

from __future__ import annotations

from collections.abc import Collection
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
    given : array_like of int or str, shape (len(index),)
        Labels in the order of `index.ids`.
    name : str
        Argument's name for messages.
    """

    def __init__(self, index: State, given: ArrayLike, name: str) -> None:
        self._index = index
        labels = _validate.as_array(given, name, "integers or strings")
        _validate.refuse_unordered(given, labels, name, "integers or strings")
        if labels.size == 0:
            labels = labels.astype(np.int64)
        kind = labels.dtype.kind
        if kind not in "iubUTO":
            raise TypeError(f"{name}: expected integers or strings, got dtype {labels.dtype}")
        self._moment = index._moment()
        if labels.shape != (len(index),):
            raise ValueError(
                f"{name}: expected one for each row, of shape ({len(index)},), got {labels.shape}"
            )
        self._numbers: Codes | None = None
        if kind in "ib" or (kind == "u" and labels.dtype.itemsize < 8):
            self._numbers = labels.astype(np.int64, copy=False)
        self._labels: NDArray[Any] = labels
        self._code_of: dict[Any, int] = {}
        self._label_of: list[Any] = []
        self._name = name
        # Rows and their places in `index.ids` are the same numbers until one is removed.
        self._in_place = _info.number(index._handle, _info.REMOVED) == 0

    def of(self, internal: NDArray[np.int64]) -> Codes:
        """Return a number for the label of each id, the same for the same label; any shape.

        Of ids that have come since the labels were given it may be that of another label.
        """
        flat = internal.reshape(-1)
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
        for place in zip(*np.nonzero(valid), strict=True):
            labels[place] = self._label_of[codes[place]]
        return labels

    @cached_property
    def internal(self) -> NDArray[np.int64]:
        """Internal ids of the rows that have labels, in their order."""
        ids = self._index._internal_ids()
        if len(ids) != len(self._labels) or self._index._moment() != self._moment:
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
        return self._codes(np.arange(len(self._labels)))

    def _codes(self, places: NDArray[np.int64]) -> Codes:
        if self._numbers is not None:
            return self._numbers[places]
        codes = np.empty(len(places), np.int64)
        for i, label in enumerate(self._labels[places].tolist()):
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
