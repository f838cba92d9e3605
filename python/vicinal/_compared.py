"""Stored vectors compared with each other in NumPy, for the few that a search has found."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vicinal import _kinds, _scale, _validate
from vicinal._cpu import native
from vicinal._state import State

__all__ = ["alike", "as_compared", "stored_present"]


def stored_present(
    index: State, internal: NDArray[np.int64]
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return the stored vectors of internal ids, and which of them are there; zeros for others."""
    stored = np.zeros((len(internal), index._dim), _kinds.STORED_DTYPES[index._dtype])
    present = np.zeros(len(internal), np.uint8)
    native.index_get_present(index._handle, np.ascontiguousarray(internal), stored, present)
    return stored, present != 0


def as_compared(index: State, rows: NDArray[Any], *, queries: bool = False) -> NDArray[np.float32]:
    """Return vectors as float32 whose products are similarities: of unit length for "cosine".

    Queries that are floats are taken as they are, what is stored by what it stands for.
    """
    bits = index._dtype == _kinds.PACKED
    values = rows if queries and not bits else _validate.as_floats(rows, index._dtype)
    vectors: NDArray[np.float32] = values.astype(np.float32, copy=False)
    scale = _scale.number_of(index)
    if scale is not None and values.dtype.kind in "iu":
        vectors = vectors * np.float32(scale)
    if index._metric == "cosine" and (queries or index._dtype != "float32"):  # those are already
        lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
        vectors = vectors / np.maximum(lengths, np.float32(1e-30))[:, None]
    return vectors


def alike(
    metric: str, products: NDArray[np.float32], first: NDArray[Any], second: NDArray[Any]
) -> NDArray[np.float32]:
    """Return similarities of what `as_compared` gave: cosines, products, shares of bits.

    Parameters
    ----------
    metric : str
        Any.
    products : ndarray
        Inner products.
    first, second : ndarray
        Squared lengths of either side, which go with the shape of `products`.

    Returns
    -------
    ndarray
        For "l2" and "hamming" less the squared distance.
    """
    if metric in ("cosine", "ip"):
        return products
    if metric == "jaccard":
        either = first + second - products
        shares: NDArray[np.float32] = np.where(either > 0, products / np.maximum(either, 1), 1)
        return shares.astype(np.float32, copy=False)
    apart: NDArray[np.float32] = 2 * products - first - second
    return apart
