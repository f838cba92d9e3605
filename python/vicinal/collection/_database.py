"""The SQLite file of a collection: its tables, connections, transactions, and what goes wrong."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from vicinal.errors import CorruptError, FormatError

__all__ = ["Database", "State", "contains", "state_of", "translated"]

NAME = "documents.sqlite"
_APPLICATION = 0x56494331  # "VIC1"
_FORMAT = 1
_OLDEST = (3, 38, 0)  # JSON functions built in, RETURNING

# `row` is the number by which the index knows a document, never used again. Metadata stand before
# the text, so that filters need not read long texts to reach them. `pending` has what
# changed since the saved index: the last vector of each row, or NULL where it is gone. `unindexed`
# has the rows whose text is other than in the index of words.
_SCHEMA = """
CREATE TABLE settings(name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE state(one INTEGER PRIMARY KEY CHECK(one = 1), seq INTEGER NOT NULL, file TEXT,
    words INTEGER NOT NULL);
INSERT INTO state VALUES(1, 0, NULL, 0);
CREATE TABLE documents(row INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,
    metadata TEXT NOT NULL, text TEXT);
CREATE TABLE pending(row INTEGER PRIMARY KEY, seq INTEGER NOT NULL, vector BLOB);
CREATE INDEX pending_seq ON pending(seq);
CREATE TABLE unindexed(row INTEGER PRIMARY KEY, seq INTEGER NOT NULL);
CREATE TABLE fields(number INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE);
"""


class State(NamedTuple):
    """One moment of a collection: how many changes, which saved index, are words kept."""

    seq: int
    file: str | None
    words: int


def contains(text: object, part: object) -> bool:
    """Tell whether a text has a part in it, whatever the case of letters; for SQL."""
    return isinstance(text, str) and isinstance(part, str) and part.casefold() in text.casefold()


class Database:
    """Connections to the file, one for each thread that is at it; safe in threads and after forks.

    Parameters
    ----------
    folder : str
        Where it lies.
    read_only : bool
        Never write, not even what SQLite keeps beside its file where the folder allows nothing.
    synchronous : {"full", "normal"}
        "full" waits for the disk at each commit; "normal" may lose the last ones if power fails,
        never if the process dies.
    """

    def __init__(self, folder: str, read_only: bool, synchronous: str) -> None:
        if sqlite3.sqlite_version_info < _OLDEST:
            wanted = ".".join(map(str, _OLDEST))
            raise RuntimeError(f"sqlite3: expected {wanted} or newer, got {sqlite3.sqlite_version}")
        self.folder = folder
        self.path = os.path.join(folder, NAME)
        self.read_only = read_only
        self._synchronous = synchronous
        self._free: list[sqlite3.Connection] = []
        self._guard = threading.Lock()
        self._process = os.getpid()
        self.closed = False

    # ---- connections

    def _connect(self) -> sqlite3.Connection:
        name = urllib.parse.quote(os.fsencode(os.path.abspath(self.path)))
        mode = "ro" if self.read_only else "rw"
        try:
            return self._prepared(f"file:{name}?mode={mode}")
        except sqlite3.OperationalError:
            log = f"{self.path}-wal"
            if not self.read_only or (os.path.exists(log) and os.path.getsize(log)):
                raise
            # a folder where nothing can be written, and no log to be read: the file is all there is
            return self._prepared(f"file:{name}?mode=ro&immutable=1")

    def _prepared(self, uri: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            uri, uri=True, timeout=30, isolation_level=None, check_same_thread=False
        )
        try:
            connection.create_function("vicinal_contains", 2, contains, deterministic=True)
            connection.execute(f"PRAGMA synchronous={self._synchronous}")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection; it comes back without a transaction, or not at all."""
        with self._guard_of_process():
            if self.closed:
                raise ValueError("collection: it is closed")
            connection = self._free.pop() if self._free else None
        with translated(self.path):
            if connection is None:
                connection = self._connect()
            whole = False
            try:
                yield connection
                whole = not connection.in_transaction
            finally:
                if not whole:
                    with suppress(sqlite3.Error):
                        connection.rollback()
                    whole = not connection.in_transaction
                with self._guard_of_process():
                    keep = whole and not self.closed
                    if keep:
                        self._free.append(connection)
                if not keep:
                    connection.close()

    def _guard_of_process(self) -> threading.Lock:
        if self._process != os.getpid():
            # SQLite's connections must not be used, nor closed, in a forked child
            _left_alone.append(self._free)
            self._free, self._guard, self._process = [], threading.Lock(), os.getpid()
        return self._guard

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection that sees one moment."""
        with self.connection() as connection:
            connection.execute("BEGIN")
            yield connection
            connection.execute("COMMIT")

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection in a transaction that is kept whole, or not at all."""
        with self.connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")

    def close(self) -> None:
        """Close all connections; those that are lent, as they come back."""
        with self._guard_of_process():
            self.closed = True
            free, self._free = self._free, []
        with translated(self.path):
            for connection in free:
                connection.close()

    # ---- the file

    def create(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Make the tables, if nobody has done so before; return the settings that hold."""
        try:
            # made by hand, since "rwc" would also make one where a collection should be
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666))
        except OSError as error:
            raise type(error)(error.errno, error.strerror, self.path) from None
        with self.connection() as connection:
            found = self._settings(connection)
            if found is not None:
                return found
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("BEGIN IMMEDIATE")
            found = self._settings(connection)
            if found is None:
                for statement in _SCHEMA.split(";\n"):
                    connection.execute(statement)
                rows = [(name, json.dumps(value)) for name, value in settings.items()]
                connection.executemany("INSERT INTO settings VALUES(?, ?)", rows)
                connection.execute(f"PRAGMA application_id={_APPLICATION}")
                connection.execute(f"PRAGMA user_version={_FORMAT}")
                found = dict(settings)
            connection.execute("COMMIT")
            return found

    def settings(self) -> dict[str, Any] | None:
        """Return what the collection was made with; None if there is none yet."""
        if not os.path.exists(self.path):
            return None
        with self.connection() as connection:
            return self._settings(connection)

    def _settings(self, connection: sqlite3.Connection) -> dict[str, Any] | None:
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if not tables and not application:
            return None
        if application != _APPLICATION:
            raise FormatError(f"{self.path} is a database, but none of a collection")
        if version != _FORMAT:
            raise FormatError(
                f"{self.path}: a collection of format {version}; this release reads {_FORMAT}"
            )
        rows = connection.execute("SELECT name, value FROM settings").fetchall()
        return {name: json.loads(value) for name, value in rows}


# Connections of parent processes: kept, since to forget them would close them.
_left_alone: list[list[sqlite3.Connection]] = []


def state_of(connection: sqlite3.Connection) -> State:
    """Return the moment that a transaction sees."""
    return State(*connection.execute("SELECT seq, file, words FROM state").fetchone())


@contextmanager
def translated(path: str) -> Iterator[None]:
    """Raise what SQLite says as the exceptions that files raise elsewhere in this library."""
    try:
        yield
    except sqlite3.OperationalError as error:
        name = getattr(error, "sqlite_errorname", None) or ""
        text = str(error)
        if "memory" in text and (name == "SQLITE_NOMEM" or text == "out of memory"):
            raise MemoryError(f"{path}: {text}") from error
        if name.startswith("SQLITE_FULL") or "disk is full" in text:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path) from error
        if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN")) or any(
            said in text for said in ("readonly", "unable to open")
        ):
            raise PermissionError(errno.EACCES, f"SQLite: {text}", path) from error
        if name.startswith("SQLITE_BUSY") or "locked" in text:
            raise BlockingIOError(errno.EAGAIN, f"SQLite: {text}", path) from error
        if name.startswith("SQLITE_INTERRUPT") or text == "interrupted":
            raise KeyboardInterrupt from error
        raise OSError(errno.EIO, f"SQLite: {text}", path) from error
    except sqlite3.DatabaseError as error:
        if type(error) is not sqlite3.DatabaseError:
            raise
        raise CorruptError(f"{path} is damaged: {error}") from error
