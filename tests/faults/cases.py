"""What is tried while memory is refused: every verb, in states in which it takes different ways."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import vicinal
from vicinal import _self_join

DIM = 32
FEW = 70  # rows without a graph
ROWS = 1100  # rows with one
EVEN = np.arange(40) * 2
LONG = "b" * 5000
NAMES = [f"n{j}" for j in range(70)]
ONE: dict[str, Any] = {"num_threads": 1}


@dataclass(frozen=True)
class Case:
    """A call and the index that it is made on."""

    name: str
    state: Callable[[], vicinal.Index]
    """Makes the index; equal at every call."""
    call: Callable[[vicinal.Index, Path], Any]
    """Does it; what it returns can be compared, see `told`."""


@cache
def rows(n: int, seed: int = 0, copies: int = 0) -> Any:
    """Return vectors, the last ones equal to the first ones."""
    generator = np.random.default_rng(seed)
    heaps = generator.normal(size=(20, DIM)).astype(np.float32)
    made = heaps[generator.integers(0, 20, n)] + generator.normal(size=(n, DIM)).astype("f4") / 2
    if copies:
        made[-copies:] = made[:copies]
    return made.astype(np.float32)


def index(n: int = 0, metric: str = "l2", **options: Any) -> vicinal.Index:
    """Make an index of n rows."""
    made = vicinal.Index(DIM, metric, M=4, ef_construction=12, **options)
    if n:
        made.add(rows(n, copies=8), **ONE)
    return made


def opened(state: Callable[[], vicinal.Index], mode: str) -> Callable[[], vicinal.Index]:
    """Return what opens a saved index."""
    return lambda: vicinal.open(saved(state), mode=mode)


FOLDER: list[Path] = []


@cache
def saved(state: Callable[[], vicinal.Index]) -> Path:
    """Save an index once and return where."""
    path = FOLDER[0] / f"state-{saved.cache_info().currsize}"
    state().save(path)
    return path


def few() -> vicinal.Index:
    """An index without a graph."""
    return index(FEW)


@cache
def _many() -> bytes:
    return pickle.dumps(index(ROWS))


def many() -> vicinal.Index:
    """An index with a graph, estimating codes and copies."""
    return pickle.loads(_many())


def thinned() -> vicinal.Index:
    """An index with a graph and removed rows, some of them free."""
    made = index(ROWS)
    made.remove(np.arange(100, 400), **ONE)
    made.remove(np.arange(500, 510), **ONE)
    return made


def named() -> vicinal.Index:
    """An index whose ids are not the numbers of rows."""
    made = index()
    made.add(rows(FEW), ids=np.arange(FEW) * 3 + 7, **ONE)
    return made


def strings() -> vicinal.Index:
    """An index whose ids are strings."""
    made = index(ids="str")
    made.add(rows(FEW), ids=[f"row {i}" for i in range(FEW)], **ONE)
    return made


def no_strings() -> vicinal.Index:
    """An index that waits for strings."""
    return index(ids="str")


def bytes_of(given: vicinal.Index, folder: Path) -> bytes:
    """Return the file that an index is saved as."""
    path = folder / "bytes"
    given.save(path)
    return path.read_bytes()


def content(given: vicinal.Index) -> list[tuple[Any, bytes]]:
    """Return what an index holds, whatever its links are."""
    ids = given.ids
    return sorted((i, row.tobytes()) for i, row in zip(ids.tolist(), given.get(ids), strict=True))


def told(answer: Any, folder: Path) -> Any:
    """Make what a call returned comparable."""
    if isinstance(answer, vicinal.Index):
        return bytes_of(answer, folder)
    if isinstance(answer, np.ndarray):
        return (answer.shape, answer.tolist())
    if hasattr(answer, "_fields"):
        return tuple(told(part, folder) for part in answer)
    return repr(answer)


def reopened(given: vicinal.Index, folder: Path, mode: str) -> Any:
    """Save an index and open it."""
    path = folder / "saved"
    given.save(path)
    return vicinal.open(path, mode=mode, verify=True)


def _cases() -> list[Case]:
    one, batch, wide = rows(1, 5)[0], rows(40, 6), rows(9, 7)
    only = np.arange(0, ROWS, 3)
    flags = np.arange(ROWS) % 2 == 0
    each = [np.array([i, i + 1, i + 2]) for i in range(40)]
    changes = [
        Case("new", few, lambda i, f: index()),
        Case("add first", index, lambda i, f: i.add(rows(FEW), **ONE)),
        Case("add first graph", few, lambda i, f: i.add(rows(ROWS, 1, 9), **ONE)),
        Case("add graph at once", index, lambda i, f: i.add(rows(ROWS, 1, 9), **ONE)),
        Case("add two threads", few, lambda i, f: i.add(rows(ROWS, 1), num_threads=2)),
        Case("add to graph", many, lambda i, f: i.add(rows(90, 2, 5), **ONE)),
        Case("add copies", many, lambda i, f: i.add(rows(30), **ONE)),
        Case("add over removed", thinned, lambda i, f: i.add(rows(400, 2, 5), **ONE)),
        Case("add ids", many, lambda i, f: i.add(rows(5, 2), ids=[9000, 8000, 7000, 1 << 40, -5])),
        Case("add lent", index, lambda i, f: i.add(rows(ROWS, 1), copy=False, **ONE)),
        Case(
            "add strings",
            strings,
            lambda i, f: i.add(rows(70, 2), ids=[f"n{j}" for j in range(70)]),
        ),
        Case("add first strings", no_strings, lambda i, f: i.add(rows(3, 2), ids=["a", "", LONG])),
        Case("update", many, lambda i, f: i.update(rows(20, 3), np.arange(20), **ONE)),
        Case("update half", many, lambda i, f: i.update(rows(550, 3), np.arange(550), **ONE)),
        Case(
            "upsert",
            named,
            lambda i, f: i.add(rows(40, 3), ids=np.arange(40) * 2, on_conflict="update"),
        ),
        Case("remove few", many, lambda i, f: i.remove(np.arange(6), **ONE)),
        Case("remove", many, lambda i, f: i.remove(np.arange(0, ROWS, 5), **ONE)),
        Case("remove most", many, lambda i, f: i.remove(np.arange(700), **ONE)),
        Case("remove again", thinned, lambda i, f: i.remove(np.arange(600, 700), **ONE)),
        Case("remove named", named, lambda i, f: i.remove(np.arange(60) * 3 + 7)),
        Case("merge", many, lambda i, f: i.merge(other(), **ONE)),
        Case("compact", thinned, lambda i, f: i.compact(**ONE)),
        Case("compact strings", strings, lambda i, f: i.compact(**ONE)),
        Case("grow opened", opened(many, "copy"), lambda i, f: i.add(rows(90, 2, 5), **ONE)),
        Case(
            "thin opened",
            opened(thinned, "copy"),
            lambda i, f: i.remove([3, 7, 1000], **ONE),
        ),
    ]
    asks = [
        Case("search", many, lambda i, f: i.search(one)),
        Case("search batch", many, lambda i, f: i.search(batch, 5, **ONE)),
        Case("search threads", many, lambda i, f: i.search(batch, 5, num_threads=2)),
        Case("search wide", many, lambda i, f: i.search(wide, 100, ef_search=130, **ONE)),
        Case("search all", many, lambda i, f: i.search(wide, 5000, **ONE)),
        Case("search one all", many, lambda i, f: i.search(one, ROWS)),
        Case("search few", few, lambda i, f: i.search(batch, 5, **ONE)),
        Case("search thinned", thinned, lambda i, f: i.search(batch, 5, **ONE)),
        Case("search strings", strings, lambda i, f: i.search(batch, 5, **ONE)),
        Case("search cosine", cosine, lambda i, f: i.search(batch, 5, **ONE)),
        Case("search bytes", whole, lambda i, f: i.search(np.rint(batch * 9), 5, **ONE)),
        Case("search ids", many, lambda i, f: i.search(batch, 5, filter=only, **ONE)),
        Case("search ids few", many, lambda i, f: i.search(batch, 5, filter=[5, 6, 9], **ONE)),
        Case("search flags", many, lambda i, f: i.search(batch, 5, filter=flags, **ONE)),
        Case("search each", many, lambda i, f: i.search(batch, 2, filter=each, **ONE)),
        Case("range", many, lambda i, f: i.range_search(batch, 20.0, **ONE)),
        Case("range ids", many, lambda i, f: i.range_search(batch, 20.0, filter=only, **ONE)),
        Case("trace", many, lambda i, f: i.trace(one, 5)),
        Case("tune", many, lambda i, f: i.tune(0.9, queries=batch, **ONE)),
        Case("get", many, lambda i, f: i.get([3, 5, 1000])),
        Case("get named", opened(named, "r"), lambda i, f: i.get([7, 10])),
        Case("get strings", opened(strings, "r"), lambda i, f: (i.get(["row 3"]), "x" in i)),
        Case("ids", strings, lambda i, f: i.ids),
        Case("check", many, lambda i, f: i.check()),
        Case(
            "join rows",
            few,
            lambda i, f: _self_join.self_join(rows(ROWS), 5, "l2", "float32", 0.9, 0, 1),
        ),
        Case(
            "join rows, threads",
            few,
            lambda i, f: _self_join.self_join(rows(ROWS), 5, "cosine", "float32", 0.9, 0, 2),
        ),
        Case("exact", few, lambda i, f: vicinal.exact_search(rows(ROWS), batch, 7, **ONE)),
        Case(
            "exact all",
            few,
            lambda i, f: vicinal.exact_search(rows(ROWS), wide, ROWS),
        ),
    ]
    keeps = [
        Case("save", thinned, lambda i, f: bytes_of(i, f)),
        Case("open", many, lambda i, f: reopened(i, f, "r")),
        Case("open a copy", thinned, lambda i, f: reopened(i, f, "copy")),
        Case("open strings", strings, lambda i, f: reopened(i, f, "copy")),
        Case("verify", opened(many, "r"), lambda i, f: i.verify()),
        Case("copy", thinned, lambda i, f: copy.copy(i)),
        Case("pickle", many, lambda i, f: pickle.loads(pickle.dumps(i))),
    ]
    return changes + asks + keeps


def other() -> vicinal.Index:
    """Another index with a graph."""
    return pickle.loads(_other())


@cache
def _other() -> bytes:
    made = vicinal.Index(DIM, M=4, ef_construction=12)
    made.add(rows(ROWS, 4), ids=np.arange(ROWS) + 10_000, **ONE)
    return pickle.dumps(made)


def cosine() -> vicinal.Index:
    """An index of another metric."""
    return index(ROWS, "cosine")


def whole() -> vicinal.Index:
    """An index with exact codes."""
    made = index()
    made.add(np.rint(np.abs(rows(ROWS)) * 9), **ONE)
    return made


CASES = _cases()
