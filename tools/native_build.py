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
all that went in and one of the module; under "measured" what compiling took, which `--fresh` makes
comparable. Modules are kept in
`build/cache` (see compile_cache.py): one whose digests have not changed is not compiled again.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import importlib.util
import json
import os
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import compile_cache
import compiler
from compiler import BuildError

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "mojo" / "bindings" / "_native.mojo"
MODULE = "_native.so"
RECORD = "build.json"

# Assertions and bounds checks would pull Modular's run-time library in; the Mojo tests run with all
# of them, the shipped module with none.
OPTIONS = ["--Werror", "-D", "ASSERT=none"]
# metric x dtype; see `is_compiled` of kernels/in_space.mojo
SPACES = {"all": [], "few": ["-D", "SPACES=few"]}

LINK = ["-shared", "--gc-sections", "--strip-all", "-z", "relro", "-z", "now", "-z", "noexecstack"]


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
    """Turn "v2,v4" into a list of level names; "all", "here" and "best" as well.

    They are all levels of this architecture, those that this CPU runs, and the best of these.
    """
    if text == "all":
        return host_levels()
    if text == "here":
        machine, flags = levels.machine_name(), levels.cpu_flags()
        return [
            name for name in host_levels() if levels.runs_on(levels.LEVELS[name], machine, flags)
        ]
    names = [best_level()] if text == "best" else [part.strip() for part in text.split(",")]
    unknown = [name for name in names if name not in levels.LEVELS]
    if unknown or len(set(names)) != len(names):
        wanted = ", ".join([*levels.LEVELS, "all", "here", "best"])
        raise BuildError(f"levels: expected different names out of {wanted}; got {text!r}")
    return names


def sources(tree: Path) -> list[Path]:
    """Return all Mojo files of a folder."""
    return list(tree.rglob("*.mojo"))


def compile_object(source: Path, options: list[str], include: list[Path]) -> Path:
    """Return the object file of a program, compiled now or before; `include` has all it imports."""
    files = [source, *(path for folder in include for path in sources(folder))]
    release = compiler.release()

    def key() -> str:
        return compile_cache.digest(files, ROOT, release, options)

    def make(into: Path) -> None:
        folders = [part for folder in include for part in ("-I", str(folder))]
        command = ["build", "--emit", "object", *options, *folders, str(source)]
        compiler.measured([*command, "-o", str(into / "object.o")])

    folder, _ = compile_cache.entry(f"object-{source.stem}", key, make)
    return folder / "object.o"


def build_level(
    level: str, into: Path, release: str, source: Path = SOURCE, spaces: str = "all"
) -> str:
    """Put `_native.so` and its record into `into/_<level>`; say where they came from.

    `source` may lie in a copy of the folder `mojo`, such as one that a benchmark has changed.
    """
    folder = into / f"_{level}"
    module, note = folder / MODULE, folder / RECORD
    wanted = _identity(level, release, source, spaces)
    if _is(wanted, folder):
        return "up to date"
    kept, state = compiled(level, release, source, spaces)
    folder.mkdir(parents=True, exist_ok=True)
    # Renamed into place: a process that has the old module mapped keeps it, an interrupted copy
    # leaves nothing that agrees with its record.
    with tempfile.TemporaryDirectory(prefix=".build-", dir=folder) as work:
        for name, place in ((MODULE, module), (RECORD, note)):
            Path(shutil.copy(kept / name, work)).replace(place)
    return state


def compiled(
    level: str,
    release: str,
    source: Path = SOURCE,
    spaces: str = "all",
    *,
    fresh: bool = False,
) -> tuple[Path, str]:
    """Return the folder of the cache that holds a level's module and record, and what was done.

    With `fresh` it is compiled whatever the caches hold, ours and the compiler's own, so that what
    compiling took can be compared.
    """
    wanted = _identity(level, release, source, spaces)

    def key() -> str:
        return str(_identity(level, release, source, spaces)["sources"])

    for _ in range(2):
        make = functools.partial(_compile, level, source, wanted, fresh)
        kept, made = compile_cache.entry(f"native-{level}-{spaces}", key, make)
        if _is(wanted, kept) and (made or not fresh):
            break
        compile_cache.drop(kept)  # damaged, or not wanted
    else:
        raise BuildError(f"{kept} is not what was written there")
    measured = json.loads((kept / RECORD).read_text(encoding="utf-8"))["measured"]
    seconds = measured["cpu_seconds"]
    return kept, f"compiled in {seconds} s of CPU" if made else "compiled before"


def _identity(level: str, release: str, source: Path, spaces: str) -> dict[str, Any]:
    """Return the part of a record that is the same for every build of the same sources."""
    tree = source.parent.parent
    target = levels.LEVELS[level].target
    facts = (release, target, [*OPTIONS, *SPACES[spaces]], LINK)
    return {
        "level": level,
        "mojo": release,
        "target": " ".join(target),
        "spaces": spaces,
        "sources": compile_cache.digest(sources(tree), tree.parent, facts),
    }


def _is(wanted: dict[str, Any], folder: Path) -> bool:
    """Tell whether a folder holds a module of this identity, whole."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        module = hashlib.sha256((folder / MODULE).read_bytes()).hexdigest()
    except (OSError, ValueError):
        return False
    return "measured" in record and {**wanted, "module": module}.items() <= record.items()


def _compile(level: str, source: Path, identity: dict[str, Any], fresh: bool, into: Path) -> None:
    """Compile and link one level's module into an empty folder, and write its record."""
    module, made = into / MODULE, into / "_native.o"
    options = [*OPTIONS, *SPACES[identity["spaces"]], *levels.LEVELS[level].target]
    include = ["-I", str(source.parent.parent)]
    command = ["build", "--emit", "object", *options, *include, str(source), "-o", str(made)]
    took = compiler.measured(command, fresh=fresh)
    compiler.link([made], module, levels.LEVELS[level].machine, LINK)
    record = {
        **identity,
        "module": hashlib.sha256(module.read_bytes()).hexdigest(),
        "measured": {
            **took._asdict(),
            "fresh": fresh,
            "object_bytes": made.stat().st_size,
            "module_bytes": module.stat().st_size,
        },
    }
    made.unlink()
    (into / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def build(
    names: list[str], into: Path | None = None, spaces: str = "all", *, fresh: bool = False
) -> list[Path]:
    """Build the given levels side by side.

    Parameters
    ----------
    names : list of str
        Levels, see `parse_levels`.
    into : Path, optional
        Folder that gets one folder `_<level>` each; without it the modules stay in the cache.
    spaces : {"all", "few"}
        Combinations of metric and dtype to compile; a wheel has all.
    fresh : bool
        Compile whatever was compiled before; see `compiled`.

    Returns
    -------
    list of Path
        Folders in the order of `names`; each holds `_native.so` and `build.json`.

    Raises
    ------
    BuildError
        If a level does not compile, with what the compiler printed.
    """
    release = compiler.release()

    def one(name: str) -> tuple[Path, str]:
        if into is None:
            return compiled(name, release, spaces=spaces, fresh=fresh)
        if fresh:
            compiled(name, release, spaces=spaces, fresh=True)
            (into / f"_{name}" / RECORD).unlink(missing_ok=True)
        return into / f"_{name}", build_level(name, into, release, spaces=spaces)

    with ThreadPoolExecutor(max_workers=min(len(names), os.cpu_count() or 1)) as pool:
        made = list(pool.map(one, names))
    for name, (folder, state) in zip(names, made, strict=True):
        size = (folder / MODULE).stat().st_size
        few = "" if spaces == "all" else f", {spaces} spaces"
        print(f"native code {name}{few}: {size} bytes, {state}", flush=True)
    return [folder for folder, _ in made]


def main() -> int:
    """Build what the command line asks for."""
    parser = argparse.ArgumentParser(description="Compile the native module of vicinal.")
    names = ", ".join(levels.LEVELS)
    parser.add_argument(
        "--levels",
        default="best",
        help=f"comma-separated list of {names}; 'all' of this architecture; 'here', which this CPU "
        "runs; 'best' of them",
    )
    parser.add_argument("--into", type=Path, default=ROOT / "python" / "vicinal")
    parser.add_argument("--spaces", choices=SPACES, default="all", help="few: for development")
    parser.add_argument(
        "--fresh", action="store_true", help="compile anew, to see what it takes; see build.json"
    )
    arguments = parser.parse_args()
    try:
        build(
            parse_levels(arguments.levels), arguments.into, arguments.spaces, fresh=arguments.fresh
        )
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
