"""The Mojo library is packages on layers: imports point down, nothing goes round in a circle."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent

LAYERS = {
    "system": 1,
    "kernels": 2,
    "rows": 3,
    "graph": 4,
    "walk": 5,
    "construct": 6,
    "quantization": 6,
    "exact": 6,
    "file": 6,
    "index": 7,
    "self_join": 7,
    "search": 8,
    "update": 8,
    "parts": 9,
}
# what a package must never know, beyond what lies above it
NEVER = {
    "graph": {"kernels"},
    "construct": {"quantization"},
    "quantization": {"graph", "walk"},
    "exact": {"graph", "walk"},
    "self_join": {"graph", "walk", "index"},
    "file": {"kernels", "rows", "graph", "walk"},
    "search": {"construct"},
}
IMPORT = re.compile(r"^[ \t]*from[ \t]+((?:vicinal|bindings)[\w.]*)[ \t]+import\b", re.MULTILINE)
# a step of a numbered list in a package's contract: the names before two spaces
STEP = re.compile(r"^    [\d-]  ((?:[\w.]+(?:, )?)+)  ", re.MULTILINE)


def imports(root: Path) -> dict[str, set[str]]:
    """Return the modules that each Mojo file imports, both with dots, `bindings` included."""
    found = {}
    for path in sorted((root / "mojo").rglob("*.mojo")):
        name = ".".join(path.relative_to(root / "mojo").with_suffix("").parts)
        found[name] = set(IMPORT.findall(path.read_text(encoding="utf-8")))
    return found


def circle(arrows: dict[str, set[str]]) -> list[str]:
    """Return a circle of files that import each other, or nothing."""
    done: set[str] = set()

    def walk(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for other in sorted(arrows.get(name, ())):
            if way := walk(other, [*path, name]):
                return way
        done.add(name)
        return []

    for name in sorted(arrows):
        if way := walk(name, []):
            return way
    return []


def problems(root: Path) -> list[str]:
    """Return what is wrong with the layout of a tree."""
    arrows = imports(root)
    wrong = []
    for name, targets in arrows.items():
        parts = name.split(".")
        if parts[0] == "bindings" or name == "vicinal.__init__":
            continue
        if parts[0] != "vicinal" or len(parts) != 3 or parts[1] not in LAYERS:
            wrong.append(f"{name} is in no package")
            continue
        package = parts[1]
        if parts[2] == package:
            wrong.append(f"{name} is called like its package")
        for target in sorted(targets):
            other = target.split(".")[1] if target.count(".") == 2 else ""
            if target not in arrows or other not in LAYERS:
                wrong.append(f"{name} imports {target}, which is no file of a package")
            elif other != package and LAYERS[other] >= LAYERS[package]:
                wrong.append(f"{name} imports {target}, which is not below it")
            elif other in NEVER.get(package, ()):
                wrong.append(f"{name} imports {target}, which {package} must not know")
    if way := circle(arrows):
        wrong.append("a circle: " + " imports ".join(way))
    return wrong


def test_imports_point_down() -> None:
    assert problems(ROOT) == []


@pytest.mark.parametrize(
    ("file", "text", "complaint"),
    [
        ("graph/links", "from vicinal.search.batch import search_many", "is not below it"),
        ("walk/visited", "from vicinal.walk.beam_search import Walk", "a circle"),
        ("search/batch", "from vicinal.construct.prune import robust_prune", "must not know"),
        ("helpers", "comptime X = 1", "is in no package"),
        ("rows/other", "from bindings.handles import TAG", "no file of a package"),
    ],
)
def test_a_wrong_import_is_found(tmp_path: Path, file: str, text: str, complaint: str) -> None:
    shutil.copytree(ROOT / "mojo", tmp_path / "mojo")
    path = tmp_path / "mojo/vicinal" / f"{file}.mojo"
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    path.write_text(f"{before}\n{text}\n", encoding="utf-8")
    assert any(complaint in line for line in problems(tmp_path))


def test_every_package_says_what_it_knows() -> None:
    for package in LAYERS:
        folder = ROOT / "mojo/vicinal" / package
        if folder.is_dir():
            text = (folder / "__init__.mojo").read_text(encoding="utf-8")
            assert text.startswith(f'"""Layer {LAYERS[package]}. ')
            assert "ever " in text  # what it must never know, or never does


@pytest.mark.parametrize("package", ["walk", "construct", "search", "update"])
def test_the_steps_of_a_journey_exist(package: str) -> None:
    contract = (ROOT / "mojo/vicinal" / package / "__init__.mojo").read_text(encoding="utf-8")
    sources = "\n".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "mojo/vicinal").rglob("*.mojo")
    )
    steps = [name for match in STEP.findall(contract) for name in match.split(", ")]
    assert len(steps) >= 4
    for step in steps:
        owner, _, name = step.rpartition(".")
        assert re.search(rf"def {name}\b", sources), step
        assert not owner or re.search(rf"struct {owner}\b", sources), step


def test_tests_mirror_the_packages() -> None:
    for path in (ROOT / "tests/mojo").rglob("test_*.mojo"):
        package = path.parent.name
        assert path.parent.parent == ROOT / "tests/mojo" and package in LAYERS, path
        assert any(
            target.startswith(f"vicinal.{package}.")
            for target in IMPORT.findall(path.read_text(encoding="utf-8"))
        ), f"{path} imports nothing of {package}"
