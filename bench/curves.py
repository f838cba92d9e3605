"""Numbers out of results: statistics of repeated runs, and speed at a given recall."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

Record = dict[str, Any]

RECALLS = (0.90, 0.95, 0.99, 0.999)


class Level(NamedTuple):
    """Queries per second at a recall; `at_least` if even the narrowest search exceeds the recall.

    Then nothing was measured below, and the speed of that narrowest search is a lower bound.
    """

    qps: float
    at_least: bool = False


def stats(values: Sequence[float]) -> dict[str, Any]:
    """Return median, min, max, spread ((max - min) / median) and the values themselves."""
    middle = statistics.median(values)
    return {
        "median": middle,
        "min": min(values),
        "max": max(values),
        "spread": (max(values) - min(values)) / middle if middle else 0.0,
        "values": list(values),
    }


def qps_at(points: Iterable[tuple[float, float]], recall: float) -> Level | None:
    """Return the speed at a recall, between the two measured points that enclose it.

    Parameters
    ----------
    points : iterable of (recall, queries per second)
        One sweep over the search width, in any order.
    recall : float
        The recall asked for, in (0, 1].

    Returns
    -------
    Level or None
        log(QPS) is interpolated linearly over recall, between points that no other point beats
        in both. None if the sweep never reaches the recall; nothing is extrapolated.
    """
    ordered: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda point: (-point[0], -point[1])):
        if not ordered or point[1] > ordered[-1][1]:
            ordered.append(point)
    ordered.reverse()
    reaching = [i for i, point in enumerate(ordered) if point[0] >= recall]
    if not reaching:
        return None
    after = reaching[0]
    high_recall, high_qps = ordered[after]
    if after == 0 or high_recall == recall:
        return Level(high_qps, at_least=high_recall > recall)
    low_recall, low_qps = ordered[after - 1]
    share = (recall - low_recall) / (high_recall - low_recall)
    return Level(math.exp((1 - share) * math.log(low_qps) + share * math.log(high_qps)))


def read(paths: Iterable[str | Path]) -> list[Record]:
    """Return the records of one or more results files, in order."""
    records: list[Record] = []
    for path in paths:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        records.extend(json.loads(line) for line in lines if line.strip())
    return records


def select(records: Iterable[Record], kind: str, **wanted: Any) -> list[Record]:
    """Return the records of a kind whose fields have the given values."""
    of_kind = (record for record in records if record["kind"] == kind)
    return [r for r in of_kind if all(r.get(name) == value for name, value in wanted.items())]


def names(records: Iterable[Record], field: str) -> list[str]:
    """Return the distinct values of a field in the order they first appear."""
    return list(dict.fromkeys(r[field] for r in records if field in r))


def sweep(
    records: Iterable[Record], data: str, index: str, mode: str, threads: int
) -> list[Record]:
    """Return the search records of one curve, narrowest search first."""
    found = select(records, "search", data=data, index=index, mode=mode, threads=threads)
    return sorted(found, key=lambda record: record["ef"])


def level(
    records: Iterable[Record], data: str, index: str, recall: float, mode: str, threads: int
) -> Level | None:
    """Return the speed of one index at a recall, by the medians of its runs."""
    curve = sweep(records, data, index, mode, threads)
    return qps_at([(r["recall"], r["qps"]["median"]) for r in curve], recall)


def ratio(ours: Level | None, theirs: Level | None) -> float | None:
    """Return how many times faster, or None where one of the two is missing or only a bound.

    A lower bound of ours over a measured value of theirs is a lower bound of the ratio, and is
    returned; a lower bound of theirs says nothing and gives None.
    """
    if ours is None or theirs is None or theirs.at_least:
        return None
    return ours.qps / theirs.qps
