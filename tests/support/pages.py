"""Pages whose examples need an extra: they stand in "pycon" blocks, which the core does not run."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guide"


def run_examples(page: str) -> int:
    """Run the "pycon" blocks of a page of the guide as one session; return how many there were."""
    text = (GUIDE / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```pycon\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    test = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, page, page, 0)
    runner = doctest.DocTestRunner()
    runner.run(test)
    assert runner.summarize(verbose=False).failed == 0, page
    return len(blocks)
