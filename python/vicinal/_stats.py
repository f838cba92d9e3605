"""What an index tells about itself, and its checks."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from vicinal import (
    _attributes,
    _file_status,
    _info,
    _kinds,
    _residence,
    _storage,
    _tuning,
    _validate,
)
from vicinal._cpu import native
from vicinal._state import EF_SEARCH, State

if TYPE_CHECKING:
    from vicinal.index import Index

__all__ = ["build_stats", "check", "describe", "memory_usage", "search_stats", "stats", "verify"]

# Answers of native.index_check
_INVARIANTS = {
    1: "a row has more links than it may",
    2: "an empty slot stands before a used one",
    3: "a link leads to a row that is not there on its level",
    4: "a row links to itself",
    5: "a row links to another twice",
    6: "the tables of the upper levels are out of order",
    7: "the entry point is not a row of the highest level",
    8: "a row cannot be reached from the entry point",
    9: "rows without links are not as many as copies of other rows and freed rows",
    10: "a link leads to or from a row that was removed and freed",
    11: "copies of a row are not found through it, or do not hold the same",
}

_CODE_KINDS = (None, "u8", "sq8", "rabitq4")  # as the native index numbers them


def describe(index: Index) -> str:
    """Return what `repr` shows."""
    asked = _kinds.QUANTIZATIONS[_info.number(index._handle, _info.QUANTIZATION)]
    others = ("" if asked == "auto" else f", quantization={asked!r}") + (
        "" if index._strings is None else ", ids='str'"
    )
    scale = "" if index._scale is None else f", scale={index._scale!r}"
    storage, words = _storage.described(index._handle)
    width = "" if index._ef_search == EF_SEARCH else f", ef_search {index._ef_search}"
    return (
        f"vicinal.Index(dim={index.dim}, metric={index._metric!r}, dtype={index._dtype!r}, "
        f"M={index._M}, ef_construction={index._ef_construction}, seed={index._seed}"
        f"{others}{storage}{scale}) "
        f"with {len(index)} rows{width}{', read-only' if index._read_only else ''}{words}"
        f"{_attributes.shown(index)}"
    )


def verify(index: State) -> None:
    """See `Index.verify`."""
    threads = _validate.thread_count(None)
    _file_status.call(
        lambda _, status: native.index_verify(index._handle, threads, status), index._path
    )


def check(index: State) -> None:
    """See `Index.check`."""
    with index._writer_lock.held():
        code = native.index_check(index._handle)
    if code:
        rule = _INVARIANTS.get(code, f"rule {code}")
        raise RuntimeError(f"index: the graph is not as it must be: {rule}")


def stats(index: Index) -> dict[str, Any]:
    """See `Index.stats`."""
    number = partial(_info.number, index._handle)
    count, linked = number(_info.COUNT), number(_info.IN_GRAPH)
    exact_below = number(_info.EXACT_BELOW)
    tuned = _tuning.tunings(index)
    alone = _storage.alone(index._handle)
    return {
        "count": count,
        "dim": index.dim,
        "metric": index._metric,
        "dtype": index._dtype,
        "scale": index._scale,
        "M": index._M,
        "ef_construction": index._ef_construction,
        "ef_search": index._ef_search,
        "seed": index._seed,
        "read_only": index._read_only,
        "search": "exact" if linked < count or count < exact_below else "graph",
        "exact_below": exact_below,
        "graph_rows": linked,
        "max_level": number(_info.MAX_LEVEL),
        "removed": number(_info.REMOVED),
        "ids": "int64" if index._strings is None else "str",
        "tuned": tuned,
        "tuning_stale": any(tuning.stale(count) for tuning in tuned),
        "promises": index._promises.told(),
        "format_version": native.index_version(index._handle),
        "keep_vectors": alone is None,
        "distances": "of the vectors" if alone is None else "estimated",
        "walk_dim": number(_info.WALK_DIM) or None,
        "quantization": alone or _CODE_KINDS[number(_info.CODES)],
        "quantization_reason": _quantization_reason(index),
        "resident": index._resident,
        "reads": {
            "for": _residence.read_for(index._handle),
            "by": _residence.read_by(index._handle),
            **_info.named(index._handle, _info.READS, _info.READ_NAMES),
        },
        "filtered": _info.named(index._handle, _info.FILTERED, _info.FILTERED_NAMES),
    }


def search_stats(index: State) -> dict[str, int]:
    """See `Index.search_stats`."""
    return _info.named(index._handle, _info.SEARCHES, _info.SEARCH_NAMES)


def build_stats(index: State) -> dict[str, Any]:
    """See `Index.build_stats`."""
    phases = _info.named(index._handle, _info.PHASES, _info.PHASE_NAMES)
    return {
        **_info.named(index._handle, _info.WORK, _info.WORK_NAMES),
        "seconds": {name: nanoseconds / 1e9 for name, nanoseconds in phases.items()},
    }


def memory_usage(index: State) -> dict[str, int]:
    """See `Index.memory_usage`."""
    number = partial(_info.number, index._handle)
    file = partial(native.index_residence, index._handle)
    in_file, total = file(_info.IN_MEMORY), number(_info.BYTES)
    resident = in_file + file(_info.COPIED) + number(_info.SCRATCH_BYTES)
    return {
        "vectors": number(_info.VECTORS_BYTES),
        "ids": number(_info.IDS_BYTES),
        "id_strings": 0 if index._strings is None else index._strings.memory(),
        "graph": number(_info.GRAPH_BYTES),
        "codes": number(_info.CODES_BYTES),
        "scratch": number(_info.SCRATCH_BYTES),
        "total": total,
        "borrowed": number(_info.BORROWED_BYTES),
        "resident": resident if index._read_only else total,
        "locked": file(_info.LOCKED),
        "disk": file(_info.FILE_BYTES) - in_file,
    }


def _quantization_reason(index: State) -> str:
    """Say why the graph is walked on what it is walked on."""
    number = partial(_info.number, index._handle)
    if _storage.alone(index._handle) is not None:
        return "codes are all that is stored"
    if number(_info.IN_GRAPH) == 0:
        return "there is no graph yet"
    if number(_info.QUANTIZATION) != 0:
        return "asked for"
    kind = _CODE_KINDS[number(_info.CODES)]
    if kind == "u8":
        return "all values are whole numbers from 0 to 255, or stored as 8-bit integers"
    if number(_info.WALK_DIM):
        return f"of the first {number(_info.WALK_DIM)} values"
    if index._dtype == _kinds.PACKED:
        return "packed bits are measured as they are"
    if index._dtype in ("int8", "uint8"):
        return "there are no exact codes for cosine"
    usual = None if index._dim < 32 else "sq8" if index._dim < 96 else "rabitq4"
    return f"floats of dimension {index._dim}" + (
        "" if kind == usual else f"; {usual} was too coarse for a sample of the rows"
    )
