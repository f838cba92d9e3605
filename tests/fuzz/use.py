"""Everything that can be done with a file, and what may come of it."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

import vicinal
from vicinal import _kinds
from vicinal._cpu import native

# What a damaged file may raise, by call; anything else is a finding.
REFUSED = (vicinal.FormatError, vicinal.CorruptError)
CHECKED = (RuntimeError, vicinal.CorruptError)

# Beside the names of `quantization`: codes and no vectors, and codes of the first values.
ALONE = {"sq8 alone": 7, "sq4 alone": 8}
SHORT = {"sq8 of 2": 2}
KINDS = [
    *((metric, dtype, "auto") for metric in _kinds.METRICS for dtype in _kinds.DTYPES),
    *(("l2", "float32", codes) for codes in (None, "u8", "sq8", "rabitq4")),
    *(("ip", "float16", codes) for codes in ("sq8", "rabitq4")),
    *(("cosine", "bfloat16", codes) for codes in ("sq8", "rabitq4")),
]
# What else there are files of, which Model of test_model.py does not know.
MORE_KINDS = [
    ("hamming", "b1", None),
    *((metric, "float32", codes) for metric in _kinds.METRICS for codes in ALONE),
    *(("cosine", "float32", codes) for codes in SHORT),
    ("jaccard", "b1", None),
]
DIMS = (20, 96, 7, 64, 33)
GRAPH_FROM = 12
ROWS = 70


def rows_of(dtype: str, count: int, dim: int, seed: int) -> np.ndarray:
    """Whole numbers from 1 to 100, which every type and all codes hold; some rows twice."""
    rows = np.random.default_rng(seed).integers(1, 100, (count, columns(dim, dtype)))
    if count > 20:
        rows[-6:-1] = rows[[3, 3, 5, 3, 5]]
    if dtype == "bfloat16":
        return (rows.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return rows.astype("uint8" if dtype == "b1" else dtype)


def columns(dim: int, dtype: str) -> int:
    """The items of a row: packed bits are eight to one."""
    return dim // 8 if dtype == "b1" else dim


def small_index(
    metric: str, dtype: str, codes: str | None, dim: int, rows: int, *, named: bool = False
) -> vicinal.Index:
    """An index that has a graph although it has few rows; `named` gives it strings for ids."""
    dim = dim // 8 * 8 + 8 if dtype == "b1" else dim
    index = vicinal.Index(dim, metric, dtype=dtype)
    number, stored = _kinds.native_codes(metric, dtype)
    known = None if codes is None else codes.split()[0] if codes in SHORT else codes
    handle = native.index_new(
        number,
        ALONE.get(str(codes), stored),
        columns(dim, dtype),
        3,
        20,
        5,
        GRAPH_FROM,
        0 if codes in ALONE else _kinds.quantization_code(known, metric, dtype),
        SHORT.get(str(codes), 0),
    )
    if named:
        native.strings_use(handle)
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
    for i, (metric, dtype, codes) in enumerate([*KINDS, *MORE_KINDS]):
        for rows in (ROWS, 9 if i % 4 else 0):
            index = small_index(metric, dtype, codes, DIMS[i % len(DIMS)], rows)
            if i % 3 == 0 and rows:
                index.add(rows_of(dtype, 5, index.dim, 1), ids=[-5, 10**12, 77777, 500, 501])
            if i % 5 == 0 and rows:
                index.tune(recall=0.5, k=2)
            seeds.append(file_of(index, path))
        named = small_index(metric, dtype, codes, DIMS[i % len(DIMS)], ROWS, named=True)
        seeds.append(file_of(named, path))
        thinned = small_index(metric, dtype, codes, DIMS[i % len(DIMS)], 120, named=i % 2 == 0)
        thin(thinned)
        seeds.append(file_of(thinned, path))
    return seeds


def thin(index: vicinal.Index) -> None:
    """Remove some of 120 rows: some are free then, some still linked, some hold copies."""
    ids = index.ids
    index.remove(ids[10:50])
    index.add(
        rows_of(index.dtype, 3, index.dim, 2), ids=None if index._strings is None else names(3, 900)
    )
    index.remove(ids[[3, 60, 61, 62, 115]])


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
    known: np.ndarray | None = None
    with allowed(tally, f"ids {mode}", vicinal.CorruptError):
        known = index.ids
        assert len(known) == len(index), "more or fewer ids than rows"
    with allowed(tally, f"verify {mode}", vicinal.CorruptError):
        index.verify()
    with allowed(tally, f"check {mode}", *CHECKED):
        index.check()
    with allowed(tally, f"get {mode}", KeyError, vicinal.CorruptError):
        some = [id_ for id_ in (() if known is None else known[:3].tolist()) if id_ is not None]
        assert index.get(some).shape == (len(some), columns(index.dim, index.dtype))
    with allowed(tally, f"vectors {mode}", vicinal.CorruptError):
        for _, vectors in index.vectors(50):
            assert vectors.shape[1] == columns(index.dim, index.dtype)
    ask(index, tally, mode, known, number)
    with allowed(tally, f"ask why {mode}", KeyError, ValueError, vicinal.CorruptError):
        query = rows_of(kind_of_queries(index), 1, index.dim, number)[0]
        trace = index.trace(query, 3, ef_search=5)
        if number % 8 == 0:
            for step in trace:
                repr(step)
        if known is not None and len(known) and known[-1] is not None:
            index.why_not(query, known.tolist()[-1], 3, ef_search=5)
        index.search(query, 2, recall=0.5)
    if number % 8 == 0:
        with allowed(tally, f"measure {mode}", ValueError, vicinal.CorruptError):
            index.measure_recall(k=2, sample=20)
    with allowed(tally, f"copy {mode}", vicinal.CorruptError, MemoryError):
        assert len(index.copy()) == len(index)
    keep(index, tally, mode)
    if number % 4 == 0:
        take_in(index, tally, mode)
    if mode == "copy":
        change(index, tally, number)


def keep(index: vicinal.Index, tally: Counter[str], mode: str) -> None:
    """Save an index; what was accepted once has to be accepted again."""
    path = f"{os.fspath(index._path)}.saved"  # type: ignore[arg-type]
    saved = False
    # a map may be found not to hold as many rows as it says; a copy has been looked at
    with allowed(tally, f"save {mode}", *(() if mode == "copy" else (vicinal.CorruptError,))):
        index.save(path)
        saved = True
    if saved:
        again = vicinal.open(path, mode=mode, verify=True)
        assert len(again) == len(index)
        tally[f"open again {mode}"] += 1


def take_in(index: vicinal.Index, tally: Counter[str], mode: str) -> None:
    """Add all rows to another index."""
    other = vicinal.Index(
        index.dim,
        index.metric,
        dtype=index.dtype,
        M=3,
        ef_construction=20,
        ids="int64" if index._strings is None else "str",
        keep_vectors=bool(index.stats()["keep_vectors"]),
    )
    refused = (ValueError, KeyError, MemoryError, vicinal.CorruptError)
    with allowed(tally, f"merge {mode}", *refused):
        other.merge(index, num_threads=1)
        other.check()


def ask(
    index: vicinal.Index, tally: Counter[str], mode: str, known: np.ndarray | None, number: int
) -> None:
    """Search with one query and many, walking and scanning; answers are ids of the index."""
    queries = rows_of(kind_of_queries(index), 9, index.dim, number)
    none = -1 if index._strings is None else None
    may_be = {none} if known is None else {*known.tolist(), none}
    # a copy that was accepted shows each row once; ids may come twice in its file
    once = mode != "r" and known is not None and len({*known.tolist()}) == len(known)

    def look(found: Any, allowed_ids: set[Any]) -> None:
        if known is None:
            return
        for row in np.atleast_2d(found):
            shown = [id_ for id_ in row.tolist() if id_ != none]
            assert set(shown) <= allowed_ids, "an id that no row has or that is not allowed"
            assert not once or len(set(shown)) == len(shown), "an id twice"

    with allowed(tally, f"search {mode}", vicinal.CorruptError):
        for queries_now, k, ef in ((queries[0], 3, 4), (queries[:2], 5, 5), (queries, 4, 6)):
            look(index.search(queries_now, k, ef_search=ef, num_threads=1).ids, may_be)
        look(index.search(queries[:1], 100).ids, may_be)
        look(index.search(queries, 100, num_threads=threads_of(number)).ids, may_be)
    with allowed(tally, f"range {mode}", vicinal.CorruptError):
        for width in (4, 10**6):
            for radius in (1e4, float("inf")):
                found = index.range_search(
                    queries[:2], radius, ef_search=width, num_threads=threads_of(number)
                )
                for i in range(2):
                    look(found.of(i).ids, may_be)
    mask = np.arange(len(index)) % 3 == 0
    with allowed(tally, f"booleans {mode}", vicinal.CorruptError):
        shown = may_be if known is None else {*known[mask].tolist(), none}
        if not once:
            shown = may_be
        for width in (4, 10**6):
            found = index.search(queries, 4, ef_search=width, filter=mask, num_threads=1)
            look(found.ids, shown)
            index.range_search(queries[0], 1e4, ef_search=width, filter=mask)
        each = [None, *[mask] * 8]
        look(index.search(queries, 4, ef_search=4, filter=each, num_threads=1).ids, may_be)
        right = (
            known is not None or index._strings is not None
        )  # damaged strings are no matter here
        assert right, "booleans for rows that are not as many as the file says"
    with allowed(tally, f"filter ids {mode}", vicinal.CorruptError):
        wanted = [id_ for id_ in ([] if known is None else known[1::2].tolist()) if id_ is not None]
        for width in (4, 10**6):
            found = index.search(queries, 4, ef_search=width, filter=wanted, num_threads=1)
            look(found.ids, {*wanted, none})


def threads_of(number: int) -> int:
    """The threads that a file is used with: starting some takes longer than most of the work."""
    return 2 if number % 8 == 0 else 1


def kind_of_queries(index: vicinal.Index) -> str:
    """The dtype of an index's queries."""
    return index.dtype if index.dtype in ("int8", "uint8", "b1") else "float32"


def change(index: vicinal.Index, tally: Counter[str], number: int) -> None:
    """Add rows, few and many; remove and replace some, remove most, and build the index anew."""
    named = index._strings is not None
    threads = threads_of(number)
    few: list[str] | list[int] = names(3, 1000) if named else [2**40, -(2**41), 2**42]
    many = names(GRAPH_FROM + 5, 2000) if named else None
    for ids, count in ((few, 3), (many, GRAPH_FROM + 5)):
        before = len(index)
        with allowed(tally, "add", ValueError, MemoryError, vicinal.CorruptError):
            index.add(rows_of(index.dtype, count, index.dim, 7), ids, num_threads=threads)
            before += count
        assert len(index) == before
    stop_addition(index, tally)

    # ids may come twice in such a file, and then be found nowhere; damaged strings are None
    def known() -> list[Any]:
        return sorted({id for id in index.ids.tolist() if id is not None})

    steps = {
        "remove": lambda: index.remove(known()[::3], num_threads=threads),
        "update": lambda: index.update(
            rows_of(index.dtype, 4, index.dim, 8), known()[:4], num_threads=threads
        ),
        "upsert": lambda: index.add(
            rows_of(index.dtype, 3, index.dim, 9), few, on_conflict="update", num_threads=1
        ),
        "remove most": lambda: index.remove(known()[: len(known()) * 4 // 5], num_threads=threads),
        "add again": lambda: index.add(
            rows_of(index.dtype, 30, index.dim, 10),
            names(30, 3000) if named else None,
            num_threads=1,
        ),
        "compact": lambda: index.compact(num_threads=threads),
    }
    for name, step in steps.items():
        with allowed(tally, name, ValueError, KeyError, RuntimeError, MemoryError):
            step()
        seen = None
        with allowed(tally, "ids changed", vicinal.CorruptError):
            seen = index.ids
        if name in ("remove", "add again", "compact"):
            ask(index, tally, "changed", seen, number)
            keep(index, tally, "copy")
    index.check()
    tally["compacted and right"] += 1


class Stopped(Exception):
    """What ends an addition half-way."""


def stop_addition(index: vicinal.Index, tally: Counter[str]) -> None:
    """Begin to add rows and have it taken back."""

    def stop(done: int, total: int) -> None:
        raise Stopped

    ids = names(5, 4000) if index._strings is not None else None
    before = len(index)
    refused = (Stopped, ValueError, MemoryError, vicinal.CorruptError)
    with allowed(tally, "add, stopped", *refused):
        index.add(rows_of(index.dtype, 5, index.dim, 11), ids, num_threads=1, progress=stop)
    assert len(index) == before
