"""Filters as Haystack writes them, as filters of a collection."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any

__all__ = ["in_python", "to_tree"]

_EQUAL = {"==": "eq", "!=": "ne", "in": "in", "not in": "nin"}
_ORDER = {">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}
_JOINTS = {"AND": "and", "OR": "or", "NOT": "not"}
_DATE = re.compile(r"\d{4}-\d\d-\d\d(?:$|[Tt ])")
_NOTHING: dict[str, Any] = {"or": []}


def to_tree(given: Any) -> dict[str, Any]:
    """Return a filter as a tree.

    Raises
    ------
    TypeError, ValueError
        If it is none that Haystack knows.
    """
    if not isinstance(given, Mapping):
        raise TypeError(f"filters: expected a dict, got {reprlib.repr(given)}")
    if "operator" not in given:
        raise ValueError(f"filters: expected an 'operator' in {reprlib.repr(given)}")
    operator = given["operator"]
    if "field" not in given:
        if "conditions" not in given:
            raise ValueError(f"filters: expected 'conditions' or a 'field' in {dict(given)!r:.200}")
        if operator not in _JOINTS:
            known = ", ".join(_JOINTS)
            raise ValueError(f"filters: operator: expected {known}, got {operator!r}")
        parts = [to_tree(each) for each in given["conditions"]]
        return {"not": {"and": parts}} if operator == "NOT" else {_JOINTS[operator]: parts}
    if "value" not in given:
        raise ValueError(f"filters: expected a 'value' in {reprlib.repr(dict(given))}")
    return _condition(_subject(given["field"]), operator, given["value"])


def _subject(field: str) -> dict[str, Any]:
    if field in ("id", "content"):
        return {"attribute": "id" if field == "id" else "text"}
    parts = field.split(".")
    return {"field": parts if parts[0] == "meta" and len(parts) > 1 else ["meta", field]}


def _condition(subject: dict[str, Any], operator: str, value: Any) -> dict[str, Any]:
    if operator in _EQUAL:
        if operator.endswith("in") and not isinstance(value, list):
            raise TypeError(
                f"filters: expected a list for {operator!r}, got {type(value).__name__}"
            )
        return {**subject, "op": _EQUAL[operator], "value": value}
    if operator not in _ORDER:
        known = ", ".join((*_EQUAL, *_ORDER))
        raise ValueError(f"filters: operator: expected one of {known}, got {operator!r}")
    if value is None:
        return _NOTHING
    if isinstance(value, list) or (isinstance(value, str) and not _is_date(value)):
        raise TypeError(
            f"filters: expected a number or an ISO date for {operator!r}, got {reprlib.repr(value)}"
        )
    if isinstance(value, datetime):
        value = value.isoformat()
    return {**subject, "op": _ORDER[operator], "value": value}


def _is_date(text: str) -> bool:
    # Python 3.10 does not read the "Z" of UTC
    try:
        datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return False
    return True


def in_python(given: Mapping[str, Any]) -> bool:
    """Tell whether a filter compares dates, which SQLite would compare as texts."""
    if "conditions" in given:
        return any(in_python(each) for each in given["conditions"])
    value = given["value"]
    if given["operator"] in _ORDER:
        return isinstance(value, (str, datetime))
    values = value if isinstance(value, list) else [value]
    return any(
        isinstance(each, datetime) or (isinstance(each, str) and bool(_DATE.match(each)))
        for each in values
    )
