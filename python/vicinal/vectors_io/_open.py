"""From whatever holds vectors to a source of them."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from vicinal.errors import FormatError
from vicinal.vectors_io._source import Array, VectorSource, own_ids

__all__ = ["FORMATS", "format_of", "read_vectors"]

# Format by suffix. Every format reads and writes, but for "dataset", which has no file.
_SUFFIXES = {
    "npy": "npy",
    "npz": "npz",
    "raw": "raw",
    "fvecs": "fvecs",
    "bvecs": "bvecs",
    "ivecs": "ivecs",
    "fbin": "fbin",
    "u8bin": "u8bin",
    "i8bin": "i8bin",
    "ibin": "ibin",
    "safetensors": "safetensors",
    "parquet": "parquet",
    "pq": "parquet",
    "feather": "feather",
    "arrow": "feather",
    "ipc": "feather",
    "hdf5": "hdf5",
    "h5": "hdf5",
}
FORMATS = tuple(dict.fromkeys(_SUFFIXES.values()))
"""Names of the file formats."""

_MARKS = (
    (b"\x93NUMPY", "npy"),
    (b"PK\x03\x04", "npz"),
    (b"\x89HDF\r\n\x1a\n", "hdf5"),
    (b"PAR1", "parquet"),
    (b"ARROW1", "feather"),
)


def format_of(path: Any, format: str | None = None) -> str | None:
    """Return the format of a file by its name, None if the name does not tell."""
    if format is not None:
        if format not in FORMATS:
            raise ValueError(f"format: expected one of {', '.join(FORMATS)}, got {format!r}")
        return format
    return _SUFFIXES.get(os.fsdecode(path).rpartition(".")[2].lower())


def _format_inside(path: Any, name: str) -> str:
    """Return the format of a file by its first bytes."""
    with open(path, "rb") as file:
        start = file.read(8)
    for mark, format in _MARKS:
        if start.startswith(mark):
            return format
    raise FormatError(
        f"{name}: neither its name nor its first bytes tell the format; give format=, one of "
        f"{', '.join(FORMATS)}"
    )


def read_vectors(
    source: Any,
    vectors: str | None = None,
    ids: Any = None,
    *,
    format: str | None = None,
    dim: int | None = None,
    dtype: Any = None,
) -> VectorSource:
    """Open a source of vectors, without reading them.

    Parameters
    ----------
    source : str, path-like or object
        A file of one of `vectors_io.FORMATS`, told by its suffix or else by its first bytes; or an
        array, a tensor (DLPack), a buffer, an Arrow table (anything with `__arrow_c_stream__` or
        `__arrow_c_array__`), a Hugging Face dataset; or a source, which is returned.
    vectors : str, optional
        Which array, tensor, column or data set holds the vectors, where there are several. By
        default the only one that can, or the one called "vectors" or "embedding(s)"; "train" of an
        HDF5 file.
    ids : str or array_like, optional
        Ids of the rows: the name of an array or column of the same file (`.npz`, safetensors,
        HDF5, tables), the path of a `.npy` file (all others), or the ids themselves.
    format : str, optional
        One of `vectors_io.FORMATS`, whatever the file is called.
    dim, dtype : int and dtype
        For raw files only, which tell neither.

    Returns
    -------
    VectorSource
        With `shape`, `dtype` and `batches(rows)`, which yields arrays, or (vectors, ids) if ids are
        named.

    Raises
    ------
    OSError
        If the file cannot be read.
    FormatError
        If it is damaged, or its header does not fit its size.
    ImportError
        If the format needs an extra that is not installed; it is named.
    KeyError
        If there is no such array or column.
    TypeError, ValueError
        If an argument is wrong, or the source is no matrix.

    Examples
    --------
    >>> import numpy as np, vicinal
    >>> source = vicinal.read_vectors(np.eye(5, dtype="float32"))
    >>> source.shape
    (5, 5)
    >>> [batch.shape for batch in source.batches(2)]
    [(2, 5), (2, 5), (1, 5)]
    """
    if isinstance(source, VectorSource):
        return source if ids is None else source[:].with_ids(_given(ids))
    if not isinstance(source, (str, bytes, os.PathLike)):
        return _from_memory(source, vectors, ids)
    name = os.path.basename(os.fsdecode(source))
    kind = format_of(source, format) or _format_inside(source, name)
    named = ids if isinstance(ids, str) else None
    opened: VectorSource
    if kind in ("parquet", "feather"):
        from vicinal.vectors_io import _arrow

        reader = _arrow.open_parquet if kind == "parquet" else _arrow.open_feather
        opened = reader(source, name, vectors, named)
    elif kind == "hdf5":
        from vicinal.vectors_io._hdf5 import open_hdf5

        opened = open_hdf5(source, name, vectors, named)
    elif kind in ("npz", "safetensors"):
        from vicinal.vectors_io import _archive

        open_archive = _archive.open_npz if kind == "npz" else _archive.open_safetensors
        opened = open_archive(source, name, vectors, named)
    else:
        from vicinal.vectors_io._flat import open_flat

        if vectors is not None:
            raise ValueError(f"vectors: {name} holds one array, which has no name")
        opened = open_flat(source, kind, name, dim, dtype)
    if ids is None or opened.has_ids:
        return opened
    try:
        return opened.with_ids(_given(ids))
    except BaseException:
        opened.close()
        raise


def _from_memory(source: Any, vectors: str | None, ids: Any) -> VectorSource:
    named = ids if isinstance(ids, str) else None
    opened: VectorSource
    if hasattr(source, "with_format") and hasattr(source, "features"):
        from vicinal.vectors_io._arrow import from_dataset

        opened = from_dataset(source, vectors, named)
    elif hasattr(source, "__arrow_c_stream__") or hasattr(source, "__arrow_c_array__"):
        from vicinal.vectors_io._arrow import from_table

        opened = from_table(source, vectors, named)
    else:
        from vicinal.vectors_io._memory import from_object

        if vectors is not None:
            raise ValueError(f"vectors: {type(source).__name__} holds one array without a name")
        opened = from_object(source)
    return opened if ids is None or opened.has_ids else opened.with_ids(_given(ids))


def _given(ids: Any) -> Array:
    """Return ids that were given, or lie in a `.npy` file of their own."""
    if isinstance(ids, (str, bytes, os.PathLike)):
        from vicinal.vectors_io._flat import npy_header
        from vicinal.vectors_io._source import open_file

        name = os.path.basename(os.fsdecode(ids))
        if not name.endswith(".npy"):
            raise ValueError(
                f"ids: expected the path of a .npy file, since the vectors have no columns, got "
                f"{os.fsdecode(ids)!r}"
            )
        file, size = open_file(ids)
        with file:
            shape, _, dtype, offset = npy_header(name, file.read)
            if len(shape) != 1 or dtype.kind not in "iuU":
                raise FormatError(
                    f"{name}: expected ids of shape (n,), integers or strings, got {dtype} {shape}"
                )
            if size != offset + shape[0] * dtype.itemsize:
                raise FormatError(f"{name}: {size} bytes do not fit {shape[0]} ids of {dtype}")
            if not dtype.itemsize:
                return np.full(shape, "", object)
            return own_ids(np.frombuffer(file.read(size), dtype), name)
    return own_ids(ids, "ids")
