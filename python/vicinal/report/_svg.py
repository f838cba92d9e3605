"""Plots as inline SVG: no script, no font and no picture from elsewhere.

Colours are variables of the page, so that they follow dark and light; every series has a shape of
its own besides, and every point says its numbers when it is pointed at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from itertools import count
from typing import Any, NamedTuple

__all__ = ["Series", "bars", "curves", "scatter"]

WIDTH, HEIGHT = 480, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 14, 48
# from which share found on, and below which, a row has which colour
_SHADES = ((0.999, 2, "f3"), (0.8, 0.999, "f2"), (0.4, 0.8, "f1"), (-1, 0.4, "f0"))
_numbers = count(1)


class Series(NamedTuple):
    """Points that are joined by a line, with what each says; `band` are low and high of each y."""

    name: str
    points: Sequence[tuple[float, float]]
    says: Sequence[str] = ()
    band: Sequence[tuple[float, float]] = ()


class _Axis:
    """Places of values between two ends, on a plain or a logarithmic scale."""

    def __init__(self, values: Sequence[float], log: bool, start: float, end: float) -> None:
        self.log = log and min(values) > 0
        low, high = min(values), max(values)
        if self.log:
            low, high = math.log10(low), math.log10(high)
        if high - low < 1e-12:
            pad = abs(high) * 0.05 or 0.5
            low, high = low - pad, high + pad
        self.low, self.high, self.start, self.end = low, high, start, end

    def __call__(self, value: float) -> float:
        number = math.log10(value) if self.log else value
        share = (number - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Return round numbers between the ends."""
        if self.log and self.high - self.low > 0.6:
            found = [
                digit * 10.0**power
                for power in range(math.floor(self.low), math.ceil(self.high) + 1)
                for digit in ((1, 2, 5) if self.high - self.low < 2.5 else (1,))
            ]
            return [v for v in found if self.low - 1e-9 <= math.log10(v) <= self.high + 1e-9]
        low, high = (10**self.low, 10**self.high) if self.log else (self.low, self.high)
        rough = (high - low) / 4
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= rough * 0.999)
        first = math.ceil(low / step - 1e-9)
        return [step * i for i in range(first, math.floor(high / step + 1e-9) + 1)]


def short(value: float) -> str:
    """Return a number as an axis has room for."""
    size = abs(value)
    if size >= 1e6:
        return f"{value / 1e6:.3g}M"
    if size >= 1e4:
        return f"{value / 1e3:.3g}k"
    return f"{value:.4g}"


def _open(title: str, says: str, kind: str = "plot") -> tuple[str, str]:
    number = next(_numbers)
    head = (
        f'<svg class="{kind}" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-labelledby="t{number} d{number}"><title id="t{number}">{escape(title)}</title>'
        f'<desc id="d{number}">{escape(says)}</desc>'
    )
    return head, "</svg>"


def _frame(x: _Axis | None, y: _Axis, x_name: str, y_name: str) -> str:
    bottom = HEIGHT - _BOTTOM
    parts = ['<g class="axes" aria-hidden="true">']
    for value in y.ticks():
        place = y(value)
        parts.append(f'<path class="grid" d="M{_LEFT} {place:.1f}H{WIDTH - _RIGHT}"/>')
        parts.append(
            f'<text x="{_LEFT - 6}" y="{place + 4.5:.1f}" text-anchor="end">{short(value)}</text>'
        )
    ticks = [] if x is None else [(value, x(value)) for value in x.ticks()]
    for value, place in ticks:
        parts.append(f'<path class="grid" d="M{place:.1f} {_TOP}V{bottom}"/>')
        parts.append(
            f'<text x="{place:.1f}" y="{bottom + 17}" text-anchor="middle">{short(value)}</text>'
        )
    parts.append(f'<path class="axis" d="M{_LEFT} {_TOP}V{bottom}H{WIDTH - _RIGHT}"/>')
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    parts.append(
        f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">'
        f"{escape(x_name + (' (log)' if x is not None and x.log else ''))}</text>"
    )
    centre = (_TOP + bottom) / 2
    parts.append(
        f'<text transform="translate(13 {centre}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_name + (' (log)' if y.log else ''))}</text></g>"
    )
    return "".join(parts)


def _shape(which: int, x: float, y: float) -> str:
    """Return a mark; the first four series have different ones."""
    paths = (
        f"M{x - 4:.1f} {y:.1f}a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",
        f"M{x - 4:.1f} {y - 4:.1f}h8v8h-8z",
        f"M{x:.1f} {y - 5:.1f}l5 9h-10z",
        f"M{x:.1f} {y - 5:.1f}l5 5l-5 5l-5 -5z",
        f"M{x - 5:.1f} {y - 1.5:.1f}h10v3h-10z",
    )
    return paths[which % len(paths)]


def curves(
    title: str,
    series: Sequence[Series],
    x_name: str,
    y_name: str,
    *,
    says: str,
    x_log: bool = False,
    y_log: bool = False,
    y_from: float | None = None,
    target: float | None = None,
) -> str:
    """Return lines with a mark at each point."""
    series = [each for each in series if each.points]
    xs = [x for each in series for x, _ in each.points]
    ys = [y for each in series for _, y in each.points]
    ys += [end for each in series for band in each.band for end in band]
    if y_from is not None:
        ys.append(y_from)
    if not xs:
        return ""
    x = _Axis(xs, x_log, _LEFT + 10, WIDTH - _RIGHT - 10)
    y = _Axis(ys, y_log, HEIGHT - _BOTTOM - 6, _TOP + 8)
    head, end = _open(title, says)
    parts = [head, _frame(x, y, x_name, y_name)]
    if target is not None and y.low <= target <= y.high:
        parts.append(f'<path class="target" d="M{_LEFT} {y(target):.1f}H{WIDTH - _RIGHT}"/>')
    for number, each in enumerate(series):
        places = [(x(a), y(b)) for a, b in each.points]
        if each.band:
            lows = [f"{p[0]:.1f} {y(b[0]):.1f}" for p, b in zip(places, each.band, strict=True)]
            highs = [f"{p[0]:.1f} {y(b[1]):.1f}" for p, b in zip(places, each.band, strict=True)]
            parts.append(f'<path class="band s{number}" d="M{"L".join(lows + highs[::-1])}z"/>')
        line = "L".join(f"{a:.1f} {b:.1f}" for a, b in places)
        parts.append(f'<path class="line s{number}" d="M{line}"/>')
        for i, (a, b) in enumerate(places):
            said = f"<title>{escape(each.says[i])}</title>" if each.says else ""
            parts.append(f'<path class="mark s{number}" d="{_shape(number, a, b)}">{said}</path>')
    return "".join([*parts, end]) + _legend([each.name for each in series])


def bars(
    title: str,
    groups: Sequence[str],
    series: Sequence[tuple[str, Sequence[float]]],
    x_name: str,
    y_name: str,
    *,
    says: str,
    y_log: bool = False,
    every: int = 1,
) -> str:
    """Return groups of bars; with `y_log` they begin at a tenth of the smallest."""
    values = [value for _, each in series for value in each if value > 0]
    if not values or not groups:
        return ""
    floor = min(values) / 10 if y_log else 0.0
    y = _Axis([floor, max(values)], y_log, HEIGHT - _BOTTOM, _TOP + 8)
    room = (WIDTH - _RIGHT - _LEFT) / len(groups)
    wide = room * (0.8 if len(series) > 1 or len(groups) < 20 else 0.95) / len(series)
    head, end = _open(title, says)
    parts = [head, _frame(None, y, x_name, y_name)]
    for place, group in enumerate(groups):
        left = _LEFT + room * place + (room - wide * len(series)) / 2
        for number, (name, each) in enumerate(series):
            value = each[place]
            if value <= 0:
                continue
            top = y(max(value, floor))
            said = escape(f"{group}{', ' + name if len(series) > 1 else ''}: {value:,.4g}")
            parts.append(
                f'<rect class="bar s{number}" x="{left + wide * number:.1f}" y="{top:.1f}" '
                f'width="{max(wide - 0.5, 0.5):.1f}" height="{HEIGHT - _BOTTOM - top:.1f}">'
                f"<title>{said}</title></rect>"
            )
        if place % every == 0:
            parts.append(
                f'<text class="tick" aria-hidden="true" x="{_LEFT + room * (place + 0.5):.1f}" '
                f'y="{HEIGHT - _BOTTOM + 17}" text-anchor="middle">{escape(group)}</text>'
            )
    names = [name for name, _ in series]
    return "".join([*parts, end]) + _legend(names if len(names) > 1 else [])


def scatter(title: str, told: dict[str, Any], *, says: str) -> str:
    """Return the map: rows, rows that were looked for by how well they are found, and queries."""
    every = [*told["rows"], *told["sought"], *told["queries"]]
    x = _Axis([p[0] for p in every], False, 14, WIDTH - 14)
    y = _Axis([p[1] for p in every], False, HEIGHT - 14, 14)
    head, end = _open(title, says, "map")
    parts = [head]
    dots = "".join(f"M{x(a):.1f} {y(b):.1f}h0" for a, b in told["rows"])
    parts.append(f'<path class="other" d="{dots}"/>')
    # the worst are drawn last, so that nothing hides them
    order = sorted(range(len(told["sought"])), key=lambda i: -told["found_share"][i])
    for low, high, name in _SHADES:
        dots = "".join(
            f"M{x(told['sought'][i][0]):.1f} {y(told['sought'][i][1]):.1f}h0"
            for i in order
            if low <= told["found_share"][i] < high
        )
        if dots:
            parts.append(f'<path class="found {name}" d="{dots}"/>')
    crosses = "".join(f"M{x(a) - 3:.1f} {y(b):.1f}h6m-3 -3v6" for a, b in told["queries"])
    parts.append(f'<path class="query" d="{crosses}"/>')
    keys = (
        '<ul class="legend"><li class="f3">always found</li><li class="f2">mostly</li>'
        '<li class="f1">about half</li><li class="f0">seldom or never</li>'
        '<li class="o">not looked for</li><li class="q">+ a query</li></ul>'
    )
    return "".join([*parts, end]) + keys


def _legend(names: Sequence[str]) -> str:
    if len(names) < 2:
        return ""
    items = []
    for number, name in enumerate(names):
        mark = (
            '<svg width="16" height="12" viewBox="-8 -6 16 12" aria-hidden="true">'
            f'<path class="mark s{number}" d="{_shape(number, 0, 0)}"/></svg>'
        )
        items.append(f"<li>{mark}{escape(name)}</li>")
    return f'<ul class="legend">{"".join(items)}</ul>'
