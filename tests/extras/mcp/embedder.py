"""Vectors of texts for the tests: how often each of eight letters occurs. Also a program."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

import numpy as np

LETTERS = "aeioustr"


def embed(texts: Sequence[str]) -> np.ndarray:
    print("noise on stdout, which must not reach the client")
    return np.array([[0.01 + text.lower().count(letter) for letter in LETTERS] for text in texts])


if __name__ == "__main__":
    given = json.load(sys.stdin)
    json.dump([[0.01 + text.count(letter) for letter in LETTERS] for text in given], sys.stdout)
