"""The index: one object to add vectors to, search, save and open."""

from __future__ import annotations

import os
import reprlib
import tempfile
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vicinal import _validate, storage
from vicinal._cpu import native
from vicinal._progress import Report, reporting
from vicinal._writer_lock import WriterLock
from vicinal.result import SearchResult

__all__ = ["Index", "open"]

PathLike = str | bytes | os.PathLike[str] | os.PathLike[bytes]

# Below this many rows a scan of all of them beats the graph, and is exact.
EXACT_BELOW = native.exact_below()
EF_SEARCH = 64

# `which` of native.index_info
_COUNT, _DIM, _METRIC, _DTYPE, _M, _EF_CONSTRUCTION, _SEED = range(7)
_IN_GRAPH, _MAX_LEVEL, _BYTES, _READ_ONLY = range(7, 11)
_EXACT_BELOW, _EF_SEARCH, _CODES, _QUANTIZATION = range(12, 16)
_VECTORS_BYTES, _IDS_BYTES, _GRAPH_BYTES, _CODES_BYTES = range(16, 20)

_DUPLICATE_ID = 4  # of native.index_add, beside the kinds of _validate.refuse_rows

# Answers of native.index_check
_INVARIANTS = {
    1: "a row has more links than it may",
    2: "an empty slot stands before a used one",
    3: "a link leads to a row that is not there on its level",
    4: "a row links to itself",
    5: "a row links to another twice",
    6: "the tables of the upper levels are out of order",
    7: "the entry point is not a row of the highest level",
    8: "a row cannot be reached from the entry point",
}

_CODE_KINDS = (None, "u8", "sq8", "rabitq4")  # as native.index_info numbers them

# For the first lines of `search`, where each look-up counts.
_ndarray = np.ndarray
_empty = np.empty
_new_tuple = tuple.__new__  # the constructor of a NamedTuple takes half as long again
_native_search = native.index_search
_INT64 = np.dtype(np.int64)
_FLOAT32 = np.dtype(np.float32)
_READY = 0x0101  # flags.num of an array that is C-contiguous and aligned
_MAX_COUNT = _validate.MAX_COUNT


class Index:
    """Nearest-neighbour index over vectors held in memory or in a mapped file.

    Small indexes are searched exactly, by a scan of all rows; from 1,000 rows on a graph is
    walked (HNSW, arXiv:1603.09320). The object is ready for use as soon as it is made and grows by
    itself.

    Parameters
    ----------
    dim : int
        Dimension of the vectors, 1 to 65536.
    metric : {"l2", "ip", "cosine"}
        Distance; see Notes. Smaller is nearer for each.
    dtype : {"float32", "float16", "bfloat16", "int8", "uint8"} or dtype
        What a value is stored as; NumPy dtypes and `ml_dtypes.bfloat16` are taken too.
    M : int
        Links per row in the graph, 2 to 128; layer 0 has room for twice as many. More links find
        more and take more memory.
    ef_construction : int
        Candidates kept while a row is linked, at least 1. More makes a better graph, slower.
    quantization : {"auto", None, "u8", "sq8", "rabitq4"}
        What the graph is walked on; see Notes.
    seed : int
        Draws the graph's levels, 0 to 2**63 - 1.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If a value is out of range or not one of those listed.

    Notes
    -----
    ========== ============================ ===============================================
    metric     distance of a and b          remarks
    ========== ============================ ===============================================
    "l2"       sum((a - b)**2)              squared Euclidean: no root is taken
    "ip"       1 - sum(a * b)               below 0 for long vectors
    "cosine"   1 - sum(a * b) / (|a| |b|)   0 to 2; zero vectors are refused. Float vectors
                                            are stored at unit length
    ========== ============================ ===============================================

    Distances are computed from the vectors as stored. Sums over int8 and uint8 are exact.

    Codes: the graph is walked on compressed codes of the rows, and the best 32
    (or 3 k) candidates are then measured again from the stored vectors.

    ============ =========================================== ====================================
    quantization codes                                       chosen by "auto" for
    ============ =========================================== ====================================
    "u8"         the values themselves in 8 bits: distances  l2 and ip, int8 and uint8, or floats
                 are exact, nothing is measured again        that are all whole, 0 to 255
    "sq8"        8 bits per element, one scale per row       other floats, dim 32 to 95
    "rabitq4"    rotated, 4 bits per element (RaBitQ,        other floats, dim 96 or more
                 arXiv:2405.12497, arXiv:2409.09913)
    None         the stored vectors                          dim below 32; cosine over integers
    ============ =========================================== ====================================

    With "auto", estimates are checked on a sample when the graph is built and whenever a quarter of
    the rows is new. If they are too coarse (rows in heaps far apart, or moved since), all rows get
    codes around a new centre, then "sq8", then None. Rows that "u8" cannot hold have all rows coded
    anew as well.

    Threads: `search`, `get`, `in`, `len` and `ids` are safe at any time from any number of threads,
    also while vectors are added. One thread at a time can be in `add`, `save`, `check` or pickling:
    others wait. A forked child may go on using the index; if another thread was writing
    at the moment of the fork, the child can only search its copy.

    Examples
    --------
    >>> import numpy as np
    >>> import vicinal
    >>> index = vicinal.Index(2, "l2")
    >>> index.add([[0, 0], [3, 4], [1, 1]])
    array([0, 1, 2])
    >>> ids, distances = index.search([1.0, 0.0], k=2)
    >>> ids, distances
    (array([0, 2]), array([1., 1.], dtype=float32))
    """

    __slots__ = (
        "_M",
        "__weakref__",
        "_dim",
        "_dtype",
        "_ef_construction",
        "_ef_search",
        "_handle",
        "_metric",
        "_path",
        "_query_dtype",
        "_read_only",
        "_seed",
        "_single",
        "_writing",
    )

    def __init__(
        self,
        dim: int,
        metric: str = "l2",
        *,
        dtype: Any = "float32",
        M: int = 16,
        ef_construction: int = 200,
        quantization: str | None = "auto",
        seed: int = 0,
    ) -> None:
        metric, dtype = _validate.metric_name(metric), _validate.dtype_name(dtype)
        self._adopt(
            native.index_new(
                _validate.METRICS.index(metric),
                _validate.DTYPES.index(dtype),
                _validate.whole_number(dim, "dim", 1, 65536),
                _validate.whole_number(M, "M", 2, 128),
                _validate.whole_number(ef_construction, "ef_construction", 1, _MAX_COUNT),
                _validate.whole_number(seed, "seed", 0, 2**63 - 1),
                EXACT_BELOW,
                _validate.quantization_code(quantization, metric, dtype),
            )
        )

    def _adopt(self, handle: Any, path: PathLike = "") -> None:
        """Take over a native index, opened from `path` if that is given."""
        self._handle = handle
        self._dim = native.index_info(handle, _DIM)
        self._metric = _validate.METRICS[native.index_info(handle, _METRIC)]
        self._dtype = _validate.DTYPES[native.index_info(handle, _DTYPE)]
        self._M = native.index_info(handle, _M)
        self._ef_construction = native.index_info(handle, _EF_CONSTRUCTION)
        self._seed = native.index_info(handle, _SEED)
        self._read_only = bool(native.index_info(handle, _READ_ONLY))
        self._ef_search = native.index_info(handle, _EF_SEARCH) or EF_SEARCH
        self._path = path
        self._query_dtype = _validate.query_dtype(self._dtype)
        self._single = (self._dim,)
        self._writing = WriterLock()

    # ---- what it is

    @property
    def dim(self) -> int:
        """Dimension of the vectors."""
        return self._dim

    @property
    def metric(self) -> str:
        """Name of the distance: "l2", "ip" or "cosine"."""
        return self._metric

    @property
    def dtype(self) -> str:
        """What a value is stored as: "float32", "float16", "bfloat16", "int8" or "uint8"."""
        return self._dtype

    @property
    def M(self) -> int:
        """Links per row in the graph."""
        return self._M

    @property
    def ef_construction(self) -> int:
        """Candidates kept while a row is linked."""
        return self._ef_construction

    @property
    def seed(self) -> int:
        """What the graph's levels are drawn from."""
        return self._seed

    @property
    def read_only(self) -> bool:
        """True for an index opened with mode="r"."""
        return self._read_only

    @property
    def ef_search(self) -> int:
        """Search width of calls that give none, saved with the index; 64 unless set."""
        return self._ef_search

    @ef_search.setter
    def ef_search(self, value: int) -> None:
        self._ef_search = _validate.whole_number(value, "ef_search", 1, _MAX_COUNT)

    @property
    def ids(self) -> NDArray[np.int64]:
        """Ids of all rows in the order they were added, a new int64 array of shape (len(self),)."""
        while True:
            out = np.empty(len(self), dtype=np.int64)
            native.index_ids(self._handle, out)
            # the native code gives the last ids; a writer may have added some in between
            if len(out) == len(self):
                return out

    def __len__(self) -> int:
        return native.index_info(self._handle, _COUNT)

    def __contains__(self, id: object) -> bool:
        number = _validate.as_id(id)
        return number is not None and self._rows(np.array([number], dtype=np.int64))[0] >= 0

    def __repr__(self) -> str:
        return (
            f"vicinal.Index(dim={self._dim}, metric={self._metric!r}, dtype={self._dtype!r}, "
            f"M={self._M}, ef_construction={self._ef_construction}, seed={self._seed}) "
            f"with {len(self)} rows{', read-only' if self._read_only else ''}"
        )

    # ---- adding

    def add(
        self,
        vectors: ArrayLike,
        ids: ArrayLike | None = None,
        *,
        num_threads: int | None = None,
        progress: bool | Report | None = None,
    ) -> NDArray[np.int64]:
        """Add vectors; all of them, or none if anything is wrong with one.

        Parameters
        ----------
        vectors : array_like of shape (n, dim) or (dim,)
            Used without a copy if C-contiguous and of the stored dtype. Other numbers are converted
            once: to a float dtype by rounding to nearest, to an integer dtype only if every value
            fits exactly. A bfloat16 index takes uint16 as the bits of bfloat16 values, and other
            dtypes by value (through float32).
        ids : array_like of int, shape (n,), optional
            Any distinct int64 values that are not in the index; negative ones are allowed. By
            default the n numbers from `max(len(index), largest id + 1)` on, so that an index that
            was never given ids has 0, 1, 2, ...
        num_threads : int, optional
            Threads to use, at least 1; all cores this process may run on by default.
        progress : bool or callable, optional
            True draws a bar (needs tqdm). A callable is called with (rows done, rows in all), from
            the calling thread and a few times a second; an exception in it ends the call.

        Returns
        -------
        ndarray of int64, shape (n,)
            The ids, also for one vector of shape (dim,).

        Raises
        ------
        TypeError
            If vectors or ids are of the wrong kind: no real numbers, ragged, ids that are floats.
        ValueError
            If a shape is wrong, a value is NaN, infinite or does not fit the stored dtype, a vector
            is zero with metric "cosine", an id is repeated or present already, or the index is
            read-only.

        Notes
        -----
        After any exception, KeyboardInterrupt included, the index is as it was before the call.
        Threads: one writer at a time, a second waits; searches go on meanwhile.
        Source: arXiv:1603.09320, algorithms 1 and 4.
        """
        if self._read_only:
            raise ValueError(
                'index: expected a writable one, got one opened with mode="r"; '
                'vicinal.open(path, mode="copy") gives a private copy to add to'
            )
        threads = _validate.thread_count(num_threads)
        rows, given = _validate.as_rows(vectors, "vectors", self._dim, self._dtype)
        chosen = None if ids is None else _validate.as_ids(ids)
        if chosen is not None and chosen.shape != (len(rows),):
            raise ValueError(f"ids: expected ({len(rows)},), got {chosen.shape}")
        with self._writing.held(), reporting(progress, len(rows)) as report:
            status = native.index_add(self._handle, rows, chosen, threads, report)
            if status % 8 == _DUPLICATE_ID:
                self._refuse_id(chosen, status // 8)
            if status:
                _validate.refuse_rows(status, "vectors", rows, given)
            # the ids of the last rows
            added = np.empty(len(rows), dtype=np.int64)
            native.index_ids(self._handle, added)
        return added

    def _refuse_id(self, ids: NDArray[np.int64] | None, position: int) -> NoReturn:
        if ids is None:
            raise ValueError("ids: no automatic ones are left below 2**63; give ids of your own")
        value = ids[position]
        earlier = np.flatnonzero(ids[:position] == value)
        if len(earlier):
            raise ValueError(
                f"ids: {value} stands at position {earlier[0]} and again at {position}"
            )
        raise ValueError(f"ids: {value} at position {position} is already in the index")

    # ---- searching

    def search(
        self,
        queries: ArrayLike,
        k: int = 10,
        *,
        ef_search: int | None = None,
        num_threads: int | None = None,
    ) -> SearchResult:
        """Find the k nearest vectors of each query.

        Parameters
        ----------
        queries : array_like of shape (dim,) or (n, dim)
            Converted to float32 for float indexes (rounded to nearest), to the stored dtype for
            integer ones (values must fit exactly); C-contiguous arrays of that dtype are used
            without a copy. uint16 queries of a bfloat16 index are taken as bits.
        k : int
            Neighbours wanted, at least 1.
        ef_search : int, optional
            Candidates kept while searching, at least 1; more finds more and takes longer. At least
            `k` are kept. `index.ef_search` by default. Without effect while the index is searched
            exactly.
        num_threads : int, optional
            Threads that share the queries, at least 1; by default one for one query, else all
            cores this process may run on. Results do not depend on it.

        Returns
        -------
        SearchResult
            `ids` (int64) and `distances` (float32), nearest first, equal distances in the order of
            rows; shape (k,) for one query, (n, k) for a batch. Where there are fewer than k rows
            the rest is id -1 and distance infinity.

        Raises
        ------
        TypeError
            If queries, `k`, `ef_search` or `num_threads` are of the wrong kind.
        ValueError
            If a shape is wrong, a number out of range, a query holds NaN or infinity, or is zero
            with metric "cosine".

        Notes
        -----
        Threads: safe at any time, also during `add`, which it never waits for; a search may or may
        not see rows that are being added. The GIL is released.
        Source: arXiv:1603.09320, algorithms 2 and 5.
        """
        # On a small index the checks take longer than the search: those for the usual arguments
        # stand here in a row, everything else goes the long way.
        if (
            type(queries) is _ndarray
            and queries.dtype is self._query_dtype
            and queries.flags.num & _READY == _READY
        ):
            rows = given = queries
            shape = queries.shape
            single = shape == self._single
            if not single and (len(shape) != 2 or shape[1] != self._dim):
                rows, given = _validate.as_rows(
                    queries, "queries", self._dim, self._dtype, queries=True
                )
        else:
            rows, given = _validate.as_rows(
                queries, "queries", self._dim, self._dtype, queries=True
            )
            single = given.ndim == 1
        if type(k) is not int or not 0 < k <= _MAX_COUNT:
            k = _validate.whole_number(k, "k", 1, _MAX_COUNT)
        if ef_search is None:
            ef_search = self._ef_search
        elif type(ef_search) is not int or not 0 < ef_search <= _MAX_COUNT:
            ef_search = _validate.whole_number(ef_search, "ef_search", 1, _MAX_COUNT)
        n = 1 if single else len(rows)
        if num_threads is None:
            num_threads = 1 if n == 1 else _validate.thread_count(None)
        elif type(num_threads) is not int or not 0 < num_threads <= _MAX_COUNT:
            num_threads = _validate.thread_count(num_threads)
        wanted = k if single else (n, k)
        ids = _empty(wanted, _INT64)
        distances = _empty(wanted, _FLOAT32)
        status = _native_search(self._handle, rows, k, ef_search, num_threads, ids, distances)
        if status:
            _validate.refuse_rows(status, "queries", rows.reshape(n, self._dim), given)
        return _new_tuple(SearchResult, (ids, distances))

    def get(self, ids: ArrayLike) -> NDArray[Any]:
        """Return stored vectors.

        Parameters
        ----------
        ids : int or array_like of int, shape (n,)
            Ids, in any order, repeats allowed.

        Returns
        -------
        ndarray of shape (dim,) for one id, (n, dim) for several
            New array of the stored dtype; bfloat16 values as their bits in uint16. With metric
            "cosine" float vectors come back at unit length, as they are stored.

        Raises
        ------
        KeyError
            If an id is not in the index.
        TypeError
            If ids are not integers.
        ValueError
            If they have another shape or do not fit int64.

        Notes
        -----
        Threads: safe at any time, also during `add`.
        """
        wanted = _validate.as_ids(ids)
        if wanted.ndim > 1:
            raise ValueError(f"ids: expected one id or shape (n,), got {wanted.shape}")
        flat = wanted.reshape(-1)
        rows = self._rows(flat)
        unknown = np.flatnonzero(rows < 0)
        if len(unknown):
            raise KeyError(f"ids: {flat[unknown[0]]} is not in the index")
        out = np.empty((len(flat), self._dim), dtype=_validate.STORED_DTYPES[self._dtype])
        native.index_get(self._handle, rows, out)
        return out if wanted.ndim else out[0]

    def _rows(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the row number of each id, -1 for unknown ones."""
        # the native code reads and changes its table of ids with the GIL held only
        rows = np.empty(len(ids), dtype=np.int64)
        native.index_rows(self._handle, ids, rows)
        return rows

    # ---- files

    def save(self, path: PathLike) -> None:
        """Write the index to one file, which replaces a file of that name only once it is whole.

        Parameters
        ----------
        path : str or path-like
            May be the file that this index was opened from.

        Raises
        ------
        OSError
            If the system refuses; an old file is untouched then and no other is left behind.

        Notes
        -----
        The file holds everything, `ef_search` included, and is on the disk when the call returns.
        Threads: a writer like `add`; searches go on meanwhile.

        Examples
        --------
        >>> import tempfile, vicinal
        >>> index = vicinal.Index(2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     index.save(f"{folder}/small.vicinal")
        ...     vicinal.open(f"{folder}/small.vicinal")
        vicinal.Index(dim=2, metric='l2', dtype='float32', M=16, ef_construction=200, seed=0) \
with 0 rows, read-only
        """
        with self._writing.held():
            storage.call(
                lambda name, status: native.index_save(self._handle, name, self._ef_search, status),
                path,
            )

    def __reduce__(self) -> tuple[Any, ...]:
        # A pickle holds the bytes of a file, so there is one format to check and to keep readable.
        with tempfile.TemporaryDirectory(prefix="vicinal-") as folder:
            path = Path(folder, "index")
            self.save(path)
            return _from_bytes, (path.read_bytes(),)

    # ---- checking and telling

    def verify(self) -> None:
        """Compare every byte of the mapped file with the checksums in it.

        An index that is not read-only has its rows in memory, where there is nothing to compare.

        Raises
        ------
        CorruptError
            If the file is damaged.

        Notes
        -----
        Uses all cores and ends on Ctrl-C. Threads: safe at any time.
        """
        threads = _validate.thread_count(None)
        storage.call(
            lambda _, status: native.index_verify(self._handle, threads, status), self._path
        )

    def check(self) -> None:
        """Check what must hold of the graph; for tests and after a suspicion.

        Reads all links and rows, which takes about as long as a few thousand searches.

        Raises
        ------
        RuntimeError
            Naming the first rule that is broken.

        Notes
        -----
        Threads: waits for a writer; searches go on meanwhile.
        """
        with self._writing.held():
            code = native.index_check(self._handle)
        if code:
            rule = _INVARIANTS.get(code, f"rule {code}")
            raise RuntimeError(f"index: the graph is not as it must be: {rule}")

    def stats(self) -> dict[str, Any]:
        """Tell what the index is and how it answers.

        Returns
        -------
        dict
            `count` (rows), `dim`, `metric`, `dtype`, `M`, `ef_construction`, `ef_search`, `seed`,
            `read_only`; `search`, "exact" or "graph": how a search of the default width is
            answered now; `exact_below`, the number of rows from which on the graph is built;
            `graph_rows` and `max_level` of the graph; `quantization`, what the graph is walked on,
            and `quantization_reason`, why; `format_version`, that of the file `save` writes.

        Notes
        -----
        Threads: safe at any time.
        """
        number = partial(native.index_info, self._handle)
        count, linked = number(_COUNT), number(_IN_GRAPH)
        return {
            "count": count,
            "dim": self._dim,
            "metric": self._metric,
            "dtype": self._dtype,
            "M": self._M,
            "ef_construction": self._ef_construction,
            "ef_search": self._ef_search,
            "seed": self._seed,
            "read_only": self._read_only,
            "search": "exact" if linked < count or count < number(_EXACT_BELOW) else "graph",
            "exact_below": number(_EXACT_BELOW),
            "graph_rows": linked,
            "max_level": number(_MAX_LEVEL),
            "format_version": storage.FORMAT_VERSION,
            "quantization": _CODE_KINDS[number(_CODES)],
            "quantization_reason": self._quantization_reason(),
        }

    def _quantization_reason(self) -> str:
        """Say why the graph is walked on what it is walked on."""
        number = partial(native.index_info, self._handle)
        if number(_IN_GRAPH) == 0:
            return "there is no graph yet"
        if number(_QUANTIZATION) != 0:
            return "asked for"
        kind = _CODE_KINDS[number(_CODES)]
        if kind == "u8":
            return "all values are whole numbers from 0 to 255, or stored as 8-bit integers"
        if self._dtype in ("int8", "uint8"):
            return "there are no exact codes for cosine"
        usual = None if self._dim < 32 else "sq8" if self._dim < 96 else "rabitq4"
        return f"floats of dimension {self._dim}" + (
            "" if kind == usual else f"; {usual} was too coarse for a sample of the rows"
        )

    def memory_usage(self) -> dict[str, int]:
        """Tell how many bytes the index holds, by part.

        Returns
        -------
        dict
            `vectors`, `ids` (with the table that finds them), `graph`, `codes` (what the graph is
            walked on) and `total`, room to grow included. For a read-only index these are parts of
            the file, of which the system keeps in memory what is used.

        Notes
        -----
        Threads: safe at any time.
        """
        number = partial(native.index_info, self._handle)
        return {
            "vectors": number(_VECTORS_BYTES),
            "ids": number(_IDS_BYTES),
            "graph": number(_GRAPH_BYTES),
            "codes": number(_CODES_BYTES),
            "total": number(_BYTES),
        }


def open(path: PathLike, *, mode: str = "r", verify: bool = False) -> Index:
    """Open a saved index by memory map, in milliseconds whatever its size.

    Parameters
    ----------
    path : str or path-like
        A file that `Index.save` wrote.
    mode : {"r", "copy"}
        "r" searches the file where it lies and cannot be added to; processes that open the same
        file share its memory. "copy" gives a private copy in memory that can be; the file stays as
        it is.
    verify : bool
        Compare every byte with the checksums before anything is used.

    Returns
    -------
    Index

    Raises
    ------
    OSError
        If the file cannot be read, `FileNotFoundError` if it is not there.
    FormatError
        If it is no index, or of a version that this one cannot read.
    CorruptError
        If it is damaged. Without `verify` that is noticed in the header, the section table and the
        size only; damage elsewhere may give wrong neighbours, never a crash.
    ValueError
        If `mode` is unknown.

    Notes
    -----
    The file may be replaced or removed while it is open. It must not be changed or shortened in
    place: `save` never does.
    """
    if mode not in ("r", "copy"):
        raise ValueError(f"mode: expected 'r' or 'copy', got {reprlib.repr(mode)}")
    index = Index.__new__(Index)
    index._adopt(
        storage.call(
            lambda name, status: native.index_open(name, mode == "copy", bool(verify), status), path
        ),
        path,
    )
    return index


def _from_bytes(data: bytes) -> Index:
    """Make a writable index of the bytes of a file; what unpickling calls."""
    with tempfile.TemporaryDirectory(prefix="vicinal-") as folder:
        path = Path(folder, "index")
        path.write_bytes(data)
        return open(path, mode="copy")
