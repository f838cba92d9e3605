"""Run the compiler and the linker of the `mojo-compiler` wheel; tell what a run took.

As a program it runs the compiler for `measured`: used processor time is known of ended children
only, and a process of its own has no other children.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

# The compiler reports home unless told not to.
QUIET = {"MODULAR_TELEMETRY_ENABLED": "0", "MODULAR_CRASH_REPORTING_ENABLED": "0"}

EMULATION = {"x86_64": "elf_x86_64", "aarch64": "aarch64linux"}


class BuildError(RuntimeError):
    """The compiler or the linker failed; the message holds what it printed."""


class Took(NamedTuple):
    """What a run of the compiler took."""

    cpu_seconds: float
    peak_bytes: int


def mojo(arguments: list[str], *, capture: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the compiler of the installed wheel, quietly, and return its output as text."""
    try:
        from mojo.run import subprocess_run_mojo
    except ImportError as error:
        raise BuildError(
            f"no Mojo compiler in {sys.executable}: install the build requirements of "
            "pyproject.toml (hatchling, mojo-compiler)"
        ) from error
    os.environ.update(QUIET)
    # `--emit object` starts no C compiler but insists on finding one: any program will do.
    if "object" in arguments:
        os.environ["MODULAR_MOJO_MAX_LINKER_DRIVER"] = shutil.which("true") or "/bin/true"
    return subprocess_run_mojo(arguments, capture_output=capture, text=True)


def measured(arguments: list[str], *, fresh: bool = False) -> Took:
    """Run the compiler and return what it took.

    The compiler has a cache of its own, which makes a second run for nearly the same sources
    shorter; with `fresh` it starts with an empty one.

    Raises
    ------
    BuildError
        If it fails, with what it printed.
    """
    with tempfile.TemporaryDirectory(prefix="vicinal-took-") as work:
        report = Path(work) / "took"
        environment = {**os.environ, **({"MODULAR_CACHE_DIR": work} if fresh else {})}
        command = [sys.executable, __file__, str(report), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode != 0:
            raise BuildError(f"mojo {' '.join(arguments)}\n{done.stdout}{done.stderr}")
        return Took(*json.loads(report.read_text(encoding="utf-8")))


def link(objects: list[Path], output: Path, machine: str, flags: list[str]) -> None:
    """Link object files for a machine by the linker of the compiler's wheel."""
    lld = str(package_root() / "bin" / "lld")
    command = [lld, "-flavor", "gnu", "-m", EMULATION[machine], *flags, "-o", str(output)]
    done = subprocess.run([*command, *map(str, objects)], capture_output=True, text=True)
    if done.returncode != 0:
        raise BuildError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


def package_root() -> Path:
    """Return the folder of the compiler's wheel that holds `bin` and `lib`."""
    from mojo._package_root import get_package_root

    root = get_package_root()
    if root is None:
        raise BuildError("the installed mojo-compiler does not tell where it is")
    return Path(root)


def release() -> str:
    """Return the compiler's release, such as "1.2.0 (2016d0cd)"."""
    done = mojo(["--version"])
    if done.returncode != 0:
        raise BuildError(f"mojo --version failed:\n{done.stdout}{done.stderr}")
    return done.stdout.strip().removeprefix("Mojo ")


def main(report: str, arguments: list[str]) -> int:
    """Run the compiler and write what it took to the file `report`."""
    try:
        done = mojo(arguments, capture=False)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    took = Took(round(used.ru_utime + used.ru_stime, 1), used.ru_maxrss * 1024)
    Path(report).write_text(json.dumps(took), encoding="utf-8")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
