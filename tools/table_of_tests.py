"""Write docs/design/tests.md: which tests import which module of the Mojo library.

    python tools/table_of_tests.py           # write it
    python tools/table_of_tests.py --check   # exit status 1 if it is not up to date

Tests in Python reach the library through the bindings only: a module that no test in Mojo imports
is shown with the modules that lead to it.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = ROOT / "mojo" / "vicinal"
BINDINGS = ROOT / "mojo" / "bindings"
TESTS = ROOT / "tests" / "mojo"
TARGET = ROOT / "docs" / "design" / "tests.md"
IMPORT = re.compile(r"^from ((?:vicinal|bindings)[\w.]*) import ", re.MULTILINE)
HEAD = """# Modules and their tests

Made by `tools/table_of_tests.py` (`make format`); a test compares. Tests in Mojo run with all
assertions on and import what they test. Everything is tested through the Python API as well
(`tests/python`, whose files are named after what they promise); a module without a test of its own
is shown with the modules through which it is reached.

| module | tests in Mojo |
|---|---|
"""


def imports(path: Path) -> set[str]:
    """Return the modules of the library and the bindings that a file imports."""
    return set(IMPORT.findall(path.read_text(encoding="utf-8")))


def name_of(path: Path) -> str:
    """Return the name under which a file is imported."""
    return ".".join(path.relative_to(LIBRARY.parent).with_suffix("").parts)


def table() -> str:
    """Return the text of docs/design/tests.md."""
    modules = {
        name_of(path): path for path in sorted(LIBRARY.rglob("*.mojo")) if path.stem != "__init__"
    }
    users = {
        name_of(path): imports(path)
        for folder in (LIBRARY, BINDINGS)
        for path in sorted(folder.rglob("*.mojo"))
    }
    tests = {path.stem: imports(path) for path in sorted(TESTS.rglob("*.mojo"))}
    lines = []
    for module in modules:
        direct = [f"`{test}`" for test, used in tests.items() if module in used]
        through = sorted(user.split(".", 1)[1] for user, used in users.items() if module in used)
        told = ", ".join(direct) if direct else f"through {', '.join(through) or 'nothing'}"
        lines.append(f"| `{module.removeprefix('vicinal.')}` | {told} |\n")
    return HEAD + "".join(lines)


def main() -> int:
    """Write the table, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    text = table()
    if parser.parse_args().check:
        current = TARGET.read_text(encoding="utf-8") if TARGET.exists() else ""
        if current != text:
            print(f"{TARGET.relative_to(ROOT)} is not up to date: run make format")
        return int(current != text)
    TARGET.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
