"""The index of words, by tantivy: follows the documents, and can be made again of them.

SQLite notes the rows whose text the index of words does not have yet, in the transaction that
changes them. `catch_up` writes these, commits, and only then takes the notes away: killed in
between, the same rows are written once more. `State.words` counts how often that was done, so that
a search can tell whether what it searched and what it read are of one moment.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vicinal._logging import WARNING, log
from vicinal.collection._analyzers import Analyzer, Tokens
from vicinal.collection._database import Database, state_of
from vicinal.errors import CorruptError

__all__ = ["Words", "require_tantivy"]

_FOLDER, _LOCK = "words", "words.lock"
_BATCH = 5000  # rows of a commit, whose texts are in memory
_HEAP = 30_000_000  # bytes of tantivy's writer
_NO_ROWS = np.empty(0, np.int64)


class _BrokenError(Exception):
    """Tantivy says that something is wrong with its files."""


@contextmanager
def _tantivy_errors() -> Iterator[None]:
    try:
        yield
    except (ValueError, OSError) as error:
        raise _BrokenError(str(error)) from error


def require_tantivy() -> Any:
    """Return the module; ImportError that says how to install it."""
    try:
        import tantivy
    except ImportError as error:
        raise ImportError(
            f"search by words needs tantivy: pip install 'vicinal[hybrid]' ({error})"
        ) from error
    return tantivy


class Words:
    """The index of words of one folder, for one object of this process."""

    def __init__(self, database: Database, analyzer: str | Analyzer) -> None:
        self._tantivy = require_tantivy()
        self._database = database
        self._tokens = Tokens(analyzer)
        self._path = os.path.join(database.folder, _FOLDER)
        self._guard = threading.Lock()
        self._index: Any = None
        self._seen = -1  # the count at which the index was last loaded
        # a callable's words come ready made; the name of the tokenizer is then of no use
        self._tokenizer = "vicinal" if isinstance(analyzer, str) else "raw"

    # ---- following the documents

    def catch_up(self) -> None:
        """Bring the index in step with what is committed by now; the first call makes it.

        What is committed meanwhile is left for the next call: somebody may be writing all the time.

        Raises
        ------
        ValueError
            If the folder is read only and has no index of words.
        """
        if self._database.read_only:
            with self._database.reading() as connection:
                if not state_of(connection).words or not self._exists():
                    raise ValueError(
                        "collection: it has no index of words yet, and is read only; search_text "
                        "of a writable one makes it"
                    )
            return
        if self._in_step():
            return
        with self._alone():
            self._make_if_missing()
            try:
                self._write_waiting()
            except _BrokenError as error:
                self._recover(error)

    def _recover(self, error: Exception) -> None:
        """Make the index again, since tantivy cannot use what a killed process has left of it."""
        log(WARNING, "index of words is made again: %s", error)
        self._make()
        try:
            self._write_waiting()
        except _BrokenError as again:
            raise OSError(errno.EIO, f"tantivy: {again}", self._path) from error

    def _in_step(self) -> bool:
        with self._database.reading() as connection:
            words = state_of(connection).words
            waiting = connection.execute("SELECT 1 FROM unindexed LIMIT 1").fetchone()
        return bool(words) and waiting is None and self._exists()

    def _exists(self) -> bool:
        return os.path.isdir(self._path) and bool(self._tantivy.Index.exists(self._path))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other threads and processes from writing words."""
        file = os.open(
            os.path.join(self._database.folder, _LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666
        )
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
        finally:
            # not by closing alone: a child that was forked meanwhile has the file open, too
            fcntl.flock(file, fcntl.LOCK_UN)
            os.close(file)

    def rebuild(self) -> None:
        """Make the index again, in one piece, without what deleted documents have left in it."""
        with self._alone():
            self._make()
            self._write_waiting()

    def _make_if_missing(self) -> None:
        with self._database.reading() as connection:
            kept = state_of(connection).words
        if not kept or not self._exists():
            self._make()

    def _make(self) -> None:
        # first the note that all is to be written, so that nobody takes an empty index for whole
        with self._database.writing() as connection:
            connection.execute("UPDATE state SET words = words + 1")
            connection.execute(
                "INSERT OR REPLACE INTO unindexed "
                "SELECT row, (SELECT seq FROM state) FROM documents"
            )
        shutil.rmtree(self._path, ignore_errors=True)
        made = f"{self._path}.new"
        shutil.rmtree(made, ignore_errors=True)
        os.mkdir(made)
        self._tantivy.Index(self._schema(), path=made)
        os.rename(made, self._path)
        with self._guard:
            self._index = None

    def _schema(self) -> Any:
        builder = self._tantivy.SchemaBuilder()
        # an integer, not an unsigned one: of these deletions by term find nothing (tantivy 0.27)
        builder.add_integer_field("row", indexed=True, fast=True)
        builder.add_text_field("text", tokenizer_name=self._tokenizer, index_option="freq")
        return builder.build()

    def _open(self) -> Any:
        index = self._tantivy.Index.open(self._path)
        if self._tokenizer == "vicinal":
            index.register_tokenizer("vicinal", self._tokens.native)
        index.config_reader(reload_policy="manual")
        return index

    def _write_waiting(self) -> None:
        """Write all rows that wait, but for those that begin to wait meanwhile."""
        with self._database.reading() as connection:
            seq = state_of(connection).seq
        while self._write_batch(seq):
            pass

    def _write_batch(self, seq: int) -> bool:
        """Write some of the rows that wait since a change; tell whether there were any."""
        with self._database.reading() as connection:
            waiting = connection.execute(
                "SELECT unindexed.row, unindexed.seq, documents.text FROM unindexed "
                "LEFT JOIN documents ON documents.row = unindexed.row "
                "WHERE unindexed.seq <= ? ORDER BY unindexed.row LIMIT ?",
                (seq, _BATCH),
            ).fetchall()
        if not waiting:
            return False
        with _tantivy_errors():
            writer = self._open().writer(heap_size=_HEAP, num_threads=1)
            # what a killed process left would be in the way of files of the same names
            writer.garbage_collect_files()
        try:
            for row, _, _ in waiting:
                writer.delete_documents_by_term("row", row)
            for row, _, text in waiting:
                if text:
                    document = self._tantivy.Document()
                    document.add_integer("row", row)
                    self._tokens.add_to(document, "text", text)
                    writer.add_document(document)
            with _tantivy_errors():
                writer.commit()
        finally:
            writer.wait_merging_threads()
        with self._database.writing() as connection:
            connection.executemany(
                "DELETE FROM unindexed WHERE row = ? AND seq = ?",
                [(row, seq) for row, seq, _ in waiting],
            )
            connection.execute("UPDATE state SET words = words + 1")
        return True

    # ---- searching

    def searcher(self, count: int) -> Any:
        """Return a searcher that sees at least what was there when `State.words` was `count`."""
        for last in (False, True):
            try:
                return self._loaded(count)
            except _BrokenError as error:
                # once more first: another process may be just replacing files
                self._index = None
                if last and self._database.read_only:
                    raise CorruptError(f"{self._path} is damaged: {error}") from None
                if last:
                    with self._alone():
                        self._recover(error)
        return self._loaded(count)

    def _loaded(self, count: int) -> Any:
        with self._guard, _tantivy_errors():
            if self._index is None:
                self._index = self._open()
                self._seen = -1
            if self._seen != count:
                self._index.reload()
                self._seen = count
            return self._index.searcher()

    def forget(self) -> None:
        """Open the index anew at the next search; for a forked child and folders made again."""
        self._guard = threading.Lock()
        self._index = None

    def search(
        self, searcher: Any, text: str, limit: int, rows: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the rows whose texts have words of this one, best first, with their scores.

        Equal scores are in the order of rows. `rows` are those allowed.
        """
        query = self._query(text, rows)
        if query is None or limit <= 0 or not searcher.num_docs:
            return _NO_ROWS, np.empty(0)
        found = searcher.search(query, min(limit, searcher.num_docs), count=False).hits
        if not found:
            return _NO_ROWS, np.empty(0)
        values = searcher.fast_field_values("row", [address for _, address in found])
        scores = np.array([score for score, _ in found])
        numbers = np.array(values, np.int64)
        order = np.lexsort((numbers, -scores))
        return numbers[order], scores[order]

    def _query(self, text: str, rows: NDArray[np.int64] | None) -> Any:
        schema, query, occur = self._index.schema, self._tantivy.Query, self._tantivy.Occur
        parts = []
        for word, times in Counter(self._tokens.words(text)).items():
            part = query.term_query(schema, "text", word, index_option="freq")
            parts.append((occur.Should, part if times == 1 else query.boost_query(part, times)))
        if not parts:
            return None
        asked = query.boolean_query(parts)
        if rows is None:
            return asked
        allowed = query.const_score_query(query.term_set_query(schema, "row", rows.tolist()), 0.0)
        return query.boolean_query([(occur.Must, asked), (occur.Must, allowed)])


def waiting_rows(connection: sqlite3.Connection) -> NDArray[np.int64]:
    """Return the rows whose text is not in the index of words as a transaction sees it."""
    found = connection.execute("SELECT row FROM unindexed")
    return np.fromiter((row for (row,) in found), np.int64)
