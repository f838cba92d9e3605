"""vicinal.estimate: against indexes that are built, measured and saved."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vicinal


@pytest.mark.parametrize(
    ("rows", "dim", "metric", "dtype", "M", "quantization"),
    [
        (10_000, 128, "l2", "float32", 16, "auto"),
        (4_000, 100, "cosine", "float16", 16, None),
        (4_000, 100, "ip", "float32", 24, "sq8"),
        (4_000, 40, "l2", "float32", 5, "auto"),
        (4_000, 100, "l2", "uint8", 16, "auto"),
        (4_000, 30, "ip", "int8", 16, "auto"),
        (4_000, 100, "cosine", "int8", 16, "auto"),
        (3_000, 700, "cosine", "bfloat16", 40, "auto"),
        (900, 100, "l2", "float32", 16, "auto"),
    ],
)
def test_against_an_index(
    tmp_path: Path, rows: int, dim: int, metric: str, dtype: str, M: int, quantization: Any
) -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((rows, dim)).astype(np.float32)
    if dtype in ("int8", "uint8"):
        values = rng.integers(1, 100, (rows, dim)).astype(dtype)
    options: Any = {"dtype": dtype, "M": M, "quantization": quantization, "ef_construction": 10}
    told = vicinal.estimate(rows, dim, metric, **options)
    index = vicinal.Index(dim, metric, **options)
    index.add(values)
    held = index.memory_usage()
    assert told.quantization == index.stats()["quantization"]
    assert told.bytes == told.vectors + told.ids + told.graph + told.codes + told.scratch
    assert told.vectors == pytest.approx(held["vectors"], rel=0.03)
    assert told.ids == pytest.approx(held["ids"], rel=0.03)
    assert told.graph == pytest.approx(held["graph"], rel=0.05)
    assert told.codes == pytest.approx(held["codes"], rel=0.03)
    without = held["total"] - held["scratch"]  # which is different with every number of threads
    assert told.bytes - told.scratch == pytest.approx(without, rel=0.03)
    index.save(tmp_path / "a")
    assert told.file == pytest.approx((tmp_path / "a").stat().st_size, rel=0.04)
    assert told.resident <= told.file


@pytest.mark.full_build
@pytest.mark.parametrize(
    ("rows", "dim", "metric", "options"),
    [
        (4_000, 100, "l2", {"keep_vectors": False}),
        (4_000, 70, "ip", {"keep_vectors": False, "quantization": "sq4"}),
        (500, 70, "cosine", {"keep_vectors": False}),
        (4_000, 300, "cosine", {"walk_dim": 100}),
        (4_000, 300, "l2", {"walk_dim": 40}),
        (4_000, 300, "ip", {"walk_dim": 40, "quantization": "rabitq4"}),
        (500, 300, "ip", {"walk_dim": 40}),
    ],
)
def test_codes_alone_and_of_the_first_values(
    tmp_path: Path, rows: int, dim: int, metric: str, options: Any
) -> None:
    told = vicinal.estimate(rows, dim, metric, ef_construction=10, **options)
    index = vicinal.Index(dim, metric, ef_construction=10, **options)
    index.add(np.random.default_rng(0).standard_normal((rows, dim)).astype(np.float32))
    held = index.memory_usage()
    assert told.quantization == index.stats()["quantization"]
    assert told.keep_vectors == index.stats()["keep_vectors"]
    assert told.walk_dim == index.stats()["walk_dim"]
    assert told.vectors == pytest.approx(held["vectors"], rel=0.03)
    assert told.codes == pytest.approx(held["codes"], rel=0.03)
    without = held["total"] - held["scratch"]
    assert told.bytes - told.scratch == pytest.approx(without, rel=0.03)
    index.save(tmp_path / "a")
    assert told.file == pytest.approx((tmp_path / "a").stat().st_size, rel=0.04, abs=8192)


def test_what_it_says_of_parts() -> None:
    small, large = (vicinal.estimate(n, 384, "cosine") for n in (10_000, 10_000_000))
    assert large.bytes / small.bytes == pytest.approx(1000, rel=0.1)
    assert large.resident < large.file / 4
    half = vicinal.estimate(10_000_000, 384, "cosine", "float16")
    assert half.vectors == pytest.approx(large.vectors / 2, rel=0.01)
    none = vicinal.estimate(0, 384)
    assert none.bytes == none.graph == none.codes == 0 and none.quantization is None
    assert dataclasses.asdict(large)["rows"] == 10_000_000


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_build_time_is_measured(dtype: str) -> None:
    times = [
        vicinal.estimate(n, 8, "cosine", dtype, ef_construction=10).build_time()
        for n in (500, 100_000)
    ]
    for each in times:
        assert 0 < each.low <= each.seconds <= each.high
    assert times[1].high > times[1].low


def test_refused() -> None:
    with pytest.raises(ValueError, match="rows: expected a whole number from 0"):
        vicinal.estimate(-1, 3)
    with pytest.raises(ValueError, match="metric: expected"):
        vicinal.estimate(10, 3, "far")
    with pytest.raises(ValueError, match="quantization: expected"):
        vicinal.estimate(10, 3, "l2", "int8", quantization="sq8")
