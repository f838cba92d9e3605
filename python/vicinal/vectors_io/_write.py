"""Files of vectors, written a batch at a time; a file appears once it is whole."""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np

from vicinal import _info
from vicinal._residence import free_memory
from vicinal.vectors_io._flat import BLOCK_FILES, ROW_FILES
from vicinal.vectors_io._open import FORMATS, format_of, read_vectors
from vicinal.vectors_io._source import Array, Piece, SeekableSource, VectorSource, buffer, extra

__all__ = ["IndexSource", "table_of", "table_of_result", "whole_file", "write_vectors"]

_TENSOR_TYPES = {
    "<f8": "F64",
    "<f4": "F32",
    "<f2": "F16",
    "<i8": "I64",
    "<i4": "I32",
    "<i2": "I16",
    "|i1": "I8",
    "|u1": "U8",
    "<u2": "U16",
    "<u4": "U32",
    "<u8": "U64",
}


@contextmanager
def whole_file(path: Any) -> Iterator[IO[bytes]]:
    """Yield a new file that takes the place of `path` at the end, or goes if anything is raised."""
    target = os.fsdecode(path)
    folder, name = os.path.split(target)
    handle, hidden = tempfile.mkstemp(prefix=f".{name}.", suffix=".part", dir=folder or ".")
    try:
        with os.fdopen(handle, "w+b") as file:
            umask = os.umask(0)
            os.umask(umask)
            os.fchmod(file.fileno(), 0o666 & ~umask)
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(hidden, target)
    except BaseException:
        os.unlink(hidden)
        raise


class IndexSource(SeekableSource):
    """The rows of an index in the order of its ids; bfloat16 comes as float32."""

    format = "index"

    def __init__(self, index: Any) -> None:
        self._index = index
        kind = np.dtype(np.float32 if index.dtype == "bfloat16" else index.dtype)
        super().__init__(
            "index",
            len(index),
            index._dim,
            kind,
            metric=index.metric,
            index_dtype=index.dtype,
            has_ids=True,
        )
        self._ids: Array = index.ids

    def batch_rows(self) -> int:
        """Return how many rows a batch has by default: fewer where memory is short."""
        most = super().batch_rows()
        if not _info.residence(self._index._handle, _info.ROWS_ON_DISK):
            return most
        return max(1, min(most, free_memory() // 16 // (self.shape[1] * self.dtype.itemsize)))

    def _no_ids(self) -> Array:
        return self._ids[:0]

    def _read(self, start: int, stop: int) -> Piece:
        ids = self._ids[start:stop]
        rows = self._index.get(ids)
        if self._index.dtype == "bfloat16":
            wide: Array = rows.astype(np.uint32) << np.uint32(16)
            rows = wide.view(np.float32)
        return rows, ids


def as_source(source: Any, ids: Any = None) -> VectorSource:
    """Return a source of an index, of another source or of whatever `read_vectors` takes."""
    from vicinal.index import Index

    if isinstance(source, Index):
        return IndexSource(source)
    return read_vectors(source, ids=ids)


def write_vectors(
    path: Any,
    source: Any,
    ids: Any = None,
    *,
    format: str | None = None,
    ids_path: Any = None,
) -> None:
    """Write vectors to a file, which replaces one of that name once it is whole.

    Parameters
    ----------
    path : str or path-like
        Its suffix tells the format, if `format` does not.
    source : Index, VectorSource or object
        An index, or what `read_vectors` takes.
    ids : array_like or str, optional
        As for `read_vectors`. An index has its own.
    format : str, optional
        One of `vectors_io.FORMATS`.
    ids_path : str or path-like, optional
        A `.npy` file for the ids, for formats that have no place for them. Without it such formats
        leave ids out. `.npz`, safetensors, Parquet, Feather and HDF5 files hold them as "ids".

    Raises
    ------
    OSError
        If the system refuses; an old file is untouched then.
    TypeError
        If the format has no such values: fvecs and fbin hold float32 (float16 is widened), bvecs
        and u8bin uint8, i8bin int8, ivecs and ibin int32.
    ValueError
        If the format is unknown.

    Notes
    -----
    Holds one or two batches at a time.
    """
    kind = format_of(path, format)
    if kind is None:
        raise ValueError(
            f"path: expected a suffix that names a format, one of {', '.join(FORMATS)}, got "
            f"{os.fsdecode(path)!r}"
        )
    opened = as_source(source, ids)
    writer = {
        "npy": _write_npy,
        "raw": _write_raw,
        "npz": _write_npz,
        "safetensors": _write_safetensors,
        "parquet": _write_parquet,
        "feather": _write_feather,
        "hdf5": _write_hdf5,
    }.get(kind)
    with whole_file(path) as file:
        if writer is not None:
            writer(file, opened)
        else:
            _write_old(file, opened, kind)
    if ids_path is not None:
        names = ids_array(opened)
        with whole_file(ids_path) as file:
            np.lib.format.write_array(file, names, allow_pickle=False)


def ids_array(source: VectorSource) -> Array:
    """Return all ids of a source as an array that can be written without pickling."""
    parts = [ids for _, ids in source.pieces() if ids is not None]
    if not parts:
        return np.arange(len(source))
    names = np.concatenate(parts)
    return names if names.dtype.kind != "O" else texts(names)


def texts(names: Array) -> Array:
    """Return strings as a NumPy array of fixed width; ValueError for what that changes."""
    fixed = names.astype(str)
    if (fixed.astype(object) != names).any():
        raise ValueError("ids: strings that end in NUL characters can be written to Parquet only")
    return fixed


def _header(file: IO[bytes], dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    little = dtype.newbyteorder("<")
    np.lib.format.write_array_header_1_0(
        file, {"descr": little.str, "fortran_order": False, "shape": shape}
    )


def _rows(file: IO[bytes], source: VectorSource) -> None:
    for vectors, _ in source.pieces():
        file.write(buffer(_little(vectors)))


def _little(array: Array) -> Array:
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<"))


def _write_npy(file: IO[bytes], source: VectorSource) -> None:
    _header(file, source.dtype, source.shape)
    _rows(file, source)


def _write_raw(file: IO[bytes], source: VectorSource) -> None:
    _rows(file, source)


def _write_npz(file: IO[bytes], source: VectorSource) -> None:
    import zipfile

    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        with archive.open("vectors.npy", "w", force_zip64=True) as member:
            _write_npy(member, source)
        if source.has_ids:
            with archive.open("ids.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, ids_array(source), allow_pickle=False)


def _write_safetensors(file: IO[bytes], source: VectorSource) -> None:
    import json

    n, dim = source.shape
    dtype = source.dtype.newbyteorder("<")
    end = n * dim * dtype.itemsize
    header: dict[str, Any] = {
        "vectors": {
            "dtype": _TENSOR_TYPES[dtype.str],
            "shape": [n, dim],
            "data_offsets": [0, end],
        }
    }
    names = ids_array(source) if source.has_ids else None
    if names is not None:
        if names.dtype.kind == "U":
            raise TypeError("ids: safetensors files hold no strings; give ids_path")
        header["ids"] = {"dtype": "I64", "shape": [n], "data_offsets": [end, end + 8 * n]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(struct.pack("<Q", len(text)) + text)
    _rows(file, source)
    if names is not None:
        file.write(buffer(_little(names)))


def _write_old(file: IO[bytes], source: VectorSource, kind: str) -> None:
    """Write fvecs, fbin and their kin."""
    dtype = np.dtype({**ROW_FILES, **BLOCK_FILES}[kind])
    if not np.can_cast(source.dtype, dtype, "safe"):
        raise TypeError(f"{kind} files hold {dtype}, got {source.dtype}")
    n, dim = source.shape
    if kind in BLOCK_FILES:
        file.write(struct.pack("<II", n, dim))
    for vectors, _ in source.pieces():
        rows = vectors.astype(dtype)
        if kind in ROW_FILES:
            table = np.empty((len(rows), 4 + dim * dtype.itemsize), np.uint8)
            table[:, :4] = np.frombuffer(struct.pack("<i", dim), np.uint8)
            table[:, 4:] = np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), -1)
            rows = table
        file.write(buffer(np.ascontiguousarray(rows)))


# ---- tables


def _schema(pa: Any, source: VectorSource, ids: Array | None) -> Any:
    fields = []
    if source.has_ids:
        text = ids is not None and ids.dtype.kind == "O"
        fields.append(pa.field("id", pa.string() if text else pa.int64(), nullable=False))
    kind = pa.list_(pa.field("element", pa.from_numpy_dtype(source.dtype), False), source.shape[1])
    return pa.schema([*fields, pa.field("vector", kind, nullable=False)])


def _record_batches(pa: Any, source: VectorSource) -> Iterator[tuple[Any, Any]]:
    """Yield the schema with every record batch; with one that is empty if there are no rows."""
    schema = None
    for vectors, ids in source.pieces():
        schema = schema or _schema(pa, source, ids)
        yield schema, _record_batch(pa, schema, vectors, ids)
    if schema is None:
        ids = source._no_ids() if source.has_ids else None
        schema = _schema(pa, source, ids)
        yield schema, _record_batch(pa, schema, np.empty(source.shape, source.dtype), ids)


def _record_batch(pa: Any, schema: Any, vectors: Array, ids: Array | None) -> Any:
    kind = schema.field("vector").type
    flat = pa.array(np.ascontiguousarray(vectors).reshape(-1))
    columns = [pa.FixedSizeListArray.from_arrays(flat, type=kind)]
    if ids is not None:
        columns.insert(0, pa.array(ids, schema.field("id").type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def table_of(source: Any) -> Any:
    """Return an index or a source as a pyarrow table of columns "id" and "vector"."""
    pa = extra("pyarrow", "arrow", "an Arrow table")
    batches = [batch for _, batch in _record_batches(pa, as_source(source))]
    return pa.Table.from_batches(batches)


def table_of_result(ids: Array, distances: Array) -> Any:
    """Return what a search found as a pyarrow table."""
    pa = extra("pyarrow", "arrow", "an Arrow table")
    ids, distances = np.atleast_2d(ids), np.atleast_2d(distances)
    queries, ranks = np.nonzero(np.isfinite(distances))
    names = ids[queries, ranks]
    return pa.table(
        {
            "query": queries,
            "rank": ranks.astype(np.int32),
            "id": pa.array(names, pa.string() if names.dtype.kind == "O" else pa.int64()),
            "distance": distances[queries, ranks],
        }
    )


def _write_parquet(file: IO[bytes], source: VectorSource) -> None:
    pa = extra("pyarrow", "arrow", "a Parquet file")
    parquet = extra("pyarrow.parquet", "arrow", "a Parquet file")
    writer = None
    try:
        for schema, batch in _record_batches(pa, source):
            if writer is None:
                # random bits do not compress, and dictionaries of them only take time
                writer = parquet.ParquetWriter(
                    file, schema, compression="zstd", use_dictionary=False
                )
            writer.write_batch(batch)
    finally:
        if writer is not None:
            writer.close()


def _write_feather(file: IO[bytes], source: VectorSource) -> None:
    pa = extra("pyarrow", "arrow", "a Feather file")
    ipc = extra("pyarrow.ipc", "arrow", "a Feather file")
    writer = None
    try:
        for schema, batch in _record_batches(pa, source):
            writer = writer or ipc.new_file(file, schema)
            writer.write_batch(batch)
    finally:
        if writer is not None:
            writer.close()


def _write_hdf5(file: IO[bytes], source: VectorSource) -> None:
    h5py = extra("h5py", "hdf5", "an HDF5 file")
    with h5py.File(file, "w") as target:
        names = {"l2": "euclidean", "cosine": "angular", "ip": "ip"}
        if source.metric:
            target.attrs["distance"] = names[source.metric]
        data = target.create_dataset("train", source.shape, source.dtype)
        at = 0
        for vectors, _ in source.pieces():
            data[at : at + len(vectors)] = vectors
            at += len(vectors)
        if source.has_ids:
            ids = ids_array(source)
            target["ids"] = ids if ids.dtype.kind != "U" else ids.astype(object)
