"""Reading documents in a transaction: by row, by id, by filter; what fields have."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vicinal.collection._where import Condition

__all__ = [
    "all_rows",
    "count",
    "distinct",
    "documents_of",
    "ids_of",
    "min_max",
    "page",
    "page_by_id",
    "rows_among",
    "rows_of_ids",
]

Rows = NDArray[np.int64]
Stored = tuple[str, "str | None", str]  # id, text, metadata as JSON


def documents_of(connection: sqlite3.Connection, rows: Iterable[int]) -> dict[int, Stored]:
    """Return the documents of rows."""
    found = connection.execute(
        "SELECT row, id, text, metadata FROM documents "
        "WHERE row IN (SELECT value FROM json_each(?))",
        (json.dumps([int(row) for row in rows]),),
    )
    return {row: (id, text, metadata) for row, id, text, metadata in found}


def ids_of(connection: sqlite3.Connection, rows: Rows) -> dict[int, str]:
    """Return the ids of rows."""
    found = connection.execute(
        "SELECT row, id FROM documents WHERE row IN (SELECT value FROM json_each(?))",
        (json.dumps(rows.tolist()),),
    )
    return dict(found.fetchall())


def page_by_id(
    connection: sqlite3.Connection, where: Condition | None, start: str | None, limit: int
) -> list[tuple[int, Stored]]:
    """Return documents that a filter finds in the order of ids, shorter ones first, from one on."""
    condition, values = ("1", ()) if where is None else where
    behind: tuple[Any, ...] = ()
    if start is not None:
        condition = f"(length(documents.id), documents.id) >= (length(?), ?) AND ({condition})"
        behind = (start, start)
    found = connection.execute(
        f"SELECT documents.row, id, text, metadata FROM documents WHERE {condition} "
        "ORDER BY length(documents.id), documents.id LIMIT ?",
        (*behind, *values, limit),
    )
    return [(row, (id, text, metadata)) for row, id, text, metadata in found]


def rows_of_ids(connection: sqlite3.Connection, ids: Sequence[str]) -> dict[str, int]:
    """Return the rows of those ids that there are."""
    found: dict[str, int] = {}
    for id in ids:
        row = connection.execute("SELECT row FROM documents WHERE id = ?", (id,)).fetchone()
        if row is not None:
            found[id] = row[0]
    return found


def all_rows(connection: sqlite3.Connection, where: Condition) -> Rows:
    """Return the rows that a filter finds, in order."""
    found = connection.execute(
        f"SELECT documents.row FROM documents WHERE {where.sql}", where.parameters
    )
    rows = np.fromiter((row for (row,) in found), np.int64)
    rows.sort()
    return rows


def rows_among(connection: sqlite3.Connection, where: Condition, rows: Rows) -> Rows:
    """Return which of some rows a filter finds; looks at no others."""
    found = connection.execute(
        "SELECT documents.row FROM json_each(?) AS given CROSS JOIN documents "
        f"ON documents.row = given.value WHERE {where.sql}",
        (json.dumps(rows.tolist()), *where.parameters),
    )
    return np.fromiter((row for (row,) in found), np.int64)


def page(
    connection: sqlite3.Connection, where: Condition | None, after: int, limit: int, offset: int
) -> list[tuple[int, Stored]]:
    """Return documents that a filter finds in the order of rows, behind a row."""
    condition = "1" if where is None else where.sql
    found = connection.execute(
        "SELECT documents.row, id, text, metadata FROM documents "
        f"WHERE documents.row > ? AND ({condition}) ORDER BY documents.row LIMIT ? OFFSET ?",
        (after, *(() if where is None else where.parameters), limit, offset),
    )
    return [(row, (id, text, metadata)) for row, id, text, metadata in found]


def count(connection: sqlite3.Connection, where: Condition | None) -> int:
    """Return how many documents a filter finds."""
    if where is None:
        return int(connection.execute("SELECT count(*) FROM documents").fetchone()[0])
    found = connection.execute(
        f"SELECT count(*) FROM documents WHERE {where.sql}", where.parameters
    )
    return int(found.fetchone()[0])


def distinct(connection: sqlite3.Connection, path: str, where: Condition | None) -> list[Any]:
    """Return what a field has, each once: booleans, then numbers, then strings, in order."""
    condition, parameters = ("1", ()) if where is None else where
    found = connection.execute(
        "SELECT DISTINCT part.value, part.type FROM documents, json_each(documents.metadata, ?) "
        f"AS part WHERE json_type(documents.metadata, ?) <> 'object' AND ({condition})",
        (path, path, *parameters),
    ).fetchall()
    kinds = {"true": 0, "false": 0, "integer": 1, "real": 1, "text": 2}
    values = [
        (kinds[kind], kind == "true" if kinds[kind] == 0 else value)
        for value, kind in found
        if kind in kinds
    ]
    return [value for _, value in sorted(values)]


def min_max(
    connection: sqlite3.Connection, path: str, where: Condition | None
) -> tuple[Any, Any] | None:
    """Return the least and the greatest number of a field, or string if there are no numbers."""
    condition, parameters = ("1", ()) if where is None else where
    for types in ("('integer', 'real')", "('text')"):
        low, high = connection.execute(
            "SELECT min(json_extract(metadata, ?)), max(json_extract(metadata, ?)) FROM documents "
            f"WHERE json_type(documents.metadata, ?) IN {types} AND ({condition})",
            (path, path, path, *parameters),
        ).fetchone()
        if low is not None:
            return low, high
    return None
