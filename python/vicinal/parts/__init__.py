"""Builds in parts: one index made by threads, processes or machines that share nothing but files.

Three functions, each of paths and numbers alone, so that any scheduler can call them; what they
write depends on the rows and the parameters only. `vicinal.build` calls them all.

    path = plan(source, "scratch", metric="cosine", parts=64)
    for part in range(Plan(path).parts):  # anywhere, in any order
        build_part(path, part)
    join(path, "big.vicinal")

docs/guide/building.md says when it pays.
"""

from __future__ import annotations

from vicinal.parts._join import join
from vicinal.parts._part import build_part
from vicinal.parts._plan import Plan, plan

__all__ = ["Plan", "build_part", "join", "plan"]
