"""What sections are made of: numbers as people read them, tables, plots with what they say."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

__all__ = ["duration", "figure", "figures", "short_time", "size", "table"]


def size(number: float) -> str:
    """Return bytes as people read them."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}" if unit != "B" else f"{number:.0f} B"
        number /= 1000
    return f"{number:.3g} TB"


def duration(seconds: float) -> str:
    """Return seconds as people read them."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.3g} µs"
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def short_time(seconds: float) -> str:
    """Return seconds for an axis."""
    return duration(float(f"{seconds:.2g}")).replace(" ", "")


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose first column names its rows."""
    tops = "".join(f'<th scope="col">{escape(each)}</th>' for each in head)
    lines = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td>{escape(each)}</td>" for each in row[1:])
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{tops}</tr></thead>"
        f"<tbody>{lines}</tbody></table></div>"
    )


def figure(title: str, plot: str, caption: str, numbers: str = "") -> str:
    """Return a plot with what it says, and the numbers to fold out."""
    if not plot:
        return ""
    kind = ' class="map"' if plot.startswith('<svg class="map"') else ""
    more = f"<details><summary>The numbers</summary>{numbers}</details>" if numbers else ""
    return (
        f"<figure{kind}><h3>{escape(title)}</h3>{plot}<figcaption>{escape(caption)}</figcaption>{more}"
        "</figure>"
    )


def figures(*each: str) -> str:
    """Return plots side by side; nothing if there are none."""
    return f'<div class="figures">{"".join(each)}</div>' if any(each) else ""
