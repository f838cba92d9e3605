"""What became of one row in one search, told from the trace of the search."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vicinal import _kinds, _scale, _validate
from vicinal._cpu import native
from vicinal._search import read_vectors
from vicinal._state import EXHAUSTIVE, State
from vicinal._trace import Trace, distances_of, last_distance, trace
from vicinal.result import SearchResult

__all__ = ["WhyNot", "why_not"]

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
    finds : dict
        A change to the arguments of `search` that was tried and finds the row, such as
        ``{"ef_search": 80}``; empty unless the row is missing from the k nearest.
    scans : bool
        True if that change makes the search a scan: the row can be found by no walk that was tried.
    """

    id: Any
    fate: Fate
    rank: int | None
    true_rank: int | None
    step: int | None
    distance: float
    measured: float | None
    bound: float | None
    finds: dict[str, int] = field(default_factory=dict, hash=False)
    scans: bool = False

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
            "refused": f"was measured at {went_by} in step {self.step}, when all candidates that "
            f"could matter were nearer, the last at {bound}",
            "unreached": "was never reached: no row that was expanded links to it",
        }[self.fate]
        cure = "".join(f"; {name}={value} finds it" for name, value in self.finds.items())
        if self.scans:
            cure += ", by a scan: no walk that was tried does"
        return f"{where} {said}; {deserved}{cure}"


def why_not(index: State, query: ArrayLike, id: Any, k: int, ef_search: int | None) -> WhyNot:
    """See `Index.why_not`."""
    internal, given = index._to_internal(id, "id")
    if internal.ndim:
        raise ValueError(f"id: expected one id, got shape {internal.shape}")
    with index._writer_lock.still():
        if index._find_rows(internal.reshape(1))[0] < 0:
            raise KeyError(f"id: {_validate.shown(given[()])} is not in the index")
        traced = trace(index, query, k, ef_search)
        name = given.reshape(1).tolist()[0]
        why = _why_not(index, traced, int(internal), name)
        if why.rank is not None or why.true_rank is None or traced.scanned:
            return why
        finds, scans = _cure(index, traced, name, why.fate)
        return replace(why, finds=finds, scans=scans)


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

    def real(far: float) -> float:
        return float(_scale.in_units(index, far))

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
            step, measured = hop.number, real(float(distances_of(hop.measured[here])[0]))
            if rank is None and internal not in hop.beam[:, 1]:
                kept = distances_of(hop.beam)
                nearer = kept[kept <= distances_of(hop.measured[here])[0]]
                return answer("refused", step, measured, real(float(nearer.max())))
        elif rank is None and internal in hop.evicted[:, 1]:
            return answer("evicted", hop.number, measured, real(last_distance(hop.beam)))
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


def _cure(index: State, traced: Trace, id: Any, fate: Fate) -> tuple[dict[str, int], bool]:
    """Find arguments that bring a row into the result, and tell whether only a scan does."""
    if fate == "not_reranked":
        # for a larger k more are measured again; if that is the whole trouble, twice as many do
        more = trace(index, traced.query, 2 * traced.k, traced.ef_search)
        if _has(more.result, id):
            return {"k": 2 * traced.k}, more.scanned
    width = traced.width
    while True:
        width = min(2 * width, EXHAUSTIVE)
        wider = trace(index, traced.query, traced.k, width)
        if wider.scanned or _has(wider.result, id):
            return {"ef_search": width}, wider.scanned


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


def _has(result: SearchResult, id: Any) -> bool:
    """Tell whether a result holds a row."""
    return _rank(result.ids == id, result.distances) is not None


def _rank(here: NDArray[np.bool_], distances: NDArray[np.float32]) -> int | None:
    """Return the first place that is marked and holds a row, from 1."""
    places = np.flatnonzero(here & np.isfinite(distances))
    return int(places[0]) + 1 if len(places) else None


def _distance(index: State, query: NDArray[Any], internal: int) -> float:
    """Measure a row as results are."""
    ids = np.array([internal])
    row, unknown = read_vectors(index, ids)
    if unknown >= 0:
        raise KeyError(f"id: {_validate.shown(index._to_external(ids)[0])} is not in the index")
    metric, dtype = _kinds.native_codes(index._metric, index._dtype)
    if index._metric == "cosine" and query.dtype == np.float32:
        # rows are measured as they are stored, at a length of almost 1
        length = np.linalg.norm(query.astype(np.float64))
        query = (query / length).astype(np.float32)
    return float(_scale.in_units(index, native.distance(metric, dtype, query, row[0])))
