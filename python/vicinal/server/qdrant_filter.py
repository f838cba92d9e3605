"""Qdrant's filters become those of collections; what has no exact counterpart is refused by name.

Qdrant looks at the elements of a list one by one and tells integers from floats; so do "some" and
"type" of docs/guide/collection.md.
"""

from __future__ import annotations

import re
import uuid
from typing import Any

from vicinal.server.fields import Fields, boolean, number, refuse, string
from vicinal.server.problems import Problem, shown
from vicinal.server.settings import Limits

__all__ = ["field_of", "lookup_id", "lookup_ids", "point_id", "shown_id", "where_of"]

_UUID = re.compile(
    r"[0-9a-f]{32}|(?:urn:uuid:)?[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    r"|\{[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\}",
    re.ASCII | re.IGNORECASE,
)
_WHOLE = re.compile(r"0|[1-9][0-9]{0,19}", re.ASCII)
_PART = re.compile(r'([\w-]+)|"([^"\\\x00-\x1f]+)"')
_MOST = 2**64 - 1
_INT64 = 2**63
_UNKNOWN = (
    "values_count",
    "geo_radius",
    "geo_bounding_box",
    "geo_polygon",
    "nested",
    "has_vector",
    "slice",
)

# ---- ids


def point_id(given: Any, name: str) -> str:
    """Return the id of a point that is written, a whole number or a UUID, as a document's."""
    if isinstance(given, int) and not isinstance(given, bool) and 0 <= given <= _MOST:
        return str(given)
    if isinstance(given, str) and _UUID.fullmatch(given):
        return str(uuid.UUID(given))
    raise refuse(
        name, "an unsigned integer of 64 bits or a UUID (/v1 has documents with any id)", given
    )


def lookup_id(given: Any, name: str) -> str:
    """Return the id of a point that is looked for: of documents written elsewhere any string."""
    if isinstance(given, str) and not _UUID.fullmatch(given) and not _is_whole(given):
        return given
    return point_id(given, name)


def lookup_ids(given: list[Any], name: str) -> list[str]:
    """Return the ids of points that are looked for.

    A whole number as a string is the id of no point: it is left out, as qdrant-client does itself.
    """
    there = [
        (place, each)
        for place, each in enumerate(given)
        if not (isinstance(each, str) and _is_whole(each))
    ]
    return [lookup_id(each, f"{name}[{place}]") for place, each in there]


def _is_whole(id: str) -> bool:
    return _WHOLE.fullmatch(id) is not None and int(id) <= _MOST


def shown_id(id: str) -> int | str:
    """Return a document's id as that of a point."""
    return int(id) if _is_whole(id) else id


# ---- filters


def field_of(key: Any, name: str) -> list[str]:
    """Return the field of a key such as `a`, `a.b` or `a."odd name"`."""
    text, parts, at = string(key, name), [], 0
    while True:
        found = _PART.match(text, at)
        if found is None or (found.end() < len(text) and text[found.end()] != "."):
            raise Problem(
                400,
                f'{name}: expected a key such as a, a.b or a."odd name", without brackets, got '
                f"{shown(key)}",
            )
        parts.append(found[1] or found[2])
        at = found.end() + 1
        if found.end() == len(text):
            return parts


def where_of(given: Any, name: str, limits: Limits, depth: int = 1) -> dict[str, Any]:
    """Return a filter as a collection takes it."""
    if depth > limits.depth:
        raise Problem(400, f"{name}: expected at most {limits.depth} levels, got more")
    fields = Fields(given, name)
    parts: list[dict[str, Any]] = []
    for clause in ("must", "should", "must_not"):
        conditions = fields.maybe(clause, lambda value, at: (_several(value), at))
        if conditions is None:
            continue
        items, at = conditions
        trees = [
            _condition(each, f"{at}[{place}]", limits, depth) for place, each in enumerate(items)
        ]
        if clause == "must":
            parts += trees
        elif clause == "must_not":
            parts += [{"not": tree} for tree in trees]
        elif trees:
            parts.append({"or": trees})
    fields.end()
    return {"and": parts}


def _several(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _condition(given: Any, name: str, limits: Limits, depth: int) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise refuse(name, "an object", given)
    for key in _UNKNOWN:
        if given.get(key) is not None:
            raise Problem(400, f"{name}.{key}: this server does not have it")
    fields = Fields(given, name)
    if "key" in given:
        return _on_field(fields, name)
    if "has_id" in given:
        ids = fields.take("has_id", _ids)
        fields.end()
        return {"attribute": "id", "op": "in", "value": ids}
    for kind, tree in (("is_empty", _is_empty), ("is_null", _is_null)):
        if kind in given:
            inner = Fields(fields.take(kind, lambda value, _: value), f"{name}.{kind}")
            path = inner.take("key", field_of)
            inner.end()
            fields.end()
            return tree(path)
    return where_of(given, name, limits, depth + 1)


def _ids(value: Any, name: str) -> list[str]:
    if not isinstance(value, list):
        raise refuse(name, "an array of ids", value)
    return lookup_ids(value, name)


def _is_empty(path: list[str]) -> dict[str, Any]:
    return {
        "or": [
            {"field": path, "op": "eq", "value": None},
            {"field": path, "op": "eq", "value": []},
        ]
    }


def _is_null(path: list[str]) -> dict[str, Any]:
    return {"field": path, "op": "any", "value": [None]}


def _on_field(fields: Fields, name: str) -> dict[str, Any]:
    path = fields.take("key", field_of)
    said: list[dict[str, Any]] = []
    match = fields.maybe("match", lambda value, at: _match(path, value, at))
    if match is not None:
        said.append(match)
    span = fields.maybe("range", lambda value, at: _range(path, value, at))
    if span is not None:
        said.append(span)
    for kind, tree in (("is_empty", _is_empty), ("is_null", _is_null)):
        wanted = fields.maybe(kind, boolean)
        if wanted is not None:
            said.append(tree(path) if wanted else {"not": tree(path)})
    fields.end()
    if len(said) != 1:
        raise Problem(
            400,
            f"{name}: expected one of match, range, is_empty, is_null, got {len(said) or 'none'}",
        )
    return said[0]


def _match(path: list[str], given: Any, name: str) -> dict[str, Any]:
    fields = Fields(given, name)
    if len(given) != 1:
        raise refuse(name, "one of value, any, except, substring", list(given))
    if "value" in given:
        return _some(path, _equal(fields.take("value", _scalar)))
    if "any" in given:
        return _some(path, {"or": [_among(fields.take("any", _scalars))]})
    if "except" in given:
        others = fields.take("except", _scalars)
        left = [{"op": "type", "value": "null"}, _among(others)]
        # an object is a single value that equals nothing
        return {
            "or": [
                {"field": path, "op": "type", "value": "object"},
                _some(path, {"not": {"or": left}}),
            ]
        }
    if "substring" in given:
        return _some(path, {"op": "contains", "value": fields.take("substring", string)})
    fields.end()
    raise AssertionError("all that is left over was refused")


def _some(path: list[str], tree: dict[str, Any]) -> dict[str, Any]:
    return {"field": path, "op": "some", "value": tree}


def _scalar(value: Any, name: str) -> Any:
    if isinstance(value, (bool, str)):
        return value
    if isinstance(value, int) and -_INT64 <= value < _INT64:
        return value
    raise refuse(name, "a string, an integer of 64 bits, true or false", value)


def _scalars(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise refuse(name, "an array", value)
    found = [_scalar(each, f"{name}[{place}]") for place, each in enumerate(value)]
    if any(isinstance(each, bool) for each in found) or len({type(each) for each in found}) > 1:
        raise refuse(name, "strings alone or integers alone", value)
    return found


def _equal(value: Any) -> dict[str, Any]:
    equal = {"op": "eq", "value": value}
    if isinstance(value, int) and not isinstance(value, bool):
        return {"and": [equal, {"op": "type", "value": "integer"}]}  # 1.0 is none
    return equal


def _among(values: list[Any]) -> dict[str, Any]:
    among = {"op": "in", "value": values}
    if values and isinstance(values[0], int):
        return {"and": [among, {"op": "type", "value": "integer"}]}
    return among


def _range(path: list[str], given: Any, name: str) -> dict[str, Any]:
    fields = Fields(given, name)
    bounds = [
        {"op": kind, "value": value}
        for kind in ("lt", "lte", "gt", "gte")
        if (value := fields.maybe(kind, _bound)) is not None
    ]
    fields.end()
    numbers = [{"op": "type", "value": kind} for kind in ("integer", "real")]
    return _some(path, {"and": [{"or": numbers}, *bounds]})


def _bound(value: Any, name: str) -> float:
    if isinstance(value, str):
        raise Problem(400, f"{name}: expected a number; this server has no ranges of dates")
    return number(value, name)
