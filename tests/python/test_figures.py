"""`make figures` measures what it says; what it measures is nobody's promise."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_figures(tmp_path):
    target = tmp_path / "figures.jsonl"
    command = [sys.executable, str(ROOT / "bench" / "figures.py"), "--json", str(target)]
    done = subprocess.run(
        [*command, "--rows", "1500", "--times", "2"], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    machine, *figures = map(json.loads, target.read_text().splitlines())
    assert machine["kind"] == "machine"
    mine = {record["name"]: record for record in figures if record["library"] == "vicinal"}
    assert set(mine) == {
        *("import", "open", "open a copy", "save", "one call, one row", "one search, ef 16"),
    }
    for record in mine.values():
        assert len(record["values"]) == 2
        assert record["low"] <= record["median"] <= record["high"]
        assert record["name"] in done.stdout
