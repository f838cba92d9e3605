"""Vectors for the tests of exact search, and what a result is held to."""

from __future__ import annotations

import numpy as np

import reference
import vicinal

INTEGERS = ("int8", "uint8")
# relative to the sum of the absolute terms of a distance
TOLERANCE = {"float32": 4e-6, "float16": 4e-6, "bfloat16": 4e-6, "int8": 2e-7, "uint8": 2e-7}


def stored(values, dtype):
    """Round values to a stored dtype; bfloat16 becomes its bits."""
    if dtype == "bfloat16":
        return (np.asarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return np.asarray(values).astype(dtype)


def widened(array, dtype):
    """Return stored values as numbers."""
    if dtype == "bfloat16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array


def make(rng, count, dim, dtype):
    """Make stored vectors, none of them zero."""
    if dtype in INTEGERS:
        limits = np.iinfo(dtype)
        values = rng.integers(limits.min, limits.max + 1, (count, dim))
        values[:, 0] = limits.max
    else:
        values = rng.standard_normal((count, dim)) + 0.1
    return stored(values, dtype)


def make_queries(rng, count, dim, dtype):
    return make(rng, count, dim, dtype if dtype in INTEGERS else "float32")


def search(base, queries, k, metric, dtype, **options):
    if dtype == "bfloat16":
        options["dtype"] = dtype
    return vicinal.exact_search(base, queries, k, metric, **options)


def assert_right(found, base, queries, k, metric, dtype):
    """Compare a result with float64; rows whose distances differ by rounding only may differ."""
    rows, wanted = widened(base, dtype).astype(np.float64), queries.astype(np.float64)
    every = reference.distances(rows, wanted, metric)
    ids, values = reference.nearest(rows, wanted, k, metric)
    assert found.ids.shape == found.distances.shape == (len(queries), k)
    here = min(k, len(base))
    assert (found.ids[:, here:] == -1).all() and np.isinf(found.distances[:, here:]).all()
    got = found.ids[:, :here]
    assert ((got >= 0) & (got < len(base))).all()
    assert all(len(set(line)) == here for line in got)
    scale = 1 + np.abs(rows).max() * np.abs(wanted).max() * rows.shape[1]
    allowed = TOLERANCE[dtype] * (4 if metric == "cosine" else 4 * scale)
    truth = values[:, :here]
    if dtype in INTEGERS and metric != "cosine":
        np.testing.assert_array_equal(got, ids[:, :here])
        np.testing.assert_array_equal(found.distances[:, :here], truth.astype(np.float32))
    assert (np.abs(np.take_along_axis(every, got, axis=1) - truth) <= allowed).all()
    assert (np.abs(found.distances[:, :here] - truth) <= allowed).all()


def assert_same(found, other):
    np.testing.assert_array_equal(found.ids, other.ids)
    np.testing.assert_array_equal(found.distances, other.distances)
