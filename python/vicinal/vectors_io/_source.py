"""What every source of vectors has in common: a shape, batches, windows, ids."""

from __future__ import annotations

import importlib
import io
import operator
import os
import stat
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vicinal import _kinds, _validate
from vicinal.errors import FormatError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "MAX_DIM",
    "Array",
    "Piece",
    "RowError",
    "SeekableSource",
    "VectorSource",
    "buffer",
    "check_shape",
    "extra",
    "numbers_dtype",
    "open_file",
    "plain",
]

Array = np.ndarray[Any, np.dtype[Any]]
Piece = tuple[Array, "Array | None"]
"""Consecutive rows, and their ids where the source has some."""

MAX_DIM = 65536  # what an index takes; it also bounds what one row of a damaged file may claim
BATCH_BYTES = 32 << 20


class RowError(ValueError):
    """A row of a source that cannot be used; rows of earlier batches may have been.

    Attributes
    ----------
    row : int
        Its place in the source, from 0.
    added : int
        Rows of the source that `Index.add` has added before it gave up; `source[added:]` is what is
        left. 0 where nothing was added.
    """

    def __init__(self, message: str, row: int, added: int = 0) -> None:
        super().__init__(message)
        self.row = row
        self.added = added


def extra(module: str, name: str, what: str) -> Any:
    """Import a module of an extra; ImportError that names the extra if it is not there."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ImportError(
            f"{what} needs {package}, which cannot be imported ({error}): "
            f"pip install 'vicinal[{name}]'"
        ) from error


class _File(io.BufferedReader):
    """A file that is closed with its source, or when nothing needs it, without a warning."""

    def __init__(self, path: Any) -> None:
        # a pipe that nobody writes to is refused rather than waited for
        number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            super().__init__(io.FileIO(number, closefd=False))
        except BaseException:
            os.close(number)
            raise
        self._end = weakref.finalize(self, os.close, number)

    def close(self) -> None:
        super().close()
        self._end()


def open_file(path: Any) -> tuple[IO[bytes], int]:
    """Open a regular file for reading; return it and its size."""
    if isinstance(path, int):
        raise TypeError("source: expected a path, got a number")
    file = _File(path)
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode):
        file.close()
        raise FormatError(f"{os.fsdecode(path)}: expected a regular file, whose size is known")
    return file, status.st_size


def check_shape(name: str, rows: int, dim: int) -> None:
    """Refuse a shape that no index can hold; FormatError."""
    if not 0 <= rows <= _validate.MAX_COUNT:
        raise FormatError(f"{name}: expected at most {_validate.MAX_COUNT} rows, got {rows}")
    if not 1 <= dim <= MAX_DIM:
        raise FormatError(f"{name}: expected rows of 1 to {MAX_DIM} values, got {dim}")


def numbers_dtype(name: str, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return a dtype of real numbers in this machine's byte order; FormatError for any other."""
    if dtype.kind not in "fiu" and dtype.name != "bfloat16":
        kind = "pickled objects" if dtype.hasobject else f"values of type {dtype}"
        raise FormatError(f"{name}: expected real numbers, got {kind}")
    native: np.dtype[Any] = dtype.newbyteorder("=")
    return native


def buffer(array: Array) -> memoryview:
    """Return the bytes of a C-contiguous array."""
    return array.reshape(-1).view(np.uint8).data


def plain(rows: Array) -> Array:
    """Return rows as C-contiguous and aligned, in this machine's byte order."""
    native = rows.dtype.newbyteorder("=")
    return np.require(rows, native, ["C", "A"])


class VectorSource(ABC):
    """Vectors that can be read a batch at a time; what `read_vectors` returns.

    Slices of consecutive rows are sources as well: `source[1000:]`. Also a context manager, which
    closes the file.

    Attributes
    ----------
    name : str
        The file, or what kind of object it is.
    format : str
        One of `vectors_io.FORMATS`, or "memory".
    shape : tuple of int
        Rows and values in each.
    dtype : numpy.dtype
        Of the batches, in this machine's byte order.
    index_dtype : str
        What an index stores them as without loss, or "float32" for other numbers.
    metric : {"l2", "ip", "cosine"} or None
        The distance that the file names, as ann-benchmarks' files do.
    has_ids : bool
        True if batches come with ids.
    """

    format = "memory"

    def __init__(
        self,
        name: str,
        rows: int,
        dim: int,
        dtype: np.dtype[Any],
        *,
        metric: str | None = None,
        index_dtype: str | None = None,
        has_ids: bool = False,
    ) -> None:
        check_shape(name, rows, dim)
        self.name = name
        self.shape = (int(rows), int(dim))
        self.dtype = dtype
        self.metric = metric
        stored = index_dtype or dtype.name
        self.index_dtype = stored if stored in _kinds.DTYPES else "float32"
        self.has_ids = has_ids
        self._given_ids: Array | None = None

    # ---- what each kind of source defines

    @abstractmethod
    def _stream(self, start: int, stop: int, rows: int) -> Iterator[Piece]:
        """Yield rows from `start` to `stop` in order, in pieces of any size near `rows`."""

    def close(self) -> None:  # noqa: B027 (not every source has a file)
        """Close the file; what was read stays."""

    # ---- what users call

    def __len__(self) -> int:
        return self.shape[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        ids = ", with ids" if self.has_ids else ""
        n, dim = self.shape
        return f"vicinal.VectorSource({self.name}, {self.format}, {n} x {dim} {self.dtype}{ids})"

    def __getitem__(self, rows: slice) -> VectorSource:
        if not isinstance(rows, slice):
            raise TypeError(f"rows: expected a slice, got {type(rows).__name__}")
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise ValueError(f"rows: expected consecutive ones, got step {step}")
        return _Window(self, start, max(start, stop))

    def batch_rows(self) -> int:
        """Return how many rows a batch has by default: about 32 MiB of them."""
        return max(1, min(BATCH_BYTES // (self.shape[1] * self.dtype.itemsize), 1 << 20))

    def pieces(self, rows: int | None = None) -> Iterator[Piece]:
        """Yield (vectors, ids or None) of `rows` rows each, the last of what is left."""
        size = self.batch_rows() if rows is None else operator.index(rows)
        if size < 1:
            raise ValueError(f"rows: expected at least 1, got {size}")
        return self._exact(size)

    def _exact(self, size: int) -> Iterator[Piece]:
        kept: list[Piece] = []
        count = start = 0
        for piece in self._stream(0, len(self), size):
            kept.append(piece)
            count += len(piece[0])
            while count >= size:
                whole, rest = _split(kept, size)
                yield self._with_ids(whole, start)
                start += size
                count -= size
                kept = [rest] if count else []
        if count:
            yield self._with_ids(_split(kept, count)[0], start)
            start += count
        if start != len(self):
            raise FormatError(f"{self.name}: expected {len(self)} rows, got {start}")

    def batches(self, rows: int | None = None) -> Iterator[Array | tuple[Array, Array]]:
        """Go through all rows in order.

        Parameters
        ----------
        rows : int, optional
            Rows of a batch, at least 1; the last has what is left. By default about 32 MiB.

        Yields
        ------
        ndarray of shape (rows, dim), or (vectors, ids) if `has_ids`
            C-contiguous; ids are int64, or an object array of `str`. Of a source in memory these
            may be views.

        Raises
        ------
        FormatError
            If the file is damaged or was shortened meanwhile.
        RowError
            If a row cannot be used; it is named, and no batch that holds it comes.

        Notes
        -----
        Holds one or two batches at a time. Every call begins anew. Threads: one iterator per
        thread; any number of iterators.
        """
        return (v if ids is None else (v, ids) for v, ids in self.pieces(rows))

    def read(self) -> Array | tuple[Array, Array]:
        """Return all rows at once, as one batch of `batches`."""
        if not len(self):
            empty = np.empty(self.shape, self.dtype)
            return (empty, self._no_ids()) if self.has_ids else empty
        return next(iter(self.batches(len(self))))

    # ---- ids that were given beside the vectors

    def with_ids(self, ids: Array) -> Self:
        """Give every row an id; ValueError if there are not as many."""
        if ids.shape != (len(self),):
            raise ValueError(f"ids: expected ({len(self)},) for {self.name}, got {ids.shape}")
        self._given_ids = ids
        self.has_ids = True
        return self

    def _no_ids(self) -> Array:
        return np.empty(0, np.int64) if self._given_ids is None else self._given_ids[:0]

    def _with_ids(self, piece: Piece, start: int) -> Piece:
        if self._given_ids is None:
            return piece
        return piece[0], self._given_ids[start : start + len(piece[0])]


class SeekableSource(VectorSource):
    """A source that can be read anywhere."""

    @abstractmethod
    def _read(self, start: int, stop: int) -> Piece:
        """Return rows."""

    def _stream(self, start: int, stop: int, rows: int) -> Iterator[Piece]:
        """Yield rows, each piece read by itself."""
        for first in range(start, stop, rows):
            yield self._read(first, min(first + rows, stop))


class _Window(VectorSource):
    """Consecutive rows of another source."""

    def __init__(self, source: VectorSource, start: int, stop: int) -> None:
        super().__init__(
            source.name,
            stop - start,
            source.shape[1],
            source.dtype,
            metric=source.metric,
            index_dtype=source.index_dtype,
        )
        self.format = source.format
        self.has_ids = source.has_ids
        self._source = source
        self._start = start

    def _stream(self, start: int, stop: int, rows: int) -> Iterator[Piece]:
        at = start + self._start
        for piece in self._source._stream(at, stop + self._start, rows):
            yield self._source._with_ids(piece, at)
            at += len(piece[0])

    def close(self) -> None:
        self._source.close()


def _split(pieces: list[Piece], size: int) -> tuple[Piece, Piece]:
    """Return the first `size` rows of some pieces, and the rest of the last one."""
    vectors, ids = pieces[-1]
    first = size - sum(len(piece[0]) for piece in pieces[:-1])
    rest = (vectors[first:], None if ids is None else ids[first:])
    pieces = [*pieces[:-1], (vectors[:first], None if ids is None else ids[:first])]
    if len(pieces) == 1:
        return pieces[0], rest
    named = [piece[1] for piece in pieces if piece[1] is not None]
    joined = np.concatenate([piece[0] for piece in pieces])
    return (joined, np.concatenate(named) if named else None), rest


def pick(name: str, choices: dict[str, Any], wanted: str | None, what: str) -> str:
    """Return which of several named arrays holds the vectors."""
    if wanted is not None:
        if wanted not in choices:
            raise KeyError(f"{name}: no {what} {wanted!r}; there are {_listed(choices)}")
        return wanted
    if len(choices) == 1:
        return next(iter(choices))
    usual = [key for key in ("vectors", "vector", "embeddings", "embedding") if key in choices]
    if len(usual) == 1:
        return usual[0]
    if not choices:
        raise FormatError(f"{name}: no {what} holds vectors")
    raise ValueError(f"vectors: expected the name of one {what} of {name}: {_listed(choices)}")


def _listed(choices: dict[str, Any]) -> str:
    names = [repr(key[:60]) for key in list(choices)[:10]]
    return ", ".join(names) + (f" and {len(choices) - 10} more" if len(choices) > 10 else "")


def own_ids(ids: Any, name: str) -> NDArray[Any]:
    """Return an array of ids as int64 or as an object array of str."""
    array = np.asarray(ids)
    if array.dtype.kind == "U" or (
        array.dtype.kind in "OT" and array.size and isinstance(array.flat[0], str)
    ):
        for row, item in enumerate(array.flat):
            if not isinstance(item, str):
                kind = type(item).__name__
                raise RowError(f"{name}: row {row} has an id of type {kind}, not str", row)
        return array.astype(object)
    return _validate.as_ids(ids)
