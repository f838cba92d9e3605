"""An HTTP server of collections; needs the extra `server` (FastAPI, uvicorn, orjson, prometheus).

It speaks a subset of Qdrant's REST API, so that qdrant-client and what is built on it work, and an
API of its own under /v1. docs/guide/server.md says how it is used.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from vicinal.server.settings import Limits, Settings

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["Limits", "Settings", "create_app"]

_NEEDED = ("fastapi", "uvicorn", "orjson", "prometheus_client")


def require_packages() -> None:
    """Raise an ImportError that says what to install if a package is missing."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise ImportError(
            f"vicinal.server needs {', '.join(missing)}: pip install 'vicinal[server]'"
        )


def create_app(settings: Settings) -> FastAPI:
    """Return the ASGI application that serves a folder of collections.

    Parameters
    ----------
    settings : Settings
        The folder, the keys, the limits.

    Returns
    -------
    fastapi.FastAPI
        For uvicorn or another ASGI server, in one process: it holds the folder until it is shut
        down (its lifespan ends).

    Raises
    ------
    ImportError
        If the extra `server` is not installed.
    BlockingIOError
        At start, if another server has the folder.
    """
    require_packages()
    from vicinal.server.app import make_app

    app: Any = make_app(settings)
    return app  # type: ignore[no-any-return,unused-ignore]
