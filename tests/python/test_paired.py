"""The paired measurement of two trees: its statistics, and one small run from end to end."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vicinal

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

import paired

INSTALLED = Path(vicinal.__file__).parent.parent


@pytest.mark.parametrize("sessions", [5, 12, 30])
@pytest.mark.parametrize("outliers", [0.0, 0.1])
def test_intervals_hold_the_ratio_as_often_as_they_say(sessions: int, outliers: float) -> None:
    rng = np.random.default_rng(sessions)
    held = 0
    for _ in range(400):
        logs = math.log(1.03) + 0.01 * rng.standard_normal(sessions)
        logs += rng.choice([0, 0.3, -0.3], sessions, p=[1 - outliers, outliers / 2, outliers / 2])
        _, low, high = paired.interval(np.exp(logs).tolist())
        held += low <= 1.03 <= high
    assert 0.90 <= held / 400 <= 0.995


def records(ratio: float, noise: float, sessions: int = 30) -> list[dict[str, Any]]:
    """Sessions whose rounds slow down and speed up together by a half."""
    rng = np.random.default_rng(1)
    made = []
    for number in range(sessions):
        common = 1 + 0.5 * rng.random(6)
        own = [1 + noise * rng.standard_normal(6) for _ in range(2)]
        made.append(
            {
                "data": "set",
                "task": "one",
                "session": number,
                "same": True,
                "base": (common * own[0]).tolist(),
                "new": (ratio * common * own[1]).tolist(),
            }
        )
    return made


@pytest.mark.parametrize(
    ("ratio", "noise", "verdict"),
    [
        (1.00, 0.01, "not slower"),
        (1.01, 0.01, "not slower"),
        (1.04, 0.01, "slower"),
        (0.97, 0.01, "faster"),
        (1.02, 0.05, "unclear"),
    ],
)
def test_a_few_per_cent_are_told_apart(ratio: float, noise: float, verdict: str) -> None:
    told = paired.summary(records(ratio, noise), 0.02)
    assert told["verdict"] == verdict
    assert told["low"] <= told["ratio"] <= told["high"]
    assert abs(told["ratio"] - ratio) < 4 * noise / math.sqrt(30)


def test_one_session_has_no_interval() -> None:
    told = paired.summary(records(1.5, 0.0, sessions=1), 0.02)
    assert (told["low"], told["high"], told["verdict"]) == (0.0, math.inf, "unclear")


def test_a_run_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "pairs.jsonl"
    small = ["--rows", "1200", "--queries", "30", "--ef-construction", "20", "--M", "6"]
    small += ["--sessions", "2", "--rounds", "2", "--data", "sift-ngt-5k", "--out", str(out)]
    paired.main([str(INSTALLED), str(INSTALLED), *small])
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    kinds = [line["kind"] for line in lines]
    assert kinds == ["run"] + ["session"] * 2 * len(paired.TASKS) + ["pair"] * len(paired.TASKS)
    assert lines[0]["cores"] > 0 and lines[0]["rows"] == 1200
    for line in lines:
        if line["kind"] == "session":
            assert line["same"] and len(line["base"]) == len(line["new"]) > 0
            assert min(line["base"] + line["new"]) > 0
    assert [line["task"] for line in lines[-len(paired.TASKS) :]] == list(paired.TASKS)
    printed = capsys.readouterr().out
    assert all(f"| {task} |" in printed for task in paired.TASKS)


def test_what_is_no_tree_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        paired.main([str(INSTALLED), str(tmp_path)])
    assert "expected a folder with the package vicinal" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        paired.main([str(INSTALLED), str(INSTALLED), "--tasks", "one,two"])
    assert "--tasks: expected some of batch, one, call" in capsys.readouterr().err
