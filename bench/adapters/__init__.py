"""The indexes that the benchmark knows, each used only where its package is installed.

An index is named by its key here, with options after colons: `vicinal:dtype=float16` is our own
index with half-precision rows. What follows the colons goes to the adapter's constructor, numbers
and None as such.
"""

from __future__ import annotations

import ast
import importlib.metadata
from pathlib import Path
from typing import Any

from .base import Adapter
from .faiss import FaissHnsw
from .hnswlib import Hnswlib
from .numpy import NumpyExact
from .svs import Svs
from .usearch import Usearch
from .vicinal import Vicinal
from .voyager import Voyager
from .vsag import Vsag
from .zvec import Zvec

ADAPTERS: dict[str, type[Adapter]] = {
    "vicinal": Vicinal,
    "hnswlib": Hnswlib,
    "faiss": FaissHnsw,
    "usearch": Usearch,
    "voyager": Voyager,
    "zvec": Zvec,
    "vsag": Vsag,
    "svs": Svs,
    "numpy": NumpyExact,
}


def version(spec: str) -> str | None:
    """Return the installed version of an index's package, or None where it is missing."""
    adapter, _ = parse(spec)
    try:
        return importlib.metadata.version(adapter.distribution)
    except importlib.metadata.PackageNotFoundError:
        return _version_of_source_tree() if adapter is Vicinal else None


def _version_of_source_tree() -> str | None:
    # A checkout on PYTHONPATH has no metadata of a distribution.
    try:
        import vicinal
    except ImportError:
        return None
    return str(vicinal.__version__)


def available() -> list[str]:
    """Return the names of the graph indexes that are installed here, ours first."""
    return [name for name, adapter in ADAPTERS.items() if adapter.uses_ef and version(name)]


def parse(spec: str) -> tuple[type[Adapter], dict[str, Any]]:
    """Split a name such as `vicinal:dtype=float16` into its adapter and options."""
    name, *parts = spec.split(":")
    if name not in ADAPTERS:
        raise ValueError(f"indexes: expected one of {', '.join(ADAPTERS)}, got {name!r}")
    options = (part.partition("=") for part in parts)
    return ADAPTERS[name], {option: _value(text) for option, _, text in options}


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def make(
    spec: str, dim: int, metric: str, M: int, ef_construction: int, seed: int, folder: Path
) -> Adapter:
    """Make the adapter of a name; raises ImportError where the library is missing."""
    adapter, options = parse(spec)
    return adapter(dim, metric, M, ef_construction, seed, folder, **options)
