"""The collections of a folder: found by name, made and deleted whole, each with one writer."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

from vicinal._logging import WARNING, log
from vicinal.collection import Collection
from vicinal.server.problems import Problem, of_exception, shown
from vicinal.server.settings import Settings

__all__ = ["NAME", "Served", "Store", "check_name"]

NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,126}"
_NAME = re.compile(NAME, re.ASCII)
# Names of collections begin with a letter or a digit, so that these are never one.
_MAKING, _GONE, _LOCK = ".making-", ".gone-", ".server.lock"
_NOTE = "server"
_METRICS = ("cosine", "ip", "l2")


def check_name(name: str) -> str:
    """Return the name of a collection; no path can be made of what passes."""
    if _NAME.fullmatch(name) is None:
        raise Problem(
            400,
            "collection name: expected 1 to 127 letters, digits, dots, dashes and underscores, "
            f"the first a letter or digit, got {shown(name)}",
        )
    return name


class Served:
    """A collection that is open, and the queue of its changes."""

    def __init__(self, collection: Collection) -> None:
        self.collection = collection
        note = collection.note(_NOTE) or {}
        self.vector_name: str = note.get("vector_name", "")
        self.fields: dict[str, str] = note.get("fields", {})
        self.writer = ThreadPoolExecutor(1, thread_name_prefix="vicinal-write")
        self._saving: Future[None] | None = None
        self._guard = threading.Lock()
        self._idle = threading.Condition()
        self._users = 0
        self._closing = False
        self.recall: float | None = None

    @contextmanager
    def used(self) -> Iterator[Served]:
        """Keep it open meanwhile; Problem 404 if it is being closed."""
        with self._idle:
            if self._closing:
                raise Problem(404, "the collection is being deleted, or the server goes down")
            self._users += 1
        try:
            yield self
        finally:
            with self._idle:
                self._users -= 1
                self._idle.notify_all()

    def keep_note(self) -> None:
        """Keep with the collection what only the server knows of it."""
        self.collection.set_note(_NOTE, {"vector_name": self.vector_name, "fields": self.fields})

    def save_if_due(self, rows: int, pool: ThreadPoolExecutor) -> None:
        """Save what is pending in the background, if it is as much; changes go on meanwhile."""
        with self._guard:
            if self._saving is not None and not self._saving.done():
                return
            if self.collection.pending >= rows:
                self._saving = pool.submit(self._save)

    def _save(self) -> None:
        try:
            with self.used():
                self.collection.checkpoint()
        except BaseException as error:
            # the changes are safe in SQLite; the next change tries again
            log(WARNING, "server: a checkpoint failed: %s: %s", type(error).__name__, error)

    def close(self) -> None:
        """Wait for whoever uses it, then close; what was committed is on the disk."""
        with self._idle:
            self._closing = True
        self.writer.shutdown(wait=True)
        with self._idle:
            while self._users:
                self._idle.wait()
        self.collection.close()


class Store:
    """A folder of collections, which one server at a time has.

    Raises
    ------
    BlockingIOError
        If another server has it.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.folder = os.path.abspath(os.fspath(settings.folder))
        os.makedirs(self.folder, exist_ok=True)
        self._lock = os.open(
            os.path.join(self.folder, _LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise BlockingIOError(
                error.errno, "another server has this folder", self.folder
            ) from None
        self._open: dict[str, Served] = {}
        self._going: set[str] = set()
        self._guard = threading.RLock()
        self._background = ThreadPoolExecutor(1, thread_name_prefix="vicinal-save")
        self.closed = False
        for name in os.listdir(self.folder):
            if name.startswith((_MAKING, _GONE)):
                shutil.rmtree(os.path.join(self.folder, name), ignore_errors=True)

    # ---- finding

    def names(self) -> list[str]:
        """Return the names of all collections, in order."""
        return sorted(
            entry.name
            for entry in os.scandir(self.folder)
            if _NAME.fullmatch(entry.name) and self._is_there(entry.name)
        )

    def _path(self, name: str) -> str:
        return os.path.join(self.folder, check_name(name))

    def _is_there(self, name: str) -> bool:
        return os.path.isfile(os.path.join(self._path(name), "documents.sqlite"))

    def has(self, name: str) -> bool:
        """Tell whether there is a collection of a name."""
        check_name(name)
        return name not in self._going and (name in self._open or self._is_there(name))

    def get(self, name: str) -> Served:
        """Return a collection; Problem 404 if there is none."""
        served = self._open.get(name)
        if served is not None:
            return served
        with self._guard:
            if self.closed:
                raise Problem(503, "the server is going down", {"retry-after": "1"})
            if name not in self._open:
                if not self.has(name):
                    raise Problem(404, f"Not found: Collection `{name}` doesn't exist!")
                collection = Collection(self._path(name), checkpoint_rows=None)
                if collection.metric not in _METRICS:
                    collection.close()
                    raise Problem(
                        400,
                        f"collection `{name}`: expected metric {', '.join(_METRICS)}, got "
                        f"{collection.metric}, which this server does not have",
                    )
                self._open[name] = Served(collection)
            return self._open[name]

    def opened(self) -> dict[str, Served]:
        """Return the collections that are open."""
        with self._guard:
            return dict(self._open)

    # ---- making and deleting

    def create(self, name: str, vector_name: str, parameters: dict[str, Any]) -> None:
        """Make a collection, whole or not at all; Problem 409 if there is one."""
        path = self._path(name)
        with self._guard:
            if name in self._going:
                raise Problem(409, f"Collection `{name}` is being deleted", {"retry-after": "1"})
            if self.has(name):
                raise Problem(409, f"Wrong input: Collection `{name}` already exists!")
            if len(self.names()) >= self._settings.limits.collections:
                most = self._settings.limits.collections
                raise Problem(400, f"collections: expected at most {most} in this server")
            making = os.path.join(self.folder, _MAKING + secrets.token_hex(8))
            try:
                with Collection(making, **parameters) as made:
                    made.set_note(_NOTE, {"vector_name": vector_name, "fields": {}})
                os.rename(making, path)
            except BaseException as error:
                shutil.rmtree(making, ignore_errors=True)
                if isinstance(error, OSError) and os.path.lexists(path):
                    raise Problem(
                        409, f"Wrong input: `{name}` is taken by something else"
                    ) from None
                raise
            self._sync()

    def delete(self, name: str) -> bool:
        """Delete a collection with all it has; tell whether there was one."""
        path = self._path(name)
        gone = os.path.join(self.folder, _GONE + secrets.token_hex(8))
        with self._guard:
            if not self.has(name):
                return False
            self._going.add(name)
            served = self._open.pop(name, None)
        try:
            # first closed: SQLite removes its log by name, which by then could be another's
            if served is not None:
                served.close()
            os.rename(path, gone)
            self._sync()
        finally:
            with self._guard:
                self._going.discard(name)
        shutil.rmtree(gone, ignore_errors=True)
        return True

    def _sync(self) -> None:
        """Let a name that came or went be on the disk."""
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def changed(self, served: Served) -> None:
        """Do what follows a change: save in the background what has become much."""
        with suppress(RuntimeError):  # going down
            served.save_if_due(self._settings.checkpoint_rows, self._background)

    # ---- the end

    def check(self) -> None:
        """Raise a Problem if the folder cannot be read, or the server goes down."""
        if self.closed:
            raise Problem(503, "the server is going down")
        try:
            os.listdir(self.folder)
        except OSError as error:
            raise of_exception(error) from None

    def close(self) -> None:
        """Wait for what is being written, close all collections, let another server come."""
        with self._guard:
            if self.closed:
                return
            self.closed = True
            opened, self._open = self._open, {}
        self._background.shutdown(wait=True, cancel_futures=True)
        for served in opened.values():
            served.close()
        fcntl.flock(self._lock, fcntl.LOCK_UN)
        os.close(self._lock)
