"""`Index.search` with more than a filter: excluded ids, groups, examples for vectors, exact.

A plain search never comes here: its body stands in index.py, where a call costs least.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vicinal import _kinds, _scale, _tuning, _validate
from vicinal._filters import IDS, as_filter, is_list
from vicinal._float_queries import FloatQueries, as_queries
from vicinal._grouped import nearest_groups
from vicinal._kept_filter import belong, combined
from vicinal._labels import Labels
from vicinal._search import nearest, read_vectors
from vicinal._state import EXHAUSTIVE, State
from vicinal.result import SearchResult

__all__ = ["Call", "by_name_only", "from_examples", "search", "width_of"]

Ids = NDArray[np.int64]
Distances = NDArray[np.float32]

# Ids that are left out are left out of the results of a wider search where there are few: making a
# filter takes some 0.2 ns for each row, a search 3 us for each neighbour more.
_FEW = 16
_ROWS_FOR_A_NEIGHBOUR = 15_000
_COMPARED = 1 << 12  # ids compared with each other, for which `np.isin` would take longer


def search(
    index: State,
    queries: Any,
    k: int,
    ef_search: int | None,
    recall: float | None,
    filter: Any,
    num_threads: int | None,
    exclude: Any,
    groups: Any,
    per_group: int | None,
    exact: bool | None,
    like: Any,
    unlike: Any,
) -> SearchResult:
    """See `Index.search`."""
    examples: list[Ids] | None = None
    if like is not None or unlike is not None:
        if queries is not None:
            raise TypeError("queries: expected none beside like=ids, got both")
        queries, examples = from_examples(index, like, unlike)
    rows, given, floats = as_queries(index, queries)
    if index._kept_queries is not None and (floats is not None or index._scale is not None):
        index._kept_queries.take(rows)  # of other queries `Index.search` does
    n = len(rows)
    k = _validate.whole_number(k, "k", 1, _validate.MAX_COUNT)
    each = 1
    if groups is None:
        if per_group is not None:
            raise ValueError("per_group: expected groups= as well, got none")
    elif per_group is not None:
        each = _validate.whole_number(per_group, "per_group", 1, _validate.MAX_COUNT)
    _validate.room_for_results(n, k * each, len(index))
    width = width_of(index, k, ef_search, recall, exact)
    threads = 1 if num_threads is None and n == 1 else _validate.thread_count(num_threads)
    call = Call(index, rows, given, width, threads, filter, exclude, examples, floats=floats)
    if groups is None:
        ids, distances = call.fetch(np.arange(n), k, None)
    else:
        labels = Labels(index, groups, "groups")
        ids, distances = nearest_groups(call.fetch, labels, n, len(index), k, each)
    if given.ndim == 1:
        ids, distances = ids[0], distances[0]
    return index._result(index._to_external(ids), distances)


def width_of(
    index: State, k: int, ef_search: int | None, recall: float | None, exact: object
) -> int:
    """Return the search width that the arguments of a call ask for."""
    if not (exact is None or isinstance(exact, (bool, np.bool_))):
        raise TypeError(f"exact: expected True or False, got {exact!r}")
    if exact:
        if ef_search is not None or recall is not None:
            other = "recall" if ef_search is None else "ef_search"
            raise ValueError(f"exact: expected exact or {other}, got both")
        return EXHAUSTIVE
    if recall is not None:
        if ef_search is not None:
            raise ValueError("recall: expected ef_search or recall, got both")
        return _tuning.tuned_width(index, recall, k)
    return _validate.search_width(ef_search, index._ef_search)


class Call:
    """The queries of one call, and which rows they may not find.

    Parameters
    ----------
    index : State
        The index.
    rows, given : ndarray
        Queries as `as_rows` returned them.
    width, threads : int
        As the native search takes them.
    filter, exclude : None, array_like, Filter or list of these
        Rows that may be found, and of these rows that may not, for all queries or for each.
    examples : list of ndarray, optional
        For each query internal ids that it was made of, which it may not find either.
    name : str
        What the caller knows the queries by.
    floats : FloatQueries, optional
        What `rows` were rounded from.
    """

    def __init__(
        self,
        index: State,
        rows: NDArray[Any],
        given: NDArray[Any],
        width: int,
        threads: int,
        filter: Any = None,
        exclude: Any = None,
        examples: list[Ids] | None = None,
        name: str = "queries",
        floats: FloatQueries | None = None,
    ) -> None:
        self._name = name
        self._floats = floats
        self._index, self._rows, self._given = index, rows, given
        self._width, self._threads = width, threads
        belong(index, filter)
        self._filter = filter
        self._dropped: list[Ids] | None = None
        if exclude is not None:
            self._leave_out(_for_each(exclude, len(rows), "exclude"))
        if examples is not None:
            self._drop(examples)

    def fetch(
        self, asked: NDArray[np.int64], k: int, allowed: NDArray[np.bool_] | None
    ) -> tuple[Ids, Distances]:
        """Search for some of the queries; `allowed` is one more filter, a mask of rows."""
        if self._floats is None:
            ids, far = self._fetch(asked, k, allowed)
        else:
            found = self._fetch(asked, self._floats.wanted(k), allowed)
            ids, far = self._floats.nearest(asked, *found, k)
        return ids, _scale.in_units(self._index, far)

    def _fetch(
        self, asked: NDArray[np.int64], k: int, allowed: NDArray[np.bool_] | None
    ) -> tuple[Ids, Distances]:
        every = len(asked) == len(self._rows)
        filter: Any = self._filter
        if is_list(filter):
            filter = [filter[i] for i in asked.tolist()]
        if allowed is not None and is_list(filter):
            filter = [_both(self._index, item, allowed) for item in filter]
        elif allowed is not None:
            filter = _both(self._index, filter, allowed)
        rows = self._rows if every else np.ascontiguousarray(self._rows[asked])
        given = self._given.reshape(self._rows.shape)
        given = given if every else given[asked]
        arguments = (self._width, self._threads, filter, self._name)
        if self._dropped is None:
            return nearest(self._index, rows, given, k, *arguments)
        dropped = [self._dropped[i] for i in asked.tolist()]
        most = max(map(len, dropped), default=0)
        found = nearest(self._index, rows, given, k + most, *arguments)
        return _without(*found, dropped, k)

    def _leave_out(self, exclude: list[Any]) -> None:
        """Leave out what was excluded, by a wider search or by filters."""
        index, n = self._index, len(exclude)
        belong(index, exclude, "exclude")
        made: dict[int, Ids | None] = {}
        for item in exclude:
            if id(item) in made:
                continue
            made[id(item)] = None
            if item is not None and not hasattr(item, "_as_array"):
                array, kind = as_filter(item, "exclude", len(index), index._to_internal)
                if kind == IDS and array is not None:
                    made[id(item)] = np.unique(array)
        lists = [np.empty(0, np.int64) if item is None else made[id(item)] for item in exclude]
        most = max((len(each) for each in lists if each is not None), default=0)
        few = max(_FEW, len(index) * len(made) // (_ROWS_FOR_A_NEIGHBOUR * max(n, 1)))
        ids = [each for each in lists if each is not None]
        if len(ids) == n and most <= few:
            self._drop(ids)
            return
        both: dict[tuple[int, int], Any] = {}
        filters = []
        for filter, item in zip(_for_each(self._filter, n, "filter"), exclude, strict=True):
            key = (id(filter), id(item))
            if key not in both:
                both[key] = combined(index, filter, item, made.get(id(item)))
            filters.append(both[key])
        self._filter = filters[0] if len(both) == 1 else filters

    def _drop(self, lists: list[Ids]) -> None:
        """Leave out some ids for each query, beside those that are left out already."""
        if self._dropped is None:
            self._dropped = lists
        else:
            pairs = zip(self._dropped, lists, strict=True)
            self._dropped = [np.union1d(first, second) for first, second in pairs]


def _for_each(given: Any, queries: int, name: str) -> list[Any]:
    """Return one filter for each query."""
    if not is_list(given):
        return [given] * queries
    if len(given) != queries:
        raise ValueError(
            f"{name}: expected a list with one for each of {queries} queries, got {len(given)}"
        )
    return list(given)


def _both(index: State, filter: Any, allowed: NDArray[np.bool_]) -> Any:
    return allowed if filter is None else combined(index, filter, ~allowed)


def _without(ids: Ids, distances: Distances, dropped: list[Ids], k: int) -> tuple[Ids, Distances]:
    """Take ids out of what was found and keep the nearest k of the rest."""
    if all(each is dropped[0] for each in dropped):
        gone = _among(ids, dropped[0]) if dropped else np.zeros(ids.shape, bool)
    else:
        gone = np.stack([_among(ids[i], each) for i, each in enumerate(dropped)])
    if len(ids) == 1:  # without the arrays of many
        left = np.flatnonzero(~gone[0])[:k]
        if len(left) == k:
            return ids[:, left], distances[:, left]
    order = np.argsort(gone, axis=1, kind="stable")[:, :k]
    gone = np.take_along_axis(gone, order, axis=1)
    ids = np.where(gone, -1, np.take_along_axis(ids, order, axis=1))
    far = np.take_along_axis(distances, order, axis=1)
    return ids, np.where(gone, np.float32(np.inf), far)


def by_name_only(search: Callable[..., SearchResult]) -> None:
    """Let `help` and editors show the arguments behind `_only_by_name` as what they are."""
    shown = inspect.signature(search)
    kept = [each for each in shown.parameters.values() if each.name != "_only_by_name"]
    ahead = list(shown.parameters).index("_only_by_name")
    named = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in kept[ahead:]]
    search.__signature__ = shown.replace(  # type: ignore[attr-defined]
        parameters=[*kept[:ahead], *named]
    )


def _among(ids: Ids, some: Ids) -> NDArray[np.bool_]:
    """Tell of ids whether they are among some others."""
    if ids.size * len(some) > _COMPARED:
        return np.isin(ids, some)
    found: NDArray[np.bool_] = (ids[..., None] == some).any(axis=-1)
    return found


# ---- stored rows as examples


def from_examples(index: State, like: Any, unlike: Any) -> tuple[NDArray[Any], list[Ids]]:
    """Return queries made of stored rows, and for each the internal ids that it was made of."""
    if like is None:
        raise ValueError("like: expected ids, got only ids that results are to be unlike")
    single = not _is_batch(like)
    wanted: list[Any] = [like] if single else list(like)
    others: list[Any] = [unlike] if single or unlike is None else list(unlike)
    if unlike is None:
        others = [None] * len(wanted)
    elif not single and (not _is_batch(unlike) or len(others) != len(wanted)):
        raise ValueError(f"unlike: expected one list for each of {len(wanted)} queries")
    elif single and _is_batch(unlike):
        raise ValueError("unlike: expected ids for one query, as like has, got several lists")
    values = index._dim * (8 if index._dtype == _kinds.PACKED else 1)
    vectors = np.empty((len(wanted), values), np.float64)
    inputs = []
    for i, (near, far) in enumerate(zip(wanted, others, strict=True)):
        vectors[i], used = _mean(index, near, "like")
        if far is not None and np.size(list(far) if isinstance(far, Mapping) else far):
            away, more = _mean(index, far, "unlike")
            vectors[i] = 2 * vectors[i] - away
            used = np.concatenate([used, more])
        inputs.append(np.unique(used))
    if index._metric == "cosine" and not vectors.any(axis=1).all():
        raise ValueError("like: expected rows that do not cancel each other, got a zero vector")
    queries = _as_queries(index, vectors)
    return (queries[0] if single else queries), inputs


def _is_batch(given: Any) -> bool:
    """Tell whether these are several lists of ids."""
    if isinstance(given, (list, tuple)):
        return any(item is None or isinstance(item, Mapping) or np.ndim(item) > 0 for item in given)
    return isinstance(given, np.ndarray) and given.ndim == 2


def _mean(index: State, given: Any, name: str) -> tuple[NDArray[np.float64], Ids]:
    """Return the weighted mean of stored rows, and their internal ids."""
    weights = None
    ids: Any = given
    if isinstance(given, Mapping):
        ids = list(given)
        weights = np.array([_validate.real_number(w, name) for w in given.values()])
        if not (np.isfinite(weights).all() and (weights > 0).all()):
            raise ValueError(f"{name}: expected weights above 0, got {list(given.values())}")
    internal, as_given = index._to_internal(ids, name)
    internal, as_given = internal.reshape(-1), as_given.reshape(-1)
    if not len(internal):
        raise ValueError(f"{name}: expected at least one id, got none")
    vectors, unknown = read_vectors(index, internal)
    if unknown >= 0:
        raise KeyError(f"{name}: {_validate.shown(as_given[unknown])} is not in the index")
    values = _validate.as_floats(vectors, index._dtype).astype(np.float64)
    if index._scale == _scale.AUTO:  # each row has a length of its own, which means nothing
        values /= np.linalg.norm(values, axis=1, keepdims=True)
    return np.average(values, axis=0, weights=weights), internal


def _as_queries(index: State, vectors: NDArray[np.float64]) -> NDArray[Any]:
    """Return vectors as queries of an index: rounded to whole numbers in range for integers.

    With a scale they stay floats.
    """
    if index._dtype == _kinds.PACKED:
        return np.packbits(vectors >= 0.5, axis=1)
    if index._scale is not None:
        return vectors * (_scale.number_of(index) or 1)
    dtype = _kinds.query_dtype(index._dtype)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return np.clip(np.rint(vectors), limits.min, limits.max).astype(dtype)
    return vectors.astype(dtype)
