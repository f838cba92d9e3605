"""Searches that are timed, filtered, and compared with estimates."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import vicinal
from vicinal import _validate

__all__ = ["Timed", "codes_error", "counted", "filter_plans", "latencies", "scan", "timed"]

_SECONDS = 3.0  # for one search width; fewer queries count where they take longer
_LEAST = 30
_SHARES = (0.5, 0.1, 0.01, 0.001)
_FILTERED_QUERIES = 40
_TRACED = 30


class Timed(NamedTuple):
    """Times of calls with one query each, in seconds, on one thread."""

    calls: int
    mean: float
    p50: float
    p95: float
    p99: float
    queries_per_second: float  # of the fastest of three rounds, so that other work counts less
    batch_queries_per_second: float | None  # one call with all queries, on all threads
    histogram: list[int]
    edges: list[float]


def latencies(
    index: vicinal.Index,
    queries: NDArray[Any],
    k: int,
    width: int,
    threads: int | None,
    *,
    most: int = 1000,
    warm: int = 30,
    rounds: int = 3,
) -> Timed:
    """Search for one query after the other, round after round; with `threads` also for all at once.

    Percentiles are of all calls, what is done in a second is that of the fastest round.
    """
    rows = [queries[i : i + 1] for i in range(min(most, len(queries)))]
    for row in rows[:warm]:
        index.search(row, k, ef_search=width, num_threads=1)
    taken: list[float] = []
    fastest = 0.0
    begin = end = time.perf_counter()
    for _ in range(rounds):
        round_begin, before = end, len(taken)
        for row in rows:
            start = time.perf_counter()
            index.search(row, k, ef_search=width, num_threads=1)
            end = time.perf_counter()
            taken.append(end - start)
            if end - begin > _SECONDS and len(taken) >= _LEAST:
                break
        fastest = max(fastest, (len(taken) - before) / max(end - round_begin, 1e-9))
        if end - begin > _SECONDS:
            break
    batch = None
    if threads is not None:
        some = queries[: len(rows)]
        spent = []
        for _ in range(3):
            start = time.perf_counter()
            index.search(some, k, ef_search=width, num_threads=threads)
            spent.append(time.perf_counter() - start)
        batch = len(some) / max(min(spent), 1e-9)
    return timed(taken, fastest, batch)


def counted(values: NDArray[Any], bins: int) -> tuple[list[int], list[float]]:
    """Return a histogram and its edges, also of values that are all the same or nearly so."""
    values = values.astype(np.float64)
    if not len(values):
        return [], [0.0]
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-6 * max(abs(low), abs(high), 1e-30):
        low, high = low - 1e-6 * abs(low) - 1e-30, high + 1e-6 * abs(high) + 1e-30
    counts, edges = np.histogram(values, bins, (low, high))
    return counts.tolist(), edges.tolist()


def timed(taken: list[float], fastest: float, batch: float | None) -> Timed:
    """Sum up the seconds of calls, of which the fastest round made `fastest` a second."""
    seconds = np.array(taken)
    p50, p95, p99 = np.percentile(seconds, (50, 95, 99)).tolist()
    # the slowest call may be a hundred times the others: bins up to where nearly all are
    counts, edges = counted(np.minimum(seconds, 3 * p95), 30)
    return Timed(
        len(taken),
        float(seconds.mean()),
        p50,
        p95,
        p99,
        fastest,
        batch,
        counts,
        edges,
    )


def scan(
    index: vicinal.Index, rows: NDArray[Any], queries: NDArray[Any], threads: int
) -> vicinal.SearchResult:
    """Measure all of some rows that `Index.get` returned."""
    dtype = index.dtype if index.dtype == "bfloat16" else None  # without ml_dtypes it is bits
    return vicinal.exact_search(
        rows, queries, len(rows), index.metric, num_threads=threads, dtype=dtype
    )


def filter_plans(index: vicinal.Index, queries: NDArray[Any], k: int) -> list[dict[str, Any]]:
    """Confine searches to rows drawn at random, ever fewer, and tell plan, time and recall."""
    ids, some = index.ids, queries[:_FILTERED_QUERIES]
    order = np.random.RandomState(0).permutation(len(ids))
    told: list[dict[str, Any]] = []
    for share in _SHARES:
        allowed = ids[order[: max(1, round(share * len(ids)))]]
        if told and told[-1]["rows"] == len(allowed):
            break
        chosen = index.filter(allowed)
        before = index.stats()["filtered"]
        seconds, hits, there = [], 0, 0
        for query in some:
            start = time.perf_counter()
            found = index.search(query[None], k, filter=chosen, num_threads=1)
            seconds.append(time.perf_counter() - start)
            true = index.search(
                query[None], k, ef_search=_validate.MAX_COUNT, filter=chosen, num_threads=1
            )
            near = true.distances[np.isfinite(true.distances)]
            if len(near):
                # a scan and a walk may round the distance of one row differently
                reach = np.float64(near[-1]) + 1e-5 * abs(float(near[-1])) + 1e-30
                hits += min(len(near), int((found.distances <= reach).sum()))
                there += len(near)
        after = index.stats()["filtered"]
        plans = {name: after[name] - before[name] for name in after}
        plans["scan"] -= len(some)  # those of the truth
        told.append(
            {
                "share": share,
                "rows": len(allowed),
                "plans": {name: count for name, count in plans.items() if count > 0},
                "p50": float(np.percentile(seconds, 50)),
                "p99": float(np.percentile(seconds, 99)),
                "recall": hits / there if there else 1.0,
            }
        )
    return told


def codes_error(index: vicinal.Index, queries: NDArray[Any], k: int) -> dict[str, Any] | None:
    """Return how far estimates from codes are from the distances, None where there are none.

    As a share of how far the distances of the candidates of a search lie apart: an error that is
    small against that changes no order.
    """
    errors, overlaps = [], []
    for query in queries[:_TRACED]:
        try:
            walk = index.trace(query, k)
        except ValueError:  # a row of a damaged file
            continue
        if not walk.estimated or not len(walk):
            return None
        beam = list(walk)[-1].beam
        ids, estimates = beam.ids, beam.distances.astype(np.float64)
        if len(ids) < 2 * k:
            continue
        rows = index.get(ids)
        exact = scan(index, rows, query[None], 1)
        distances = np.empty(len(rows))
        distances[exact.ids[0]] = exact.distances[0]
        spread = float(np.std(distances))
        if spread > 0:
            errors.append(np.abs(estimates - distances) / spread)
            overlaps.append(len({*np.argsort(estimates)[:k]} & {*np.argsort(distances)[:k]}) / k)
    if not errors:
        return None
    every = np.concatenate(errors)
    return {
        "queries": len(errors),
        "candidates": len(every),
        "median": float(np.median(every)),
        "p95": float(np.percentile(every, 95)),
        "same_nearest": float(np.mean(overlaps)),
    }
