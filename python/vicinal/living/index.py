"""An index whose changes go to a journal beside its file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike, NDArray

from vicinal import _identity, _persistence
from vicinal._progress import Report
from vicinal._state import PathLike
from vicinal.index import Index

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from vicinal.living.writer import Writer
    from vicinal.vectors_io import VectorSource

__all__ = ["LivingIndex"]


class LivingIndex(Index):
    """An index that `vicinal.open(path, mode="rw")` returned: its changes survive what happens.

    Everything that an `Index` does, and `flush`, `checkpoint` and `close`. A change is in memory
    when its call returns, and in the journal beside the file, on the disk, once `flush` has
    returned. A `with` block closes the index at its end.

    `copy`, pickles and `save` to another path give plain indexes.

    Notes
    -----
    Threads: as `Index`; `flush` and `checkpoint` may be called by any number of threads at any
    time. A forked child can search its copy but not change it.

    Examples
    --------
    >>> import tempfile, vicinal
    >>> path = tempfile.mkdtemp() + "/small.vicinal"
    >>> vicinal.Index(2).save(path)
    >>> with vicinal.open(path, mode="rw") as index:
    ...     index.add([[0, 0], [3, 4]])
    ...     index.flush()
    array([0, 1])
    >>> len(vicinal.open(path))
    2
    """

    __slots__ = ()

    _log: Writer

    # ---- making changes durable

    def flush(self) -> None:
        """Return once all changes that were made before the call are on the disk.

        Calls of several threads at one time share one wait for the disk (group commit).

        Raises
        ------
        OSError
            If the system refuses. The changes stay in memory and the next call tries again; where
            the disk itself failed (fsync), that call writes a new file and a new journal, since the
            system may have dropped what it could not write.
        ValueError
            If the index is closed, or this process is a forked child.

        Notes
        -----
        Also written: `ef_search`, `attributes` and what `tune` has found, if they have changed. The
        sample of `keep_queries`, and the new graph after `compact`, are in the file from the next
        checkpoint on.
        """
        self._log.flush()

    def checkpoint(self) -> None:
        """Write the index to its file, and begin the journal anew.

        The new file takes the place of the old one once it is whole and on the disk. A crash at any
        moment leaves a file and a journal that together hold all that was flushed.

        Raises
        ------
        OSError
            If the system refuses; file and journal are as before, or hold the same together.
        ConflictError
            If somebody else has replaced the file.
        ValueError
            As `flush`.

        Notes
        -----
        A forked child process, without any Python in it, writes the index as it is at the moment of
        the call, so that searches never wait and changes only while the system copies its tables of
        pages, some milliseconds a gigabyte. Memory that changes meanwhile is there twice. Where the
        system refuses to fork, changes wait until the file is written.
        """
        self._log.checkpoint()

    def close(self, *, checkpoint: bool = True) -> None:
        """Flush, fold the journal into the file, and let others write; a second call does nothing.

        Parameters
        ----------
        checkpoint : bool
            False leaves the journal as it is, which takes no time: the next mode="rw" or
            follow=True reads it.

        Raises
        ------
        OSError, ConflictError
            As `flush` and `checkpoint`; the index stays open then.

        Notes
        -----
        Searches go on in memory; changes are refused. An index that is forgotten is flushed and
        closed without a checkpoint, also at the end of the interpreter.
        """
        self._log.close(checkpoint)

    @property
    def closed(self) -> bool:
        """True once `close` has been called."""
        return self._log.closed

    @property
    def journal_bytes(self) -> int:
        """Bytes of changes in the journal, those with them that are still in memory."""
        return self._log.journal.size

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # ---- changing: what `Index` does, and a flush every so many changes

    def _require_writable(self) -> None:
        if self._log is not None:  # while a journal is being made again there is none
            self._log.require_open()

    def add(
        self,
        vectors: ArrayLike | VectorSource | Iterator[Any],
        ids: ArrayLike | None = None,
        **options: Any,
    ) -> NDArray[Any]:
        """As `Index.add`."""
        added = super().add(vectors, ids, **options)
        self._log.changed()
        return added

    def update(self, vectors: ArrayLike, ids: ArrayLike, **options: Any) -> None:
        """As `Index.update`."""
        super().update(vectors, ids, **options)
        self._log.changed()

    def remove(self, ids: ArrayLike, **options: Any) -> None:
        """As `Index.remove`."""
        super().remove(ids, **options)
        self._log.changed()

    def merge(
        self,
        other: Index,
        *,
        num_threads: int | None = None,
        progress: bool | Report | None = None,
    ) -> NDArray[Any]:
        """As `Index.merge`."""
        added = super().merge(other, num_threads=num_threads, progress=progress)
        self._log.changed()
        return added

    # ---- files, copies, pickles

    def save(self, path: PathLike, *, force: bool = False) -> None:
        """As `Index.save`; to the file that is open it is a `checkpoint`."""
        if _identity.same_file(path, self._log.path):
            self._log.checkpoint()
        else:
            _persistence.save(self, path, force)

    def copy(self) -> Index:  # type: ignore[override]
        """Return a plain index in memory that holds the same; nothing of it goes to the journal."""
        return _persistence.from_bytes(Index, _persistence.to_bytes(self))

    def __deepcopy__(self, memo: dict[int, Any]) -> Index:  # type: ignore[override]
        new = memo[id(self)] = self.copy()
        return new

    def __reduce__(self) -> tuple[Any, ...]:
        return Index._from_bytes, (_persistence.to_bytes(self),)

    # ---- what it tells

    def __repr__(self) -> str:
        text = super().__repr__().replace("vicinal.Index(", "vicinal.LivingIndex(", 1)
        return f"{text}, {'closed' if self.closed else f'journal of {self.journal_bytes} bytes'}"

    def stats(self) -> dict[str, Any]:
        """As `Index.stats`, and `journal`: its `bytes`, and how often the disk was waited for."""
        journal = self._log.journal
        return {**super().stats(), "journal": {"bytes": journal.size, "syncs": journal.syncs}}
