"""Choose the CPU level at import and load its native module.

Exposes `native`, the module, and `build_info`. The choice is made once per process; the environment
variable VICINAL_CPU names a level to use in place of the best one. Nothing else happens at import:
no thread is started and no file but the module and one of /proc is read.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from vicinal import _host, _levels

__all__ = ["build_info", "level", "native"]

VARIABLE = "VICINAL_CPU"

_FOLDER = Path(__file__).parent
_MODULE = "_native.so"


def _installed(folder: Path) -> tuple[str, ...]:
    """Return the levels that this installation holds, best first within a machine."""
    return tuple(name for name in _levels.LEVELS if (folder / f"_{name}" / _MODULE).is_file())


def choose(
    wanted: str | None, installed: tuple[str, ...], machine: str, flags: frozenset[str]
) -> str:
    """Return the name of the level to load.

    Parameters
    ----------
    wanted : str or None
        Value of VICINAL_CPU; None or "" takes the best level.
    installed : tuple of str
        Levels that have a native module.
    machine : str
        Architecture, see `_levels.machine_name`.
    flags : frozenset of str
        Flags of the CPU; empty where they are not known.

    Returns
    -------
    str
        A name out of `installed`.

    Raises
    ------
    ImportError
        If no level, or not the one asked for, is installed and runs on this CPU.
    """
    usable = [name for name in installed if _levels.runs_on(_levels.LEVELS[name], machine, flags)]
    if not wanted:
        if usable:
            return usable[0]
        raise ImportError(
            f"vicinal: no native module for this {machine} CPU: installed levels are "
            f"{_listed(installed)}, of which it runs none"
        )
    # Without known flags a level that was asked for is trusted to be the right one.
    fits = wanted in installed and _levels.LEVELS[wanted].machine == machine
    if wanted in usable or (fits and not flags):
        return wanted
    if wanted not in _levels.LEVELS:
        reason = f"expected one of {_listed(tuple(_levels.LEVELS))}"
    elif wanted not in installed:
        reason = "that level is not in this installation"
    elif _levels.LEVELS[wanted].machine != machine:
        reason = f"that level is for {_levels.LEVELS[wanted].machine}, this CPU is {machine}"
    else:
        missing = sorted(_levels.LEVELS[wanted].flags - flags)
        reason = f"this CPU lacks {', '.join(missing)}"
    raise ImportError(
        f"vicinal: {VARIABLE}={wanted!r}: {reason}; available here: {_listed(tuple(usable))}"
    )


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names) if names else "none"


def _load(folder: Path, name: str) -> ModuleType:
    path = folder / f"_{name}" / _MODULE
    # The last part of the name has to be that of the module's PyInit function.
    spec = importlib.util.spec_from_file_location("vicinal._native", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"vicinal: cannot load {path}", path=str(path))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[spec.name] = module
    return module


_flags = _levels.cpu_flags()
_machine = _levels.machine_name()
_all_installed = _installed(_FOLDER)

_host.check_this()
level = choose(os.environ.get(VARIABLE), _all_installed, _machine, _flags)
if TYPE_CHECKING:
    from vicinal import _native as native
else:
    native = _load(_FOLDER, level)


def build_info() -> dict[str, Any]:
    """Tell what native code is in use, without any path of this or the building machine.

    Returns
    -------
    dict
        `version` (str) of the package; `level` (str) in use and `lanes` (int), its float32 values
        per instruction; `chosen_by` (str), "VICINAL_CPU" or "cpu"; `available` (list of str), the
        installed levels that this CPU runs, best first, and `installed` (list of str), all of them;
        `spaces` (str), "all", or "few" in a development build, in which the other combinations of
        metric and dtype raise NotImplementedError; `machine` (str); `cpu_flags` (list of str), what
        the CPU must show for the level; `mojo` (str), release of the compiler, and `target` (str),
        its target arguments.

    Safe from many threads at once.
    """
    from vicinal import __version__

    record = json.loads((_FOLDER / f"_{level}" / "build.json").read_text(encoding="utf-8"))
    return {
        "version": __version__,
        "level": level,
        "lanes": native.cpu_lanes(),
        "chosen_by": VARIABLE if os.environ.get(VARIABLE) else "cpu",
        "available": [
            name
            for name in _all_installed
            if _levels.runs_on(_levels.LEVELS[name], _machine, _flags)
        ],
        "installed": list(_all_installed),
        "spaces": record["spaces"],
        "machine": _machine,
        "cpu_flags": sorted(_levels.LEVELS[level].flags),
        "mojo": record["mojo"],
        "target": record["target"],
    }
