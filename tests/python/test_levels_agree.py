"""All CPU levels are right and agree, those of other machines under an emulator.

`tests/mojo/bare/checks.mojo` is compiled for each level. It compares kernels with plain sums and
returns checksums of graphs over integers and of what searches of them find: they have to be the
same everywhere. Levels of this machine run in a process of their own, those for Arm as a program
without libc under `qemu-aarch64`.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import compiler
import native_build
import vicinal
from vicinal import _levels

ROOT = Path(__file__).resolve().parents[2]
BARE = ROOT / "tests" / "mojo" / "bare"
EMULATOR = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
OBJDUMP = shutil.which("llvm-objdump") or shutil.which("aarch64-linux-gnu-objdump")
# The oldest CPU of each level that the emulator knows.
ARM_CPUS = {"neon": "cortex-a53", "dotprod": "neoverse-n1"}
HERE = vicinal.build_info()["available"]
MACHINE = _levels.machine_name()

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("mojo") is None,
        reason="the Mojo compiler is not installed (make test installs it)",
    ),
]
needs_emulator = pytest.mark.skipif(
    EMULATOR is None,
    reason="no qemu-aarch64-static or qemu-aarch64 on PATH (Debian package qemu-user-static)",
)
needs_objdump = pytest.mark.skipif(
    OBJDUMP is None,
    reason="no llvm-objdump or aarch64-linux-gnu-objdump on PATH (Debian package llvm)",
)


CALL = """
import ctypes, sys
checks = ctypes.CDLL(sys.argv[1]).run_checks
checks.argtypes, checks.restype = [ctypes.c_void_p], ctypes.c_ssize_t
room = (ctypes.c_int64 * 64)()
count = checks(room)
sys.stdout.buffer.write(bytes(room)[: 8 * count])
"""


class Checks:
    """Compiles and runs the checks of a level, once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.numbers: dict[str, tuple[int, ...]] = {}

    def compile(self, levels: list[str]) -> None:
        """Compile the checks for some levels side by side."""
        with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
            list(pool.map(lambda level: self._compile("checks", level), levels))

    def _compile(self, source: str, level: str) -> Path:
        options = [*native_build.OPTIONS, *_levels.LEVELS[level].target]
        return native_build.compile_object(BARE / f"{source}.mojo", options, [ROOT / "mojo"])

    def program(self, level: str) -> Path:
        """Return a program for Arm, or a library for this machine."""
        made = self.folder / f"checks-{level}"
        if made.exists():
            return made
        machine = _levels.LEVELS[level].machine
        objects = [self._compile("checks", level)]
        flags = ["--gc-sections"]
        if machine == MACHINE:
            flags += ["-shared"]
        else:
            # Functions for threads stay open: there is one thread only.
            objects += [self._compile("arm_start", level)]
            flags += ["-static", "--unresolved-symbols=ignore-all", "-e", "_start"]
        compiler.link(objects, made, machine, flags)
        return made

    def run(self, level: str, cpu: str | None = None) -> subprocess.CompletedProcess[bytes]:
        """Run the checks, under the emulator of that CPU if the level is another machine's."""
        program = str(self.program(level))
        if _levels.LEVELS[level].machine == MACHINE:
            command = [sys.executable, "-c", CALL, program]
        else:
            command = [str(EMULATOR), "-cpu", cpu or ARM_CPUS[level], program]
        return subprocess.run(command, capture_output=True, timeout=600)

    def of(self, level: str) -> tuple[int, ...]:
        """Return the numbers that the checks hand out."""
        if level not in self.numbers:
            done = self.run(level)
            assert done.returncode == 0, done.stderr
            self.numbers[level] = struct.unpack(f"={len(done.stdout) // 8}q", done.stdout)
        return self.numbers[level]


@pytest.fixture(scope="module")
def checks(tmp_path_factory):
    made = Checks(tmp_path_factory.mktemp("checks"))
    emulated = _levels.levels_of("aarch64") if EMULATOR or OBJDUMP else ()
    made.compile([*HERE, *(name for name in emulated if name not in HERE)])
    return made


def check_alone(numbers):
    made, wrong, first = numbers[:3]
    assert made > 3900
    assert wrong == 0, f"{wrong} of {made} comparisons, the first in section {divmod(first, 10**7)}"
    assert len(numbers) == 3 + 1 + 12
    assert len(set(numbers[3:])) == 13, "checksums of different things are all different"


@pytest.mark.parametrize("level", HERE)
def test_level_of_this_machine(checks, level):
    check_alone(checks.of(level))
    assert checks.of(level)[3:] == checks.of(HERE[0])[3:]


@needs_emulator
@pytest.mark.parametrize("level", _levels.levels_of("aarch64"))
def test_level_of_arm(checks, level):
    check_alone(checks.of(level))
    assert checks.of(level)[3:] == checks.of(HERE[0])[3:]


@needs_emulator
@pytest.mark.skipif(MACHINE == "aarch64", reason="nothing is emulated here")
def test_dotprod_needs_what_its_flags_say(checks):
    # A level that ran on less than it asks for would not use what it is made for.
    done = checks.run("dotprod", ARM_CPUS["neon"])
    assert done.returncode != 0
    assert b"signal 4" in done.stderr or b"Illegal" in done.stderr


@needs_objdump
def test_instructions_of_arm_levels(checks):
    def used(level):
        mattr = ["--mattr=+dotprod,+crc,+lse"] if "llvm" in str(OBJDUMP) else []
        code = subprocess.run(
            [str(OBJDUMP), "-d", "--no-show-raw-insn", *mattr, str(checks.program(level))],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        return set(re.findall(r"^\s*[0-9a-f]+:\s+([a-z][a-z0-9.]*)", code, re.MULTILINE))

    new = {"sdot", "udot", "crc32cx", "ldadd", "ldaddal", "casal"}
    everywhere = {"umull", "umull2", "uadalp", "sadalp", "uabd", "sabd"}
    assert everywhere <= used("neon")
    assert not new & used("neon"), "the lowest level has to run on every aarch64"
    assert {"sdot", "udot", "crc32cx", "uabd", "sabd"} <= used("dotprod")
    # counting bits adds pairs up ("uadalp"); products are not widened by hand
    assert "umull" not in used("dotprod")
