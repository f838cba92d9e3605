"""What the numbers mean: sentences for a reader in a hurry, with what to do about each."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

__all__ = ["Finding", "findings"]

GOOD, LOOK, WRONG = "good", "look", "wrong"

_FINE, _LOW = 0.95, 0.8  # recall
_UNLIKE = 0.45  # of what sets the nearest rows of rows apart; docs/guide/report.md has examples
_COARSE = 0.5  # of what true nearest candidates the estimates alone name
_REMOVED, _COPIES, _LOST = 0.2, 0.1, 0.001


class Finding(NamedTuple):
    """One sentence: "good", "look" (worth a look) or "wrong", and what to do, if anything."""

    level: str
    text: str
    advice: str = ""


def findings(numbers: dict[str, Any]) -> list[Finding]:
    """Return what stands out, the worst first, and then what does not."""
    if "stopped_by" in numbers:
        return _damage(numbers)
    found = [
        *_damage(numbers),
        *_recall(numbers),
        *_codes(numbers),
        *_queries(numbers),
        *_drift(numbers),
        *_filters(numbers),
        *_graph(numbers),
    ]
    return sorted(found, key=lambda each: (WRONG, LOOK, GOOD).index(each.level))


def _damage(numbers: dict[str, Any]) -> list[Finding]:
    if numbers["damage"] is not None:
        return [
            Finding(
                WRONG,
                f"The file is damaged: {numbers['damage']}.",
                "Restore it from a copy, or build it again. "
                + (
                    "It could not be measured."
                    if "stopped_by" in numbers
                    else "What follows is of the damaged file."
                ),
            )
        ]
    return [Finding(GOOD, "Every byte is as it was written, and the graph is as it must be.")]


def default_recall(numbers: dict[str, Any]) -> dict[str, Any]:
    """Return the measurement at the width of searches that give none."""
    return next(each for each in numbers["recall"] if each["is_default"])


def percent(share: float) -> str:
    """Return a share in percent; what is nearly all is never said to be all."""
    if share in (0, 1):
        return f"{100 * share:.0f} %"
    # 0.99996 is not 100 %
    return f"{math.floor(share * 1e3) / 10 if share < 0.999 else math.floor(share * 1e4) / 100} %"


def _recall(numbers: dict[str, Any]) -> list[Finding]:
    here, widest = default_recall(numbers), numbers["recall"][-1]
    said = (
        f"Searches with ef_search {here['ef_search']} find {percent(here['recall'])} of the true "
        f"{numbers['k']} nearest (95 % sure: {percent(here['low'])} to {percent(here['high'])})."
    )
    if here["low"] >= _FINE or here["recall"] == 1:
        return [Finding(GOOD, said)]
    level = LOOK if here["high"] >= _LOW else WRONG
    enough = [each for each in numbers["recall"] if each["recall"] >= _FINE]
    if enough:
        advice = (
            f"ef_search {enough[0]['ef_search']} finds {percent(enough[0]['recall'])}; "
            "Index.tune finds the least width for a recall that you name."
        )
        return [Finding(level if here["recall"] < _FINE else LOOK, said, advice)]
    rises = widest["recall"] - here["recall"] > 0.02
    advice = (
        f"Wider searches find more, yet {percent(widest['recall'])} at {widest['ef_search']}: "
        "see the codes, the queries and the map below."
        if rises
        else "Wider searches find no more, so the width is not the cause: see the codes, the "
        "queries and the map below."
    )
    return [Finding(level, said, advice)]


def _codes(numbers: dict[str, Any]) -> list[Finding]:
    codes, index = numbers["codes"], numbers["index"]
    if not index["keep_vectors"]:
        return [
            Finding(
                LOOK,
                "No vectors are stored: all distances are estimates, and the recall is that among "
                "what the codes decode to.",
                "What codes lose, who has the vectors can measure: docs/guide/codes-alone.md.",
            )
        ]
    if codes is None:
        return []
    said = (
        f"Codes alone put {percent(codes['same_nearest'])} of the nearest candidates among the "
        f"nearest; an estimate is off by {percent(codes['median'])} of the candidates' spread."
    )
    if codes["same_nearest"] >= _COARSE:
        return [Finding(GOOD, said)]
    bad = default_recall(numbers)["recall"] < _FINE
    if index["walk_dim"] is not None:
        return [
            Finding(
                WRONG if bad else LOOK,
                f"{said} They see the first {index['walk_dim']} values of {index['dim']}, which "
                "say too little.",
                "Build it with a larger walk_dim, or without.",
            )
        ]
    return [
        Finding(
            WRONG if bad else LOOK,
            said + " The codes do not describe the rows.",
            "compact() makes codes anew from the rows; quantization=None does without codes.",
        )
    ]


def _queries(numbers: dict[str, Any]) -> list[Finding]:
    kind, metric = numbers["queries"]["kind"], numbers["index"]["metric"]
    if kind == "assumed":
        return [
            Finding(
                LOOK,
                "No queries were given: stored rows looked for their nearest others, which is "
                "easier than what real queries ask.",
                "Give --queries, or let the index keep some: Index.keep_queries.",
            )
        ]
    told = numbers["distances"]
    advice = "Were they made by the same model, with the same sign and scale, as the rows?"
    if metric in ("ip", "cosine") and told["nearest"]["median"] > 1:
        return [
            Finding(
                WRONG,
                "The queries are opposed to the rows: for most of them even the nearest row has an "
                "inner product below 0.",
                advice,
            )
        ]
    near, near_of_rows = told.get("contrast"), told.get("contrast_of_rows")
    if near is None or near_of_rows is None:
        return []
    said = (
        f"of a query the nearest row is {percent(max(near, 0))} nearer than any row, of a row "
        f"{percent(max(near_of_rows, 0))}."
    )
    if near < _UNLIKE * near_of_rows:
        bad = default_recall(numbers)["recall"] < _FINE
        level = WRONG if bad else LOOK
        return [Finding(level, f"The queries are unlike the rows: {said}", advice)]
    return [Finding(GOOD, f"The queries are like the rows: {said}")]


def _drift(numbers: dict[str, Any]) -> list[Finding]:
    found = []
    for each in numbers["drift"]:
        said = (
            f"Tuned for recall {each['recall_wanted']:g} of {each['k']} with ef_search "
            f"{each['ef_search']}; that width now finds {percent(each['now'])}."
        )
        short = each["now_high"] < each["recall_wanted"]
        if short or each["stale"]:
            found.append(
                Finding(
                    WRONG if short else LOOK,
                    said + f" There were {each['rows_then']:,} rows then, {each['rows_now']:,} now."
                    if each["stale"]
                    else said,
                    "Call Index.tune again.",
                )
            )
        else:
            found.append(Finding(GOOD, said))
    return found


def _filters(numbers: dict[str, Any]) -> list[Finding]:
    worst = min(numbers["filters"], key=lambda each: each["recall"], default=None)
    if worst is None:
        return []
    least = "all" if worst["recall"] == 1 else f"{percent(worst['recall'])} or more"
    said = f"Confined to rows drawn at random, searches find {least} of what they may find."
    if worst["recall"] >= 0.9:
        return [Finding(GOOD, said)]
    return [
        Finding(
            LOOK, said + f" The worst is a filter that lets {worst['rows']:,} rows through.",
            "Search with a larger ef_search where filters are used.",
        )
    ]  # fmt: skip


def _graph(numbers: dict[str, Any]) -> list[Finding]:
    told, degrees = numbers["index"], numbers["structure"]["degrees"]
    rows, found = told["count"], []
    if told["search"] == "exact":
        found.append(Finding(GOOD, "So few rows are searched exactly: all of them are measured."))
    if degrees is not None and degrees["in_none"] > _LOST * degrees["rows"]:
        found.append(
            Finding(
                LOOK,
                f"To {degrees['in_none']:,} of {degrees['rows']:,} rows no link of level 0 leads.",
                "compact() links all rows anew.",
            )
        )
    # what was removed and not used again takes room and makes walks longer
    if told["removed"] > _REMOVED * (rows + told["removed"]):
        found.append(
            Finding(
                LOOK,
                f"{told['removed']:,} removed rows still take room beside {rows:,} that are there.",
                "compact() gives it back.",
            )
        )
    copies = numbers["structure"]["copies"]
    if copies > _COPIES * rows:
        found.append(
            Finding(
                LOOK,
                f"{copies:,} rows equal earlier ones exactly.",
                "Results hold them all; Index.duplicates lists them.",
            )
        )
    return found
