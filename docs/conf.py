"""Sphinx builds the site from the Markdown of the whole repository: `make site`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from sphinx.domains.python import PyObject
from sphinx.util.docfields import TypedField

ROOT = Path(__file__).resolve().parent.parent
if list((ROOT / "python" / "vicinal").glob("_*/_native.so")):
    sys.path.insert(0, str(ROOT / "python"))  # else what is installed is documented

import vicinal  # noqa: E402

project = "Vicinal"
author = "The Vicinal contributors"
copyright = author
version = release = vicinal.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/README"
include_patterns = ["*.md", "docs/**", "bench/results/*.md"]
exclude_patterns = ["build", "dist", "mojo", "python", "tests", "tools", "docs/_site", ".*", "venv"]

html_theme = "furo"
html_title = f"Vicinal {version}"
html_extra_path = ["_site"]  # the first page, which leads to docs/README.html
html_copy_source = False
html_show_sphinx = False
smartquotes = False  # quotes in docstrings are code

myst_heading_anchors = 4
myst_enable_extensions: list[str] = []
suppress_warnings: list[str] = []

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say more
autodoc_preserve_defaults = True
autodoc_mock_imports = [
    "haystack",
    "langchain_core",
    "llama_index",
    "mcp",
    "pydantic",
    "sklearn",
    "txtai",
]
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

_LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)\.md(?:#[^)\s]*)?\)")


def contents(text: str, page: Path) -> str:
    """Return a tree of contents for each section of a page: the pages that it links to."""
    seen: set[str] = set()
    trees = []
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        title, _, body = section.partition("\n")
        entries = []
        for target in _LINK.findall(body):
            name = (page.parent / target).resolve().relative_to(ROOT).as_posix()
            if name not in seen:
                seen.add(name)
                entries.append(f"/{name}")
        if entries:
            lines = ["```{toctree}", ":hidden:", f":caption: {title}", "", *entries, "```"]
            trees.append("\n".join(lines))
    return "\n\n".join(trees)


def add_contents(app: object, name: str, source: list[str]) -> None:
    """Give the first page its trees; in the repository it is a list of links and nothing else."""
    if name == root_doc:
        source[0] += "\n\n" + contents(source[0], ROOT / f"{name}.md")


def bars_are_text(
    app: object, what: str, name: str, thing: object, options: object, lines: list[str]
) -> None:
    """Let lengths stand as they are: between bars reStructuredText has names of substitutions."""
    lines[:] = [line.replace("|a| |b|", "‖a‖ ‖b‖") for line in lines]


def setup(app: object) -> dict[str, bool]:
    """Tell Sphinx about all this."""
    connect = app.connect  # type: ignore[attr-defined]
    connect("source-read", add_contents)
    connect("autodoc-process-docstring", bars_are_text)
    # "(n, dim)" is a shape, no link to whatever is called dim
    for field in PyObject.doc_field_types:
        field.rolename = ""
        if isinstance(field, TypedField):
            field.typerolename = ""
    return {"parallel_read_safe": True, "parallel_write_safe": True}
