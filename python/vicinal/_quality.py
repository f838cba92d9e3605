"""Recall as a number: measuring it, and finding the search width that reaches it."""

from __future__ import annotations

import math
import numbers
import reprlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vicinal import _validate
from vicinal._cpu import native
from vicinal._state import State
from vicinal.errors import CorruptError

__all__ = ["MeasuredRecall", "Quality", "Tuning"]

# So wide that the native code scans all rows: exact whatever the size of the index.
_EXACT = _validate.MAX_COUNT
_WALKED_PART = 8  # a search of at least a part of this many of the rows is a scan
_Z = 1.959963984540054  # quantile of the normal distribution for 95 %
_ADDED = 4  # queries added to the variance of a sample
_WORDS = 8  # int64 of a tuning in the table of the native index
_MOST_TUNINGS = 4096
_PAIRS = 1 << 22  # pairs of ids compared at a time: a few MB
_NUMBERS = 7  # status of a search of an index with string ids; numbers do as well here


@dataclass(frozen=True)
class MeasuredRecall:
    """Recall of a sample of queries; `float()` of it is the recall.

    Attributes
    ----------
    recall : float
        Mean share of the true k neighbours that were found, 0 to 1.
    low, high : float
        95 % confidence interval of the recall of all such queries (Wilson's, see `docs/recall.md`).
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
    """The search width that was found for a recall.

    Attributes
    ----------
    recall : float
        What was asked for.
    k : int
        Neighbours that it was measured for.
    ef_search : int
        The width that reaches it.
    rows : int
        Rows of the index at the time.
    measured : MeasuredRecall
        What was measured with that width.
    """

    recall: float
    k: int
    ef_search: int
    rows: int
    measured: MeasuredRecall

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


def draw(count: int, sample: int) -> NDArray[np.int64]:
    """Draw `sample` of the numbers below `count` without repetition, always the same, ascending."""
    if sample >= count:
        return np.arange(count)
    if 2 * sample > count:
        chosen = np.ones(count, bool)
        chosen[draw(count, count - sample)] = False
        return np.flatnonzero(chosen)
    # this generator's stream is frozen: every release of NumPy draws the same
    drawn = np.random.RandomState(0).randint(0, count, 4 * sample + 64, dtype=np.int64)
    _, first = np.unique(drawn, return_index=True)
    return np.sort(drawn[np.sort(first)[:sample]])


class Quality(State):
    """The methods that measure recall and make it an argument of a search."""

    __slots__ = ()

    def measure_recall(
        self,
        queries: ArrayLike | None = None,
        k: int = 10,
        sample: int = 1000,
        *,
        ef_search: int | None = None,
        num_threads: int | None = None,
    ) -> MeasuredRecall:
        """Measure which share of the true neighbours searches find, by searching exactly as well.

        Parameters
        ----------
        queries : array_like of shape (n, dim) or (dim,), optional
            Queries as they will come. By default stored rows are used, each of which looks for its
            k nearest others. Rows are often easier to find than the neighbours of new queries, so
            give real queries where there are some.
        k : int
            Neighbours wanted, at least 1.
        sample : int
            Queries to measure, at least 1; all if there are no more. Which ones does not depend on
            chance: the same call measures the same.
        ef_search : int, optional
            Width to measure; `index.ef_search` by default.
        num_threads : int, optional
            Threads to use, at least 1; by default as many as `vicinal.get_num_threads` tells.

        Returns
        -------
        MeasuredRecall
            `recall` with the interval `low` to `high`, which holds the recall of all such queries
            with a confidence of 95 %. A row found counts if it is no farther than the k-th true
            neighbour, whichever of several equally near ones it is.

        Raises
        ------
        TypeError, ValueError
            As `search`; also if there are no rows, or no row besides the one that is the query.

        Notes
        -----
        Takes `sample` exact searches: each measures all rows. Ends on Ctrl-C.
        Threads: waits for a writer, and writers wait for it; searches go on meanwhile. A progress
        function may ask, too.
        """
        width = self._ef_search
        if ef_search is not None:
            width = _validate.whole_number(ef_search, "ef_search", 1, _validate.MAX_COUNT)
        with self._writing.still():
            return _Sample(self, queries, k, sample, num_threads).measure(width)

    def tune(
        self,
        recall: float = 0.95,
        k: int = 10,
        queries: ArrayLike | None = None,
        *,
        sample: int = 1000,
        num_threads: int | None = None,
    ) -> Tuning:
        """Find the least search width that reaches a recall, and keep it for `search(recall=...)`.

        Parameters
        ----------
        recall : float
            Share of the true k neighbours that searches are to find on average, above 0, at most 1.
        k : int
            Neighbours wanted, at least 1.
        queries : array_like of shape (n, dim) or (dim,), optional
            Queries as they will come, stored rows by default; see `measure_recall`.
        sample : int
            Queries to measure, at least 1; all if there are no more.
        num_threads : int, optional
            Threads to use, at least 1; by default as many as `vicinal.get_num_threads` tells.

        Returns
        -------
        Tuning
            Its `ef_search` is the least width, above 100 to within 1 %, whose **mean** recall over
            the sample reaches `recall`. About half of the fresh samples will be a little below, by
            as much as the interval in `measured` says; ask for a little more to be sure.

        Raises
        ------
        TypeError, ValueError
            As `measure_recall`; also if `recall` is no number above 0 and at most 1.

        Notes
        -----
        Any recall can be reached: a search of an eighth of the rows is a scan of all of them.
        Tunings for several recalls and k are kept side by side; a new one replaces that of the same
        recall and k. They are saved with the index and may be made of a read-only one. After the
        number of rows has more than doubled or halved, `stats()` calls them stale.
        Threads: waits for a writer, and writers wait for it; searches go on meanwhile.
        """
        target = _as_recall(recall)
        with self._writing.held():
            held = _Sample(self, queries, k, sample, num_threads)
            width = held.least_width(target)
            tuning = Tuning(target, held.k, width, len(self), held.measure(width))
            others = [old for old in self.tuned if (old.recall, old.k) != (target, held.k)]
            kept = [*others, tuning][-_MOST_TUNINGS:]
            native.index_set_tuning(self._handle, _to_table(kept))
            self._widths = {}
        return tuning

    @property
    def tuned(self) -> tuple[Tuning, ...]:
        """What `tune` has found, oldest first.

        Raises
        ------
        CorruptError
            If the index lies in a damaged file.
        """
        return _from_table(native.index_tuning(self._handle))

    def _tuned_width(self, recall: float, k: int) -> int:
        """Return the search width for a recall; ValueError if none was tuned that serves."""
        try:
            return self._widths[recall, k]
        except (KeyError, TypeError):
            pass
        target = _as_recall(recall)
        tuned = self.tuned
        widths = [t.ef_search for t in tuned if t.recall >= target and t.k >= k]
        if not widths:
            have = ", ".join(f"recall={t.recall:g} for k={t.k}" for t in tuned) or "nothing"
            raise ValueError(
                f"recall: expected one that the index was tuned for, got {target:g} for k={k}; "
                f"tuned for: {have}; call index.tune({target:g}, k={k}) first"
            )
        self._widths[target, k] = min(widths)
        return min(widths)


class _Sample:
    """Queries with their true neighbours."""

    def __init__(
        self,
        index: State,
        queries: ArrayLike | None,
        k: int,
        sample: int,
        num_threads: int | None,
    ) -> None:
        self.k = _validate.whole_number(k, "k", 1, _validate.MAX_COUNT - 1)
        sample = _validate.whole_number(sample, "sample", 1, _validate.MAX_COUNT)
        self._threads = _validate.thread_count(num_threads)
        self._index = index
        if not len(index):
            raise ValueError("index: expected rows to measure, got an empty index")
        self._own: NDArray[np.int64] | None = None
        if queries is None:
            if len(index) == 1:
                raise ValueError("index: expected more rows than the one that is the query, got 1")
            self._rows, self._own = _stored(index, sample)
            self._given: NDArray[Any] = self._rows
        else:
            rows, given = _validate.as_rows(
                queries, "queries", index._dim, index._dtype, queries=True
            )
            if not len(rows):
                raise ValueError(f"queries: expected at least one, got {given.shape}")
            chosen = draw(len(rows), sample)
            # looked at as a whole, so that a message names the row that was given
            self._rows = rows[chosen] if len(chosen) < len(rows) else rows
            self._given = given.reshape(rows.shape)[chosen]
        self._known: dict[int, NDArray[np.float64]] = {}

    @cached_property
    def _truth(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        return self._search(_EXACT)

    def measure(self, width: int) -> MeasuredRecall:
        """Measure one search width."""
        shares = self._shares(width)
        low, high = interval(shares, self.k)
        return MeasuredRecall(float(shares.mean()), low, high, self.k, width, len(shares))

    def least_width(self, target: float) -> int:
        """Return the least width whose mean recall reaches the target."""

        def reaches(width: int) -> bool:
            return width >= scan or float(self._shares(width).mean()) >= target

        scan = max(1, -(-len(self._index) // _WALKED_PART))
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
        if width not in self._known:
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
            self._known[width] = np.minimum(hits.sum(axis=1), count) / count
        return self._known[width]

    def _search(self, width: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Search all queries; a stored row does not find itself."""
        index, n = self._index, len(self._rows)
        k = self.k if self._own is None else self.k + 1
        _validate.room_for_results(n, k, len(index))
        ids = np.empty((n, k), np.int64)
        distances = np.empty((n, k), np.float32)
        status = native.index_search(
            index._handle, self._rows, k, width, self._threads, ids, distances
        )
        if status and status != _NUMBERS:
            _validate.refuse_rows(status, "queries", self._rows, self._given)
        if self._own is None:
            return ids, distances
        # where many rows are equal it may not be among them: then the last one is too many
        own = (ids == self._own[:, None]) & np.isfinite(distances)
        keep = ~own
        keep[~own.any(axis=1), -1] = False
        return ids[keep].reshape(n, self.k), distances[keep].reshape(n, self.k)


def _stored(index: State, sample: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return some stored rows as queries, and their ids as the native code knows them."""
    while True:
        ids = index._all_ids()
        own = np.ascontiguousarray(ids[draw(len(ids), sample)])
        out = np.empty((len(own), index._dim), _validate.STORED_DTYPES[index._dtype])
        if native.index_get(index._handle, own, out) < 0:
            break
    return _validate.as_rows(out, "queries", index._dim, index._dtype, queries=True)[0], own


def _as_recall(recall: object) -> float:
    """Return a recall as a float; TypeError if it is no number, ValueError if it cannot be one."""
    wanted = "recall: expected a number above 0 and at most 1, got "
    if isinstance(recall, (bool, np.bool_)) or not isinstance(recall, numbers.Real):
        raise TypeError(f"{wanted}{reprlib.repr(recall)}")
    value = float(recall)
    if not 0 < value <= 1:
        raise ValueError(f"{wanted}{value:g}")
    return value


def _to_table(tunings: list[Tuning]) -> NDArray[np.int64]:
    """Return tunings as the native index keeps them; docs/format.md has the columns."""
    table = np.empty((len(tunings), _WORDS), np.int64)
    for row, t in zip(table, tunings, strict=True):
        row[:4] = t.k, t.ef_search, t.rows, t.measured.sample
        row[4:] = np.array(
            [t.recall, t.measured.recall, t.measured.low, t.measured.high], np.float64
        ).view(np.int64)
    return table


def _from_table(data: bytes) -> tuple[Tuning, ...]:
    """Invert `_to_table`; CorruptError for numbers that `tune` cannot have found."""
    table = np.frombuffer(data, np.int64).reshape(-1, _WORDS)
    found = []
    for row in table:
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
        found.append(
            Tuning(recall, k, width, rows, MeasuredRecall(mean, low, high, k, width, sample))
        )
    return tuple(found)
