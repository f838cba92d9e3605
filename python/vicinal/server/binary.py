"""Vectors in bodies that are not JSON: .npy arrays one behind the other, and Arrow streams.

Nothing is unpickled, and nothing is allocated that the body does not have.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from vicinal.server.problems import Problem

__all__ = ["ARROW", "NPY", "arrow_hits", "arrow_table", "metadata_of", "npy_bytes", "read_arrays"]

NPY, ARROW = "application/octet-stream", "application/vnd.apache.arrow.stream"
_HEADER = 1024  # bytes; that of an array without fields has some 100
_VERSIONS = {(1, 0): (2, npy.read_array_header_1_0), (2, 0): (4, npy.read_array_header_2_0)}


def read_arrays(body: bytes, count: int) -> list[NDArray[Any]]:
    """Return the arrays of a body that is `count` .npy files one behind the other, as views."""
    found = []
    at = 0
    for number in range(count):
        array, at = _read_array(body, at, number)
        found.append(array)
    if at != len(body):
        raise Problem(
            400, f"body: expected {count} .npy array{'s' * (count > 1)}, got bytes behind"
        )
    return found


def _read_array(body: bytes, at: int, number: int) -> tuple[NDArray[Any], int]:
    name = f"body: array {number}"
    if body[at : at + 6] != b"\x93NUMPY":
        raise Problem(400, f"{name}: expected a .npy file")
    version = tuple(body[at + 6 : at + 8])
    if version not in _VERSIONS:
        raise Problem(400, f"{name}: expected version 1.0 or 2.0 of the .npy format")
    size, read = _VERSIONS[version]
    length = int.from_bytes(body[at + 8 : at + 8 + size], "little")
    start = at + 8 + size + length
    if length > _HEADER or start > len(body):
        raise Problem(400, f"{name}: expected a header within the body")
    try:
        shape, fortran, dtype = read(io.BytesIO(body[at + 8 : start]))
    except Exception:  # what the parser of Python says of such things is of many kinds
        raise Problem(400, f"{name}: its header is none of .npy") from None
    if dtype.hasobject or dtype.names is not None or dtype.subdtype is not None:
        raise Problem(400, f"{name}: expected numbers or strings, got {dtype}"[:200])
    if any(extent < 0 for extent in shape) or len(shape) > 8:
        raise Problem(400, f"{name}: expected a shape of at most 8 extents from 0 on")
    items = 1
    for extent in shape:
        items *= extent
    end = start + items * dtype.itemsize
    if end > len(body) or (dtype.itemsize == 0 and items):
        raise Problem(400, f"{name}: the body has fewer bytes than its shape {shape} takes")
    flat = np.frombuffer(body, dtype, items, start)
    return flat.reshape(shape, order="F" if fortran else "C"), end


def npy_bytes(*arrays: NDArray[Any]) -> bytes:
    """Return arrays as .npy files one behind the other: `numpy.load` on one file, again and again.

    Object arrays of str and None become arrays of str, None the empty string.
    """
    out = io.BytesIO()
    for array in arrays:
        if array.dtype == object:
            array = np.array([each or "" for each in array.ravel()], np.str_).reshape(array.shape)
        npy.write_array(out, array, allow_pickle=False)
    return out.getvalue()


# ---- Arrow


def _arrow() -> Any:
    if find_spec("pyarrow") is None:
        raise Problem(415, "content-type: Arrow needs pyarrow, which the server does not have")
    return import_module("pyarrow")


def arrow_table(body: bytes, columns: Sequence[str], dim: int, most: int) -> dict[str, Any]:
    """Return the columns of an Arrow stream: "vector" as (n, dim), others as lists.

    Only columns of the names given may be there, and "vector" has to be. Types in which few bytes
    can stand for many values are refused, compression with them.
    """
    pa = _arrow()
    source = pa.py_buffer(body)
    try:
        for message in pa.ipc.MessageReader.open_stream(source):
            if message.type == "dictionary" or (
                message.type == "record batch" and _is_compressed(message.metadata.to_pybytes())
            ):
                raise Problem(400, "body: expected Arrow without compression and dictionaries")
        with pa.ipc.open_stream(source) as reader:
            _check_schema(pa, reader.schema, columns)
            table = reader.read_all()
            table.validate(full=True)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError, ValueError) as error:
        raise Problem(400, f"body: expected an Arrow stream: {str(error)[:200]}") from None
    if table.num_rows > most:
        raise Problem(400, f"body: expected at most {most} rows, got {table.num_rows}")
    found: dict[str, Any] = {
        name: table.column(name).to_pylist() for name in table.column_names if name != "vector"
    }
    found["vector"] = _vectors(pa, table.column("vector"), dim)
    return found


def _check_schema(pa: Any, schema: Any, columns: Sequence[str]) -> None:
    unknown = [name for name in schema.names if name not in columns]
    if unknown or "vector" not in schema.names or len(set(schema.names)) < len(schema.names):
        raise Problem(
            400, f"body: expected a column vector, and of {', '.join(columns)} each at most once"
        )
    for name in schema.names:
        kind = schema.field(name).type
        plain = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        if name != "vector" and not plain and not (name == "id" and pa.types.is_integer(kind)):
            raise Problem(400, f"{name}: expected a column of strings, got {str(kind)[:60]}")


def _is_compressed(metadata: bytes) -> bool:
    """Tell whether a record batch says that its buffers are compressed.

    Flatbuffers: a table begins with the distance back to its vtable, which has the place of each
    field from byte 4 on. The header is field 2 of a message, the compression field 3 of a batch.
    """

    def whole(at: int, size: int, signed: bool = False) -> int:
        if not 0 <= at <= len(metadata) - size:
            raise ValueError("its metadata end too early")
        return int.from_bytes(metadata[at : at + size], "little", signed=signed)

    def field_at(table: int, number: int) -> int:
        vtable = table - whole(table, 4, signed=True)
        slot = 4 + 2 * number
        place = whole(vtable + slot, 2) if slot < whole(vtable, 2) else 0
        return table + place if place else 0

    header = field_at(whole(0, 4), 2)
    return bool(header) and field_at(header + whole(header, 4), 3) != 0


def _vectors(pa: Any, column: Any, dim: int) -> NDArray[Any]:
    kind = column.type
    lists = pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind)
    if not lists and not pa.types.is_large_list(kind):
        raise Problem(400, "vector: expected a column of lists of numbers")
    if not (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)):
        raise Problem(400, "vector: expected lists of numbers")
    parts = []
    for chunk in column.chunks:
        # `flatten` leaves out rows that are null, and ids would shift
        if chunk.null_count:
            raise Problem(400, "vector: expected no nulls")
        values = chunk.flatten()
        if values.null_count:
            raise Problem(400, "vector: expected no nulls in a vector")
        lengths = chunk.value_lengths().to_numpy(zero_copy_only=False)
        if (lengths != dim).any():
            raise Problem(400, f"vector: expected lists of {dim} numbers")
        parts.append(values.to_numpy(zero_copy_only=False).reshape(-1, dim))
    return np.concatenate(parts) if parts else np.empty((0, dim), np.float32)


def arrow_hits(ids: NDArray[Any], distances: NDArray[np.float32]) -> bytes:
    """Return the results of a search as a stream of query, id, distance, nearest first."""
    pa = _arrow()
    there = np.array([each is not None for each in ids.ravel()], bool)
    queries = np.repeat(np.arange(len(ids)), ids.shape[1])[there]
    columns = {
        "query": pa.array(queries, pa.int64()),
        "id": pa.array(ids.ravel()[there].tolist(), pa.string()),
        "distance": pa.array(distances.ravel()[there], pa.float32()),
    }
    table = pa.table(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def metadata_of(values: list[Any], name: str) -> list[dict[str, Any] | None]:
    """Return metadata of a column of JSON."""
    found: list[dict[str, Any] | None] = []
    for place, value in enumerate(values):
        try:
            read = None if value is None else json.loads(value)
        except (ValueError, RecursionError):
            raise Problem(400, f"{name}: row {place}: expected JSON") from None
        if read is not None and not isinstance(read, dict):
            raise Problem(400, f"{name}: row {place}: expected an object")
        found.append(read)
    return found
