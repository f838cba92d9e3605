"""Filters as Chroma, Pinecone and LangChain write them, as filters of a collection."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

__all__ = ["from_operators"]

_OPERATORS = {
    "$eq": "eq",
    "$ne": "ne",
    "$gt": "gt",
    "$gte": "gte",
    "$lt": "lt",
    "$lte": "lte",
    "$in": "in",
    "$nin": "nin",
    "$exists": "exists",
    "$contains": "contains",
    "$any": "any",
    "$all": "all",
}
_JOINTS = {"$and": "and", "$or": "or"}


def from_operators(given: Any, name: str = "filter") -> dict[str, Any] | None:
    """Return {"page": {"$gt": 3}, "source": "a.txt"} as a tree; a tree is returned as it is.

    Raises
    ------
    TypeError, ValueError
        Naming the place, what was wanted and what came.
    """
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise TypeError(f"{name}: expected a dict, got {reprlib.repr(given)}")
    if _is_tree(given):
        return dict(given)
    parts: list[dict[str, Any]] = []
    for key, value in given.items():
        if key in _JOINTS:
            if not isinstance(value, (list, tuple)):
                raise TypeError(f"{name}.{key}: expected a list, got {reprlib.repr(value)}")
            inner = [from_operators(each, f"{name}.{key}") for each in value]
            parts.append({_JOINTS[key]: inner})
        elif key == "$not":
            parts.append({"not": from_operators(value, f"{name}.$not")})
        elif not isinstance(key, str) or key.startswith("$"):
            wanted = ", ".join((*_JOINTS, "$not"))
            raise ValueError(f"{name}: expected a field, {wanted}, got {reprlib.repr(key)}")
        elif isinstance(value, Mapping):
            parts.extend(_conditions(key, value, f"{name}.{key}"))
        else:
            parts.append({"field": key, "op": "eq", "value": value})
    return parts[0] if len(parts) == 1 else {"and": parts}


def _is_tree(given: Mapping[Any, Any]) -> bool:
    if "op" in given and ("field" in given or "attribute" in given):
        return True
    return len(given) == 1 and isinstance(
        given.get("and", given.get("or", given.get("not"))), (list, tuple, Mapping)
    )


def _conditions(field: str, wanted: Mapping[Any, Any], name: str) -> list[dict[str, Any]]:
    parts = []
    for operator, value in wanted.items():
        if operator not in _OPERATORS:
            known = ", ".join(_OPERATORS)
            raise ValueError(f"{name}: expected one of {known}, got {reprlib.repr(operator)}")
        parts.append({"field": field, "op": _OPERATORS[operator], "value": value})
    return parts
