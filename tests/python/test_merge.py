"""Merging equals adding; what does not fit is refused with everything as it was."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vicinal

DTYPES = ("float32", "float16", "bfloat16", "int8", "uint8")


def some(n: int, dtype: str, seed: int) -> Any:
    rows = np.random.default_rng(seed).integers(1, 100, (n, 24))
    return rows.astype("float32" if dtype == "bfloat16" else dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
def test_merging_equals_adding(metric: str, dtype: str, tmp_path: Path) -> None:
    rows = some(1500, dtype, 1)
    first = vicinal.Index(24, metric, dtype=dtype)
    first.add(rows[:900])
    second = vicinal.Index(24, metric, dtype=dtype)
    second.add(rows[900:], ids=np.arange(5000, 5600))
    second.remove([5003, 5599])
    second.save(tmp_path / "second")
    kept = np.setdiff1d(np.arange(900, 1500), [903, 1499])

    merged = vicinal.merge(first, vicinal.open(tmp_path / "second"))
    assert len(first) == 900 and len(merged) == 1498
    ids = first.merge(second)
    assert ids.tolist() == (kept + 4100).tolist() == second.ids.tolist()
    for index in (first, merged):
        index.check()
        assert index.ids.tolist() == [*range(900), *ids.tolist()]
        # vectors of unit length are brought to unit length again
        close = 1e-6 if (metric, dtype) == ("cosine", "float32") else 0
        np.testing.assert_allclose(index.get(ids), second.get(ids), rtol=close)
        # a row finds itself, or one that equals it
        found = index.search(rows[kept], 1, ef_search=150)
        if metric != "ip":
            assert np.mean(found.ids[:, 0] == ids) > 0.98


def test_strings() -> None:
    a, b = vicinal.Index(2, ids="str"), vicinal.Index(2, ids="str")
    a.add([[0, 0]], ids=["zero"])
    b.add([[1, 1]], ids=["one"])
    assert a.merge(b).tolist() == ["one"]
    assert a.search([1, 1], 2).ids.tolist() == ["one", "zero"]


def test_refusals(tmp_path: Path) -> None:
    index = vicinal.Index(3)
    index.add(np.eye(3))
    clash = vicinal.Index(3)
    clash.add(np.ones((2, 3)), ids=[9, 2])
    with pytest.raises(ValueError, match="ids: 2 at position 1 is already in the index"):
        index.merge(clash)
    with pytest.raises(ValueError, match="other: expected another index, got this one"):
        index.merge(index)
    with pytest.raises(TypeError, match="other: expected an Index, got list"):
        index.merge([])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="indexes: expected an Index, got int at 0"):
        vicinal.merge(1, index)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="indexes: expected an Index, got NoneType at 1"):
        vicinal.merge(index, None)  # type: ignore[arg-type]
    for other, message in (
        (vicinal.Index(4), "expected dim=3, got 4"),
        (vicinal.Index(3, "ip"), "expected metric='l2', got 'ip'"),
        (vicinal.Index(3, dtype="int8"), "expected dtype='float32', got 'int8'"),
        (vicinal.Index(3, ids="str"), "expected ids='int64', got 'str'"),
    ):
        with pytest.raises(ValueError, match=message):
            index.merge(other)
    index.save(tmp_path / "index")
    with pytest.raises(ValueError, match="expected a writable one"):
        vicinal.open(tmp_path / "index").merge(clash)
    assert index.ids.tolist() == [0, 1, 2] and len(clash) == 2
    assert index.merge(vicinal.Index(3)).shape == (0,)


def test_many_are_merged_into_the_largest() -> None:
    rng = np.random.default_rng(8)
    rows = rng.standard_normal((5200, 24)).astype(np.float32)
    ends = [0, 1100, 1200, 3700, 5200]
    indexes = []
    for start, stop in itertools.pairwise(ends):
        indexes.append(vicinal.Index(24))
        indexes[-1].add(rows[start:stop], np.arange(start, stop))
    merged = vicinal.merge(*indexes)
    merged.check()
    # the largest is where it was, the others follow in their order
    order = [*range(1200, 3700), *range(1100), *range(1100, 1200), *range(3700, 5200)]
    assert merged.ids.tolist() == order
    assert [len(index) for index in indexes] == [1100, 100, 2500, 1500]
    fresh = vicinal.Index(24)
    fresh.add(rows)
    queries = rng.standard_normal((300, 24)).astype(np.float32)
    truth = vicinal.exact_search(rows, queries, 10).ids
    for ef in (16, 64):
        found = [
            vicinal.recall_at_k(index.search(queries, 10, ef_search=ef).ids, truth)
            for index in (merged, fresh)
        ]
        assert found[0] >= found[1] - 0.01
    with pytest.raises(TypeError, match="at least two"):
        vicinal.merge(merged)
    with pytest.raises(ValueError, match="each once"):
        vicinal.merge(merged, merged)
    with pytest.raises(ValueError, match="already in the index"):
        vicinal.merge(fresh, *indexes)
