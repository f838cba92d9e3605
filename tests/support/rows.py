"""Rows: values in the form that an index takes them."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


def stored(values: Array, dtype: str) -> Array:
    """Return values as an array of a stored dtype.

    Of bfloat16 it is the upper half of float32's bits, of packed bits bytes.
    """
    if dtype == "bfloat16":
        return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return values.astype(np.uint8 if dtype == "b1" else dtype)


def dims(columns: int, dtype: str) -> int:
    """Return the dim of an index whose rows have so many columns: packed bits are eight each."""
    return 8 * columns if dtype == "b1" else columns


def numbers(rows: Array) -> Array:
    """Return rows as `stored` makes them in float64; uint16 stands for bfloat16."""
    if rows.dtype == np.uint16:
        return (rows.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return rows.astype(np.float64)
