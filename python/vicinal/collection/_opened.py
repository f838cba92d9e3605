"""An open folder: what a collection holds of it, and what all its methods go through."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from vicinal import _validate
from vicinal.collection._changes import Embed
from vicinal.collection._database import Database, state_of
from vicinal.collection._locks import SharedLock, WriterRight
from vicinal.collection._searching import Filters
from vicinal.collection._settings import settings_for
from vicinal.collection._view import View
from vicinal.collection._where import Condition, compile_where, quoted

if TYPE_CHECKING:
    import sqlite3

    from typing_extensions import Self

    from vicinal.collection._analyzers import Analyzer
    from vicinal.collection._words import Words

__all__ = ["Ids", "Opened", "Where", "expression"]

Where = Mapping[str, Any]
Ids = str | Sequence[str]
_ATTEMPTS = 100


class Opened:
    """A folder that is open; the parameters are those of `vicinal.Collection`."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        dim: int | None = None,
        metric: str | None = None,
        *,
        read_only: bool = False,
        embed: Embed | None = None,
        analyzer: str | Analyzer | None = None,
        checkpoint_rows: int | None = 10_000,
        synchronous: str = "full",
        **index_parameters: Any,
    ) -> None:
        folder = os.fspath(path)
        if not isinstance(folder, str):
            raise TypeError(f"path: expected str or os.PathLike, got {type(path).__name__}")
        if synchronous not in ("full", "normal"):
            raise ValueError(f"synchronous: expected 'full' or 'normal', got {synchronous!r}")
        if embed is not None and not callable(embed):
            raise TypeError(f"embed: expected a callable, got {type(embed).__name__}")
        if checkpoint_rows is not None:
            checkpoint_rows = _validate.whole_number(
                checkpoint_rows, "checkpoint_rows", 1, _validate.MAX_COUNT
            )
        self._checkpoint_rows = checkpoint_rows
        self._embed = embed
        self._read_only = bool(read_only)
        self._database = Database(folder, self._read_only, synchronous)
        try:
            settings = settings_for(
                self._database, self._read_only, dim, metric, analyzer, index_parameters
            )
        except BaseException:
            self._database.close()
            raise
        self._parameters: dict[str, Any] = settings["index"]
        self._analyzer: str | Analyzer = analyzer if callable(analyzer) else settings["analyzer"]
        self._right = WriterRight(os.path.join(folder, "writer.lock"))
        self._view = View(folder, self._parameters)
        self._lock = SharedLock()
        self._process = os.getpid()
        self._filters = Filters()
        self._indexed: tuple[int, dict[str, str]] = (-1, {})
        self._words: Words | None = None
        self._words_guard = threading.Lock()
        weakref.finalize(self, _close, self._database, self._right)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        self._check_writable()
        with self._right.turn():
            yield

    @contextmanager
    def _saving(self) -> Iterator[None]:
        self._check_writable()
        with self._right.saving():
            yield

    def _check_writable(self) -> None:
        if self._read_only:
            raise ValueError("collection: expected a writable one, got one opened with read_only")
        if self._database.closed:
            raise ValueError("collection: it is closed")

    @contextmanager
    def _moment(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection that sees one moment, at which the vectors are as well."""
        if self._process != os.getpid():
            self._lock, self._words_guard = SharedLock(), threading.Lock()
            if self._words is not None:
                self._words.forget()
            self._process = os.getpid()
        with self._lock.shared(), self._database.reading() as connection:
            state = state_of(connection)
            if (state.seq, state.file) == self._view.state[:2]:
                yield connection
                return
        with ExitStack() as stack:
            lent: list[sqlite3.Connection] = []

            def advance() -> None:
                for attempt in range(_ATTEMPTS):
                    with ExitStack() as inner:
                        connection = inner.enter_context(self._database.reading())
                        try:
                            self._view.advance(connection)
                        except FileNotFoundError:
                            if attempt == _ATTEMPTS - 1:
                                raise
                            continue  # saved anew meanwhile: look again
                        stack.push(inner.pop_all())
                        lent.append(connection)
                        return

            with self._lock.alone_then_shared(advance):
                yield lent[0]

    def _condition(self, where: Where | None) -> Condition | None:
        return None if where is None else compile_where(where, self._indexed_fields())

    def _indexed_fields(self) -> dict[str, str]:
        """Return paths of fields that have an index, with the expression that it is on."""
        with self._database.reading() as connection:
            (schema,) = connection.execute("PRAGMA schema_version").fetchone()
            if schema != self._indexed[0]:
                paths = connection.execute("SELECT path FROM fields").fetchall()
                self._indexed = (schema, {path: expression(path) for (path,) in paths})
        return self._indexed[1]

    def _words_for(self, text: object) -> Words:
        """Return the index of words, once it is sure that there is something to look for."""
        if not isinstance(text, str):
            raise TypeError(f"text: expected a string, got {type(text).__name__}")
        if self._analyzer == "callable":
            raise ValueError("analyzer: the collection was made with a callable; give it again")
        with self._words_guard:
            if self._words is None:
                from vicinal.collection._words import Words

                self._words = Words(self._database, self._analyzer)
            return self._words

    def _keep_words_in_step(self, rebuild: bool = False) -> None:
        """Bring the words in step at a checkpoint, if there are any and tantivy is here."""
        with self._database.reading() as connection:
            kept = state_of(connection).words
        if kept and (self._words is not None or find_spec("tantivy") is not None):
            words = self._words_for("")
            words.rebuild() if rebuild else words.catch_up()

    @property
    def path(self) -> str:
        """The folder."""
        return self._database.folder

    @property
    def dim(self) -> int:
        """Dimension of the vectors."""
        return int(self._parameters["dim"])

    @property
    def metric(self) -> str:
        """Name of the distance."""
        return str(self._parameters["metric"])

    @property
    def read_only(self) -> bool:
        """True if it was opened to be read only."""
        return self._read_only

    def close(self) -> None:
        """Close the files and let another process write; the collection cannot be used after it.

        Nothing needs saving: what was committed is on the disk.
        """
        _close(self._database, self._right)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        about = ", read-only" if self._read_only else ""
        return f"vicinal.Collection({self.path!r}, dim={self.dim}, metric={self.metric!r}){about}"


def expression(path: str) -> str:
    # no name of the table: SQLite takes none in an index
    return f"json_extract(metadata, {quoted(path)})"


def _close(database: Database, right: WriterRight) -> None:
    database.close()
    right.release()
