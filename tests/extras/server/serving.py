"""A server in a process of its own, on a port that the system gives."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

GUARD = 300.0
CLEAN = {
    name: value for name, value in os.environ.items() if not name.startswith(("VICINAL_", "HTTP_"))
}


class Served:
    """A running server: `url`, and the end of it."""

    def __init__(self, folder: Path, *options: str, **environment: str) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-m", "vicinal", "serve", str(folder), "--port", "0", *options],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            env={**CLEAN, **environment},
        )
        assert self.process.stderr is not None
        self.said = ""
        for line in self.process.stderr:
            self.said += line
            found = re.search(r"listening on (https?://\S+:(\d+))", line)
            if found:
                self.url, self.port = found[1], int(found[2])
                return
        raise AssertionError(f"it did not start: {self.said}")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait for the end; return the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        _, rest = self.process.communicate(timeout=GUARD)
        self.said += rest or ""
        return self.process.returncode

    def http(self, **headers: str) -> httpx.Client:
        """Return a client."""
        return httpx.Client(base_url=self.url, headers=headers, timeout=GUARD, trust_env=False)

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def refused(folder: Path, *options: str, **environment: str) -> tuple[int, str]:
    """Return exit status and message of a server that does not start."""
    done = subprocess.run(
        [sys.executable, "-m", "vicinal", "serve", str(folder), "--port", "0", *options],
        capture_output=True,
        text=True,
        timeout=GUARD,
        env={**CLEAN, **environment},
    )
    return done.returncode, done.stderr


def error_of(response: httpx.Response) -> str:
    """Return the message of an answer that is an error in its one shape."""
    assert response.headers["content-type"] == "application/json"
    said: dict[str, Any] = response.json()
    assert set(said) == {"status", "time"} and set(said["status"]) == {"error"}
    text: str = said["status"]["error"]
    return text
