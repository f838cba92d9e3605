"""Running the server: where it listens, how it starts, how it ends."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from vicinal.server import create_app
from vicinal.server.auth import is_loopback
from vicinal.server.settings import Settings

__all__ = ["serve"]

_BACKLOG = 2048


def impatient(seconds: float) -> type[H11Protocol]:
    """Return a protocol that closes connections whose headers take longer than so many seconds."""

    class Impatient(H11Protocol):
        """Waits for headers only so long: after that the connection is closed."""

        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._expect(True)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            # idle after data: a part of the next request's headers is there
            waiting = self.conn.their_state is h11.IDLE and bool(self.conn.trailing_data[0])
            self._expect(waiting)

        def connection_lost(self, exc: Exception | None) -> None:
            self._expect(False)
            super().connection_lost(exc)

        def _expect(self, headers: bool) -> None:
            if headers and self._timer is None:
                self._timer = self.loop.call_later(seconds, self.transport.close)
            elif not headers and self._timer is not None:
                self._timer.cancel()
                self._timer = None

    return Impatient


def listening_socket(host: str, port: int) -> socket.socket:
    """Return a socket that is bound."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    made = socket.socket(family, kind, protocol)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.set_inheritable(True)
    except BaseException:
        made.close()
        raise
    return made


class _Server(uvicorn.Server):
    """Says when it listens."""

    started_listening: Callable[[], None]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self.started_listening()


def serve(
    settings: Settings,
    host: str,
    port: int,
    certificate: str | None = None,
    private_key: str | None = None,
    stop_seconds: int = 30,
    told: Callable[[str], None] = lambda text: None,
) -> None:
    """Serve until a signal comes; SIGTERM and SIGINT let requests end first.

    Parameters
    ----------
    settings : Settings
    host, port : str, int
        Where to listen; port 0 is any that is free.
    certificate, private_key : str, optional
        Files, for TLS.
    stop_seconds : int
        How long requests may go on after a signal.
    told : callable
        Is given a line with the address once it listens.

    Raises
    ------
    ValueError
        If the host is not of the loopback interface, and there is no key.
    OSError
        If the port is taken, the host is not known, or a file cannot be read.
    """
    if not settings.keys and not is_loopback(host):
        raise ValueError(
            f"host: {host} can be reached from other machines, for which the server needs keys: "
            "--keys, or VICINAL_API_KEY in the environment"
        )
    bound = listening_socket(host, port)
    try:
        app = create_app(settings)
        config = uvicorn.Config(
            app,
            http=impatient(settings.limits.header_seconds),
            ws="none",
            log_level="warning",
            access_log=False,
            lifespan="on",
            backlog=_BACKLOG,
            limit_concurrency=settings.limits.connections,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=stop_seconds,
            h11_max_incomplete_event_size=64 << 10,
            server_header=False,
            proxy_headers=False,
            ssl_certfile=certificate,
            ssl_keyfile=private_key,
        )
        server = _Server(config)
        shown = f"[{host}]" if ":" in host else host
        scheme = "https" if certificate else "http"
        address = f"{scheme}://{shown}:{bound.getsockname()[1]}"
        server.started_listening = lambda: told(f"listening on {address}")
        # uvicorn ends gracefully, then raises the signal again for whoever had it before
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: sys.exit(0))
        server.run(sockets=[bound])
        if not server.started:
            raise OSError("the server could not start")
    finally:
        bound.close()
