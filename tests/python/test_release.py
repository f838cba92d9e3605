"""What a release is made of agrees with itself: the recipe for conda, changes, pages, checks."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

import vicinal
from check_release import glibc, verdict

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
RECIPE = (ROOT / "conda" / "recipe.yaml").read_text(encoding="utf-8")


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_recipe_is_that_of_the_project() -> None:
    assert f'version: "{vicinal.__version__}"' in RECIPE
    project = PROJECT["project"]
    for wanted in (
        f'summary: "{project["description"]}"',
        f"license: {project['license']}",
        f"- python {project['requires-python']}",
        "- " + project["dependencies"][0].replace(">=", " >="),
        "- vicinal = " + project["scripts"]["vicinal"],
    ):
        assert wanted in RECIPE
    hatchling, compiler = PROJECT["build-system"]["requires"]
    assert "- " + hatchling.replace(">=", " >=") in RECIPE
    assert f"pip install {compiler}\n" in RECIPE
    (click,) = (
        line for line in project["optional-dependencies"]["cli"] if line.startswith("click")
    )
    assert "- " + click.replace(">=", " >=") in RECIPE
    # the tag of the wheels and the oldest glibc are one promise
    tag = re.search(r"manylinux_(\d+)_(\d+)", text("tools/hatch_build.py"))
    assert tag is not None and f"__glibc >={tag[1]}.{tag[2]}" in RECIPE
    assert f"glibc**: {tag[1]}.{tag[2]}" in text("docs/releases.md")


def test_changes_have_the_version() -> None:
    versions = re.findall(r"^## (\S+)", text("CHANGELOG.md"), re.MULTILINE)
    assert versions[0] == vicinal.__version__
    assert len(versions) == len(set(versions))


def test_commands_of_a_release_are_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", text("Makefile"), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z-]+)", text("docs/releases.md")))
    assert {"wheels", "sdist", "check-release"} <= named <= targets


def test_every_extra_says_why() -> None:
    inside = ""
    for line in text("pyproject.toml").splitlines():
        begins = re.match(r"([a-z-]+) = \[$", line)
        inside = begins[1] if begins else "" if line == "]" else inside
        if inside in PROJECT["project"]["optional-dependencies"] and line.startswith("  "):
            assert re.search(r'",  # \S', line), line


@pytest.mark.parametrize(
    ("tag", "fine"),
    [("manylinux_2_17_x86_64", True), ("manylinux_2_28_x86_64", True),
     ("manylinux_2_34_x86_64", False)],
)  # fmt: skip
def test_two_opinions_of_a_wheel(tag: str, fine: bool) -> None:
    wheel = "vicinal-0.1.0-py3-none-manylinux_2_28_x86_64.whl"
    said = f'{wheel}\nis consistent with the following\nplatform tag: "{tag}".\n'
    assert (verdict(wheel, said) is None) == fine
    assert verdict(wheel, "something else") is not None
    assert glibc(wheel) == (2, 28)
