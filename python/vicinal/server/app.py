"""The ASGI application: all routes, behind the keys."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

import vicinal
from vicinal.server import qdrant_collections, qdrant_points, qdrant_query, schemas, v1
from vicinal.server.auth import Keys
from vicinal.server.dispatch import Dispatcher, error_response
from vicinal.server.metrics import Metrics
from vicinal.server.problems import Problem
from vicinal.server.routes import Answer, Call, Route
from vicinal.server.settings import Settings
from vicinal.server.store import NAME, Store

__all__ = ["QDRANT_VERSION", "make_app"]

# Of the API whose subset this is: clients compare it with their own.
QDRANT_VERSION = "1.20.0"
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
Scope = MutableMapping[str, Any]
Handler = Callable[..., Awaitable[Any]]


class Guard:
    """Lets nobody in without a key; without keys, nobody whose browser was led here by a name.

    A page of another site can make a browser send requests to the loopback interface, under a name
    that it controls: so the header Host has to be that of this machine.
    """

    def __init__(self, app: Handler, keys: Keys, open_paths: frozenset[str]) -> None:
        self._app = app
        self._keys = keys
        self._open = open_paths

    async def __call__(self, scope: Scope, receive: Handler, send: Handler) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        problem = self._refuse(scope)
        if problem is not None:
            await error_response(problem, 0.0)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refuse(self, scope: Scope) -> Problem | None:
        if not self._keys:
            hosts = [value for name, value in scope["headers"] if name == b"host"]
            host = hosts[0].decode("latin-1").lower() if hosts else ""
            name = host[: host.rfind(":")] if host.rfind(":") > host.rfind("]") else host
            if name not in _LOOPBACK:
                return Problem(403, "host: without keys this server answers on loopback alone")
            scope["vicinal.role"] = "write"
            return None
        if scope["path"] in self._open:
            return None
        role = self._keys.role_of_headers(scope["headers"])
        if role is None:
            return Problem(
                401,
                "Must provide an API key or an Authorization bearer token",
                {"www-authenticate": "Bearer", "connection": "close"},
            )
        scope["vicinal.role"] = role
        return None


def make_app(settings: Settings) -> FastAPI:
    """Return the application; it has the folder from the start of its lifespan to its end."""
    keys = Keys(settings.keys)
    store = Store(settings)
    metrics = Metrics(store)
    dispatcher = Dispatcher(settings, store, metrics)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            dispatcher.close()
            store.close()

    app = FastAPI(
        title="Vicinal",
        version=vicinal.__version__,
        summary="Collections of vectors: a subset of Qdrant's REST API, and an API of its own.",
        lifespan=lifespan,
        docs_url=None,  # these load scripts from other sites
        redoc_url=None,
        redirect_slashes=False,
    )
    own = _own_routes(metrics)
    routes = (*own, *qdrant_collections.ROUTES, *qdrant_points.ROUTES)
    for route in (*routes, *qdrant_query.ROUTES, *v1.ROUTES):
        app.add_api_route(
            route.path,
            dispatcher.endpoint(route),
            methods=[route.method],
            summary=route.summary,
            response_class=Response,
            openapi_extra=_described(route),
            responses=_answers(route, bool(keys)),
        )
    app.openapi = lambda: _openapi(app, bool(keys))
    app.add_exception_handler(HTTPException, _not_found)
    open_paths = {route.path for route in own if route.work == "open"}
    if settings.open_metrics:
        open_paths.add("/metrics")
    app.add_middleware(Guard, keys=keys, open_paths=frozenset(open_paths))
    app.state.store = store
    return app


async def _not_found(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    started = time.perf_counter()
    said = {
        404: f"no such route: {request.method} {request.url.path[:200]}; this server has a subset "
        "of Qdrant's REST API, and /v1: /openapi.json",
        405: f"method: {request.method} is not for this path",
    }.get(error.status_code, str(error.detail))
    problem = Problem(error.status_code, said, dict(error.headers or {}))
    return error_response(problem, time.perf_counter() - started)


def _own_routes(metrics: Metrics) -> tuple[Route, ...]:
    def root(_: Call) -> Any:
        return {
            "title": "Vicinal: a subset of Qdrant's REST API",
            "version": QDRANT_VERSION,
            "vicinal": vicinal.__version__,
        }

    def healthz(_: Call) -> Any:
        return {"status": "ok"}

    def readyz(call: Call) -> Any:
        call.store.check()
        return {"status": "ok"}

    def told(_: Call) -> Any:
        return Answer(metrics.text(), "text/plain; version=0.0.4; charset=utf-8")

    return (
        Route("GET", "/", root, "What this is", queue="loop", plain=True),
        Route("GET", "/healthz", healthz, "It lives", "open", "loop", plain=True),
        Route("GET", "/readyz", readyz, "It can answer", "open", plain=True),
        Route("GET", "/metrics", told, "Metrics for Prometheus"),
    )


# ---- OpenAPI


def _described(route: Route) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "query", "required": False, "schema": schema}
        for name, schema in route.params.items()
    ]
    if "{name}" in route.path:
        schema = {"type": "string", "pattern": f"^{NAME}$"}
        parameters.append({"name": "name", "in": "path", "required": True, "schema": schema})
    extra: dict[str, Any] = {"parameters": parameters}
    if route.work == "open":
        extra["security"] = []
    if route.body is not None:
        content: dict[str, Any] = {"application/json": {"schema": route.body}}
        for media in route.media:
            content[media] = {"schema": {"type": "string", "format": "binary"}}
        extra["requestBody"] = {"required": True, "content": content}
    return extra


def _answers(route: Route, keys: bool) -> dict[int | str, dict[str, Any]]:
    error = {"content": {"application/json": {"schema": schemas.ERROR}}}
    statuses = {400: "Wrong input", 429: "Too much at a time", 503: "Not now", 504: "Too late"}
    if "{name}" in route.path:
        statuses[404] = "No such collection, point or document"
        statuses[409] = "It is there already"
    if route.body is not None:
        statuses |= {406: "Not in this form", 408: "The body came too slowly"}
        statuses |= {413: "The body is too large", 415: "The body's type is not known here"}
        statuses |= {501: "A package is missing", 507: "The disk is full"}
    if keys and route.work != "open":
        statuses |= {401: "No key", 403: "The key may read only"}
    answers: dict[int | str, dict[str, Any]] = {
        status: {"description": text, **error} for status, text in statuses.items()
    }
    if route.path == "/metrics":
        content: dict[str, Any] = {"text/plain": {"schema": {"type": "string"}}}
    else:
        content = {"application/json": {"schema": {"type": "object"}}}
        for media in route.media if route.params else ():
            content[media] = {"schema": {"type": "string", "format": "binary"}}
    answers[200] = {"description": "Done", "content": content}
    return answers


def _openapi(app: FastAPI, keys: bool) -> dict[str, Any]:
    if app.openapi_schema is None:
        made: dict[str, Any] = FastAPI.openapi(app)
        components = made.setdefault("components", {})
        components.setdefault("schemas", {})["Filter"] = schemas.FILTER
        if keys:
            components["securitySchemes"] = {
                "key": {"type": "apiKey", "in": "header", "name": "api-key"},
                "bearer": {"type": "http", "scheme": "bearer"},
            }
            made["security"] = [{"key": []}, {"bearer": []}]
        app.openapi_schema = made
    described: dict[str, Any] = app.openapi_schema
    return described
