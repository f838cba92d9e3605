"""Run the library under ThreadSanitizer, and under AddressSanitizer with LeakSanitizer.

`make sanitize` does it.

Both come with gcc. Each program also makes one deliberate mistake in a run of its own, which has to
be reported: a sanitizer that sees nothing would pass everything. Where gcc or one of its sanitizers
is not installed, or the kernel does not let one run, that part is skipped and the reason printed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import native_build

FOLDER = native_build.ROOT / "tests" / "sanitize"
# By hand, since the best CPU of today may not be one that gcc's run-time libraries know.
CPU = "x86-64-v3"
LIMIT = 300  # seconds that a program may run


@dataclass(frozen=True)
class Check:
    """One program under one sanitizer."""

    sanitizer: str
    name: str
    runs: list[str]
    mistake: list[str]
    says: str
    """What the sanitizer must print about the mistake."""
    environment: dict[str, str]
    spaces: str
    """Which spaces are compiled: what a program does not use takes minutes."""


CHECKS = [
    Check(
        "thread",
        "races",
        ["scratches", "epochs", "beside_rows", "beside_codes"],
        ["race"],
        "data race",
        {"TSAN_OPTIONS": f"suppressions={FOLDER / 'thread.supp'}"},
        "few",
    ),
    Check("address", "memory", ["FILE"], ["FILE", "overrun"], "heap-buffer-overflow", {}, "all"),
]


def why_not(check: Check, work: Path) -> str | None:
    """Say why a sanitizer cannot run here, or None if it can."""
    if native_build.levels.machine_name() != "x86_64":
        return "only set up for x86-64"
    if shutil.which("gcc") is None:
        return "no gcc"
    program = work / f"empty-{check.sanitizer}"
    command = ["gcc", f"-fsanitize={check.sanitizer}", "-x", "c", "-", "-o", str(program)]
    made = subprocess.run(
        command, input="int main(void){return 0;}", capture_output=True, text=True
    )
    if made.returncode != 0:
        return f"gcc has no {check.sanitizer} sanitizer: {made.stderr.strip().splitlines()[-1]}"
    done = subprocess.run([str(program)], capture_output=True, text=True)
    if done.returncode != 0:
        return f"an empty program does not run with it: {done.stderr.strip()[:200]}"
    return None


def build(check: Check, work: Path) -> Path:
    """Compile and link the program of a check."""
    program, tree = work / check.name, native_build.ROOT / "mojo"
    options = ["--sanitize", check.sanitizer, "-g1", "--target-cpu", CPU, *native_build.OPTIONS]
    options += native_build.SPACES[check.spaces]
    compiled = native_build.compile_object(FOLDER / f"{check.name}.mojo", options, [tree])
    main = str(FOLDER / f"{check.name}.c")
    flags = ["-O1", f"-fsanitize={check.sanitizer}"]
    subprocess.run(["gcc", *flags, main, str(compiled), "-lm", "-o", str(program)], check=True)
    return program


def run(program: Path, check: Check, arguments: list[str]) -> tuple[bool, str]:
    """Run a program; return whether it ended well, and what it printed."""
    file = str(program.with_suffix(".vicinal"))
    done = subprocess.run(
        [str(program), *(file if word == "FILE" else word for word in arguments)],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        env={**os.environ, **check.environment},
    )
    return done.returncode == 0, done.stdout + done.stderr


def do(check: Check, work: Path) -> str | None:
    """Do one check; return what is wrong, or None."""
    reason = why_not(check, work)
    if reason is not None:
        print(f"{check.sanitizer} sanitizer: skipped, {reason}", flush=True)
        return None
    start = time.perf_counter()
    try:
        program = build(check, work)
        right, text = run(program, check, check.runs)
        if not right:
            return text
        right, text = run(program, check, check.mistake)
        if right or check.says not in text:
            return f"the deliberate mistake {check.mistake[-1]!r} was not reported\n{text}"
    except (native_build.BuildError, subprocess.SubprocessError) as error:
        return str(error)
    seconds = time.perf_counter() - start
    print(f"{check.sanitizer} sanitizer: nothing found ({seconds:.0f} s)", flush=True)
    return None


def main() -> int:
    """Do all checks, side by side."""
    with (
        tempfile.TemporaryDirectory(prefix="vicinal-sanitize-") as folder,
        ThreadPoolExecutor(max_workers=len(CHECKS)) as pool,
    ):
        wrong = list(pool.map(lambda check: do(check, Path(folder)), CHECKS))
    for check, text in zip(CHECKS, wrong, strict=True):
        if text is not None:
            print(f"{check.sanitizer} sanitizer: FAILED\n{text}")
    return 1 if any(text is not None for text in wrong) else 0


if __name__ == "__main__":
    sys.exit(main())
