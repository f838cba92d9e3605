"""Making one index of two."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from vicinal._changing import Changing
from vicinal._progress import Report
from vicinal._searching import Searching
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

        The graph becomes what `add` would make of the same vectors; that of `other` is not used.

        Parameters
        ----------
        other : Index
            One of the same dim, metric, dtype and kind of ids. It stays as it is.
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
        Threads: a writer like `add`; `other` is read and may be searched meanwhile, but must not
        be changed.

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
        ids = other.ids
        return self.add(other.get(ids), ids, num_threads=num_threads, progress=progress)


def _kind(index: Merging) -> dict[str, Any]:
    """Return what two indexes must have in common."""
    return {
        "dim": index.dim,
        "metric": index.metric,
        "dtype": index.dtype,
        "ids": "int64" if index._strings is None else "str",
    }


def merge(a: Index, b: Index, *, num_threads: int | None = None) -> Index:
    """Return a new index with the vectors of two, under their ids.

    Parameters
    ----------
    a, b : Index
        Of the same dim, metric, dtype and kind of ids, with no id in both. Neither is changed. The
        result has the parameters of `a`, and the vectors of `b` are added to its graph.
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
    Threads: `a` and `b` may be searched meanwhile, but must not be changed.
    """
    if not isinstance(a, Merging):
        raise TypeError(f"a: expected an Index, got {type(a).__name__}")
    merged = a.copy()
    merged.merge(b, num_threads=num_threads)
    return merged
