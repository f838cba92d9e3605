"""From a source into an index, a batch at a time, and from an index into tables and files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vicinal import _kinds, _validate
from vicinal._progress import Report, reporting
from vicinal.vectors_io._open import read_vectors
from vicinal.vectors_io._source import Array, RowError, VectorSource

if TYPE_CHECKING:
    from vicinal.index import Index

__all__ = ["add_source", "build"]


def build(
    source: Any,
    path: str | os.PathLike[str] | None = None,
    *,
    vectors: str | None = None,
    ids: Any = None,
    metric: str | None = None,
    dtype: Any = None,
    M: int = 16,
    ef_construction: int = 200,
    quantization: str | None = "auto",
    seed: int = 0,
    memory: int | str | None = None,
    parts: int | None = None,
    executor: Any = None,
    scratch: str | os.PathLike[str] | None = None,
    num_threads: int | None = None,
    progress: bool | Report | None = None,
) -> Index:
    """Make an index of all vectors of a source, in memory or, with `path`, in a file.

    Parameters
    ----------
    source : str, path-like or object
        What `read_vectors` takes, or what it returned. With `path` also an iterator of batches,
        arrays or (vectors, ids): the same rows make the same file. Fewer than 200,000 rows of it
        are held in memory, if `memory` allows, more are written to disk first.
    path : str or path-like, optional
        The index file to write; one of that name is replaced once the new one is whole.
    vectors, ids
        As for `read_vectors`. String ids make an index of string ids.
    metric : {"l2", "ip", "cosine", "hamming", "jaccard"}, optional
        By default what the file names (HDF5 files of ann-benchmarks), else "l2".
    dtype : str or dtype, optional
        What a value is stored as; by default the source's own type if an index can store it, else
        "float32". "b1" takes rows of packed bits, as `numpy.packbits` makes them.
    M, ef_construction, quantization, seed
        As for `Index`.
    memory : int or str, optional
        Bytes, or a text like "4GB", that the resident memory of this process, and of each worker,
        keeps below; with `path` only. Vectors then stay on disk.
    parts : int, optional
        Parts that are linked each alone and then joined, 1 to 65,534; with `path` only. By default
        1 below 200,000 rows, else, and where `memory` asks for it, as many as the rows and `memory`
        say; never a matter of threads, workers or machines.
    executor : object, optional
        Builds the parts: anything with `submit` (concurrent.futures, and what looks like it) or
        else `map`; workers must see the same files. With `path` only. By default threads do.
    scratch : str or path-like, optional
        Folder for the rows and the parts, by default `path` + ".parts". They are removed at the
        end; after an error or a crash the next call goes on from what is there.
    num_threads, progress
        As for `Index.add`; progress counts the rows of the whole source. Threads change no byte.

    Returns
    -------
    Index
        With `path` read-only, opened from the file by map.

    Raises
    ------
    RowError
        If a row is NaN, infinite, zero with metric "cosine", does not fit the stored dtype, or has
        an id that stands in the source before; it is named.
    OSError, FormatError, ImportError, KeyError, TypeError, ValueError
        As `read_vectors`, `Index` and `Index.add`. ValueError if `memory` does not do, naming what
        does; BlockingIOError if another build is at work in the scratch folder.

    Notes
    -----
    Without `path` holds one or two batches of 32 MiB beside the index. With `path`, the same rows,
    parameters, `memory` and `parts` make the same bytes. docs/guide/building.md has the costs.

    Examples
    --------
    >>> import numpy as np, vicinal
    >>> vicinal.build(np.eye(3, dtype="float16"), metric="cosine")
    vicinal.Index(dim=3, metric='cosine', dtype='float16', M=16, ef_construction=200, seed=0) \
with 3 rows
    """
    from vicinal.index import Index

    if path is not None:
        from vicinal.parts._build import build_file, check_executor
        from vicinal.parts._plan import prepare
        from vicinal.parts._sizes import MOST_PARTS, as_bytes

        bound = None if memory is None else as_bytes(memory)
        threads = _validate.thread_count(num_threads)
        wanted = None if parts is None else _validate.whole_number(parts, "parts", 1, MOST_PARTS)
        check_executor(executor)
        opened, parameters = prepare(
            source, vectors, ids, metric, dtype, M, ef_construction, quantization, seed
        )
        try:
            built: Index = build_file(
                opened,
                os.fsdecode(path),
                parameters,
                bound,
                wanted,
                executor,
                None if scratch is None else os.fsdecode(scratch),
                threads,
                progress,
            )
            return built
        finally:
            if opened is not source:
                opened.close()
    for name, value in (
        ("memory", memory),
        ("parts", parts),
        ("executor", executor),
        ("scratch", scratch),
    ):
        if value is not None:
            raise ValueError(f"{name}: expected None without a path to write the index to")
    opened = read_vectors(source, vectors, ids)
    try:
        index = Index(
            values_of(opened, dtype),
            metric or opened.metric or "l2",
            dtype=opened.index_dtype if dtype is None else dtype,
            M=M,
            ef_construction=ef_construction,
            quantization=quantization,
            seed=seed,
            ids="str" if _has_strings(opened) else "int64",
        )
        add_source(index, opened, num_threads=num_threads, progress=progress)
        return index
    finally:
        if opened is not source:
            opened.close()


def values_of(source: VectorSource, dtype: Any) -> int:
    """Return the dimension of an index of a source; packed bits are eight to an item."""
    packed = isinstance(dtype, str) and dtype == _kinds.PACKED
    return source.shape[1] * 8 if packed else source.shape[1]


def _has_strings(source: VectorSource) -> bool:
    if not source.has_ids or not len(source):
        return False
    _, ids = next(source[:1].pieces())
    return ids is not None and ids.dtype.kind == "O"


def add_source(
    index: Any,
    source: Any,
    ids: Any = None,
    on_conflict: str = "error",
    copy: bool | None = True,
    num_threads: int | None = None,
    progress: bool | Report | None = None,
) -> NDArray[Any]:
    """Add all rows of a source; what `Index.add` does when it is given one.

    Every batch is added whole or not at all. After an exception those before it stay:
    `RowError.added` says how many rows that is, and `source[added:]` is what is left.
    """
    if copy is False:
        raise ValueError("copy: expected True or None for a source, got False")
    if source.shape[1] != index._dim:
        raise ValueError(
            f"vectors: expected rows of {index._dim} values, {source.name} has {source.shape[1]}"
        )
    if ids is not None:
        source = read_vectors(source, ids=ids)
    given: list[NDArray[Any]] = []
    added = 0
    with reporting(progress, len(source)) as report:
        for vectors, names in source.pieces():
            at = added

            def told(done: int, _: int, at: int = at) -> None:
                if report is not None:
                    report(at + done, len(source))

            try:
                new = index.add(
                    vectors,
                    names,
                    on_conflict=on_conflict,
                    num_threads=num_threads,
                    progress=None if report is None else told,
                )
            except ValueError as error:
                raise _placed(index, source, vectors, names, added, error) from error
            given.append(new)
            added += len(vectors)
    if not given:
        return np.asarray(index.ids[:0])
    return np.concatenate(given)


def _placed(
    index: Index,
    source: VectorSource,
    vectors: Array,
    ids: Array | None,
    added: int,
    error: ValueError,
) -> ValueError:
    """Return an error about a batch as one about rows of the source."""
    row, said = _culprit(index, vectors, ids)
    if row is None:
        last = added + len(vectors) - 1
        return RowError(f"{source.name}: rows {added} to {last}: {error}", added, added)
    return RowError(f"{source.name}: row {added + row} {said or error}", added + row, added)


def _culprit(index: Index, vectors: Array, ids: Array | None) -> tuple[int | None, str]:
    """Return the first row of a batch that an index refuses, and why."""
    values = vectors.astype(np.float32) if vectors.dtype.name == "bfloat16" else vectors
    if values.dtype.kind == "f":
        with np.errstate(over="ignore"):
            # what float32, or the stored type, cannot hold is infinite there
            wide = np.float16 if index.dtype == "float16" else np.float32
            bad = ~np.isfinite(values.astype(wide)).all(axis=1)
        if bad.any():
            row = int(np.argmax(bad))
            finite = np.isfinite(values[row]).all()
            said = f"holds values beyond {index.dtype}" if finite else "holds NaN or infinity"
            return row, said
    if index.metric == "cosine":
        zero = ~values.any(axis=1)
        if zero.any():
            return int(np.argmax(zero)), "is zero, which has no direction: metric is 'cosine'"
    if index.dtype in ("int8", "uint8"):
        limits = np.iinfo(index.dtype)
        odd = ((values < limits.min) | (values > limits.max) | (values != np.floor(values))).any(1)
        if odd.any():
            row = int(np.argmax(odd))
            return row, (
                f"holds values other than whole numbers from {limits.min} to {limits.max} for "
                f"{index.dtype}"
            )
    if ids is not None:
        seen = set()
        for row, name in enumerate(ids.tolist()):
            if name in seen or name in index:
                return row, f"has the id {name!r}, which is taken"
            seen.add(name)
    return None, ""
