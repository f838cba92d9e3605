"""The attributes of an index: a small JSON object of its user's that lies in the file with it.

Files hold them as one JSON text, under "attributes"; beside it stands under "journal" up to which
record of which journal a living file has taken its changes in (`vicinal.living`), and under "scale"
what a stored whole number is worth (`_scale.py`).
"""

from __future__ import annotations

import json
import os
import reprlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from vicinal._cpu import native
from vicinal._state import State
from vicinal.errors import CorruptError

__all__ = ["attributes", "hand_over", "mark", "set_attributes", "shown"]

MOST_BYTES = 1 << 20


def attributes(index: State) -> Mapping[str, Any]:
    """See `Index.attributes`."""
    return MappingProxyType(_parsed(index)["attributes"]) if index._attributes else _NONE


def set_attributes(index: State, value: object) -> None:
    """See `Index.attributes`."""
    index._require_writable()
    text = _encoded(index, _checked(value), None)
    if len(text) > MOST_BYTES:
        raise ValueError(f"attributes: expected at most {MOST_BYTES} bytes, got {len(text)}")
    index._attributes = text


def mark(index: State) -> tuple[str, int] | None:
    """Return the journal and the record that the file of an index was made after, if any."""
    if not index._attributes:
        return None
    found = _parsed(index).get("journal")
    return None if found is None else (found["id"], found["record"])


def hand_over(index: State, mark: tuple[str, int] | None = None) -> None:
    """Give the native index the attributes, and a mark if any, as a file has them."""
    text = _encoded(index, dict(attributes(index)), mark)
    native.index_set_attributes(index._handle, np.frombuffer(text, np.uint8))


def shown(index: State) -> str:
    """Return what `repr` of an index tells of them."""
    try:
        found = dict(attributes(index))
    except CorruptError:
        return ", attributes damaged"
    return f", attributes {reprlib.repr(found)}" if found else ""


_NONE: Mapping[str, Any] = MappingProxyType({})


def _encoded(index: State, found: dict[str, Any], mark: tuple[str, int] | None) -> bytes:
    made: dict[str, Any] = {}
    if found:
        made["attributes"] = found
    if mark is not None:
        made["journal"] = {"id": mark[0], "record": mark[1]}
    if index._scale is not None:
        made["scale"] = index._scale
    if not made:
        return b""
    try:
        return json.dumps(made, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise type(error)(f"attributes: expected what JSON can hold: {error}") from None


def _checked(value: object) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"attributes: expected a mapping, got {type(value).__name__}")
    for key in value:
        if not isinstance(key, str):
            raise TypeError(f"attributes: expected strings as keys, got {reprlib.repr(key)}")
    return dict(value)


def _parsed(index: State) -> dict[str, Any]:
    """Return what the JSON text says, all of it of the right kind."""
    try:
        found = json.loads(index._attributes)
        if not isinstance(found, dict) or not isinstance(found.setdefault("attributes", {}), dict):
            raise ValueError("no object")
        journal = found.get("journal")
        if journal is not None and not (
            isinstance(journal, dict)
            and isinstance(journal.get("id"), str)
            and isinstance(journal.get("record"), int)
        ):
            raise ValueError("the mark of a journal is none")
    except (ValueError, RecursionError) as error:
        where = os.fsdecode(index._path) or "index"
        raise CorruptError(f"{where}: its attributes are damaged: {error}") from None
    return found
