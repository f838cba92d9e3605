"""An index looked at in every way, beside a dictionary of the rows that must be seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import vicinal

DIM = 16


def vectors(seed: int, count: int, dim: int = DIM) -> Any:
    """Whole numbers: all distances are exact and none is zero by chance."""
    return np.random.default_rng(seed).integers(1, 100, (count, dim)).astype(np.float32)


class Seen:
    """An index and the rows that must be seen in it, by id."""

    def __init__(self, index: vicinal.Index, names: Callable[[int], Any] = int) -> None:
        self.index, self.names = index, names
        self.rows: dict[Any, Any] = {}

    def ids(self, numbers: Any) -> Any:
        return [self.names(int(number)) for number in numbers]

    def add(self, values: Any, numbers: Any, **more: Any) -> None:
        ids = self.ids(numbers)
        self.index.add(values, ids, num_threads=1, **more)
        self.rows.update(zip(ids, values, strict=True))

    def remove(self, numbers: Any, **more: Any) -> None:
        ids = self.ids(numbers)
        self.index.remove(ids, num_threads=1, **more)
        for id in ids:
            del self.rows[id]

    def assert_seen(self, others: Any) -> None:
        """Ask in every way; each must tell of these rows, and of none of `others`."""
        index, rows = self.index, self.rows
        there = set(rows)
        query = vectors(99, 1)[0]
        exact = {id: float(((row - query) ** 2).sum()) for id, row in rows.items()}
        k, wide = len(rows) + len(others) + 5, 10**6
        asked = [*rows, *others]
        assert len(index) == len(rows)
        assert set(index.ids.tolist()) == there and len(index.ids) == len(rows)
        for id in others:
            if id not in there:
                assert id not in index
                with pytest.raises(KeyError):
                    index.get(id)
                with pytest.raises(KeyError):
                    index.why_not(query, id)
        assert all(id in index for id in rows)
        np.testing.assert_array_equal(
            index.get(list(rows)), np.array(list(rows.values())).reshape(-1, DIM)
        )
        listed = {}
        for ids, batch in index.vectors(100):
            listed.update(zip(ids.tolist(), batch, strict=True))
        assert set(listed) == there
        for id, row in listed.items():
            np.testing.assert_array_equal(row, rows[id])
        flags = np.ones(len(rows), bool)
        batch = np.repeat(query[None], 9, axis=0)  # so many that a scan is done in tiles
        whole = {
            "exact": index.search(query, k, ef_search=wide),
            "batch": index.search(batch, k, ef_search=wide),
            "filtered": index.search(query, k, ef_search=wide, filter=asked),
            "flags": index.search(query, k, ef_search=wide, filter=flags),
            "trace": index.trace(query, k, ef_search=wide).result,
            "range": index.range_search(query, np.inf),
            "filtered range": index.range_search(query, np.inf, filter=asked),
        }
        for name, found in whole.items():
            ids = np.atleast_2d(found.ids)
            distances = np.atleast_2d(found.distances)
            for line, far in zip(ids, distances, strict=True):
                real = np.isfinite(far)
                self._assert_rows(name, line[real].tolist(), far[real].tolist(), exact)
                assert real.sum() == len(rows), f"{name}: {real.sum()} of {len(rows)} rows"
        near = sorted(exact.values()) or [1.0]
        some = {
            "plain": index.search(query, 10),
            "plain batch": index.search(batch, 10),
            "filtered": index.search(query, 10, filter=asked),
            "few": index.search(query, 10, filter=[*list(rows)[-3:], *others]),
            "trace": index.trace(query, 10).result,
            "range": index.range_search(query, near[len(near) // 10]),
        }
        for name, found in some.items():
            for line, far in zip(
                np.atleast_2d(found.ids), np.atleast_2d(found.distances), strict=True
            ):
                real = np.isfinite(far)
                self._assert_rows(name, line[real].tolist(), far[real].tolist(), exact)

    def _assert_rows(self, name: str, ids: list[Any], far: list[float], exact: Any) -> None:
        assert len(set(ids)) == len(ids), f"{name}: an id twice"
        assert set(ids) <= set(exact), f"{name}: ids that the index does not know"
        assert all(exact[id] == d for id, d in zip(ids, far, strict=True)), f"{name}: another row"
