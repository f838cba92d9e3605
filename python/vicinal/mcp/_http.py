"""The server over HTTP: a key, an address, and an end."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import socket
from collections.abc import Callable
from typing import Any

from mcp.server.mcpserver import MCPServer

__all__ = ["serve_http", "with_key"]

_LEAST_KEY = 16
_LARGEST_BODY = 8 << 20
_UNAUTHORIZED = b'{"error":"expected the key of this server as a bearer token"}'


def with_key(app: Any, key: str | None) -> Any:
    """Let requests pass that have the key: `Authorization: Bearer KEY`, or `api-key: KEY`."""
    if key is None:
        return app
    known = hashlib.sha256(key.encode()).digest()

    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            given = [
                value[7:].strip() if name == b"authorization" else value
                for name, value in scope["headers"]
                if name == b"api-key"
                or (name == b"authorization" and value[:7].lower() == b"bearer ")
            ]
            # both digests are as long, so how long it takes tells nothing of the key
            fits = [hmac.compare_digest(hashlib.sha256(each).digest(), known) for each in given]
            if not fits or not all(fits):
                headers = [(b"content-type", b"application/json"), (b"www-authenticate", b"Bearer")]
                await send({"type": "http.response.start", "status": 401, "headers": headers})
                await send({"type": "http.response.body", "body": _UNAUTHORIZED})
                return
        elif scope["type"] != "lifespan":
            return
        await app(scope, receive, send)

    return guarded


def serve_http(
    server: MCPServer,
    host: str = "127.0.0.1",
    port: int = 0,
    key: str | None = None,
    told: Callable[[str], object] = lambda address: None,
) -> None:
    """Serve over streamable HTTP at /mcp until a signal comes.

    Parameters
    ----------
    server : MCPServer
    host, port : str, int
        Where to listen; port 0 is any that is free.
    key : str, optional
        What clients have to know, at least 16 characters.
    told : callable
        Is given the address once it is bound.

    Raises
    ------
    ValueError
        If other machines can reach the host and there is no key, or the key is too short.
    OSError
        If the port is taken, or the host is not known.
    """
    import uvicorn

    if key is not None and len(key) < _LEAST_KEY:
        raise ValueError(f"key: expected at least {_LEAST_KEY} characters, got {len(key)}")
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    if key is None and not ipaddress.ip_address(str(address[0]).split("%")[0]).is_loopback:
        raise ValueError(
            f"host: {host} can be reached from other machines, for which the server needs a key: "
            "VICINAL_API_KEY in the environment"
        )
    # the SDK compares names of hosts only for these, which is what a browser's page could misuse
    app = server.streamable_http_app(
        stateless_http=True,
        json_response=True,
        max_request_body_size=_LARGEST_BODY,
        host="127.0.0.1" if key is None else host,
    )
    with socket.socket(family, kind, protocol) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen()  # who is told the address may come at once
        shown = f"[{host}]" if ":" in host else host
        told(f"http://{shown}:{bound.getsockname()[1]}/mcp")
        config = uvicorn.Config(
            with_key(app, key),
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=10,
            limit_concurrency=256,
        )
        uvicorn.Server(config).run(sockets=[bound])
