"""Arguments in, arrays for the native code out, or an exception that says what was wrong.

Every message names the argument, what was wanted and what came. Nothing here changes a value in
silence: floats are rounded to nearest between float types only, integers must fit exactly.
"""

from __future__ import annotations

import math
import numbers
import operator
import reprlib
from collections.abc import Iterable
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from vicinal._kinds import PACKED, STORED_DTYPES, query_dtype
from vicinal._threads import default_threads

__all__ = [
    "Array",
    "as_array",
    "as_floats",
    "as_id",
    "as_ids",
    "as_numbers",
    "as_rows",
    "real_number",
    "refuse_repeats",
    "refuse_rows",
    "refuse_unordered",
    "search_width",
    "shown",
    "thread_count",
    "whole_number",
]

Array = np.ndarray[Any, np.dtype[Any]]

MAX_COUNT = 2**31 - 1
# Results, ids and distances, of which more than there are rows are only given if they take 1.5 GiB.
LARGE_RESULTS = 2**27
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

# Values converted at a time where temporary arrays are needed: a few MB each.
_BLOCK = 1 << 20

# What the native code answers about a batch: kind + 8 * row.
_NOT_FINITE, _ZERO, _TOO_LARGE, _NOT_BYTES, _TOO_SMALL = 1, 2, 3, 5, 6


# ---- numbers and names


def whole_number(value: object, name: str, low: int, high: int) -> int:
    """Return an integer argument as an int between `low` and `high`, both included.

    Raises
    ------
    TypeError
        If it is not an integer of Python or NumPy; True and False are not.
    ValueError
        If it is out of range.
    """
    if type(value) is int and low <= value <= high:
        return value
    wanted = f"{name}: expected a whole number from {low} to {high}, got "
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{wanted}{value}")
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{wanted}{reprlib.repr(value)}") from None
    if not low <= number <= high:
        raise ValueError(f"{wanted}{reprlib.repr(number)}")
    return number


def room_for_results(queries: int, k: int, rows: int) -> None:
    """Refuse a k whose results would be gigabytes of nothing: more than there are rows."""
    if queries * k > LARGE_RESULTS and k > rows:
        room = queries * k * 12 / 2**30
        raise MemoryError(
            f"k: expected at most {rows}, the number of rows, where results are large; {queries} x "
            f"{k} results would take {room:.1f} GiB"
        )


def search_width(ef_search: object, default: int) -> int:
    """Return the search width to use; None means the default of the index."""
    return default if ef_search is None else whole_number(ef_search, "ef_search", 1, MAX_COUNT)


def thread_count(num_threads: object) -> int:
    """Return the number of threads to use; None means as many as `get_num_threads` tells."""
    if num_threads is None:
        return default_threads()
    return whole_number(num_threads, "num_threads", 1, MAX_COUNT)


def real_number(value: object, name: str) -> float:
    """Return a real number as float; TypeError if it is none, ValueError if it is NaN."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise TypeError(f"{name}: expected a real number, got {reprlib.repr(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf if operator.gt(value, 0) else -math.inf
    if math.isnan(number):
        raise ValueError(f"{name}: expected a real number, got NaN")
    return number


# ---- vectors


def as_rows(
    data: object, name: str, dim: int, dtype: str, *, queries: bool = False
) -> tuple[Array, Array]:
    """Return vectors in the form the native code takes.

    Parameters
    ----------
    data : array_like of shape (dim,) or (n, dim)
        Real numbers; for a bfloat16 index also the bits of bfloat16 values as uint16.
    name : str
        Argument's name for messages.
    dim : int
        Dimension wanted.
    dtype : str
        Stored dtype of the index.
    queries : bool
        Convert to `query_dtype(dtype)` in place of the stored dtype.

    Returns
    -------
    rows : ndarray of shape (n, dim)
        C-contiguous and aligned, native byte order; `data` itself where it is that already.
    given : ndarray of shape (dim,) or (n, dim)
        The values before conversion, for `refuse_rows`; its rank is that of `data`.

    Raises
    ------
    TypeError
        If `data` is not an array of real numbers.
    ValueError
        If its shape is wrong, or a value does not fit an integer dtype exactly.
    """
    target = query_dtype(dtype) if queries else STORED_DTYPES[dtype]
    if type(data) is np.ndarray and data.dtype is target and data.shape[-1:] == (dim,):
        flags = data.flags
        if flags.c_contiguous and flags.aligned and data.ndim <= 2:  # what is seldom otherwise
            return data if data.ndim == 2 else data.reshape(1, dim), data
    given = as_numbers(data, name)
    if given.shape == (0,):
        given = given.reshape(0, dim)  # [] is no vector but no vectors
    if given.ndim not in (1, 2) or given.shape[-1] != dim:
        hint = ""
        if dtype == PACKED and given.ndim and given.shape[-1] == 8 * dim:
            hint = ": packed bits, as np.packbits(values > 0, axis=-1) makes them"
        raise ValueError(f"{name}: expected (n, {dim}) or ({dim},), got {given.shape}{hint}")
    if dtype == "bfloat16" and given.dtype.kind == "u" and given.dtype.itemsize == 2:
        if queries:
            given = _from_bfloat16_bits(given)
    elif dtype == "bfloat16" and not queries:
        bits = given.view(np.uint16) if _is_bfloat16(given) else _to_bfloat16_bits(given)
        return _plain(bits, target).reshape(-1, dim), given
    elif target.kind in "iu" and given.dtype != target:
        return _to_integers(given.reshape(-1, dim), target, name, dtype == PACKED), given
    return _plain(given, target).reshape(-1, dim), given


def refuse_rows(status: int, name: str, rows: Array, given: Array) -> NoReturn:
    """Raise what the native code found wrong with a batch: `status` is kind + 8 * row.

    Parameters
    ----------
    status : int
        Answer of the native call, not 0.
    name : str
        Argument's name.
    rows, given : ndarray
        As `as_rows` returned them.
    """
    kind, row = status % 8, status // 8
    where = f"{name}: row {row}"
    if kind == _NOT_FINITE:
        values = given.reshape(rows.shape)[row].astype(np.longdouble)
        if given.dtype != rows.dtype and bool(np.isfinite(values).all()):
            largest = values[np.abs(values).argmax()]
            kept = "bfloat16" if rows.dtype == np.uint16 else rows.dtype
            raise ValueError(f"{where} holds {largest:g}, beyond the range of {kept}")
        raise ValueError(f"{where} holds NaN or infinity")
    if kind == _ZERO and given.dtype != rows.dtype and given.reshape(rows.shape)[row].any():
        kept = "bfloat16" if rows.dtype == np.uint16 else rows.dtype
        raise ValueError(f"{where} is so small that it becomes a zero vector as {kept}")
    if kind == _ZERO:
        raise ValueError(f"{where} is a zero vector, which has no direction for metric 'cosine'")
    if kind == _TOO_LARGE:
        raise ValueError(
            f"{where} is too large: its squared length is above 8e37, "
            "distances would overflow float32"
        )
    if kind == _TOO_SMALL:
        raise ValueError(
            f"{where} is too small: its elements are below 1e-19 on average, not all 0: "
            "distances would fall out of float32; multiply all rows and queries by one power of two"
        )
    if kind == _NOT_BYTES:
        raise ValueError(f'{where} holds other than whole numbers from 0 to 255, which "u8" needs')
    raise RuntimeError(f"{name}: the native code answered {status}")


def as_array(data: object, name: str, wanted: str) -> Array:
    """Return any array_like as plain ndarray without converting values."""
    if isinstance(data, np.ndarray) and hasattr(data, "mask"):
        raise TypeError(f"{name}: expected {wanted}, got a masked array; fill it first")
    try:
        return np.asarray(data)
    except (TypeError, ValueError, Warning) as error:
        # what NumPy says of ragged lists; 1.23 only warns
        raise TypeError(f"{name}: expected {wanted}, got {_kind_of(data)}: {error}") from error


def as_numbers(data: object, name: str) -> Array:
    """Return an array_like of real numbers as ndarray; object arrays become float64."""
    array = as_array(data, name, "an array of real numbers")
    if array.dtype.kind in "iuf" or _is_bfloat16(array):
        return array
    if array.dtype.kind != "O" or array.ndim == 0:
        kind = _kind_of(data) if array.ndim == 0 else f"dtype {array.dtype}"
        raise TypeError(f"{name}: expected an array of real numbers, got {kind}")
    for item in array.flat:
        if not isinstance(item, numbers.Real) or isinstance(item, bool):
            raise TypeError(
                f"{name}: expected an array of real numbers, got objects such as "
                f"{reprlib.repr(item)}"
            )
    try:
        return array.astype(np.float64)
    except OverflowError:
        raise ValueError(f"{name}: holds an integer beyond the range of float64") from None


def _kind_of(data: object) -> str:
    if data is None:
        return "None"
    if isinstance(data, np.ndarray):
        return f"dtype {data.dtype}"
    return type(data).__name__


def _is_bfloat16(array: Array) -> bool:
    # by name, so that ml_dtypes need not be there
    return array.dtype.itemsize == 2 and array.dtype.name == "bfloat16"


def _plain(array: Array, target: np.dtype[Any]) -> Array:
    """Return the array as C-contiguous, aligned and native; floats are rounded to nearest."""
    if array.dtype == target and array.dtype.isnative:
        plain = np.asarray(array, order="C")
    else:
        # what overflows to infinity is reported with its row by the native check
        with np.errstate(over="ignore", invalid="ignore"):
            plain = np.asarray(array, dtype=target, order="C")
    return plain if plain.flags.aligned else plain.copy()


def _to_integers(given: Array, target: np.dtype[Any], name: str, packed: bool = False) -> Array:
    """Convert (n, dim) numbers to an integer dtype; ValueError if one does not fit exactly."""
    rows = np.empty(given.shape, dtype=target)
    step = max(1, _BLOCK // given.shape[1])
    for start in range(0, len(given), step):
        block = given[start : start + step]
        if _is_bfloat16(block):
            block = block.astype(np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            converted = block.astype(target)
        rows[start : start + step] = converted
        wrong = converted != block
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            value = block[row, column]
            if not np.isfinite(value):
                raise ValueError(f"{name}: row {start + row} holds NaN or infinity")
            limits = np.iinfo(target)
            told = name == "vectors" and value != np.rint(value)
            hint = "; Index(..., scale=) takes floats" if told and not packed else ""
            if packed and -128 <= value < 0:
                hint = "; where a model took 128 off packed bits, add it again"
            raise ValueError(
                f"{name}: row {start + row} holds {value}, expected whole numbers from "
                f"{limits.min} to {limits.max} for {target}{hint}"
            )
    return rows


def _to_bfloat16_bits(given: Array) -> NDArray[np.uint16]:
    """Round numbers to bfloat16, to nearest and ties to even, by way of float32."""
    rows = given.reshape(-1, given.shape[-1])
    bits = np.empty(rows.shape, dtype=np.uint16)
    step = max(1, _BLOCK // rows.shape[1])
    for start in range(0, len(rows), step):
        with np.errstate(over="ignore", invalid="ignore"):
            values = np.ascontiguousarray(rows[start : start + step], dtype=np.float32)
        wide = values.view(np.uint32)
        rounded = (wide + np.uint32(0x7FFF) + ((wide >> np.uint32(16)) & np.uint32(1))) >> 16
        # the rounding of a NaN may carry into its sign
        rounded[np.isnan(values)] = 0x7FC0
        bits[start : start + step] = rounded
    return bits


def as_floats(rows: Array, dtype: str) -> Array:
    """Return stored rows as numbers: bfloat16 as float32, packed bits apart, all else as it is."""
    if dtype == PACKED:
        return np.unpackbits(rows, axis=-1)
    return _from_bfloat16_bits(rows) if dtype == "bfloat16" else rows


def _from_bfloat16_bits(bits: Array) -> NDArray[np.float32]:
    wide: NDArray[np.uint32] = bits.astype(np.uint32) << np.uint32(16)
    return wide.view(np.float32)


# ---- ids


def shown(id: object) -> str:
    """Return an id as messages show it: strings in quotes, and the middle of long ones left out."""
    return reprlib.repr(id) if isinstance(id, str) else str(id)


def refuse_unordered(data: object, array: Array, name: str, wanted: str) -> None:
    """Raise TypeError for ids that NumPy takes for one thing, such as a set or a generator."""
    if array.ndim == 0 and isinstance(data, Iterable) and not isinstance(data, (str, np.ndarray)):
        kind = type(data).__name__
        raise TypeError(
            f"{name}: expected {wanted} in a list or an array, got a {kind}; list({name}) makes one"
        )


def refuse_repeats(ids: NDArray[Any]) -> None:
    """Raise ValueError if an id stands in a batch twice, naming the first that does so."""
    if len(ids) < 2:
        return
    order = np.argsort(ids, kind="stable")
    again = order[1:][ids[order[1:]] == ids[order[:-1]]]
    if len(again):
        position = again.min()
        earlier = np.flatnonzero(ids[:position] == ids[position])[0]
        raise ValueError(
            f"ids: {shown(ids[position])} stands at position {earlier} and again at {position}"
        )


def as_ids(data: object, name: str = "ids") -> NDArray[np.int64]:
    """Return ids of any shape as C-contiguous int64.

    Raises
    ------
    TypeError
        If they are not integers; floats and booleans are not.
    ValueError
        If one does not fit int64.
    """
    array = as_array(data, name, "integers")
    refuse_unordered(data, array, name, "integers")
    if array.size == 0:
        return np.empty(array.shape, np.int64)
    kind = array.dtype.kind
    if kind == "i":
        return _plain(array, np.dtype(np.int64))
    if kind == "u":
        beyond = np.flatnonzero(array > np.uint64(INT64_MAX))
        if len(beyond):
            _refuse_id(int(array.flat[beyond[0]]), name, int(beyond[0]))
        return _plain(array, np.dtype(np.int64))
    if kind != "O" and isinstance(data, np.ndarray):
        raise TypeError(f"{name}: expected integers, got dtype {array.dtype}")
    # Objects are looked at one by one: NumPy makes float64 of a list such as [-1, 2**63].
    objects = np.asarray(data, dtype=object)
    for position, item in enumerate(objects.flat):
        if not isinstance(item, numbers.Integral) or isinstance(item, bool):
            raise TypeError(
                f"{name}: expected integers, got {reprlib.repr(item)} at position {position}"
            )
        if not INT64_MIN <= int(item) <= INT64_MAX:
            _refuse_id(int(item), name, position)
    return objects.astype(np.int64)


def _refuse_id(value: int, name: str, position: int) -> NoReturn:
    raise ValueError(
        f"{name}: expected -2**63 to 2**63 - 1, got {reprlib.repr(value)} at position {position}"
    )


def as_id(value: object) -> int | None:
    """Return one id as int, None if no int64 can hold it; TypeError if it is no integer."""
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"id: expected an integer, got {value}")
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"id: expected an integer, got {reprlib.repr(value)}") from None
    return number if INT64_MIN <= number <= INT64_MAX else None
