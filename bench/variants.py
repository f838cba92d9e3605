"""Variants of the library that lack one technique each, compiled and loaded.

A variant is a copy of `mojo/` with one text replaced, compiled as the wheel is, for float32 rows
only, which takes a third of the time. The text has to occur exactly once, so that a table that is
not in step with the sources is an error.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import native_build  # noqa: E402  (the tools folder is no package)

WHOLE = "as-it-is"
ALL_TYPES = "comptime TYPES = STORED_TYPES"
ONE_TYPE = "comptime TYPES = 1"
AUTO, NO_CODES = 0, 1  # quantization, as index_new takes it


class Variant(NamedTuple):
    """The library with one thing changed: a text of one file, the CPU level, or the codes."""

    name: str
    about: str
    file: str = ""
    old: str = ""
    new: str = ""
    level: str = ""
    quantization: int = AUTO

    def source(self, folder: Path) -> Path:
        """Return the main source file to compile, in a changed copy under `folder`.

        Raises
        ------
        ValueError
            If a text to replace does not occur exactly once.
        """
        tree = native_build.SOURCE.parent.parent
        shutil.rmtree(folder / "mojo", ignore_errors=True)
        copy = Path(shutil.copytree(tree, folder / "mojo"))
        self.replace(copy / "vicinal/kernels/in_space.mojo", ALL_TYPES, ONE_TYPE)
        if self.file:
            self.replace(copy / self.file, self.old, self.new)
        return copy / native_build.SOURCE.relative_to(tree)

    def replace(self, path: Path, old: str, new: str) -> None:
        """Replace a text in a file."""
        text = path.read_text(encoding="utf-8")
        if text.count(old) != 1 or old == new:
            raise ValueError(
                f"{self.name}: expected {old!r} once in {path.name}, "
                f"found it {text.count(old)} times"
            )
        path.write_text(text.replace(old, new), encoding="utf-8")


CHANGES = (
    Variant("no-codes", "walks on the stored rows, not on codes", quantization=NO_CODES),
    Variant(
        "rows-linked",
        "links on the stored rows, walks on codes",
        "vicinal/update/linking.mojo",
        "comptime if S.metric != IP and S.T.is_floating_point():",
        "comptime if False:",
    ),
    Variant(
        "row-by-row",
        "measures the rows of a hop one by one",
        "vicinal/kernels/measure_rows.mojo",
        "comptime if S.batched:",
        "comptime if False:",
    ),
    Variant(
        "no-look-ahead",
        "asks for the memory of a row just before it is measured",
        "vicinal/walk/beam_search.mojo",
        "comptime LOOK_AHEAD = 8",
        "comptime LOOK_AHEAD = 0",
    ),
    Variant(
        "no-link-fetch",
        "does not ask for the links of a row when it becomes a candidate",
        "vicinal/walk/beam_search.mojo",
        """prefetch_links(
                        self.graph[], 0 if Self.base_layer else self.level, node_of(entry)
                    )""",
        "pass",
    ),
    Variant(
        "no-constant-fetch",
        "does not ask for the constants of a code with the code",
        "vicinal/kernels/space.mojo",
        "if constants.bytes != 0:",
        "if False:",
    ),
    Variant(
        "to-the-end",
        "walks expand all candidates within their width",
        "vicinal/kernels/candidates.mojo",
        "comptime SETTLED_WIDTHS = 3",
        "comptime SETTLED_WIDTHS = 1 << 40",
    ),
    Variant(
        "no-fetches",
        "asks for no memory before it is read",
        "vicinal/system/prefetch.mojo",
        "prefetch[PrefetchOptions().for_read().high_locality().to_data_cache()]"
        "(at[UInt8](address).start)",
        "pass",
    ),
    Variant(
        "one-walk",
        "one walk at a time in batches and builds",
        "vicinal/walk/interleaved.mojo",
        "return 1 if bytes <= CACHED else most",
        "return 1",
    ),
    Variant(
        "four-walks",
        "four searches of a batch at a time, not two",
        "vicinal/walk/interleaved.mojo",
        "comptime MEMORY_SEARCHES = 2",
        "comptime MEMORY_SEARCHES = 4",
    ),
    Variant(
        "small-pages",
        "no huge pages",
        "vicinal/system/memory.mojo",
        "comptime MADV_HUGEPAGE: c_int = 14",
        "comptime MADV_HUGEPAGE: c_int = 15",
    ),
    Variant(
        "no-spread",
        "links are selected in one go, with a factor of 1",
        "vicinal/kernels/space.mojo",
        "comptime SQUARED_ALPHA = 7",
        "comptime SQUARED_ALPHA = 5",
    ),
    Variant(
        "no-fill",
        "free slots stay free",
        "vicinal/construct/fill.mojo",
        "comptime LEFT_FREE = 2",
        "comptime LEFT_FREE = 1 << 20",
    ),
    Variant(
        "find-place",
        "an insertion looks for its place first, however few candidates there are",
        "vicinal/kernels/candidates.mojo",
        "comptime STRAIGHT = 256",
        "comptime STRAIGHT = 0",
    ),
)


def variants() -> list[Variant]:
    """Return all variants that this CPU runs, the library as it is first."""
    best, levels = native_build.best_level(), native_build.host_levels()
    lower = levels[levels.index(best) + 1 :]
    return [
        Variant(WHOLE, f"the library, CPU level {best}"),
        *CHANGES,
        *(Variant(f"level-{name}", f"compiled for CPU level {name}", level=name) for name in lower),
    ]


def compile_all(
    chosen: Sequence[Variant], folder: Path, say: Callable[[str], None]
) -> dict[str, ModuleType]:
    """Compile what the variants need, side by side, and load it; return a module for each."""
    best, release = native_build.best_level(), native_build.compiler.release()

    def make(variant: Variant) -> ModuleType:
        into, level = folder / variant.name, variant.level or best
        into.mkdir(parents=True, exist_ok=True)
        native_build.build_level(level, into, release, variant.source(into))
        say(f"{variant.name}: compiled")
        return load(into / f"_{level}" / native_build.MODULE)

    own = [variant for variant in chosen if variant.quantization == AUTO]
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        made = dict(zip([v.name for v in own], pool.map(make, own), strict=True))
    return {variant.name: made.get(variant.name, made[WHOLE]) for variant in chosen}


def load(path: Path) -> ModuleType:
    """Load a native module; those of different files share nothing."""
    spec = importlib.util.spec_from_file_location("_native", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
