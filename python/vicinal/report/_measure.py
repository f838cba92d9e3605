"""Everything that the page tells, measured: one dict of plain numbers and texts."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

import vicinal
from vicinal import _kinds, _validate
from vicinal._assumed_queries import draw
from vicinal._stop_rule import with_rule
from vicinal._tuning import _Sample, interval
from vicinal.errors import CorruptError
from vicinal.report._machine import machine
from vicinal.report._map import map_of
from vicinal.report._peers import beside, installed
from vicinal.report._searches import Timed, codes_error, counted, filter_plans, latencies, scan
from vicinal.report._structure import structure

__all__ = ["measure"]

_WIDTHS = (16, 32, 64, 128, 256, 512)
_OWN_DISTANCES = 200  # queries, and rows, whose distances to others are compared
_ANY_ROWS = 500
_BINS = 30
_MOST_BINS = 20


def measure(
    path: str | os.PathLike[str],
    queries: ArrayLike | None = None,
    k: int = 10,
    *,
    widths: Sequence[int] | None = None,
    sample: int = 500,
    num_threads: int | None = None,
    against: Sequence[str] = (),
    progress: Callable[[str], object] | None = None,
) -> dict[str, Any]:
    """Measure what `page` shows of the index in a file.

    Parameters
    ----------
    path : str or path-like
        What `Index.save` wrote. It is opened read only and not changed.
    queries : array_like of shape (n, dim), optional
        Queries as they will come. By default those that the index keeps (`Index.keep_queries`),
        without them stored rows, each of which looks for its nearest others; these are found more
        easily than the neighbours of new queries.
    k : int
        Neighbours wanted, at least 1.
    widths : sequence of int, optional
        Search widths to measure, each at least 1; those below `k` count as `k`.
    sample : int
        Queries to measure, at least 1; all if there are no more.
    num_threads : int, optional
        Threads of exact searches and of throughput; times of one call are those of one thread.
    against : sequence of {"hnswlib", "faiss", "usearch"}
        Libraries to build with the same rows and settings, and to measure beside.
    progress : callable, optional
        Called with the name of each step that begins.

    Returns
    -------
    dict
        Lists, dicts, texts and numbers only, as JSON has them. Times are in seconds, distances as
        the index gives them.

    Raises
    ------
    OSError, FormatError
        If the file cannot be opened, or is no index.
    TypeError, ValueError
        If an argument is wrong, or the index is empty.
    ImportError
        If a library to measure beside is not installed.

    Notes
    -----
    Takes `sample` exact searches, of which each measures all rows, and about a minute besides.
    Damage that checksums find is told, not raised. Threads: safe; other work makes times longer.
    """
    say = progress or (lambda _: None)
    k = _validate.whole_number(k, "k", 1, _validate.MAX_COUNT - 1)
    threads = _validate.thread_count(num_threads)
    numbers: dict[str, Any] = {"machine": machine(), "k": k, "threads": threads}

    say("comparing with the checksums")
    path = os.fspath(path)
    index = vicinal.open(path)
    if not len(index):
        raise ValueError("index: expected rows to measure, got an empty index")
    numbers["index"] = _identity(index, path)
    chosen = _widths(widths, k, index.ef_search)
    sample = _validate.whole_number(sample, "sample", 1, _validate.MAX_COUNT)
    peers = installed(against, index.metric)
    if queries is not None:
        _validate.as_rows(queries, "queries", index.dim, index.dtype, queries=True)
    numbers["damage"] = _damage(index)
    try:
        numbers["structure"] = structure(path)
        asked, width = _measure(numbers, index, queries, chosen, sample, peers, say)
        del index  # what is mapped cannot be given back
        say("measuring cold searches")
        numbers["cold"] = _cold(path, asked, k, width)
    except (ValueError, KeyError, RuntimeError) as error:
        if numbers["damage"] is None:
            raise
        # rows that are no numbers any more, say: the page tells of the damage alone
        numbers["stopped_by"] = type(error).__name__
    return numbers


def _measure(
    numbers: dict[str, Any],
    index: vicinal.Index,
    queries: ArrayLike | None,
    chosen: list[int],
    sample: int,
    peers: dict[str, Any],
    say: Callable[[str], object],
) -> tuple[NDArray[Any], int]:
    """Measure what searches find, and how fast; return the queries and the default width."""
    k, threads = numbers["k"], numbers["threads"]
    say("looking for the true neighbours")
    taken = _Sample(index, queries, k, sample, threads)
    kept_width = index.ef_search
    asked: NDArray[Any] = np.array(taken._rows)
    numbers["queries"] = {"kind": taken.source, "count": len(asked)}
    own_truth = taken._truth
    numbers["distances"] = _distances(index, taken, threads)

    say("measuring recall and speed")
    numbers["recall"] = []
    for width in chosen:
        found = dataclasses.asdict(taken.measure(width))
        numbers["recall"].append({**found, "is_default": width == kept_width})
    shares = taken._shares(kept_width)
    # a bin for each number of neighbours, or 21 of many
    numbers["shares"] = np.histogram(shares, min(k, _MOST_BINS) + 1, (0, 1))[0].tolist()
    numbers["map"] = map_of(index, asked, own_truth, taken._search(kept_width), shares)
    numbers["codes"] = codes_error(index, asked, k)
    numbers["drift"] = _drift(index, queries, sample, threads)
    numbers["filters"] = filter_plans(index, asked, k)
    curve = []
    for width in chosen:
        timed = latencies(index, asked, k, width, threads)
        curve.append({"ef_search": width, **timed._asdict()})
    numbers["speed"] = curve
    exact = latencies(index, asked, k, _validate.MAX_COUNT, threads, most=30)
    numbers["scan"] = exact._asdict()
    numbers["memory"] = index.memory_usage()

    if peers:
        numbers["beside"] = beside(index, asked, k, chosen, threads, peers, say)
    return asked, kept_width


def _identity(index: vicinal.Index, path: str) -> dict[str, Any]:
    told = index.stats()
    for name in ("read_only", "filtered", "promises", "reads", "tuned"):
        del told[name]
    return {
        "file": os.path.basename(os.fsdecode(path)),
        "file_bytes": os.stat(path).st_size,
        **told,
        "kept_queries": len(index._kept_queries.queries(index._metric))
        if index._kept_queries is not None
        else 0,
    }


def _damage(index: vicinal.Index) -> str | None:
    """Return what checksums and the rules of the graph find wrong."""
    try:
        index.verify()
        index.check()
    except CorruptError as error:
        # the message begins with the path, which is nobody's business on a page
        return str(error).rpartition(": ")[2]
    except RuntimeError as error:
        return str(error)
    return None


def _widths(widths: Sequence[int] | None, k: int, kept: int) -> list[int]:
    given = _WIDTHS if widths is None else widths
    checked = [_validate.whole_number(w, "widths", 1, _validate.MAX_COUNT) for w in given]
    return sorted({max(k, kept), *(max(k, width) for width in checked)} | {kept})


def _distances(index: vicinal.Index, taken: _Sample, threads: int) -> dict[str, Any]:
    """Return how far the nearest rows of queries are, and those of rows, by exact search."""
    nearest = taken._truth[1][:, 0]
    nearest = nearest[np.isfinite(nearest)]
    counts, edges = counted(nearest, _BINS)
    told: dict[str, Any] = {
        "nearest": {
            "counts": counts,
            "edges": edges,
            "median": float(np.median(nearest)) if len(nearest) else None,
        },
        "zero": float((nearest <= 0).mean()) if len(nearest) and index.metric != "ip" else None,
    }
    if taken.source != "assumed" and len(index) > 1:
        kept, index._kept_queries = index._kept_queries, None  # rows are wanted here
        try:
            rows = _Sample(index, None, 1, _OWN_DISTANCES, threads)
            own = rows._truth[1][:, 0]
        finally:
            index._kept_queries = kept
        told["nearest_of_rows_median"] = float(np.median(own))
        told["contrast"] = _contrast(index, taken._rows[:_OWN_DISTANCES], taken._truth[1], threads)
        told["contrast_of_rows"] = _contrast(index, rows._rows, own[:, None], threads)
    return told


def _contrast(
    index: vicinal.Index, queries: NDArray[Any], nearest: NDArray[np.float32], threads: int
) -> float | None:
    """Return by which share the nearest row of a query is nearer than any row, on the median.

    Of distances as a ruler has them, also for l2 and cosine; None for inner products, which have
    none. Queries of another kind than the rows are as far from the nearest as from all others.
    """
    if index.metric == "ip":
        return None
    ids = index.ids
    some = index.get(ids[draw(len(ids), _ANY_ROWS)])
    every = scan(index, some, queries, threads).distances
    far = np.maximum(np.median(every, axis=1), 0).astype(np.float64)
    near = np.maximum(nearest[: len(far), 0], 0).astype(np.float64)
    if index.metric not in _kinds.BIT_METRICS:
        near, far = np.sqrt(near), np.sqrt(far)
    return float(np.median(1 - near / np.maximum(far, 1e-30)))


def _drift(
    index: vicinal.Index, queries: ArrayLike | None, sample: int, threads: int
) -> list[dict[str, Any]]:
    """Return what each tuning found when it was made, and what its width finds now.

    Without queries those are assumed that `tune` assumes.
    """
    told = []
    for tuning in index.tuned:
        drawn = _Sample(index, queries, tuning.k, sample, threads, harder=True)
        shares = drawn._shares(with_rule(tuning.ef_search, tuning._rule()))
        low, high = interval(shares, tuning.k)
        told.append(
            {
                "recall_wanted": tuning.recall,
                "k": tuning.k,
                "ef_search": tuning.ef_search,
                "then": tuning.measured.recall,
                "then_low": tuning.measured.low,
                "then_high": tuning.measured.high,
                "rows_then": tuning.rows,
                "now": float(shares.mean()),
                "now_low": low,
                "now_high": high,
                "rows_now": len(index),
                "queries_now": drawn.source,
                "stale": tuning.stale(len(index)),
            }
        )
    return told


def _cold(path: str, asked: NDArray[Any], k: int, width: int) -> dict[str, Any]:
    """Time the first searches of a file that was just opened, out of memory as far as it goes."""
    given_back = False
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            given_back = True
        finally:
            os.close(descriptor)
    except (OSError, AttributeError):
        pass
    index = vicinal.open(path)
    in_memory = index.memory_usage()["resident"]
    timed: Timed = latencies(index, asked, k, width, None, most=200, warm=0, rounds=1)
    return {
        **timed._asdict(),
        "ef_search": width,
        "asked_system_to_drop_pages": given_back,
        "bytes_in_memory_before": in_memory,
        "bytes_in_memory_after": index.memory_usage()["resident"],
    }
