"""The obvious index: a dictionary. What `vicinal.Index` does is compared with it."""

from __future__ import annotations

import numpy as np

import vicinal

# How far a distance may be from the one computed in float64 of what was given: values are small
# whole numbers, exact in every stored type, so that only unit length is rounded.
COSINE_ERROR = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 2e-2, "int8": 1e-5, "uint8": 1e-5}


def draw(seed: int, count: int, dim: int) -> np.ndarray:
    """Vectors of whole numbers from 1 to 100."""
    return np.random.default_rng(seed).integers(1, 101, (count, dim)).astype(np.float64)


def stored_as(values: np.ndarray, dtype: str) -> np.ndarray:
    """The same values as an index of that dtype takes them."""
    if dtype == "bfloat16":
        return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return values.astype(dtype)


def asked_as(values: np.ndarray, dtype: str) -> np.ndarray:
    """The same values as queries of an index of that dtype."""
    return values.astype(dtype if dtype in ("int8", "uint8") else np.float32)


class Model:
    """Vectors by id."""

    def __init__(self, metric: str, dtype: str, dim: int) -> None:
        self.metric, self.dtype, self.dim = metric, dtype, dim
        self.rows: dict[int, np.ndarray] = {}
        self.largest = -1  # of all ids that ever were there

    def put(self, ids: np.ndarray, values: np.ndarray) -> None:
        """Add vectors, or replace those of known ids."""
        for id_, value in zip(ids.tolist(), values, strict=True):
            self.rows[id_] = value
            self.largest = max(self.largest, id_)

    def drop(self, ids: np.ndarray) -> None:
        """Remove vectors."""
        for id_ in ids.tolist():
            del self.rows[id_]

    def distances(self, query: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Distances of vectors from a query, in float64."""
        if self.metric == "l2":
            return ((values - query) ** 2).sum(1)
        products = values @ query
        if self.metric == "ip":
            return 1 - products
        return 1 - products / np.linalg.norm(values, axis=1) / np.linalg.norm(query)

    def assert_near(self, found: np.ndarray, wanted: np.ndarray) -> None:
        """Compare distances."""
        error = COSINE_ERROR[self.dtype] if self.metric == "cosine" else 0
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=error)

    def assert_answer(
        self, ids: np.ndarray, found: np.ndarray, query: np.ndarray, *, exact: bool
    ) -> None:
        """Check one answer: ids that are there, once each, at their distances, nearest first.

        Parameters
        ----------
        ids, found : ndarray of shape (k,)
            The answer.
        query : ndarray of shape (dim,)
            What was asked.
        exact : bool
            Whether all rows were measured, so that no nearer ones may exist.
        """
        count = int(np.isfinite(found).sum())
        if exact:
            assert count == min(len(ids), len(self.rows))
        assert (ids[count:] == -1).all() and np.isinf(found[count:]).all()
        ids, found = ids[:count], found[:count]
        assert len(set(ids.tolist())) == count
        assert (np.diff(found) >= 0).all()
        if count == 0:
            return
        mine = np.array([self.rows[id_] for id_ in ids.tolist()])
        self.assert_near(found, self.distances(query, mine))
        if exact:
            everything = self.distances(query, np.array(list(self.rows.values())))
            self.assert_near(found, np.sort(everything)[:count])

    def assert_holds(self, index: vicinal.Index) -> None:
        """Check that an index holds exactly these ids and vectors, and that its graph is sound."""
        assert len(index) == len(self.rows)
        ids = np.array(sorted(self.rows), np.int64)
        np.testing.assert_array_equal(np.sort(index.ids), ids)
        index.check()
        if len(ids) == 0:
            return
        mine = np.array([self.rows[id_] for id_ in ids.tolist()])
        stored = index.get(ids)
        if self.metric == "cosine" and self.dtype not in ("int8", "uint8"):
            if self.dtype == "bfloat16":
                stored = (stored.astype(np.uint32) << 16).view(np.float32)
            mine = mine / np.linalg.norm(mine, axis=1, keepdims=True)
            np.testing.assert_allclose(stored, mine, atol=COSINE_ERROR[self.dtype])
        else:
            np.testing.assert_array_equal(stored, stored_as(mine, self.dtype))
