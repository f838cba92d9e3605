"""Tables: Arrow in memory, Parquet and Feather files, Hugging Face datasets; needs pyarrow.

Three things go wrong in other readers. `FixedSizeListArray.values` ignores a slice's offset;
`flatten` honours it but leaves null rows out, so that later rows get the ids of others; and lists
need not be of one length. Here rows that are null, hold a null or are of another length are refused
by their number, and what is left is flattened. Chunks are taken one by one: to combine them is to
copy all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from vicinal.errors import FormatError
from vicinal.vectors_io._source import (
    Array,
    Piece,
    RowError,
    VectorSource,
    extra,
    numbers_dtype,
    open_file,
    pick,
)

_BUFFER = 1 << 20  # else pyarrow holds all of a row group that it decodes a batch of

__all__ = ["from_dataset", "from_table", "open_feather", "open_parquet"]


def _pyarrow(what: str) -> Any:
    return extra("pyarrow", "arrow", what)


def _element(pa: Any, kind: Any) -> Any:
    """Return the type of the numbers in a column of vectors, None if it is no such column."""
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    types = pa.types
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        element = kind.value_type
        if types.is_floating(element) or types.is_integer(element):
            return element
    return None


def _list_size(pa: Any, kind: Any) -> int | None:
    """Return how many numbers every row of a column has, None if the type does not tell."""
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    return int(kind.list_size) if pa.types.is_fixed_size_list(kind) else None


def rows_of(pa: Any, array: Any, dim: int | None, name: str, start: int) -> Array:
    """Return a column's chunk as an array of shape (n, dim); `start` is its first row's number."""
    if isinstance(array.type, pa.BaseExtensionType):
        array = array.storage
    if array.null_count:
        row = start + _first(np.asarray(array.is_null().to_numpy(zero_copy_only=False)))
        raise RowError(f"{name}: row {row} is null", row)
    if pa.types.is_fixed_size_list(array.type):
        size = int(array.type.list_size)
        lengths = None
    else:
        offsets = array.offsets.to_numpy()
        lengths = np.diff(offsets)
        size = int(lengths[0]) if len(lengths) else dim or 0
    wanted = size if dim is None else dim
    if lengths is not None and (lengths != wanted).any():
        at = _first(lengths != wanted)
        raise RowError(
            f"{name}: row {start + at} has {lengths[at]} values, expected {wanted}", start + at
        )
    if size != wanted:
        raise RowError(f"{name}: row {start} has {size} values, expected {wanted}", start)
    values = array.flatten()
    if values.null_count:
        at = _first(np.asarray(values.is_null().to_numpy(zero_copy_only=False))) // max(wanted, 1)
        raise RowError(f"{name}: row {start + at} holds a null", start + at)
    rows: Array = values.to_numpy(zero_copy_only=True).reshape(len(array), wanted)
    return rows


def ids_of(pa: Any, array: Any, name: str, start: int) -> Array:
    """Return a column's chunk as ids: int64, or an object array of str."""
    if pa.types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    if array.null_count:
        row = start + _first(np.asarray(array.is_null().to_numpy(zero_copy_only=False)))
        raise RowError(f"{name}: row {row} has no id, it is null", row)
    if pa.types.is_integer(array.type):
        numbers: Array = array.to_numpy(zero_copy_only=False)
        if numbers.dtype == np.uint64 and (numbers >= 2**63).any():
            row = start + _first(numbers >= 2**63)
            raise RowError(f"{name}: row {row} has an id beyond int64", row)
        return numbers.astype(np.int64)
    texts = np.empty(len(array), object)
    texts[:] = array.to_pylist()
    return texts


def _first(wrong: Array) -> int:
    return int(np.flatnonzero(wrong)[0])


class _Table(VectorSource):
    """Columns of record batches that come in order from `stream(start, rows)`."""

    def __init__(
        self,
        pa: Any,
        name: str,
        schema: Any,
        count: int,
        vectors: str | None,
        ids: str | None,
        stream: Callable[[list[str], int, int], Iterator[Any]],
        format: str,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self._pa, self._batches_of, self._close = pa, stream, close
        candidates = {
            field.name: field
            for field in schema
            if _element(pa, field.type) is not None and field.name != ids
        }
        if vectors is not None and vectors in schema.names and vectors not in candidates:
            raise FormatError(
                f"{name}: column {vectors!r} is of type {schema.field(vectors).type}, expected "
                "lists of numbers"
            )
        chosen = pick(name, candidates, vectors, "column")
        self._columns = [chosen]
        if ids is not None:
            kind = schema.field(pick(name, {n: n for n in schema.names}, ids, "column")).type
            plain_kind = kind.value_type if pa.types.is_dictionary(kind) else kind
            texts = pa.types
            if not (
                texts.is_integer(plain_kind)
                or texts.is_string(plain_kind)
                or texts.is_large_string(plain_kind)
                or texts.is_string_view(plain_kind)
            ):
                raise FormatError(
                    f"{name}: column {ids!r} is of type {kind}, expected ids: integers or strings"
                )
            self._columns.append(ids)
        for column in self._columns:
            if schema.names.count(column) > 1:
                raise FormatError(f"{name}: several columns are called {column!r}")
        self.name = name
        kind = candidates[chosen].type
        dim = _list_size(pa, kind)
        if dim is None:
            dim = self._dim_of_first_row(count)
        dtype = numbers_dtype(name, np.dtype(_element(pa, kind).to_pandas_dtype()))
        super().__init__(name, count, dim, dtype, has_ids=ids is not None)
        self.format = format

    def close(self) -> None:
        self._close()

    def _dim_of_first_row(self, count: int) -> int:
        if not count:
            raise FormatError(f"{self.name}: there are no rows, so the dimension is not known")
        for batch in self._batches_of(self._columns[:1], 0, 1):
            if batch.num_rows:
                array = batch.column(0).slice(0, 1)
                return int(rows_of(self._pa, array, None, self.name, 0).shape[1])
        raise FormatError(f"{self.name}: expected {count} rows, got none")

    def _stream(self, start: int, stop: int, rows: int) -> Iterator[Piece]:
        at = start
        for batch in self._batches_of(self._columns, start, rows):
            if at >= stop:
                return
            batch = batch.slice(0, min(batch.num_rows, stop - at))
            vectors = rows_of(self._pa, batch.column(0), self.shape[1], self.name, at)
            named = None
            if len(self._columns) > 1:
                named = ids_of(self._pa, batch.column(1), self.name, at)
            at += batch.num_rows
            yield vectors, named


def from_table(source: Any, vectors: str | None, ids: str | None) -> VectorSource:
    """Take anything that gives Arrow's C stream or array; a stream that is not a table is read."""
    pa = _pyarrow("an Arrow table")
    name = type(source).__name__
    if hasattr(source, "__arrow_c_stream__"):
        table = source if isinstance(source, pa.Table) else _table_of_stream(pa, source)
    else:
        array = pa.array(source)
        table = (
            pa.Table.from_batches([pa.RecordBatch.from_struct_array(array)])
            if pa.types.is_struct(array.type)
            else pa.table({"vectors": array})
        )

    def stream(columns: list[str], start: int, rows: int) -> Iterator[Any]:
        part = table.select(columns).slice(start)
        return iter(part.to_batches(max_chunksize=rows))

    return _Table(pa, name, table.schema, table.num_rows, vectors, ids, stream, "arrow")


def _table_of_stream(pa: Any, source: Any) -> Any:
    try:
        return pa.RecordBatchReader.from_stream(source).read_all()
    except pa.ArrowInvalid:  # one column, such as a ChunkedArray or a Series
        return pa.table({"vectors": pa.chunked_array(source)})


def from_dataset(source: Any, vectors: str | None, ids: str | None) -> VectorSource:
    """Take a Hugging Face dataset; its order after `select` and `shuffle` is kept."""
    pa = _pyarrow("a dataset")
    arrow = source.with_format("arrow")

    def stream(columns: list[str], start: int, rows: int) -> Iterator[Any]:
        count = len(source)
        for first in range(start, count, rows):
            table = arrow[first : min(first + rows, count)]
            yield from table.select(columns).to_batches()

    schema = arrow[:1].schema if len(source) else source.features.arrow_schema
    return _Table(pa, "dataset", schema, len(source), vectors, ids, stream, "dataset")


def _wrapped(pa: Any, name: str, function: Callable[[], Any]) -> Any:
    try:
        return function()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{name}: {str(error).splitlines()[0][:300]}") from None


def _decoded(schema: Any) -> Any:
    """Return a schema whose names are text; UnicodeDecodeError if one is not."""
    assert all(isinstance(name, str) for name in schema.names)
    return schema


def open_parquet(path: Any, name: str, vectors: str | None, ids: str | None) -> VectorSource:
    """Open a Parquet file; row groups are decoded a batch at a time."""
    pa = _pyarrow("a Parquet file")
    parquet = extra("pyarrow.parquet", "arrow", "a Parquet file")
    file, size = open_file(path)
    try:
        reader = _wrapped(
            pa, name, lambda: parquet.ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER)
        )
        meta = reader.metadata
        for group in range(meta.num_row_groups):
            for column in range(meta.num_columns):
                chunk = meta.row_group(group).column(column)
                if not 0 <= chunk.total_compressed_size <= size:
                    raise FormatError(f"{name}: column {column} lies beyond the file")

        def stream(columns: list[str], start: int, rows: int) -> Iterator[Any]:
            groups, skip = _groups_from(meta, start)
            batches = reader.iter_batches(rows, groups, columns, use_threads=False)
            while True:
                batch = _wrapped(pa, name, lambda: next(batches, None))
                if batch is None:
                    return
                if skip >= batch.num_rows:
                    skip -= batch.num_rows
                    continue
                batch, skip = batch.slice(skip), 0
                yield batch.select(columns)

        schema = _wrapped(pa, name, lambda: _decoded(reader.schema_arrow))
        return _Table(pa, name, schema, meta.num_rows, vectors, ids, stream, "parquet", file.close)
    except BaseException:
        file.close()
        raise


def _groups_from(meta: Any, start: int) -> tuple[list[int], int]:
    """Return the row groups from that of a row on, and how many rows of the first come before."""
    for group in range(meta.num_row_groups):
        count = meta.row_group(group).num_rows
        if start < count:
            return list(range(group, meta.num_row_groups)), start
        start -= count
    return [], 0


def open_feather(path: Any, name: str, vectors: str | None, ids: str | None) -> VectorSource:
    """Open a Feather (version 2) or Arrow IPC file; record batches are read one by one."""
    pa = _pyarrow("a Feather file")
    ipc = extra("pyarrow.ipc", "arrow", "a Feather file")
    file, _ = open_file(path)
    try:
        reader = _wrapped(pa, name, lambda: ipc.open_file(file))

        def batch_at(i: int) -> Any:
            batch = _wrapped(pa, name, lambda: reader.get_batch(i))
            # offsets of a damaged file may point anywhere: pyarrow does not look by itself
            _wrapped(pa, name, lambda: batch.validate(full=True))
            return batch

        counts = [batch_at(i).num_rows for i in range(reader.num_record_batches)]

        def stream(columns: list[str], start: int, rows: int) -> Iterator[Any]:
            for i, count in enumerate(counts):
                if start >= count:
                    start -= count
                    continue
                batch = batch_at(i).select(columns)
                while start < count:
                    yield batch.slice(start, rows)
                    start += rows
                start = 0

        schema = _wrapped(pa, name, lambda: _decoded(reader.schema))
        return _Table(pa, name, schema, sum(counts), vectors, ids, stream, "feather", file.close)
    except BaseException:
        file.close()
        raise
