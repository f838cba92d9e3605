"""Writers that are killed at random moments: nothing flushed is lost, nothing is half there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from support import processes

KILLS = os.environ.get("VICINAL_LIVING_KILLS", "50")
SCRIPT = Path(__file__).parents[1] / "living_kills.py"


def test_killed_writers_beside_readers(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, tmp_path, "--kills", KILLS],
        capture_output=True,
        text=True,
        timeout=20 * processes.GUARD,
    )
    processes.assert_lived(done)
    told = json.loads(done.stdout)
    assert told["kills"] == int(KILLS) and told["by_fork"] == int(KILLS) // 2
    assert told["steps"] > 0
