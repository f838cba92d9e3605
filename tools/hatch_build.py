"""Build hook of the wheel: compiles the native module and names the platform.

VICINAL_LEVELS names the CPU levels to put in, "all" of this machine's by default. A wheel of
another machine's levels (`VICINAL_LEVELS=dotprod,neon` on x86-64) gets that machine's platform tag.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.path.insert(0, str(Path(__file__).resolve().parent))

import native_build


def wanted_levels() -> list[str]:
    """Return the CPU levels of VICINAL_LEVELS, all of this architecture by default."""
    return native_build.parse_levels(os.environ.get("VICINAL_LEVELS") or "all")


class NativeBuildHook(BuildHookInterface):
    """Adds `_<level>/_native.so` and its record for each level."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile and register the modules; `version` is "standard" or "editable"."""
        names = wanted_levels()
        table = native_build.levels.LEVELS
        machines = {table[name].machine for name in names}
        if len(machines) != 1:
            raise native_build.BuildError(
                f"VICINAL_LEVELS: expected levels of one machine; got {', '.join(names)}"
            )
        root = Path(self.root)
        if version == "editable":
            native_build.build(names, root / "python" / "vicinal")
        else:
            for level, folder in zip(names, native_build.build(names), strict=True):
                for name in (native_build.MODULE, native_build.RECORD):
                    build_data["force_include"][str(folder / name)] = f"vicinal/_{level}/{name}"
        build_data["pure_python"] = False
        # The module takes the C API by symbol name, so it has no Python ABI of its own; of libc it
        # uses nothing newer than glibc 2.28. Tests look at both.
        build_data["tag"] = f"py3-none-manylinux_2_28_{machines.pop()}"
