"""Nearest-neighbour search in one process: exact where that is fastest, a graph above it."""

import importlib
import sys
from typing import TYPE_CHECKING, Any

from vicinal import _cpu, _tuning  # _cpu first: it asks whether this Python will do
from vicinal._kept_filter import Filter
from vicinal._metrics import metrics
from vicinal._multi import MultiResult
from vicinal._pairs import Pairs
from vicinal._threads import get_num_threads, set_num_threads
from vicinal._trace import Trace, TraceStep
from vicinal._tuning import MeasuredRecall, Tuning
from vicinal._why_not import WhyNot
from vicinal.errors import ConflictError, CorruptError, FormatError
from vicinal.exact import exact_search
from vicinal.index import Index, merge
from vicinal.knn_graph import NeighbourGraph, knn_graph
from vicinal.opening import open
from vicinal.recall import recall_at_k
from vicinal.result import RangeResult, SearchResult

if TYPE_CHECKING:
    from vicinal.collection import Collection, Document, Hit
    from vicinal.diversity import mmr
    from vicinal.estimation import Estimate, estimate
    from vicinal.fusion import FusedResult, fuse
    from vicinal.living.follow import Follower
    from vicinal.living.index import LivingIndex
    from vicinal.shards import Shards, open_shards
    from vicinal.vectors_io import RowError, VectorSource, build, read_vectors, write_vectors

__all__ = [
    "Collection",
    "ConflictError",
    "CorruptError",
    "Document",
    "Estimate",
    "Filter",
    "Follower",
    "FormatError",
    "FusedResult",
    "Hit",
    "Index",
    "LivingIndex",
    "MeasuredRecall",
    "MultiResult",
    "NeighbourGraph",
    "Pairs",
    "RangeResult",
    "RowError",
    "SearchResult",
    "Shards",
    "Trace",
    "TraceStep",
    "Tuning",
    "VectorSource",
    "WhyNot",
    "__version__",
    "build",
    "build_info",
    "estimate",
    "exact_search",
    "fuse",
    "get_num_threads",
    "knn_graph",
    "merge",
    "metrics",
    "mmr",
    "open",
    "open_shards",
    "read_vectors",
    "recall_at_k",
    "set_num_threads",
    "write_vectors",
]

# What not every program uses is imported when it is asked for: each takes milliseconds.
_LATER = {
    **dict.fromkeys(
        ("RowError", "VectorSource", "build", "read_vectors", "write_vectors"), "vectors_io"
    ),
    **dict.fromkeys(("Collection", "Document", "Hit"), "collection"),
    **dict.fromkeys(("Estimate", "estimate"), "estimation"),
    **dict.fromkeys(("FusedResult", "fuse"), "fusion"),
    "Follower": "living.follow",
    "LivingIndex": "living.index",
    "mmr": "diversity",
    **dict.fromkeys(("Shards", "open_shards"), "shards"),
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'vicinal' has no attribute {name!r}")
    module = importlib.import_module(f"vicinal.{_LATER[name]}")
    value = globals()[name] = getattr(module, name)
    return value


__version__ = "0.1.0"
build_info = _cpu.build_info

# Pickles made before 0.1.0 was finished name these modules as they were called then.
sys.modules[f"{__name__}._quality"] = _tuning
sys.modules[f"{__name__}._walking"] = sys.modules[__name__]
