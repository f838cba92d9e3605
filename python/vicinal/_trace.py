"""How a search came to its result: the steps of its walk, and where it lost a row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vicinal import _validate
from vicinal._cpu import native
from vicinal._search import read_vectors
from vicinal._state import EXHAUSTIVE, State
from vicinal.result import SearchResult

__all__ = ["Trace", "TraceStep", "WhyNot", "trace", "why_not"]

# The words of a log, see mojo/vicinal/search/trace.mojo.
_SCAN = 0
_HEADER_WORDS, _HOP_WORDS, _ROW_WORDS = 5, 2, 3

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
        Candidates kept after the step, nearest first, at most `Trace.width`.
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
        Candidates kept at most: the larger of the two; `k` for a scan.
    scanned : bool
        True if all rows were measured (few rows, or a very wide search): the trace has one step
        that measures all rows and names those it kept.
    estimated : bool
        True if distances of the steps are estimates from codes; those of `result` are exact.
    reranked : int
        Candidates of the last beam, from the nearest on, that were measured again at the end.
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
    scanned: bool
    estimated: bool
    reranked: int
    rows: int
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
            distances = _distances(rows)
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
            here, count = words[start : start + _HOP_WORDS].tolist()
            body = words[start + _HOP_WORDS :][: (count + 1) * _ROW_WORDS].reshape(-1, _ROW_WORDS)
            expanded, measured = body[0], body[1:]
            if here != level:
                level, visited = here, 0
                # above level 0 the walk begins with a row that it measured before
                beam = np.empty((0, _ROW_WORDS), np.int64) if level == 0 else expanded[None]
            visited += count
            both = np.concatenate([beam, measured])
            # a row can be measured again above level 0
            _, first = np.unique(both[:, 0], return_index=True)
            both = both[first]
            kept = both[: self.width if level == 0 else 1]
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


Fate = Literal["found", "farther", "not_reranked", "evicted", "refused", "unreached"]


@dataclass(frozen=True)
class WhyNot:
    """What became of one row in one search; `str()` of it is a sentence.

    Attributes
    ----------
    id : int or str
        The row.
    fate : str
        "found": it is in the result. "farther": it was kept to the end, but k rows that were found
        are no farther; nothing went wrong. "not_reranked": it was kept to the end and belongs into
        the result by its exact distance, but its estimate was too large for it to be measured
        again. "evicted": it was kept and then pushed out by nearer rows. "refused": it was
        measured, but the beam was full of nearer rows. "unreached": no row that was expanded on
        level 0 links to it. A row that equals an earlier one is found or lost with that one.
    rank : int or None
        Place in the result, from 1; None if it is not there.
    true_rank : int or None
        Place in the exact result, from 1; None if it does not belong to the k nearest.
    step : int or None
        Number of the step of the trace that decided: that measured it, or evicted it.
    distance : float
        Its exact distance.
    measured : float or None
        The distance that the walk went by, an estimate where codes are; None if it was unreached.
    bound : float or None
        The distance that was too near for it: of the last candidate kept, or of the last result.
    """

    id: Any
    fate: Fate
    rank: int | None
    true_rank: int | None
    step: int | None
    distance: float
    measured: float | None
    bound: float | None

    def __str__(self) -> str:
        deserved = (
            "it is not one of the nearest that were asked for"
            if self.true_rank is None
            else f"by exact distance it is number {self.true_rank}"
        )
        where = f"{self.id!r} (distance {self.distance:g})"
        went_by = "" if self.measured is None else f"{self.measured:g}"
        bound = "" if self.bound is None else f"{self.bound:g}"
        said = {
            "found": f"was found, as number {self.rank}",
            "farther": f"was left out because nearer rows were found, the last at {bound}",
            "not_reranked": f"was kept to the end but estimated at {went_by}, too far to be "
            "measured again",
            "evicted": f"was kept at {went_by} until step {self.step}, when rows up to {bound} "
            "pushed it out",
            "refused": f"was measured at {went_by} in step {self.step}, when the candidates were "
            f"all nearer, the last at {bound}",
            "unreached": "was never reached: no row that was expanded links to it",
        }[self.fate]
        cure = (
            ""
            if self.true_rank is None
            else {
                "evicted": "; a larger ef_search would keep it longer",
                "refused": "; a larger ef_search would keep it",
                "unreached": "; a larger ef_search expands more rows",
                "not_reranked": "; a larger k has more measured again",
            }.get(self.fate, "")
        )
        return f"{where} {said}; {deserved}{cure}"


def trace(index: State, query: ArrayLike, k: int, ef_search: int | None) -> Trace:
    """See `Index.trace`."""
    rows, given = _validate.as_rows(query, "query", index._dim, index._dtype, queries=True)
    if given.ndim != 1:
        raise ValueError(f"query: expected ({index._dim},), got {given.shape}")
    k = _validate.whole_number(k, "k", 1, _validate.MAX_COUNT)
    width = _validate.search_width(ef_search, index._ef_search)
    _validate.room_for_results(1, k, len(index))
    ids, distances = np.empty(k, np.int64), np.empty(k, np.float32)
    log = native.index_trace(index._handle, rows[0], k, width, ids, distances)
    if isinstance(log, int):
        _validate.refuse_rows(log, "query", rows, given)
    words = np.frombuffer(log, np.int64)
    kind, estimated, kept, known, reranked = words[:_HEADER_WORDS].tolist()
    starts, place = [], _HEADER_WORDS
    while place < len(words):
        starts.append(place)
        place += _HOP_WORDS + (int(words[place + 1]) + 1) * _ROW_WORDS
    return Trace(
        query=rows[0].copy(),
        k=k,
        ef_search=width,
        width=kept,
        scanned=kind == _SCAN,
        estimated=bool(estimated),
        reranked=reranked,
        rows=known,
        result=SearchResult(index._to_external(ids), distances),
        _index=index,
        _words=words,
        _starts=tuple(starts),
    )


def why_not(index: State, query: ArrayLike, id: Any, k: int, ef_search: int | None) -> WhyNot:
    """See `Index.why_not`."""
    internal, given = index._to_internal(id, "id")
    if internal.ndim:
        raise ValueError(f"id: expected one id, got shape {internal.shape}")
    with index._writer_lock.still():
        if index._find_rows(internal.reshape(1))[0] < 0:
            raise KeyError(f"id: {given[()]} is not in the index")
        traced = trace(index, query, k, ef_search)
        return _why_not(index, traced, int(internal), given.reshape(1).tolist()[0])


def _why_not(index: State, trace: Trace, internal: int, id: Any) -> WhyNot:
    """Follow the row of an internal id, `id` to the caller, through a trace."""
    exact = np.empty(trace.k, np.int64)
    distances = np.empty(trace.k, np.float32)
    native.index_search(index._handle, trace.query, trace.k, EXHAUSTIVE, 1, exact, distances)
    true_rank = _rank(exact == internal, distances)
    rank = _rank(trace.result.ids == id, trace.result.distances)
    distance = _distance(index, trace.query, internal)
    if rank is not None:
        distance = float(trace.result.distances[rank - 1])
    last = float(trace.result.distances[-1])

    def answer(fate: Fate, step: int | None, measured: float | None, bound: float | None) -> WhyNot:
        return WhyNot(id, fate, rank, true_rank, step, distance, measured, bound)

    if trace.scanned:
        return answer("farther" if rank is None else "found", 0, distance, None if rank else last)
    step = measured = None
    for hop in trace._hops():
        if hop.level:
            continue
        if measured is None:
            here = np.flatnonzero(hop.measured[:, 1] == internal)
            if not len(here):
                continue
            step, measured = hop.number, float(_distances(hop.measured[here])[0])
            if rank is None and internal not in hop.beam[:, 1]:
                return answer("refused", step, measured, _last(hop.beam))
        elif rank is None and internal in hop.evicted[:, 1]:
            return answer("evicted", hop.number, measured, _last(hop.beam))
    if rank is not None:
        return answer("found", step, measured, None)
    if measured is None:
        representative = _representative(index, trace, internal)
        if representative is None:
            return answer("unreached", None, None, None)
        # it is found with the row that it equals, or lost with it
        other = index._to_external(np.array([representative]))[0]
        way = _why_not(index, trace, representative, other)
        fate = "farther" if way.fate == "found" else way.fate
        return answer(fate, way.step, way.measured, last if way.fate == "found" else way.bound)
    place = int(np.flatnonzero(hop.beam[:, 1] == internal)[0])
    if trace.estimated and place >= trace.reranked and distance < last:
        return answer("not_reranked", step, measured, last)
    return answer("farther", step, measured, last)


def _representative(index: State, trace: Trace, internal: int) -> int | None:
    """Return the row on level 0 of a trace that a row duplicates: duplicates have no links."""
    ids = [hop.measured[:, 1] for hop in trace._hops() if hop.level == 0]
    reached = np.concatenate([[internal], *ids])
    reached = np.concatenate([reached[:1], reached[1:][index._find_rows(reached[1:]) >= 0]])
    rows, unknown = read_vectors(index, reached)
    if unknown >= 0:
        return None
    equal = np.flatnonzero((rows[1:].view(np.uint8) == rows[:1].view(np.uint8)).all(axis=1))
    return int(reached[1 + equal[0]]) if len(equal) else None


def _rank(here: NDArray[np.bool_], distances: NDArray[np.float32]) -> int | None:
    """Return the first place that is marked and holds a row, from 1."""
    places = np.flatnonzero(here & np.isfinite(distances))
    return int(places[0]) + 1 if len(places) else None


def _distance(index: State, query: NDArray[Any], internal: int) -> float:
    """Measure a row as results are."""
    ids = np.array([internal])
    row, unknown = read_vectors(index, ids)
    if unknown >= 0:
        raise KeyError(f"id: {index._to_external(ids)[0]} is not in the index")
    metric, dtype = _validate.METRICS.index(index._metric), _validate.DTYPES.index(index._dtype)
    if index._metric == "cosine" and query.dtype == np.float32:
        # rows are measured as they are stored, at a length of almost 1
        length = np.linalg.norm(query.astype(np.float64))
        query = (query / length).astype(np.float32)
    return native.distance(metric, dtype, query, row[0])


def _distances(rows: Words) -> NDArray[np.float32]:
    """Return the distances of rows of a log, which holds the bits of float32."""
    return (rows[:, 2] & 0xFFFFFFFF).astype(np.uint32).view(np.float32)


def _last(beam: Words) -> float:
    """Return the distance of the farthest candidate kept."""
    return float(_distances(beam[-1:])[0])
