"""The numbers that the native index tells about itself: `which` of `native.index_info`."""

from __future__ import annotations

from typing import Any

from vicinal._cpu import native

__all__ = ["named", "number", "residence"]

COUNT, DIM, METRIC, DTYPE, M, EF_CONSTRUCTION, SEED = range(7)
IN_GRAPH, MAX_LEVEL, BYTES, READ_ONLY = range(7, 11)
EXACT_BELOW, EF_SEARCH, CODES, QUANTIZATION = range(12, 16)
VECTORS_BYTES, IDS_BYTES, GRAPH_BYTES, CODES_BYTES, REMOVED = range(16, 21)
FILTERED = range(21, 25)
BORROWED_BYTES = 25
PHASES = range(26, 33)  # of building, in nanoseconds
WORK = range(33, 40)
SEARCHES = range(40, 45)
READS = range(45, 47)
SCRATCH_BYTES, CHANGES, WALK_DIM = 47, 48, 49

# Those of native.index_residence
FILE_BYTES, WALK_BYTES, IN_MEMORY, LOCKED, COPIED, ROWS_ON_DISK, READ_BY = range(7)

# What `stats`, `build_stats` and `search_stats` call the numbers of these ranges.
FILTERED_NAMES = ("scan", "beam", "two_hop", "scan_after_walk")
PHASE_NAMES = ("store", "encode", "sort", "search", "link_back", "fill", "repair")
WORK_NAMES = ("rows", "rounds", "distances", "hops", "selections", "prunes", "blocks")
READ_NAMES = ("requests", "bytes")
SEARCH_NAMES = ("queries", "walks", "scans", "distances", "hops")


def number(handle: Any, which: int) -> int:
    """Return one number of a native index."""
    return native.index_info(handle, which)


def residence(handle: Any, which: int) -> int:
    """Return one number about the file of a native index."""
    return native.index_residence(handle, which)


def named(handle: Any, which: range, names: tuple[str, ...]) -> dict[str, int]:
    """Return several numbers under their names."""
    return {name: native.index_info(handle, each) for name, each in zip(names, which, strict=True)}
