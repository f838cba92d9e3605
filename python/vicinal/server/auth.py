"""API keys: made, hashed, compared; who may read and who may write; where a server may listen."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import re
import secrets
import socket

__all__ = ["Keys", "digest", "is_loopback", "keys_from", "new_key", "read_keys"]

ROLES = ("read", "write")
_LINE = re.compile(r"(read|write)\s+([0-9a-f]{64})", re.ASCII)


def new_key() -> str:
    """Return a key of 256 random bits."""
    return secrets.token_urlsafe(32)


def digest(key: str | bytes) -> str:
    """Return what a server keeps of a key. Keys are random, so one round of SHA-256 is enough."""
    return hashlib.sha256(key.encode() if isinstance(key, str) else key).hexdigest()


def read_keys(path: str) -> tuple[tuple[str, str], ...]:
    """Return the keys of a file: lines "read DIGEST" or "write DIGEST", and comments behind "#".

    Raises
    ------
    ValueError
        Naming the first line that is neither, or if there is no key.
    """
    found = []
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            text = line.split("#")[0].strip()
            said = _LINE.fullmatch(text)
            if said is not None:
                found.append((said[1], said[2]))
            elif text:
                raise ValueError(
                    f'keys: line {number}: expected "read" or "write" and a digest of 64 '
                    "hexadecimal digits; `vicinal key` makes such lines"
                )
    if not found:
        raise ValueError("keys: expected at least one key, got an empty file")
    return tuple(found)


def keys_from(environment: dict[str, str] | os._Environ[str]) -> tuple[tuple[str, str], ...]:
    """Take keys out of the environment: VICINAL_API_KEY to write, VICINAL_READ_KEY to read."""
    found = []
    for name, role in (("VICINAL_API_KEY", "write"), ("VICINAL_READ_KEY", "read")):
        key = environment.pop(name, "")
        if key:
            if len(key) < 16:
                raise ValueError(f"{name}: expected at least 16 characters, got {len(key)}")
            found.append((role, digest(key)))
    return tuple(found)


class Keys:
    """The keys of a server."""

    def __init__(self, keys: tuple[tuple[str, str], ...]) -> None:
        for role, known in keys:
            if role not in ROLES or not re.fullmatch(r"[0-9a-f]{64}", known):
                raise ValueError('keys: expected ("read" or "write", SHA-256 in hexadecimal)')
        self._keys = keys

    def __bool__(self) -> bool:
        return bool(self._keys)

    def role(self, key: str | bytes) -> str | None:
        """Return what a key allows: "write", "read" or None; takes as long for any key."""
        given = digest(key)
        found = ""
        for role, known in self._keys:
            if hmac.compare_digest(given, known):
                found = max(found, role)  # "write" is behind "read"
        return found or None

    def role_of_headers(self, headers: list[tuple[bytes, bytes]]) -> str | None:
        """Return what the headers of a request allow; None also where they contradict."""
        given = []
        for name, value in headers:
            if name == b"api-key":
                given.append(value)
            elif name == b"authorization":
                scheme, _, key = value.partition(b" ")
                if scheme.lower() != b"bearer":
                    return None
                given.append(key.strip())
        if not given or any(key != given[0] for key in given):
            return None
        return self.role(given[0])


def is_loopback(host: str) -> bool:
    """Tell whether all addresses of a host are of the loopback interface.

    Raises
    ------
    OSError
        If the name is not known.
    """
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return all(
        ipaddress.ip_address(str(address[0]).split("%")[0]).is_loopback for *_, address in found
    )
