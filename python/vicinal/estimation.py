"""What an index will take before there is one: bytes in memory and on disk, seconds to build."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from vicinal import _kinds, _validate
from vicinal._storage import CODES_ALONE, row_bytes, storage_of
from vicinal._threads import get_num_threads
from vicinal.index import EXACT_BELOW, Index

__all__ = ["BuildTime", "Estimate", "estimate"]

_LINE = 64
_HUGE_PAGE = 2 << 20
_SAMPLE = 3000  # rows of the index that is built to see how fast this machine is
_TIMES = 3
_CACHES = 0.15  # from the sample on, a row takes at most (rows / sample) ** this much longer
# Bytes that hash tables and searches under way take; measured, see tests/python/test_estimate.py.
_SCRATCH_ROW, _SCRATCH = 5, 30_000
_FILE = 8192


@dataclass(frozen=True)
class BuildTime:
    """Seconds that adding all rows in one call takes on this machine, with all its threads.

    Attributes
    ----------
    seconds : float
        What is most likely.
    low, high : float
        The spread: `low` if a row takes as long as in the sample but for the deeper graph, `high`
        if the slowest of the samples is right and caches help no longer.
    """

    seconds: float
    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """What an index of so many rows takes, in bytes; `vicinal.estimate` makes it.

    Attributes
    ----------
    bytes : int
        Memory in all: `memory_usage()["total"]` of the index once it is built.
    vectors, ids, graph, codes, scratch : int
        Its parts, as `memory_usage` tells them.
    file : int
        Size of the saved file.
    resident : int
        Bytes of an opened file that searches keep coming back to: links, and codes or vectors. The
        rest can stay on the disk, of which each search reads some rows.
    quantization : str or None
        The codes that "auto" will choose, unless the data make it choose otherwise.
    rows, dim, metric, dtype, M, ef_construction, keep_vectors, walk_dim
        What was asked about.
    """

    bytes: int
    vectors: int
    ids: int
    graph: int
    codes: int
    scratch: int
    file: int
    resident: int
    quantization: str | None
    rows: int
    dim: int
    metric: str
    dtype: str
    M: int
    ef_construction: int
    keep_vectors: bool = True
    walk_dim: int | None = None

    def build_time(self) -> BuildTime:
        """Measure how fast this machine builds, and tell how long all rows will take.

        Builds an index of 3,000 random rows three times, which takes some seconds at most; real
        vectors may link faster or slower than random ones by half. Not to be asked while other
        programs are busy.
        """
        rows = min(self.rows, _SAMPLE)
        values: Any = np.random.default_rng(0).standard_normal((rows, self.dim))
        if self.dtype in ("int8", "uint8"):
            values = np.clip(np.rint(values * 30 + (128 if self.dtype == "uint8" else 0)), 0, 127)
            values[:, 0] += 1  # no row is zero
        if self.dtype == _kinds.PACKED:
            values = np.packbits(values > 0, axis=1)
        taken = []
        for _ in range(_TIMES):
            index = Index(
                self.dim,
                self.metric,
                dtype=self.dtype,
                M=self.M,
                ef_construction=self.ef_construction,
                quantization=self.quantization,
                keep_vectors=self.keep_vectors,
                walk_dim=self.walk_dim if self.quantization else None,
            )
            begun = time.perf_counter()
            index.add(values)
            taken.append(time.perf_counter() - begun)
        if self.rows <= rows:
            return BuildTime(min(taken), min(taken), max(taken))
        times = self.rows / rows
        deeper = times * math.log(self.rows) / math.log(rows)
        caches = times**_CACHES
        return BuildTime(
            min(taken) * deeper * math.sqrt(caches),
            min(taken) * deeper,
            max(taken) * deeper * caches,
        )


def estimate(
    rows: int,
    dim: int,
    metric: str = "l2",
    dtype: Any = "float32",
    M: int = 16,
    quantization: str | None = "auto",
    *,
    ef_construction: int = 200,
    keep_vectors: bool = True,
    walk_dim: int | None = None,
) -> Estimate:
    """Tell what an index will take, without building it.

    Parameters
    ----------
    rows : int
        Rows it will have, 0 to 2**31 - 1, added in one call under automatic ids.
    dim, metric, dtype, M, quantization, ef_construction, keep_vectors, walk_dim
        As for `Index`.

    Returns
    -------
    Estimate
        `bytes` in memory, within 5 % from 10,000 rows on, with its parts; `file`, `resident`; and
        `build_time()`, which measures this machine.

    Raises
    ------
    TypeError, ValueError
        As `Index`.

    Notes
    -----
    While it is built an index takes no more than a few percent more; adding to it in many calls may
    leave room to grow of up to a quarter. Ids of your own take 8 to 16 bytes a row more once they
    are looked up, strings their text besides.
    Threads: safe at any time.

    Examples
    --------
    >>> import vicinal
    >>> told = vicinal.estimate(1_000_000, 384, "cosine")
    >>> told.quantization, round(told.bytes / 1e9, 1), round(told.resident / 1e9, 1)
    ('rabitq4', 1.9, 0.3)
    """
    rows = _validate.whole_number(rows, "rows", 0, _validate.MAX_COUNT)
    dim = _validate.whole_number(dim, "dim", 1, 65536)
    metric, dtype = _kinds.metric_name(metric), _kinds.dtype_name(dtype)
    M = _validate.whole_number(M, "M", 2, 128)
    ef_construction = _validate.whole_number(
        ef_construction, "ef_construction", 1, _validate.MAX_COUNT
    )
    storage = storage_of(dim, metric, dtype, quantization, keep_vectors, walk_dim)
    walks = rows >= EXACT_BELOW
    alone = CODES_ALONE.get(storage.dtype)
    walked = storage.walk_dim or dim
    kind = alone
    if alone is None and walks:
        kind = _chosen(quantization, walked, metric, dtype, walked < dim)
    row = (
        _row_bytes(_kinds.packed_dim(dim, dtype), dtype) if alone is None else row_bytes(alone, dim)
    )
    norms = 4 * rows if metric == "cosine" and dtype in ("int8", "uint8") else 0
    vectors, ids = _column(rows * row) + norms, 8 * rows
    links, upper = _link_bytes(rows, M) if walks else (0, 0)
    table = 8 * (1 << (2 * rows - 1).bit_length()) if walks else 0
    code, scales = _code_bytes(kind, walked, dtype) if walks and alone is None else (0, 0)
    codes = _column(rows * code) + rows * scales
    scratch = get_num_threads() * (_SCRATCH_ROW * rows + _SCRATCH) if rows else 0
    graph = _column(links) + upper + table
    file = _FILE + rows * (row + 8) + norms + links + upper + rows * (code + scales)
    return Estimate(
        bytes=vectors + ids + graph + codes + scratch,
        vectors=vectors,
        ids=ids,
        graph=graph,
        codes=codes,
        scratch=scratch,
        file=file,
        resident=links + upper + (rows * (code + scales) if code else rows * row),
        quantization=kind,
        rows=rows,
        dim=dim,
        metric=metric,
        dtype=dtype,
        M=M,
        ef_construction=ef_construction,
        keep_vectors=alone is None,
        walk_dim=storage.walk_dim or None,
    )


def _chosen(
    quantization: str | None, dim: int, metric: str, dtype: str, shortened: bool
) -> str | None:
    """Return the codes that are used; what "auto" chooses for data without surprises."""
    if quantization != "auto":
        return quantization
    if shortened:
        return "sq8" if dim < 96 else "rabitq4"
    if dtype == _kinds.PACKED:
        return None
    if dtype in ("int8", "uint8"):
        return None if metric == "cosine" else "u8"
    return None if dim < 32 else "sq8" if dim < 96 else "rabitq4"


def _row_bytes(dim: int, dtype: str) -> int:
    """Return the bytes of a stored vector: long ones take whole cache lines."""
    size = dim * _kinds.STORED_DTYPES[dtype].itemsize
    short = 64 if dtype in ("int8", "uint8", _kinds.PACKED) else 256
    return size if size < short else _up(size, _LINE)


def _code_bytes(kind: str | None, dim: int, dtype: str) -> tuple[int, int]:
    """Return the bytes of a code, and of the numbers beside it."""
    if kind is None:
        return 0, 0
    if kind == "u8" and dtype in ("int8", "uint8") and dim >= _LINE:
        return 0, 8  # the vectors serve as their own codes
    return _up(dim if kind in ("u8", "sq8") else (dim + 1) // 2, _LINE), 8


def _link_bytes(rows: int, M: int) -> tuple[int, int]:
    """Return the bytes of links on level 0, and of all above."""
    M = _up(M, 8)  # others work as the next multiple
    above = rows / M / (1 - 1 / M)  # blocks: a row in M is on level 1, of these one in M on level 2
    blocks = int(above * 4 * _up(M, 16))
    return rows * 4 * _up(2 * M, 16), blocks + int(rows / M) * 8


def _column(size: int) -> int:
    """Return what memory a column of so many bytes takes: large ones whole huge pages."""
    return _up(size, _HUGE_PAGE) if size >= 2 * _HUGE_PAGE else size


def _up(size: int, step: int) -> int:
    return -(-size // step) * step
