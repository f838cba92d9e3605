"""What a server is told: folder, keys, limits."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields

__all__ = ["Limits", "Settings"]


@dataclass(frozen=True)
class Limits:
    """What one request may ask for; a request above a limit is refused and says which it was.

    Attributes
    ----------
    body_bytes : int
        Of one request (413).
    bodies_bytes : int
        Of all requests that are being read or answered (429).
    queue : int
        Requests being read, waiting or answered (429).
    connections : int
        Open at a time (503).
    batch : int
        Points or documents of one change, ids of one request, queries of one search.
    k : int
        Results of a query, with those that `offset` leaves out.
    ef : int
        Search width.
    answers : int
        Results of all queries of a request.
    depth : int
        Levels of a filter.
    dim : int
        Of a new collection.
    collections : int
        In the folder.
    request_seconds : float
        From the whole body to the answer (504).
    body_seconds : float
        For a body to arrive (408).
    header_seconds : float
        For a request's line and headers to arrive; the connection is closed.
    """

    body_bytes: int = 32 << 20
    bodies_bytes: int = 256 << 20
    queue: int = 256
    connections: int = 1000
    batch: int = 10_000
    k: int = 10_000
    ef: int = 10_000
    answers: int = 100_000
    depth: int = 16
    dim: int = 65_536
    collections: int = 1000
    request_seconds: float = 60.0
    body_seconds: float = 60.0
    header_seconds: float = 20.0

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"{each.name}: expected a number, got {type(value).__name__}")
            if not value > 0:
                raise ValueError(f"{each.name}: expected a number above 0, got {value}")


@dataclass(frozen=True)
class Settings:
    """What a server serves, and to whom.

    Attributes
    ----------
    folder : str or path-like
        Each folder in it is a collection. Made if it is not there.
    keys : tuple of (role, digest)
        Role "read" or "write", and the SHA-256 of a key in hexadecimal; none: everybody may do
        everything, for which the server has to listen on the loopback interface alone.
    limits : Limits
    text_field : str, optional
        A key of payloads: its string also becomes the text of the document, which is what searches
        by words look at.
    open_metrics : bool
        Let everybody read /metrics.
    checkpoint_rows : int
        So many pending rows of a collection are saved in the background.
    search_threads : int, optional
        Requests that are answered at a time; the number of cores by default.
    """

    folder: str | os.PathLike[str]
    keys: tuple[tuple[str, str], ...] = ()
    limits: Limits = field(default_factory=Limits)
    text_field: str | None = None
    open_metrics: bool = False
    checkpoint_rows: int = 10_000
    search_threads: int | None = None
