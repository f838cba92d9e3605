"""What a result has to say about where it was measured."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

import adapters


def describe(specs: Iterable[str]) -> dict[str, Any]:
    """Return machine, versions of everything measured, and the commit, as plain values."""
    versions = {spec: adapters.version(spec) for spec in specs}
    ours = any(adapters.parse(spec)[0] is adapters.ADAPTERS["vicinal"] for spec in versions)
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "cpu": _field("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(_memory_bytes() / 2**30, 1),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "numpy": np.__version__,
        "versions": versions,
        "commit": _commit(),
        "build": _build_info() if ours else None,
    }


def _field(path: str, name: str) -> str:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), "")


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _commit() -> str | None:
    """Return the commit of the checkout, with a mark if tracked files were changed since."""
    folder = Path(__file__).resolve().parent
    run = ("git", "-C", str(folder))
    try:
        head = subprocess.check_output([*run, "rev-parse", "HEAD"], text=True, stderr=-3).strip()
        changed = subprocess.check_output([*run, "status", "--porcelain", "-uno"], text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{head}-changed" if changed.strip() else head


def _build_info() -> dict[str, str]:
    import vicinal

    return {name: str(value) for name, value in vicinal.build_info().items()}
