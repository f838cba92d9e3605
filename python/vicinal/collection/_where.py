"""The filter language: a tree of plain data becomes SQL with parameters.

A node is {"and": [...]}, {"or": [...]}, {"not": node} or a condition {"field": name, "op": ...,
"value": ...}. Nothing that comes from a caller stands in the SQL but paths of fields that have an
index, which are quoted; SQLite uses an index on an expression only where it is written out.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

__all__ = ["OPERATORS", "Condition", "compile_where", "field_path", "quoted"]

_MAX_DEPTH, _MAX_NODES = 50, 1000
_INT64 = 2**63
_ORDER = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_TYPES = {
    "null": "('null')",
    "boolean": "('true', 'false')",
    "integer": "('integer')",
    "real": "('real')",
    "string": "('text')",
    "list": "('array')",
    "object": "('object')",
}
_SCALARS = "a string, a number, a boolean or None"


class Condition(NamedTuple):
    """SQL over the table `documents` and its parameters; equal ones find the same rows."""

    sql: str
    parameters: tuple[Any, ...]


class _Subject(NamedTuple):
    """What a condition asks about: a field of the metadata, or a column of the table."""

    value: Condition
    type: Condition  # the name of its JSON type, or NULL where there is none
    elements: Condition | None  # rows of it, if it can be a list
    name: str


# what a condition below "some" asks about; SQLite gives booleans as numbers, so by type
_ELEMENT = _Subject(Condition("part.value", ()), Condition("part.type", ()), None, "element")


def compile_where(where: object, indexed: Mapping[str, str] | None = None) -> Condition:
    """Return a filter as SQL.

    Parameters
    ----------
    where : dict
        The tree.
    indexed : mapping, optional
        JSON paths that have an index, to the SQL of the expression that is indexed.

    Raises
    ------
    TypeError, ValueError
        Naming the place in the tree, what was wanted and what came.
    """
    return _Compiler(indexed or {}).node(where, "where", 1)


def field_path(field: object, name: str = "field") -> str:
    """Return a field, a name or a list of names that leads into nested objects, as a JSON path."""
    parts = [field] if isinstance(field, str) else field
    if not isinstance(parts, (list, tuple)) or not all(isinstance(part, str) for part in parts):
        raise TypeError(f"{name}: expected a name or a list of names, got {reprlib.repr(field)}")
    for part in parts:
        if not part or any(letter in '"\\' or letter < " " for letter in part):
            raise ValueError(
                f"{name}: expected names that are not empty, without quotes, backslashes and "
                f"control characters, got {reprlib.repr(part)}"
            )
    if not parts:
        raise ValueError(f"{name}: expected a name or a list of names, got none")
    return "$" + "".join(f'."{part}"' for part in parts)


def quoted(text: str) -> str:
    """Return a text as a literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


class _Compiler:
    """Goes down a tree; counts its nodes."""

    def __init__(self, indexed: Mapping[str, str]) -> None:
        self._indexed = indexed
        self._nodes = 0
        self._element = False  # below "some": conditions are about an element of its field

    def node(self, given: object, name: str, depth: int) -> Condition:
        self._nodes += 1
        if depth > _MAX_DEPTH or self._nodes > _MAX_NODES:
            raise ValueError(
                f"where: expected at most {_MAX_NODES} nodes, {_MAX_DEPTH} deep, got more; "
                '"in" takes a list of any length'
            )
        if not isinstance(given, Mapping):
            raise TypeError(f"{name}: expected a dict, got {reprlib.repr(given)}")
        if len(given) == 1:
            (key, inner), *_ = given.items()
            if key in ("and", "or"):
                return self._several(key, inner, f"{name}.{key}", depth)
            if key == "not":
                return _negated(self.node(inner, f"{name}.not", depth + 1))
        if "op" not in given or not set(given) <= {"field", "attribute", "op", "value"}:
            raise ValueError(
                f'{name}: expected "and", "or", "not", or "field" with "op" and "value", got '
                f"{reprlib.repr(dict(given))}"
            )
        return self._leaf(given, name, depth)

    def _several(self, key: str, inner: object, name: str, depth: int) -> Condition:
        if not isinstance(inner, (list, tuple)):
            raise TypeError(f"{name}: expected a list, got {reprlib.repr(inner)}")
        parts = [
            self.node(each, f"{name}[{number}]", depth + 1) for number, each in enumerate(inner)
        ]
        return _joined(parts, key.upper())

    def _leaf(self, given: Mapping[str, Any], name: str, depth: int) -> Condition:
        operator = given["op"]
        if not isinstance(operator, str) or operator not in OPERATORS:
            raise ValueError(
                f"{name}.op: expected one of {', '.join(OPERATORS)}, got {reprlib.repr(operator)}"
            )
        if "value" not in given and operator != "exists":
            raise ValueError(f'{name}: expected a "value" for {operator!r}, got none')
        subject = self._subject(given, operator, name)
        if operator == "some":
            return self._some(subject, given["value"], f"{name}.value", depth)
        return OPERATORS[operator](subject, given.get("value", True), f"{name}.value")

    def _some(self, subject: _Subject, inner: object, name: str, depth: int) -> Condition:
        """Return that a list, or a single value as a list of one, has an element that fits."""
        _need_elements(subject, name)
        self._element = True
        try:
            fits = self.node(inner, name, depth + 1)
        finally:
            self._element = False
        return _element_where(subject, fits)

    def _subject(self, given: Mapping[str, Any], operator: str, name: str) -> _Subject:
        if self._element:
            if set(given) - {"op", "value"}:
                raise ValueError(
                    f'{name}: expected "op" and "value" alone below "some", got '
                    f"{reprlib.repr(dict(given))}"
                )
            return _ELEMENT
        if "attribute" in given or ("field" not in given and operator == "text"):
            column = given.get("attribute", "text")
            if "field" in given or column not in ("id", "text"):
                raise ValueError(
                    f'{name}: expected a field, or attribute "id" or "text", got '
                    f"{reprlib.repr(dict(given))}"
                )
            value = Condition(f"documents.{column}", ())
            kind = Condition(f"CASE WHEN documents.{column} IS NULL THEN NULL ELSE 'text' END", ())
            return _Subject(value, kind, None, column)
        if "field" not in given:
            raise ValueError(f'{name}: expected a "field" for {operator!r}, got none')
        path = field_path(given["field"], f"{name}.field")
        written = self._indexed.get(path)
        value = Condition(written, ()) if written else _call("json_extract", path)
        kind = _call("json_type", path)
        return _Subject(value, kind, _call("json_each", path), str(given["field"]))


def _call(function: str, path: str) -> Condition:
    return Condition(f"{function}(documents.metadata, ?)", (path,))


def _put(template: str, *parts: Condition, values: tuple[Any, ...] = ()) -> Condition:
    """Put conditions where a template has {}, in order; `values` are parameters behind them."""
    sql = template.format(*(part.sql for part in parts))
    return Condition(sql, (*(each for part in parts for each in part.parameters), *values))


def _negated(inner: Condition) -> Condition:
    # what is NULL, for instance since the field is missing, does not hold; its negation does
    return _put("NOT coalesce({}, 0)", inner)


def _joined(parts: Sequence[Condition], word: str) -> Condition:
    """Join by halves, so that the depth of the expression stays small."""
    if not parts:
        return Condition("1" if word == "AND" else "0", ())
    if len(parts) == 1:
        return parts[0]
    half = len(parts) // 2
    return _put(f"({{}} {word} {{}})", _joined(parts[:half], word), _joined(parts[half:], word))


# ---- values


def _plain(value: object, name: str) -> Any:
    """Return a scalar as SQLite takes it; numbers beyond int64 as float."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, str)):
        if isinstance(value, str):
            _encodable(value, name)
        return value
    if isinstance(value, int):
        return value if -_INT64 <= value < _INT64 else float(value)
    if isinstance(value, float):
        if math.isnan(value):
            raise ValueError(f"{name}: expected {_SCALARS}, got NaN")
        return value
    raise TypeError(f"{name}: expected {_SCALARS}, got {reprlib.repr(value)}")


def _encodable(text: str, name: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name}: expected Unicode, got half a surrogate pair") from None


def _list(value: object, name: str) -> list[Any]:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, (list, tuple, set, frozenset)):
        raise TypeError(f"{name}: expected a list, got {reprlib.repr(value)}")
    return [_plain(each, f"{name}[{number}]") for number, each in enumerate(value)]


def _equal(value: Condition, kind: Condition, wanted: Any) -> Condition:
    """Return that a value, whose JSON type is `kind`, is this one."""
    if wanted is None:
        return _put("{} IS NULL", value)
    if isinstance(wanted, bool):
        return _put(f"{{}} = '{str(wanted).lower()}'", kind)
    types = "('text')" if isinstance(wanted, str) else "('integer', 'real')"
    compared = _put("{} = ?", value, values=(wanted,))
    return _put(f"({{}} AND {{}} IN {types})", compared, kind)


def _among(value: Condition, kind: Condition, wanted: list[Any]) -> Condition:
    """Return that a value is one of these."""
    texts = [each for each in wanted if isinstance(each, str) and "\0" not in each]
    numbers = [
        each for each in wanted if isinstance(each, (int, float)) and not isinstance(each, bool)
    ]
    parts = [
        _equal(value, kind, each)
        for each in (None, True, False)
        if any(each is it for it in wanted)
    ]
    # SQLite's JSON functions end a string at a NUL
    parts += [
        _equal(value, kind, each) for each in wanted if isinstance(each, str) and "\0" in each
    ]
    for some, types in ((texts, "('text')"), (numbers, "('integer', 'real')")):
        if some:
            listed = json.dumps(some, ensure_ascii=False)
            if some is numbers:  # JSON has no infinity, but numbers that SQLite reads as such
                listed = listed.replace("Infinity", "9e999")
            inside = _put("{} IN (SELECT value FROM json_each(?))", value, values=(listed,))
            parts.append(_put(f"({{}} AND {{}} IN {types})", inside, kind))
    return _joined(parts, "OR")


# ---- operators


def _eq(subject: _Subject, value: object, name: str) -> Condition:
    if isinstance(value, (list, tuple)):
        text = json.dumps(_list(value, name), ensure_ascii=False, separators=(",", ":"))
        same = _put("{} = ?", subject.value, values=(text,))
        return _put("({} AND {} = 'array')", same, subject.type)
    return _equal(subject.value, subject.type, _plain(value, name))


def _ne(subject: _Subject, value: object, name: str) -> Condition:
    return _negated(_eq(subject, value, name))


def _ordered(operator: str) -> Callable[[_Subject, object, str], Condition]:
    def compare(subject: _Subject, value: object, name: str) -> Condition:
        value = _plain(value, name)
        if value is None or isinstance(value, bool):
            raise TypeError(f"{name}: expected a string or a number, got {value}")
        types = "('text')" if isinstance(value, str) else "('integer', 'real')"
        compared = _put(f"{{}} {_ORDER[operator]} ?", subject.value, values=(value,))
        return _put(f"({{}} AND {{}} IN {types})", compared, subject.type)

    return compare


def _in(subject: _Subject, value: object, name: str) -> Condition:
    return _among(subject.value, subject.type, _list(value, name))


def _nin(subject: _Subject, value: object, name: str) -> Condition:
    return _negated(_in(subject, value, name))


def _contains(subject: _Subject, value: object, name: str) -> Condition:
    value = _plain(value, name)
    parts = []
    if subject.elements is not None:
        listed = _put("{} = 'array'", subject.type)
        parts.append(_joined([listed, _has_element(subject, [value])], "AND"))
    if isinstance(value, str):
        inside = _put("instr({}, ?) > 0", subject.value, values=(value,))
        parts.append(_joined([_put("{} = 'text'", subject.type), inside], "AND"))
    return _joined(parts, "OR")


def _has_element(subject: _Subject, wanted: list[Any]) -> Condition:
    """Return that a list, or a single value as a list of one, has one of these in it."""
    return _element_where(subject, _among(_ELEMENT.value, _ELEMENT.type, wanted))


def _element_where(subject: _Subject, fits: Condition) -> Condition:
    """Return that a list, or a single value as a list of one, has an element that fits."""
    assert subject.elements is not None
    inside = _put("EXISTS(SELECT 1 FROM {} AS part WHERE {})", subject.elements, fits)
    return _joined([_put("{} <> 'object'", subject.type), inside], "AND")


def _need_elements(subject: _Subject, name: str) -> None:
    if subject.elements is None:
        raise ValueError(
            f'{name}: expected a field, got attribute "{subject.name}", which is no list'
        )


def _any(subject: _Subject, value: object, name: str) -> Condition:
    _need_elements(subject, name)
    return _has_element(subject, _list(value, name))


def _all(subject: _Subject, value: object, name: str) -> Condition:
    _need_elements(subject, name)
    return _joined([_has_element(subject, [each]) for each in _list(value, name)], "AND")


def _exists(subject: _Subject, value: object, name: str) -> Condition:
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected True or False, got {reprlib.repr(value)}")
    return _put("{} IS NOT NULL" if value else "{} IS NULL", subject.type)


def _some(subject: _Subject, value: object, name: str) -> Condition:
    raise AssertionError("a tree of its own: _Compiler._some")


def _type(subject: _Subject, value: object, name: str) -> Condition:
    if not isinstance(value, str) or value not in _TYPES:
        raise ValueError(f"{name}: expected one of {', '.join(_TYPES)}, got {reprlib.repr(value)}")
    return _put(f"{{}} IN {_TYPES[value]}", subject.type)


def _text(subject: _Subject, value: object, name: str) -> Condition:
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected a string, got {reprlib.repr(value)}")
    _encodable(value, name)
    inside = _put("vicinal_contains({}, ?)", subject.value, values=(value,))
    return _joined([_put("{} = 'text'", subject.type), inside], "AND")


OPERATORS: dict[str, Callable[[_Subject, object, str], Condition]] = {
    "eq": _eq,
    "ne": _ne,
    **{name: _ordered(name) for name in _ORDER},
    "in": _in,
    "nin": _nin,
    "contains": _contains,
    "any": _any,
    "all": _all,
    "exists": _exists,
    "some": _some,
    "type": _type,
    "text": _text,
}
