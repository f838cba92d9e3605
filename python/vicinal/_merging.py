"""Making one index of two."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from vicinal import _validate
from vicinal._changing import Changing
from vicinal._cpu import native
from vicinal._keeping import own_attributes
from vicinal._progress import Report
from vicinal._searching import Searching
from vicinal._state import EXACT_BELOW, QUANTIZATION
from vicinal._telling import Telling

if TYPE_CHECKING:
    from vicinal.index import Index


class Merging(Changing, Searching, Telling):
    """Taking in what another index holds."""

    __slots__ = ()

    def merge(
        self,
        other: Merging,
        *,
        num_threads: int | None = None,
        progress: bool | Report | None = None,
    ) -> NDArray[Any]:
        """Add all vectors of another index under their ids; all of them, or none.

        Each of them starts its search for neighbours from those that it has in the graph of
        `other`, as far as they are here already. That finds as many neighbours as `add` of the same
        vectors, in about two thirds of the time or less.

        Parameters
        ----------
        other : Index
            One of the same dim, metric, dtype and kind of ids, also one opened from a file. It
            stays as it is. Its vectors are linked with the parameters of this index.
        num_threads, progress
            As for `add`.

        Returns
        -------
        ndarray, shape (len(other),)
            The ids that were added.

        Raises
        ------
        TypeError
            If `other` is not an index.
        ValueError
            If it is this one or of another kind, if an id is in both, or if this index is
            read-only.

        Notes
        -----
        Holds a copy of the vectors of `other` while it works.
        After any exception the index is as it was before the call; KeyboardInterrupt may also come
        when all of it is done: `len` and `in` tell.
        Threads: a writer like `add`, of both: calls that change `other` wait, too. Searches go on
        meanwhile, in either. The result is the same for any number of threads.
        Source: join sets and seeds as in Apache Lucene's merges of graphs (pull request 14331).

        Examples
        --------
        >>> import numpy as np, vicinal
        >>> a, b = vicinal.Index(2), vicinal.Index(2)
        >>> a.add(np.eye(2)), b.add(-np.eye(2), ids=[7, 8])
        (array([0, 1]), array([7, 8]))
        >>> a.merge(b)
        array([7, 8])
        >>> a.search([-1.0, 0.1], k=2).ids
        array([7, 1])
        """
        if not isinstance(other, Merging):
            raise TypeError(f"other: expected an Index, got {type(other).__name__}")
        if other is self:
            raise ValueError("other: expected another index, got this one")
        mine, theirs = _kind(self), _kind(other)
        if mine != theirs:
            name = next(key for key in mine if mine[key] != theirs[key])
            raise ValueError(f"other: expected {name}={mine[name]!r}, got {theirs[name]!r}")
        self._must_be_writable()
        threads = _validate.thread_count(num_threads)
        while True:
            with self._writing.held():
                second = other._writing.held_if_free()
                if second is not None:
                    with second:
                        return self._take_in(other, threads, progress)
            # holding neither meanwhile, so that two threads cannot wait for each other
            other._writing.wait()

    def _take_in(
        self, other: Merging, threads: int, progress: bool | Report | None
    ) -> NDArray[Any]:
        """Add all vectors of another index; the caller holds the writer's lock of both."""
        ids = other.ids
        rows, given = _validate.as_rows(other.get(ids), "other", self._dim, self._dtype)
        origin = (other._handle, other._known_rows(ids))
        self._put(rows, given, ids, False, threads, progress, origin=origin)
        return ids


def _kind(index: Merging) -> dict[str, Any]:
    """Return what two indexes must have in common."""
    return {
        "dim": index.dim,
        "metric": index.metric,
        "dtype": index.dtype,
        "ids": "int64" if index._strings is None else "str",
    }


def _parameters(index: Merging) -> tuple[Any, ...]:
    """Return what decides, besides the vectors, what an index becomes."""
    asked = (native.index_info(index._handle, which) for which in (EXACT_BELOW, QUANTIZATION))
    return (index._M, index._ef_construction, index._seed, index._ef_search, *asked)


def merge(a: Index, b: Index, *, num_threads: int | None = None) -> Index:
    """Return a new index with the vectors of two, under their ids.

    Parameters
    ----------
    a, b : Index
        Of the same dim, metric, dtype and kind of ids, with no id in both. Neither is changed. The
        result has the parameters of `a`, to a copy of which the vectors of `b` are added as
        `Index.merge` does; or the other way round if `b` is larger and has the same parameters.
    num_threads : int, optional
        As for `Index.add`.

    Returns
    -------
    Index

    Raises
    ------
    TypeError, ValueError
        As `Index.merge`.

    Notes
    -----
    Threads: `a` and `b` may be searched meanwhile; calls that change them wait.
    """
    if not isinstance(a, Merging):
        raise TypeError(f"a: expected an Index, got {type(a).__name__}")
    if not isinstance(b, Merging):
        raise TypeError(f"b: expected an Index, got {type(b).__name__}")
    plain = own_attributes(a) is None and own_attributes(b) is None and type(a) is type(b)
    if plain and len(b) > len(a) and _kind(a) == _kind(b) and _parameters(a) == _parameters(b):
        a, b = b, a
    merged = a.copy()
    merged.merge(b, num_threads=num_threads)
    return merged
