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
from vicinal._state import State
from vicinal.result import SearchResult

__all__ = ["Trace", "TraceStep", "Walking", "WhyNot"]

# The words of a log, see mojo/vicinal/search/trace.mojo.
_SCAN = 0
_HEADER, _NOTE, _ROW = 5, 2, 3
_EXACT = _validate.MAX_COUNT  # so wide a search is a scan of all rows

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
            entries, evicted = hop.beam, hop.evicted
            names, distances = self._named(
                np.concatenate([hop.expanded[None], hop.measured, entries, evicted])
            )
            ends = np.cumsum([1, len(hop.measured), len(entries), len(evicted)])
            measured, beam, out = (
                SearchResult(names[a:b], distances[a:b]) for a, b in pairwise(ends)
            )
            yield TraceStep(
                hop.number,
                hop.level,
                names[:1].tolist()[0],
                float(distances[0]),
                measured,
                beam,
                out,
                self.rows if self.scanned else hop.visited,
            )

    def __repr__(self) -> str:
        way = f"a scan of {self.rows} rows" if self.scanned else f"a walk of {len(self)} steps"
        return f"vicinal.Trace({way}, k={self.k}, ef_search={self.ef_search})"

    def _named(self, rows: Words) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """Return ids and distances of rows of the log."""
        bits = (rows[:, 2] & 0xFFFFFFFF).astype(np.uint32)
        return self._index._named(np.ascontiguousarray(rows[:, 1])), bits.view(np.float32)

    def _hops(self) -> Iterator[_Hop]:
        """Replay the log: what is kept is always the nearest of all that was measured."""
        words = self._words
        beam = np.empty((0, _ROW), np.int64)
        level, visited = -1, 0
        for number, start in enumerate(self._starts):
            here, count = words[start : start + _NOTE].tolist()
            body = words[start + _NOTE : start + _NOTE + (count + 1) * _ROW].reshape(-1, _ROW)
            expanded, measured = body[0], body[1:]
            if here != level:
                level, visited = here, 0
                # above level 0 the walk begins with a row that it measured before
                beam = np.empty((0, _ROW), np.int64) if level == 0 else expanded[None]
            visited += count
            both = np.concatenate([beam, measured])
            # a row can be measured again above level 0
            _, first = np.unique(both[:, 0], return_index=True)
            both = both[first]
            kept = both[: self.width if level == 0 else 1]
            gone = beam[~np.isin(beam[:, 0], kept[:, 0])]
            yield _Hop(number, level, expanded, measured, beam, kept, gone, visited)
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
    before: Words
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


class Walking(State):
    """The methods that tell how a search went."""

    __slots__ = ()

    def trace(self, query: ArrayLike, k: int = 10, *, ef_search: int | None = None) -> Trace:
        """Search for one query and tell every step of the walk.

        Parameters
        ----------
        query : array_like of shape (dim,)
            As `search` takes it.
        k : int
            Neighbours wanted, at least 1.
        ef_search : int, optional
            Search width; `index.ef_search` by default.

        Returns
        -------
        Trace
            Iterate over it for the steps; its `result` is what `search` finds. Only what was
            measured is kept (some 24 bytes a distance); beams are made while iterating.

        Raises
        ------
        TypeError, ValueError
            As `search`; also for more than one query.

        Notes
        -----
        The walk is that of `search`, hop by hop, with notes taken in between. An index that is
        searched exactly has a trace of one step. Nothing is changed, and searches that are not
        traced pay nothing for it.
        Threads: safe at any time, also during `add`.
        """
        rows, given = _validate.as_rows(query, "query", self._dim, self._dtype, queries=True)
        if given.ndim != 1:
            raise ValueError(f"query: expected ({self._dim},), got {given.shape}")
        k = _validate.whole_number(k, "k", 1, _validate.MAX_COUNT)
        width = self._ef_search
        if ef_search is not None:
            width = _validate.whole_number(ef_search, "ef_search", 1, _validate.MAX_COUNT)
        _validate.room_for_results(1, k, len(self))
        ids, distances = np.empty(k, np.int64), np.empty(k, np.float32)
        log = native.index_trace(self._handle, rows[0], k, width, ids, distances)
        if isinstance(log, int):
            _validate.refuse_rows(log, "query", rows, given)
        words = np.frombuffer(log, np.int64)
        kind, estimated, kept, known, reranked = words[:_HEADER].tolist()
        starts, place = [], _HEADER
        while place < len(words):
            starts.append(place)
            place += _NOTE + (int(words[place + 1]) + 1) * _ROW
        return Trace(
            query=rows[0].copy(),
            k=k,
            ef_search=width,
            width=kept,
            scanned=kind == _SCAN,
            estimated=bool(estimated),
            reranked=reranked,
            rows=known,
            result=SearchResult(self._named(ids), distances),
            _index=self,
            _words=words,
            _starts=tuple(starts),
        )

    def why_not(
        self, query: ArrayLike, id: Any, k: int = 10, *, ef_search: int | None = None
    ) -> WhyNot:
        """Tell what became of one row in a search: where it was lost, or that it was found.

        Parameters
        ----------
        query : array_like of shape (dim,)
            As `search` takes it.
        id : int or str
            A row of the index.
        k : int
            Neighbours wanted, at least 1.
        ef_search : int, optional
            Search width; `index.ef_search` by default.

        Returns
        -------
        WhyNot
            `str()` of it says it in English.

        Raises
        ------
        KeyError
            If the id is not in the index.
        TypeError, ValueError
            As `trace`.

        Notes
        -----
        Takes a trace and an exact search. Threads: waits for a writer, and writers wait for it, so
        that all it tells is of one moment; a progress function may ask, too.
        """
        number, given = self._known(id, "id")
        if number.ndim:
            raise ValueError(f"id: expected one id, got shape {number.shape}")
        with self._writing.still():
            if self._rows(number.reshape(1))[0] < 0:
                raise KeyError(f"id: {given[()]} is not in the index")
            trace = self.trace(query, k, ef_search=ef_search)
            return _why_not(self, trace, int(number), given.reshape(1).tolist()[0])


def _why_not(index: State, trace: Trace, number: int, id: Any) -> WhyNot:
    """Follow one row, `number` to the native code, through a trace."""
    exact = np.empty(trace.k, np.int64)
    distances = np.empty(trace.k, np.float32)
    native.index_search(index._handle, trace.query, trace.k, _EXACT, 1, exact, distances)
    true_rank = _place(exact == number, distances)
    rank = _place(trace.result.ids == id, trace.result.distances)
    distance = _distance(index, trace.query, number)
    if rank is not None:
        distance = float(trace.result.distances[rank - 1])
    last = float(trace.result.distances[-1])

    def tell(fate: Fate, step: int | None, measured: float | None, bound: float | None) -> WhyNot:
        return WhyNot(id, fate, rank, true_rank, step, distance, measured, bound)

    if trace.scanned:
        return tell("farther" if rank is None else "found", 0, distance, None if rank else last)
    step = measured = None
    for hop in trace._hops():
        if hop.level:
            continue
        if measured is None:
            here = np.flatnonzero(hop.measured[:, 1] == number)
            if not len(here):
                continue
            step, measured = hop.number, float(trace._named(hop.measured[here])[1][0])
            if rank is None and number not in hop.beam[:, 1]:
                return tell("refused", step, measured, float(trace._named(hop.beam[-1:])[1][0]))
        elif rank is None and number in hop.evicted[:, 1]:
            bound = float(trace._named(hop.beam[-1:])[1][0])
            return tell("evicted", hop.number, measured, bound)
    if rank is not None:
        return tell("found", step, measured, None)
    if measured is None:
        original = _original(index, trace, number)
        if original is None:
            return tell("unreached", None, None, None)
        # it is found with the row that it equals, or lost with it
        way = _why_not(index, trace, original, index._named(np.array([original]))[0])
        fate = "farther" if way.fate == "found" else way.fate
        return tell(fate, way.step, way.measured, last if way.fate == "found" else way.bound)
    place = int(np.flatnonzero(hop.beam[:, 1] == number)[0])
    if trace.estimated and place >= trace.reranked and distance < last:
        return tell("not_reranked", step, measured, last)
    return tell("farther", step, measured, last)


def _original(index: State, trace: Trace, number: int) -> int | None:
    """Return the row on level 0 of a trace that a row is a copy of: copies are not in the graph."""
    ids = [hop.measured[:, 1] for hop in trace._hops() if hop.level == 0]
    reached = np.concatenate([[number], *ids])
    reached = np.concatenate([reached[:1], reached[1:][index._rows(reached[1:]) >= 0]])
    rows = np.empty((len(reached), index._dim), _validate.STORED_DTYPES[index._dtype])
    if native.index_get(index._handle, reached, rows) >= 0:
        return None
    equal = np.flatnonzero((rows[1:].view(np.uint8) == rows[:1].view(np.uint8)).all(axis=1))
    return int(reached[1 + equal[0]]) if len(equal) else None


def _place(here: NDArray[np.bool_], distances: NDArray[np.float32]) -> int | None:
    """Return the first place that is marked and holds a row, from 1."""
    places = np.flatnonzero(here & np.isfinite(distances))
    return int(places[0]) + 1 if len(places) else None


def _distance(index: State, query: NDArray[Any], number: int) -> float:
    """Measure a row as results are."""
    row = np.empty((1, index._dim), _validate.STORED_DTYPES[index._dtype])
    if native.index_get(index._handle, np.array([number]), row) >= 0:
        raise KeyError(f"id: {index._named(np.array([number]))[0]} is not in the index")
    metric, dtype = _validate.METRICS.index(index._metric), _validate.DTYPES.index(index._dtype)
    if index._metric == "cosine" and query.dtype == np.float32:
        # rows are measured as they are stored, at a length of almost 1
        length = np.linalg.norm(query.astype(np.float64))
        query = (query / length).astype(np.float32)
    return native.distance(metric, dtype, query, row[0])
