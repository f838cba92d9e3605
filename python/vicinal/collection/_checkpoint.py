"""Saving the index anew with all that is pending, so that there is nothing left to replay."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

from vicinal._logging import DEBUG, log
from vicinal.collection._database import Database, state_of
from vicinal.collection._view import new_index, rows_at
from vicinal.opening import open

__all__ = ["save_pending"]

_PREFIX, _SUFFIX = "vectors-", ".vicinal"


def save_pending(
    database: Database,
    parameters: dict[str, Any],
    compact: bool = False,
    turn: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> None:
    """Save an index with all changes under a new name, record it, forget what was pending.

    This process has the right to write, and one thread of it at a time is here. Others may change
    documents while the index is made: what they change stays pending. `turn` is held while it is
    recorded. Killed before the record, the folder has a file too many, which the next call removes;
    killed after it, likewise.
    """
    with database.reading() as connection:
        state = state_of(connection)
        waiting = connection.execute("SELECT count(*) FROM pending").fetchone()[0]
        if not waiting and state.file is not None and not compact:
            _remove_others(database.folder, state.file)
            return
        gone, rows, vectors = rows_at(connection, -1, parameters)
    if state.file is None:
        index = new_index(parameters)
    else:
        index = open(os.path.join(database.folder, state.file), mode="copy")
    if len(gone):
        index.remove(gone, missing="ignore")
    if len(rows):
        index.add(vectors, rows, on_conflict="update")
    if compact:
        index.compact()
    name = f"{_PREFIX}{state.seq + 1}{_SUFFIX}"
    index.save(os.path.join(database.folder, name))
    with turn(), database.writing() as connection:
        connection.execute("UPDATE state SET seq = seq + 1, file = ?", (name,))
        connection.execute("DELETE FROM pending WHERE seq <= ?", (state.seq,))
    _remove_others(database.folder, name)
    with database.connection() as connection:
        # moves the log into the file as far as readers allow, and does not wait for them
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    log(DEBUG, "checkpoint: %d pending rows, %d rows in all", waiting, len(index))


def _remove_others(folder: str, name: str) -> None:
    """Remove saved indexes that no record names; who has one open keeps what it maps."""
    for other in os.listdir(folder):
        if other != name and other.startswith(_PREFIX) and other.endswith(_SUFFIX):
            with suppress(OSError):
                os.unlink(os.path.join(folder, other))
