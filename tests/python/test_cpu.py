"""Choice of the CPU level: the table, the rule, the messages."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

import vicinal
from vicinal import _cpu, _levels

ROOT = Path(__file__).resolve().parent.parent.parent
V2, V3, V4 = (_levels.LEVELS[name].flags for name in ("v2", "v3", "v4"))
ALL = ("v4", "v3", "v2")
NEON, DOTPROD = (_levels.LEVELS[name].flags for name in ("neon", "dotprod"))
ARM = ("dotprod", "neon")


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.parametrize(
    ("wanted", "installed", "machine", "flags", "expected"),
    [
        (None, ALL, "x86_64", V4, "v4"),
        ("", ALL, "x86_64", V4, "v4"),
        (None, ALL, "x86_64", V4 - {"avx512vbmi"}, "v3"),
        (None, ALL, "x86_64", V3, "v3"),
        (None, ALL, "x86_64", V3 - {"fma"}, "v2"),
        (None, ("v4", "v2"), "x86_64", V3, "v2"),
        (None, ARM, "aarch64", DOTPROD, "dotprod"),
        (None, ARM, "aarch64", DOTPROD - {"asimddp"}, "neon"),
        (None, ARM, "aarch64", DOTPROD - {"crc32"}, "neon"),
        (None, ARM, "aarch64", NEON, "neon"),
        (None, ARM, "aarch64", frozenset(), "neon"),
        ("neon", ARM, "aarch64", DOTPROD, "neon"),
        (None, (*ALL, *ARM), "aarch64", NEON, "neon"),
        ("v2", ALL, "x86_64", V4, "v2"),
        # flags unknown: the lowest by default, what was asked for if anything was
        (None, ALL, "x86_64", frozenset(), "v2"),
        ("v3", ALL, "x86_64", frozenset(), "v3"),
    ],
)
def test_choice(wanted, installed, machine, flags, expected):
    assert _cpu.choose(wanted, installed, machine, frozenset(flags)) == expected


@pytest.mark.parametrize(
    ("wanted", "installed", "machine", "flags", "message"),
    [
        (
            "v9",
            ALL,
            "x86_64",
            V4,
            "VICINAL_CPU='v9': expected one of v4, v3, v2, dotprod, neon; "
            "available here: v4, v3, v2",
        ),
        (
            "v4",
            ("v3", "v2"),
            "x86_64",
            V4,
            "VICINAL_CPU='v4': that level is not in this installation; available here: v3, v2",
        ),
        (
            "v4",
            ALL,
            "x86_64",
            V4 - {"avx512vbmi", "avx512_vnni"},
            "VICINAL_CPU='v4': this CPU lacks avx512_vnni, avx512vbmi; available here: v3, v2",
        ),
        (
            "dotprod",
            ARM,
            "aarch64",
            NEON | {"crc32"},
            "VICINAL_CPU='dotprod': this CPU lacks asimddp, atomics; available here: neon",
        ),
        (
            "neon",
            (*ALL, "neon"),
            "x86_64",
            V3,
            "VICINAL_CPU='neon': that level is for aarch64, this CPU is x86_64; "
            "available here: v3, v2",
        ),
        (
            None,
            ("neon",),
            "x86_64",
            V4,
            "this x86_64 CPU: installed levels are neon, of which it runs none",
        ),
        (
            None,
            (),
            "riscv64",
            frozenset(),
            "no native module for this riscv64 CPU: installed levels are none",
        ),
    ],
)
def test_refusal(wanted, installed, machine, flags, message):
    with pytest.raises(ImportError) as caught:
        _cpu.choose(wanted, installed, machine, frozenset(flags))
    assert message in str(caught.value)


def proc(folder: Path, cpuinfo: str, auxv: bytes | None = None) -> str:
    """Make a folder like /proc."""
    (folder / "self").mkdir(parents=True)
    (folder / "cpuinfo").write_text(cpuinfo)
    if auxv is not None:
        (folder / "self" / "auxv").write_bytes(auxv)
    return str(folder)


def test_flags_of_both_spellings(tmp_path):
    x86 = proc(tmp_path / "x86", "processor\t: 0\nflags\t\t: fpu sse4_2 avx2\n\nflags\t\t: none\n")
    arm = proc(tmp_path / "arm", "processor\t: 0\nFeatures\t: fp asimd evtstrm\n")
    other = proc(tmp_path / "other", "cpu\t: unknown\n")
    assert _levels.cpu_flags("x86_64", x86) == {"fpu", "sse4_2", "avx2"}
    assert _levels.cpu_flags("aarch64", arm) == {"fp", "asimd", "evtstrm"}
    assert _levels.cpu_flags("x86_64", other) == frozenset()
    assert _levels.cpu_flags("aarch64", other) == frozenset()
    assert _levels.cpu_flags("x86_64", str(tmp_path / "missing")) == frozenset()
    assert _levels.cpu_flags("aarch64", str(tmp_path / "missing")) == frozenset()


def test_arm_flags_are_those_of_the_kernel(tmp_path):
    def vector(*pairs: tuple[int, int]) -> bytes:
        return b"".join(struct.pack("=QQ", *pair) for pair in pairs)

    # An emulator may show the text of the machine below it.
    text = "flags\t\t: fpu sse4_2 avx2\n"
    new = proc(tmp_path / "new", text, vector((6, 4096), (16, 0x10FFFF), (0, 0)))
    old = proc(tmp_path / "old", text, vector((16, 0x3), (0, 0)))
    assert _levels.cpu_flags("aarch64", new) >= DOTPROD
    assert _levels.cpu_flags("aarch64", old) == NEON
    assert _levels.cpu_flags("x86_64", new) == {"fpu", "sse4_2", "avx2"}
    for number, broken in enumerate([b"", b"torn", vector((6, 4096))]):
        folder = proc(tmp_path / str(number), "Features\t: fp asimd\n", broken)
        assert _levels.cpu_flags("aarch64", folder) == NEON


def test_every_arm_flag_of_a_level_has_a_bit():
    assert set(_levels._HWCAP) == NEON | DOTPROD


def test_levels_contain_each_other():
    assert V2 < V3 < V4
    assert _levels.levels_of("x86_64") == ALL
    assert NEON < DOTPROD
    assert _levels.levels_of("aarch64") == ARM
    assert _levels.levels_of("riscv64") == ()


@pytest.mark.parametrize("name", _levels.LEVELS)
def test_level_folder_is_ignored_and_cleaned(name):
    assert f"/python/vicinal/_{name}/\n" in (ROOT / ".gitignore").read_text()
    assert f"python/vicinal/_{name}" in (ROOT / "Makefile").read_text()


@pytest.mark.parametrize("name", vicinal.build_info()["available"])
def test_variable_chooses_every_available_level(name):
    done = run("import json, vicinal; print(json.dumps(vicinal.build_info()))", VICINAL_CPU=name)
    assert done.returncode == 0, done.stderr
    info = json.loads(done.stdout)
    assert (info["level"], info["chosen_by"]) == (name, "VICINAL_CPU")
    assert info["lanes"] == {"v4": 16, "v3": 8}.get(name, 4)


def test_variable_with_a_wrong_level_names_itself():
    done = run("import vicinal", VICINAL_CPU="sse")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: vicinal: VICINAL_CPU='sse': expected one of ")
    assert "available here: " in last


def test_build_info():
    info = vicinal.build_info()
    assert info["version"] == vicinal.__version__
    assert info["level"] in info["available"]
    assert set(info["available"]) <= set(info["installed"])
    assert info["machine"] in {"x86_64", "aarch64"}
    assert set(info["cpu_flags"]) == _levels.LEVELS[info["level"]].flags
    assert info["target"] == " ".join(_levels.LEVELS[info["level"]].target)
    assert os.sep not in json.dumps(info), "no path of any machine"
