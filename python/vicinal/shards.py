"""One search over several index files: every shard answers, the nearest of all answers count."""

from __future__ import annotations

import itertools
import json
import os
import reprlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vicinal import _filters, _validate
from vicinal._persistence import open_index
from vicinal._state import PathLike
from vicinal.errors import FormatError
from vicinal.index import Index
from vicinal.result import RangeResult, SearchResult

__all__ = ["Shards", "open_shards"]

Found = TypeVar("Found")


class Shards:
    """Several indexes that are searched as one; see `open_shards`.

    Attributes
    ----------
    shards : tuple of Index
        In the order in which they were given.

    Notes
    -----
    Threads: safe at any time from any number of threads.
    """

    __slots__ = ("shards",)

    def __init__(self, shards: Sequence[Index]) -> None:
        self.shards = tuple(shards)
        if not self.shards:
            raise ValueError("shards: expected at least one, got none")
        for shard in self.shards:
            if not isinstance(shard, Index):
                raise TypeError(f"shards: expected indexes, got {type(shard).__name__}")
        refuse_unlike([kind_of(shard) for shard in self.shards])

    # ---- what there is

    def __len__(self) -> int:
        return int(sum(len(shard) for shard in self.shards))

    def __contains__(self, id: object) -> bool:
        return any(id in shard for shard in self.shards)

    def __repr__(self) -> str:
        first = self.shards[0]
        return (
            f"vicinal.Shards({len(self.shards)} of dim={first.dim}, metric={first.metric!r}, "
            f"dtype={first.dtype!r}) with {len(self)} rows"
        )

    @property
    def dim(self) -> int:
        """Dimension of the vectors; bits with dtype "b1"."""
        return self.shards[0].dim

    @property
    def metric(self) -> str:
        """Name of the distance: "l2", "ip", "cosine", "hamming" or "jaccard"."""
        return self.shards[0].metric

    @property
    def dtype(self) -> str:
        """What a value is stored as."""
        return self.shards[0].dtype

    @property
    def ids(self) -> NDArray[Any]:
        """All ids, shard by shard; an array of its own."""
        return np.concatenate([shard.ids for shard in self.shards])

    def get(self, ids: ArrayLike) -> NDArray[Any]:
        """Return stored vectors; arguments, results and errors are those of `Index.get`."""
        named = np.asarray(ids, object if self._strings else None)
        flat = named.reshape(-1)
        found: NDArray[Any] | None = None
        left = np.ones(len(flat), bool)
        for shard in self.shards:
            there = left & np.array([id in shard for id in flat.tolist()], bool)
            if there.any():
                rows = shard.get(flat[there])
                if found is None:
                    found = np.empty((len(flat), rows.shape[1]), rows.dtype)
                found[there] = rows
                left &= ~there
        if left.any():
            raise KeyError(f"ids: {_validate.shown(flat[left][0])} is in no shard")
        if found is None:
            return self.shards[0].get(ids)
        return found[0] if named.ndim == 0 else found

    def vectors(self, batch_size: int = 1024) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Go through all rows in the order of `ids`; see `Index.vectors`."""
        for shard in self.shards:
            yield from shard.vectors(batch_size)

    @property
    def _strings(self) -> bool:
        return self.shards[0]._strings is not None

    # ---- searching

    def search(
        self,
        queries: ArrayLike,
        k: int = 10,
        *,
        ef_search: int | None = None,
        recall: float | None = None,
        filter: Any = None,
        num_threads: int | None = None,
        exclude: Any = None,
        exact: bool | None = None,
    ) -> SearchResult:
        """Find the k nearest vectors of each query in all shards.

        Parameters
        ----------
        queries, k, ef_search, recall, num_threads, exact
            As for `Index.search`; each shard is searched with them. The widths of `recall` are
            those that each shard was tuned to.
        filter, exclude : array_like of bool, int or str, or list of them, optional
            As for `Index.search`; booleans in the order of `ids`. Ids may be in any shard.

        Returns
        -------
        SearchResult
            Of what all shards find the k nearest, equal distances in the order of ids.

        Raises
        ------
        TypeError, ValueError, CorruptError, MemoryError
            As `Index.search`.
        """
        filters, without = self._split(filter, queries), self._split(exclude, queries)
        found = self._ask(
            lambda number, shard, threads: shard.search(
                queries,
                k,
                ef_search=ef_search,
                recall=recall,
                filter=filters[number],
                num_threads=threads,
                exclude=without[number],
                exact=exact,
            ),
            num_threads,
            np.ndim(queries) == 1,
        )
        return merge_searches(found)

    def range_search(
        self,
        queries: ArrayLike,
        radius: float,
        *,
        ef_search: int | None = None,
        filter: Any = None,
        num_threads: int | None = None,
    ) -> RangeResult:
        """Find all vectors within a distance of each query, in all shards.

        Arguments, results and errors are those of `Index.range_search`, but that equal distances
        are in the order of ids.
        """
        filters = self._split(filter, queries)
        found = self._ask(
            lambda number, shard, threads: shard.range_search(
                queries, radius, ef_search=ef_search, filter=filters[number], num_threads=threads
            ),
            num_threads,
            np.ndim(queries) == 1,
        )
        return merge_ranges(found)

    def _ask(
        self,
        question: Callable[[int, Index, int | None], Found],
        num_threads: int | None,
        one: bool,
    ) -> list[Found]:
        """Ask every shard; the threads are shared among them, by default one for one query."""
        threads = 1 if one and num_threads is None else _validate.thread_count(num_threads)
        at_once = min(threads, len(self.shards))
        if at_once == 1:
            return [question(i, shard, num_threads) for i, shard in enumerate(self.shards)]
        each = max(1, threads // at_once)
        with ThreadPoolExecutor(at_once) as pool:
            tasks = [pool.submit(question, i, shard, each) for i, shard in enumerate(self.shards)]
            return [task.result() for task in tasks]

    def _split(self, given: Any, queries: ArrayLike) -> list[Any]:
        """Return the filter of each shard."""
        return split_filter(given, [len(shard) for shard in self.shards])


def kind_of(index: Index) -> dict[str, Any]:
    """Return what all shards must have in common."""
    ids = "int64" if index._strings is None else "str"
    return {"dim": index.dim, "metric": index.metric, "dtype": index.dtype, "ids": ids}


def refuse_unlike(kinds: Sequence[dict[str, Any]]) -> None:
    """Refuse indexes of different kinds; ValueError."""
    for position, kind in enumerate(kinds):
        for name, value in kind.items():
            if name == "ids" and value != kinds[0][name]:
                raise ValueError(f"shards: ids of shard {position} and of shard 0 differ in kind")
            if value != kinds[0][name]:
                raise ValueError(
                    f"shards: expected {name}={kinds[0][name]!r} as in shard 0, shard {position} "
                    f"has {value!r}"
                )


def split_filter(given: Any, lengths: Sequence[int]) -> list[Any]:
    """Return the filter of each shard: booleans are cut in pieces, ids are for all of them."""
    if given is None:
        return [None] * len(lengths)
    if _filters.is_list(given):
        split = [split_filter(one, lengths) for one in given]
        return [[one[i] for one in split] for i in range(len(lengths))]
    array = np.asarray(given)
    if array.dtype.kind != "b":
        return [given] * len(lengths)  # a shard passes over ids that it does not have
    ends = np.cumsum(lengths)
    if array.shape != (ends[-1],):
        raise ValueError(f"filter: expected booleans of shape ({ends[-1]},), got {array.shape}")
    return np.split(array, ends[:-1])


def merge_searches(found: Sequence[SearchResult]) -> SearchResult:
    """Return the nearest of what several indexes found, equal distances in the order of ids."""
    single = found[0].ids.ndim == 1
    ids = np.concatenate([np.atleast_2d(part.ids) for part in found], axis=1)
    distances = np.concatenate([np.atleast_2d(part.distances) for part in found], axis=1)
    order = _order(ids, distances)[:, : found[0].ids.shape[-1]]
    ids = np.take_along_axis(ids, order, 1)
    distances = np.take_along_axis(distances, order, 1)
    kind = type(found[0])  # which knows the metric
    return kind(ids[0], distances[0]) if single else kind(ids, distances)


def merge_ranges(found: Sequence[RangeResult]) -> RangeResult:
    """Return all that several indexes found, by (distance, id)."""
    n = len(found[0].offsets) - 1
    ids, distances, offsets = [], [], [0]
    for i in range(n):
        parts = [part.of(i) for part in found]
        mine = np.concatenate([part.ids for part in parts])
        theirs = np.concatenate([part.distances for part in parts])
        order = _order(mine[None], theirs[None])[0]
        ids.append(mine[order])
        distances.append(theirs[order])
        offsets.append(offsets[-1] + len(order))
    if not n:
        return found[0]
    return type(found[0])(
        np.concatenate(ids), np.concatenate(distances), np.array(offsets, np.int64)
    )


def _order(ids: NDArray[Any], distances: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return the order of each row by (distance, id); what stands for nothing comes last."""
    if ids.dtype.kind != "O":
        first = np.argsort(np.where(ids < 0, np.iinfo(np.int64).max, ids), axis=1, kind="stable")
    else:
        first = np.array(
            [sorted(range(len(row)), key=lambda i: (row[i] is None, row[i] or "")) for row in ids],
            np.intp,
        ).reshape(ids.shape)
    second = np.argsort(np.take_along_axis(distances, first, 1), axis=1, kind="stable")
    return np.take_along_axis(first, second, 1)


def open_shards(
    paths: PathLike | Sequence[PathLike], *, verify: bool = False, check_ids: bool = True
) -> Shards:
    """Open several index files to be searched as one.

    Parameters
    ----------
    paths : path, or sequence of paths
        The files; or one path of a manifest: a JSON file with a list of paths, those that are
        relative taken from its folder.
    verify : bool
        As for `open`.
    check_ids : bool
        Whether to look that no id is in two shards, which takes memory and time by rows.

    Returns
    -------
    Shards
        With the methods of `Index` that read: `search`, `range_search`, `get`, `vectors`, `ids`,
        `len` and `in`.

    Raises
    ------
    OSError, FormatError, CorruptError
        As `open`; FormatError also if a manifest is no list of paths.
    ValueError
        If the indexes are of different kinds, or have an id in common.

    Notes
    -----
    A shard is searched as wide as one index of all rows would be: eight shards cost nearly eight
    searches. One joined index (`build(..., parts=)`) is faster wherever it fits:
    docs/guide/many-machines.md.
    """
    if isinstance(paths, (str, bytes, os.PathLike)):
        paths = paths_of_manifest(os.fsdecode(paths))
    shards = Shards([open_index(Index, path, "r", verify) for path in paths])
    if check_ids:
        refuse_common(shards.ids)
    return shards


def refuse_common(ids: NDArray[Any]) -> None:
    """Refuse ids that come twice; ValueError."""
    if ids.dtype.kind == "O":
        names = sorted(ids.tolist())
        twice = [one for one, next_ in itertools.pairwise(names) if one == next_]
    else:
        in_order = np.sort(ids)
        twice = in_order[:-1][in_order[1:] == in_order[:-1]].tolist()
    if twice:
        raise ValueError(f"paths: the id {_validate.shown(twice[0])} is in more than one shard")


def paths_of_manifest(path: str) -> list[str]:
    """Return the paths of a manifest; OSError, FormatError."""
    with open(path, "rb") as file:
        text = file.read()
    try:
        named = json.loads(text)
    except ValueError as error:
        raise FormatError(f"{path}: expected a JSON list of paths: {error}") from None
    if not isinstance(named, list) or not all(isinstance(one, str) for one in named):
        raise FormatError(f"{path}: expected a JSON list of paths, got {reprlib.repr(named)}")
    return [os.path.join(os.path.dirname(path), one) for one in named]
