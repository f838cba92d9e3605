"""How a search came to its result: the steps of its walk, and where it lost a row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vicinal import _scale, _tuning, _validate
from vicinal._cpu import native
from vicinal._float_queries import as_queries
from vicinal._state import State
from vicinal.result import SearchResult

__all__ = ["Trace", "TraceStep", "trace"]

# The words of a log, see mojo/vicinal/search/trace.mojo.
_SCAN = 0
_HEADER_WORDS, _HOP_WORDS, _ROW_WORDS = 7, 3, 3

Words = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class TraceStep:
    """One step of a walk: a row was expanded, and its neighbours were measured.

    Attributes
    ----------
    number : int
        Place of the step in the trace, from 0.
    level : int
        Level of the graph. Above 0 the walk only keeps the nearest row; a scan has level 0.
    id : int or str
        The row that was expanded; for the first step of level 0, which expands none yet, the row
        that it begins with, and for a scan the nearest row.
    distance : float
        Its distance, an estimate if the trace says so.
    measured : SearchResult
        Rows that were measured, in the order of the links. Those that were seen before on level 0
        are left out; a scan names only those that were kept.
    beam : SearchResult
        Candidates kept after the step, nearest first, at most `Trace.kept`.
    evicted : SearchResult
        Candidates that were kept before and are no longer, nearest first.
    visited : int
        Distances measured on this level up to now; on level 0 each row once.
    """

    number: int
    level: int
    id: Any
    distance: float
    measured: SearchResult
    beam: SearchResult
    evicted: SearchResult
    visited: int


@dataclass(frozen=True, eq=False)
class Trace:
    """All steps of one search; iterating gives `TraceStep`s, and `len` their number.

    Attributes
    ----------
    query : ndarray of shape (dim,)
        The query as it was measured.
    k, ef_search : int
        What the search was asked for.
    width : int
        Candidates that are expanded, unless nearer ones come: the larger of the two; `k` for a
        scan.
    kept : int
        Candidates kept at most: as many, or more where `estimated`, since the nearest need not be
        those with the smallest estimates.
    far : float or None
        How many times as far as the k-th nearest candidate the next one is, in squared distance,
        when the walk ends before it has expanded `width` of them; candidates beyond that are not
        kept any more. None if the walk goes to its end.
    scanned : bool
        True if all rows were measured (few rows, or a very wide search): the trace has one step
        that measures all rows and names those it kept.
    estimated : bool
        True if distances of the steps are estimates from codes; those of `result` are exact.
    reranked : int
        Candidates of the last beam, from the nearest on, that were measured again at the end, until
        the next estimate was too large for a row that belongs into the result.
    rows : int
        Rows that the search could reach.
    result : SearchResult
        What the search found: what `search` returns for this query.

    Notes
    -----
    It keeps the index alive, and asks it for the names of string ids while it is iterated.
    """

    query: NDArray[Any]
    k: int
    ef_search: int
    width: int
    kept: int
    scanned: bool
    estimated: bool
    reranked: int
    rows: int
    far: float | None
    result: SearchResult
    _index: State
    _words: Words
    _starts: tuple[int, ...]

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[TraceStep]:
        for hop in self._hops():
            rows = np.concatenate([hop.expanded[None], hop.measured, hop.beam, hop.evicted])
            ids = self._index._to_external(np.ascontiguousarray(rows[:, 1]))
            distances = _scale.in_units(self._index, distances_of(rows))
            ends = np.cumsum([1, len(hop.measured), len(hop.beam), len(hop.evicted)])
            measured, beam, evicted = (
                SearchResult(ids[a:b], distances[a:b]) for a, b in pairwise(ends)
            )
            yield TraceStep(
                hop.number,
                hop.level,
                ids[:1].tolist()[0],
                float(distances[0]),
                measured,
                beam,
                evicted,
                self.rows if self.scanned else hop.visited,
            )

    def __repr__(self) -> str:
        way = f"a scan of {self.rows} rows" if self.scanned else f"a walk of {len(self)} steps"
        return f"vicinal.Trace({way}, k={self.k}, ef_search={self.ef_search})"

    def _hops(self) -> Iterator[_Hop]:
        """Replay the log: what is kept is always the nearest of all that was measured."""
        words = self._words
        beam = np.empty((0, _ROW_WORDS), np.int64)
        level, visited = -1, 0
        for number, start in enumerate(self._starts):
            here, count, bound = words[start : start + _HOP_WORDS].tolist()
            body = words[start + _HOP_WORDS :][: (count + 1) * _ROW_WORDS].reshape(-1, _ROW_WORDS)
            expanded, measured = body[0], body[1:]
            if here != level:
                level, visited = here, 0
                # above level 0 the walk begins with a row that it measured before
                beam = np.empty((0, _ROW_WORDS), np.int64) if level == 0 else expanded[None]
            visited += count
            both = np.concatenate([beam, measured[measured[:, 0] < bound]])
            # a row can be measured again above level 0
            _, first = np.unique(both[:, 0], return_index=True)
            both = both[first]
            kept = both[: self.kept if level == 0 else 1]
            gone = beam[~np.isin(beam[:, 0], kept[:, 0])]
            yield _Hop(number, level, expanded, measured, kept, gone, visited)
            beam = kept


@dataclass(frozen=True, eq=False)
class _Hop:
    """A step in the words of the log: each row is its entry (distance, row), its id, its distance.

    Entries order rows by distance, equal ones by row.
    """

    number: int
    level: int
    expanded: Words
    measured: Words
    beam: Words
    evicted: Words
    visited: int


def trace(
    index: State,
    query: ArrayLike,
    k: int,
    ef_search: int | None,
    recall: float | None = None,
) -> Trace:
    """See `Index.trace`."""
    rows, given, _ = as_queries(index, query, "query")
    if given.ndim != 1:
        raise ValueError(f"query: expected ({index._dim},), got {given.shape}")
    k = _validate.whole_number(k, "k", 1, _validate.MAX_COUNT)
    if recall is None:
        width = _validate.search_width(ef_search, index._ef_search)
    elif ef_search is None:
        width = _tuning.tuned_walk(index, recall, k)
    else:
        raise ValueError("recall: expected ef_search or recall, got both")
    _validate.room_for_results(1, k, len(index))
    ids, distances = np.empty(k, np.int64), np.empty(k, np.float32)
    log = native.index_trace(index._handle, rows[0], k, width, ids, distances)
    if isinstance(log, int):
        _validate.refuse_rows(log, "query", rows, given)
    words = np.frombuffer(log, np.int64)
    kind, estimated, expanded, kept, known, reranked, far = words[:_HEADER_WORDS].tolist()
    starts, place = [], _HEADER_WORDS
    while place < len(words):
        starts.append(place)
        place += _HOP_WORDS + (int(words[place + 1]) + 1) * _ROW_WORDS
    return Trace(
        query=rows[0].copy(),
        k=k,
        ef_search=width & _validate.MAX_COUNT,
        width=expanded,
        kept=kept,
        scanned=kind == _SCAN,
        estimated=bool(estimated),
        reranked=reranked,
        rows=known,
        far=float(np.uint32(far).view(np.float32)) if far else None,
        result=index._result(index._to_external(ids), _scale.in_units(index, distances)),
        _index=index,
        _words=words,
        _starts=tuple(starts),
    )


def distances_of(rows: Words) -> NDArray[np.float32]:
    """Return the distances of rows of a log, which holds the bits of float32."""
    return (rows[:, 2] & 0xFFFFFFFF).astype(np.uint32).view(np.float32)


def last_distance(beam: Words) -> float:
    """Return the distance of the farthest candidate kept."""
    return float(distances_of(beam[-1:])[0])
