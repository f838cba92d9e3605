"""The index: one object to add vectors to, search, save and open."""

from __future__ import annotations

from typing import Any

from vicinal import _validate
from vicinal._cpu import native
from vicinal._keeping import Keeping
from vicinal._merging import Merging
from vicinal._state import PathLike
from vicinal._string_ids import id_kind
from vicinal._walking import Walking

__all__ = ["Index", "open"]

# Below this many rows a scan of all of them beats the graph, and is exact.
EXACT_BELOW = native.exact_below()


class Index(Merging, Walking, Keeping):
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
    ids : {"int64", "str"}
        What rows are named by, for good. Strings have to be given with every row; any Unicode is
        allowed, the empty string too. Results then hold `str` objects.

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

    Two indexes are equal only if they are one object, whatever they hold, and an index can be a key
    of a dictionary: it is a thing that changes, like an open file, not a value. To compare what two
    hold, compare `ids` and `get(ids)`.

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
    ) -> None:
        metric, dtype = _validate.metric_name(metric), _validate.dtype_name(dtype)
        named = id_kind(ids) == "str"
        handle = native.index_new(
            _validate.METRICS.index(metric),
            _validate.DTYPES.index(dtype),
            _validate.whole_number(dim, "dim", 1, 65536),
            _validate.whole_number(M, "M", 2, 128),
            _validate.whole_number(ef_construction, "ef_construction", 1, _validate.MAX_COUNT),
            _validate.whole_number(seed, "seed", 0, 2**63 - 1),
            EXACT_BELOW,
            _validate.quantization_code(quantization, metric, dtype),
        )
        if named:
            native.texts_use(handle)
        self._adopt(handle)

    def to_arrow(self) -> Any:
        """Return ids and vectors as a `pyarrow.Table`; needs the extra `arrow`.

        Columns "id" and "vector", a list of `dim` values in each row, in the order of `ids`.
        bfloat16 comes as float32, which holds every value of it.
        """
        from vicinal.vectors_io._write import table_of

        return table_of(self)

    def to_parquet(self, path: PathLike) -> None:
        """Write the table of `to_arrow` to a Parquet file, a batch at a time.

        The file appears once it is whole, in place of one of that name. Needs the extra `arrow`.
        """
        from vicinal.vectors_io import write_vectors

        write_vectors(path, self, format="parquet")

    def to_npy(self, path: PathLike, ids_path: PathLike | None = None) -> None:
        """Write the vectors to a `.npy` file in the order of `ids`, and the ids to another.

        A file appears once it is whole, in place of one of that name.
        """
        from vicinal.vectors_io import write_vectors

        write_vectors(path, self, format="npy", ids_path=ids_path)


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
        size only; damage elsewhere may give wrong neighbours, never a crash. A "copy" is refused
        besides if links, marks of removed rows, copies and counts contradict each other, as damage
        with right checksums may have it; with "r" the counts are compared where `len(index)` is
        relied on (`ids`, a filter, `save`).
    ValueError
        If `mode` is unknown.

    Notes
    -----
    The file may be replaced or removed while it is open. It must not be changed or shortened in
    place: `save` never does.
    """
    if isinstance(path, int):
        raise TypeError(f"path: expected str, bytes or os.PathLike, got {type(path).__name__}")
    return Index._open(path, mode, verify)
