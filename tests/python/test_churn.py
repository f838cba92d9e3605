"""Rows come and go for a long time, each with few links: the graph stays as good as a fresh one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import vicinal
from support.files import sections_of

Array = np.ndarray[Any, Any]
EFS = (16, 32, 64, 128)
EMPTY = 0xFFFFFFFF


def recall(index: vicinal.Index, rows: Array, queries: Array, metric: str) -> float:
    """Return mean recall@10 over EFS; rows as near as the tenth count."""
    truth = vicinal.exact_search(rows, queries, 10, metric).distances[:, -1:]
    farthest = truth * (1 + 1e-5) + 1e-6
    found = [index.search(queries, 10, ef_search=ef).distances <= farthest for ef in EFS]
    return float(np.mean(found))


def degree(index: vicinal.Index, path: Any) -> float:
    """Return the mean number of links on level 0 of the rows that have any."""
    index.save(path)
    data = path.read_bytes()
    part = sections_of(data)["links0"]
    links = np.frombuffer(data, np.uint32, part.rows * part.columns, part.offset)
    counts = (links.reshape(part.rows, part.columns) != EMPTY).sum(axis=1)
    return float(counts[counts > 0].mean())


class Churn:
    """An index half as large as a set, whose rows are replaced by others of it again and again."""

    def __init__(self, data: Any, M: int, ef_construction: int) -> None:
        self.base, self.queries, self.metric = data.base[:-500], data.base[-500:], data.metric
        self.options: dict[str, Any] = {
            "dtype": str(data.base.dtype),
            "M": M,
            "ef_construction": ef_construction,
        }
        self.size = len(self.base) // 2
        self.index = self.fresh(self.base[: self.size])
        self.row_of = dict(enumerate(range(self.size)))
        self.rng = np.random.default_rng(3)

    def fresh(self, rows: Array, ids: Array | None = None, seed: int = 0) -> vicinal.Index:
        made = vicinal.Index(rows.shape[1], self.metric, seed=seed, **self.options)
        made.add(rows, ids)
        return made

    def turn(self, count: int, merge: bool) -> None:
        gone = self.rng.choice(np.array(list(self.row_of)), count, replace=False)
        self.index.remove(gone)
        for id in gone.tolist():
            del self.row_of[id]
        others = np.setdiff1d(np.arange(len(self.base)), list(self.row_of.values()))
        rows = self.rng.choice(others, count, replace=False)
        ids = np.arange(count) + (max(self.row_of) + 1 + count)
        if merge:
            self.index.merge(self.fresh(self.base[rows], ids))
        else:
            self.index.add(self.base[rows], ids)
        self.row_of.update(zip(ids.tolist(), rows.tolist(), strict=True))

    def compare(self, path: Any, loss: float) -> None:
        self.index.check()
        rows = self.base[[self.row_of[i] for i in self.index.ids.tolist()]]
        fresh = [self.fresh(rows, seed=seed) for seed in range(3)]
        wanted = np.mean([recall(one, rows, self.queries, self.metric) for one in fresh])
        assert recall(self.index, rows, self.queries, self.metric) >= wanted - loss
        assert degree(self.index, path) >= 0.9 * degree(fresh[0], path)


@pytest.mark.parametrize(("M", "ef_construction"), [(4, 40), (8, 40), (16, 200)])
@pytest.mark.parametrize("way", ["add", "merge"])
@pytest.mark.parametrize("name", ["sift", "minilm"])
def test_fifty_generations(
    name: str, way: str, M: int, ef_construction: int, request: Any, tmp_path: Any
) -> None:
    churn = Churn(request.getfixturevalue(name), M, ef_construction)
    for _ in range(50):
        churn.turn(churn.size // (50 if way == "merge" else 5), way == "merge")
    churn.compare(tmp_path / "index", 0.005 if M == 16 else 0.01)


def test_an_index_that_is_opened_counts_on(tmp_path: Any) -> None:
    """It is linked anew when half of its rows have gone, in however many sessions."""
    rows = np.random.default_rng(1).normal(size=(4000, 16)).astype(np.float32)
    path = tmp_path / "index"
    made = vicinal.Index(16)
    made.add(rows)
    made.save(path)
    assert "mended" not in sections_of(path.read_bytes())
    linked = []
    for first in range(0, 2800, 700):
        index = vicinal.open(path, mode="copy")
        index.remove(range(first, first + 700))
        linked.append(index.build_stats()["rows"])
        index.check()
        index.save(path)
    # 1,400 of 4,000 have gone before the third session, 700 of 1,900 after it
    assert linked == [0, 0, 1900, 0]
