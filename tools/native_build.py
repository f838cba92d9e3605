"""Compile the native module for each CPU level, with nothing but the `mojo-compiler` wheel.

Run by hand it makes a development build; the wheel's build hook calls `build` of this file, so
there is one way only that native code is made::

    python tools/native_build.py                               # best level, into python/vicinal
    python tools/native_build.py --levels v2,v3,v4 --into DIR  # DIR/_v2/_native.so and so on
    python tools/native_build.py --levels dotprod,neon --into DIR  # cross-compiled on x86-64
    python tools/native_build.py --spaces few                  # in a third of the time

With `--spaces few` the module has l2/float32, l2/uint8 and cosine/float32 only, and raises
NotImplementedError for the rest: for development, never for a wheel.

Beside each module lies `build.json`: the compiler's release, the target, the spaces, a digest of
all that went in and one of the module. A level whose digests have not changed is not compiled
again.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "mojo" / "bindings" / "_native.mojo"
MODULE = "_native.so"
RECORD = "build.json"

# The compiler reports home unless told not to.
QUIET = {"MODULAR_TELEMETRY_ENABLED": "0", "MODULAR_CRASH_REPORTING_ENABLED": "0"}

# Assertions and bounds checks would pull Modular's run-time library in; the Mojo tests run with all
# of them, the shipped module with none.
OPTIONS = ["--Werror", "-D", "ASSERT=none"]
# metric x dtype; see `is_compiled` of space.mojo
SPACES = {"all": [], "few": ["-D", "SPACES=few"]}

LINK = ["-shared", "--gc-sections", "--strip-all", "-z", "relro", "-z", "now", "-z", "noexecstack"]
EMULATION = {"x86_64": "elf_x86_64", "aarch64": "aarch64linux"}


class BuildError(RuntimeError):
    """The compiler or the linker failed; the message holds what it printed."""


def _load_levels() -> ModuleType:
    # By path: importing the package would need the very module that is built here.
    path = ROOT / "python" / "vicinal" / "_levels.py"
    spec = importlib.util.spec_from_file_location("vicinal_levels", path)
    if spec is None or spec.loader is None:
        raise BuildError(f"cannot load {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


levels = _load_levels()


def mojo(arguments: list[str]) -> subprocess.CompletedProcess[str]:
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
    os.environ["MODULAR_MOJO_MAX_LINKER_DRIVER"] = shutil.which("true") or "/bin/true"
    return subprocess_run_mojo(arguments, capture_output=True, text=True)


def linker() -> Path:
    """Return the path of the linker inside the compiler's wheel."""
    from mojo._package_root import get_package_root

    root = get_package_root()
    if root is None:
        raise BuildError("the installed mojo-compiler does not tell where its linker is")
    return Path(root) / "bin" / "lld"


def compiler_release() -> str:
    """Return the compiler's release, such as "1.2.0 (2016d0cd)"."""
    done = mojo(["--version"])
    if done.returncode != 0:
        raise BuildError(f"mojo --version failed:\n{done.stdout}{done.stderr}")
    return done.stdout.strip().removeprefix("Mojo ")


def host_levels() -> list[str]:
    """Return all levels of this machine's architecture, best first."""
    machine = levels.machine_name()
    names = list(levels.levels_of(machine))
    if not names:
        known = sorted({level.machine for level in levels.LEVELS.values()})
        raise BuildError(f"no CPU level for {machine!r}; there are levels for {known}")
    return names


def best_level() -> str:
    """Return the best level that this CPU can run."""
    machine, flags = levels.machine_name(), levels.cpu_flags()
    for name in host_levels():
        if levels.runs_on(levels.LEVELS[name], machine, flags):
            return name
    raise BuildError(f"this {machine} CPU runs none of the levels {host_levels()}")


def parse_levels(text: str) -> list[str]:
    """Turn "v2,v4", "all" (of this architecture) or "best" into a list of level names."""
    if text == "all":
        return host_levels()
    names = [best_level()] if text == "best" else [part.strip() for part in text.split(",")]
    unknown = [name for name in names if name not in levels.LEVELS]
    if unknown or len(set(names)) != len(names):
        wanted = ", ".join([*levels.LEVELS, "all", "best"])
        raise BuildError(f"levels: expected different names out of {wanted}; got {text!r}")
    return names


def _digest(level: str, release: str, source: Path, spaces: str) -> str:
    tree = source.parent.parent
    digest = hashlib.sha256()
    options = [*OPTIONS, *SPACES[spaces]]
    digest.update(repr((release, levels.LEVELS[level].target, options, LINK)).encode())
    for path in sorted(tree.rglob("*.mojo")):
        digest.update(path.relative_to(tree.parent).as_posix().encode() + b"\0")
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()


def _run(step: str, arguments: list[str]) -> None:
    if step == "mojo":
        done = mojo(arguments)
    else:
        done = subprocess.run([str(linker()), *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        raise BuildError(f"{step} {' '.join(arguments)}\n{done.stdout}{done.stderr}")


def build_level(
    level: str, into: Path, release: str, source: Path = SOURCE, spaces: str = "all"
) -> bool:
    """Build `into/_<level>/_native.so`; return False if it was up to date.

    `source` may lie in a copy of the folder `mojo`, such as one that a benchmark has changed.
    """
    folder = into / f"_{level}"
    module, note = folder / MODULE, folder / RECORD
    sources = _digest(level, release, source, spaces)

    def record(made: Path) -> str:
        content = {
            "level": level,
            "mojo": release,
            "target": " ".join(levels.LEVELS[level].target),
            "spaces": spaces,
            "sources": sources,
            "module": hashlib.sha256(made.read_bytes()).hexdigest(),
        }
        return json.dumps(content, indent=2) + "\n"

    if module.exists() and note.exists() and note.read_text(encoding="utf-8") == record(module):
        return False
    folder.mkdir(parents=True, exist_ok=True)
    # Renamed into place: a process that has the old module mapped keeps it, an interrupted build
    # leaves nothing half-made.
    with tempfile.TemporaryDirectory(prefix=".build-", dir=folder) as work:
        compiled, linked = Path(work) / "_native.o", Path(work) / MODULE
        include = str(source.parent.parent)
        target = [*OPTIONS, *SPACES[spaces], *levels.LEVELS[level].target, "-I", include]
        _run("mojo", ["build", "--emit", "object", *target, str(source), "-o", str(compiled)])
        emulation = EMULATION[levels.LEVELS[level].machine]
        flags = ["-flavor", "gnu", "-m", emulation, *LINK]
        _run("lld", [*flags, "-o", str(linked), str(compiled)])
        new_note = Path(work) / RECORD
        new_note.write_text(record(linked), encoding="utf-8")
        linked.replace(module)
        new_note.replace(note)
    return True


def build(names: list[str], into: Path, spaces: str = "all") -> list[Path]:
    """Build the given levels side by side.

    Parameters
    ----------
    names : list of str
        Levels, see `parse_levels`.
    into : Path
        Folder that gets one folder `_<level>` each.
    spaces : {"all", "few"}
        Combinations of metric and dtype to compile; a wheel has all.

    Returns
    -------
    list of Path
        The folders, in the order of `names`; each holds `_native.so` and `build.json`.

    Raises
    ------
    BuildError
        If a level does not compile, with what the compiler printed.
    """
    release = compiler_release()
    with ThreadPoolExecutor(max_workers=min(len(names), os.cpu_count() or 1)) as pool:
        made = list(pool.map(lambda name: build_level(name, into, release, spaces=spaces), names))
    for name, fresh in zip(names, made, strict=True):
        size = (into / f"_{name}" / MODULE).stat().st_size
        state = "built" if fresh else "up to date"
        print(f"native code {name}: {size} bytes, {state}", flush=True)
    return [into / f"_{name}" for name in names]


def main() -> int:
    """Build what the command line asks for."""
    parser = argparse.ArgumentParser(description="Compile the native module of vicinal.")
    names = ", ".join(levels.LEVELS)
    parser.add_argument(
        "--levels",
        default="best",
        help=f"comma-separated list of {names}; 'all' of this machine; 'best' that this CPU runs",
    )
    parser.add_argument("--into", type=Path, default=ROOT / "python" / "vicinal")
    parser.add_argument("--spaces", choices=SPACES, default="all", help="few: for development")
    arguments = parser.parse_args()
    try:
        build(parse_levels(arguments.levels), arguments.into, arguments.spaces)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
