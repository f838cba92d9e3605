"""The library that refuses memory: how it is made, loaded and told what to refuse."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SOURCE = Path(__file__).with_name("refuse.c")


def why_not() -> str | None:
    """Say why it cannot be used here, or None if it can."""
    if not sys.platform.startswith("linux"):
        return "needs Linux"
    return None if shutil.which("gcc") else "no gcc"


def build(folder: Path) -> Path:
    """Compile the library."""
    library = folder / "refuse.so"
    command = [
        "gcc",
        "-O1",
        "-Wall",
        "-Werror",
        "-shared",
        "-fPIC",
        str(SOURCE),
        "-o",
        str(library),
    ]
    subprocess.run([*command, "-ldl", "-pthread"], check=True)
    return library


class Refusal:
    """Refuses memory to a module of this process, which was started with the library."""

    def __init__(self, module: str) -> None:
        self._library = ctypes.CDLL(os.environ["LD_PRELOAD"])
        self._library.refuse_disarm.restype = ctypes.c_long
        places = []
        for line in Path("/proc/self/maps").read_text().splitlines():
            parts = line.split()
            if len(parts) > 5 and os.path.realpath(parts[5]) == os.path.realpath(module):
                places += [int(end, 16) for end in parts[0].split("-")]
        self._library.refuse_watch(ctypes.c_size_t(min(places)), ctypes.c_size_t(max(places)))
        self.requests = 0
        """Requests that the module made inside the last `at`."""

    @contextmanager
    def at(self, n: int, *, lasting: bool) -> Iterator[None]:
        """Refuse the n-th request inside, counted from 1, and with `lasting` all that follow it."""
        self._library.refuse_arm(ctypes.c_long(n), int(lasting))
        try:
            yield
        finally:
            self.requests = self._library.refuse_disarm()
