"""The collection: one class, put together from what it can do."""

from __future__ import annotations

from vicinal.collection._async import AsyncTwins
from vicinal.collection._inside import Inside
from vicinal.collection._reader import Reader
from vicinal.collection._searcher import Searcher
from vicinal.collection._writer import Writer

__all__ = ["Collection"]


class Collection(AsyncTwins, Writer, Reader, Searcher, Inside):
    """Documents with an id, a vector, a text and metadata, in a folder.

    Every change is one transaction of SQLite: after a crash at any moment it is there whole, or not
    at all. Searches see all of what was committed before they began.

    Parameters
    ----------
    path : str or path-like
        The folder; made if it is not there.
    dim : int, optional
        Dimension of the vectors. Needed for a new collection; the folder remembers it, and what
        else is given has to agree with the folder.
    metric : {"cosine", "l2", "ip"}, optional
        "cosine" for a new collection.
    read_only : bool
        Change nothing in the folder, which may be on a read-only disk.
    embed : callable, optional
        Turns a list of texts into an array_like of shape (n, dim). Called where texts come without
        vectors. Not remembered.
    analyzer : str or callable, optional
        How texts become words: docs/guide/hybrid.md. "default" for a new collection. A callable has
        to be given each time, and be the same.
    checkpoint_rows : int or None
        A change that leaves so many rows pending is followed by `checkpoint`; None: never.
    synchronous : {"full", "normal"}
        "full" waits for the disk at each change; with "normal" the last changes may be lost if the
        power fails, not if the process dies.
    **index_parameters
        `dtype`, `M`, `ef_construction`, `quantization`, `seed` of `vicinal.Index`.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, or contradicts the folder.
    FileNotFoundError
        If it is to be read only and is not there.
    OSError
        If the system refuses.
    FormatError, CorruptError
        If the folder has something else in it, or is damaged.

    Notes
    -----
    One process at a time writes: the first that changes something, until it closes the collection
    or ends; others get a BlockingIOError. Any number of processes read, and see every change from
    the moment of its commit. Threads: all methods are safe at any time from any number of threads;
    changes take turns, and searches wait while a change is taken in, not while one is written.
    After a fork the child may go on reading.

    Examples
    --------
    >>> import tempfile, vicinal
    >>> folder = tempfile.mkdtemp()
    >>> notes = vicinal.Collection(folder, dim=2, metric="l2")
    >>> notes.upsert(["a", "b"], [[0, 1], [5, 5]], ["first", "second"], [{"n": 1}, {"n": 2}])
    >>> notes.search([0, 0], k=1)[0].text
    'first'
    >>> [hit.id for hit in notes.search([0, 0], where={"field": "n", "op": "gt", "value": 1})]
    ['b']
    >>> notes.close()
    """
