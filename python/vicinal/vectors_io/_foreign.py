"""Vectors and ids out of the index files of other libraries, each read by that library itself."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from vicinal.errors import FormatError
from vicinal.vectors_io._source import Array, Piece, SeekableSource, extra, open_file

__all__ = ["LIBRARIES", "open_foreign"]

LIBRARIES = ("hnswlib", "faiss", "usearch", "annoy")

Get = Callable[[int, int], Array]


class ForeignSource(SeekableSource):
    """Rows that another library's object gives; `notes` says what is worth knowing of them."""

    def __init__(
        self, name: str, library: str, ids: Array, dim: int, metric: str, get: Get, notes: list[str]
    ) -> None:
        super().__init__(name, len(ids), dim, np.dtype(np.float32), metric=metric, has_ids=True)
        self.format = library
        self.notes = notes
        self._ids, self._get = ids, get
        self.owner: object = None

    def _no_ids(self) -> Array:
        return self._ids[:0]

    def _read(self, start: int, stop: int) -> Piece:
        rows = np.ascontiguousarray(self._get(start, stop), np.float32)
        return rows, self._ids[start:stop]


def open_foreign(
    path: Any, library: str, *, metric: str | None = None, dim: int | None = None
) -> ForeignSource:
    """Open the index file of another library.

    Parameters
    ----------
    path : str or path-like
        The file.
    library : {"hnswlib", "faiss", "usearch", "annoy"}
        Whose it is; that package has to be installed. It reads the whole file into memory, and
        trusts it.
    metric : {"l2", "ip", "cosine"}, optional
        For hnswlib and annoy, whose files do not tell it.
    dim : int, optional
        For annoy, whose files do not tell it.

    Returns
    -------
    ForeignSource
        A `VectorSource` with ids and a metric; rows that were removed there are left out.
    """
    if library not in LIBRARIES:
        raise ValueError(f"library: expected one of {', '.join(LIBRARIES)}, got {library!r}")
    file, size = open_file(path)
    with file:
        head = file.read(96)
    name = os.path.basename(os.fsdecode(path))
    what = f"an index of {library}"
    module = extra({"usearch": "usearch.index"}.get(library, library), "convert", what)
    try:
        if library == "hnswlib":
            return _hnswlib(module, path, name, head, size, metric)
        if library == "faiss":
            return _faiss(module, path, name)
        if library == "usearch":
            return _usearch(module, path, name)
        return _annoy(module, path, name, metric, dim)
    except RuntimeError as error:
        raise FormatError(f"{name}: {library} cannot read it: {str(error)[:300]}") from None


def _needed(value: Any, argument: str, library: str) -> Any:
    if value is None:
        raise ValueError(f"{argument}: expected one, since files of {library} do not tell it")
    return value


def _hnswlib(
    module: Any, path: Any, name: str, head: bytes, size: int, metric: str | None
) -> ForeignSource:
    # size_t: offset of level 0, capacity, count, bytes of an element, offset of the label, of data
    if len(head) < 48:
        raise FormatError(f"{name}: no index of hnswlib, it has {size} bytes")
    _, capacity, count, element, label, data = struct.unpack("<6Q", head[:48])
    dim, left = divmod(label - data, 4) if label > data else (0, 1)
    if left or count > capacity or element * count > size:
        raise FormatError(f"{name}: no index of hnswlib with float32 values")
    index = module.Index(_needed(metric, "metric", "hnswlib"), dim)
    index.load_index(os.fsdecode(path), max_elements=count)
    labels = np.array(sorted(index.get_ids_list()), np.int64)
    # labels of removed elements are listed too, and asking for one raises
    there = np.array([_has(index, label) for label in labels.tolist()], bool)
    notes = []
    if not there.all():
        notes.append(f"{name}: {int((~there).sum())} removed rows are left out")
        labels = labels[there]
    if metric == "cosine":
        notes.append(f"{name}: hnswlib keeps vectors of unit length, not as they were given")

    def get(start: int, stop: int) -> Array:
        return np.asarray(index.get_items(labels[start:stop], return_type="numpy"))

    return ForeignSource(name, "hnswlib", labels, dim, str(metric), get, notes)


def _has(index: Any, label: int) -> bool:
    try:
        index.get_items([label])
    except RuntimeError:
        return False
    return True


def _faiss(module: Any, path: Any, name: str) -> ForeignSource:
    index = module.read_index(os.fsdecode(path))
    outer = module.downcast_index(index)
    labels = None
    if hasattr(outer, "id_map"):
        labels = module.vector_to_array(outer.id_map).astype(np.int64)
        inner = module.downcast_index(outer.index)
    else:
        inner = outer
    metrics = {module.METRIC_L2: "l2", module.METRIC_INNER_PRODUCT: "ip"}
    if inner.metric_type not in metrics:
        raise ValueError(f"{name}: metric {inner.metric_type} of faiss is none of l2, ip, cosine")
    count = int(inner.ntotal)
    numbers = np.arange(count)
    inverted = hasattr(inner, "set_direct_map_type")
    if inverted:
        # rows lie in lists; any numbers may name them
        inner.set_direct_map_type(module.DirectMap.Hashtable)
        if labels is None:
            labels = numbers = _inverted_labels(module, inner)
    notes = []
    if not isinstance(inner, (module.IndexFlat, module.IndexHNSWFlat, module.IndexIVFFlat)):
        notes.append(f"{name}: {type(inner).__name__} has codes; vectors are what they stand for")

    def get(start: int, stop: int) -> Array:
        if inverted:
            return np.stack([inner.reconstruct(int(key)) for key in numbers[start:stop]])
        return np.asarray(inner.reconstruct_n(start, stop - start))

    ids = np.arange(count) if labels is None else labels
    kind = metrics[inner.metric_type]
    source = ForeignSource(name, "faiss", ids, int(inner.d), kind, get, notes)
    source.owner = index  # what `downcast_index` gives does not keep it alive
    return source


def _inverted_labels(module: Any, index: Any) -> Array:
    lists = index.invlists
    parts = []
    for number in range(lists.nlist):
        size = lists.list_size(number)
        if size:
            parts.append(module.rev_swig_ptr(lists.get_ids(number), size).copy())
    return np.sort(np.concatenate(parts)) if parts else np.empty(0, np.int64)


def _usearch(module: Any, path: Any, name: str) -> ForeignSource:
    try:
        index = module.Index.restore(os.fsdecode(path))
    except ValueError as error:
        raise FormatError(f"{name}: usearch cannot read it: {error}") from None
    if index is None:
        raise FormatError(f"{name}: no index of usearch")
    kinds = {"l2sq": "l2", "ip": "ip", "cos": "cosine"}
    kind = getattr(index.metric_kind, "name", str(index.metric_kind)).lower()
    if kind not in kinds:
        raise ValueError(f"{name}: metric {kind} of usearch is none of l2, ip, cosine")
    if index.multi:
        raise ValueError(f"{name}: several vectors under one key have no place in an index")
    keys = np.sort(np.asarray(index.keys, np.uint64))
    if len(keys) and keys[-1] >= 2**63:
        raise ValueError(f"{name}: key {keys[-1]} is beyond int64")

    def get(start: int, stop: int) -> Array:
        return np.asarray(index.get(keys[start:stop], np.float32))

    stored = str(getattr(index.dtype, "name", index.dtype)).lower()
    notes = [] if stored == "f32" else [f"{name}: vectors are kept as {stored} there"]
    return ForeignSource(
        name, "usearch", keys.astype(np.int64), int(index.ndim), kinds[kind], get, notes
    )


def _annoy(module: Any, path: Any, name: str, metric: str | None, dim: int | None) -> ForeignSource:
    kinds = {"l2": "euclidean", "ip": "dot", "cosine": "angular"}
    wanted = _needed(metric, "metric", "annoy")
    length = int(_needed(dim, "dim", "annoy"))
    try:
        index = module.AnnoyIndex(length, kinds[wanted])
        index.load(os.fsdecode(path))
    except OSError as error:
        raise FormatError(f"{name}: annoy cannot read it with {length} values: {error}") from None

    def get(start: int, stop: int) -> Array:
        return np.array([index.get_item_vector(i) for i in range(start, stop)], np.float32)

    return ForeignSource(name, "annoy", np.arange(index.get_n_items()), length, wanted, get, [])
