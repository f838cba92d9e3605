"""The README's examples print what it says, and what it points to is there."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

README = Path(__file__).resolve().parents[2] / "README.md"


def test_examples() -> None:
    result = doctest.testfile(str(README), module_relative=False)
    assert result.attempted > 15
    assert result.failed == 0


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", README.read_text(encoding="utf-8"))
    assert targets
    missing = [target for target in targets if not (README.parent / target).exists()]
    assert not missing
