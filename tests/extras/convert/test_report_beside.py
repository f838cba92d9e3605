"""The page about an index, with other libraries beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import vicinal
from vicinal.report import PEERS, measure, page


@pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
def test_every_library_finds_what_there_is(metric: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    index = vicinal.Index(16, metric)
    index.add(rng.normal(size=(2000, 16)) + 0.5, ids=rng.permutation(10**6)[:2000])
    index.save(tmp_path / "x")
    queries = rng.normal(size=(30, 16)) + 0.5
    told = measure(tmp_path / "x", queries, widths=(20, 200), sample=30, against=tuple(PEERS))
    names = [each["name"] for each in told["beside"]]
    assert names == ["vicinal", *PEERS, "brute force"]
    for each in told["beside"][:-1]:
        assert [point["ef_search"] for point in each["curve"]] == [20, 64, 200]
        assert each["curve"][-1]["recall"] > 0.9, each["name"]
        assert each["build"] > 0 and each["version"]
    assert told["beside"][-1]["curve"][0]["recall"] == 1
    text = page(told)
    for title in ("Latency", "Throughput", "Recall", "Speed against recall", "Time to build"):
        assert f"<h3>{title}</h3>" in text
    assert text.count("hnswlib") > 7


def test_bits_have_no_such_libraries(tmp_path: Path) -> None:
    index = vicinal.Index(16, "hamming", dtype="b1")
    index.add(np.zeros((5, 2), np.uint8))
    index.save(tmp_path / "x")
    with pytest.raises(ValueError, match="against: expected an index of l2, ip or cosine"):
        measure(tmp_path / "x", against=["faiss"])
