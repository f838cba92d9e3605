"""What every part of the index shares: the native index behind it and what is known about it."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vicinal import _validate
from vicinal._cpu import native
from vicinal._writer_lock import WriterLock

PathLike = str | bytes | os.PathLike[str] | os.PathLike[bytes]

EF_SEARCH = 64

# `which` of native.index_info
COUNT, DIM, METRIC, DTYPE, M, EF_CONSTRUCTION, SEED = range(7)
IN_GRAPH, MAX_LEVEL, BYTES, READ_ONLY = range(7, 11)
EXACT_BELOW, EF_SEARCH_SAVED, CODES, QUANTIZATION = range(12, 16)
VECTORS_BYTES, IDS_BYTES, GRAPH_BYTES, CODES_BYTES, REMOVED = range(16, 21)


class State:
    """The attributes of an index; the classes beside this one add its methods."""

    __slots__ = (
        "_M",
        "__weakref__",
        "_dim",
        "_dtype",
        "_ef_construction",
        "_ef_search",
        "_handle",
        "_metric",
        "_path",
        "_query_dtype",
        "_read_only",
        "_seed",
        "_single",
        "_writing",
    )

    def _adopt(self, handle: Any, path: PathLike = "") -> None:
        """Take over a native index, opened from `path` if that is given."""
        self._handle = handle
        self._dim = native.index_info(handle, DIM)
        self._metric = _validate.METRICS[native.index_info(handle, METRIC)]
        self._dtype = _validate.DTYPES[native.index_info(handle, DTYPE)]
        self._M = native.index_info(handle, M)
        self._ef_construction = native.index_info(handle, EF_CONSTRUCTION)
        self._seed = native.index_info(handle, SEED)
        self._read_only = bool(native.index_info(handle, READ_ONLY))
        self._ef_search = native.index_info(handle, EF_SEARCH_SAVED) or EF_SEARCH
        self._path = path
        self._query_dtype = _validate.query_dtype(self._dtype)
        self._single = (self._dim,)
        self._writing = WriterLock()

    def __len__(self) -> int:
        return native.index_info(self._handle, COUNT)

    def _rows(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the row number of each id, -1 for unknown ones."""
        # the native code reads and changes its table of ids with the GIL held only
        rows = np.empty(len(ids), dtype=np.int64)
        native.index_rows(self._handle, ids, rows)
        return rows

    def _must_be_writable(self) -> None:
        """Refuse a change of an index opened with mode="r"."""
        if self._read_only:
            raise ValueError(
                'index: expected a writable one, got one opened with mode="r"; '
                'vicinal.open(path, mode="copy") gives a private copy to change'
            )
