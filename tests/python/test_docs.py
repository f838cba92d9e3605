"""The documents: examples print what they say, links lead somewhere, named functions exist."""

from __future__ import annotations

import ast
import doctest
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [
    *(
        ROOT / f"{name}.md"
        for name in ("README", "CONTRIBUTING", "ROADMAP", "CHANGELOG", "SECURITY")
    ),
    *(ROOT / "bench" / "results").glob("*.md"),
    *sorted(DOCS.rglob("*.md")),
]
WITH_EXAMPLES = [page for page in PAGES if "```python" in page.read_text(encoding="utf-8")]
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
# a step of a journey: 3. `Owner.name` (`path`): what it does
STEP = re.compile(r"^(\d+)\. `([\w.]+)` \(`([\w./]+)`\)", re.MULTILINE)
# a path in backquotes that only this repository can have
NAMED = re.compile(r"`((?:docs|mojo|python|tests|tools|bench)/[\w./-]+)`")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def links(page: Path) -> list[tuple[Path, str]]:
    """Return the files that a page links to, with the heading."""
    return [
        ((page.parent / target).resolve() if target else page, heading)
        for target, heading in LINK.findall(prose(page))
    ]


def headings(page: Path) -> set[str]:
    """Return the anchors of a page as the viewers of Markdown make them."""
    found = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in found}


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=name)
def test_examples(page: Path) -> None:
    blocks = page.read_text(encoding="utf-8").count("```python\n")
    shown = page.read_text(encoding="utf-8").count("```python\n>>> ")
    assert blocks == shown, "an example that is not run may be wrong"
    result = doctest.testfile(str(page), module_relative=False, encoding="utf-8")
    assert result.attempted >= blocks
    assert result.failed == 0


def test_the_readme_and_the_guide_have_examples() -> None:
    pages = set(map(name, WITH_EXAMPLES))
    assert {"README.md", *(f"docs/guide/{each}.md" for each in ("adding", "recall"))} <= pages


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for target, heading in links(page):
        assert target.exists(), f"{name(page)} links to {target}"
        assert not heading or heading in headings(target), f"{name(page)}: #{heading}"


def test_pages_that_sources_name_exist() -> None:
    sources = [
        path
        for folder in ("bench", "mojo", "python", "tests", "tools")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".pyi", ".mojo")
    ]
    named = {
        page: path
        for path in sources
        for page in re.findall(r"\bdocs/[\w/-]+\.md\b", path.read_text(encoding="utf-8"))
    }
    assert len(named) > 20
    assert not {page: name(path) for page, path in named.items() if not (ROOT / page).exists()}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_that_are_named_exist(page: Path) -> None:
    missing = [path for path in NAMED.findall(prose(page)) if not (ROOT / path).exists()]
    missing = [path for path in missing if not list(ROOT.glob(f"{path}*"))]
    assert missing == [], name(page)


def test_docstrings_name_pages_that_exist() -> None:
    named = {
        found: path
        for path in (ROOT / "python").rglob("*.py")
        for found in re.findall(r"docs/[\w/]+\.md", path.read_text(encoding="utf-8"))
    }
    assert len(named) > 4
    assert [page for page in named if not (ROOT / page).exists()] == []


def test_every_page_is_in_the_index() -> None:
    index = DOCS / "README.md"
    listed = {target for target, _ in links(index)}
    assert [name(page) for page in DOCS.rglob("*.md") if page not in {*listed, index}] == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def journeys() -> dict[str, list[tuple[str, str]]]:
    """Return the steps, functions and files, of each journey in the overview."""
    text = (DOCS / "design" / "overview.md").read_text(encoding="utf-8")
    found = {}
    for part in re.split(r"^### ", text, flags=re.MULTILINE)[1:]:
        title, _, body = part.partition("\n")
        body = re.split(r"^## ", body, flags=re.MULTILINE)[0]
        steps = STEP.findall(body)
        numbers = [int(number) for number, _, _ in steps]
        assert numbers == list(range(1, len(steps) + 1)), f"{title}: {numbers}"
        assert len(steps) == len(re.findall(r"^\d+\. ", body, re.MULTILINE)), title
        found[title.strip("`")] = [(function, path) for _, function, path in steps]
    return found


def defines(path: Path, function: str) -> bool:
    """Tell whether a file has a function, of a class or struct if the name says so."""
    owner, _, last = function.rpartition(".")
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        body: list[ast.stmt] = ast.parse(text).body
        if owner:
            kinds = [node for node in body if isinstance(node, ast.ClassDef) and node.name == owner]
            body = kinds[0].body if kinds else []
        return any(isinstance(node, ast.FunctionDef) and node.name == last for node in body)
    if not owner:
        return re.search(rf"^def {last}\b", text, re.MULTILINE) is not None
    struct = re.search(rf"^struct {owner}\b.*?(?=^\S(?!.*\):)|\Z)", text, re.MULTILINE | re.DOTALL)
    return (
        struct is not None and re.search(rf"^    def {last}\b", struct[0], re.MULTILINE) is not None
    )


def test_the_steps_of_the_journeys_exist() -> None:
    found = journeys()
    assert list(found) == ["search", "add", "open"]
    for title, steps in found.items():
        assert len(steps) > 10
        for function, path in steps:
            assert (ROOT / path).is_file(), f"{title}: there is no {path}"
            assert defines(ROOT / path, function), f"{title}: {path} has no {function}"


def test_a_step_that_is_gone_is_noticed() -> None:
    batch = ROOT / "mojo/vicinal/search/batch.mojo"
    assert defines(batch, "SearchMany.run")
    assert not defines(batch, "SearchMany.walk")
    assert not defines(batch, "SearchAll.run")
    assert not defines(batch, "run")  # a method is no function
    index = ROOT / "python/vicinal/index.py"
    assert defines(index, "Index.search") and defines(index, "merge")
    assert not defines(index, "search") and not defines(index, "Index.open_index")


def test_functions_in_the_prose_of_the_overview_exist() -> None:
    """Names in backquotes that look like code are somewhere in the sources."""
    text = prose(DOCS / "design" / "overview.md")
    sources = "\n".join(
        path.read_text(encoding="utf-8")
        for folder in ("mojo", "python", "tests")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".mojo")
    )
    for found in re.findall(r"`([A-Za-z_][\w.]*)`", text):
        assert re.search(rf"\b{found.rpartition('.')[2]}\b", sources), found
