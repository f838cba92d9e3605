"""The life of an index of packed bits, the same for each metric over them."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import vicinal
from support.indexes import assert_same

Array = np.ndarray[Any, np.dtype[Any]]


def live(
    index: vicinal.Index,
    bits: Callable[..., Array],
    distances: Callable[[Array, Array], Array],
    least: float,
    folder: Path,
) -> None:
    """Search 3,000 rows of 256 bits through the graph, with filters, changes, files and a merge.

    `bits(n, dim, seed=)` draws packed rows, `distances(rows, queries)` is the slow way, and `least`
    the share of the true neighbours that must be found.
    """
    metric = index.metric
    assert index.stats()["search"] == "graph" and index.stats()["quantization"] is None
    assert index.stats()["quantization_reason"] == "packed bits are measured as they are"
    queries = bits(40, 256, seed=1)

    def share(filter: Any = None) -> float:
        far = distances(index.get(index.ids), queries).astype(np.float32)
        if filter is not None:
            far[:, ~filter] = np.inf
        bound = np.sort(far, axis=1)[:, 9:10]
        found = index.search(queries, 10, filter=filter)
        place = {id: i for i, id in enumerate(index.ids.tolist())}
        for q, ids in enumerate(found.ids):
            held = [far[q, place[id]] for id in ids.tolist()]
            assert held == found.distances[q].tolist() and np.isfinite(held).all()
        return float((found.distances <= bound).mean())

    assert share() > least
    assert share(np.random.default_rng(3).random(3000) < 0.4) > 0.95
    index.check()
    index.remove(np.arange(0, 3000, 4))
    index.update(bits(100, 256, seed=5), ids=np.arange(1, 401, 4))
    assert share() > least
    index.save(folder / "bits")
    for again in (
        vicinal.open(folder / "bits", verify=True),
        vicinal.open(folder / "bits", mode="copy"),
        pickle.loads(pickle.dumps(index)),
        index.copy(),
    ):
        assert (again.dim, again.dtype, again.metric) == (256, "b1", metric)
        assert repr(again).startswith(f"vicinal.Index(dim=256, metric='{metric}', dtype='b1', ")
        assert_same(again.search(queries, 10), index.search(queries, 10))
        again.check()
    index.compact()
    assert share() > least
    other = vicinal.Index(256, metric, dtype="b1")
    other.add(bits(50, 256, seed=9), ids=np.arange(9000, 9050))
    index.merge(other)
    found = index.search(other.get(9007), 50)
    assert 9007 in found.ids[found.distances == 0]
