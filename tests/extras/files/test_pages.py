"""What the pages on files and on the command line show is run, and comes out as they show it."""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

import vicinal
from vicinal.cli._commands import commands

GUIDE = Path(__file__).resolve().parents[3] / "docs" / "guide"


def blocks(page: str, kind: str) -> list[str]:
    text = (GUIDE / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{kind}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def sessions() -> list[str]:
    """Blocks of commands, but for those that need other libraries' files."""
    return [block for block in blocks("command-line.md", "console") if "old." not in block]


@pytest.mark.parametrize("session", sessions(), ids=["first", "benchmark"])
def test_sessions(session: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    with h5py.File(tmp_path / "set.hdf5", "w") as file:
        data = rng.random((3000, 32), "f4")
        file.attrs["distance"] = "euclidean"
        file["train"], file["test"] = data, data[:100]
        file["neighbors"] = vicinal.exact_search(data, data[:100], 10).ids
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    script = tmp_path / "bin" / "vicinal"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m vicinal "$@"\n')
    script.chmod(0o755)
    path = f"{tmp_path / 'bin'}:{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
    checker = doctest.OutputChecker()
    steps = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", session, re.MULTILINE)
    assert len(steps) > 1
    for command, wanted in steps:
        done = subprocess.run(
            command,
            shell=True,
            cwd=tmp_path,
            env={**os.environ, "PATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert checker.check_output(wanted, done.stdout, doctest.ELLIPSIS), (command, done.stdout)


def test_python_that_needs_extras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    vectors = np.random.default_rng(0).random((100, 8), "f4")
    names = {"vicinal": vicinal, "vectors": vectors, "index": vicinal.build(vectors)}
    (code,) = blocks("files.md", "py")
    exec(code, names)
    assert names["neighbours"].num_rows == 50
    assert names["table"].num_rows == len(names["again"]) == 100


def test_the_table_of_commands_is_that_of_the_command() -> None:
    text = (GUIDE / "command-line.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([\w-]+)` \| (.*) \|$", text, re.MULTILINE))
    told = {
        name: " ".join((command.help or "").split("\n\n")[0].split())
        for name, command in commands.commands.items()
    }
    assert rows == told
