"""How many parts, and how much memory the steps of a build take."""

from __future__ import annotations

import math
import re

from vicinal import _kinds, _validate

__all__ = ["as_bytes", "join_bytes", "least_memory", "number_of_parts", "part_bytes"]

# Of fewer rows a graph is made in one piece: docs/guide/building.md has the measurements.
FEWEST_ROWS = 200_000
# Rows of a part, those that it shares with others included, where memory does not ask for fewer.
ROWS_OF_A_PART = 25_000
LEAST_ROWS_OF_A_PART = 4_000
MOST_PARTS = 65_534
COPIES = 2.4  # of a row, about: docs/guide/building.md
# Python, NumPy and the native code themselves, and blocks of rows under way.
_PROCESS = 60 << 20
_LEAST_WIDTH = 64  # fewer candidates are taken for so many by every addition
# As the native code has them (find_centre, PageUse, PartLists):
_SAMPLED = 4096  # rows at least that codes are chosen from, less than twice as many
_AROUND = 2 << 20  # bytes of a map that the system brings where one is read
_RANGE = 1 << 14  # rows whose lists are united at once
_UNEVEN = 1.3  # the largest part over the mean

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_UNITS |= {f"{unit}I": 2 ** (10 * power) for power, unit in enumerate(("K", "M", "G", "T"), 1)}


def as_bytes(memory: object) -> int:
    """Return `memory` in bytes; a string is a number and a unit: "4GB", "512 MiB"."""
    if isinstance(memory, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?I?)B?\s*", memory.upper())
        if match is None:
            raise ValueError(f'memory: expected bytes or a text like "4GB", got {memory!r}')
        return int(float(match[1]) * _UNITS[match[2]])
    return _validate.whole_number(memory, "memory", 1, 2**62)


def _row(dim: int, dtype: str) -> int:
    dim = _kinds.packed_dim(dim, dtype)
    return (dim * _kinds.STORED_DTYPES[dtype].itemsize + 63) // 64 * 64


def _code(dim: int) -> int:
    """Return the bytes of the largest code that may be chosen, with its constants."""
    return (dim + 63) // 64 * 64 + 8


def _links(M: int) -> int:
    return 4 * ((2 * ((M + 7) // 8 * 8) + 15) // 16 * 16)


def part_width(ef_construction: int, parts: int) -> int:
    """Return the candidates that a row of a part is linked from.

    A walk among the rows of a part comes as far with fewer, and the lists of two or three parts are
    united: docs/measurements/building.md has what that costs and finds.
    """
    return ef_construction if parts == 1 else max(_LEAST_WIDTH, ef_construction // 2)


def part_bytes(rows: int, dim: int, dtype: str, M: int) -> int:
    """Return what building a part takes at most."""
    # rows gathered and copied; links in the graph, handed out and numbered anew
    return _PROCESS + rows * (2 * _row(dim, dtype) + _code(dim) + 3 * _links(M) + 64)


def join_bytes(rows: int, dim: int, dtype: str, M: int, threads: int) -> int:
    """Return what joining takes at most; rows are read from a map, lists of parts from files."""
    # the table of equal rows as it grows, rows in order, rows of parts, levels, what is reached
    beside = 54 + 2 * threads
    row = _row(dim, dtype)
    sampled = rows // max(1, rows // _SAMPLED) * row
    united = int(COPIES * min(rows, _RANGE) * _links(M))
    mapped = min(rows * row, 2 * threads * _AROUND)
    whole = rows * (_code(dim) + _links(M) + beside)
    return _PROCESS + whole + max(sampled, united) + mapped


def least_memory(rows: int, dim: int, dtype: str, M: int, threads: int) -> int:
    """Return the least bound that a build of so many rows keeps."""
    smallest = min(rows, int(LEAST_ROWS_OF_A_PART * _UNEVEN))
    return max(join_bytes(rows, dim, dtype, M, threads), part_bytes(smallest, dim, dtype, M))


def is_one_piece(rows: int) -> bool:
    """Tell whether so few rows are linked in one piece where memory does."""
    return rows < FEWEST_ROWS


def parts_of_rows(rows: int) -> int:
    """Return the number of parts where memory does."""
    return 1 if is_one_piece(rows) else min(math.ceil(COPIES * rows / ROWS_OF_A_PART), MOST_PARTS)


def is_held(rows: int, dim: int, dtype: str, M: int, memory: int | None) -> bool:
    """Tell whether so few rows are linked in one piece, in memory."""
    if not is_one_piece(rows):
        return False
    return memory is None or part_bytes(rows, dim, dtype, M) <= memory


def number_of_parts(
    rows: int, dim: int, dtype: str, M: int, memory: int | None, threads: int
) -> int:
    """Return the number of parts; it depends on the rows and on the memory alone.

    Raises
    ------
    ValueError
        If the bound cannot be kept, naming one that can.
    """
    if memory is None:
        return parts_of_rows(rows)
    least = least_memory(rows, dim, dtype, M, threads)
    if memory < least:
        raise ValueError(
            f"memory: expected at least {least} bytes for {rows} rows of {dim} values, "
            f"M={M} and {threads} threads, got {memory}"
        )
    if is_held(rows, dim, dtype, M, memory):
        return 1
    a_row = part_bytes(1, dim, dtype, M) - _PROCESS
    held = int((memory - _PROCESS) / a_row / _UNEVEN)
    held = max(LEAST_ROWS_OF_A_PART, min(held, ROWS_OF_A_PART))
    return max(2, min(math.ceil(COPIES * rows / held), MOST_PARTS))
