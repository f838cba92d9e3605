"""The plan of a build: all rows in one file, and which parts each of them goes to."""

from __future__ import annotations

import contextlib
import hashlib
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vicinal import _validate
from vicinal._progress import Report
from vicinal.errors import FormatError
from vicinal.parts import _sizes
from vicinal.parts._clusters import MOST_COPIES, Clusters, mixed
from vicinal.parts._file import ArrayFile, write_arrays
from vicinal.parts._rows import Batches, Parameters, RowsFile, StoredRows, opened, write_rows_file
from vicinal.vectors_io._source import VectorSource, buffer

__all__ = ["Plan", "assign", "make_plan", "plan"]

FORMAT = 2  # of plans and parts; other numbers are other files
_SAMPLE = 256  # rows for each part, to find clusters from
_LEAST_SAMPLE, _SAMPLE_VALUES = 4096, 1 << 24
_NONE = 65_535  # no part
_SORTED = 1 << 18  # rows put in order of parts at once
_VALUES = 1 << 20  # of a block of rows that is assigned at once


class Plan:
    """A plan that was written; see `vicinal.parts.plan`.

    Attributes
    ----------
    path, folder : str
    rows, parts : int
    digest : str
        Of the rows, the parameters and the parts; part files hold it.
    parameters : dict
        Of the index.
    give_back : bool
        Whether a bound on memory is to be kept.
    """

    def __init__(self, path: Any) -> None:
        self.path = os.fsdecode(path)
        self.folder = os.path.dirname(self.path)
        self._file = ArrayFile(self.path)
        header = self._file.header
        if header.get("kind") != "plan" or header.get("format") != FORMAT:
            raise FormatError(f"{self.path}: expected the plan of a build of this version")
        self.digest: str = header["digest"]
        self.input: str = header["input"]
        self.rows: int = header["rows"]
        self.parts: int = header["parts"]
        self.parameters: Parameters = header["parameters"]
        self.give_back: bool = header["give_back"]

    def rows_path(self) -> str:
        """Return the path of the file of all rows."""
        return os.path.join(self.folder, "rows.vicinal")

    def part_path(self, part: int) -> str:
        """Return the path of the file of a part."""
        return os.path.join(self.folder, f"part-{part:05}")

    def members(self, part: int) -> NDArray[np.uint32]:
        """Return the rows of a part, ascending."""
        starts = self._file.array("starts", check=False)
        members: NDArray[np.uint32] = self._file.array("members", check=False)
        return np.array(members[int(starts[part]) : int(starts[part + 1])])

    def sizes(self) -> NDArray[np.int64]:
        """Return the rows of each part."""
        return np.diff(self._file.array("starts", check=False))

    def check(self) -> None:
        """Compare the arrays of the plan with their checksums."""
        for name in ("starts", "members"):
            self._file.array(name)


def plan(
    source: Any,
    scratch: str | os.PathLike[str],
    *,
    vectors: str | None = None,
    ids: Any = None,
    metric: str | None = None,
    dtype: Any = None,
    parts: int | None = None,
    memory: int | str | None = None,
    M: int = 16,
    ef_construction: int = 200,
    quantization: str | None = "auto",
    seed: int = 0,
    num_threads: int | None = None,
) -> str:
    """Write all rows of a source into a folder, and decide which parts each goes to.

    Every row goes to the two nearest of `parts` clusters of about equal size. The same rows and
    parameters make the same plan.

    Parameters
    ----------
    source, vectors, ids, metric, dtype
        As for `vicinal.build`.
    scratch : str or path-like
        A folder, made if it is not there. What is in it of the same plan is used again.
    parts : int, optional
        Parts, 1 to 65,534; by default decided from the rows and `memory`.
    memory : int or str, optional
        As for `vicinal.build`.
    M, ef_construction, quantization, seed
        As for `Index`.
    num_threads : int, optional
        Threads that will join the parts, for which `memory` must do; it changes no byte.

    Returns
    -------
    str
        The path of the plan, for `build_part` and `join`.

    Raises
    ------
    RowError, OSError, FormatError, TypeError, ValueError
        As `vicinal.build`.
    """
    bound = None if memory is None else _sizes.as_bytes(memory)
    threads = _validate.thread_count(num_threads)
    wanted = None if parts is None else _validate.whole_number(parts, "parts", 1, _sizes.MOST_PARTS)
    source_, parameters = prepare(
        source, vectors, ids, metric, dtype, M, ef_construction, quantization, seed
    )
    try:
        made = make_plan(source_, os.fsdecode(scratch), parameters, wanted, bound, threads)
        return made.path
    finally:
        if source_ is not source:
            source_.close()


def prepare(
    source: Any,
    vectors: str | None,
    ids: Any,
    metric: str | None,
    dtype: Any,
    M: int,
    ef_construction: int,
    quantization: str | None,
    seed: int,
) -> tuple[VectorSource, Parameters]:
    """Open a source and return it with the checked parameters of an index of it."""
    from vicinal.index import Index
    from vicinal.vectors_io._to_index import _has_strings, values_of

    found = opened(source, vectors, ids)
    try:
        kind = "str" if _has_strings(found) else "int64"
        if isinstance(found, Batches):
            kind = found.id_kind
        index = Index(
            values_of(found, dtype),
            metric or found.metric or "l2",
            dtype=found.index_dtype if dtype is None else dtype,
            M=M,
            ef_construction=ef_construction,
            quantization=quantization,
            seed=seed,
            ids=kind,
        )
        parameters: Parameters = {
            "dim": index.dim,
            "metric": index.metric,
            "dtype": index.dtype,
            "M": int(M),
            "ef_construction": int(ef_construction),
            "quantization": quantization,
            "seed": int(seed),
            "ids": kind,
        }
        return found, parameters
    except BaseException:
        if found is not source:
            found.close()
        raise


def make_plan(
    source: VectorSource,
    folder: str,
    parameters: Parameters,
    parts: int | None,
    memory: int | None,
    threads: int,
    progress: Report | None = None,
) -> Plan:
    """Write the rows and the plan; see `plan`."""
    os.makedirs(folder, exist_ok=True)
    rows_path = os.path.join(folder, "rows.vicinal")
    new = rows_path + ".new"
    try:
        count = write_rows_file(new, source, parameters)
        if not count:
            raise ValueError(f"source: expected at least one row, {source.name} has none")
        if parts is None or memory is not None:
            decided = _sizes.number_of_parts(
                count, parameters["dim"], parameters["dtype"], parameters["M"], memory, threads
            )
            parts = decided if parts is None else parts
        parts = min(parts, count)
        given = _digest_of_rows(new, {**parameters, "parts": parts})
        path = os.path.join(folder, "plan")
        with contextlib.suppress(OSError, ValueError, KeyError):
            old = Plan(path)
            if old.input == given and os.path.exists(rows_path):
                old.check()
                if old.give_back == (memory is not None):
                    return old
        os.replace(new, rows_path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)
    starts, members = assign(RowsFile(rows_path), parts, parameters["seed"])
    digest = hashlib.sha256(given.encode() + starts.tobytes())
    digest.update(buffer(members))
    header = {
        "kind": "plan",
        "format": FORMAT,
        "input": given,
        "digest": digest.hexdigest(),
        "rows": count,
        "parts": len(starts) - 1,
        "parameters": parameters,
        "give_back": memory is not None,
    }
    write_arrays(path, header, {"starts": starts, "members": members})
    return Plan(path)


def _digest_of_rows(path: str, parameters: Parameters) -> str:
    """Return a digest of rows and parameters; the header of a file sums its checksums."""
    with open(path, "rb") as file:
        head = file.read(4096)
    text = f"{FORMAT} {sorted(parameters.items())}"
    return hashlib.sha256(head + text.encode()).hexdigest()


def assign(rows: StoredRows, parts: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
    """Return where each part begins in the list of members, and the list."""
    count = rows.count
    if parts == 1:
        return np.array([0, count]), np.arange(count, dtype=np.uint32)
    most = max(_LEAST_SAMPLE, _SAMPLE_VALUES // rows.values)
    size = min(count, max(min(_SAMPLE * parts, most), 4 * parts))
    sample = np.sort(np.argsort(mixed(seed, count), kind="stable")[:size])
    clusters = Clusters(rows.numbers(sample), parts, rows.metric, seed)
    near = np.empty((count, MOST_COPIES), np.uint16)
    step = max(64, _VALUES // max(rows.values, parts))
    for start in range(0, count, step):
        block = slice(start, min(start + step, count))
        near[block] = clusters.parts_of(rows.numbers(block))  # none becomes the largest number
    sizes = np.bincount(near.ravel(), minlength=_NONE + 1)[:parts]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    members = np.empty(int(starts[-1]), np.uint32)
    ends = starts[:-1].copy()
    for start in range(0, count, _SORTED):
        block_ = near[start : start + _SORTED]
        order = np.argsort(block_, axis=None, kind="stable")
        which = block_.ravel()[order]
        there = which != _NONE
        which, order = which[there].astype(np.int64), order[there]
        counts = np.bincount(which, minlength=parts)
        first = np.cumsum(counts) - counts
        members[(ends - first)[which] + np.arange(len(which))] = start + order // MOST_COPIES
        ends += counts
    return _cut(starts, members, 2 * int(starts[-1]) // parts + 64)


def _cut(
    starts: NDArray[np.int64], members: NDArray[np.uint32], most: int
) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
    """Cut parts that many equal or nearly equal rows have made too large, by row number.

    Clusters without rows are left out.
    """
    new = [0]
    for start, stop in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        pieces = -(-(stop - start) // most)
        new += [start + (stop - start) * i // pieces for i in range(1, pieces + 1)]
    return np.array(new, np.int64), members
