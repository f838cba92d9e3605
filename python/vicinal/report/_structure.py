"""Degrees, levels and sizes of an index, read from its file: docs/design/format.md."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["structure"]

_DTYPES = ("f4", "f2", "u2", "i1", "u1", "i8", "u4")  # a bfloat16 is read as its two bytes
_FIELDS = (
    "metric", "dtype", "dim", "count", "linked", "M", "ef_construction", "ef_search", "seed",
    "entry", "max_level", "exact_below", "unrepaired", "quantization", "codes", "copies", "strings",
    "removed", "shaded",
)  # fmt: skip
_EMPTY = 0xFFFFFFFF
_ROWS_AT_ONCE = 1 << 18
_FREED = 2
_MOST_LEVELS = 63
_ORIGINAL = 1 << 31  # a row that others are copies of has this and the number of the newest


def structure(path: str) -> dict[str, Any]:
    """Return degrees, levels, copies and bytes of each section of a file that was opened before.

    Opening has compared the section table with the file; links are clamped here.
    """
    with open(path, "rb") as file:
        head = file.read(4096)
    fields = dict(zip(_FIELDS, struct.unpack_from("<19q", head, 32), strict=True))
    sections: dict[str, Any] = {}
    sizes: dict[str, int] = {"header": 4096}
    (count,) = struct.unpack_from("<q", head, 24)
    for number in range(count):
        name, offset, size, rows, columns, dtype = struct.unpack_from(
            "<16s5q", head, 256 + 64 * number
        )
        text = name.rstrip(b"\0").decode("ascii", "replace")
        sizes[text] = size
        if rows and columns and size:
            sections[text] = np.memmap(path, _DTYPES[dtype], "r", offset, (rows, columns))
    return {
        "section_bytes": sizes,
        "copies": fields["copies"],
        "originals_of_copies": _originals(sections.get("copies")),
        "degrees": _degrees(fields, sections),
        "levels": _levels(fields, sections),
    }


def _originals(copies: Any) -> int:
    """Return how many rows have copies."""
    if copies is None:
        return 0
    flat = copies[:, 0]
    return int(((flat >= _ORIGINAL) & (flat != _EMPTY)).sum())


def _degrees(fields: dict[str, int], sections: dict[str, Any]) -> dict[str, Any] | None:
    """Return how many rows have how many links on level 0, from them and to them."""
    links = sections.get("links0")
    if links is None:
        return None
    rows = len(links)
    leading_to: NDArray[np.uint32] = np.zeros(rows, np.uint32)
    leading_from = np.zeros(rows, np.uint16)
    for start in range(0, rows, _ROWS_AT_ONCE):
        part = np.asarray(links[start : start + _ROWS_AT_ONCE])
        there = part < rows
        leading_from[start : start + len(part)] = there.sum(axis=1)
        leading_to += np.bincount(part[there], minlength=rows).astype(np.uint32)
    in_graph = np.ones(rows, bool)
    marks, copies = sections.get("tombstones"), sections.get("copies")
    if marks is not None:
        in_graph &= np.asarray(marks[:rows, 0]) != _FREED
    if copies is not None:  # a copy has no links: it is found through its original
        flat = np.asarray(copies[:rows, 0])
        in_graph &= (flat >= _ORIGINAL) | (flat == _EMPTY)
    to, out = leading_to[in_graph], leading_from[in_graph]
    if not len(to):
        return None
    ordered = np.sort(to)
    return {
        "rows": len(to),
        "most_links": 2 * fields["M"],
        "out": np.bincount(out, minlength=1).tolist(),
        "out_mean": float(out.mean()),
        "in_quantiles": {
            name: int(ordered[min(len(ordered) - 1, int(share * len(ordered)))])
            for name, share in (
                ("least", 0), ("1%", 0.01), ("10%", 0.1), ("half", 0.5), ("90%", 0.9),
                ("99%", 0.99), ("99.9%", 0.999), ("most", 1),
            )
        },
        "in": _binned(to),
        "in_none": int((to == 0).sum()),
    }  # fmt: skip


def _binned(degrees: NDArray[np.uint32]) -> list[dict[str, int]]:
    """Count degrees in steps that grow, so that the long tail has room."""
    edges = [0, 1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256, 512, 1024, 1 << 32]
    last = next(i for i, edge in enumerate(edges) if edge > int(degrees.max()))
    counted, _ = np.histogram(degrees, edges[: last + 1])
    # the last bin of a histogram is closed: a degree equal to its end cannot occur here
    return [
        {"from": edges[i], "to": edges[i + 1] - 1, "rows": int(counted[i])} for i in range(last)
    ]


def _levels(fields: dict[str, int], sections: dict[str, Any]) -> list[dict[str, float]]:
    """Return how many rows each level has, and how many a drawing with M gives on average."""
    rows = fields["linked"]
    if not rows:
        return []
    starts = np.zeros(1, np.int64)
    if "upper_start" in sections:
        starts = np.asarray(sections["upper_start"][:, 0]).astype(np.int64)
    heights: NDArray[np.int64] = starts[1:] - starts[:-1]
    # in a damaged file the tables may say anything
    highest = int(heights.max()) if len(heights) else 0
    top = min(max(fields["max_level"], highest), _MOST_LEVELS)
    return [
        {
            "level": level,
            "rows": rows if level == 0 else int((heights >= level).sum()),
            "expected": rows / max(2, fields["M"]) ** level,
        }
        for level in range(top + 1)
    ]
