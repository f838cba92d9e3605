"""Everything that can be done with a file, and what may come of it."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

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


def small_index(
    metric: str, dtype: str, codes: str | None, dim: int, rows: int, *, named: bool = False
) -> vicinal.Index:
    """An index that has a graph although it has few rows; `named` gives it strings for ids."""
    index = vicinal.Index(dim, metric, dtype=dtype)
    handle = native.index_new(
        _validate.METRICS.index(metric),
        _validate.DTYPES.index(dtype),
        dim,
        3,
        20,
        5,
        GRAPH_FROM,
        _validate.quantization_code(codes, metric, dtype),
    )
    if named:
        native.texts_use(handle)
    index._adopt(handle)
    index.add(rows_of(dtype, rows, dim, 0), ids=names(rows) if named else None)
    return index


def names(count: int, first: int = 0) -> list[str]:
    """Ids of some rows as strings of many lengths."""
    return ["é" * (i % 5) + str(i) for i in range(first, first + count)]


def make_seeds(folder: str) -> list[bytes]:
    """Small sound files of every kind, the same each time."""
    seeds = []
    path = os.path.join(folder, "seed")
    for i, (metric, dtype, codes) in enumerate(KINDS):
        for rows in (ROWS, 9 if i % 4 else 0):
            index = small_index(metric, dtype, codes, DIMS[i % len(DIMS)], rows)
            if i % 3 == 0 and rows:
                index.add(rows_of(dtype, 5, index.dim, 1), ids=[-5, 10**12, 77777, 500, 501])
            if i % 5 == 0 and rows:
                index.tune(recall=0.5, k=2)
            seeds.append(file_of(index, path))
        named = small_index(metric, dtype, codes, DIMS[i % len(DIMS)], ROWS, named=True)
        seeds.append(file_of(named, path))
    return seeds


def file_of(index: vicinal.Index, path: str) -> bytes:
    """The bytes that saving writes."""
    index.save(path)
    with open(path, "rb") as file:
        return file.read()


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
    with allowed(tally, f"tell {mode}", vicinal.CorruptError):
        index.memory_usage()
        repr(index)
        index.stats()
    known = np.empty(0, np.int64)
    with allowed(tally, f"ids {mode}", vicinal.CorruptError):
        known = index.ids
    with allowed(tally, f"verify {mode}", vicinal.CorruptError):
        index.verify()
    with allowed(tally, f"check {mode}", *CHECKED):
        index.check()
    with allowed(tally, f"get {mode}", KeyError, vicinal.CorruptError):
        some = [id_ for id_ in known[:3].tolist() if id_ is not None]
        assert index.get(some).shape == (len(some), index.dim)
    with allowed(tally, f"search {mode}", vicinal.CorruptError):
        ask(index, known, number)
    with allowed(tally, f"ask why {mode}", KeyError, ValueError, vicinal.CorruptError):
        query = rows_of(kind_of_queries(index), 1, index.dim, number)[0]
        for step in index.trace(query, 3, ef_search=5):
            repr(step)
        if len(known) and known[-1] is not None:
            index.why_not(query, known.tolist()[-1], 3, ef_search=5)
        index.search(query, 2, recall=0.5)
    with allowed(tally, f"copy {mode}", vicinal.CorruptError, MemoryError):
        assert len(index.copy()) == len(index)
    if mode == "copy":
        change(index, tally)
        with allowed(tally, "search changed", vicinal.CorruptError):
            ask(index, index.ids, number)
    elif number % 4 == 0:
        index.save(f"{os.fspath(index._path)}.saved")  # type: ignore[arg-type]


def ask(index: vicinal.Index, known: np.ndarray, number: int) -> None:
    """Search with one query and many, walking and scanning; answers are ids of the index."""
    queries = rows_of(kind_of_queries(index), 9, index.dim, number)
    may_be = {*known.tolist(), None if known.dtype == object else -1}
    for queries_now, k, ef in ((queries[0], 3, 4), (queries[:2], 5, 5), (queries, 4, 6)):
        found = index.search(queries_now, k, ef_search=ef, num_threads=1)
        if len(known) or len(index) == 0:  # else they are damaged
            assert set(found.ids.ravel().tolist()) <= may_be, "an id that no row has"
    mask = np.arange(len(index)) % 3 == 0
    for width in (4, 10**6):
        found = index.search(queries, 4, ef_search=width, filter=mask)
        if len(known):
            assert set(found.ids.ravel().tolist()) <= may_be, "an id that no row has"
        index.range_search(queries[:2], 1e4, ef_search=width)
    index.search(queries[:1], 100)
    index.search(queries, 100, num_threads=2 if number % 8 == 0 else 1)


def kind_of_queries(index: vicinal.Index) -> str:
    """The dtype of an index's queries."""
    return index.dtype if index.dtype in ("int8", "uint8") else "float32"


def change(index: vicinal.Index, tally: Counter[str]) -> None:
    """Add rows, few and many; remove and replace some, and build the index anew."""
    named = index._strings is not None
    few: list[str] | list[int] = names(3, 1000) if named else [2**40, -(2**41), 2**42]
    many = names(GRAPH_FROM + 5, 2000) if named else None
    for ids, count in ((few, 3), (many, GRAPH_FROM + 5)):
        before = len(index)
        with allowed(tally, "add", ValueError, MemoryError, vicinal.CorruptError):
            index.add(rows_of(index.dtype, count, index.dim, 7), ids=ids)
            before += count
        assert len(index) == before

    # ids may come twice in such a file, and then be found nowhere; damaged strings are None
    def known() -> list[Any]:
        return sorted({id for id in index.ids.tolist() if id is not None})

    steps = {
        "remove": lambda: index.remove(known()[::3]),
        "update": lambda: index.update(rows_of(index.dtype, 4, index.dim, 8), known()[:4]),
        "compact": lambda: index.compact(),
    }
    for name, step in steps.items():
        with allowed(tally, name, ValueError, KeyError, RuntimeError, MemoryError):
            step()
