"""What a route is, and what its handler is given and gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from vicinal.server.problems import Problem
from vicinal.server.settings import Limits, Settings
from vicinal.server.store import Served, Store

__all__ = ["Answer", "Call", "Route"]


@dataclass(frozen=True)
class Answer:
    """Bytes that go out as they are, instead of JSON."""

    content: bytes
    media_type: str


@dataclass
class Call:
    """One request, checked as far as all routes have it in common.

    Attributes
    ----------
    name : str
        Of the collection, "" where the route has none.
    body : object
        What the JSON of the body says; None without a body, or where it is not JSON.
    raw : bytes
        The body.
    media_type : str
        Of the body.
    accepts : str
        The header Accept.
    params : dict
        The query string, each name once.
    """

    store: Store
    settings: Settings
    name: str
    body: Any
    raw: bytes
    media_type: str
    accepts: str
    params: dict[str, str]
    served: Served = field(init=False)

    @property
    def limits(self) -> Limits:
        """The limits of the server."""
        return self.settings.limits

    def whole(self, name: str, low: int, high: int) -> int | None:
        """Return a whole number of the query string, or None."""
        text = self.params.get(name)
        if text is None:
            return None
        if not text.isascii() or not text.isdigit() or not low <= int(text[:20]) <= high:
            raise Problem(400, f"{name}: expected a whole number from {low} to {high}")
        return int(text)

    def flag(self, name: str) -> bool | None:
        """Return true or false of the query string, or None."""
        text = self.params.get(name)
        if text is None:
            return None
        if text not in ("true", "false"):
            raise Problem(400, f"{name}: expected true or false")
        return text == "true"


@dataclass(frozen=True)
class Route:
    """A method and a path, what answers it, and what OpenAPI tells of it.

    Attributes
    ----------
    work : {"read", "write", "open"}
        "write" needs a key that may write, "open" needs none.
    queue : {"pool", "writer", "loop"}
        Who does it: a thread of the pool, the collection's writer, or the event loop itself.
    body : dict, optional
        JSON schema of the body; without it there must be none.
    media : tuple of str
        Media types of bodies that are taken besides JSON.
    params : dict
        Names that may be in the query string, with their JSON schemas.
    """

    method: Literal["GET", "PUT", "POST", "DELETE"]
    path: str
    handler: Callable[[Call], Any]
    summary: str
    work: Literal["read", "write", "open"] = "read"
    queue: Literal["pool", "writer", "loop"] = "pool"
    body: dict[str, Any] | None = None
    media: tuple[str, ...] = ()
    params: dict[str, dict[str, Any]] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    plain: bool = False  # the answer is the result itself, without "status" and "time"
