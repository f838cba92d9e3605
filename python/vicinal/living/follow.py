"""Reading a file that another process writes: searches see what it has flushed."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vicinal import _validate
from vicinal._kept_filter import Filter
from vicinal._logging import WARNING, log
from vicinal._state import PathLike
from vicinal.living.tail import APPLY_ROWS, READ_BYTES, Tail, View
from vicinal.result import RangeResult, SearchResult
from vicinal.shards import merge_ranges, merge_searches

__all__ = ["Follower"]

_ALL = 1 << 40
_TRIES = 1000


class Follower:
    """A file that is searched while another process writes it; `vicinal.open(path, follow=True)`.

    Every search sees a state that the writer has flushed. Before it begins it takes up what has
    come since: a new file, which is mapped, so that all readers share its memory, and up to 1 MiB
    and 256 rows of the journal; a larger flush is seen once all of it has been taken up, by further
    searches or by `refresh`. Nothing that goes wrong with that is an error of the search, which
    answers from what it has.

    Rows of the journal are in memory, of each reader for itself, until a checkpoint.

    Notes
    -----
    Threads: safe at any time from any number of threads, and after forks.

    Examples
    --------
    >>> import tempfile, vicinal
    >>> path = tempfile.mkdtemp() + "/small.vicinal"
    >>> vicinal.Index(2).save(path)
    >>> reader = vicinal.open(path, follow=True)
    >>> with vicinal.open(path, mode="rw") as index:
    ...     _ = index.add([[0, 0], [3, 4]])
    ...     index.flush()
    ...     reader.search([3, 3], k=1).ids
    array([1])
    """

    __slots__ = (
        "__weakref__",
        "_next",
        "_process",
        "_resident",
        "_tail",
        "_turn",
        "_verify",
        "path",
    )

    def __init__(self, path: PathLike, verify: bool, resident: str) -> None:
        self.path = os.path.realpath(os.fsdecode(path))
        self._verify, self._resident = verify, resident
        self._turn, self._process = threading.Lock(), os.getpid()
        self._next: Tail | None = None
        self._tail = self._begun()
        self.refresh()

    def _begun(self) -> Tail:
        for _ in range(_TRIES):
            try:
                return Tail(self.path, self._verify, self._resident)
            except BlockingIOError:
                continue  # replaced between two looks at it
        raise BlockingIOError(f"{self.path} is replaced again and again")

    # ---- taking up what the writer has flushed

    def refresh(self) -> None:
        """Take up all that the writer has flushed by now, however long it takes.

        Raises
        ------
        OSError, FormatError, MemoryError
            If a new file cannot be opened; what there is goes on being searched.
        """
        with self._turn_of_process():
            while not self._advance(_ALL, _ALL):
                pass

    def _take_up(self) -> View:
        """Take up a bounded piece, unless another thread is at it; return what is to be seen."""
        turn = self._turn_of_process()
        if turn.acquire(blocking=False):
            try:
                self._advance(APPLY_ROWS, READ_BYTES)
            except Exception as error:
                self._next = None
                log(WARNING, "%s is not followed at the moment: %s", self.path, error)
            finally:
                turn.release()
        return self._tail.view

    def _turn_of_process(self) -> threading.Lock:
        if self._process != os.getpid():  # a thread of the parent may have it for ever
            self._turn, self._process = threading.Lock(), os.getpid()
        return self._turn

    def _advance(self, rows: int, size: int) -> bool:
        """Take up so much; True if nothing more was there."""
        if self._tail.current():
            self._next = None
            return self._tail.advance(rows, size)
        if self._next is None or not self._next.current():
            self._next = self._begun()
        if not self._next.advance(rows, size):
            return False
        self._tail, self._next = self._next, None
        return True

    # ---- what there is

    def __len__(self) -> int:
        view = self._take_up()
        return len(view.base) - view.gone_count + len(view.live)

    def __contains__(self, id: object) -> bool:
        view = self._take_up()
        key = view.base._strings is None and _validate.as_id(id)
        known = id if view.base._strings is not None else key
        if known in view.live:
            return True
        return id in view.base and (view.gone is None or id not in view.gone)

    def __repr__(self) -> str:
        base = self._tail.view.base
        return (
            f"vicinal.Follower({self.path!r}, dim={base.dim}, metric={base.metric!r}, "
            f"dtype={base.dtype!r}) with {len(self)} rows"
        )

    @property
    def dim(self) -> int:
        """Dimension of the vectors; bits with dtype "b1"."""
        return self._tail.base.dim

    @property
    def metric(self) -> str:
        """Name of the distance: "l2", "ip", "cosine", "hamming" or "jaccard"."""
        return self._tail.base.metric

    @property
    def dtype(self) -> str:
        """What a value is stored as."""
        return self._tail.base.dtype

    @property
    def ef_search(self) -> int:
        """Search width of calls that give none, as the writer has it."""
        return self._tail.view.ef_search

    @property
    def attributes(self) -> Mapping[str, Any]:
        """The attributes of the index, as the writer has set them."""
        return MappingProxyType(dict(self._take_up().attributes))

    @property
    def ids(self) -> NDArray[Any]:
        """Ids of all rows: those of the file, then those of the journal; an array of its own."""
        view = self._take_up()
        ids = view.base.ids
        if view.gone is not None:
            gone = set(view.gone.ids.tolist())
            ids = ids[np.array([id not in gone for id in ids.tolist()], bool)]
        return np.concatenate([ids, view.names[list(view.live.values())]])

    def get(self, ids: ArrayLike) -> NDArray[Any]:
        """Return stored vectors; arguments, results and errors are those of `Index.get`."""
        view = self._take_up()
        _, named = view.base._to_internal(ids)
        flat = named.reshape(-1)
        keys = np.array([view.live.get(id, -1) for id in flat.tolist()], np.int64)
        old = keys < 0
        if view.gone is not None:
            gone = set(view.gone.ids.tolist())
            for id in flat[old].tolist():
                if id in gone:
                    raise KeyError(f"ids: {_validate.shown(id)} is not in the index")
        rows = view.base.get(flat[old])
        if old.all() or view.fresh is None:
            found = rows
        else:
            fresh = view.fresh.get(keys[~old])
            found = np.empty((len(flat), fresh.shape[1]), fresh.dtype)
            found[old], found[~old] = rows, fresh
        return found[0] if named.ndim == 0 else found

    def stats(self) -> dict[str, Any]:
        """Return how many rows there are, and how many of them are of the file and the journal."""
        view = self._take_up()
        return {
            "count": len(view.base) - view.gone_count + len(view.live),
            "file_rows": len(view.base) - view.gone_count,
            "journal_rows": len(view.live),
            "file": view.base.stats(),
        }

    # ---- searching

    def search(
        self,
        queries: ArrayLike,
        k: int = 10,
        *,
        ef_search: int | None = None,
        filter: ArrayLike | None = None,
        exclude: ArrayLike | None = None,
        exact: bool | None = None,
        num_threads: int | None = None,
    ) -> SearchResult:
        """Find the k nearest vectors of each query.

        Parameters
        ----------
        queries, k, ef_search, exact, num_threads
            As for `Index.search`.
        filter, exclude : array_like of int or str, optional
            Ids that may be found, or may not; ids that are not there are passed over.

        Returns
        -------
        SearchResult

        Raises
        ------
        TypeError, ValueError, CorruptError, MemoryError
            As `Index.search`; ValueError also for filters of booleans, since rows come and go.
        """
        view = self._take_up()
        options: dict[str, Any] = {"ef_search": ef_search, "num_threads": num_threads}
        if exact is not None:
            options["exact"] = exact
        if ef_search is None and not exact:
            options["ef_search"] = view.ef_search
        allowed, without = _as_given(filter, "filter"), _as_given(exclude, "exclude")
        found = view.base.search(queries, k, **options, **_of_base(view, allowed, without))
        if view.fresh is None or not view.live:
            return found
        new = view.fresh.search(queries, k, **options, **_of_fresh(view, allowed, without))
        if (new.ids >= view.keys).any():  # rows of a flush that another thread is taking up
            only = _seen(view, allowed, without)
            new = view.fresh.search(queries, k, **options, filter=only)
        return merge_searches([found, new._replace(ids=_named(view, new.ids))])

    def range_search(
        self,
        queries: ArrayLike,
        radius: float,
        *,
        ef_search: int | None = None,
        filter: ArrayLike | None = None,
        num_threads: int | None = None,
    ) -> RangeResult:
        """Find all vectors within a distance of each query; see `Index.range_search`."""
        view = self._take_up()
        allowed = _as_given(filter, "filter")
        options: dict[str, Any] = {
            "ef_search": view.ef_search if ef_search is None else ef_search,
            "num_threads": num_threads,
        }
        base = _of_base(view, allowed, None)
        only = base["filter"]
        if base["exclude"] is not None:
            kept = ~base["exclude"]
            only = kept if only is None else view.base.filter(only) & kept
        found = view.base.range_search(queries, radius, filter=only, **options)
        if view.fresh is None or not view.live:
            return found
        new = view.fresh.range_search(queries, radius, filter=_seen(view, allowed, None), **options)
        return merge_ranges([found, new._replace(ids=_named(view, new.ids))])


def _as_given(ids: ArrayLike | None, name: str) -> NDArray[Any] | None:
    if ids is None:
        return None
    if isinstance(ids, Filter) or callable(ids):
        raise TypeError(f"{name}: expected ids, got {type(ids).__name__}")
    given = np.asarray(ids)
    if given.dtype.kind == "b":
        raise ValueError(f"{name}: expected ids, got booleans; rows come and go while one follows")
    return given.reshape(-1)


def _of_base(
    view: View, allowed: NDArray[Any] | None, without: NDArray[Any] | None
) -> dict[str, Any]:
    """Return what the file is searched with."""
    exclude = view.gone
    if without is not None:
        mine = view.base.filter(without)
        exclude = mine if exclude is None else mine | exclude
    return {"filter": allowed, "exclude": exclude}


def _of_fresh(
    view: View, allowed: NDArray[Any] | None, without: NDArray[Any] | None
) -> dict[str, Any]:
    """Return what the rows of the journal are searched with."""
    if allowed is None and without is None:
        return {"exclude": view.dead}
    return {"filter": _seen(view, allowed, without)}


def _seen(
    view: View, allowed: NDArray[Any] | None, without: NDArray[Any] | None
) -> NDArray[np.int64]:
    """Return the keys of all rows that may be found."""
    live = view.live
    chosen = live if allowed is None else {id: live[id] for id in allowed.tolist() if id in live}
    not_these = set() if without is None else set(without.tolist())
    return np.array([key for id, key in chosen.items() if id not in not_these], np.int64)


def _named(view: View, keys: NDArray[np.int64]) -> NDArray[Any]:
    """Return the ids of keys; what stands for nothing stays so."""
    if view.names.dtype == object:
        names: NDArray[Any] = np.empty(keys.shape, object)
        names[keys >= 0] = view.names[keys[keys >= 0]]
        return names
    return np.where(keys >= 0, view.names[np.maximum(keys, 0)], -1)
