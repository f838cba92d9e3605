"""The methods of a collection that change it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import ArrayLike

from vicinal.collection import _changes, _checkpoint
from vicinal.collection._opened import Ids, Opened, Where, expression
from vicinal.collection._where import Condition, field_path

__all__ = ["Writer"]


class Writer(Opened):
    """Changes, each of which is one transaction."""

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
        with self._turn(), self._database.writing() as connection:
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
        with self._turn(), self._database.writing() as connection:
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
            connection.execute(f"CREATE INDEX field_{number} ON documents({expression(path)})")
            connection.execute("UPDATE state SET seq = seq + 1")

    def checkpoint(self) -> None:
        """Save the index with all that is pending, so that opening has nothing to replay.

        Takes memory for the whole index and as long as adding what is pending. Searches of this
        process and of others go on, and changes of this process's other threads too: these stay
        pending. Killed at any moment, the folder is as before or as after.
        """
        with self._saving():
            with self._turn():
                self._keep_words_in_step()
            _checkpoint.save_pending(self._database, self._parameters, turn=self._turn)

    def compact(self) -> None:
        """Give back the space of deleted documents: index, tables and words are built anew."""
        with self._saving(), self._turn():
            self._keep_words_in_step(rebuild=True)
            _checkpoint.save_pending(self._database, self._parameters, compact=True)
            with self._database.connection() as connection:
                connection.execute("VACUUM")

    def _checkpoint_if_due(self) -> None:
        if self._checkpoint_rows is None or self.pending < self._checkpoint_rows:
            return
        with self._saving():
            if self.pending >= self._checkpoint_rows:  # no other thread was faster
                self.checkpoint()

    @property
    def pending(self) -> int:
        """How many changed documents are not in the saved index yet."""
        with self._database.reading() as connection:
            return int(connection.execute("SELECT count(*) FROM pending").fetchone()[0])
