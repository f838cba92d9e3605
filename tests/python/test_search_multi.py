"""index.search_multi: against MaxSim of every document, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import vicinal
from support.rows import numbers, stored

Array = np.ndarray[Any, np.dtype[Any]]
DIM = 16


def documents(n: int, seed: int = 0) -> tuple[Array, Array]:
    """Rows of n documents, 3 to 9 each around a middle, and whose they are, shuffled."""
    rng = np.random.default_rng(seed)
    owners = np.repeat(np.arange(n), rng.integers(3, 10, n))
    rng.shuffle(owners)
    middles = rng.standard_normal((n, DIM)) * 20
    return np.rint(middles[owners] + rng.standard_normal((len(owners), DIM)) * 10), owners


def max_sim(tokens: Array, rows: Array, owners: Array, metric: str) -> dict[Any, float]:
    """The slow way."""
    scores = {}
    for owner in dict.fromkeys(owners.tolist()):
        score = 0.0
        for token in tokens:
            own = rows[owners == owner]
            if metric == "l2":
                score += float((-((own - token) ** 2).sum(axis=1)).max())
            else:
                products = own @ token
                if metric == "cosine":
                    lengths = np.linalg.norm(own, axis=1) * np.linalg.norm(token)
                    products = products / lengths
                score += float(products.max())
        scores[owner] = score
    return scores


@pytest.mark.parametrize("names", [False, True])
@pytest.mark.parametrize(
    ("metric", "dtype"),
    [("cosine", "float32"), ("ip", "bfloat16"), ("l2", "float32"), ("cosine", "int8")],
)
def test_against_every_document(metric: str, dtype: str, names: bool) -> None:
    rows, owners = documents(300)
    labels = np.array([f"d{i}" for i in owners]) if names else owners
    index = vicinal.Index(DIM, metric, dtype=dtype)
    held = stored(np.clip(rows, -100, 100), dtype)
    index.add(held)
    index.remove(np.arange(0, len(rows), 13))
    kept = np.arange(len(rows)) % 13 != 0
    values, labels = numbers(held[kept]), labels[kept]
    rng = np.random.default_rng(1)
    queries = [np.clip(rows[rng.integers(0, len(rows), t)], -100, 100) for t in (5, 1, 8, 3)]
    mask = rng.random(len(index)) < 0.6
    for filter in (None, mask):
        found = index.search_multi(queries, labels, 4, filter=filter, candidates=300)
        assert found.owners.shape == found.scores.shape == (4, 4)
        own = slice(None) if filter is None else filter
        for i, tokens in enumerate(queries):
            scores = max_sim(tokens, values[own], labels[own], metric)
            wanted = sorted(scores, key=lambda owner: -scores[owner])[:4]
            if metric == "l2":  # many documents are as far from a lone token
                assert found.owners[i, 0] == wanted[0]
            else:
                assert found.owners[i].tolist() == wanted
            told = [scores[owner] for owner in found.owners[i].tolist()]
            np.testing.assert_allclose(found.scores[i], told, rtol=1e-4, atol=1e-4)
        usual = index.search_multi(queries, labels, 4, filter=filter)
        assert (usual.owners == found.owners).mean() > 0.8
    one = index.search_multi(queries[0], labels, 4)
    np.testing.assert_array_equal(one.owners, index.search_multi(queries, labels, 4).owners[0])
    same = index.search_multi(np.stack([queries[0], queries[0]]), labels, 4)
    np.testing.assert_array_equal(same.owners[1], one.owners)


def test_fewer_documents_than_wanted() -> None:
    index = vicinal.Index(DIM, "ip")
    index.add(np.eye(DIM)[:4])
    found = index.search_multi(np.eye(DIM)[:2], ["a", "b", "a", "b"], 5)
    assert found.owners.tolist() == ["a", "b", None, None, None]
    assert found.scores.tolist() == [1, 1, -np.inf, -np.inf, -np.inf]
    numbers_of = index.search_multi(np.eye(DIM)[:2], [7, 8, 7, 8], 3, filter=[1, 3])
    assert numbers_of.owners.tolist() == [8, -1, -1]
    empty = vicinal.Index(DIM, "ip").search_multi(np.eye(DIM)[:2], [], 2)
    assert empty.owners.tolist() == [-1, -1]


def test_refused() -> None:
    index = vicinal.Index(DIM, "ip")
    index.add(np.eye(DIM))
    owners = np.arange(DIM)
    with pytest.raises(ValueError, match=r"tokens: expected \(t, 16\) with t from 1"):
        index.search_multi(np.eye(DIM)[0], owners)
    with pytest.raises(ValueError, match=r"tokens: expected \(t, 16\) with t from 1"):
        index.search_multi([np.eye(DIM), np.empty((0, DIM))], owners)
    with pytest.raises(ValueError, match="owners: expected one for each row"):
        index.search_multi(np.eye(DIM), owners[:3])
    with pytest.raises(ValueError, match="tokens: row 1 holds NaN"):
        index.search_multi(np.where(np.arange(DIM)[:, None] == 1, np.nan, np.eye(DIM)), owners)
