"""The writer of a living file: what changes is noted, flushed and folded here."""

from __future__ import annotations

import os
import threading
import warnings
import weakref
from contextlib import suppress
from typing import Any

from numpy.typing import NDArray

from vicinal import _identity
from vicinal._logging import WARNING, log
from vicinal._state import State
from vicinal.errors import ConflictError
from vicinal.living import checkpoint, records
from vicinal.living.journal import Journal, new_header, sync_folder
from vicinal.living.lock import FileLock
from vicinal.living.replay import settings_of

__all__ = ["Writer"]


class Writer:
    """Takes note of the changes of one index, and makes them durable.

    Threads: `wrote`, `removed` and `compacted` are called with the writer's lock of the index held,
    the others without it, by any number of threads.
    """

    def __init__(
        self,
        index: State,
        path: str,
        lock: FileLock,
        journal: Journal,
        flush_changes: int | None,
        flush_seconds: float | None,
    ) -> None:
        self._index = weakref.ref(index)
        self.path = path
        self.journal = journal
        self._process = os.getpid()
        self._seen = index._changes()  # how many changes had taken effect at the last note
        self._gap = False  # whether one took effect of which there is no note
        self._settings = settings_of(index)
        self._identity = _identity.of_path(path)
        self._noting = threading.Lock()
        self._folding = threading.Lock()
        self._flush_changes = flush_changes
        self._unflushed = 0
        self._failure: BaseException | None = None
        self.closed = False
        self._ended = threading.Event()
        self._abandoned = weakref.finalize(index, _abandon, os.getpid(), journal, lock, self._ended)
        if flush_seconds is not None:
            threading.Thread(
                target=_flush_often,
                args=(weakref.ref(self), self._ended, flush_seconds),
                name="vicinal-flush",
                daemon=True,
            ).start()

    def _of(self) -> State:
        index = self._index()
        assert index is not None  # it has this one
        return index

    def require_open(self) -> None:
        """Refuse to go on where nothing can be noted any more; ValueError."""
        if self.closed:
            raise ValueError("index: it is closed; open the file again to change it")
        if self._process != os.getpid():
            raise ValueError(
                "index: the process that opened it is the one that writes; a forked child can "
                "search its copy, or follow the file"
            )

    # ---- notes; the caller holds the writer's lock

    def begun_at(self, changes: int) -> None:
        """Compare how many changes there were before one with those that are noted."""
        self._gap = self._gap or changes != self._seen

    def wrote(self, ids: NDArray[Any], rows: NDArray[Any]) -> None:
        """Note rows that were added or replaced."""
        self._note(records.ROWS, records.of_rows(ids, rows))

    def removed(self, ids: NDArray[Any]) -> None:
        """Note rows that were removed."""
        self._note(records.REMOVED, records.of_ids(ids))

    def compacted(self) -> None:
        """Note that changes are counted anew; rows and ids are what they were."""
        self._seen = self._of()._changes()

    def _note(self, kind: int, content: bytes) -> None:
        self.journal.append(kind, content)
        self._seen = self._of()._changes()
        self._unflushed += 1

    # ---- making them durable

    def changed(self) -> None:
        """Flush if so many changes have come; called after each, without the writer's lock."""
        failure, self._failure = self._failure, None
        if failure is not None:
            warnings.warn(
                f"{self.path}: changes are not on the disk yet: {failure}", RuntimeWarning, 4
            )
        if self._flush_changes is not None and self._unflushed >= self._flush_changes:
            self.flush()

    def flush(self) -> None:
        """See `LivingIndex.flush`."""
        self.require_open()
        if self.journal.doubtful is not None or self._missed():
            self.checkpoint()
            return
        with self._noting:
            settings = settings_of(self._of())
            if settings != self._settings:
                self.journal.append(records.SETTINGS, records.of_settings(settings))
                self._settings = settings
        self._unflushed = 0
        self.journal.sync(self.journal.position)

    def pending(self) -> bool:
        """Tell whether there is anything that `flush` would make durable."""
        return self.journal.synced < self.journal.position or self._settings != settings_of(
            self._of()
        )

    def _missed(self) -> bool:
        """Tell whether a change took effect of which there is no note: Ctrl-C came between."""
        index = self._of()
        if self._gap:
            return True
        if index._changes() == self._seen:
            return False
        free = index._writer_lock.held_if_free()
        if free is None:  # somebody is at it and will note it, or tell
            return False
        with free:
            return self._gap or index._changes() != self._seen

    def checkpoint(self) -> None:
        """See `LivingIndex.checkpoint`."""
        self.require_open()
        index = self._of()
        journal = self.journal
        with self._folding:
            with index._writer_lock.held():
                position = journal.position
                settings = settings_of(index)
                writing = checkpoint.write_now(
                    index, self.path, (journal.header.id, journal.number(position))
                )
                self._seen, gap = index._changes(), self._gap
                self._gap = False
            try:
                writing.finish()
                if _identity.of_path(self.path) != self._identity:
                    writing.give_up()
                    raise ConflictError(
                        f"{self.path} was replaced by somebody else while it was open for writing; "
                        "save this index elsewhere"
                    )
                checkpoint.replace_file(self.path)
            except BaseException:
                self._gap = self._gap or gap
                raise
            self._identity = _identity.of_path(self.path)
            index._origin = _identity.look(self.path)
            sync_folder(self.path)  # if it fails, the old journal still holds all of it
            header = journal.header
            journal.restart(
                new_header(
                    _identity.fingerprint(self.path), header.dtype, header.width, header.strings
                ),
                position,
            )
            with self._noting:
                if self._settings == settings or journal.number(journal.position) == 0:
                    self._settings = settings

    def close(self, fold: bool) -> None:
        """See `LivingIndex.close`."""
        if self.closed:
            return
        if self._process == os.getpid():
            self.flush()
            if fold and self.journal.size:
                self.checkpoint()
            with self._of()._writer_lock.held():
                self.journal.sync(self.journal.position)
                self.closed = True
        self.closed = True
        self._abandoned()


def _abandon(process: int, journal: Journal, lock: FileLock, ended: threading.Event) -> None:
    """End the writing when an index is closed, forgotten, or the interpreter ends."""
    ended.set()
    if process != os.getpid():
        return
    with suppress(OSError):
        journal.sync(journal.position)
    journal.close()
    if not journal.size:
        with suppress(OSError):
            os.unlink(journal.path)
    lock.release()


def _flush_often(writer: weakref.ref[Writer], ended: threading.Event, seconds: float) -> None:
    while not ended.wait(seconds):
        its = writer()
        if its is None:
            return
        try:
            if not its.closed and its.pending():
                its.flush()
        except Exception as error:
            if not its.closed:
                log(WARNING, "flush of %s: %s", its.path, error)
                its._failure = error
        del its
