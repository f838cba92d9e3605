"""Ray: parts of a build as its tasks, and shards of an index as actors that answer searches."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

import vicinal
from vicinal import _validate
from vicinal._state import PathLike
from vicinal.result import RangeResult, SearchResult
from vicinal.shards import (
    kind_of,
    merge_ranges,
    merge_searches,
    paths_of_manifest,
    refuse_common,
    refuse_unlike,
    split_filter,
)

try:
    import ray
    from ray.exceptions import RayActorError, RayTaskError
except ImportError as error:
    raise ImportError(f"this module needs Ray: pip install 'vicinal[ray]' ({error})") from error

from vicinal.integrations._ray_executor import RayExecutor, need_ray  # needs Ray itself

__all__ = ["PartialAnswerError", "PartialResult", "RayExecutor", "ShardedIndex"]

_PAUSE = 0.1  # seconds before an actor that was down is asked again
_SMALL = 100_000  # bytes that Ray sends along with a call


class PartialAnswerError(RuntimeError):
    """Not all shards answered in time; see `missing`.

    Attributes
    ----------
    missing : tuple of str
        Paths of the shards that did not answer.
    """

    def __init__(self, message: str, missing: tuple[str, ...]) -> None:
        super().__init__(message, missing)
        self.missing = missing

    def __str__(self) -> str:
        return str(self.args[0])


class PartialResult(NamedTuple):
    """What `partial=True` returns.

    Attributes
    ----------
    found : SearchResult or RangeResult
        Merged from the shards that answered.
    share : float
        Their part of all rows, above 0 to 1.
    missing : tuple of str
        Paths of the shards that did not answer.
    """

    found: Any
    share: float
    missing: tuple[str, ...]


class _Shard:
    """One shard in a process of its own."""

    def __init__(self, path: str, verify: bool) -> None:
        self._path, self._verify = path, verify
        self._guard = threading.Lock()
        self._index: vicinal.Index | None = None

    @property
    def index(self) -> vicinal.Index:
        # opened by the first call, since of what __init__ raises Ray tells the text alone
        with self._guard:
            if self._index is None:
                self._index = vicinal.open(self._path, verify=self._verify)
            return self._index

    def about(self) -> tuple[dict[str, Any], int]:
        return kind_of(self.index), len(self.index)

    def ids(self) -> NDArray[Any]:
        return self.index.ids

    def pid(self) -> int:
        return os.getpid()

    def has(self, ids: list[Any]) -> NDArray[np.bool_]:
        return np.array([id in self.index for id in ids], bool)

    def get(self, ids: list[Any]) -> tuple[NDArray[np.bool_], NDArray[Any] | None]:
        there = self.has(ids)
        named = [id for id, mine in zip(ids, there.tolist(), strict=True) if mine]
        return there, self.index.get(named) if named else None

    def search(self, queries: ArrayLike, k: int, options: dict[str, Any]) -> SearchResult:
        return self.index.search(queries, k, **options)

    def range_search(
        self, queries: ArrayLike, radius: float, options: dict[str, Any]
    ) -> RangeResult:
        return self.index.range_search(queries, radius, **options)


class ShardedIndex:
    """Several index files, each opened by actors of Ray, searched as one.

    Every shard has `replicas` actors, each of which maps the file where it runs. A search asks one
    actor of every shard, in turns; one that is down is passed over for the next, and asked again
    once Ray has restarted it, until the deadline.

    Parameters
    ----------
    paths : path, or sequence of paths
        As for `vicinal.open_shards`; seen under these names by all nodes that run actors.
    replicas : int
        Actors for each shard.
    timeout : float
        Seconds that a call may take if it names no other.
    start_timeout : float
        Seconds that all actors may take to be there.
    verify, check_ids : bool
        As for `vicinal.open_shards`.
    **options
        Other options of `ray.remote` for the actors. By default they take no CPU of Ray's accounts
        and the size of their file of its memory, and are spread over the nodes.

    Raises
    ------
    RuntimeError
        If Ray is not initialised (`ray.init`).
    PartialAnswerError
        If some actors are not there in time.
    OSError, FormatError, CorruptError, ValueError
        As `vicinal.open_shards`.

    Notes
    -----
    Threads: safe at any time from any number of threads. Nothing here opens a socket: it is Ray
    that does. One index on one machine is nearly always better: docs/guide/many-machines.md.
    """

    def __init__(
        self,
        paths: PathLike | Sequence[PathLike],
        replicas: int = 1,
        *,
        timeout: float = 30.0,
        start_timeout: float = 120.0,
        verify: bool = False,
        check_ids: bool = True,
        **options: Any,
    ) -> None:
        need_ray()
        if isinstance(paths, (str, bytes, os.PathLike)):
            paths = paths_of_manifest(os.fsdecode(paths))
        self.paths = tuple(os.path.abspath(os.fsdecode(path)) for path in paths)
        if not self.paths:
            raise ValueError("paths: expected at least one, got none")
        replicas = _validate.whole_number(replicas, "replicas", 1, 1000)
        self._timeout = _seconds(timeout, "timeout")
        start_timeout = _seconds(start_timeout, "start_timeout")
        given = {
            "num_cpus": 0,
            "max_restarts": -1,
            "max_concurrency": 4,
            "scheduling_strategy": "SPREAD",
            **options,
        }
        self._turns = itertools.count()
        self._actors: list[list[Any]] = []
        try:
            for path in self.paths:
                made = ray.remote(**{"memory": _size(path), **given})(_Shard)
                self._actors.append([made.remote(path, verify) for _ in range(replicas)])
            self._start(start_timeout, check_ids)
        except BaseException:
            self.close()
            raise

    def _start(self, seconds: float, check_ids: bool) -> None:
        """Wait until all actors are there, and look whether they go together."""
        end = time.monotonic() + seconds
        refs = {
            actor.about.remote(): place
            for place, actors in enumerate(self._actors)
            for actor in actors
        }
        done, late = ray.wait(list(refs), num_returns=len(refs), timeout=seconds)
        about: list[Any] = [None] * len(self.paths)
        for ref in done:
            try:
                about[refs[ref]] = ray.get(ref)
            except RayTaskError as error:
                raise error.cause from None
        if late:
            self._refuse({refs[ref] for ref in late}, seconds)
        refuse_unlike([kind for kind, _ in about])
        self._kind = about[0][0]
        self._lengths = [count for _, count in about]
        if check_ids:
            left = max(end - time.monotonic(), 1.0)
            refuse_common(np.concatenate(self._ask("ids", self._same(), left)))

    # ---- what there is

    def __len__(self) -> int:
        return sum(self._lengths)

    def __repr__(self) -> str:
        return (
            f"vicinal.integrations.ray.ShardedIndex({len(self.paths)} of dim={self.dim}, "
            f"metric={self.metric!r}, dtype={self.dtype!r}) with {len(self)} rows"
        )

    @property
    def dim(self) -> int:
        """Dimension of the vectors; bits with dtype "b1"."""
        return int(self._kind["dim"])

    @property
    def metric(self) -> str:
        """Name of the distance: "l2", "ip", "cosine", "hamming" or "jaccard"."""
        return str(self._kind["metric"])

    @property
    def dtype(self) -> str:
        """What a value is stored as."""
        return str(self._kind["dtype"])

    @property
    def ids(self) -> NDArray[Any]:
        """All ids, shard by shard."""
        return np.concatenate(self._ask("ids", self._same(), None))

    def get(self, ids: ArrayLike, *, timeout: float | None = None) -> NDArray[Any]:
        """Return stored vectors; arguments, results and errors are those of `Index.get`."""
        named = np.asarray(ids, object if self._kind["ids"] == "str" else None)
        flat = named.reshape(-1)
        rows: NDArray[Any] | None = None
        left = np.ones(len(flat), bool)
        for there, mine in self._ask("get", self._same(flat.tolist()), timeout):
            if mine is not None:
                if rows is None:
                    rows = np.empty((len(flat), mine.shape[1]), mine.dtype)
                rows[there] = mine
                left &= ~there
        if left.any():
            raise KeyError(f"ids: {_validate.shown(flat[left][0])} is in no shard")
        if rows is None:
            raise ValueError("ids: expected at least one, got none")
        return rows[0] if named.ndim == 0 else rows

    # ---- searching

    def search(
        self,
        queries: ArrayLike,
        k: int = 10,
        *,
        ef_search: int | None = None,
        recall: float | None = None,
        filter: Any = None,
        exclude: Any = None,
        exact: bool | None = None,
        num_threads: int | None = None,
        timeout: float | None = None,
        partial: bool = False,
    ) -> Any:
        """Find the k nearest vectors of each query in all shards.

        Parameters
        ----------
        queries, k, ef_search, recall, filter, exclude, exact, num_threads
            As for `vicinal.Shards.search`; threads are those of each actor.
        timeout : float, optional
            Seconds; by default those of the index.
        partial : bool
            Whether some shards suffice at the deadline.

        Returns
        -------
        SearchResult, or PartialResult if `partial`
            What `vicinal.Shards.search` returns for the same files.

        Raises
        ------
        PartialAnswerError
            If a shard has not answered in time; with `partial`, if none has.
        TypeError, ValueError, CorruptError, MemoryError
            As `Index.search`.
        """
        filters, without = split_filter(filter, self._lengths), split_filter(exclude, self._lengths)
        fixed = {"ef_search": ef_search, "recall": recall, "num_threads": num_threads}
        questions = [
            (queries, k, {**fixed, "filter": mine, "exclude": out, "exact": exact})
            for mine, out in zip(filters, without, strict=True)
        ]
        return self._answer("search", questions, merge_searches, timeout, partial)

    def range_search(
        self,
        queries: ArrayLike,
        radius: float,
        *,
        ef_search: int | None = None,
        filter: Any = None,
        num_threads: int | None = None,
        timeout: float | None = None,
        partial: bool = False,
    ) -> Any:
        """Find all vectors within a distance of each query; see `search` and `Shards`."""
        fixed = {"ef_search": ef_search, "num_threads": num_threads}
        questions = [
            (queries, radius, {**fixed, "filter": mine})
            for mine in split_filter(filter, self._lengths)
        ]
        return self._answer("range_search", questions, merge_ranges, timeout, partial)

    def _answer(
        self,
        verb: str,
        questions: Sequence[tuple[Any, ...]],
        merge: Callable[[Sequence[Any]], Any],
        timeout: float | None,
        partial: bool,
    ) -> Any:
        answers = self._ask(verb, questions, timeout, partial)
        there = [place for place, answer in enumerate(answers) if answer is not None]
        found = merge([answers[place] for place in there])
        if not partial:
            return found
        share = sum(self._lengths[place] for place in there) / max(len(self), 1)
        missing = [path for path, answer in zip(self.paths, answers, strict=True) if answer is None]
        return PartialResult(found, share, tuple(missing))

    def _same(self, *arguments: Any) -> list[tuple[Any, ...]]:
        return [arguments] * len(self.paths)

    def _ask(
        self,
        verb: str,
        questions: Sequence[tuple[Any, ...]],
        timeout: float | None,
        partial: bool = False,
    ) -> list[Any]:
        """Put a question to every shard; return the answers, with `partial` None for a late one."""
        if not self._actors:
            raise ValueError("index: it is closed")
        seconds = self._timeout if timeout is None else _seconds(timeout, "timeout")
        end = time.monotonic() + seconds
        turn = next(self._turns)
        kept = []
        if verb.endswith("search") and np.asarray(questions[0][0]).nbytes > _SMALL:
            kept = [ray.put(questions[0][0])]  # goes to each node once
        asked: dict[Any, int] = {}
        tries = [0] * len(questions)
        later: list[tuple[float, int]] = []

        def ask(place: int) -> None:
            actors = self._actors[place]
            actor = actors[(turn + tries[place]) % len(actors)]
            tries[place] += 1
            arguments = (*kept, *questions[place][len(kept) :])
            asked[getattr(actor, verb).remote(*arguments)] = place

        for place in range(len(questions)):
            ask(place)
        answers: list[Any] = [None] * len(questions)
        try:
            while (asked or later) and time.monotonic() < end:
                now = time.monotonic()
                for moment in [moment for moment in later if moment[0] <= now]:
                    later.remove(moment)
                    ask(moment[1])
                until = min([end, *(moment for moment, _ in later)])
                if not asked:
                    time.sleep(max(until - now, 0))
                    continue
                done, _ = ray.wait(list(asked), num_returns=1, timeout=max(until - now, 0))
                for ref in done:
                    place = asked.pop(ref)
                    try:
                        answers[place] = ray.get(ref)
                    except RayActorError:
                        around = tries[place] % len(self._actors[place]) == 0
                        later.append((time.monotonic() + (_PAUSE if around else 0), place))
        except RayTaskError as error:
            raise error.cause from None
        finally:
            for ref in asked:
                ray.cancel(ref)
        late = {place for place, answer in enumerate(answers) if answer is None}
        if late and (not partial or len(late) == len(answers)):
            self._refuse(late, seconds)
        return answers

    def _refuse(self, late: set[int], seconds: float) -> None:
        missing = tuple(self.paths[place] for place in sorted(late))
        raise PartialAnswerError(
            f"{len(late)} of {len(self.paths)} shards did not answer within {seconds:g} s: "
            f"{', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}",
            missing,
        )

    # ---- the end

    def close(self) -> None:
        """End the actors; the files stay."""
        actors, self._actors = self._actors, []
        if ray.is_initialized():
            for actor in itertools.chain.from_iterable(actors):
                ray.kill(actor)

    def __enter__(self) -> ShardedIndex:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _seconds(value: float, name: str) -> float:
    seconds = _validate.real_number(value, name)
    if not 0 < seconds < float("inf"):
        raise ValueError(f"{name}: expected seconds above 0, got {seconds:g}")
    return seconds


def _size(path: str) -> int:
    """Return the bytes of a file; 0 where this machine does not see it."""
    try:
        return os.path.getsize(path)
    except OSError:
        return 0
