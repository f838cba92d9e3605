"""What goes wrong in a request, as a status and a message; no path of a file is ever in it."""

from __future__ import annotations

import errno
import reprlib

from vicinal._logging import WARNING, log
from vicinal.errors import CorruptError, FormatError

__all__ = ["Problem", "of_exception", "shown"]

_SHOWN = reprlib.Repr()
_SHOWN.maxstring = _SHOWN.maxother = 60


def shown(value: object) -> str:
    """Return a value as a message shows it: short."""
    return _SHOWN.repr(value)


class Problem(Exception):
    """An answer that is not what was asked for.

    Parameters
    ----------
    status : int
        HTTP status, 4xx or 5xx.
    message : str
        Names the field, what was expected and what came.
    headers : dict, optional
        Of the answer.
    """

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers or {}


def of_exception(error: BaseException) -> Problem:
    """Return what a client is told of an exception of the library."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, KeyError):
        return Problem(404, str(error.args[0]) if error.args else "not found")
    if isinstance(error, ImportError):
        return Problem(501, f"the server lacks a package for this: {error}")
    if isinstance(error, ValueError) and str(error) == "collection: it is closed":
        return Problem(404, "the collection was deleted meanwhile")
    if isinstance(error, (TypeError, ValueError)) and not isinstance(
        error, (CorruptError, FormatError)
    ):
        return Problem(400, str(error))
    log(WARNING, "server: %s: %s", type(error).__name__, error)
    if isinstance(error, (CorruptError, FormatError)):
        return Problem(500, "the collection's files are damaged; the server's log has more")
    if isinstance(error, BlockingIOError):
        return Problem(503, "another process writes to the collection", {"retry-after": "1"})
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Problem(507, "the disk is full; nothing was changed")
    if isinstance(error, OSError):
        return Problem(500, f"the system refused: {error.strerror or type(error).__name__}")
    if isinstance(error, MemoryError):
        return Problem(503, "out of memory; nothing was changed", {"retry-after": "1"})
    return Problem(500, "an error of the server; its log has more")
