"""Recall as a number: measuring it, and finding the search width that reaches it."""

from __future__ import annotations

import math
import numbers
import reprlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vicinal import _kinds, _validate
from vicinal._assumed_queries import draw, moved_away, stored_rows
from vicinal._cpu import native
from vicinal._float_queries import as_queries
from vicinal._logging import WARNING, log, logged
from vicinal._query_sample import QuerySample
from vicinal._state import EXHAUSTIVE, STRING_NUMBERS, State
from vicinal._stop_rule import MOST_HELD, UNIT, StopRule, least_rule, rule_of, with_rule
from vicinal.errors import CorruptError

__all__ = [
    "MeasuredRecall",
    "Tuning",
    "keep_queries",
    "measure_recall",
    "tune",
    "tuned_walk",
    "tuned_width",
    "tunings",
]

_SCAN_SHARE = 8  # searches wider than 1/8 of the rows scan all of them
_Z = 1.959963984540054  # quantile of the normal distribution for 95 %
_ADDED = 4  # queries added to the variance of a sample
_WORDS = 8  # int64 of a tuning in the table of the native index
_MOST_TUNINGS = 4096
_LEAST_KEPT = 100  # queries without which a sample says too little
_WORST_LOSS = 0.05  # how much less the worst hundredth of the queries may find by a stop rule
_PAIRS = 1 << 22  # pairs of ids compared at a time: a few MB


@dataclass(frozen=True)
class MeasuredRecall:
    """Recall of a sample of queries; `float()` of it is the recall.

    Attributes
    ----------
    recall : float
        Mean share of the true k neighbours that were found, 0 to 1.
    low, high : float
        95 % confidence interval of the recall of all such queries (Wilson's, see
        `docs/guide/recall.md`).
    k : int
        Neighbours asked for.
    ef_search : int
        Search width.
    sample : int
        Queries that were measured.
    """

    recall: float
    low: float
    high: float
    k: int
    ef_search: int
    sample: int

    def __float__(self) -> float:
        return self.recall


@dataclass(frozen=True)
class Tuning:
    """The search width that was found for a recall, and when walks end.

    Attributes
    ----------
    recall : float
        What was asked for.
    k : int
        Neighbours that it was measured for.
    ef_search : int
        The least width that reaches it.
    rows : int
        Rows of the index at the time.
    measured : MeasuredRecall
        What `search(recall=...)` finds.
    queries : str or None
        Which queries it was measured with: "given" ones, those "kept" by `keep_queries`, or ones
        that were "assumed", made of stored rows. None in `Index.tuned`, where that is not kept.
    held, far : int, float, or None
        Where that takes fewer distances than the width: candidates that walks hold, more than
        `ef_search`, and how many times as far as the k-th nearest one is, by the distances of
        results, that ends them. Searches that filter or group go by `ef_search`.
    distances : float or None
        Distances that a query took on average. None in `Index.tuned`.
    """

    recall: float
    k: int
    ef_search: int
    rows: int
    measured: MeasuredRecall
    queries: Literal["given", "kept", "assumed"] | None = field(default=None, compare=False)
    held: int | None = None
    far: float | None = None
    distances: float | None = field(default=None, compare=False)

    def _rule(self) -> StopRule | None:
        """Return when walks end, if not by the width alone."""
        if self.held is None or self.far is None:
            return None
        return StopRule(self.held, round(self.far * UNIT))

    def stale(self, rows: int) -> bool:
        """Tell whether an index of `rows` rows has more than doubled or halved since."""
        return rows > 2 * self.rows or 2 * rows < self.rows


def interval(shares: NDArray[np.float64], k: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of a mean of shares of k.

    Wilson's interval for n_eff trials. The k neighbours of a query are no independent trials: n_eff
    is the number that explains the variance between queries, at least the queries (neighbours found
    or lost together) and at most k times as many. To the variance four queries are added whose
    neighbours are found or lost together: a sample may lack the rare query that loses all of them.
    In simulations 90 to 98 % of such intervals hold the recall for 100 queries, 92 to 97 % for
    1,000 (`tests/python/test_measure_recall.py`).
    """
    n = len(shares)
    mean = float(shares.mean())
    worst = mean * (1 - mean)
    variance = float(shares.var(ddof=1)) if n > 1 else worst
    variance = (n * variance + _ADDED * worst) / (n + _ADDED)
    trials = min(max(n * worst / variance, n), n * k) if variance > 0 else n
    spread = _Z * _Z / trials
    centre = (mean + spread / 2) / (1 + spread)
    half = _Z * math.sqrt(worst / trials + spread / (4 * trials)) / (1 + spread)
    return max(0.0, min(mean, centre - half)), min(1.0, max(mean, centre + half))


def measure_recall(
    index: State,
    queries: ArrayLike | None,
    k: int,
    sample: int,
    ef_search: int | None,
    num_threads: int | None,
) -> MeasuredRecall:
    """See `Index.measure_recall`."""
    width = _validate.search_width(ef_search, index._ef_search)
    with index._writer_lock.still():
        return _Sample(index, queries, k, sample, num_threads).measure(width)


@logged
def tune(
    index: State,
    recall: float,
    k: int,
    queries: ArrayLike | None,
    sample: int,
    num_threads: int | None,
) -> Tuning:
    """See `Index.tune`."""
    target = _as_recall(recall)
    with index._writer_lock.held():
        drawn = _Sample(index, queries, k, sample, num_threads, harder=True)
        width = drawn.least_width(target)
        rule = drawn.least_rule(target, width)
        walk = with_rule(width, rule)
        tuning = Tuning(
            target,
            drawn.k,
            width,
            len(index),
            drawn.measure(walk),
            drawn.source,
            None if rule is None else rule.held,
            None if rule is None else rule.factor,
            drawn.work(walk),
        )
        others = [old for old in tunings(index) if (old.recall, old.k) != (target, drawn.k)]
        kept = [*others, tuning][-_MOST_TUNINGS:]
        native.index_set_tuning(index._handle, *_to_tables(kept))
        index._tuned_widths = {}
    return tuning


def keep_queries(index: State, count: int) -> None:
    """See `Index.keep_queries`."""
    count = _validate.whole_number(count, "count", 0, _validate.MAX_COUNT)
    dtype = _kinds.query_dtype(index._dtype)
    index._keep(QuerySample(count, index._dim, dtype) if count else None)


def tunings(index: State) -> tuple[Tuning, ...]:
    """See `Index.tuned`."""
    return _from_tables(native.index_tuning(index._handle), native.index_stop_rules(index._handle))


def tuned_width(index: State, recall: float, k: int) -> int:
    """Return the search width for a recall; ValueError if none was tuned that serves."""
    return tuned_walk(index, recall, k) & EXHAUSTIVE


def tuned_walk(index: State, recall: float, k: int) -> int:
    """Return the same, joined with when walks end: for a search that nothing else restricts.

    A rule was measured for one k; another goes by the width.
    """
    try:
        return index._tuned_widths[recall, k]
    except (KeyError, TypeError):
        pass
    target = _as_recall(recall)
    tuned = tunings(index)
    serve = [t for t in tuned if t.recall >= target and t.k >= k]
    if not serve:
        have = ", ".join(f"recall={t.recall:g} for k={t.k}" for t in tuned) or "nothing"
        raise ValueError(
            f"recall: expected one that the index was tuned for, got {target:g} for k={k}; "
            f"tuned for: {have}; call index.tune({target:g}, k={k}) first"
        )
    chosen = min(serve, key=lambda t: (t.ef_search, t.k != k, t.held is None))
    if any(t.stale(len(index)) for t in tuned if t.ef_search == chosen.ef_search):
        log(WARNING, "search: tuned for recall %g when there were far more or fewer rows", target)
    walk = with_rule(chosen.ef_search, chosen._rule() if chosen.k == k else None)
    index._tuned_widths[target, k] = walk
    return walk


class _Sample:
    """Queries with their true neighbours."""

    def __init__(
        self,
        index: State,
        queries: ArrayLike | None,
        k: int,
        sample: int,
        num_threads: int | None,
        *,
        harder: bool = False,
    ) -> None:
        self.k = _validate.whole_number(k, "k", 1, _validate.MAX_COUNT - 1)
        sample = _validate.whole_number(sample, "sample", 1, _validate.MAX_COUNT)
        self._threads = _validate.thread_count(num_threads)
        self._index = index
        if not len(index):
            raise ValueError("index: expected rows to measure, got an empty index")
        self._own: NDArray[np.int64] | None = None
        self.source: Literal["given", "kept", "assumed"] = "given"
        if queries is None and index._kept_queries is not None:
            kept = index._kept_queries.queries(index._metric)
            if len(kept) >= _LEAST_KEPT:
                queries, self.source = kept, "kept"
        if queries is None:
            self.source = "assumed"
            if len(index) == 1:
                raise ValueError("index: expected more rows than the one that is the query, got 1")
            rows, own = stored_rows(index, sample)
            if harder:
                rows = moved_away(index, rows, self._threads)
            else:
                self._own = own
            self._rows = rows
            self._given: NDArray[Any] = rows
        else:
            rows, given, _ = as_queries(index, queries)
            if not len(rows):
                raise ValueError(f"queries: expected at least one, got {given.shape}")
            chosen = draw(len(rows), sample)
            # looked at as a whole, so that a message names the row that was given
            self._rows = rows[chosen] if len(chosen) < len(rows) else rows
            self._given = given.reshape(rows.shape)[chosen]
        self._shares_by_width: dict[int, NDArray[np.float64]] = {}
        self._work_by_width: dict[int, float] = {}

    @cached_property
    def _truth(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        return self._search(EXHAUSTIVE)

    def measure(self, width: int) -> MeasuredRecall:
        """Measure one search width, or one joined with a rule."""
        shares = self._shares(width)
        low, high = interval(shares, self.k)
        asked = width & EXHAUSTIVE
        return MeasuredRecall(float(shares.mean()), low, high, self.k, asked, len(shares))

    def work(self, width: int) -> float:
        """Return how many distances a query takes on average."""
        self._shares(width)
        return self._work_by_width[width]

    def least_rule(self, target: float, width: int) -> StopRule | None:
        """Return when walks may end so that the target is reached for less than with the width.

        The queries of which least is found must not lose by it.
        """
        scan = -(-len(self._index) // _SCAN_SHARE)
        if self._index._metric == "ip" or max(self.k, width) >= scan:
            return None
        worst = _worst(self._shares(width))

        def reaches(walk: int) -> bool:
            shares = self._shares(walk)
            return float(shares.mean()) >= target and _worst(shares) >= worst - _WORST_LOSS

        return least_rule(max(self.k, width), min(scan - 1, MOST_HELD), reaches, self.work)

    def least_width(self, target: float) -> int:
        """Return the least width whose mean recall reaches the target."""

        def reaches(width: int) -> bool:
            return width >= scan or float(self._shares(width).mean()) >= target

        scan = max(1, -(-len(self._index) // _SCAN_SHARE))
        width = min(self.k, scan)
        short = width - 1  # never used as a width: a search keeps k candidates at least
        while True:
            while not reaches(width):
                short, width = width, min(2 * width, scan)
            # `short` does not reach the target and `width` does, throughout
            while width - short > max(1, width // 100):
                middle = (short + width) // 2
                if reaches(middle):
                    width = middle
                else:
                    short = middle
            # Recall need not rise with every step: where a wider search falls short again, this
            # width has reached the target by luck.
            wider = [w for w in (width + -(-width // 10), width + -(-width // 4)) if w < scan]
            unlucky = [w for w in wider if not reaches(w)]
            if not unlucky:
                return width
            short = unlucky[-1]
            width = min(2 * short, scan)

    def _shares(self, width: int) -> NDArray[np.float64]:
        """Return the share of the true neighbours of each query that a search finds."""
        if width not in self._shares_by_width:
            true_ids, true_distances = self._truth
            # distances beyond float32 do not occur: infinity stands for no row
            exist = np.isfinite(true_distances)
            count = exist.sum(axis=1)
            farthest = np.where(exist, true_distances, -np.inf).max(axis=1, keepdims=True)
            ids, distances = self._search(width)
            hits = np.isfinite(distances) & (distances <= farthest)
            # a scan and a walk may round the distance of one row differently: look at ids as well
            query, place = np.nonzero(~hits & np.isfinite(distances))
            step = max(1, _PAIRS // self.k)
            for i in range(0, len(query), step):
                q, p = query[i : i + step], place[i : i + step]
                hits[q, p] = ((true_ids[q] == ids[q, p][:, None]) & exist[q]).any(axis=1)
            # where there is nothing to find, all of it is found
            shares = np.minimum(hits.sum(axis=1), count) / np.maximum(count, 1)
            self._shares_by_width[width] = np.where(count == 0, 1.0, shares)
        return self._shares_by_width[width]

    def _search(self, width: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Search all queries, and note the work; a stored row does not find itself."""
        index, n = self._index, len(self._rows)
        k = self.k if self._own is None else self.k + 1
        _validate.room_for_results(n, k, len(index))
        ids = np.empty((n, k), np.int64)
        distances = np.empty((n, k), np.float32)
        work = np.full(n, len(index), np.int64)  # what a scan takes
        status = native.index_search_counted(
            index._handle, self._rows, k, width, self._threads, ids, distances, work
        )
        if status and status != STRING_NUMBERS:  # internal ids do here
            _validate.refuse_rows(status, "queries", self._rows, self._given)
        self._work_by_width[width] = float(work.mean())
        if self._own is None:
            return ids, distances
        # where many rows are equal it may not be among them: then the last one is too many
        own = (ids == self._own[:, None]) & np.isfinite(distances)
        keep = ~own
        keep[~own.any(axis=1), -1] = False
        return ids[keep].reshape(n, self.k), distances[keep].reshape(n, self.k)


def _worst(shares: NDArray[np.float64]) -> float:
    """Return the mean of the worst hundredth."""
    return float(np.sort(shares)[: max(1, len(shares) // 100)].mean())


def _as_recall(recall: object) -> float:
    """Return a recall as a float; TypeError if it is no number, ValueError if it cannot be one."""
    wanted = "recall: expected a number above 0 and at most 1, got "
    if isinstance(recall, (bool, np.bool_)) or not isinstance(recall, numbers.Real):
        raise TypeError(f"{wanted}{reprlib.repr(recall)}")
    value = float(recall)
    if not 0 < value <= 1:
        raise ValueError(f"{wanted}{value:g}")
    return value


def _to_tables(tunings: list[Tuning]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return tunings as the native index keeps them; docs/design/format.md has the columns."""
    table = np.empty((len(tunings), _WORDS), np.int64)
    for row, t in zip(table, tunings, strict=True):
        row[:4] = t.k, t.ef_search, t.rows, t.measured.sample
        row[4:] = np.array(
            [t.recall, t.measured.recall, t.measured.low, t.measured.high], np.float64
        ).view(np.int64)
    rules = [t._rule() for t in tunings]
    words = [0 if rule is None else rule.word() for rule in rules]
    return table, np.array(words if any(words) else [], np.int64)


def _from_tables(data: bytes, rules: bytes) -> tuple[Tuning, ...]:
    """Invert `_to_tables`; CorruptError for numbers that `tune` cannot have found."""
    table = np.frombuffer(data, np.int64).reshape(-1, _WORDS)
    words = np.frombuffer(rules, np.int64).tolist() or [0] * len(table)
    found = []
    for row, word in zip(table, words, strict=True):
        k, width, rows, sample = row[:4].tolist()
        recall, mean, low, high = row[4:].copy().view(np.float64).tolist()
        most = _validate.MAX_COUNT
        if not (
            0 < k <= most
            and 0 < width <= most
            and 0 < rows <= most
            and 0 < sample <= most
            and 0 < recall <= 1
            and 0 <= low <= mean <= high <= 1
        ):
            raise CorruptError("index: its table of tuned search widths is damaged")
        try:
            rule = rule_of(word)
        except ValueError as error:
            raise CorruptError(f"index: its table of stop rules is damaged: {error}") from None
        measured = MeasuredRecall(mean, low, high, k, width, sample)
        beside = (None, None) if rule is None else (rule.held, rule.factor)
        found.append(Tuning(recall, k, width, rows, measured, None, *beside))
    return tuple(found)
