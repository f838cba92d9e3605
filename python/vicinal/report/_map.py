"""Rows in two dimensions, with how well each of those that were looked for was found."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

import vicinal
from vicinal import _kinds
from vicinal._assumed_queries import draw
from vicinal._search import read_vectors

__all__ = ["map_of", "principal_axes"]

_ROWS = 1500  # that are drawn as the background
_SOUGHT = 2000
_QUERIES = 200
_ROUNDS = 40

Found = tuple[NDArray[np.int64], NDArray[np.float32]]


def map_of(
    index: vicinal.Index,
    queries: NDArray[Any],
    truth: Found,
    found: Found,
    shares: NDArray[np.float64],
) -> dict[str, Any]:
    """Return places of rows, of true neighbours with the share found, and of queries.

    `truth` and `found` are internal ids and distances, a row for each query.
    """
    ids, there = truth[0], np.isfinite(truth[1])
    reach = np.where(there, truth[1], -np.inf).max(axis=1, keepdims=True, initial=-np.inf)
    # one of several rows at the last distance is as good as another: not held against it
    excused = np.isfinite(found[1]).sum(axis=1, keepdims=True) == ids.shape[1]
    excused = excused & (found[1][:, -1:] <= reach) & (truth[1] >= reach)
    # a query at a time: all at once is queries x k x k
    hit = np.array([np.isin(a, b) for a, b in zip(ids, found[0], strict=True)]) | excused
    sought, place = np.unique(ids[there], return_inverse=True)
    wanted = np.bincount(place, minlength=len(sought))
    got = np.bincount(place, hit[there].astype(float), minlength=len(sought))
    some = draw(len(sought), _SOUGHT)
    everyone = index._internal_ids()
    others = np.setdiff1d(everyone[draw(len(everyone), _ROWS)], sought[some])

    background, seen = _vectors(index, others), _vectors(index, sought[some])
    asked = draw(len(queries), _QUERIES)
    asking = _as_floats(index, queries[asked])
    mean, axes = principal_axes(np.concatenate([background, seen]))
    flat = [(part - mean) @ axes for part in (background, seen, asking)]
    # the share of all variance that the two axes show
    spread = np.concatenate([background, seen]) - mean
    shown = float((np.concatenate(flat[:2]) ** 2).sum() / max((spread**2).sum(), 1e-30))
    return {
        "rows": _places(flat[0]),
        "sought": _places(flat[1]),
        "found_share": [round(float(v), 3) for v in (got / np.maximum(wanted, 1))[some]],
        "asked_for": wanted[some].tolist(),
        "queries": _places(flat[2]),
        "query_recall": [round(float(v), 3) for v in shares[asked]],
        "variance_shown": shown,
        "never_found": int(((got == 0) & (wanted > 0)).sum()),
        "sought_rows": len(sought),
    }


def principal_axes(
    rows: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean, shape (dim,), and the two directions of most variance, shape (dim, 2)."""
    mean = rows.mean(axis=0)
    centred = rows - mean
    # subspace iteration: no matrix of dim x dim, which 65,536 dimensions have no room for
    basis = np.random.RandomState(0).standard_normal((rows.shape[1], min(6, rows.shape[1])))
    for _ in range(_ROUNDS):
        basis = np.linalg.qr(centred.T @ (centred @ basis) + 1e-12 * basis)[0]
    values, turns = np.linalg.eigh((centred @ basis).T @ (centred @ basis))
    axes = basis @ turns[:, np.argsort(values)[::-1][:2]]
    # which way an axis points is chance: its largest part is made positive
    largest = axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])]
    axes = axes * np.where(largest < 0, -1, 1)
    if axes.shape[1] == 1:
        axes = np.concatenate([axes, np.zeros_like(axes)], axis=1)
    return mean, axes


def _vectors(index: vicinal.Index, internal: NDArray[np.int64]) -> NDArray[np.float64]:
    rows, unknown = read_vectors(index, np.ascontiguousarray(internal))
    if unknown >= 0:
        raise RuntimeError("index: it has changed while it was measured")
    return _as_floats(index, rows)


def _as_floats(index: vicinal.Index, rows: NDArray[Any]) -> NDArray[np.float64]:
    """Return rows as they are compared: bits as 0 and 1, at unit length for cosine."""
    if index.dtype == _kinds.PACKED:
        return np.unpackbits(rows, axis=1).astype(np.float64)
    if index.dtype == "bfloat16" and rows.dtype == np.uint16:
        rows = (rows.astype(np.uint32) << 16).view(np.float32)
    values = rows.astype(np.float64)
    if index.metric == "cosine":
        values /= np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-30)
    return values


def _places(flat: NDArray[np.float64]) -> list[list[float]]:
    """Return places with four digits: a page has thousands of them."""
    return [[float(f"{x:.4g}"), float(f"{y:.4g}")] for x, y in flat]
