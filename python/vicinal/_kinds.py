"""Metrics, stored dtypes and quantizations: their names, and what the native module calls them."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = [
    "BIT_METRICS",
    "DTYPES",
    "METRICS",
    "PACKED",
    "QUANTIZATIONS",
    "STORED_DTYPES",
    "dtype_name",
    "metric_name",
    "names_of",
    "native_codes",
    "packed_dim",
    "quantization_code",
    "query_dtype",
    "row_items",
]

# Positions in METRICS and DTYPES are the codes of the native module. Any of the one goes with any
# of the other, but these of packed bits with them alone, which are uint8 to the native module.
METRICS = ("l2", "ip", "cosine")
BIT_METRICS, PACKED = ("hamming", "jaccard"), "b1"
STORED_DTYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(np.uint16),  # NumPy has no bfloat16: its bits
    "int8": np.dtype(np.int8),
    "uint8": np.dtype(np.uint8),
}
DTYPES = tuple(STORED_DTYPES)
STORED_DTYPES[PACKED] = np.dtype(np.uint8)
_BITS = 8  # of an item of packed bits
# What other libraries call metrics, in lower case and without signs between words.
_OTHER_NAMES = {
    "l2 euclidean euclid l2norm 2norm euclideandistance": (
        "; Euclidean distance is 'l2', which gives the squares: their roots are the distances"
    ),
    "sqeuclidean squaredeuclidean euclideansquared l2sq sql2 l2sqr l2squared squaredl2": (
        "; squared Euclidean distance is 'l2'"
    ),
    "ip dot dotproduct dotp inner innerproduct maxinnerproduct maximuminnerproduct mips": (
        "; the inner product is 'ip', which gives 1 - dot, so that smaller is nearer"
    ),
    "cosine cos cosinesim cosinesimil cosinesimilarity cosinedistance angular angle": (
        "; the cosine is 'cosine', which gives 1 - cos, so that smaller is nearer"
    ),
    "hammingdistance bithamming binaryhamming binary": (
        "; of packed bits (np.packbits) the distance is 'hamming', with dtype='b1'"
    ),
    "tanimoto binjaccard bitjaccard jaccarddistance jaccardindex binaryjaccard": (
        "; of packed bits (np.packbits) the distance is 'jaccard', with dtype='b1'"
    ),
    "dice sorensen sorensendice": (
        "; of packed bits (np.packbits) 'jaccard' with dtype='b1' has the same order: dice is "
        "j / (2 - j)"
    ),
}
QUANTIZATIONS = ("auto", None, "u8", "sq8", "rabitq4")


def metric_name(metric: object) -> str:
    """Return a metric's name; TypeError if it is no string, ValueError if it is unknown."""
    if isinstance(metric, str) and metric in (*METRICS, *BIT_METRICS):
        return metric
    kind = ValueError if isinstance(metric, str) else TypeError
    known = (*METRICS, *BIT_METRICS)
    hint = ""
    if isinstance(metric, str):
        plain = "".join(letter for letter in metric.lower() if letter.isalnum())
        hint = next((said for names, said in _OTHER_NAMES.items() if plain in names.split()), "")
    raise kind(f"metric: expected {_listed(known)}, got {reprlib.repr(metric)}{hint}")


def native_codes(metric: str, dtype: str) -> tuple[int, int]:
    """Return the codes of a metric and a dtype; ValueError if they do not go together."""
    if (metric in BIT_METRICS) != (dtype == PACKED):
        raise ValueError(
            f"dtype: expected {PACKED!r} with metric {_listed(BIT_METRICS)}, and only with these, "
            f"got {dtype!r} with {metric!r}"
        )
    if metric in BIT_METRICS:
        return len(METRICS) + BIT_METRICS.index(metric), DTYPES.index("uint8")
    return METRICS.index(metric), DTYPES.index(dtype)


def names_of(metric: int, dtype: int) -> tuple[str, str]:
    """Invert `native_codes`."""
    if metric >= len(METRICS):
        return BIT_METRICS[metric - len(METRICS)], PACKED
    # what lies behind the stored types are codes alone of float32: see _storage.py
    return METRICS[metric], DTYPES[dtype] if dtype < len(DTYPES) else "float32"


def packed_dim(dim: int, dtype: str) -> int:
    """Return the items of a row of `dim` values: bits are packed by eight."""
    if dtype != PACKED:
        return dim
    if dim % _BITS:
        raise ValueError(
            f"dim: expected a multiple of {_BITS} bits for dtype {PACKED!r}, got {dim}"
        )
    return dim // _BITS


def row_items(parameters: Mapping[str, Any]) -> int:
    """Return the items of a row of an index made with these parameters."""
    return packed_dim(parameters["dim"], parameters["dtype"])


def dtype_name(dtype: object) -> str:
    """Return the name of a stored dtype given by name, as NumPy dtype or as scalar type.

    Raises
    ------
    TypeError
        If it is neither a string nor a dtype.
    ValueError
        If no index can store it.
    """
    if isinstance(dtype, str) and dtype in STORED_DTYPES:
        return dtype
    wanted = f"dtype: expected {_listed(tuple(STORED_DTYPES))}, got "
    if isinstance(dtype, str):
        raise ValueError(f"{wanted}{reprlib.repr(dtype)}")
    try:
        # np.dtype(None) would be float64
        name = np.dtype(dtype).name if dtype is not None else ""  # type: ignore[call-overload]
    except TypeError:
        name = ""
    if name in DTYPES:
        return str(name)
    if name:
        raise ValueError(f"{wanted}{name!r}")
    raise TypeError(f"{wanted}{reprlib.repr(dtype)}")


def quantization_code(quantization: object, metric: str, dtype: str) -> int:
    """Return the position in QUANTIZATIONS; ValueError for a name or a combination that is none."""
    if not (quantization is None or isinstance(quantization, str)) or (
        quantization not in QUANTIZATIONS
    ):
        raise ValueError(
            f"quantization: expected {_listed(QUANTIZATIONS)}, got {reprlib.repr(quantization)}"
        )
    if quantization == "u8" and metric == "cosine":
        raise ValueError(
            'quantization: expected one for metric "cosine", got "u8", which is for l2, ip'
        )
    if dtype == PACKED and quantization not in ("auto", None):
        raise ValueError(
            f'quantization: expected "auto" or None for dtype "{PACKED}", got "{quantization}"'
        )
    if quantization in ("sq8", "rabitq4") and dtype in ("int8", "uint8"):
        raise ValueError(
            f'quantization: expected "auto", None or "u8" for dtype "{dtype}", got "{quantization}"'
        )
    return QUANTIZATIONS.index(quantization)


def query_dtype(dtype: str) -> np.dtype[Any]:
    """Return what the native code takes queries in: float32 for float indexes, else `dtype`."""
    return STORED_DTYPES[dtype if dtype in ("int8", "uint8", PACKED) else "float32"]


def _listed(values: tuple[object, ...]) -> str:
    *first, last = (repr(value) for value in values)
    return f"{', '.join(first)} or {last}"
