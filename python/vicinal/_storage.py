"""What an index stores of a row and what walks read of it: the arguments, checked, as native codes.

With `keep_vectors=False` codes are all that is stored; to the native index that is a stored type
of its own, over which everything else works as over others. With `walk_dim` codes hold the first
values of a vector only, beside the whole vectors.
"""

from __future__ import annotations

import reprlib
from typing import Any, NamedTuple

import numpy as np

from vicinal import _info, _kinds, _validate

__all__ = ["CODES_ALONE", "Storage", "alone", "described", "row_bytes", "storage_of"]

# Kinds of codes that can be all there is of a row, by the code of the native module.
CODES_ALONE = {7: "sq8", 8: "sq4"}
_BITS = {"sq8": 8, "sq4": 4}
_WALKED = ("auto", "sq8", "rabitq4")  # that hold the first values of a vector


class Storage(NamedTuple):
    """The arguments of `native.index_new` about it."""

    metric: int
    dtype: int
    quantization: int
    walk_dim: int


def storage_of(
    dim: int,
    metric: str,
    dtype: str,
    quantization: object,
    keep_vectors: object,
    walk_dim: object,
) -> Storage:
    """Check `keep_vectors`, `walk_dim` and what goes with them.

    Raises
    ------
    TypeError
        If `keep_vectors` is no bool, `walk_dim` no integer.
    ValueError
        If they do not go with each other, with the dtype or with the codes asked for.
    """
    if not isinstance(keep_vectors, (bool, np.bool_)):
        raise TypeError(f"keep_vectors: expected True or False, got {reprlib.repr(keep_vectors)}")
    walked = 0
    if walk_dim is not None:
        walked = _walked(dim, dtype, quantization, bool(keep_vectors), walk_dim)
    if keep_vectors:
        if quantization == "sq4":
            raise ValueError(
                'quantization: expected "rabitq4" for 4 bits beside the vectors, got "sq4", which '
                "goes with keep_vectors=False"
            )
        code = _kinds.quantization_code(quantization, metric, dtype)
        return Storage(*_kinds.native_codes(metric, dtype), code, walked)
    if dtype != "float32":
        hint = (
            "; its vectors are as small as codes"
            if dtype in ("int8", "uint8", _kinds.PACKED)
            else "; what is given and returned is float32, other floats are converted"
        )
        raise ValueError(f"dtype: expected 'float32' with keep_vectors=False, got {dtype!r}{hint}")
    if not isinstance(quantization, str) or quantization not in ("auto", *_BITS):
        raise ValueError(
            'quantization: expected "auto", "sq8" or "sq4" with keep_vectors=False, got '
            f"{reprlib.repr(quantization)}"
        )
    bits = "sq8" if quantization == "auto" else quantization
    native = next(number for number, name in CODES_ALONE.items() if name == bits)
    return Storage(_kinds.native_codes(metric, dtype)[0], native, 0, 0)


def _walked(
    dim: int, dtype: str, quantization: object, keep_vectors: bool, walk_dim: object
) -> int:
    """Return `walk_dim` as the native index takes it: 0 for all values."""
    number = _validate.whole_number(walk_dim, "walk_dim", 1, dim)
    if not keep_vectors:
        raise ValueError(
            f"walk_dim: expected None with keep_vectors=False, got {number}: nothing is left to "
            "measure again"
        )
    if dtype not in ("float32", "float16", "bfloat16"):
        raise ValueError(f"walk_dim: expected None with dtype {dtype!r}, got {number}")
    if quantization not in _WALKED:
        raise ValueError(
            'quantization: expected "auto", "sq8" or "rabitq4" with walk_dim, got '
            f"{reprlib.repr(quantization)}"
        )
    return 0 if number == dim else number


def alone(handle: Any) -> str | None:
    """Return the kind of codes that are all a native index stores, None if it stores vectors."""
    return CODES_ALONE.get(_info.number(handle, _info.DTYPE))


def described(handle: Any) -> tuple[str, str]:
    """Return what `repr` says: arguments, and words after the number of rows."""
    kind = alone(handle)
    if kind is not None:
        named = "" if kind == "sq8" else f", quantization={kind!r}"
        return f"{named}, keep_vectors=False", ", distances estimated"
    walk_dim = _info.number(handle, _info.WALK_DIM)
    return f", walk_dim={walk_dim}" if walk_dim else "", ""


def row_bytes(kind: str, dim: int) -> int:
    """Return the bytes of a row of which codes are all that is stored."""
    return 8 + (-(-dim // 32) * 16 if _BITS[kind] == 4 else -(-dim // 16) * 16)
