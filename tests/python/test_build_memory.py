"""Adding takes little more memory than the index it makes: docs/measurements/building.md."""

from __future__ import annotations

import textwrap

import pytest

from support.memory import IN_USE
from support.processes import printed

CODE = """
    import sys
    import numpy as np
    import vicinal

    dtype, metric, quantization, parts, threads = sys.argv[1:]
    kind = {"dtype": dtype, "M": 8, "ef_construction": 20}
    kind["quantization"] = None if quantization == "None" else quantization
    rng = np.random.default_rng(0)
    rows = rng.integers(1, 100, (30_000, 64), np.uint8).astype(dtype)
    if metric == "cosine":
        rows += rng.random(rows.shape, np.float32).astype(dtype)
    small = vicinal.Index(64, metric, **kind)
    small.add(rows[:1500], num_threads=int(threads))
    before = in_use("VmRSS")
    index = vicinal.Index(64, metric, **kind)
    for part in np.array_split(rows, int(parts)):
        index.add(part, num_threads=int(threads))
    # what was in use at most earlier only makes the growth look larger
    print((in_use("VmHWM") - before) / index.memory_usage()["total"])
"""


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize(
    ("dtype", "metric", "quantization"),
    [
        ("float32", "l2", "auto"),
        ("float32", "l2", "None"),
        ("float32", "cosine", "rabitq4"),
        ("float32", "ip", "sq8"),
        ("float16", "l2", "auto"),
        ("uint8", "l2", "auto"),
    ],
)
def test_peak(dtype: str, metric: str, quantization: str, parts: int, threads: int) -> None:
    arguments = [dtype, metric, quantization, str(parts), str(threads)]
    growth = float(printed(IN_USE + textwrap.dedent(CODE), *arguments))
    # the margin is for another allocator; a second copy of the rows would be over it
    assert 0.4 < growth < 1.4
