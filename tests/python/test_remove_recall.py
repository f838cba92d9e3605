"""After any history an index finds as much, in as little memory, as one made of the same rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import vicinal

Array = np.ndarray[Any, Any]
WIDTHS = (16, 32, 64, 128)
SLACK = 0.005


class History:
    """An index over rows of a real set, and which row each id stands for."""

    def __init__(self, data: Any, first: int, quantization: str | None) -> None:
        # The queries of the sets are so few that two graphs of one set differ by 0.02.
        self.base, queries = data.base[:-500], data.base[-500:]
        self.queries = queries.astype(np.uint8 if data.base.dtype == np.uint8 else np.float32)
        self.options = {"dtype": data.base.dtype.name, "quantization": quantization}
        self.metric = data.metric
        self.index = vicinal.Index(self.base.shape[1], data.metric, **self.options)
        self.row_of = dict(enumerate(range(first)))
        self.index.add(self.base[:first])
        self.next_id = first
        self.rng = np.random.default_rng(3)

    def remove(self, ids: Array) -> None:
        self.index.remove(ids)
        for id in ids.tolist():
            del self.row_of[id]

    def remove_some(self, count: int) -> None:
        self.remove(self.rng.choice(np.array(list(self.row_of)), count, replace=False))

    def add_others(self, count: int) -> None:
        others = np.setdiff1d(np.arange(len(self.base)), list(self.row_of.values()))
        rows = self.rng.choice(others, count, replace=False)
        ids = np.arange(self.next_id, self.next_id + count)
        self.next_id += count
        self.index.add(self.base[rows], ids)
        self.row_of.update(zip(ids.tolist(), rows.tolist(), strict=True))

    def recall(self, index: vicinal.Index) -> float:
        """Mean recall@10 over WIDTHS; rows as near as the tenth count."""
        base = self.base[list(self.row_of.values())]
        truth = vicinal.exact_search(base, self.queries, 10, self.metric)
        farthest = truth.distances[:, -1:] * (1 + 1e-5) + 1e-6
        return float(
            np.mean(
                [
                    index.search(self.queries, 10, ef_search=ef).distances <= farthest
                    for ef in WIDTHS
                ]
            )
        )

    def compare(self) -> None:
        self.index.check()
        assert sorted(self.index.ids.tolist()) == sorted(self.row_of)
        fresh = vicinal.Index(self.base.shape[1], self.metric, **self.options)
        fresh.add(self.base[[self.row_of[i] for i in self.index.ids.tolist()]])
        assert self.recall(self.index) >= self.recall(fresh) - SLACK


@pytest.fixture(params=["sift", "minilm"])
def history(request: pytest.FixtureRequest) -> Any:
    data = request.getfixturevalue(request.param)

    def make(share: float = 1.0, quantization: str | None = "auto") -> History:
        return History(data, int((len(data.base) - 500) * share), quantization)

    return make


@pytest.mark.parametrize("quantization", ["auto", None])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.49, 0.55])
def test_one_batch(share: float, quantization: str | None, history: Any) -> None:
    it = history(quantization=quantization)
    it.remove_some(int(len(it.row_of) * share))
    it.compare()


@pytest.mark.parametrize("calls", [1, 10, 40])
def test_most_rows_go(calls: int, history: Any) -> None:
    """The last of 95 % are below the size from which the graph is used."""
    it = history()
    count = len(it.row_of)
    for part in np.array_split(np.arange(int(count * 0.7)), calls):
        it.remove_some(len(part))
    assert it.index.stats()["search"] == "graph"
    it.compare()
    for part in np.array_split(np.arange(int(count * 0.25)), calls):
        it.remove_some(len(part))
    assert it.index.stats()["search"] == "exact"
    it.compare()
    it.add_others(count // 2)
    assert it.index.stats()["search"] == "graph"
    it.compare()


def test_one_row_at_a_time(history: Any) -> None:
    it = history()
    for _ in range(len(it.row_of) // 5):
        it.remove_some(1)
    assert it.index.stats()["removed"] == len(it.base) - len(it.row_of)
    it.compare()


def test_a_whole_cluster(history: Any) -> None:
    it = history()
    centre = it.base[7].astype(np.float64)
    order = np.argsort(((it.base.astype(np.float64) - centre) ** 2).sum(axis=1))
    it.remove(order[: len(order) // 4])
    it.compare()
    # those nearest to it are found from within the gap
    wide = it.index.search(it.base[order[:20]].astype(it.queries.dtype), 10, ef_search=64)
    assert (wide.ids >= 0).all()


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_ten_turnovers(share: float, history: Any) -> None:
    it = history(0.5)
    size = len(it.row_of)
    step = int(size * share)
    it.remove_some(step)
    it.add_others(step)  # marks, the table of ids and room for half a round are there from now on
    before = it.index.memory_usage()["total"]
    for _ in range(int(10 / share)):
        it.remove_some(step)
        it.add_others(step)
    assert it.index.stats()["removed"] <= max(32, size // 256) + 1
    assert it.index.memory_usage()["total"] <= 1.02 * before
    it.compare()


def test_everything_goes_and_comes_back(history: Any) -> None:
    it = history()
    for _ in range(3):
        it.remove(it.index.ids)
        assert (it.index.search(it.queries[:3], 5).ids == -1).all()
        it.index.check()
        it.add_others(2000)
        it.compare()


def test_updates_in_batches(history: Any) -> None:
    it = history(0.5)
    for _ in range(6):
        ids = it.rng.choice(np.array(list(it.row_of)), len(it.row_of) // 3, replace=False)
        others = np.setdiff1d(np.arange(len(it.base)), list(it.row_of.values()))
        rows = it.rng.choice(others, len(ids), replace=False)
        it.index.update(it.base[rows], ids)
        it.row_of.update(zip(ids.tolist(), rows.tolist(), strict=True))
    it.compare()


@pytest.mark.parametrize("gone", ["every other", "first", "all but the last"])
def test_copies_of_one_row(gone: str) -> None:
    """Copies are chained; a chain that loses links is whole afterwards."""
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.normal(size=(1500, 16)), np.tile(rng.normal(size=16), (1500, 1))])
    index = vicinal.Index(16)
    index.add(rows)
    copies = np.arange(1500, 3000)
    index.remove({"every other": copies[::2], "first": copies[:1]}.get(gone, copies[:-1]))
    index.check()
    wanted = min(50, len(index) - 1500)
    found = index.search(rows[-1].astype(np.float32), wanted, ef_search=100)
    assert (found.distances == 0).all()
