"""Everything that can be done with a file, and what may come of it."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator

import numpy as np

import vicinal
from vicinal import _validate
from vicinal._cpu import native

# What a damaged file may raise, by call; anything else is a finding.
REFUSED = (vicinal.FormatError, vicinal.CorruptError)
CHECKED = (RuntimeError, vicinal.CorruptError)

KINDS = [
    *((metric, dtype, "auto") for metric in _validate.METRICS for dtype in _validate.DTYPES),
    *(("l2", "float32", codes) for codes in (None, "u8", "sq8", "rabitq4")),
    *(("ip", "float16", codes) for codes in ("sq8", "rabitq4")),
    *(("cosine", "bfloat16", codes) for codes in ("sq8", "rabitq4")),
]
DIMS = (20, 96, 7, 64, 33)
GRAPH_FROM = 12
ROWS = 70


def rows_of(dtype: str, count: int, dim: int, seed: int) -> np.ndarray:
    """Whole numbers from 1 to 100, which every type and all codes hold; some rows twice."""
    rows = np.random.default_rng(seed).integers(1, 100, (count, dim))
    if count > 20:
        rows[-6:-1] = rows[[3, 3, 5, 3, 5]]
    if dtype == "bfloat16":
        return (rows.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return rows.astype(dtype)


def small_index(metric: str, dtype: str, codes: str | None, dim: int, rows: int) -> vicinal.Index:
    """An index that has a graph although it has few rows."""
    index = vicinal.Index(dim, metric, dtype=dtype)
    index._adopt(
        native.index_new(
            _validate.METRICS.index(metric),
            _validate.DTYPES.index(dtype),
            dim,
            3,
            20,
            5,
            GRAPH_FROM,
            _validate.quantization_code(codes, metric, dtype),
        )
    )
    index.add(rows_of(dtype, rows, dim, 0))
    return index


def make_seeds(folder: str) -> list[bytes]:
    """Small sound files of every kind, the same each time."""
    seeds = []
    path = os.path.join(folder, "seed")
    for i, (metric, dtype, codes) in enumerate(KINDS):
        for rows in (ROWS, 9 if i % 4 else 0):
            index = small_index(metric, dtype, codes, DIMS[i % len(DIMS)], rows)
            if i % 3 == 0 and rows:
                index.add(rows_of(dtype, 5, index.dim, 1), ids=[-5, 10**12, 77777, 500, 501])
            index.save(path)
            with open(path, "rb") as file:
                seeds.append(file.read())
    return seeds


@contextlib.contextmanager
def allowed(tally: Counter[str], step: str, *kinds: type[Exception]) -> Iterator[None]:
    """Count what a step raises, if it may."""
    try:
        yield
    except kinds as error:
        tally[f"{step}: {type(error).__name__}"] += 1
    else:
        tally[f"{step}: done"] += 1


def use(path: str, tally: Counter[str], number: int) -> None:
    """Open a file both ways and do everything with it."""
    with allowed(tally, "open, verified", *REFUSED):
        vicinal.open(path, verify=True)
    for mode in ("r", "copy"):
        index = None
        with allowed(tally, f"open {mode}", *REFUSED):
            index = vicinal.open(path, mode=mode)
        if index is not None:
            exercise(index, tally, mode, number)


def exercise(index: vicinal.Index, tally: Counter[str], mode: str, number: int) -> None:
    """Use an index that may be made of anything."""
    index.stats()
    index.memory_usage()
    repr(index)
    known = index.ids
    with allowed(tally, f"verify {mode}", vicinal.CorruptError):
        index.verify()
    with allowed(tally, f"check {mode}", *CHECKED):
        index.check()
    with allowed(tally, f"get {mode}", KeyError, vicinal.CorruptError):
        assert index.get(known[:3]).shape == (len(known[:3]), index.dim)
    ask(index, known, number)
    if mode == "copy":
        change(index, tally)
        ask(index, index.ids, number)
    elif number % 4 == 0:
        index.save(f"{os.fspath(index._path)}.saved")  # type: ignore[arg-type]


def ask(index: vicinal.Index, known: np.ndarray, number: int) -> None:
    """Search with one query and many, walking and scanning; answers are ids of the index."""
    dtype = index.dtype if index.dtype in ("int8", "uint8") else "float32"
    queries = rows_of(dtype, 9, index.dim, number)
    for queries_now, k, ef in ((queries[0], 3, 4), (queries[:2], 5, 5), (queries, 4, 6)):
        found = index.search(queries_now, k, ef_search=ef, num_threads=1)
        assert np.isin(found.ids, np.append(known, -1)).all(), "an id that no row has"
    index.search(queries[:1], 100)
    index.search(queries, 100, num_threads=2 if number % 8 == 0 else 1)


def change(index: vicinal.Index, tally: Counter[str]) -> None:
    """Add rows, few and many; remove and replace some, and build the index anew."""
    for count, ids in ((3, [2**40, -(2**41), 2**42]), (GRAPH_FROM + 5, None)):
        before = len(index)
        with allowed(tally, "add", ValueError, MemoryError):
            index.add(rows_of(index.dtype, count, index.dim, 7), ids=ids)
            before += count
        assert len(index) == before
    # ids may come twice in such a file, and then be found nowhere
    steps = {
        "remove": lambda: index.remove(np.unique(index.ids)[::3]),
        "update": lambda: index.update(
            rows_of(index.dtype, 4, index.dim, 8), np.unique(index.ids)[:4]
        ),
        "compact": lambda: index.compact(),
    }
    for name, step in steps.items():
        if hasattr(index, name):
            with allowed(tally, name, ValueError, KeyError, RuntimeError, MemoryError):
                step()
