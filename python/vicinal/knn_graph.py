"""The graph of nearest neighbours among the rows of one array."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vicinal import _kinds, _validate
from vicinal._logging import DEBUG, log
from vicinal._progress import Report, reporting
from vicinal._self_join import can_join, self_join, without
from vicinal.exact import exact_search
from vicinal.index import Index
from vicinal.result import SearchResult

__all__ = ["NeighbourGraph", "knn_graph"]

# Below this many rows all pairs are measured: a graph to walk on costs as much to build.
EXACT_BELOW = 4096
# Rows whose true neighbours are looked up to choose the search width.
SAMPLE = 400
_AT_ONCE = 8192  # rows searched for between two reports of progress


class NeighbourGraph(NamedTuple):
    """Neighbours of every row; also unpacks as `indices, distances = graph`.

    Attributes
    ----------
    indices : ndarray of int64, shape (n, k)
        Row numbers, nearest first; -1 where there are fewer than k.
    distances : ndarray of float32, shape (n, k)
        Their distances; infinity where there are fewer than k.
    """

    indices: NDArray[np.int64]
    distances: NDArray[np.float32]


def knn_graph(
    X: ArrayLike,
    k: int,
    metric: str = "l2",
    include_self: bool = False,
    *,
    recall: float = 0.99,
    ef_search: int | None = None,
    M: int = 16,
    ef_construction: int = 64,
    quantization: str | None = "auto",
    seed: int = 0,
    num_threads: int | None = None,
    progress: bool | Report | None = None,
) -> NeighbourGraph:
    """Find the k nearest other rows of every row.

    Parameters
    ----------
    X : array_like of shape (n, dim)
        As `Index.add` takes vectors. float16, bfloat16, int8 and uint8 stay what they are, all
        else is rounded to float32.
    k : int
        Columns of the result, at least 1.
    metric : {"l2", "ip", "cosine", "euclidean", "hamming", "jaccard"}
        As for `Index`, where "l2" is squared; "euclidean" takes the root of it. "hamming" is for
        packed bits, uint8.
    include_self : bool
        Put every row itself into column 0, at distance 0 (for "ip" 1 - its squared length), before
        any equal row; the k - 1 nearest others follow. This is what UMAP takes.
    recall : float
        Share of the true neighbours to find on average, above 0, at most 1. Below 4,096 rows, and
        for 1, all pairs are measured. Otherwise some rows whose true neighbours are looked up tell
        when enough is done.
    ef_search : int, optional
        Search an index of the rows with this width, at least 1, in place of reaching `recall`. All
        pairs are measured below 1,000 rows only.
    M, ef_construction, quantization
        As for `Index`; used where there is one, see Notes. To find rows that are in the index
        themselves needs less care in building it than to find them for others: `ef_construction`
        is less by default.
    seed : int
        From 0 to 2**63 - 1: what is chosen at random.
    num_threads : int, optional
        Threads to use, at least 1; by default as many as `vicinal.get_num_threads` tells.
    progress : bool or callable, optional
        As for `Index.add`; counts the rows that have their neighbours.

    Returns
    -------
    NeighbourGraph
        `indices` and `distances`, each row in order of distance, equal distances in order of rows.
        Always of shape (n, k): -1 and infinity where there are no k others.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If a shape is wrong, a value is NaN, infinite or too large, a row is zero with metric
        "cosine", or a number is out of range.

    Notes
    -----
    The same call gives the same result, with any number of threads. No row is its own neighbour,
    whatever equal rows there are, but in column 0 where asked.

    With "l2", "euclidean" and "cosine", up to 128 neighbours and 32,768 dimensions, rows meet each
    other in groups of near ones, as codes of one byte for an element; what is left is measured
    exactly. Besides the result that takes a byte for each element, some 8 k + 420 for each row, and
    for each thread a few for each element of 10 sqrt(n) rows; X is copied if it is not C-contiguous
    or of a dtype that has to be converted.

    Otherwise, with `ef_search`, and where groups do not reach `recall`, an index is made of the
    rows and searched for each, which takes memory for that index.

    Threads: safe from many at once, as long as nobody writes to `X`.

    Examples
    --------
    >>> import vicinal
    >>> indices, distances = vicinal.knn_graph([[0, 0], [3, 4], [0, 1]], k=2, metric="euclidean")
    >>> indices
    array([[2, 1],
           [2, 0],
           [0, 1]])
    >>> distances[1]
    array([4.2426405, 5.       ], dtype=float32)
    """
    if metric != "euclidean":
        metric = _kinds.metric_name(metric)
    k = _validate.whole_number(k, "k", 1, _validate.MAX_COUNT - 1)
    target = _recall(recall)
    seed = _validate.whole_number(seed, "seed", 0, 2**63 - 1)
    threads = _validate.thread_count(num_threads)
    given = X if isinstance(X, np.ndarray) else _validate.as_numbers(X, "X")
    if given.ndim != 2 or not 1 <= given.shape[1] <= 65536:
        raise ValueError(f"X: expected (n, dim) with dim from 1 to 65536, got {given.shape}")
    dtype = given.dtype.name if given.dtype.name in _kinds.DTYPES else "float32"
    dim = given.shape[1]
    if metric in _kinds.BIT_METRICS and dtype == "uint8":
        dtype, dim = _kinds.PACKED, 8 * dim
    measured = "l2" if metric == "euclidean" else metric
    wanted = k if include_self else k + 1
    with _named_x():
        _validate.room_for_results(len(given), k, len(given))
        if ef_search is None and (target == 1 or len(given) < EXACT_BELOW):
            with reporting(progress, len(given)) as report:
                found = exact_search(given, given, wanted, measured, num_threads=threads)
                if report is not None:
                    report(len(given), len(given))
            graph = without_self(*found)
        else:
            joined = None
            if ef_search is None and can_join(len(given), dim, wanted - 1, measured, dtype):
                with reporting(progress, len(given)) as report:
                    joined = self_join(
                        given, wanted - 1, measured, dtype, target, seed, threads, report
                    )
            if joined is not None:
                graph = NeighbourGraph(*joined)
            else:
                index = Index(
                    dim,
                    measured,
                    dtype=dtype,
                    M=M,
                    ef_construction=ef_construction,
                    quantization=quantization,
                    seed=seed,
                )
                index.add(given, copy=None, num_threads=threads)
                width = ef_search
                if width is None:
                    width = least_width(index, given, target, k, threads)
                    log(DEBUG, "knn_graph: search width %d for recall %g", width, target)
                with reporting(progress, len(given)) as report:
                    graph = without_self(*search_all(index, given, wanted, width, threads, report))
    if include_self:
        graph = _self_first(graph, given, measured)
    if measured != "ip":
        np.maximum(graph.distances, 0, out=graph.distances)  # what rounding took below
    if metric == "euclidean":
        np.sqrt(graph.distances, out=graph.distances)
    return graph


def least_width(
    index: Index, rows: NDArray[Any], recall: float, k: int, threads: int | None
) -> int:
    """Return the search width at which the rows of an index find that share of their k neighbours.

    `Index.tune` is for queries from elsewhere, which are harder than rows: it would give more.
    """
    n = len(rows)
    if index.stats()["search"] == "exact":
        return 1
    chosen = np.arange(n)
    if n > SAMPLE:
        # this generator's stream is frozen: every release of NumPy draws the same
        chosen = np.sort(np.random.RandomState(0).choice(n, SAMPLE, replace=False))
    queries = rows[chosen]
    wanted = min(k + 1, n)
    truth = without_self(
        *exact_search(rows, queries, wanted, index.metric, num_threads=threads), chosen
    )

    def reaches(width: int) -> bool:
        found = index.search(queries, wanted, ef_search=width, num_threads=threads)
        ids, distances = without_self(*found, chosen)
        # a scan and a walk may round the distance of one row differently: look at ids as well
        near = distances <= truth.distances[:, -1:]
        near |= (ids[:, :, None] == truth.indices[:, None, :]).any(axis=2)
        return float(near.mean()) >= aim

    # a sample may be lucky by about a fifth of what is missed
    aim = recall + (1 - recall) / 5
    short, width = wanted - 1, wanted
    while width < n and not reaches(width):
        short, width = width, min(2 * width, n)
    while width - short > max(1, width // 16):
        middle = (short + width) // 2
        if reaches(middle):
            width = middle
        else:
            short = middle
    return width


def without_self(
    ids: NDArray[np.int64], distances: NDArray[np.float32], own: NDArray[np.int64] | None = None
) -> NeighbourGraph:
    """Take out the row itself of what each row found, or the last where it was not found.

    `own` are the rows, by default all in their order. One column is less.

    Where many rows are equal, or a walk went by it, a row need not find itself.
    """
    rows = np.arange(len(ids)) if own is None else own
    return NeighbourGraph(*without(ids, distances, rows))


def search_all(
    index: Index,
    rows: NDArray[Any],
    wanted: int,
    width: int,
    threads: int | None,
    report: Report | None = None,
) -> SearchResult:
    """Search for all rows, some at a time: progress is told, and Ctrl-C heard, in between."""
    n = len(rows)
    ids = np.empty((n, wanted), np.int64)
    distances = np.empty((n, wanted), np.float32)
    for start in range(0, n, _AT_ONCE):
        part = slice(start, min(n, start + _AT_ONCE))
        ids[part], distances[part] = index.search(
            rows[part], wanted, ef_search=width, num_threads=threads
        )
        if report is not None:
            report(part.stop, n)
    return SearchResult(ids, distances)


def _self_first(graph: NeighbourGraph, given: NDArray[Any], metric: str) -> NeighbourGraph:
    """Put a column in front that leads from each row to itself."""
    n = len(given)
    own = np.zeros(n, np.float32)
    if metric == "ip":
        for start in range(0, n, _AT_ONCE):
            block = given[start : start + _AT_ONCE].astype(np.float32).astype(np.float64)
            own[start : start + _AT_ONCE] = 1 - np.einsum("ij,ij->i", block, block)
    return NeighbourGraph(
        np.column_stack([np.arange(n), graph.indices]),
        np.column_stack([own, graph.distances]),
    )


def _recall(recall: object) -> float:
    number = _validate.real_number(recall, "recall")
    if not 0 < number <= 1:
        raise ValueError(
            f"recall: expected a number above 0 and at most 1, got {reprlib.repr(recall)}"
        )
    return number


@contextmanager
def _named_x() -> Iterator[None]:
    """Let messages about vectors speak of X, which is what the caller knows them by."""
    try:
        yield
    except (TypeError, ValueError) as error:
        text = str(error)
        for name in ("vectors: ", "base: ", "queries: "):
            if text.startswith(name):
                raise type(error)("X: " + text.removeprefix(name)) from None
        raise
