"""Indexes: comparing answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import vicinal.index


def assert_same(found: Any, wanted: Any) -> None:
    """Check that two answers are equal, bit for bit."""
    np.testing.assert_array_equal(found.ids, wanted.ids)
    np.testing.assert_array_equal(found.distances, wanted.distances)


def exact_below(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """Let the indexes of a test be searched exactly below so many rows, by a graph above."""
    monkeypatch.setattr(vicinal.index, "EXACT_BELOW", rows)
