"""Recall is what its docstring says."""

from __future__ import annotations

import re

import numpy as np
import pytest

import vicinal


def test_recall_at_k():
    assert vicinal.recall_at_k([1, 2, 3], [3, 2, 1]) == 1
    assert vicinal.recall_at_k([1, 2, 3], [4, 5, 6]) == 0
    assert vicinal.recall_at_k([[1, 2], [7, 4]], [[2, 1], [4, 5]]) == 0.75
    # the first k of the truth count
    assert vicinal.recall_at_k([1, 2], [1, 9, 2]) == 0.5
    # repeated ids count once
    assert vicinal.recall_at_k([1, 1], [1, 2]) == 0.5
    # -1 never counts, on neither side
    assert vicinal.recall_at_k([1, -1], [1, 2]) == 0.5
    assert vicinal.recall_at_k([1, -1, -1], [1, -1, -1]) == 1
    assert vicinal.recall_at_k([[1, -1], [-1, -1]], [[1, 2], [-1, -1]]) == 0.5
    assert vicinal.recall_at_k(np.array([[-5, 2**62]]), np.array([[2**62, -5]])) == 1
    rng = np.random.default_rng(0)
    true = np.argsort(rng.random((3000, 80)), axis=1)[:, :60]
    found = np.argsort(rng.random((3000, 80)), axis=1)[:, :50]
    slow = np.mean([len(set(f) & set(t[:50])) / 50 for f, t in zip(found, true, strict=True)])
    assert vicinal.recall_at_k(found, true) == pytest.approx(slow, abs=1e-12)


@pytest.mark.parametrize(
    ("found", "true", "error", "message"),
    [
        ([1.0, 2.0], [1, 2], TypeError, "found_ids: expected integers, got 1.0"),
        ([1, 2], "ab", TypeError, "true_ids: expected integers"),
        (1, [1], ValueError, "found_ids: expected (k,) or (n, k) with k >= 1, got ()"),
        ([[1]], [[[1]]], ValueError, "true_ids: expected (k,) or (n, k)"),
        (np.empty((2, 0), int), [[1], [2]], ValueError, "found_ids: expected (k,) or (n, k)"),
        ([1, 2], [1], ValueError, "true_ids: expected (2 or more) for found_ids of shape (2,)"),
        ([[1, 2]], [1, 2], ValueError, "true_ids: expected (1, 2 or more)"),
        ([[1, 2]], [[1, 2], [3, 4]], ValueError, "got (2, 2)"),
        ([1, 2], [-1, -1], ValueError, "true_ids: expected at least one true neighbour"),
    ],
)
def test_recall_refuses(found, true, error, message):
    with pytest.raises(error, match=re.escape(message)):
        vicinal.recall_at_k(found, true)
