"""Logging is silent unless asked for, and `metrics` has all numbers that an index tells."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vicinal

ROWS = np.random.default_rng(0).standard_normal((1500, 8), dtype=np.float32)


def used(tmp_path: Path) -> vicinal.Index:
    index = vicinal.Index(8)
    index.add(ROWS)
    index.remove([3, 4])
    index.update(ROWS[:2] + 1, [0, 1])
    index.tune(0.9, sample=50)
    index.save(tmp_path / "index.vicinal")
    index.compact()
    other = vicinal.Index(8)
    other.add(ROWS[:5], ids=[9001, 9002, 9003, 9004, 9005])
    index.merge(other)
    return vicinal.open(tmp_path / "index.vicinal", mode="copy")


def test_each_operation_is_logged(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    with caplog.at_level(logging.DEBUG, "vicinal"):
        index = used(tmp_path)
        with pytest.raises(KeyError):
            index.remove([12345])
        index.search(ROWS[:3], recall=0.9)
    texts = [record.getMessage() for record in caplog.records]
    names = [text.split(":")[0] for text in texts]
    operations = ["add", "remove", "update", "tune", "save", "compact", "add", "merge"]
    assert names == [*operations, "open_index", "remove"]
    assert texts[0].endswith(" s, 1500 rows in all") and texts[1].endswith(" s, 1498 rows in all")
    assert texts[-1] == "remove: KeyError"
    assert {record.levelno for record in caplog.records} == {logging.DEBUG}
    assert not any("9001" in text or "12345" in text for text in texts)  # never ids


def test_stale_tuning_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    index = vicinal.Index(8)
    index.add(ROWS[:600])
    index.tune(0.9, sample=20)
    index.search(ROWS[0], recall=0.9)
    assert not caplog.records
    index.tune(0.9, sample=20)  # forgets what searches have looked up
    index.add(ROWS[600:])
    index.search(ROWS[0], recall=0.9)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING and record.name == "vicinal"


def test_silent_and_without_logging_by_default() -> None:
    program = """
import sys
import numpy as np
import vicinal
listens = "logging" in sys.modules
index = vicinal.Index(4)
index.add(np.eye(4))
assert listens or "logging" not in sys.modules
import logging
index.add(np.eye(4) * 2)
vicinal._logging.log(30, "a warning")
assert [type(each) for each in logging.getLogger("vicinal").handlers] == [logging.NullHandler]
assert logging.getLogger("vicinal").level == logging.NOTSET
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_metrics_are_flat_numbers(tmp_path: Path) -> None:
    index = used(tmp_path)
    index.search(ROWS[:7], k=2, filter=np.arange(len(index)) % 2 == 0)
    numbers = vicinal.metrics(index)
    assert all(type(value) in (int, float) for value in numbers.values())
    assert json.loads(json.dumps(numbers)) == numbers
    assert all(name.replace("_", "").isalnum() and name.isascii() for name in numbers)
    told: dict[str, Any] = index.stats()
    for name in ("count", "dim", "M", "ef_search", "graph_rows", "removed", "format_version"):
        assert numbers[name] == told[name]
    assert numbers["tuned"] == 1 and numbers["read_only"] == 0 and numbers["graph_searched"] == 1
    filtered = {name: value for name, value in numbers.items() if name.startswith("filtered_")}
    assert filtered == {f"filtered_{name}": value for name, value in told["filtered"].items()}
    assert sum(filtered.values()) >= 7
    assert numbers["memory_total_bytes"] == index.memory_usage()["total"]
    assert numbers["search_queries"] == index.search_stats()["queries"] == 7
    assert {f"build_{name}_seconds" for name in index.build_stats()["seconds"]} <= set(numbers)
    assert numbers["build_rows"] == index.build_stats()["rows"]
    assert not {"metric", "dtype", "search", "quantization_reason"} & set(numbers)


def test_metrics_of_something_else() -> None:
    with pytest.raises(TypeError, match="index: expected an Index, got 5"):
        vicinal.metrics(5)  # type: ignore[arg-type]
