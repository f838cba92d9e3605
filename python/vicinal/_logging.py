"""What is written to `logging.getLogger("vicinal")`: operations at DEBUG, trouble at WARNING.

Silent by default. Who has not imported `logging` cannot listen, so nothing here imports it, which
takes milliseconds. Never ids, texts or vectors; nothing in `search`.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["DEBUG", "WARNING", "log", "logged"]

DEBUG, WARNING = 10, 30  # as `logging` has them
Function = TypeVar("Function", bound=Callable[..., Any])


def log(level: int, message: str, *values: object) -> None:
    """Write a message, if anyone listens."""
    logger = _logger(level)
    if logger is not None:
        logger.log(level, message, *values)


def logged(function: Function) -> Function:
    """Make a function of an index write its name and seconds, and how many rows there are then."""

    @functools.wraps(function)
    def timed(index: Any, *arguments: Any, **options: Any) -> Any:
        if _logger(DEBUG) is None:
            return function(index, *arguments, **options)
        start = time.perf_counter()
        try:
            result = function(index, *arguments, **options)
        except BaseException as error:
            log(DEBUG, "%s: %s", function.__name__, type(error).__name__)
            raise
        seconds = time.perf_counter() - start
        about = result if isinstance(index, type) else index  # a class that was asked to make one
        log(DEBUG, "%s: %.6f s, %d rows in all", function.__name__, seconds, len(about))
        return result

    return timed  # type: ignore[return-value]


_found: Any = None


def _logger(level: int) -> Any:
    """Return the logger if it takes messages of a level, else None."""
    global _found
    if _found is None:
        logging = sys.modules.get("logging")
        if logging is None:
            return None
        # asked for once: it takes a lock that all threads share, which Ctrl-C at a bad moment would
        # leave locked for ever
        _found = logging.getLogger("vicinal")
    if not _found.handlers:
        # else a warning without any handler would go to stderr
        _found.addHandler(sys.modules["logging"].NullHandler())
    return _found if _found.isEnabledFor(level) else None
