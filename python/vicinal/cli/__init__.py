"""The command `vicinal`; the extra `cli` (click) is needed, and imported when it is called."""

from __future__ import annotations

import sys
from importlib.util import find_spec

__all__ = ["NEEDS_CLICK", "main"]

NEEDS_CLICK = (
    "vicinal: the command line needs click, which is not installed: pip install 'vicinal[cli]'\n"
    "`python -m vicinal doctor` works without it."
)


def main(arguments: list[str] | None = None, prog_name: str = "vicinal") -> None:
    """Run the command line and end the process; what the entry point calls."""
    if find_spec("click") is None:
        print(NEEDS_CLICK, file=sys.stderr)
        sys.exit(2)
    from vicinal.cli._commands import commands

    commands.main(arguments, prog_name=prog_name)
