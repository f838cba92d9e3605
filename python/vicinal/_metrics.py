"""All numbers that an index knows about itself, under one name each."""

from __future__ import annotations

import reprlib
from typing import Any

from vicinal.index import Index

__all__ = ["metrics"]


def metrics(index: Index) -> dict[str, int | float]:
    """Return all that an index tells about itself in numbers, as one flat dict.

    Parameters
    ----------
    index : Index

    Returns
    -------
    dict
        What `index.stats()` has under the same names (True and False as 1 and 0, names of things
        left out, `tuned` counted, `filtered` as `filtered_scan` and so on), and besides
        `graph_searched`, 1 if searches walk the graph now; `memory_usage()` as
        `memory_vectors_bytes` and so on; `search_stats()` as `search_queries` and so on;
        `build_stats()` as `build_rows` and so on, its times as `build_search_seconds` and so on.

    Raises
    ------
    TypeError
        If it is no index.

    Notes
    -----
    Names are fit for Prometheus and OpenTelemetry. What begins with `search_`, `build_` or
    `filtered_` only grows as long as the index is open. Nothing is sent anywhere.
    Threads: safe at any time.

    Examples
    --------
    >>> import vicinal
    >>> index = vicinal.Index(2)
    >>> ids = index.add([[0, 0], [3, 4]])
    >>> found = index.search([1, 1], k=1)
    >>> numbers = vicinal.metrics(index)
    >>> numbers["count"], numbers["dim"], numbers["search_queries"], numbers["graph_searched"]
    (2, 2, 1, 0)
    """
    if not isinstance(index, Index):
        raise TypeError(f"index: expected an Index, got {reprlib.repr(index)}")
    told = index.stats()
    flat: dict[str, int | float] = {}
    _put(flat, "", told)
    flat["graph_searched"] = int(told["search"] == "graph")
    for part, size in index.memory_usage().items():
        flat[f"memory_{part}_bytes"] = size
    _put(flat, "search_", index.search_stats())
    built = index.build_stats()
    for phase, seconds in built.pop("seconds").items():
        flat[f"build_{phase}_seconds"] = seconds
    _put(flat, "build_", built)
    return flat


def _put(flat: dict[str, int | float], prefix: str, told: dict[str, Any]) -> None:
    """Add what is a number, a count or a dict of those."""
    for name, value in told.items():
        if isinstance(value, dict):
            _put(flat, f"{prefix}{name}_", value)
        elif isinstance(value, tuple):
            flat[prefix + name] = len(value)
        elif isinstance(value, (bool, int)):
            flat[prefix + name] = int(value)
        elif isinstance(value, float):
            flat[prefix + name] = value
