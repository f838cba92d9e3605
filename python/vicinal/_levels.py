"""CPU levels that the native code is compiled for.

One table serves the build (compiler arguments) and the import (CPU flags needed), so that a level
cannot be built for one instruction set and chosen for another. Standard library only: the build
tool loads this file by its path, before the package exists.
"""

from __future__ import annotations

import platform
import struct
from typing import NamedTuple

__all__ = ["LEVELS", "Level", "cpu_flags", "levels_of", "machine_name", "runs_on"]


class Level(NamedTuple):
    """One instruction set.

    Attributes
    ----------
    name : str
        Name of the level; `_<name>/_native.so` is its native module.
    machine : str
        Architecture as `platform.machine` spells it on Linux.
    target : tuple of str
        Arguments of the compiler.
    flags : frozenset of str
        Names in /proc/cpuinfo ("flags", on Arm "Features") that the CPU must show.
    """

    name: str
    machine: str
    target: tuple[str, ...]
    flags: frozenset[str]


_V2 = frozenset({"cx16", "lahf_lm", "popcnt", "pni", "ssse3", "sse4_1", "sse4_2"})
_V3 = _V2 | {"abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"}
# x86-64-v4 has none of the last three; without them AVX-512 gains little over v3 here.
_V4_EXTRA = ("avx512vnni", "avx512vpopcntdq", "avx512vbmi")
_V4 = _V3 | {
    *("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"),
    *("avx512_vnni", "avx512_vpopcntdq", "avx512vbmi"),
}
# Every aarch64. CPUs with dot products have checksums and atomics in one instruction as well:
# Cortex-A76, Neoverse N1, Apple M1 and all later ones. Products of unlike signs (i8mm) would gain
# nothing, see kernels/products.mojo.
_NEON = frozenset({"fp", "asimd"})

# Bits of the word AT_HWCAP of the auxiliary vector, by their names in /proc/cpuinfo (Linux,
# "ARM64 ELF hwcaps"): those that the levels ask for.
_AT_HWCAP = 16
_HWCAP = {"fp": 0, "asimd": 1, "crc32": 7, "atomics": 8, "asimddp": 20}

LEVELS: dict[str, Level] = {
    level.name: level
    for level in (  # best first within one machine
        Level(
            "v4",
            "x86_64",
            (
                *("--target-triple", "x86_64-unknown-linux-gnu", "--target-cpu", "x86-64-v4"),
                *("--target-features", ",".join(f"+{name}" for name in _V4_EXTRA)),
            ),
            _V4,
        ),
        Level(
            "v3",
            "x86_64",
            ("--target-triple", "x86_64-unknown-linux-gnu", "--target-cpu", "x86-64-v3"),
            _V3,
        ),
        Level(
            "v2",
            "x86_64",
            ("--target-triple", "x86_64-unknown-linux-gnu", "--target-cpu", "x86-64-v2"),
            _V2,
        ),
        Level(
            "dotprod",
            "aarch64",
            (
                *("--target-triple", "aarch64-unknown-linux-gnu", "--target-cpu", "generic"),
                *("--target-features", "+dotprod,+crc,+lse"),
            ),
            _NEON | {"asimddp", "atomics", "crc32"},
        ),
        Level(
            "neon",
            "aarch64",
            ("--target-triple", "aarch64-unknown-linux-gnu", "--target-cpu", "generic"),
            _NEON,
        ),
    )
}


def machine_name() -> str:
    """Return the architecture of this machine as the table above spells it."""
    name = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(name, name)


def levels_of(machine: str) -> tuple[str, ...]:
    """Return the names of a machine's levels, best first; empty for an unknown machine."""
    return tuple(level.name for level in LEVELS.values() if level.machine == machine)


def cpu_flags(machine: str | None = None, proc: str = "/proc") -> frozenset[str]:
    """Return the flags of this CPU, or an empty set where they cannot be read.

    On Arm they are what the kernel tells each process: unlike the text of /proc/cpuinfo they are
    right under an emulator too, and hold for all cores of a mixed set.
    """
    if (machine or machine_name()) == "aarch64":
        try:
            with open(f"{proc}/self/auxv", "rb") as file:
                pairs = dict(struct.iter_unpack("=QQ", file.read()))
            word = pairs[_AT_HWCAP]
            return frozenset(name for name, bit in _HWCAP.items() if word >> bit & 1)
        except (OSError, KeyError, struct.error):
            pass  # the text will do
    try:
        with open(f"{proc}/cpuinfo", encoding="utf-8", errors="replace") as lines:
            # Stops at the first CPU: on machines with many cores the whole file is slow to make.
            for line in lines:
                name, _, value = line.partition(":")
                if name.strip() in ("flags", "Features"):
                    return frozenset(value.split())
    except OSError:
        pass
    return frozenset()


def runs_on(level: Level, machine: str, flags: frozenset[str]) -> bool:
    """Tell whether a CPU with these flags can run `level`.

    Where no flags are known, only the lowest level of the machine is taken to run.
    """
    if level.machine != machine:
        return False
    return level.flags <= flags if flags else level.name == levels_of(machine)[-1]
