"""The index: one object to add vectors to, search, save and open.

The methods stand in the order in which one meets them: changing, searching, files, recall, traces,
properties, statistics and checks. Each but `search` is its documentation and one call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vicinal import (
    _attributes,
    _by_path,
    _deferred,
    _export,
    _float_queries,
    _kept_filter,
    _kinds,
    _merge,
    _multi,
    _pairs,
    _persistence,
    _residence,
    _scale,
    _search,
    _stats,
    _storage,
    _trace,
    _tuning,
    _updates,
    _validate,
    _verbs,
    _why_not,
)
from vicinal._cpu import native
from vicinal._kept_filter import Filter
from vicinal._multi import MultiResult
from vicinal._pairs import DuplicateGroups, Pairs
from vicinal._progress import Report
from vicinal._state import STRING_NUMBERS, PathLike, State
from vicinal._string_ids import id_kind
from vicinal.result import RangeResult, SearchResult

if TYPE_CHECKING:
    from typing_extensions import Self

    from vicinal._deferred import Bulk
    from vicinal._trace import Trace
    from vicinal._tuning import MeasuredRecall, Tuning
    from vicinal._why_not import WhyNot
    from vicinal.vectors_io import VectorSource

__all__ = ["Index", "merge"]

Filters = ArrayLike | Filter | Sequence[ArrayLike | Filter | None] | None
Groups = ArrayLike | Mapping[Any, Any] | Callable[[NDArray[Any]], ArrayLike]
Examples = ArrayLike | Mapping[Any, float] | Sequence[ArrayLike | Mapping[Any, float]]

# Below this many rows a scan of all of them beats the graph, and is exact.
EXACT_BELOW = native.exact_below()

# For the first lines of `search`, where each look-up counts.
_ndarray = np.ndarray
_empty = np.empty
_LARGE = _validate.LARGE_RESULTS
_new_tuple = tuple.__new__  # the constructor of a NamedTuple takes half as long again
_native_search = native.index_search
_INT64 = np.dtype(np.int64)
_FLOAT32 = np.dtype(np.float32)
_READY = 0x0101  # flags.num of an array that is C-contiguous and aligned
_MAX_COUNT = _validate.MAX_COUNT


class Index(State):
    """Nearest-neighbour index over vectors held in memory or in a mapped file.

    Indexes of fewer than 1,000 rows are searched exactly, by a scan; larger ones have a graph
    (HNSW, arXiv:1603.09320). The object is ready for use as soon as it is made and grows by itself.

    Parameters
    ----------
    dim : int
        Dimension of the vectors, 1 to 65536.
    metric : {"l2", "ip", "cosine", "hamming", "jaccard"}
        Distance; see Notes. Smaller is nearer for each.
    dtype : {"float32", "float16", "bfloat16", "int8", "uint8", "b1"} or dtype
        What a value is stored as; NumPy dtypes and `ml_dtypes.bfloat16` are taken too. "b1" is for
        "hamming" and "jaccard" and only for them: bits, packed by eight as `numpy.packbits` does.
        Vectors are uint8 of dim / 8 values then; `dim` counts bits and is a multiple of 8.
    M : int
        Links per row in the graph, 2 to 128; layer 0 has room for twice as many. More links find
        more and take more memory. What is no multiple of 8 works as the next one, whose blocks of
        links take the same whole cache lines.
    ef_construction : int
        Candidates kept while a row is linked, at least 1. More makes a better graph, slower; less
        than 64, or than `M`, works as that.
    quantization : {"auto", None, "u8", "sq8", "rabitq4"}
        Which codes searches read; see Notes. With `keep_vectors=False` what is stored: "auto" or
        "sq8", 8 bits a value, or "sq4", 4 bits.
    seed : int
        Draws the graph's levels, 0 to 2**63 - 1.
    ids : {"int64", "str"}
        What rows are named by, for good. Strings have to be given with every row; any Unicode is
        allowed, the empty string too. Results then hold `str` objects.
    keep_vectors : bool
        False stores codes of the vectors and nothing else, a quarter or an eighth of the memory:
        all distances are estimates then, those of what the codes decode to, and so is what `get`
        returns. For dtype "float32".
    walk_dim : int, optional
        Searches walk on codes of the first so many values of a vector, and measure what they find
        on all of it; for embeddings whose first values say most (Matryoshka, arXiv:2205.13147). 1
        to `dim`; for float dtypes with quantization "auto", "sq8" or "rabitq4", all three metrics.
    scale : float or "auto", optional
        For dtype "int8" and "uint8": what a stored 1 is worth. Floats, rows and queries, are
        divided by it, rows are rounded, and distances are those of what stored values are worth:
        docs/guide/quantization.md. "auto", for "cosine", makes each row as large as 8 bits hold.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If a value is out of range, not one of those listed, or two do not go with each other.

    Notes
    -----
    ========== ============================ ===============================================
    metric     distance of a and b          remarks
    ========== ============================ ===============================================
    "l2"       sum((a - b)**2)              squared Euclidean: no root is taken
    "ip"       1 - sum(a * b)               below 0 for long vectors
    "cosine"   1 - sum(a * b) / (|a| |b|)   0 to 2; zero vectors are refused. Float vectors
                                            are stored at unit length
    "hamming"  bits that differ             exact
    "jaccard"  |a xor b| / |a or b|         of packed bits, 0 to 1; 0 if neither has any
    ========== ============================ ===============================================

    Distances are those of the vectors as stored, whatever codes are used; with
    `keep_vectors=False` those of what the codes decode to: docs/guide/codes-alone.md. Sums over
    int8 and uint8 are exact. A uint8 is a number, not 8 bits: packed bits are "b1".

    ============ =========================================== ====================================
    quantization codes                                       chosen by "auto" for
    ============ =========================================== ====================================
    "u8"         the values themselves in 8 bits             l2 and ip, int8 and uint8, or floats
                                                             that are all whole, 0 to 255
    "sq8"        8 bits per element, one scale per row       other floats, dim 32 to 95
    "rabitq4"    rotated, 4 bits per element (RaBitQ,        other floats, dim 96 or more
                 arXiv:2405.12497, arXiv:2409.09913)
    None         the stored vectors                          dim below 32; cosine over integers;
                                                             packed bits
    ============ =========================================== ====================================

    "auto" checks a sample and takes finer codes, or none, where these are too coarse:
    docs/guide/quantization.md.

    Two indexes are equal only if they are one object, and an index can be a key of a dictionary: it
    changes, like an open file. To compare what two hold, compare `ids` and `get(ids)`.

    After any exception the index is as it was before the call; KeyboardInterrupt may also come when
    a change is done: `len` and `in` tell.

    Threads: `search`, `get`, `in`, `len` and `ids` are safe at any time from any number of
    threads, also while vectors are added, replaced or removed. One thread at a time can be in
    `add`, `update`, `remove`, `compact`, `save`, `check` or pickling: others wait. A forked
    child may go on using the index; if another thread was writing at the moment of the fork,
    the child can only search its copy.

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

    __slots__ = ()

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
        ids: str = "int64",
        keep_vectors: bool = True,
        walk_dim: int | None = None,
        scale: float | str | None = None,
    ) -> None:
        metric, dtype = _kinds.metric_name(metric), _kinds.dtype_name(dtype)
        scale = _scale.checked(scale, metric, dtype)
        strings = id_kind(ids) == "str"
        dim = _validate.whole_number(dim, "dim", 1, 65536)
        storage = _storage.storage_of(dim, metric, dtype, quantization, keep_vectors, walk_dim)
        handle = native.index_new(
            storage.metric,
            storage.dtype,
            _kinds.packed_dim(dim, dtype),
            _validate.whole_number(M, "M", 2, 128),
            _validate.whole_number(ef_construction, "ef_construction", 1, _MAX_COUNT),
            _validate.whole_number(seed, "seed", 0, 2**63 - 1),
            EXACT_BELOW,
            storage.quantization,
            storage.walk_dim,
        )
        if strings:
            native.strings_use(handle)
        self._adopt(handle)
        if scale is not None:
            self._scale = scale
            self._keep(None)

    # ---- changing; one thread at a time can be in one of these

    def add(
        self,
        vectors: ArrayLike | VectorSource | Iterator[Any],
        ids: ArrayLike | None = None,
        *,
        on_conflict: str = "error",
        copy: bool | None = True,
        num_threads: int | None = None,
        progress: bool | Report | None = None,
    ) -> NDArray[Any]:
        """Add vectors; all of them, or none if anything is wrong with one.

        Parameters
        ----------
        vectors : array_like of shape (n, dim) or (dim,), VectorSource or iterator
            A source that `read_vectors` returned is added a batch at a time, each of them whole or
            not at all. An iterator gives batches, arrays or (vectors, ids): all are read first,
            while others may change the index, then added as if they had come in one array; an
            exception in it leaves the index as it was. Arrays are stored as they are if of the
            stored dtype. Other numbers are converted once: to a float dtype by rounding to nearest,
            to an integer dtype only if every value fits exactly, or by the `scale` of the index. A
            bfloat16 index takes uint16 as the bits of bfloat16 values, and other dtypes by value
            (through float32).
        ids : int or array_like of int, shape (n,), optional
            Any distinct int64 values that are not in the index; negative ones are allowed. By
            default the n numbers from `max(len(index), largest id + 1)` on, so that an index that
            was never given ids has 0, 1, 2, ... Ids of vectors that were removed count as well: no
            automatic id is one that the index ever had, also after it was saved, copied, compacted
            or merged. With `Index(..., ids="str")` any distinct strings, which must be given.
        on_conflict : {"error", "update", "skip"}
            What to do about ids that are in the index already: refuse the call, replace their
            vectors as `update` does, or leave them alone without a look at the new vectors. An id
            twice in `ids` is always refused.
        copy : bool or None
            True stores the vectors in memory of the index. None lets it read them where they are,
            if it can; False refuses the call if it cannot. See Notes.
        num_threads : int, optional
            Threads to use, at least 1; by default as many as `vicinal.get_num_threads` tells.
        progress : bool or callable, optional
            True draws a bar (needs tqdm). A callable is called with (rows done, rows in all), from
            the calling thread and a few times a second; an exception in it ends the call.

        Returns
        -------
        ndarray of int64, or of str as objects, shape (n,)
            The ids, also for one vector of shape (dim,), and also those that were skipped.

        Raises
        ------
        TypeError
            If vectors or ids are of the wrong kind: no real numbers, ragged, ids that are floats,
            integers where ids are strings.
        ValueError
            If a shape is wrong, a value is NaN, infinite or does not fit the stored dtype, a vector
            is zero with metric "cosine", an id is repeated or present already, string ids are
            missing, `on_conflict` is unknown, vectors cannot stay where they are with `copy=False`,
            or the index is read-only.
        MemoryError
            If memory or addresses are out, as with `update` and `remove`.

        Notes
        -----
        Vectors can stay where they are if they are the first of the index and a NumPy array that
        holds just what would be stored: of the stored dtype, C-contiguous and aligned, each of a
        multiple of 64 bytes or short (less than 256 bytes of floats, 64 of integers); not floats
        with metric "cosine". The array must not be changed as long as the index reads it, which
        keeps it alive: until a call that writes vectors has copied them (docs/guide/adding.md).

        Threads: one writer at a time, a second waits; searches go on. Calls of up to 512 rows that
        wait at the same moment, of threads other than the main one, are linked together, by as many
        threads as they would have used in all: each is added whole or refused alone.
        Source: arXiv:1603.09320, algorithms 1 and 4.
        """
        return _updates.add(self, vectors, ids, on_conflict, copy, num_threads, progress)

    def bulk(
        self,
        *,
        on_conflict: str = "error",
        num_threads: int | None = None,
        progress: bool | Report | None = None,
    ) -> Bulk:
        """Return a block that collects rows, to `add` them by one call at its end.

        An index that is filled by many calls is then built as fast as by one, and finds as much.
        `bulk.add(vectors, ids=None)` checks what it is given at once. At the end of the block all
        is added, or nothing if an exception ends it; `bulk.ids` are the ids then.

        Parameters
        ----------
        on_conflict, num_threads, progress
            As for `add`, of the call at the end. With "error" ids that are in the index are refused
            at once as well.

        Returns
        -------
        Bulk

        Raises
        ------
        ValueError
            If the index is read-only or `on_conflict` is unknown. At the end, with nothing added,
            if an id has come to be in the index meanwhile.
        MemoryError
            At the end, with nothing added: what was collected is in memory twice then.

        Notes
        -----
        Until the end `search`, `get`, `in`, `len` and `ids` know nothing of the rows.

        Threads: any number may add to one block; the index is not held until its end, so that
        others and this one may change it meanwhile.

        Examples
        --------
        >>> import numpy as np, vicinal
        >>> index = vicinal.Index(2)
        >>> with index.bulk() as bulk:
        ...     for row in np.eye(2):
        ...         bulk.add(row)
        >>> bulk.ids
        array([0, 1])
        """
        return _deferred.Bulk(self, on_conflict, num_threads, progress)

    def update(
        self,
        vectors: ArrayLike,
        ids: ArrayLike,
        *,
        num_threads: int | None = None,
        progress: bool | Report | None = None,
    ) -> None:
        """Replace the vectors of ids; all of them, or none if anything is wrong with one.

        Parameters
        ----------
        vectors : array_like of shape (n, dim) or (dim,)
            As `add` takes them.
        ids : int or array_like of int, shape (n,)
            Ids that are in the index, each once; strings with `Index(..., ids="str")`.
        num_threads, progress
            As for `add`.

        Raises
        ------
        KeyError
            If an id is not in the index.
        TypeError
            If an argument is of the wrong kind.
        ValueError
            If a shape is wrong, a vector is one that `add` would refuse, an id is repeated, or the
            index is read-only.

        Notes
        -----
        A search finds an id with its old or with its new vector, not with both. The index holds
        both until the call ends.

        Threads: one writer at a time, a second waits; searches go on.
        """
        _updates.update(self, vectors, ids, num_threads, progress)

    def remove(
        self,
        ids: ArrayLike,
        *,
        missing: str = "error",
        num_threads: int | None = None,
        progress: bool | Report | None = None,
    ) -> None:
        """Remove vectors; all of them, or none if anything is wrong with one.

        Parameters
        ----------
        ids : int or array_like of int, shape (n,)
            Ids that are in the index, each once; strings with `Index(..., ids="str")`.
        missing : {"error", "ignore"}
            What to do about ids that are not in the index: refuse the call, or leave them out.
        num_threads, progress
            As for `add`.

        Raises
        ------
        KeyError
            If an id is not in the index and `missing` is "error"; the first such id is named.
        TypeError
            If an argument is of the wrong kind.
        ValueError
            If ids have another shape or do not fit int64, an id is repeated, `missing` is unknown,
            or the index is read-only.

        Notes
        -----
        No search that begins later returns them. The index keeps its size until `compact`; later
        additions use the space (docs/guide/deleting.md).

        Threads: one writer at a time, a second waits; searches go on.
        Source: FreshDiskANN, arXiv:2105.09613.

        Examples
        --------
        >>> import vicinal
        >>> index = vicinal.Index(2)
        >>> index.add([[0, 0], [3, 4], [1, 1]])
        array([0, 1, 2])
        >>> index.remove([0, 2])
        >>> index.search([0, 0], k=2)
        SearchResult(ids=array([ 1, -1]), distances=array([25., inf], dtype=float32))
        """
        _updates.remove(self, ids, missing, num_threads, progress)

    def merge(
        self,
        other: Index,
        *,
        num_threads: int | None = None,
        progress: bool | Report | None = None,
    ) -> NDArray[Any]:
        """Add all vectors of another index under their ids; all of them, or none.

        Finds as many neighbours as `add` of the same vectors, in two thirds of the time or less.

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
        Holds a copy of the vectors of `other` while it works; with `keep_vectors=False`, which both
        need then, of what its codes decode to.
        Threads: a writer like `add`, of both: calls that change `other` wait, too. Searches go on
        in either. The result is the same for any number of threads.
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
        return _merge.merge(self, other, num_threads, progress)

    def compact(
        self, *, num_threads: int | None = None, progress: bool | Report | None = None
    ) -> None:
        """Build the index anew from the vectors that it holds, in as little memory as they need.

        The graph is that of all vectors added at once in the order of `ids`, on codes chosen anew.
        Ids and their order stay as they are; so does the text of strings that were ids once.

        Parameters
        ----------
        num_threads, progress
            As for `add`.

        Raises
        ------
        MemoryError
            If there is no memory for the new index beside the old one.
        TypeError
            If an argument is of the wrong kind.
        ValueError
            If the index is read-only.

        Notes
        -----
        Takes as long as adding all vectors again, and memory for both indexes until it is done.
        Threads: one writer at a time, a second waits; searches go on in the old index.
        """
        _updates.compact(self, num_threads, progress)

    # ---- searching; safe at any time from any number of threads

    @overload
    def search(
        self,
        queries: ArrayLike,
        k: int = 10,
        *,
        ef_search: int | None = None,
        recall: float | None = None,
        filter: Filters = None,
        num_threads: int | None = None,
        exclude: Filters = None,
        groups: Groups | None = None,
        per_group: int | None = None,
        exact: bool | None = None,
    ) -> SearchResult: ...

    @overload
    def search(
        self,
        *,
        like: Examples,
        unlike: Examples | None = None,
        k: int = 10,
        ef_search: int | None = None,
        recall: float | None = None,
        filter: Filters = None,
        num_threads: int | None = None,
        exclude: Filters = None,
        groups: Groups | None = None,
        per_group: int | None = None,
        exact: bool | None = None,
    ) -> SearchResult: ...

    # What stands behind `_only_by_name` is given by name only. Defaults of such arguments that are
    # positional all the same cost nothing; each that is not costs 10 ns in every call.
    def search(
        self,
        queries: ArrayLike | None = None,
        k: int = 10,
        _only_by_name: None = None,
        ef_search: int | None = None,
        recall: float | None = None,
        filter: Filters = None,
        num_threads: int | None = None,
        exclude: Filters = None,
        groups: Groups | None = None,
        per_group: int | None = None,
        exact: bool | None = None,
        like: Examples | None = None,
        unlike: Examples | None = None,
    ) -> SearchResult:
        """Find the k nearest vectors of each query.

        Parameters
        ----------
        queries : array_like of shape (dim,) or (n, dim)
            Converted to float32 for float indexes (rounded to nearest); C-contiguous arrays of that
            dtype are used without a copy. uint16 queries of a bfloat16 index are taken as bits.
            Integer indexes take the stored dtype, and floats, on the `scale` of the index if it has
            one: rounded they find 2 k + 16 rows, whose distances are then those of the query as it
            is (docs/guide/quantization.md).
        k : int
            Neighbours wanted, at least 1.
        ef_search : int, optional
            Candidates kept while searching, at least 1; more finds more and takes longer. At least
            `k` are kept. `index.ef_search` by default. Without effect while the index is searched
            exactly.
        recall : float, optional
            In place of `ef_search`: what `tune` found for this share of the true neighbours, from 0
            to 1. The smallest width tuned for as high a recall and as large a k,
            or higher ones, is used.
        filter : array_like of bool, int or str, Filter, or list of them, optional
            Which rows may be found: booleans of shape (len(index),) in the order of `index.ids` as
            it is now, or ids in any order, of which unknown ones stand for nothing, or what
            `Index.filter` made of either, which stays right when rows come and go. A list has one
            of these, or None, for each query; the same object for several queries is prepared once.
        num_threads : int, optional
            Threads that share the queries, at least 1; by default one for one query, else as many
            as `vicinal.get_num_threads` tells. Results do not depend on it.
        exclude : as filter, optional
            Which rows may not be found, such as those that were shown before.
        groups : array_like of int or str, shape (len(index),), callable or mapping, optional
            What each row is a part of, in the order of `index.ids`: then k groups are found, not k
            rows, and of each its `per_group` best rows. A group is as near as its nearest row. A
            function is called with arrays of ids that were met, and returns their labels; a mapping
            has a label for each id.
        per_group : int, optional
            Rows of each group, at least 1; 1 by default.
        exact : bool, optional
            True measures all rows allowed: nothing is missed.
        like, unlike : int, str, array_like of these, mapping, or list of them, optional
            In place of `queries`: ids of rows that results are to be like, and unlike. The query is
            the mean of the vectors `like`, or twice it less the mean of those `unlike`, for integer
            indexes rounded. A mapping of ids gives each its weight. A list of lists makes a batch.
            These ids are not found.

        Returns
        -------
        SearchResult
            `ids` (int64) and `distances` (float32), nearest first, equal distances in the order of
            rows; shape (k,) for one query, (n, k) for a batch, with groups k * per_group in place
            of k. There are always min(k, rows that may be found) results, or as many groups; the
            rest is id -1 and distance infinity. String ids come as an object array of `str`, with
            None in place of -1. With `keep_vectors=False` distances are estimates.

        Raises
        ------
        TypeError
            If an argument is of the wrong kind, or both `queries` and `like` are given.
        ValueError
            If a shape is wrong, a number out of range, a query holds NaN or infinity, or is zero
            with metric "cosine"; if the index was not tuned for `recall` and `k`; if two of
            `ef_search`, `recall` and `exact` are given; if booleans or groups are not as many as
            rows, or a list of filters is not as long as there are queries.
        KeyError
            If an id in `like` or `unlike` is not in the index.
        CorruptError
            If a filter is given and a mapped file does not have as many rows as it says.
        MemoryError
            If memory is out, or results for more neighbours than there are rows take gigabytes.

        Notes
        -----
        Threads: safe at any time, also while vectors are added, replaced or removed, which it never
        waits for; it sees all of a change or nothing of it. The GIL is released. While another
        thread changes the index, filter by ids or by what `Index.filter` made: booleans and groups
        fit the rows of one moment. Those made before a change mean other rows afterwards, and
        nothing tells if there are as many.
        How rows are found behind a filter: docs/guide/filtering.md.
        Sources: arXiv:1603.09320, algorithms 2 and 5; arXiv:2403.04871.
        """
        if (
            exclude is not None
            or groups is not None
            or exact is not None
            or queries is None
            or like is not None
            or per_group is not None
            or unlike is not None
        ):
            return _verbs.search(
                *(self, queries, k, ef_search, recall, filter, num_threads),
                *(exclude, groups, per_group, exact, like, unlike),
            )
        if _only_by_name is not None:
            raise TypeError("search: expected arguments after k by name, got a third without one")
        # On a small index the checks take longer than the search: those for the usual arguments
        # stand here in a row, everything else goes the long way. One more call of a function would
        # take 3 % of the time.
        if (
            type(queries) is _ndarray
            and queries.dtype is self._query_dtype
            and queries.flags.num & _READY == _READY
        ):
            rows = given = queries
            shape = queries.shape
            single = shape == self._query_shape
            if not single and (len(shape) != 2 or shape[1] != self._dim):
                rows, given = _validate.as_rows(
                    queries, "queries", self._dim, self._dtype, queries=True
                )
        else:
            if self._scale is not None or _float_queries.rounded(self, queries) is not None:
                return _verbs.search(
                    *(self, queries, k, ef_search, recall, filter, num_threads),
                    *(None, None, None, None, None, None),
                )
            rows, given = _validate.as_rows(
                queries, "queries", self._dim, self._dtype, queries=True
            )
            single = given.ndim == 1
            kept = self._kept_queries
            if kept is not None:
                kept.take(rows)
        if type(k) is not int or not 0 < k <= _LARGE:
            k = _validate.whole_number(k, "k", 1, _MAX_COUNT)
            _validate.room_for_results(1 if single else len(rows), k, len(self))
        if ef_search is None:
            if recall is None:
                ef_search = self._ef_search
            else:
                ef_search = _tuning.tuned_walk(self, recall, k)
                changes = self._changes()
        elif recall is not None:
            raise ValueError("recall: expected ef_search or recall, got both")
        elif type(ef_search) is not int or not 0 < ef_search <= _MAX_COUNT:
            ef_search = _validate.whole_number(ef_search, "ef_search", 1, _MAX_COUNT)
        n = 1
        if not single:
            n = len(rows)
            if n * k > _LARGE:
                _validate.room_for_results(n, k, len(self))
        if num_threads is None:
            num_threads = 1 if n == 1 else _validate.thread_count(None)
        elif type(num_threads) is not int or not 0 < num_threads <= _MAX_COUNT:
            num_threads = _validate.thread_count(num_threads)
        wanted = k if single else (n, k)
        ids = _empty(wanted, _INT64)
        distances = _empty(wanted, _FLOAT32)
        if filter is None:
            status = _native_search(self._handle, rows, k, ef_search, num_threads, ids, distances)
            if recall is not None and status in (0, STRING_NUMBERS):
                self._promises.answered(self, recall, k, rows, distances, changes)
        else:
            width = ef_search & _MAX_COUNT  # filters go by the width alone
            status = _search.filtered(self, rows, k, width, num_threads, filter, ids, distances)
            if status == 0 and self._strings is not None:
                status = STRING_NUMBERS
        if status:
            if status != STRING_NUMBERS:
                _validate.refuse_rows(status, "queries", rows.reshape(n, self._dim), given)
            return self._result(self._to_external(ids), distances)
        return _new_tuple(self._result, (ids, distances))

    def filter(self, allowed: ArrayLike | Callable[[NDArray[Any]], ArrayLike] | Filter) -> Filter:
        """Prepare a filter once, for any number of searches.

        Parameters
        ----------
        allowed : array_like of bool, int or str, or callable
            As `search` takes filters, or a function of `index.ids` that returns booleans. It is
            called once; ids need not be in the index yet.

        Returns
        -------
        Filter
            For `search(..., filter=...)`, `exclude=` and `range_search`. It allows the same ids
            whatever rows come and go, and combines: `a & b`, `a | b`, `~a`; `len(a)` rows.

        Raises
        ------
        TypeError, ValueError
            As `search`; also if a function returns anything else than booleans of that shape, or
            the filter is one of another index.

        Notes
        -----
        The first search after a change of the index prepares it anew.
        Threads: safe at any time.

        Examples
        --------
        >>> import numpy as np, vicinal
        >>> index = vicinal.Index(2)
        >>> _ = index.add(np.arange(12).reshape(6, 2))
        >>> even = index.filter(index.ids % 2 == 0)
        >>> index.search([0, 0], k=3, filter=even & ~index.filter([0, 5])).ids
        array([ 2,  4, -1])
        """
        return _kept_filter.prepare(self, allowed)

    def search_multi(
        self,
        tokens: ArrayLike | Sequence[ArrayLike],
        owners: Groups,
        k: int = 10,
        *,
        candidates: int | None = None,
        ef_search: int | None = None,
        exact: bool | None = None,
        filter: ArrayLike | Filter | None = None,
        num_threads: int | None = None,
    ) -> MultiResult:
        """Find the k best documents of several vectors each for a query of several vectors.

        Parameters
        ----------
        tokens : array_like of shape (t, dim) or (n, t, dim), or list of arrays of shape (t, dim)
            The vectors of one query, or of each.
        owners : array_like of int or str, shape (len(index),), callable or mapping
            The document that each row is a vector of, as `groups` of `search`.
        k : int
            Documents wanted, at least 1.
        candidates : int, optional
            Nearest documents that each vector of a query brings in; 8 k, at least 64, by default.
        ef_search, exact, num_threads
            As for `search`, which finds the candidates.
        filter : array_like of bool, int or str, or Filter, optional
            Rows that count; one for all queries.

        Returns
        -------
        MultiResult
            `owners` and `scores`, best first; shape (k,) for one query, (n, k) for several.

        Raises
        ------
        TypeError, ValueError
            As `search`; also if a query has no vector, or the index changes meanwhile.

        Notes
        -----
        A document's score is MaxSim (ColBERT, arXiv:2004.12832): for each vector of the query the
        largest similarity among those of the document, added up; the cosine, the inner product, or
        less the squared distance for "l2". Candidates get their exact score, on vectors as stored
        (an estimate with `keep_vectors=False`):
        a document is missed only if no vector of the query has it among its `candidates` nearest.
        Threads: as for `search`.

        Examples
        --------
        >>> import vicinal
        >>> index = vicinal.Index(2, "ip")
        >>> _ = index.add([[1, 0], [0, 1], [2, 0], [0.5, 0.5]])
        >>> index.search_multi([[1, 0], [0, 1]], owners=["a", "a", "b", "b"], k=2)
        MultiResult(owners=array(['b', 'a'], dtype=object), scores=array([2.5, 2. ], dtype=float32))
        """
        return _multi.search_multi(
            *(self, tokens, owners, k, candidates, ef_search, exact, filter, num_threads)
        )

    def range_search(
        self,
        queries: ArrayLike,
        radius: float,
        *,
        ef_search: int | None = None,
        filter: Filters = None,
        num_threads: int | None = None,
    ) -> RangeResult:
        """Find all vectors within a distance of each query.

        Parameters
        ----------
        queries : array_like of shape (dim,) or (n, dim)
            As for `search`.
        radius : float
            Largest distance that counts, rounded to float32, on the scale of the metric: squared
            for "l2". Infinity means all rows.
        ef_search : int, optional
            Candidates kept on the way to the query, at least 1; `index.ef_search` by default. More
            finds more where few rows are within the radius; where these are fewer than 48, as many
            candidates are kept at least.
        filter : array_like of bool, int or str, Filter, or list of them, optional
            As for `search`.
        num_threads : int, optional
            As for `search`.

        Returns
        -------
        RangeResult
            `ids` (int64) and `distances` (float32) of all queries, nearest first for each, and
            `offsets` (int64, shape (n + 1,)) that say where each query's part begins; `of(i)` is
            the part of query i. With `keep_vectors=False` distances, and so who is within the
            radius, are estimates.

        Raises
        ------
        TypeError
            If an argument is of the wrong kind.
        ValueError
            As `search`; also if the radius is NaN.
        CorruptError
            As `search`.
        MemoryError
            If the result does not fit memory.

        Notes
        -----
        Exact where the index is searched exactly, and where more than an eighth of all rows is
        found; docs/guide/filtering.md says how many of the rows are found elsewhere.
        Threads: as for `search`.

        Examples
        --------
        >>> import vicinal
        >>> index = vicinal.Index(2)
        >>> index.add([[0, 0], [3, 4], [1, 1]])
        array([0, 1, 2])
        >>> index.range_search([[0, 0], [3, 3]], 2.0).of(0)
        SearchResult(ids=array([0, 2]), distances=array([0., 2.], dtype=float32))
        """
        return _search.range_search(self, queries, radius, ef_search, filter, num_threads)

    def pairs(
        self,
        radius: float,
        *,
        ef_search: int | None = None,
        exact: bool | None = None,
        filter: Filters = None,
        num_threads: int | None = None,
    ) -> Pairs:
        """Find all pairs of rows within a distance, each once.

        Parameters
        ----------
        radius : float
            As for `range_search`.
        ef_search : int, optional
            As for `range_search`.
        exact : bool, optional
            True measures all pairs.
        filter : array_like of bool, int or str, or Filter, optional
            Rows to look at, as for `search`; one for all.
        num_threads : int, optional
            As for `add`.

        Returns
        -------
        Pairs
            Iterate over it for triples (id, id, distance), over `batches()` for arrays of these;
            `arrays()` and `to_pandas()` have all at once. `share_found` tells, when asked, which
            share of the true pairs that is. No row is a pair with itself; equal rows are. With
            `keep_vectors=False` distances, and so who is a pair, are estimates.

        Raises
        ------
        TypeError, ValueError
            As `range_search`.

        Notes
        -----
        Takes a range search for each row, some at a time: memory does not grow with the pairs.
        With "cosine" equal rows may be some 1e-7 apart by rounding: let `radius` be 1e-6 or more.
        Threads: safe at any time; rows that are removed on the way are left out, those that are
        added may be found or not.

        Examples
        --------
        >>> import vicinal
        >>> index = vicinal.Index(2)
        >>> _ = index.add([[0, 0], [3, 4], [1, 0], [3, 5]])
        >>> list(index.pairs(1.5))
        [(0, 2, 1.0), (1, 3, 1.0)]
        """
        return _pairs.pairs(self, radius, ef_search, exact, filter, num_threads)

    def duplicates(
        self,
        radius: float,
        *,
        ef_search: int | None = None,
        exact: bool | None = None,
        filter: Filters = None,
        num_threads: int | None = None,
    ) -> DuplicateGroups:
        """Put rows within a distance of each other into groups.

        Parameters
        ----------
        radius, ef_search, exact, filter, num_threads
            As for `pairs`.

        Returns
        -------
        list of ndarray
            The ids of each group of two rows or more, in the order of rows; groups in the order of
            their first rows. Its attribute `share_found` is the share of the true pairs that was
            found, measured on 256 rows.

        Raises
        ------
        TypeError, ValueError
            As `pairs`.

        Notes
        -----
        A group is what a chain of pairs leads to: its ends may be farther apart than `radius`. With
        `keep_vectors=False` distances, and so who is a pair, are estimates.
        Takes `pairs`, and 24 bytes for each row.
        Threads: as for `pairs`.

        Examples
        --------
        >>> import vicinal
        >>> index = vicinal.Index(2)
        >>> _ = index.add([[0, 0], [3, 4], [1, 0], [3, 5], [9, 9]])
        >>> index.duplicates(1.5)
        [array([0, 2]), array([1, 3])]
        """
        return _pairs.duplicates(self, radius, ef_search, exact, filter, num_threads)

    def get(self, ids: ArrayLike) -> NDArray[Any]:
        """Return stored vectors.

        Parameters
        ----------
        ids : int or array_like of int, shape (n,)
            Ids, in any order, repeats allowed; strings with `Index(..., ids="str")`.

        Returns
        -------
        ndarray of shape (dim,) for one id, (n, dim) for several
            New array of the stored dtype; bfloat16 values as their bits in uint16. With metric
            "cosine" float vectors come back at unit length, as they are stored. With a `scale` they
            stand for `get(ids) * index.scale`. With `keep_vectors=False` what the codes decode to,
            near the vectors that were added.

        Raises
        ------
        KeyError
            If an id is not in the index.
        TypeError
            If ids are not integers, or not strings where ids are.
        ValueError
            If they have another shape or do not fit int64.

        Notes
        -----
        Threads: safe at any time, also while vectors are added, replaced or removed.
        """
        return _search.get(self, ids)

    def vectors(self, batch_size: int = 1024) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Go through all rows in the order of `ids`, a batch at a time.

        Parameters
        ----------
        batch_size : int
            Rows of a batch, at least 1; the last one has what is left.

        Yields
        ------
        ids : ndarray of shape (n,)
            As `ids` gives them.
        vectors : ndarray of shape (n, dim)
            As `get` gives them; new for every batch.

        Raises
        ------
        CorruptError
            As `ids`.

        Notes
        -----
        The rows are those that there are at the first batch; one that is gone when its batch comes
        is left out.
        Threads: safe at any time, also while vectors are added.
        """
        return _search.batches(self, batch_size)

    # ---- files, copies, pickles

    def save(self, path: PathLike, *, force: bool = False) -> None:
        """Write the index to one file, which replaces a file of that name only once it is whole.

        Parameters
        ----------
        path : str or path-like
            May be the file that this index was opened from.
        force : bool
            Replace the file whatever it holds by now.

        Raises
        ------
        OSError
            If the system refuses; an old file is untouched then and no other is left behind.
        ConflictError
            If the file that this index was opened from has been replaced by somebody else since; if
            the file has a journal with changes (docs/guide/living.md).
        CorruptError
            If this index is a mapped file that does not have as many rows as it says.

        Notes
        -----
        The file holds everything, `ef_search` included, and is on the disk when the call returns.
        Threads: a writer like `add`; searches go on.

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
        _persistence.save(self, path, force)

    def to_bytes(self) -> bytes:
        """Return what `save` would write, for whoever keeps it elsewhere.

        Raises
        ------
        CorruptError
            As `save`.

        Notes
        -----
        Threads: a writer like `add`; searches go on.
        """
        return _persistence.to_bytes(self)

    @classmethod
    def from_bytes(cls, data: bytes | bytearray | memoryview) -> Self:
        """Return an index in memory of the bytes of a file; it can be changed.

        Raises
        ------
        TypeError
            If `data` is no bytes.
        FormatError, CorruptError
            As `open` with mode="copy".

        Notes
        -----
        Threads: safe at any time.

        Examples
        --------
        >>> import vicinal
        >>> index = vicinal.Index(2)
        >>> _ = index.add([[0, 0], [3, 4]])
        >>> vicinal.Index.from_bytes(index.to_bytes()).search([3, 3], k=1).ids
        array([1])
        """
        return _persistence.from_bytes(cls, data)

    def to_npy(self, path: PathLike, ids_path: PathLike | None = None) -> None:
        """Write the vectors to a `.npy` file in the order of `ids`, and the ids to another.

        A file appears once it is whole, in place of one of that name. `vicinal.write_vectors`
        writes other formats.

        Notes
        -----
        Threads: safe at any time; rows that are removed meanwhile are an error.
        """
        _export.to_npy(self, path, ids_path)

    def to_parquet(self, path: PathLike) -> None:
        """Write the table of `to_arrow` to a Parquet file, a batch at a time.

        The file appears once it is whole, in place of one of that name. Needs the extra `arrow`.

        Notes
        -----
        Threads: safe at any time; rows that are removed meanwhile are an error.
        """
        _export.to_parquet(self, path)

    def to_arrow(self) -> Any:
        """Return ids and vectors as a `pyarrow.Table`; needs the extra `arrow`.

        Columns "id" and "vector", a list of `dim` values in each row, in the order of `ids`.
        bfloat16 comes as float32, which holds every value of it.

        Notes
        -----
        Threads: safe at any time; rows that are removed meanwhile are an error.
        """
        return _export.to_arrow(self)

    def copy(self) -> Self:
        """Return an independent copy in memory that can be changed, also of a read-only index.

        The copy holds everything that `save` writes, and attributes of a subclass, as pickles do.
        `copy.copy` does the same; `copy.deepcopy` copies those attributes deeply.

        Raises
        ------
        OSError
            If the system refuses, for instance because memory is out.
        CorruptError
            If this index is a mapped file that contradicts itself, as `open` with mode="copy".

        Notes
        -----
        Takes memory for two copies while it works.
        Threads: a writer like `add`; searches go on.
        """
        return _persistence.copy_of(self)

    def __copy__(self) -> Self:
        return self.copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return _persistence.deep_copy_of(self, memo)

    def __reduce__(self) -> tuple[Any, ...]:
        if self._by_path is not None:
            return _by_path.reduced(self)
        # A pickle holds the bytes of a file, so there is one format to check and to keep readable.
        made = (type(self)._from_bytes, (_persistence.to_bytes(self),))
        attributes = _persistence.own_attributes(self)
        return made if attributes is None else (*made, attributes)

    @classmethod
    def _from_bytes(cls, data: bytes) -> Self:
        """Make a writable index of the bytes of a file; what pickles of every release call."""
        return _persistence.from_bytes(cls, data)

    # ---- recall

    def tune(
        self,
        recall: float = 0.95,
        k: int = 10,
        queries: ArrayLike | None = None,
        *,
        sample: int = 1000,
        num_threads: int | None = None,
    ) -> Tuning:
        """Find the least work that reaches a recall, and keep it for `search(recall=...)`.

        Parameters
        ----------
        recall : float
            Share of the true k neighbours that searches are to find on average, above 0, at most 1.
        k : int
            Neighbours wanted, at least 1.
        queries : array_like of shape (n, dim) or (dim,), optional
            Queries as they will come. By default those of `keep_queries`; without them queries are
            assumed: stored rows, moved as far as their neighbours are. On real sets these are
            harder than real queries; queries of another kind than the rows have to be given.
        sample : int
            Queries to measure, at least 1; all if there are no more.
        num_threads : int, optional
            As for `add`.

        Returns
        -------
        Tuning
            Its `ef_search` is the least width, above 100 to within 1 %, whose **mean** recall over
            the sample reaches `recall`, and `queries` says which kind of queries that were. About
            half of the fresh samples of such queries will be a little below, by as much as the
            interval in `measured` says; ask for a little more to be sure. Where walks that end by
            distance reach the same with at least 10 % fewer distances, `held` and `far` say when.

        Raises
        ------
        TypeError, ValueError
            As `measure_recall`; also if `recall` is no number above 0 and at most 1.

        Notes
        -----
        Any recall can be reached. Tunings for several recalls and k are kept side by side and saved
        with the index; one of the same recall and k is replaced. They may be made of a read-only
        index. `stats()` says when they have become stale. With `keep_vectors=False` true neighbours
        are those by estimates.
        Threads: waits for a writer, and writers wait for it; searches go on.
        """
        return _tuning.tune(self, recall, k, queries, sample, num_threads)

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
            Queries as they will come. By default those of `keep_queries`, without them stored rows,
            each of which looks for its k nearest others. Rows are often easier to find than the
            neighbours of new queries, so give real queries where there are some.
        k : int
            Neighbours wanted, at least 1.
        sample : int
            Queries to measure, at least 1; all if there are no more. Which ones does not depend on
            chance: the same call measures the same.
        ef_search : int, optional
            Width to measure; `index.ef_search` by default.
        num_threads : int, optional
            As for `add`.

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
        Takes `sample` exact searches: each measures all rows. Ends on Ctrl-C. With
        `keep_vectors=False` true neighbours are those by estimates: what the codes lose is not
        counted.
        Threads: waits for a writer, and writers wait for it; searches go on. A progress function
        may ask, too.
        """
        return _tuning.measure_recall(self, queries, k, sample, ef_search, num_threads)

    def keep_queries(self, count: int = 1000) -> None:
        """Keep a sample of the queries that `search` is asked from now on, for `tune`.

        Parameters
        ----------
        count : int
            Queries to keep at most; 0 keeps none any more and forgets those there are. Each of the
            queries so far is kept with equal probability.

        Raises
        ------
        TypeError, ValueError
            If it is no whole number from 0 on.

        Notes
        -----
        `tune` and `measure_recall` use the sample once it has 100 queries. Files, copies and
        pickles carry it, at `dim` values a query, and an index that was opened with one goes on
        with it. A call of `search` takes some microseconds longer.
        Threads: safe at any time.

        Examples
        --------
        >>> import numpy as np, vicinal
        >>> rng = np.random.default_rng(0)
        >>> index = vicinal.Index(8)
        >>> _ = index.add(rng.standard_normal((2000, 8)))
        >>> index.keep_queries(500)
        >>> _ = index.search(rng.standard_normal((300, 8)))
        >>> tuning = index.tune(recall=0.95)
        >>> tuning.queries, tuning.measured.sample
        ('kept', 300)
        """
        _tuning.keep_queries(self, count)

    @property
    def tuned(self) -> tuple[Tuning, ...]:
        """What `tune` has found, oldest first.

        Raises
        ------
        CorruptError
            If the index lies in a damaged file.
        """
        return _tuning.tunings(self)

    # ---- how a search went

    def trace(
        self,
        query: ArrayLike,
        k: int = 10,
        *,
        ef_search: int | None = None,
        recall: float | None = None,
    ) -> Trace:
        """Search for one query and tell every step of the walk.

        Parameters
        ----------
        query : array_like of shape (dim,)
            As `search` takes it.
        k : int
            Neighbours wanted, at least 1.
        ef_search : int, optional
            Search width; `index.ef_search` by default.
        recall : float, optional
            In place of `ef_search`, as `search` takes it.

        Returns
        -------
        Trace
            Iterate over it for the steps; its `result` is what `search` finds. An index that is
            searched exactly has a trace of one step. Takes some 24 bytes for each distance. With
            `keep_vectors=False` all distances are estimates.

        Raises
        ------
        TypeError, ValueError
            As `search`; also for more than one query.

        Notes
        -----
        Threads: safe at any time, also during `add`.
        """
        return _trace.trace(self, query, k, ef_search, recall)

    def why_not(
        self, query: ArrayLike, id: Any, k: int = 10, *, ef_search: int | None = None
    ) -> WhyNot:
        """Tell what became of one row in a search: where it was lost, or that it was found.

        Parameters
        ----------
        query : array_like of shape (dim,)
            As `search` takes it.
        id : int or str
            A row of the index.
        k : int
            Neighbours wanted, at least 1.
        ef_search : int, optional
            Search width; `index.ef_search` by default.

        Returns
        -------
        WhyNot
            `str()` of it says it in English. With `keep_vectors=False` its distances are estimates.

        Raises
        ------
        KeyError
            If the id is not in the index.
        TypeError, ValueError
            As `trace`.

        Notes
        -----
        Takes a trace and an exact search; if the row is missing, also searches with twice the
        `ef_search`, again and again until one finds it. Threads: waits for a writer, and writers
        wait for it, so that all it tells is of one moment; a progress function may ask, too.
        """
        return _why_not.why_not(self, query, id, k, ef_search)

    # ---- properties; `len` is the number of rows

    @property
    def dim(self) -> int:
        """Dimension of the vectors; bits with dtype "b1"."""
        return self._dim * 8 if self._dtype == _kinds.PACKED else self._dim

    @property
    def metric(self) -> str:
        """Name of the distance: "l2", "ip", "cosine", "hamming" or "jaccard"."""
        return self._metric

    @property
    def dtype(self) -> str:
        """What a value is stored as: "float32", "float16", "bfloat16", "int8", "uint8" or "b1"."""
        return self._dtype

    @property
    def scale(self) -> float | str | None:
        """What a stored 1 of int8 or uint8 is worth, "auto", or None; `get(ids) * scale`."""
        return self._scale

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
    def attributes(self) -> Mapping[str, Any]:
        """What its user says about the index: a small JSON object that files keep, empty at first.

        For instance the model that made the vectors, and how queries must be prepared. What is
        returned cannot be changed; a new object is set as a whole:
        `index.attributes = {**index.attributes, "model": "all-MiniLM-L6-v2"}`.

        Raises
        ------
        TypeError, ValueError
            If what is set is no mapping with strings as keys, holds what JSON cannot (NaN neither),
            takes more than a MiB, or the index is read-only.
        CorruptError
            If the index lies in a damaged file.
        """
        return _attributes.attributes(self)

    @attributes.setter
    def attributes(self, value: Mapping[str, Any]) -> None:
        _attributes.set_attributes(self, value)

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
    def ids(self) -> NDArray[Any]:
        """Ids of all rows in their order, a new array of shape (len(self),).

        int64; string ids as an object array of `str`. Rows are in the order in which they were
        added, except that rows may take the places of removed ones.

        Raises
        ------
        CorruptError
            If a mapped file does not have as many rows as it says.
        """
        return self._to_external(self._internal_ids())

    def __repr__(self) -> str:
        return _stats.describe(self)

    # ---- statistics and checks

    def stats(self) -> dict[str, Any]:
        """Tell what the index is and how it answers.

        Returns
        -------
        dict
            `count` (rows), `dim`, `metric`, `dtype`, `M`, `ef_construction`, `ef_search`, `seed`,
            `read_only`; `search`, "exact" or "graph": how a search of the default width is answered
            now; `exact_below`, the number of rows from which on the graph is built; `graph_rows`
            and `max_level` of the graph; `removed`, rows that were removed and are not in use
            again, which `compact` gives back; `keep_vectors`; `distances`, "of the vectors", or
            "estimated" where codes are all that is stored; `walk_dim`, None for all values;
            `quantization`, what the graph is walked on, and `quantization_reason`, why; `ids`,
            "int64" or "str"; `tuned`, what `tune` has found, and `tuning_stale`, True if the number
            of rows has more than doubled or halved since one of these; `promises`, what
            `search(recall=)` found when it looked: for each recall and k that were asked for how
            many queries were searched exactly as well (`looked_at`, one of 1,000, or of a tenth as
            many as there are rows, the latest 200), the share of the true neighbours `found`, its
            95 % interval `low` to `high`, and `kept`, False if all of that is below the recall,
            None below 30 queries; `format_version`, that of the file `save` writes; `resident`,
            what of the file stays in memory, see `vicinal.open`; `reads`, what searches read from
            disk `for` ("nothing", "re-ranking", or "every hop" where the vectors themselves are
            walked on), `by` what means ("uring", "advise", "fault", or None without anything to
            read), and how many `requests` and `bytes` they have asked for; and `filtered`, how many
            queries with a filter were answered since the index was made or opened by a `scan` of
            the allowed rows, by the usual `beam`, by a `two_hop` walk over allowed rows alone, and
            how many of those scans came after a walk (`scan_after_walk`).

        Notes
        -----
        Threads: safe at any time.
        """
        return _stats.stats(self)

    def build_stats(self) -> dict[str, Any]:
        """Tell what changes of the index have done and taken since it was made or opened.

        Returns
        -------
        dict
            `rows` linked, in `rounds`; `distances` and `hops` of the walks that looked for
            neighbours, `selections` of links, `prunes` of full lists; `blocks` of links that were
            looked at for links to removed rows; and `seconds` by phase:
            "store" (rows are checked and copied), "encode" (codes are chosen, made, tried), "sort"
            (equal rows are told from others), "search" (rows find their links), "link_back" (those
            found link to them), "fill" (free slots are filled) and "repair" (links to rows that go
            are taken out, all others made reachable). Changes that were refused or stopped count.

        Notes
        -----
        Threads: safe at any time.
        """
        return _stats.build_stats(self)

    def search_stats(self) -> dict[str, int]:
        """Tell what searches of all kinds have done since the index was made or opened.

        Returns
        -------
        dict
            `queries` answered; `walks` on the graph and `scans` of rows begun for them (a query
            takes one of either, or more if too much of what it met is not to be shown); `distances`
            measured and `hops` made, those of additions among them.

        Notes
        -----
        Threads: safe at any time; searches under way may be counted in part.
        """
        return _stats.search_stats(self)

    def memory_usage(self) -> dict[str, int]:
        """Tell how many bytes the index holds, by part.

        Returns
        -------
        dict
            `vectors`, `ids` (with the table that finds them and, once something was removed, the
            tombstones), `id_strings` (likewise; 0 for integer ids), `graph`, `codes`, both with
            those that were replaced and are kept for searches under way, `scratch` (what searches
            and additions work with, kept for the next) and `total`, room to grow included; beside
            these `borrowed`: bytes of vectors that `add(copy=None)` or `copy=False` has left where
            the caller has them. For a read-only index these are parts of the file, of which the
            system keeps in memory what is used: `resident` is what is there now, `locked` what
            of it cannot be dropped, `disk` what is not there. To find that out takes some
            milliseconds a gigabyte.

        Notes
        -----
        Threads: safe at any time.
        """
        return _stats.memory_usage(self)

    def warmup(self) -> None:
        """Read into memory what is to stay there of an opened file, so that no search has to wait.

        That is all of the file, or all but the vectors for an index opened with resident="walk" or
        "none". Nothing is locked by it. An index that is not read-only is in memory already.

        Notes
        -----
        Uses all cores and ends on Ctrl-C. Threads: safe at any time.
        """
        _residence.warm_up(self._handle)

    def check(self) -> None:
        """Check what must hold of the graph; for tests and after a suspicion.

        Reads all links and rows, which takes about as long as a few thousand searches.

        Raises
        ------
        RuntimeError
            Naming the first rule that is broken.

        Notes
        -----
        Threads: waits for a writer; searches go on.
        """
        _stats.check(self)

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
        _stats.verify(self)


_verbs.by_name_only(Index.search)


def merge(*indexes: Index, num_threads: int | None = None) -> Index:
    """Return a new index with the vectors of several, under their ids.

    Parameters
    ----------
    *indexes : Index
        Two or more, of the same dim, metric, dtype and kind of ids, with no id in two of them. None
        is changed. The result has the parameters of the first, to a copy of which the vectors of
        the others are added as `Index.merge` does, one index after the other; if all have the same
        parameters, the largest takes the place of the first. So each row is linked anew once at
        most, however many indexes there are.
    num_threads : int, optional
        As for `Index.add`.

    Returns
    -------
    Index

    Raises
    ------
    TypeError, ValueError
        As `Index.merge`; also if there are fewer than two, or one comes twice.

    Notes
    -----
    Threads: the indexes may be searched at any time; calls that change them wait.
    """
    if len(indexes) < 2:
        raise TypeError(f"indexes: expected at least two, got {len(indexes)}")
    first, *others = _merge.in_order(indexes)
    merged = first.copy()
    for other in others:
        merged.merge(other, num_threads=num_threads)
    return merged
