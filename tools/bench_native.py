"""Compile the benchmark program of bench/native, or find it in the cache, and run it.

    python tools/bench_native.py tests/data    # arguments of the program

It is linked by the C compiler of this machine.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import compile_cache
import compiler
import native_build

ROOT = native_build.ROOT
SOURCE = ROOT / "bench" / "native" / "bench.mojo"


def program() -> Path:
    """Return the program, compiled for the CPU of this machine."""
    command = ["build", "--Werror", "-I", str(ROOT / "mojo"), str(SOURCE)]
    files = [*native_build.sources(ROOT / "mojo"), *native_build.sources(SOURCE.parent)]
    release = compiler.release()
    # the path of the run-time library goes into the program
    facts = (release, str(compiler.package_root()), sorted(native_build.levels.cpu_flags()))

    def key() -> str:
        return compile_cache.digest(files, ROOT, *facts)

    def make(into: Path) -> None:
        compiler.measured([*command, "-o", str(into / "bench-native")])

    folder, _ = compile_cache.entry("bench-native", key, make)
    return folder / "bench-native"


if __name__ == "__main__":
    made = str(program())
    os.execv(made, [made, *sys.argv[1:]])
