"""Changing documents: arguments are checked, then one transaction has all of the change."""

from __future__ import annotations

import json
import re
import reprlib
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vicinal import _kinds, _validate
from vicinal._string_ids import as_strings
from vicinal.collection._database import state_of
from vicinal.collection._reading import rows_of_ids
from vicinal.collection._view import new_index
from vicinal.collection._where import Condition

__all__ = [
    "Change",
    "as_metadata",
    "check_change",
    "delete_rows",
    "merge_metadata",
    "string_ids",
    "write_change",
]

Embed = Callable[[list[str]], Any]
# so many rows are checked at once: an index of fewer has no graph to build
_CHECKED = 900
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")  # as JSON writes it


class Change(NamedTuple):
    """Checked documents; what is None stays as it is, or is empty in new ones.

    Vectors are the bytes that the index stores, None for a document that has no vector.
    """

    ids: list[str]
    vectors: list[bytes | None] | None
    texts: list[str | None] | None
    metadata: list[str] | None


def string_ids(ids: Any) -> list[str]:
    """Return ids, one or several, as a list of distinct strings that are Unicode."""
    names = as_strings(ids).reshape(-1)
    found: list[str] = names.tolist()
    for position, name in enumerate(found):
        _check_unicode(name, f"ids: position {position}")
    if len(set(found)) < len(found):
        _validate.refuse_repeats(names)
    return found


def check_change(
    ids: Any,
    vectors: Any,
    texts: Any,
    metadata: Any,
    parameters: dict[str, Any],
    embed: Embed | None,
    new: bool,
) -> Change:
    """Check documents of which any may be new, or none with `new=False`.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what was wanted and what came.
    """
    single = isinstance(ids, str)
    names = string_ids(ids)
    texts = _texts(texts, len(names), single)
    packed = as_metadata(metadata, len(names), single)
    if vectors is None and embed is not None and texts is not None:
        vectors = _embedded(embed, texts)
    if vectors is None and new:
        raise ValueError(
            "vectors: expected vectors, got None; a collection with embed= makes them of texts"
        )
    rows = None if vectors is None else _blobs(vectors, len(names), parameters)
    return Change(names, rows, texts, packed)


def _embedded(embed: Embed, texts: list[str | None]) -> Any:
    missing = [position for position, text in enumerate(texts) if text is None]
    if missing:
        raise ValueError(f"texts: expected a text to embed at position {missing[0]}, got None")
    return embed([text for text in texts if text is not None]) if texts else []


def _blobs(vectors: Any, count: int, parameters: dict[str, Any]) -> list[bytes | None]:
    """Return vectors as bytes, and None where a list has None for a document without one."""
    there = list(range(count))
    if isinstance(vectors, (list, tuple)) and any(each is None for each in vectors):
        if len(vectors) != count:
            raise ValueError(f"vectors: expected {count}, one for each id, got {len(vectors)}")
        there = [place for place, each in enumerate(vectors) if each is not None]
        vectors = [vectors[place] for place in there]
    blobs: list[bytes | None] = [None] * count
    for place, row in zip(there, checked_rows(vectors, len(there), parameters), strict=True):
        blobs[place] = row.tobytes()
    return blobs


def checked_rows(vectors: Any, count: int, parameters: dict[str, Any]) -> NDArray[Any]:
    """Return vectors as the index stores them; whatever it would refuse is refused here."""
    items = _kinds.row_items(parameters)
    if isinstance(vectors, (list, tuple)) and not len(vectors) and count == 0:
        vectors = np.empty((0, items), _kinds.STORED_DTYPES[parameters["dtype"]])
    rows, _ = _validate.as_rows(vectors, "vectors", items, parameters["dtype"])
    if len(rows) != count:
        raise ValueError(f"vectors: expected ({count}, {items}), got {rows.shape}")
    given = np.asarray(vectors).reshape(len(rows), -1) if len(rows) else rows
    for start in range(0, len(rows), _CHECKED):
        try:
            new_index(parameters).add(given[start : start + _CHECKED])
        except ValueError as error:
            said = re.match(r"vectors: row (\d+)", str(error))
            if said is None:
                raise
            rest = str(error)[said.end() :]
            raise ValueError(f"vectors: row {start + int(said[1])}{rest}") from None
    return rows


def _check_unicode(text: str, name: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name}: expected Unicode, got half a surrogate pair") from None


def _listed(given: Any, name: str, count: int, single: bool, kinds: type | tuple[type, ...]) -> Any:
    """Return an argument that has an item for each document as a list."""
    if single and isinstance(given, kinds):
        given = [given]
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        raise TypeError(f"{name}: expected a list with one for each id, got {reprlib.repr(given)}")
    given = list(given)
    if len(given) != count:
        raise ValueError(f"{name}: expected {count}, one for each id, got {len(given)}")
    return given


def _texts(texts: Any, count: int, single: bool) -> list[str | None] | None:
    if texts is None:
        return None
    found: list[str | None] = []
    for position, text in enumerate(_listed(texts, "texts", count, single, str)):
        if text is not None and not isinstance(text, str):
            raise TypeError(
                f"texts: expected strings or None, got {reprlib.repr(text)} at position {position}"
            )
        if text is not None:
            _check_unicode(text, f"texts: position {position}")
        found.append(None if text is None else str(text))
    return found


def as_metadata(metadata: Any, count: int, single: bool = False) -> list[str] | None:
    """Return metadata, a dict or None for each document, as JSON."""
    if metadata is None:
        return None
    items = _listed(metadata, "metadata", count, single, Mapping)
    return [as_json(item, f"metadata: position {place}") for place, item in enumerate(items)]


def as_json(item: Any, name: str) -> str:
    """Return one document's metadata as JSON."""
    if item is None:
        return "{}"
    if not isinstance(item, Mapping):
        raise TypeError(f"{name}: expected a dict or None, got {reprlib.repr(item)}")
    _check_keys(item, name)
    try:
        text = json.dumps(
            dict(item), allow_nan=False, ensure_ascii=False, separators=(",", ":"), default=_plain
        )
    except (TypeError, ValueError, RecursionError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(
            f"{name}: expected what JSON can hold, got {reprlib.repr(item)}: {error}"
        ) from None
    _check_unicode(text, name)
    if _NUL.search(text):
        # SQLite's JSON functions end a string there, and filters would find what is not
        raise ValueError(f"{name}: expected strings without NUL, got {reprlib.repr(item)}")
    return text


def _check_keys(item: Any, name: str) -> None:
    """Refuse keys that JSON would change to strings."""
    if isinstance(item, Mapping):
        for key, value in item.items():
            if not isinstance(key, str):
                raise TypeError(f"{name}: expected strings as keys, got {reprlib.repr(key)}")
            if isinstance(value, (Mapping, list, tuple)):
                _check_keys(value, name)
    elif isinstance(item, (list, tuple)):
        for value in item:
            if isinstance(value, (Mapping, list, tuple)):
                _check_keys(value, name)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is nothing that JSON has")


# ---- in a transaction


def write_change(connection: sqlite3.Connection, change: Change, verb: str) -> None:
    """Write documents; `verb` is "upsert", "add" or "update".

    Raises
    ------
    KeyError
        If "update" finds an id that is not there.
    ValueError
        If "add" finds one that is.
    """
    state = state_of(connection)
    seq = state.seq + 1
    statement, columns = _statement(change, verb)
    for position, id in enumerate(change.ids):
        values = (
            "{}" if change.metadata is None else change.metadata[position],
            None if change.texts is None else change.texts[position],
        )
        found = connection.execute(
            statement, (*(values[column] for column in columns), id)
        ).fetchall()
        if not found and verb == "update":
            raise KeyError(f"ids: {_validate.shown(id)} is not in the collection")
        if not found:
            raise ValueError(
                f"ids: {_validate.shown(id)} at position {position} is already in the collection"
            )
        row = found[0][0]
        if change.vectors is not None:
            connection.execute(
                "INSERT OR REPLACE INTO pending VALUES(?, ?, ?)",
                (row, seq, change.vectors[position]),
            )
        if state.words and (change.texts is not None or verb != "update"):
            connection.execute("INSERT OR REPLACE INTO unindexed VALUES(?, ?)", (row, seq))
    if change.ids:
        connection.execute("UPDATE state SET seq = ?", (seq,))


def _statement(change: Change, verb: str) -> tuple[str, tuple[int, ...]]:
    """Return SQL that writes a document and tells its row, and which values it takes before id."""
    if verb == "update":
        given = [(0, "metadata", change.metadata), (1, "text", change.texts)]
        columns = tuple(column for column, _, values in given if values is not None)
        setting = ", ".join(f"{name} = ?" for _, name, values in given if values is not None)
        return f"UPDATE documents SET {setting or 'id = id'} WHERE id = ? RETURNING row", columns
    insert = "INSERT INTO documents(metadata, text, id) VALUES(?, ?, ?) ON CONFLICT(id) "
    if verb == "add":
        return f"{insert} DO NOTHING RETURNING row", (0, 1)
    return (
        f"{insert} DO UPDATE SET metadata = excluded.metadata, text = excluded.text RETURNING row",
        (0, 1),
    )


def delete_rows(
    connection: sqlite3.Connection, ids: Sequence[str] | None, where: Condition | None
) -> int:
    """Delete documents of some ids, or that a filter finds, or both; return how many there were."""
    state = state_of(connection)
    condition, parameters = _chosen(connection, ids, where)
    rows = connection.execute(
        f"DELETE FROM documents WHERE {condition} RETURNING row", parameters
    ).fetchall()
    if not rows:
        return 0
    seq = state.seq + 1
    connection.executemany(
        "INSERT OR REPLACE INTO pending VALUES(?, ?, NULL)", [(row, seq) for (row,) in rows]
    )
    if state.words:
        connection.executemany(
            "INSERT OR REPLACE INTO unindexed VALUES(?, ?)", [(row, seq) for (row,) in rows]
        )
    connection.execute("UPDATE state SET seq = ?", (seq,))
    return len(rows)


def merge_metadata(
    connection: sqlite3.Connection,
    ids: Sequence[str] | None,
    where: Condition | None,
    values: Mapping[str, Any],
) -> int:
    """Set keys of the metadata of documents; return how many documents there were."""
    condition, parameters = _chosen(connection, ids, where)
    found = connection.execute(
        f"SELECT row, metadata FROM documents WHERE {condition}", parameters
    ).fetchall()
    changed = [
        (as_json({**json.loads(metadata), **values}, "values"), row) for row, metadata in found
    ]
    connection.executemany("UPDATE documents SET metadata = ? WHERE row = ?", changed)
    if changed:
        connection.execute("UPDATE state SET seq = seq + 1")
    return len(changed)


def _chosen(
    connection: sqlite3.Connection, ids: Sequence[str] | None, where: Condition | None
) -> tuple[str, tuple[Any, ...]]:
    """Return the condition for documents of some ids that a filter finds."""
    parts: list[str] = []
    parameters: list[Any] = []
    if ids is not None:
        parts.append("documents.row IN (SELECT value FROM json_each(?))")
        parameters.append(json.dumps(list(rows_of_ids(connection, ids).values())))
    if where is not None:
        parts.append(f"({where.sql})")
        parameters.extend(where.parameters)
    return " AND ".join(parts) or "1", tuple(parameters)
