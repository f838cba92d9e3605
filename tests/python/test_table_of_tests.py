"""docs/design/tests.md says which tests import which module."""

from __future__ import annotations

import re

import table_of_tests


def test_the_table_is_up_to_date():
    assert table_of_tests.TARGET.read_text() == table_of_tests.table(), "run make format"


def test_every_module_and_every_test_is_in_the_table():
    text = table_of_tests.table()
    listed = re.findall(r"^\| `([\w.]+)` \| (.+) \|$", text, re.MULTILINE)
    files = [path for path in table_of_tests.LIBRARY.rglob("*.mojo") if path.stem != "__init__"]
    assert len(listed) == len(files) > 40
    assert not [module for module, tests in listed if tests == "through nothing"], "never used"
    for path in table_of_tests.TESTS.rglob("test_*.mojo"):
        assert f"`{path.stem}`" in text, f"{path.name} imports no module of the library"
