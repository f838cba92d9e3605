"""From a request to its answer: admitted, read, done by a thread, answered; within all limits."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import orjson
from fastapi import Request, Response

from vicinal.server.metrics import Metrics
from vicinal.server.problems import Problem, of_exception, shown
from vicinal.server.routes import Answer, Call, Route
from vicinal.server.settings import Settings
from vicinal.server.store import Store, check_name

__all__ = ["Dispatcher", "error_response"]

_BUSY = {"retry-after": "1"}
_CLOSE = {"connection": "close"}  # the rest of a body is not waited for
_TOO_LATE = "the server gave up after {} seconds; a change may still be done"


def error_response(problem: Problem, seconds: float) -> Response:
    """Return the one form that all errors have."""
    body = {"status": {"error": problem.message}, "time": seconds}
    return Response(
        orjson.dumps(body),
        problem.status,
        headers=problem.headers,
        media_type="application/json",
    )


class Dispatcher:
    """Answers requests of all routes of one server."""

    def __init__(self, settings: Settings, store: Store, metrics: Metrics) -> None:
        self._settings = settings
        self._limits = settings.limits
        self._store = store
        self._metrics = metrics
        threads = settings.search_threads or len(os.sched_getaffinity(0))
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="vicinal-search")
        # making and deleting wait for disks and for those who use a collection
        self._slow = ThreadPoolExecutor(2, thread_name_prefix="vicinal-manage")
        self._requests = 0
        self._bytes = 0

    def close(self) -> None:
        """Wait for what is being done."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._slow.shutdown(wait=True, cancel_futures=True)

    def endpoint(self, route: Route) -> Callable[[Request], Any]:
        """Return what FastAPI calls for a route."""

        async def answer(request: Request) -> Response:
            started = time.perf_counter()
            try:
                response = await self._answer(route, request, started)
            except Exception as error:
                response = error_response(of_exception(error), time.perf_counter() - started)
            self._metrics.requests.labels(route.method, route.path, response.status_code).inc()
            self._metrics.seconds.labels(route.path).observe(time.perf_counter() - started)
            return response

        answer.__name__ = answer.__qualname__ = f"{route.method.lower()}_{route.handler.__name__}"
        return answer

    # ---- admission

    async def _answer(self, route: Route, request: Request, started: float) -> Response:
        if route.work == "write" and request.scope.get("vicinal.role") == "read":
            raise Problem(403, "api-key: this key may read only, and this route writes")
        params = _query_string(route, request)
        media_type = _media_type(route, request)
        if route.queue == "loop":  # also when there is too much else to do
            name = request.path_params.get("name", "")
            call = Call(self._store, self._settings, name, None, b"", media_type, "", params)
            return _response(route, route.handler(call), started)
        if self._requests >= self._limits.queue:
            raise Problem(429, f"too many requests at a time: {self._limits.queue}", _BUSY)
        self._took(1, 0)
        taken = 0
        handed = False
        try:
            raw = b""
            if route.body is not None:
                raw = await self._read(request)
                taken = len(raw)
            call = Call(
                self._store,
                self._settings,
                request.path_params.get("name", ""),
                None,
                raw,
                media_type,
                request.headers.get("accept", ""),
                params,
            )
            future = self._hand_over(route, call, started)
            handed = True
            # counted until it is done, also where nobody waits for it any more
            loop = asyncio.get_running_loop()
            future.add_done_callback(lambda _: _later(loop, self._took, -1, -taken))
            return await self._wait(future, call)
        finally:
            if not handed:
                self._took(-1, -taken)

    def _took(self, requests: int, size: int) -> None:
        """Count; only the event loop does, so there is no lock."""
        self._requests += requests
        self._bytes += size
        self._metrics.queue.set(self._requests)

    async def _read(self, request: Request) -> bytes:
        """Return the body, which may be so large and take so long."""
        most = self._limits.body_bytes
        said = request.headers.get("content-length", "")
        if said.isdigit() and int(said[:20]) > most:
            raise Problem(413, f"body: expected at most {most} bytes, got {said[:20]}", _CLOSE)
        try:
            return await asyncio.wait_for(self._collect(request, most), self._limits.body_seconds)
        except (asyncio.TimeoutError, TimeoutError):
            seconds = self._limits.body_seconds
            raise Problem(408, f"body: it took more than {seconds:g} seconds", _CLOSE) from None

    async def _collect(self, request: Request, most: int) -> bytes:
        pieces: list[bytes] = []
        size = 0
        whole = False
        try:
            async for piece in request.stream():
                size += len(piece)
                if size > most:
                    raise Problem(413, f"body: expected at most {most} bytes, got more", _CLOSE)
                self._bytes += len(piece)
                if self._bytes > self._limits.bodies_bytes:
                    raise Problem(429, "too many bytes in bodies at a time", {**_BUSY, **_CLOSE})
                pieces.append(piece)
            whole = True
        finally:
            if not whole:
                self._bytes -= sum(map(len, pieces))
        return b"".join(pieces)

    # ---- work

    def _hand_over(self, route: Route, call: Call, started: float) -> Future[Response]:
        named = "{name}" in route.path
        if named:
            check_name(call.name)
        executor: Executor = self._pool
        if route.queue == "writer":
            executor = self._store.get(call.name).writer
        elif route.work == "write":
            executor = self._slow
        try:
            return executor.submit(self._work, route, call, started)
        except RuntimeError:
            raise Problem(404, "the collection was deleted, or the server goes down") from None

    def _work(self, route: Route, call: Call, started: float) -> Response:
        """Do what a route does, in a thread."""
        try:
            if route.body is not None and call.media_type == "application/json":
                call.body = _parsed(call.raw)
            if "{name}" in route.path and needs_collection(route):
                with self._store.get(call.name).used() as served:
                    call.served = served
                    result = route.handler(call)
                if route.queue == "writer":
                    self._store.changed(served)
            else:
                result = route.handler(call)
            return _response(route, result, started)
        except Exception as error:
            return error_response(of_exception(error), time.perf_counter() - started)

    async def _wait(self, future: Future[Response], call: Call) -> Response:
        seconds = self._limits.request_seconds
        asked = call.whole("timeout", 1, 3600)
        if asked is not None:
            seconds = min(seconds, asked)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), seconds)
        except (asyncio.TimeoutError, TimeoutError):
            raise Problem(504, _TOO_LATE.format(f"{seconds:g}")) from None


def needs_collection(route: Route) -> bool:
    """Tell whether the collection has to be there for a route."""
    return not (
        route.path.endswith("/exists")
        or (route.path.endswith("/{name}") and route.method in ("PUT", "DELETE"))
    )


def _later(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *given: int) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(call, *given)


def _query_string(route: Route, request: Request) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in route.params:
            known = ", ".join(route.params) or "nothing"
            raise Problem(400, f"{shown(name)}: this server does not have it; here may be: {known}")
        if name in found:
            raise Problem(400, f"{name}: expected it once in the query string")
        found[name] = value
    return found


def _media_type(route: Route, request: Request) -> str:
    """Return the type of the body; Problem 415 if the route does not take it."""
    if route.body is None:
        length = request.headers.get("content-length", "0")
        if length != "0" or "transfer-encoding" in request.headers:
            raise Problem(400, "body: this route has none", _CLOSE)
        return ""
    said = request.headers.get("content-type", "").split(";")[0].strip().lower()
    allowed = ("application/json", *route.media)
    if said not in allowed:
        raise Problem(415, f"content-type: expected {' or '.join(allowed)}", _CLOSE)
    coding = request.headers.get("content-encoding", "identity").lower()
    if coding != "identity":
        raise Problem(415, "content-encoding: expected none", _CLOSE)
    return str(said)


def _parsed(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise Problem(400, f"Format error in JSON body: {error}") from None


def _response(route: Route, result: Any, started: float) -> Response:
    if isinstance(result, Answer):
        return Response(result.content, media_type=result.media_type)
    if not route.plain:
        result = {"result": result, "status": "ok", "time": time.perf_counter() - started}
    return Response(orjson.dumps(result), media_type="application/json")
