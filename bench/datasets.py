"""Vector sets for the benchmarks and tests: one reader for every layout in use.

`load` takes a path, or a name that is looked up in the folder of the environment variable
`VICINAL_DATA` and then in `tests/data`. It reads

- a folder with `base.npy`, `queries.npy` and `gt_ids.npy` (or `base_u8.npy`, `queries_u8.npy`);
- a folder with `vectors_u8.npz` (`train`, `test`) and `groundtruth.npz` (`ids`);
- a folder or prefix with `*_base.fvecs` / `.bvecs`, `*_query.fvecs` and `*_groundtruth.ivecs`;
- an ann-benchmarks HDF5 file (`train`, `test`, `neighbors`), where h5py is installed.

A `manifest.json` beside the arrays names the metric. Where the true neighbours are missing they
are computed by exact search in float64 and kept in the cache folder, under a hash of the arrays.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

SMALL_SETS = Path(__file__).resolve().parent.parent / "tests" / "data"
TRUTH_K = 100
METRIC_WORDS = {
    "l2": "l2",
    "euclidean": "l2",
    "cosine": "cosine",
    "angular": "cosine",
    "ip": "ip",
    "dot": "ip",
    "inner": "ip",
}


class DataSet(NamedTuple):
    """Rows to index, queries, ids of the nearest rows of each query, and the metric's name.

    `base` and `queries` are C-contiguous, float32 or the integer dtype they are stored in;
    `truth` is int64 of shape (queries, up to 100), nearest first.
    """

    base: Array
    queries: Array
    truth: Array
    metric: str


def load(name_or_path: str | Path, *, metric: str | None = None) -> DataSet:
    """Read a vector set by path or by name.

    Parameters
    ----------
    name_or_path : str or Path
        A folder, an HDF5 file, a `*_base.fvecs` file, or the name of a set in one of the
        search folders; the beginning of a name is enough where it fits only one set.
    metric : str, optional
        `"l2"`, `"ip"` or `"cosine"`; overrides what the set itself says. Sets that say
        nothing are `"l2"`.

    Raises
    ------
    FileNotFoundError
        If no such set exists; the message lists the folders that were searched.
    ValueError
        If the files do not fit together or the metric is unknown.
    """
    path = find(name_or_path)
    base, queries, truth, said = _read_hdf5(path) if path.is_file() else _read_folder(path)
    chosen = metric_name(metric or said or "l2")
    if base.ndim != 2 or queries.ndim != 2 or base.shape[1] != queries.shape[1]:
        raise ValueError(
            f"{path.name}: base {base.shape} and queries {queries.shape} do not fit together"
        )
    base, queries = _plain(base), _plain(queries)
    # True neighbours that were stored belong to the metric the set was made for.
    if truth is None or chosen != metric_name(said or chosen):
        truth = cached_truth(base, queries, chosen, min(TRUTH_K, len(base)))
    if len(truth) != len(queries) or truth.min() < 0 or truth.max() >= len(base):
        raise ValueError(f"{path.name}: the ground truth does not belong to these vectors")
    return DataSet(base, queries, np.ascontiguousarray(truth, dtype=np.int64), chosen)


def first_rows(data: DataSet, rows: int) -> DataSet:
    """Return a set's first rows with the same queries and the true neighbours among those rows.

    Raises
    ------
    ValueError
        If the set has fewer rows.
    """
    if not 0 < rows <= len(data.base):
        raise ValueError(f"rows: expected 1 to {len(data.base)}, got {rows}")
    if rows == len(data.base):
        return data
    base = data.base[:rows]
    truth = cached_truth(base, data.queries, data.metric, min(TRUTH_K, rows))
    return data._replace(base=base, truth=np.ascontiguousarray(truth, dtype=np.int64))


def find(name_or_path: str | Path) -> Path:
    """Return the folder or HDF5 file that a path or name stands for."""
    given = Path(name_or_path)
    if given.exists():
        is_array_file = given.is_file() and given.suffix not in (".hdf5", ".h5")
        return given.parent if is_array_file else given
    for matches in (_exact_matches, _prefix_matches):
        for root in search_folders():
            found = matches(root, str(name_or_path))
            if len(found) == 1:
                return found[0]
    places = ", ".join(str(root) for root in search_folders())
    raise FileNotFoundError(f"no vector set {str(name_or_path)!r} here or in: {places}")


def search_folders() -> list[Path]:
    """Return the folders in which names are looked up, in order."""
    given = os.environ.get("VICINAL_DATA")
    return [Path(given), SMALL_SETS] if given else [SMALL_SETS]


def at_hand() -> list[str]:
    """Return the names of the sets in the first search folder."""
    return [path.name for path in _prefix_matches(search_folders()[0], "")]


def _exact_matches(root: Path, name: str) -> list[Path]:
    candidates = (root / name, root / f"{name}.hdf5", root / f"{name}.h5")
    return [path for path in candidates if path.exists()][:1]


def _prefix_matches(root: Path, name: str) -> list[Path]:
    is_set = (path for path in sorted(root.glob(f"{name}*")) if path.is_dir())
    return [path for path in is_set if (path / "manifest.json").exists()]


def metric_name(text: str) -> str:
    """Return `"l2"`, `"ip"` or `"cosine"` for the way a set describes its distance."""
    words = text.lower().replace("-", " ").replace("_", " ").split()
    if not words or words[0] not in METRIC_WORDS:
        raise ValueError(f"metric: expected one of {sorted(METRIC_WORDS)}, got {text!r}")
    return METRIC_WORDS[words[0]]


def _plain(array: Array) -> Array:
    # float16 is how small sets are stored, not what an index is fed with.
    if array.dtype.kind == "f":
        return np.ascontiguousarray(array, dtype=np.float32)
    return np.ascontiguousarray(array)


def _read_folder(folder: Path) -> tuple[Array, Array, Array | None, str | None]:
    manifest = folder / "manifest.json"
    said = json.loads(manifest.read_text())["metric"] if manifest.exists() else None
    if (folder / "vectors_u8.npz").exists():
        vectors = np.load(folder / "vectors_u8.npz")
        truth = np.load(folder / "groundtruth.npz")["ids"]
        return vectors["train"], vectors["test"], truth, said
    for ending in ("", "_u8", "_f16"):
        if (folder / f"base{ending}.npy").exists():
            stored = folder / "gt_ids.npy"
            return (
                np.load(folder / f"base{ending}.npy"),
                np.load(folder / f"queries{ending}.npy"),
                np.load(stored) if stored.exists() else None,
                said,
            )
    for base in _vecs(folder, "base"):
        for queries in _vecs(folder, "query"):
            truths = list(folder.glob("*groundtruth.ivecs"))
            truth_ids = read_vecs(truths[0]) if truths else None
            return read_vecs(base), read_vecs(queries), truth_ids, said
    raise FileNotFoundError(
        f"{folder.name}: expected base.npy, base_u8.npy, base_f16.npy, vectors_u8.npz or "
        "*base.fvecs in it"
    )


def _vecs(folder: Path, what: str) -> Iterable[Path]:
    return sorted(p for p in folder.glob(f"*{what}.?vecs") if p.suffix in (".fvecs", ".bvecs"))


def _read_hdf5(path: Path) -> tuple[Array, Array, Array | None, str | None]:
    import h5py  # type: ignore[import-not-found, import-untyped, unused-ignore]

    with h5py.File(path, "r") as file:
        truth = file["neighbors"][:] if "neighbors" in file else None
        distance = file.attrs.get("distance")
        said = distance.decode() if isinstance(distance, bytes) else distance
        return file["train"][:], file["test"][:], truth, said


def read_vecs(path: str | Path) -> Array:
    """Read an fvecs (float32), ivecs (int32) or bvecs (uint8) file into an (n, dim) array.

    Each vector is stored as its dimension in a little-endian int32, then its values.
    """
    path = Path(path)
    item = {".fvecs": "<f4", ".ivecs": "<i4", ".bvecs": "u1"}.get(path.suffix)
    if item is None:
        raise ValueError(f"{path.name}: expected a name ending in .fvecs, .ivecs or .bvecs")
    raw = np.fromfile(path, dtype=np.uint8)
    dim = int(raw[:4].view("<i4")[0]) if raw.size >= 4 else 0
    stride = 4 + dim * np.dtype(item).itemsize
    if dim < 1 or raw.size % stride:
        raise ValueError(f"{path.name}: {raw.size} bytes are not whole vectors of dimension {dim}")
    records = raw.reshape(-1, stride)
    if (records[:, :4] != records[0, :4]).any():
        raise ValueError(f"{path.name}: the vectors differ in dimension")
    return np.ascontiguousarray(records[:, 4:]).view(item)


def exact_distances(rows: Array, query: Array, metric: str) -> Array:
    """Return the distances from one query to the given rows in float64, by the definition."""
    rows, query = rows.astype(np.float64), query.astype(np.float64)
    if metric == "l2":
        return np.asarray(((rows - query) ** 2).sum(axis=1))
    dots = rows @ query
    if metric == "cosine":
        norms = np.linalg.norm(rows, axis=1) * np.linalg.norm(query)
        dots = dots / np.where(norms > 0, norms, 1.0)
    return np.asarray(1.0 - dots)


def exact_neighbours(base: Array, queries: Array, metric: str, k: int) -> Array:
    """Return the ids of the k nearest rows of each query, ties by row number, in float64.

    Independent of the library under test. A matrix product picks candidates; they are then
    measured by the definition, because the product cancels digits.
    """
    rows = base.astype(np.float64)
    if metric == "cosine":
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300)
    # The score is smallest for the nearest row; the query's own norm does not change the order.
    offset = (rows**2).sum(axis=1) if metric == "l2" else np.zeros(len(rows))
    scale = 2.0 if metric == "l2" else 1.0
    spare = min(len(base), k + 32)
    found = np.empty((len(queries), k), dtype=np.int64)
    for start in range(0, len(queries), 256):
        block = queries[start : start + 256].astype(np.float64)
        scores = offset - scale * (block @ rows.T)
        near = np.argpartition(scores, spare - 1, axis=1)[:, :spare]
        for i, candidates in enumerate(near):
            candidates = np.sort(candidates)
            distances = exact_distances(base[candidates], queries[start + i], metric)
            order = np.argsort(distances, kind="stable")[:k]
            found[start + i] = candidates[order]
    return found


def cached_truth(base: Array, queries: Array, metric: str, k: int) -> Array:
    """Return `exact_neighbours`, computed once per content of the arrays and then read back."""
    digest = hashlib.blake2b(f"{metric} {k} {base.dtype} {base.shape}".encode(), digest_size=16)
    for array in (base, queries):
        digest.update(memoryview(np.ascontiguousarray(array)).cast("B"))
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = root / "vicinal-bench" / f"truth-{digest.hexdigest()}.npy"
    if path.exists():
        return np.asarray(np.load(path))
    ids = exact_neighbours(base, queries, metric, k)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.npy")
    np.save(partial, ids)
    partial.replace(path)
    return ids


def recall_at_k(found: Array, data: DataSet, k: int = 10) -> float:
    """Return the mean share of the k true neighbours found, a tie with the k-th counted as found.

    `found` is (queries, >= k); -1 and repeated ids count as nothing. Distances that decide a
    tie are computed in float64, as ann-benchmarks does.
    """
    hits = 0
    for query, ids, truth in zip(data.queries, found[:, :k], data.truth, strict=True):
        distinct = np.unique(ids[(ids >= 0) & (ids < len(data.base))])
        others = np.setdiff1d(distinct, truth[:k])
        hits += len(distinct) - len(others)
        if len(others):
            bound = exact_distances(data.base[truth[k - 1 : k]], query, data.metric)[0]
            hits += int((exact_distances(data.base[others], query, data.metric) <= bound).sum())
    return hits / (k * len(found))
