"""Scripts that run under a limit of memory and tell what they have read from the disk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "bench"))

from memory_limit import Group, evict, memory_limit

__all__ = ["JOINED", "Group", "evict", "memory_limit", "need_disk"]

# Put in front of a script whose first argument is `Group.procs`.
JOINED = """
import json, os, resource, sys
import numpy as np
import vicinal

def join():
    with open(sys.argv[1], "w") as procs:
        procs.write(str(os.getpid()))

def read():
    with open("/proc/self/io") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes:"))

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_majflt
"""


def need_disk(path: Path) -> None:
    """Skip where files live in memory, so that there is nothing to read."""
    kind = subprocess.check_output(["stat", "-f", "-c", "%T", path.parent], text=True).strip()
    if kind in ("tmpfs", "ramfs"):
        pytest.skip(f"{path.parent} is {kind}: nothing is ever read from a disk")
