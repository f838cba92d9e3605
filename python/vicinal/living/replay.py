"""Making the changes of a journal again: rows that come one after the other are linked together.

Links are not in the journal. Rows are linked anew, as many at once as come without anything between
that touches them: the graph is as good as that of one call of `add`, and as little is written for a
row as it has bytes. docs/guide/living.md has the figures.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vicinal import _attributes, _updates, _validate
from vicinal._cpu import native
from vicinal._state import State
from vicinal.errors import CorruptError
from vicinal.living import records
from vicinal.living.records import Change, Header

__all__ = ["apply_settings", "replay", "settings_of"]

_ROWS_AT_ONCE = 16384
_TUNING_WORDS = 8  # of a row of native.index_tuning


class _Batch:
    """Changes that wait: rows to write, the last of each id, and ids to remove; none is in both."""

    def __init__(self, index: State) -> None:
        self._index = index
        self._place: dict[Any, int] = {}
        self._ids: list[Any] = []
        self._rows: list[NDArray[Any]] = []
        self._gone: dict[Any, None] = {}

    def write(self, ids: NDArray[Any], rows: NDArray[Any]) -> None:
        for id, row in zip(ids.tolist(), rows, strict=True):
            if id in self._gone:
                self.finish()
            place = self._place.get(id)
            if place is None:
                self._place[id] = len(self._ids)
                self._ids.append(id)
                self._rows.append(row)
            else:
                self._rows[place] = row
            if len(self._ids) >= _ROWS_AT_ONCE:
                self.finish()

    def remove(self, ids: NDArray[Any]) -> None:
        for id in ids.tolist():
            if id in self._place:
                self.finish()
            self._gone[id] = None

    def finish(self) -> None:
        index = self._index
        threads = _validate.thread_count(None)
        if self._gone:
            gone = self._array(list(self._gone))
            _updates.remove(index, gone, "ignore", threads, None)
        if self._ids:
            rows = np.stack(self._rows)
            with index._writer_lock.held():
                _updates.write_rows(
                    index, rows, rows, self._array(self._ids), threads, None, replace=True
                )
        self._place, self._ids, self._rows, self._gone = {}, [], [], {}

    def _array(self, ids: list[Any]) -> NDArray[Any]:
        if self._index._strings is None:
            return np.array(ids, np.int64)
        names = np.empty(len(ids), object)
        names[:] = ids
        return names


def replay(index: State, changes: Sequence[Change], header: Header, path: str) -> None:
    """Make changes again on the index of the file that the journal was begun on.

    Raises
    ------
    CorruptError
        If a change cannot be, though its checksum is right.
    """
    batch = _Batch(index)
    for change in changes:
        try:
            if change.kind == records.ROWS:
                batch.write(*records.to_rows(change.content, header))
            elif change.kind == records.REMOVED:
                batch.remove(records.to_ids(change.content, header.strings)[0])
            elif change.kind == records.SETTINGS:
                apply_settings(index, records.to_settings(change.content))
            else:
                raise ValueError(f"a record of kind {change.kind}")
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise CorruptError(
                f"{path}: the change that ends at byte {change.end} cannot be: {error}"
            ) from None
    batch.finish()


def settings_of(index: State) -> dict[str, Any]:
    """Return what a file holds of an index beside its rows and links; kept queries left out."""
    return {
        "ef_search": index._ef_search,
        "attributes": dict(_attributes.attributes(index)),
        "tuned": base64.b64encode(native.index_tuning(index._handle)).decode(),
        "stop_rules": base64.b64encode(native.index_stop_rules(index._handle)).decode(),
    }


def apply_settings(index: State, settings: dict[str, Any]) -> None:
    """Take over what `settings_of` told."""
    index._ef_search = _validate.whole_number(
        settings["ef_search"], "ef_search", 1, _validate.MAX_COUNT
    )
    _attributes.set_attributes(index, settings["attributes"])
    table = np.frombuffer(base64.b64decode(settings["tuned"]), np.int64)
    # journals of older versions have none
    rules = np.frombuffer(base64.b64decode(settings.get("stop_rules", "")), np.int64)
    native.index_set_tuning(index._handle, table.reshape(-1, _TUNING_WORDS).copy(), rules.copy())
    index._tuned_widths = {}
