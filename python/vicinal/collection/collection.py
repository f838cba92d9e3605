"""The collection: one class, whose methods are their documentation and little more."""

from __future__ import annotations

import json
import os
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vicinal import _validate
from vicinal.collection import _changes, _checkpoint, _reading, _searching, _text_search
from vicinal.collection._async import AsyncTwins
from vicinal.collection._database import Database, state_of
from vicinal.collection._locks import SharedLock, WriterRight
from vicinal.collection._settings import settings_for
from vicinal.collection._view import View
from vicinal.collection._where import Condition, compile_where, field_path, quoted
from vicinal.collection.documents import Document, Hit

if TYPE_CHECKING:
    import sqlite3

    from typing_extensions import Self

    from vicinal.collection._analyzers import Analyzer
    from vicinal.collection._words import Words

__all__ = ["Collection"]

Where = Mapping[str, Any]
Ids = str | Sequence[str]
_ATTEMPTS = 100


class Collection(AsyncTwins):
    """Documents with an id, a vector, a text and metadata, in a folder.

    Every change is one transaction of SQLite: after a crash at any moment it is there whole, or not
    at all. Searches see all of what was committed before they began.

    Parameters
    ----------
    path : str or path-like
        The folder; made if it is not there.
    dim : int, optional
        Dimension of the vectors. Needed for a new collection; the folder remembers it, and what
        else is given has to agree with the folder.
    metric : {"cosine", "l2", "ip"}, optional
        "cosine" for a new collection.
    read_only : bool
        Change nothing in the folder, which may be on a read-only disk.
    embed : callable, optional
        Turns a list of texts into an array_like of shape (n, dim). Called where texts come without
        vectors. Not remembered.
    analyzer : str or callable, optional
        How texts become words: docs/guide/hybrid.md. "default" for a new collection. A callable has
        to be given each time, and be the same.
    checkpoint_rows : int or None
        A change that leaves so many rows pending is followed by `checkpoint`; None: never.
    synchronous : {"full", "normal"}
        "full" waits for the disk at each change; with "normal" the last changes may be lost if the
        power fails, not if the process dies.
    **index_parameters
        `dtype`, `M`, `ef_construction`, `quantization`, `seed` of `vicinal.Index`.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, or contradicts the folder.
    FileNotFoundError
        If it is to be read only and is not there.
    OSError
        If the system refuses.
    FormatError, CorruptError
        If the folder has something else in it, or is damaged.

    Notes
    -----
    One process at a time writes: the first that changes something, until it closes the collection
    or ends; others get a BlockingIOError. Any number of processes read, and see every change from
    the moment of its commit. Threads: all methods are safe at any time from any number of threads;
    changes take turns, and searches wait while a change is taken in, not while one is written.
    After a fork the child may go on reading.

    Examples
    --------
    >>> import tempfile, vicinal
    >>> folder = tempfile.mkdtemp()
    >>> notes = vicinal.Collection(folder, dim=2, metric="l2")
    >>> notes.upsert(["a", "b"], [[0, 1], [5, 5]], ["first", "second"], [{"n": 1}, {"n": 2}])
    >>> notes.search([0, 0], k=1)[0].text
    'first'
    >>> [hit.id for hit in notes.search([0, 0], where={"field": "n", "op": "gt", "value": 1})]
    ['b']
    >>> notes.close()
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        dim: int | None = None,
        metric: str | None = None,
        *,
        read_only: bool = False,
        embed: _changes.Embed | None = None,
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
        self._filters = _searching.Filters()
        self._indexed: tuple[int, dict[str, str]] = (-1, {})
        self._words: Words | None = None
        self._words_guard = threading.Lock()
        weakref.finalize(self, _close, self._database, self._right)

    # ---- changing

    def upsert(
        self,
        ids: Ids,
        vectors: ArrayLike | None = None,
        texts: Sequence[str | None] | str | None = None,
        metadata: Sequence[Mapping[str, Any] | None] | Mapping[str, Any] | None = None,
    ) -> None:
        """Write documents: new ones are added, those whose id is there are replaced whole.

        Parameters
        ----------
        ids : str or sequence of str
            Each once. One id alone takes one vector, text and dict.
        vectors : array_like of shape (n, dim), or list of vectors and None
            A document whose vector is None is found by its words and filters only. May be left out
            where the collection has `embed`, which makes them of the texts.
        texts : sequence of str or None, optional
        metadata : sequence of dict or None, optional
            What JSON can hold: strings as keys, no NaN.

        Raises
        ------
        TypeError, ValueError
            If anything is wrong with one document; none is written then.
        BlockingIOError
            If another process writes to the collection.
        OSError
            If the system refuses, for instance because the disk is full; nothing is written then.
        """
        self._write("upsert", ids, vectors, texts, metadata)

    def add(
        self,
        ids: Ids,
        vectors: ArrayLike | None = None,
        texts: Sequence[str | None] | str | None = None,
        metadata: Sequence[Mapping[str, Any] | None] | Mapping[str, Any] | None = None,
    ) -> None:
        """Write new documents; as `upsert`, but ValueError if an id is there already."""
        self._write("add", ids, vectors, texts, metadata)

    def update(
        self,
        ids: Ids,
        vectors: ArrayLike | None = None,
        texts: Sequence[str | None] | str | None = None,
        metadata: Sequence[Mapping[str, Any] | None] | Mapping[str, Any] | None = None,
    ) -> None:
        """Replace parts of documents that are there; what is not given stays as it is.

        As `upsert`, but KeyError if an id is not there. Metadata are replaced whole:
        `update_metadata` sets single keys.
        """
        self._write("update", ids, vectors, texts, metadata)

    def _write(self, verb: str, ids: Any, vectors: Any, texts: Any, metadata: Any) -> None:
        new = verb != "update"
        change = _changes.check_change(
            ids, vectors, texts, metadata, self._parameters, self._embed, new
        )
        with self._turn():
            with self._database.writing() as connection:
                _changes.write_change(connection, change, verb)
            self._checkpoint_if_due()

    def update_metadata(
        self,
        where: Where | None = None,
        values: Mapping[str, Any] | None = None,
        *,
        ids: Ids | None = None,
    ) -> int:
        """Set keys of the metadata of documents that a filter finds, or of ids; keep other keys.

        Returns
        -------
        int
            How many documents there were.
        """
        if values is None:
            raise TypeError("values: expected a dict, got None")
        _changes.as_json(values, "values")
        names, condition = self._chosen(ids, where)
        with self._turn(), self._database.writing() as connection:
            return _changes.merge_metadata(connection, names, condition, values)

    def delete(self, ids: Ids | None = None, where: Where | None = None) -> int:
        """Delete documents of ids, of which unknown ones are left out, or that a filter finds.

        With both: those of the ids that the filter finds. `where={"and": []}` finds all.

        Returns
        -------
        int
            How many documents there were.
        """
        names, condition = self._chosen(ids, where)
        with self._turn():
            with self._database.writing() as connection:
                deleted = _changes.delete_rows(connection, names, condition)
            self._checkpoint_if_due()
        return deleted

    def _chosen(
        self, ids: Ids | None, where: Where | None
    ) -> tuple[list[str] | None, Condition | None]:
        if ids is None and where is None:
            raise ValueError("ids: expected ids or where, got neither")
        names = None if ids is None else _changes.string_ids(ids)
        return names, self._condition(where)

    def create_index(self, field: str | Sequence[str]) -> None:
        """Let filters on a field find its values by an index, not by looking at all documents.

        Good where a condition finds few documents; every change takes a little longer.
        """
        path = field_path(field)
        with self._turn(), self._database.writing() as connection:
            if connection.execute("SELECT 1 FROM fields WHERE path = ?", (path,)).fetchone():
                return
            number = connection.execute(
                "INSERT INTO fields(path) VALUES(?) RETURNING number", (path,)
            ).fetchall()[0][0]
            connection.execute(f"CREATE INDEX field_{number} ON documents({_expression(path)})")
            connection.execute("UPDATE state SET seq = seq + 1")

    def checkpoint(self) -> None:
        """Save the index with all that is pending, so that opening has nothing to replay.

        Takes memory for the whole index and as long as adding what is pending. Searches of this
        process and of others go on; killed at any moment, the folder is as before or as after.
        """
        with self._turn():
            self._keep_words_in_step()
            _checkpoint.save_pending(self._database, self._parameters)

    def compact(self) -> None:
        """Give back the space of deleted documents: index, tables and words are built anew."""
        with self._turn():
            self._keep_words_in_step(rebuild=True)
            _checkpoint.save_pending(self._database, self._parameters, compact=True)
            with self._database.connection() as connection:
                connection.execute("VACUUM")

    def _checkpoint_if_due(self) -> None:
        if self._checkpoint_rows is None:
            return
        with self._database.reading() as connection:
            (waiting,) = connection.execute("SELECT count(*) FROM pending").fetchone()
        if waiting >= self._checkpoint_rows:
            self.checkpoint()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if self._read_only:
            raise ValueError("collection: expected a writable one, got one opened with read_only")
        if self._database.closed:
            raise ValueError("collection: it is closed")
        with self._right.turn():
            yield

    # ---- reading

    def get(
        self,
        ids: Ids | None = None,
        where: Where | None = None,
        limit: int | None = None,
        offset: int = 0,
        *,
        vectors: bool = False,
    ) -> list[Document]:
        """Return documents: of ids in their order, unknown ones left out, or in that of insertion.

        Parameters
        ----------
        ids : str or sequence of str, optional
        where : dict, optional
            Only those that a filter finds.
        limit, offset : int
            How many at most, after how many others.
        vectors : bool
            With their vectors.
        """
        names = None if ids is None else _changes.string_ids(ids)
        condition = self._condition(where)
        most = -1 if limit is None else _validate.whole_number(limit, "limit", 0, 2**63 - 1)
        offset = _validate.whole_number(offset, "offset", 0, 2**63 - 1)
        with self._moment() if vectors else self._database.reading() as connection:
            if names is None:
                found = _reading.page(connection, condition, -1, most, offset)
            else:
                rows = np.array(list(_reading.rows_of_ids(connection, names).values()), np.int64)
                if condition is not None:
                    rows = rows[np.isin(rows, _reading.rows_among(connection, condition, rows))]
                rows = rows[offset:] if limit is None else rows[offset : offset + most]
                stored = _reading.documents_of(connection, rows)
                found = [(row, stored[row]) for row in rows.tolist()]
            return self._documents(found, vectors)

    def _documents(self, found: list[tuple[int, _reading.Stored]], vectors: bool) -> list[Document]:
        parts = (
            self._view.vectors(np.array([row for row, _ in found], np.int64)) if vectors else None
        )
        return [
            Document(id, text, json.loads(metadata), None if parts is None else parts[place])
            for place, (_, (id, text, metadata)) in enumerate(found)
        ]

    def scroll(
        self, where: Where | None = None, batch_size: int = 100, *, vectors: bool = False
    ) -> Iterator[Document]:
        """Go through documents in the order of insertion, without holding any moment.

        What is added meanwhile may be met, what is deleted is not met any more; nothing twice.
        """
        size = _validate.whole_number(batch_size, "batch_size", 1, _validate.MAX_COUNT)
        condition = self._condition(where)
        return self._scroll(condition, size, vectors)

    def _scroll(self, where: Condition | None, size: int, vectors: bool) -> Iterator[Document]:
        after = -1
        while True:
            with self._moment() if vectors else self._database.reading() as connection:
                found = _reading.page(connection, where, after, size, 0)
                documents = self._documents(found, vectors)
            yield from documents
            if len(found) < size:
                return
            after = found[-1][0]

    def count(self, where: Where | None = None) -> int:
        """Return how many documents there are, or how many a filter finds."""
        condition = self._condition(where)
        with self._database.reading() as connection:
            return _reading.count(connection, condition)

    def __len__(self) -> int:
        return self.count()

    def __contains__(self, id: object) -> bool:
        if not isinstance(id, str):
            raise TypeError(f"id: expected a string, got {type(id).__name__}")
        with self._database.reading() as connection:
            return bool(_reading.rows_of_ids(connection, [id]))

    def distinct(self, field: str | Sequence[str], where: Where | None = None) -> list[Any]:
        """Return the values of a field, each once, in order: booleans, numbers, strings.

        Of lists come their elements; objects and nulls are left out. 1 and 1.0 are two values.
        """
        path, condition = field_path(field), self._condition(where)
        with self._database.reading() as connection:
            return _reading.distinct(connection, path, condition)

    def min_max(
        self, field: str | Sequence[str], where: Where | None = None
    ) -> tuple[Any, Any] | None:
        """Return the least and greatest number of a field, or string where there are no numbers.

        None where there are neither.
        """
        path, condition = field_path(field), self._condition(where)
        with self._database.reading() as connection:
            return _reading.min_max(connection, path, condition)

    # ---- searching

    def search(
        self,
        vector: ArrayLike | str,
        k: int = 10,
        where: Where | None = None,
        *,
        ef_search: int | None = None,
        vectors: bool = False,
        num_threads: int | None = None,
    ) -> Any:
        """Find the k documents whose vectors are nearest.

        Parameters
        ----------
        vector : array_like of shape (dim,) or (n, dim), or str
            A text where the collection has `embed`.
        k : int
            Documents wanted, at least 1.
        where : dict, optional
            Only documents that a filter finds: docs/guide/collection.md.
        ef_search, num_threads : int, optional
            As for `vicinal.Index.search`.
        vectors : bool
            Hits with their vectors.

        Returns
        -------
        list of Hit, or for (n, dim) a list of these lists
            Nearest first; always min(k, documents with a vector that the filter finds). Which of
            equally near documents are the last of the k is not settled.
        """
        k = _validate.whole_number(k, "k", 1, _validate.MAX_COUNT)
        condition = self._condition(where)
        queries, single = self._queries(vector)
        with self._moment() as connection:
            found = _searching.search_vectors(
                connection, self._view, self._filters, queries, k, condition, ef_search, num_threads
            )
            hits = _searching.hits_by_distance(connection, self._view, found, vectors)
        return hits[0] if single else hits

    def search_text(
        self, text: str, k: int = 10, where: Where | None = None, *, vectors: bool = False
    ) -> list[Hit]:
        """Find the k documents whose texts fit words best; needs the extra `hybrid`.

        The first call, of any process, makes the index of words; from then on it is kept in step.

        Parameters
        ----------
        text : str
            Any text; signs in it mean nothing.
        k : int
            Documents wanted, at least 1.
        where, vectors
            As for `search`.

        Returns
        -------
        list of Hit
            Best first, `score` is BM25; only documents that have one of the words.

        Raises
        ------
        ImportError
            If tantivy is not installed.
        ValueError
            If the collection is read only and has no index of words.
        """
        k = _validate.whole_number(k, "k", 1, _validate.MAX_COUNT)
        condition, words = self._condition(where), self._words_for(text)
        with _text_search.moment_of_words(words, self._database, self._moment, vectors) as at:
            rows, scores = _text_search.search_words(at, words, text, k, condition)
            listed = scores.tolist()
            return _searching.hits_of(
                at.connection,
                rows,
                lambda place: {"score": listed[place], "text_score": listed[place]},
                self._view.vectors(rows) if vectors else None,
            )

    def search_hybrid(
        self,
        text: str,
        vector: ArrayLike | None = None,
        k: int = 10,
        where: Where | None = None,
        *,
        alpha: float = 0.5,
        method: str = "relative",
        window: int = 100,
        constant: float = 60,
        ef_search: int | None = None,
        vectors: bool = False,
    ) -> list[Hit]:
        """Find documents by words and by vector at once; needs the extra `hybrid`.

        Parameters
        ----------
        text : str
            What the words are looked for.
        vector : array_like of shape (dim,), optional
            By default `embed` of the text.
        k : int
            Documents wanted, at least 1.
        where : dict, optional
            For both sides.
        alpha : float
            Weight of the vectors, 0 to 1; that of the words is 1 - alpha.
        method : {"relative", "reciprocal", "linear"}
            As for `vicinal.fuse`; "rrf" is "reciprocal".
        window : int
            Results that each side gives, or k if that is more. Scores depend on it, not on k.
        constant : float
            `k` of `vicinal.fuse`, for "reciprocal".
        ef_search, vectors
            As for `search`.

        Returns
        -------
        list of Hit
            `score` is the fused one; what each side said is in the other attributes.
        """
        k = _validate.whole_number(k, "k", 1, _validate.MAX_COUNT)
        window = max(k, _validate.whole_number(window, "window", 1, _validate.MAX_COUNT))
        alpha = _validate.real_number(alpha, "alpha")
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha: expected a number from 0 to 1, got {alpha}")
        condition, words = self._condition(where), self._words_for(text)
        queries, single = self._queries(text if vector is None else vector)
        if not single:
            raise ValueError(f"vector: expected ({self.dim},), got {queries.shape}")
        with _text_search.moment_of_words(words, self._database, self._moment, True) as at:
            (by_vector,) = _searching.search_vectors(
                at.connection,
                self._view,
                self._filters,
                queries,
                window,
                condition,
                ef_search,
                None,
            )
            by_words = _text_search.search_words(at, words, text, window, condition)
            both = _text_search.fused(by_vector, by_words, alpha, method, constant, k)
            return _searching.hits_of(
                at.connection,
                both.found.ids,
                both.parts,
                self._view.vectors(both.found.ids) if vectors else None,
            )

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

    def _queries(self, vector: Any) -> tuple[NDArray[Any], bool]:
        """Return (n, dim) queries and whether one vector was given."""
        if isinstance(vector, str):
            if self._embed is None:
                raise TypeError(
                    "vector: expected numbers, got a text, for which the collection needs embed="
                )
            vector = np.asarray(self._embed([vector])).reshape(-1)
        rows, given = _validate.as_rows(
            vector,
            "vector",
            _validate.row_items(self._parameters),
            self._parameters["dtype"],
            queries=True,
        )
        return rows, given.ndim == 1

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
                self._indexed = (schema, {path: _expression(path) for (path,) in paths})
        return self._indexed[1]

    # ---- the folder

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


def _expression(path: str) -> str:
    # no name of the table: SQLite takes none in an index
    return f"json_extract(metadata, {quoted(path)})"


def _close(database: Database, right: WriterRight) -> None:
    database.close()
    right.release()
