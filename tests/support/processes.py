"""Other processes: run a piece of Python, wait for what happens in one.

Nothing here says how long anything takes. `GUARD` only keeps a test that waits for something that
never comes from hanging for ever; on a slow and busy machine all of it may take minutes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

GUARD = 600.0

# Put in front of a script: sends SIGINT to the own process once native threads are at work.
INTERRUPT_IN_NATIVE_CODE = """
import os as _os, signal as _signal, threading as _threading

def interrupt_in_native_code():
    before = len(_os.listdir("/proc/self/task")) + 1  # this helper's thread
    def wait():
        while len(_os.listdir("/proc/self/task")) <= before:
            pass
        _os.kill(_os.getpid(), _signal.SIGINT)
    _threading.Thread(target=wait, daemon=True).start()
"""


def heed_ctrl_c() -> None:
    """In the child: SIGINT counts, though tests in the background of a shell ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(code: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    """Start a Python process that runs `code`, with pipes for what it prints and is told."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        preexec_fn=heed_ctrl_c,
    )


def run(code: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a Python process of its own and wait for it."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=GUARD,
        env={**os.environ, **environment},
        preexec_fn=heed_ctrl_c,
    )


def assert_lived(done: subprocess.CompletedProcess[str]) -> None:
    """Check that a process ended well; show what it printed if not."""
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}{done.stderr}"


def printed(code: str, *arguments: object, **environment: str) -> str:
    """Run `code` in a Python process of its own, which must end well; return what it printed."""
    done = run(code, *arguments, **environment)
    assert_lived(done)
    return done.stdout


def wait_until(happened: Callable[[], bool], what: str) -> None:
    """Wait for an event; AssertionError after `GUARD` seconds."""
    end = time.monotonic() + GUARD
    while not happened():
        assert time.monotonic() < end, f"never happened: {what}"
        time.sleep(0.001)


def bytes_written(pid: int) -> int:
    """Return how many bytes a process has passed to calls that write."""
    text = Path(f"/proc/{pid}/io").read_text(encoding="ascii")
    return int(text.split("wchar:")[1].split()[0])
