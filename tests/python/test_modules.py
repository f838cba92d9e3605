"""The Python package is put together as its documents say: one class, thin methods, no circles."""

from __future__ import annotations

import ast
import inspect
import sys
from pathlib import Path

import pytest

import vicinal

PACKAGE = Path(__file__).resolve().parents[2] / "python" / "vicinal"
MODULES = {path.stem: ast.parse(path.read_text("utf-8")) for path in PACKAGE.glob("*.py")}
# `search` keeps its body where a call costs least; the constructor checks its arguments there.
WITH_A_BODY = {"search", "__init__", "__reduce__"}


def imports(module: ast.Module) -> set[str]:
    """Return the modules that are imported when a module is, those of this package without it."""
    found = set()
    for node in module.body:  # not what stands under TYPE_CHECKING, or in functions
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "vicinal":
            found |= {f"vicinal.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return {name.removeprefix("vicinal.") for name in found}


def test_nothing_but_numpy_is_imported() -> None:
    allowed = {*sys.stdlib_module_names, *MODULES, "numpy", "_native"}
    for name, module in MODULES.items():
        assert {each.partition(".")[0] for each in imports(module)} <= allowed, name


def test_no_module_imports_itself_by_a_way_round() -> None:
    arrows = {name: imports(module) & set(MODULES) for name, module in MODULES.items()}
    while arrows:
        ready = [name for name, targets in arrows.items() if not targets & set(arrows)]
        assert ready, f"a circle among {sorted(arrows)}"
        for name in ready:
            del arrows[name]


def test_a_method_is_its_documentation_and_a_call() -> None:
    (index,) = (
        node
        for node in MODULES["index"].body
        if isinstance(node, ast.ClassDef) and node.name == "Index"
    )
    methods = [node for node in index.body if isinstance(node, ast.FunctionDef)]
    methods = [node for node in methods if "overload" not in map(ast.unparse, node.decorator_list)]
    assert len(methods) > 30
    for method in methods:
        public = not method.name.startswith("_")
        setter = any(ast.unparse(one).endswith(".setter") for one in method.decorator_list)
        assert not public or ast.get_docstring(method) or setter, method.name
        body = method.body[1:] if ast.get_docstring(method) else method.body
        assert len(body) == 1 or method.name in WITH_A_BODY, method.name


def test_every_public_method_is_in_one_class() -> None:
    """No base but the private one; what it adds are two special methods."""
    assert vicinal.Index.__mro__[1:] == (vicinal._state.State, object)
    ours = set(vars(vicinal._state.State)) - set(vicinal._state.State.__slots__)
    assert {name for name in ours if not name.startswith("_")} == set()
    assert {"__len__", "__contains__"} <= ours


@pytest.mark.parametrize(
    "name", [name for name, _ in inspect.getmembers(vicinal.Index) if not name.startswith("_")]
)
def test_docstrings_say_what_threads_may_do(name: str) -> None:
    method = inspect.getattr_static(vicinal.Index, name)
    text = inspect.getdoc(getattr(vicinal.Index, name))
    assert text
    assert isinstance(method, property) or "Threads: " in text
