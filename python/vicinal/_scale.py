"""What a stored whole number of an 8-bit index is worth: floats in, whole numbers stored.

With a number as `scale` a stored u stands for u * scale: floats are divided by it when they come,
and distances and radii are those of what is stood for. With "auto", for "cosine" alone, each row is
made as large as 8 bits hold, since its length is nothing to the cosine; then there is no number to
choose and none to go back by. Integers are taken as what is stored, in both cases.

Files keep it beside the attributes (`_attributes.py`).
"""

from __future__ import annotations

import json
import math
import reprlib
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vicinal import _validate
from vicinal.errors import CorruptError

if TYPE_CHECKING:
    from vicinal._state import State

__all__ = [
    "AUTO",
    "as_stored",
    "checked",
    "in_units",
    "number_of",
    "of_text",
    "radius_of",
    "refuse_infinite",
    "without_loss",
]

AUTO = "auto"
_LEAST, _MOST = 1e-15, 1e15  # so that squares of it times sums of products are float32
_AT_ONCE = 1 << 20  # values converted at a time


def checked(scale: object, metric: str, dtype: str) -> float | str | None:
    """Return the argument `scale` of `Index`.

    Raises
    ------
    TypeError
        If it is neither a number, nor "auto", nor None.
    ValueError
        If it is out of range or does not go with the metric or the dtype.
    """
    if scale is None:
        return None
    if dtype not in ("int8", "uint8"):
        raise ValueError(
            f"scale: expected None with dtype {dtype!r}, got {reprlib.repr(scale)}: it is for "
            "'int8' and 'uint8'"
        )
    if isinstance(scale, str):
        if scale != AUTO:
            raise ValueError(f"scale: expected a number, 'auto' or None, got {scale!r}")
        if metric != "cosine":
            raise ValueError(
                f"scale: expected a number with metric {metric!r}, got 'auto', which is for "
                "'cosine'; such as the largest value of all vectors divided by "
                f"{np.iinfo(dtype).max}"
            )
        return AUTO
    number = _validate.real_number(scale, "scale")
    if not _LEAST <= number <= _MOST:
        raise ValueError(f"scale: expected a number from {_LEAST} to {_MOST}, got {number}")
    return number


def of_text(text: bytes, dtype: str, where: str) -> float | str | None:
    """Return the scale that a file holds beside its attributes, None if it has none.

    Raises
    ------
    CorruptError
        If it is none that `Index` takes.
    """
    if dtype not in ("int8", "uint8") or b'"scale"' not in text:
        return None
    try:
        found = json.loads(text)
        scale = found.get("scale")
        if scale is None or scale == AUTO:
            return scale  # type: ignore[no-any-return]
        if isinstance(scale, float) and math.isfinite(scale) and _LEAST <= scale <= _MOST:
            return scale
        raise ValueError(f"expected a number from {_LEAST} to {_MOST}")
    except (ValueError, AttributeError, RecursionError) as error:
        raise CorruptError(f"{where or 'index'}: its scale is damaged: {error}") from None


def number_of(index: State) -> float | None:
    """Return the number that stored values are multiplied by, None if there is none."""
    return index._scale if isinstance(index._scale, float) else None


def as_stored(index: State, vectors: Any, name: str = "vectors") -> Any:
    """Return vectors of floats as the whole numbers that are stored of them, others as they came.

    What is wrong with shapes is left to `as_rows`.

    Raises
    ------
    ValueError
        If a value is no finite number, or out of the range that the dtype holds.
    """
    if index._scale is None:
        return vectors
    given = _floats(index, vectors, name)
    if given is None:
        return vectors
    rows = given.reshape(-1, index._dim)
    limits = np.iinfo(index._dtype)
    stored = np.empty(rows.shape, limits.dtype)
    step = max(1, _AT_ONCE // index._dim)
    for start in range(0, len(rows), step):
        part = rows[start : start + step].astype(np.float64)
        refuse_infinite(part, name, start)
        scale = number_of(index)
        made = _fill(part, limits) if scale is None else part / scale
        np.rint(made, out=made)
        beyond = (made < limits.min) | (made > limits.max)
        if beyond.any():
            _refuse(index, part, beyond, start, name)
        if index._metric == "cosine":
            lost = part.any(axis=1) & ~made.any(axis=1)
            if lost.any():
                row = start + int(np.flatnonzero(lost)[0])
                raise ValueError(
                    f"{name}: row {row} becomes a zero vector, divided by scale={index._scale} and "
                    "rounded"
                )
        stored[start : start + step] = made
    return stored.reshape(given.shape)


def refuse_infinite(rows: NDArray[Any], name: str, start: int = 0) -> None:
    """Refuse rows, the first of them number `start`, with values that are no finite numbers."""
    finite = np.isfinite(rows)
    if not finite.all():
        row = start + int(np.flatnonzero(~finite.all(axis=1))[0])
        raise ValueError(f"{name}: row {row} holds NaN or infinity")


def _floats(index: State, vectors: Any, name: str) -> NDArray[Any] | None:
    """Return vectors if they are floats of the right shape."""
    given = _validate.as_numbers(vectors, name)
    if given.dtype.kind in "iu" or given.ndim not in (1, 2) or given.shape[-1] != index._dim:
        return None
    return given.astype(np.float32) if given.dtype.kind != "f" else given  # bfloat16


def _fill(rows: NDArray[np.float64], limits: np.iinfo[Any]) -> NDArray[np.float64]:
    """Make each row as large as fits; those that are whole numbers which fit stay as they are."""
    largest = np.abs(rows).max(axis=1, keepdims=True)
    fits = (rows == np.rint(rows)).all(axis=1, keepdims=True) & (largest <= limits.max)
    return rows * np.where(fits | (largest == 0), 1, limits.max / np.where(largest, largest, 1))


def _refuse(
    index: State, rows: NDArray[np.float64], beyond: NDArray[np.bool_], start: int, name: str
) -> None:
    row, column = np.argwhere(beyond)[0].tolist()
    value, limits, scale = rows[row, column], np.iinfo(index._dtype), number_of(index)
    if scale is None:
        raise ValueError(
            f"{name}: row {start + row} holds {value:g}, expected 0 or more for {index._dtype}"
        )
    raise ValueError(
        f"{name}: row {start + row} holds {value:g}, expected {limits.min * scale:g} to "
        f"{limits.max * scale:g}, which {index._dtype} holds with scale={scale:g}"
    )


def without_loss(index: State) -> bool:
    """Tell whether distances of stored values are those that results give."""
    return number_of(index) is None or index._metric == "cosine"


def in_units(index: State, distances: Any) -> Any:
    """Return distances of stored values, float32, as those of what they stand for."""
    if without_loss(index):
        return distances
    square = number_of(index) ** 2  # type: ignore[operator]
    far = np.asarray(distances, np.float64)
    far = far * square if index._metric == "l2" else 1 - square * (1 - far)
    return far.astype(np.float32)


def radius_of(index: State, radius: float) -> float:
    """Invert `in_units`."""
    if without_loss(index):
        return radius
    square = number_of(index) ** 2  # type: ignore[operator]
    return radius / square if index._metric == "l2" else 1 - (1 - radius) / square
