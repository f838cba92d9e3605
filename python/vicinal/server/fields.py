"""Reading JSON strictly: each field is taken by name, and what is left over is refused by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

from vicinal.server.problems import Problem, shown

__all__ = [
    "Fields",
    "array",
    "boolean",
    "number",
    "one_of",
    "refuse",
    "string",
    "structure",
    "whole",
]

T = TypeVar("T")
Check = Callable[[Any, str], T]


def refuse(name: str, expected: str, got: object) -> Problem:
    """Return the problem that a field is not what it has to be."""
    return Problem(400, f"{name}: expected {expected}, got {shown(got)}")


class Fields:
    """An object of JSON; `name` is where it stands in the body, "" for the body itself."""

    def __init__(self, given: Any, name: str = "") -> None:
        if not isinstance(given, dict):
            raise refuse(name or "body", "an object", given)
        self._left = dict(given)
        self._name = name
        self._known: list[str] = []

    def path(self, key: str) -> str:
        """Return the name of a field in messages."""
        return f"{self._name}.{key}" if self._name else key

    def has(self, key: str) -> bool:
        """Tell whether a field is there and not null; it is not taken."""
        return self._left.get(key) is not None

    def take(self, key: str, check: Check[T]) -> T:
        """Return a field that has to be there."""
        found = self.maybe(key, check)
        if found is None:
            raise Problem(400, f"{self.path(key)}: it is missing")
        return found

    def maybe(self, key: str, check: Check[T]) -> T | None:
        """Return a field, or None where it is missing or null."""
        self._known.append(key)
        value = self._left.pop(key, None)
        return None if value is None else check(value, self.path(key))

    def get(self, key: str, check: Check[T], default: T) -> T:
        """Return a field, or a default where it is missing or null."""
        found = self.maybe(key, check)
        return default if found is None else found

    def fixed(self, key: str, *allowed: Any) -> None:
        """Take a field that may only say what the server does anyway."""
        self._known.append(key)
        value = self._left.pop(key, None)
        if value is not None and not any(value is it or value == it for it in allowed):
            raise Problem(
                400,
                f"{self.path(key)}: this server has only "
                f"{' or '.join(map(shown, allowed))}, got {shown(value)}",
            )

    def end(self) -> None:
        """Refuse all that was not taken."""
        for key in self._left:
            known = ", ".join(self._known) or "nothing"
            raise Problem(
                400, f"{self.path(key)}: this server does not have it; here may be: {known}"
            )


# ---- checks of values


def whole(low: int, high: int) -> Check[int]:
    """Return a check for a whole number between two, both included."""

    def check(value: Any, name: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise refuse(name, f"a whole number from {low} to {high}", value)
        return value

    return check


def number(value: Any, name: str) -> float:
    """Check for a number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise refuse(name, "a number", value)
    if not math.isfinite(float(value)):
        raise refuse(name, "a finite number", value)
    return value


def boolean(value: Any, name: str) -> bool:
    """Check for true or false."""
    if not isinstance(value, bool):
        raise refuse(name, "true or false", value)
    return value


def string(value: Any, name: str) -> str:
    """Check for a string."""
    if not isinstance(value, str):
        raise refuse(name, "a string", value)
    return value


def structure(value: Any, name: str) -> dict[str, Any]:
    """Check for an object."""
    if not isinstance(value, dict):
        raise refuse(name, "an object", value)
    return value


def array(most: int, of: Check[Any] | None = None) -> Check[list[Any]]:
    """Return a check for an array of so many items at most."""

    def check(value: Any, name: str) -> list[Any]:
        if not isinstance(value, list):
            raise refuse(name, "an array", value)
        if len(value) > most:
            raise Problem(400, f"{name}: expected at most {most} items, got {len(value)}")
        if of is None:
            return value
        return [of(each, f"{name}[{place}]") for place, each in enumerate(value)]

    return check


def one_of(*allowed: str) -> Check[str]:
    """Return a check for one of some strings."""

    def check(value: Any, name: str) -> str:
        if not isinstance(value, str) or value not in allowed:
            raise refuse(name, f"one of {', '.join(allowed)}", value)
        return value

    return check
