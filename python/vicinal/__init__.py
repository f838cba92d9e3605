"""Nearest-neighbour search in one process: exact where that is fastest, a graph above it."""

from vicinal._cpu import build_info
from vicinal._merging import merge
from vicinal._quality import MeasuredRecall, Tuning
from vicinal._threads import get_num_threads, set_num_threads
from vicinal._walking import Trace, TraceStep, WhyNot
from vicinal.errors import CorruptError, FormatError
from vicinal.exact import exact_search
from vicinal.index import Index, open
from vicinal.recall import recall_at_k
from vicinal.result import RangeResult, SearchResult
from vicinal.vectors_io import RowError, VectorSource, build, read_vectors, write_vectors

__all__ = [
    "CorruptError",
    "FormatError",
    "Index",
    "MeasuredRecall",
    "RangeResult",
    "RowError",
    "SearchResult",
    "Trace",
    "TraceStep",
    "Tuning",
    "VectorSource",
    "WhyNot",
    "__version__",
    "build",
    "build_info",
    "exact_search",
    "get_num_threads",
    "merge",
    "open",
    "read_vectors",
    "recall_at_k",
    "set_num_threads",
    "write_vectors",
]

__version__ = "0.1.0"
