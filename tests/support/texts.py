"""An embedder that needs no model: hashed letters, three in a row, as the guide shows it."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np

DIM = 256


def embed(texts: Iterable[str], dim: int = DIM) -> Any:
    """Return rows of unit length, shape (n, dim): how often each three letters come in a text."""
    rows = []
    for text in texts:
        text = f"  {text.lower()}  "
        row = np.zeros(dim, np.float32)
        for i in range(len(text) - 2):
            row[zlib.crc32(text[i : i + 3].encode()) % dim] += 1
        rows.append(row / np.linalg.norm(row))
    return np.array(rows, np.float32).reshape(-1, dim)
