"""Short runs of `make endurance`; VICINAL_ENDURANCE_SECONDS makes them longer."""

from __future__ import annotations

import os

import pytest

from endurance import mixed_run, turnovers

SECONDS = float(os.environ.get("VICINAL_ENDURANCE_SECONDS", "2"))


@pytest.mark.parametrize(("metric", "dtype"), [("l2", "uint8"), ("ip", "float32")])
def test_changes_saves_and_searches_side_by_side(metric: str, dtype: str) -> None:
    print(mixed_run(metric, dtype, 24, SECONDS))


def test_memory_is_flat_over_turnovers() -> None:
    used = turnovers(6, rows=1500)
    assert used[-1] - used[1] < 2048, f"KiB in use after each turnover: {used}"
