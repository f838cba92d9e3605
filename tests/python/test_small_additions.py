"""An index that grows by small calls is as good as one made at once, from many threads too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vicinal
from many_writers import clustered, compare, run

DIM = 24
COUNT = 3000


def grown(rows: Any, step: int, seed: int, **parameters: Any) -> vicinal.Index:
    index = vicinal.Index(DIM, seed=seed, **parameters)
    for i in range(0, len(rows), step):
        index.add(rows[i : i + step])
    index.check()
    return index


@pytest.mark.parametrize("step", [1, 16, 100])
def test_as_much_is_found_as_after_one_call(step: int) -> None:
    """Over some seeds, which make a difference of their own."""
    rng = np.random.default_rng(3)
    rows, queries = clustered(rng, COUNT, DIM), clustered(rng, 400, DIM)
    truth = vicinal.exact_search(rows, queries, 10).ids
    recalls: dict[int, list[float]] = {step: [], COUNT: []}
    for seed in range(3):
        for each, found in recalls.items():
            index = grown(rows, each, seed, M=8, ef_construction=60)
            ids = index.search(queries, 10, ef_search=16).ids
            found.append(vicinal.recall_at_k(ids, truth))
    assert np.mean(recalls[step]) > np.mean(recalls[COUNT]) - 0.008


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_the_same_bytes_for_any_number_of_threads(threads: int, tmp_path: Path) -> None:
    rows = clustered(np.random.default_rng(4), 1800, DIM)

    def bytes_of(num_threads: int) -> bytes:
        index = vicinal.Index(DIM, ef_construction=60)
        index.add(rows[:1200], num_threads=num_threads)
        for i in range(1200, 1800, 40):
            index.add(rows[i : i + 40], num_threads=num_threads)
        index.save(tmp_path / "index")
        return (tmp_path / "index").read_bytes()

    assert bytes_of(threads) == bytes_of(3)


def test_many_writers() -> None:
    """What eight threads have added, replaced and removed is there, and is found."""
    outcome = run(8, 4000, 16, M=8, ef_construction=60)
    told = compare(outcome, 200)
    for ef, recall in told["recall"]["grown"].items():
        assert recall > told["recall"]["fresh"][ef] - 0.03
    assert told["rows_that_do_not_find_themselves"] <= len(outcome.rows) // 500
    # removed rows keep their places for a while, and columns grow in steps
    assert told["bytes"] < 2.5 * told["bytes_fresh"]
