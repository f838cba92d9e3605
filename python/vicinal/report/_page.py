"""The page: one HTML document of what `measure` returned, which loads nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import Any

from vicinal.report import _sections
from vicinal.report._blocks import duration, size
from vicinal.report._findings import Finding, default_recall, findings, percent
from vicinal.report._style import STYLE

__all__ = ["page"]

_NAMES = {"good": "fine", "look": "worth a look", "wrong": "wrong"}
_VERDICTS = {
    "good": "Nothing stands out",
    "look": "It works; something is worth a look",
    "wrong": "Something is wrong with this index, or with what it is asked",
}


def page(numbers: dict[str, Any]) -> str:
    """Return an HTML page of what `measure` returned; the numbers are in it as JSON.

    The JSON is the text of the element `numbers`. Nothing is loaded when the page is opened, and
    there is no script: its policy forbids both.
    """
    told = findings(numbers)
    sections = [each for each in _sections.sections(numbers) if each.body]
    name = escape(numbers["index"]["file"])
    links = "".join(
        f'<li><a href="#{each.name}">{escape(each.title)}</a></li>' for each in sections
    )
    body = "".join(
        f'<section id="{each.name}" aria-labelledby="h-{each.name}">'
        f'<h2 id="h-{each.name}">{escape(each.title)}</h2>{each.body}</section>'
        for each in sections
    )
    # inside a script element nothing is escaped; "<" may not stand there, "\\u003c" may
    data = json.dumps(numbers, allow_nan=False).replace("<", "\\u003c")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{name} - Vicinal report</title><style>{STYLE}</style></head><body>"
        '<a class="skip" href="#main">To the findings</a>'
        f"<header><h1>{name}</h1><p>{escape(_what(numbers))}</p></header>"
        f'<nav aria-label="Sections"><ul>{links}</ul></nav>'
        f'<main id="main">{_summary(numbers, told)}{body}</main>'
        f"<footer>{escape(_where(numbers))}</footer>"
        f'<script type="application/json" id="numbers">{data}</script></body></html>\n'
    )


def _what(numbers: dict[str, Any]) -> str:
    index = numbers["index"]
    codes = index["quantization"]
    walked = f"searched through {codes} codes" if codes else "searched without codes"
    return (
        f"{index['count']:,} rows of {index['dim']:,} {index['dtype']} values, metric "
        f"{index['metric']}, {walked}, {size(index['file_bytes'])}"
    )


def _where(numbers: dict[str, Any]) -> str:
    on = numbers["machine"]
    load = "" if on["load_before"] is None else f", load {on['load_before']:g} before it began"
    return (
        f"Measured by Vicinal {on['vicinal']} (code for {on['cpu_level']}) on {on['processor']}, "
        f"{on['cores']} cores{load}; Python {on['python']}, NumPy {on['numpy']}. Times are those "
        "of this machine at that moment; recall is the same anywhere. Nothing on this page was "
        "loaded from, or sent to, anywhere."
    )


def _summary(numbers: dict[str, Any], told: Sequence[Finding]) -> str:
    level = told[0].level
    cells: list[tuple[str, str]] = []
    if "stopped_by" not in numbers:
        cells = _cells(numbers)
    tiles = "".join(f"<div><dt>{escape(a)}</dt><dd>{escape(b)}</dd></div>" for a, b in cells)
    tiles = f'<dl class="tiles">{tiles}</dl>' if tiles else ""
    items = "".join(
        f'<li class="{each.level}"><b>{_NAMES[each.level]}</b><span>{escape(each.text)}</span>'
        + (f'<span class="advice">{escape(each.advice)}</span>' if each.advice else "")
        + "</li>"
        for each in told
    )
    return (
        f'<p class="verdict {level}" role="status">{_VERDICTS[level]}.</p>'
        f'{tiles}<ul class="findings">{items}</ul>'
    )


def _cells(numbers: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what a reader in a hurry takes away."""
    recall, speed = default_recall(numbers), _sections.default_speed(numbers)
    return [
        (f"recall of {numbers['k']}", percent(recall["recall"])),
        ("queries a second, one thread", f"{speed['queries_per_second']:,.0f}"),
        ("slowest of a hundred", duration(speed["p99"])),
        ("memory, vectors and all", size(numbers["memory"]["total"])),
    ]
