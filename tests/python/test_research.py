"""bench/research.py: its interpolation and table, and a run with this library alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import vicinal

BENCH = Path(__file__).resolve().parents[2] / "bench"
sys.path.insert(0, str(BENCH))

import research  # noqa: E402  (a script of the folder bench)


def test_interpolation() -> None:
    curve = [(0.8, 10.0), (0.9, 20.0), (0.99, 80.0)]
    assert research.at_recall(curve, 0.9) == pytest.approx(20)
    assert research.at_recall(curve, 0.99) == pytest.approx(80)
    # halfway in the logarithm of what is missing, halfway in that of the time
    assert research.at_recall(curve, 1.0001 - (0.1001 * 0.0101) ** 0.5) == pytest.approx(40)
    assert research.at_recall(curve, 0.5) == 10
    assert research.at_recall(curve, 0.999) is None


def test_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    about = {"kind": "search", "data": "some", "rows": 0, "k": 10, "width": 10}
    lines = [
        {**about, "index": name, "recall": recall, "us": [us * 0.9, us, us * 1.1]}
        for name, times in (("vicinal", 1.0), ("symqg", 3.0), ("glass", 2.0))
        for recall, us in ((0.9, 10 * times), (0.95, 20 * times), (0.99, 40 * times))
    ]
    path = tmp_path / "r.jsonl"
    path.write_text("\n".join(map(json.dumps, [{"kind": "build"}, *lines])))
    research.table(path)
    said = capsys.readouterr().out
    assert (
        "| some | all | 10 | vicinal | 100,000 (2.00x) | 50,000 (2.00x) | 25,000 (2.00x) | - |"
        in said
    )
    assert "| symqg | 33,333 (0.67x) |" in said and "Median spread 20%" in said


def test_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "r.jsonl"
    monkeypatch.setenv("PYTHONPATH", str(Path(vicinal.__file__).parents[1]))
    arguments = ["--data", "minilm-4k", "--rows", "2000", "--indexes", "vicinal", "vicinal-one"]
    arguments += ["--k", "10", "--queries", "50", "--rounds", "1", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["research.py", *arguments])
    research.main()
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert [r["index"] for r in records if r["kind"] == "build"] == ["vicinal", "vicinal-one"]
    found = {
        name: [r for r in records if r["index"] == name and r["kind"] == "search"]
        for name in ("vicinal", "vicinal-one")
    }
    for one, other in zip(found["vicinal"], found["vicinal-one"], strict=True):
        assert one["recall"] == other["recall"] and one["us"][0] > 0
    assert found["vicinal"][-1]["recall"] > 0.99
