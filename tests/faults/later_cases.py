"""The same for what joined later: blocks, codes alone, bits, pairs, living files, builds."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import vicinal
from faults.cases import LONG, ONE, ROWS, Case, content, few, index, many, rows, thinned

BITS = 64


@cache
def _codes() -> bytes:
    return pickle.dumps(index(ROWS, keep_vectors=False, quantization="sq8"))


def codes() -> vicinal.Index:
    """An index with a graph that has codes alone."""
    return pickle.loads(_codes())


@cache
def packed(n: int, seed: int = 0) -> Any:
    """Return rows of packed bits."""
    return np.random.default_rng(seed).integers(0, 256, (n, BITS // 8)).astype(np.uint8)


@cache
def _bits() -> bytes:
    made = vicinal.Index(BITS, "hamming", dtype="b1", M=4, ef_construction=12)
    made.add(packed(ROWS), **ONE)
    return pickle.dumps(made)


def bits() -> vicinal.Index:
    """An index of bits with a graph."""
    return pickle.loads(_bits())


def walked() -> vicinal.Index:
    """An index whose walks measure the first numbers of a row alone."""
    return pickle.loads(_walked())


@cache
def _walked() -> bytes:
    return pickle.dumps(index(ROWS, walk_dim=16))


def kept() -> vicinal.Index:
    """An index that keeps queries and has been tuned."""
    made = many()
    made.keep_queries(120)
    made.search(rows(110, 8), 5, **ONE)
    made.tune(0.8, **ONE)
    return made


def collected(i: vicinal.Index) -> Any:
    """Add rows by a block."""
    with i.bulk(**ONE) as bulk:
        for seed in range(3):
            bulk.add(rows(40, 20 + seed))
    return bulk.ids


def living(
    i: vicinal.Index, folder: Path, do: Callable[[vicinal.LivingIndex], Any], **options: Any
) -> Any:
    """Open a file that is an index from then on, do something, and return what a reader finds then.

    Whatever becomes of the call, the file can be opened and holds all of it or nothing.
    """
    path = folder / "living"
    for old in folder.glob("living*"):
        old.unlink()
    i.save(path)
    with vicinal.open(path, mode="rw", **options) as opened:
        answer = do(opened)
        opened.flush()
    found = vicinal.open(path, mode="copy")
    found.check()
    return answer, content(found)


def built(folder: Path, parts: int) -> bytes:
    """Build a file."""
    path = folder / "built"
    vicinal.build(rows(2 * ROWS, 3), path, M=4, ef_construction=12, parts=parts, num_threads=1)
    return path.read_bytes()


def _cases() -> list[Case]:
    one, batch = rows(1, 5)[0], rows(40, 6)
    owners = np.arange(ROWS) // 4
    groups = np.arange(ROWS) % 7
    changes = [
        Case("bulk", many, lambda i, f: collected(i)),
        Case("add iterator", many, lambda i, f: i.add(iter([rows(30, 2), rows(9, 3)]), **ONE)),
        Case("add one", many, lambda i, f: i.add(one)),
        Case("update one", many, lambda i, f: i.update(one, 7)),
        Case("remove one", thinned, lambda i, f: i.remove(41)),
        Case("remove gone", many, lambda i, f: i.remove([1, 1 << 40], missing="ignore")),
        Case("add to codes", codes, lambda i, f: i.add(rows(90, 2, 5), **ONE)),
        Case("update codes", codes, lambda i, f: i.update(rows(20, 3), np.arange(20), **ONE)),
        Case("remove codes", codes, lambda i, f: i.remove(np.arange(0, ROWS, 5), **ONE)),
        Case("compact codes", codes, lambda i, f: i.compact(**ONE)),
        Case("add bits", bits, lambda i, f: i.add(packed(90, 2), **ONE)),
        Case("remove bits", bits, lambda i, f: i.remove(np.arange(0, ROWS, 5), **ONE)),
        Case("add walk_dim", walked, lambda i, f: i.add(rows(90, 2, 5), **ONE)),
        Case("keep queries", many, lambda i, f: (i.keep_queries(200), i.search(batch, 5, **ONE))),
        Case("attributes", many, lambda i, f: setattr(i, "attributes", {"a": LONG})),
    ]  # fmt: skip
    asks = [
        Case("search codes", codes, lambda i, f: i.search(batch, 5, **ONE)),
        Case("search bits", bits, lambda i, f: i.search(packed(40, 6), 5, **ONE)),
        Case("search walk_dim", walked, lambda i, f: i.search(batch, 5, **ONE)),
        Case("search exactly", many, lambda i, f: i.search(batch, 5, exact=True, **ONE)),
        Case("search recall", kept, lambda i, f: i.search(batch, 5, recall=0.8, **ONE)),
        Case("search groups", many, lambda i, f: i.search(batch, 3, groups=groups, **ONE)),
        Case("search two a group", many, lambda i, f: i.search(one, groups=groups, per_group=2)),
        Case("search without", many, lambda i, f: i.search(batch, 5, exclude=[1, 2, 3], **ONE)),
        Case("search like", many, lambda i, f: i.search(k=5, like=[3, 4], unlike=[9])),
        Case("search documents", many, lambda i, f: i.search_multi(batch[:4], owners, 3, **ONE)),
        Case(
            "search kept filter",
            many,
            lambda i, f: i.search(batch, 5, filter=i.filter(np.arange(0, ROWS, 3)), **ONE),
        ),
        Case("filter", many, lambda i, f: list(i.filter(groups == 2).ids)),
        Case("range codes", codes, lambda i, f: i.range_search(batch, 20.0, **ONE)),
        Case("pairs", many, lambda i, f: i.pairs(2.0, **ONE).arrays()),
        Case("duplicates", many, lambda i, f: [g.tolist() for g in i.duplicates(0.0, **ONE)]),
        Case("vectors", thinned, lambda i, f: [a.tolist() for a, _ in i.vectors(300)]),
        Case("get codes", codes, lambda i, f: i.get([3, 5, 1000])),
        Case("why not", many, lambda i, f: str(i.why_not(one, 77, ef_search=10))),
        Case("measure recall", many, lambda i, f: i.measure_recall(batch, 5, **ONE)),
        Case("tune on kept", kept, lambda i, f: i.tune(0.9, **ONE)),
        Case("tune on assumed", many, lambda i, f: i.tune(0.9, sample=50, **ONE)),
        Case("knn graph", many, lambda i, f: list(vicinal.knn_graph(rows(ROWS), 5, M=4, **ONE))),
        Case("warmup", many, lambda i, f: i.warmup()),
        Case("memory usage", many, lambda i, f: len(i.memory_usage())),
    ]  # fmt: skip
    keeps = [
        Case("bytes", thinned, lambda i, f: vicinal.Index.from_bytes(i.to_bytes())),
        Case("bytes of codes", codes, lambda i, f: vicinal.Index.from_bytes(i.to_bytes())),
        Case("npy", thinned, lambda i, f: (i.to_npy(f / "a.npy"), (f / "a.npy").read_bytes())[1]),
        Case("living", few, lambda i, f: living(i, f, lambda j: j.add(rows(9, 2)))),
        Case("living graph", many, lambda i, f: living(i, f, lambda j: j.add(rows(30, 2), **ONE))),
        Case("living remove", many, lambda i, f: living(i, f, lambda j: j.remove(np.arange(90)))),
        Case("living file whole", few, lambda i, f: living(i, f, lambda j: j.checkpoint())),
        Case("build", few, lambda i, f: built(f, 1)),
        Case("build parts", few, lambda i, f: built(f, 3)),
    ]  # fmt: skip
    return changes + asks + keeps


CASES = _cases()
