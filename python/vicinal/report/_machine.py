"""Where numbers come from: a time means little without the machine that it was measured on."""

from __future__ import annotations

import os
import platform
from typing import Any

import numpy as np

import vicinal

__all__ = ["machine"]


def machine() -> dict[str, Any]:
    """Return processor, cores, load and versions; no name of the machine or of a user."""
    model = platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    model = line.partition(":")[2].strip()
                    break
    except OSError:
        pass
    try:
        load = os.getloadavg()[0]
    except OSError:
        load = float("nan")
    built = vicinal.build_info()
    return {
        "processor": model,
        "cores": os.cpu_count() or 1,
        "threads_used": vicinal.get_num_threads(),
        "load_before": round(load, 2) if load == load else None,
        "vicinal": vicinal.__version__,
        "cpu_level": built["level"],
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
