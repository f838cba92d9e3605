"""Short runs of `make endurance`; VICINAL_ENDURANCE_CHANGES makes them longer."""

from __future__ import annotations

import os

import pytest

from endurance import Limit, mixed_run, turnovers

CHANGES = int(os.environ.get("VICINAL_ENDURANCE_CHANGES", "100"))


@pytest.mark.parametrize(("metric", "dtype"), [("l2", "uint8"), ("ip", "float32")])
def test_changes_saves_and_searches_side_by_side(metric: str, dtype: str) -> None:
    print(mixed_run(metric, dtype, 24, Limit(changes=CHANGES)))


def test_memory_is_flat_over_turnovers() -> None:
    used = turnovers(6, rows=1500)
    assert used[-1] - used[1] < 2048, f"KiB in use after each turnover: {used}"
