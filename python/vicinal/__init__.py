"""Nearest-neighbour search in one process: exact where that is fastest, a graph above it."""

from vicinal._cpu import build_info
from vicinal._merging import merge
from vicinal._quality import MeasuredRecall, Tuning
from vicinal._threads import get_num_threads, set_num_threads
from vicinal._walking import Trace, TraceStep, WhyNot
from vicinal.errors import CorruptError, FormatError
from vicinal.exact import exact_search
from vicinal.fusion import FusedResult, fuse
from vicinal.index import Index, open
from vicinal.knn_graph import NeighbourGraph, knn_graph
from vicinal.recall import recall_at_k
from vicinal.result import RangeResult, SearchResult

__all__ = [
    "CorruptError",
    "FormatError",
    "FusedResult",
    "Index",
    "MeasuredRecall",
    "NeighbourGraph",
    "RangeResult",
    "SearchResult",
    "Trace",
    "TraceStep",
    "Tuning",
    "WhyNot",
    "__version__",
    "build_info",
    "exact_search",
    "fuse",
    "get_num_threads",
    "knn_graph",
    "merge",
    "open",
    "recall_at_k",
    "set_num_threads",
]

__version__ = "0.1.0"
