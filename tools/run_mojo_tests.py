"""Run all tests/mojo/**/test_*.mojo with all assertions and bounds checks on.

They are compiled as a few programs, since most of the time goes into what several files use, or
one by one where that fails; a program that has been compiled before is taken from the cache. Each
file then runs in a process of its own, a few side by side, whatever fails; the exit status is 1 if
one did. Names given on the command line choose files::

    python tools/run_mojo_tests.py test_distance test_graph
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import compile_cache
import compiler
import native_build

ROOT = native_build.ROOT
FOLDER = ROOT / "tests" / "mojo"
PROGRAMS = 4  # whatever the machine: a program is compiled again if one of its files has changed
OPTIONS = ["--Werror", "-D", "ASSERT=all"]
# What some files need besides, and therefore a program of their own: options, a folder of helpers.
EXPLORE = ["-D", "EXPLORE", *native_build.SPACES["few"]]
MORE = {"test_schedules": (EXPLORE, ROOT / "tests" / "schedules")}
VARIABLE = "VICINAL_MOJO_TEST"
LIMIT = 900  # seconds that a file may run; guards against hanging only

# The program is a library, which the linker makes without a C compiler's start files.
CALL = """
import ctypes, sys
main = ctypes.CDLL(sys.argv[1]).main
main.argtypes = [ctypes.c_int, ctypes.POINTER(ctypes.c_char_p)]
sys.exit(main(1, (ctypes.c_char_p * 2)(b"tests", None)))
"""


def grouped(paths: list[Path]) -> list[list[Path]]:
    """Deal files out to programs of about the same length."""
    alone = [[path] for path in paths if path.stem in MORE]
    paths = [path for path in paths if path.stem not in MORE]
    groups: list[list[Path]] = [[] for _ in range(min(PROGRAMS, len(paths)))]
    lengths = [0] * len(groups)
    for size, path in sorted(((path.stat().st_size, path) for path in paths), reverse=True):
        shortest = lengths.index(min(lengths))
        groups[shortest].append(path)
        lengths[shortest] += size
    return alone + [sorted(group) for group in groups]


def driver(names: list[str]) -> str:
    """Return the text of a program that runs the file which the environment names."""
    imports = "".join(f"import {name}\n" for name in names)
    calls = "".join(f'    if name == "{name}":\n        return {name}.main()\n' for name in names)
    return (
        f"from std.os import getenv\n\n{imports}\n\ndef main() raises:\n"
        f'    var name = getenv("{VARIABLE}")\n{calls}    raise Error("no such file: " + name)\n'
    )


def program(group: list[Path], release: str) -> tuple[Path, str]:
    """Compile a program, or find it in the cache; return it and what was done."""
    more, folder = MORE.get(group[0].stem, ([], FOLDER))
    options = [*OPTIONS, *more]
    helpers = [path for path in FOLDER.rglob("*.mojo") if not path.name.startswith("test_")]
    helpers += [path for path in folder.rglob("*.mojo") if folder != FOLDER]
    files = [*native_build.sources(ROOT / "mojo"), *helpers, *group]
    library = compiler.package_root() / "lib"  # its path goes into the program
    folders = sorted({str(path.parent) for path in [*helpers, *group]})
    include = [part for folder in [str(ROOT / "mojo"), *folders] for part in ("-I", folder)]
    took = []

    def key() -> str:
        # compiled for the CPU of this machine
        facts = (release, options, str(library), sorted(native_build.levels.cpu_flags()))
        return compile_cache.digest(files, ROOT, *facts)

    def make(into: Path) -> None:
        made, main = into / "tests.o", into / "tests.mojo"
        main.write_text(driver([path.stem for path in group]), encoding="utf-8")
        command = ["build", "--emit", "object", *options, *include, str(main), "-o", str(made)]
        took.append(compiler.measured(command))
        libraries = [str(path) for path in sorted(library.glob("lib*.so"))]
        flags = ["-shared", "-rpath", str(library), *libraries]
        compiler.link([made], into / "tests.so", native_build.levels.machine_name(), flags)
        made.unlink()

    name = f"mojo-tests-{group[0].stem}"
    folder, fresh = compile_cache.entry(name, key, make)
    state = f"compiled in {took[0].cpu_seconds} s of CPU" if fresh else "compiled before"
    return folder / "tests.so", state


def run(path: Path, made: Path) -> tuple[bool, str]:
    """Run one file of a program; return whether it passed, and what to print about it."""
    start = time.perf_counter()
    command = [sys.executable, "-c", CALL, str(made)]
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, VARIABLE: path.stem},
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        status, printed = done.returncode, done.stdout + done.stderr
    except subprocess.TimeoutExpired as error:
        status, printed = 1, f"stopped after {LIMIT} s\n{error.stdout}{error.stderr}"
    seconds = time.perf_counter() - start
    if status < 0:
        printed += f"ended by signal {-status}\n"
    line = f"{path.stem}: {'FAILED' if status else 'passed'} ({seconds:.1f} s)"
    return status == 0, f"{line}\n{printed}" if status else line


def main(names: list[str]) -> int:
    """Run the named files, or all of them."""
    paths = sorted(FOLDER.rglob("test_*.mojo"))
    unknown = sorted(set(names) - {path.stem for path in paths})
    if unknown or not paths:
        print(f"no such file in tests/mojo: {', '.join(unknown) or 'test_*'}", file=sys.stderr)
        return 2
    wanted = [path for path in paths if path.stem in names] if names else paths
    # A file that was asked for by its name is about to change: it is compiled alone.
    groups = [[path] for path in wanted] if names else grouped(wanted)
    release = compiler.release()

    def do(group: list[Path]) -> list[tuple[bool, str]]:
        listed = ", ".join(path.stem for path in group)
        try:
            made, state = program(group, release)
        except compiler.BuildError as error:
            if len(group) == 1:
                return [(False, f"{listed}: DOES NOT COMPILE\n{error}")]
            # Mojo 1.2 crashes on some sets of files each of which it compiles
            alone = [outcome for path in group for outcome in do([path])]
            return [(True, f"{listed}: do not compile together"), *alone]
        return [(True, f"{listed}: {state}"), *(run(path, made) for path in group)]

    failed = 0
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        for outcomes in pool.map(do, groups):
            for passed, text in outcomes:
                failed += not passed
                print(text, flush=True)
    print(f"Mojo tests: {len(wanted) - failed} files passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
