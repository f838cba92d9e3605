"""The documentation site: built without a warning, no link leads nowhere, no name is missing."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path

import pytest
import yaml  # comes with myst-parser

import vicinal

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tools"))

from build_site import Page, build, problems  # noqa: E402


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    assert build(folder) == 0  # warnings are errors
    return folder


def test_no_link_leads_nowhere_and_nothing_is_loaded(site: Path) -> None:
    assert problems(site) == []
    assert (site / "index.html").is_file()
    assert len(list((site / "docs" / "guide").glob("*.html"))) > 25


def test_every_page_of_the_documentation_is_there(site: Path) -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        assert (site / page.relative_to(ROOT).with_suffix(".html")).is_file(), page


def test_every_public_name_is_documented(site: Path) -> None:
    anchors: set[str] = set()
    for path in (site / "docs" / "api").glob("*.html"):
        anchors |= Page(path.read_text(encoding="utf-8")).anchors
    named = {f"vicinal.{name}" for name in vicinal.__all__ if not name.startswith("_")}
    assert named - anchors == set()
    methods = {f"vicinal.Index.{name}" for name in dir(vicinal.Index) if not name.startswith("_")}
    assert methods - anchors == set()
    methods = {f"vicinal.Collection.{n}" for n in vars(vicinal.Collection) if n[0] != "_"}
    assert methods - anchors == set()


def test_the_signature_that_is_written_out_is_that_of_the_method() -> None:
    page = (ROOT / "docs" / "api" / "index.md").read_text(encoding="utf-8")
    (written,) = re.findall(r"automethod:: Index\.search\((.*)\)", page)
    names = [each.partition("=")[0] for each in written.split(", ") if each != "*"]
    actual = list(inspect.signature(vicinal.Index.search).parameters)
    assert set(names) <= set(actual)
    # those of the form without queries
    assert set(actual) - set(names) == {"self", "like", "unlike"}


def test_the_recipe_can_be_read() -> None:
    recipe = yaml.safe_load((ROOT / "conda" / "recipe.yaml").read_text(encoding="utf-8"))
    assert recipe["schema_version"] == 1 and recipe["package"]["name"] == "vicinal"
    assert "noarch" not in recipe["build"]  # the native code is compiled for a platform
    assert set(recipe) == {
        "about", "build", "context", "package", "requirements", "schema_version", "source", "tests"
    }  # fmt: skip


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "b.html").write_text('<p id="here">text</p>')
    (tmp_path / "a.html").write_text(
        '<a href="b.html#here">fine</a><a href="c.html">gone</a><a href="b.html#there">no</a>'
        '<a href="https://example.org">elsewhere</a><script src="https://example.org/x.js"></script>'
        '<a href="#top">no such place</a>'
    )
    wrong = problems(tmp_path)
    assert [line.partition(" ")[2] for line in wrong] == [
        "loads https://example.org/x.js",
        "leads to c.html, which is not there",
        "leads to b.html#there, where there is no such place",
        "leads to #top, where there is no such place",
    ]
