"""The sections of the page: what each plot shows, and its numbers for who cannot see it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from vicinal.report._blocks import duration, figure, figures, short_time, size, table
from vicinal.report._findings import default_recall, percent
from vicinal.report._svg import Series, bars, curves, scatter

__all__ = ["Section", "default_speed", "sections"]


class Section(NamedTuple):
    """A part of the page; without a body it is left out."""

    name: str
    title: str
    body: str


def sections(numbers: dict[str, Any]) -> list[Section]:
    """Return all parts of the page in their order."""
    if "stopped_by" in numbers:
        return [Section("parameters", "What it is", _parameters(numbers))]
    return [
        Section("map", "Where it is weak", _map(numbers)),
        Section("recall", "Recall and speed", _recall(numbers)),
        Section("latency", "Latency", _latency(numbers)),
        Section("beside", "Beside other libraries", _beside(numbers)),
        Section("filters", "Filters", _filters(numbers)),
        Section("drift", "Since it was tuned", _drift(numbers)),
        Section("memory", "Memory", _memory(numbers)),
        Section("graph", "Degrees and levels", _graph(numbers)),
        Section("distances", "Distances, duplicates and codes", _distances(numbers)),
        Section("parameters", "What it is", _parameters(numbers)),
    ]


def default_speed(numbers: dict[str, Any]) -> dict[str, Any]:
    """Return the times at the width of searches that give none."""
    width = default_recall(numbers)["ef_search"]
    found: dict[str, Any] = next(e for e in numbers["speed"] if e["ef_search"] == width)
    return found


def _map(numbers: dict[str, Any]) -> str:
    told = numbers["map"]
    caption = (
        f"{told['never_found']:,} of {told['sought_rows']:,} rows that were true neighbours were "
        "never found. The two directions in which the rows vary most; they show "
        f"{percent(told['variance_shown'])} of the variance, so what looks near need not be."
    )
    title = "Rows, by how often searches find them where they belong into the result"
    shares = told["found_share"]
    bands: tuple[tuple[str, float, float], ...] = (
        ("always", 0.999, 2),
        ("mostly", 0.8, 0.999),
        ("about half", 0.4, 0.8),
        ("seldom or never", -1, 0.4),
    )
    rows = [
        (name, f"{sum(low <= share < high for share in shares):,}") for name, low, high in bands
    ]
    plot = scatter(title, told, says=caption)
    return figures(figure(title, plot, caption, table(title, ("found", "rows drawn"), rows)))


def _recall(numbers: dict[str, Any]) -> str:
    recall, speed, k = numbers["recall"], numbers["speed"], numbers["k"]
    at = [
        f"ef_search {r['ef_search']}: recall {r['recall']:.4f} ({r['low']:.4f} to {r['high']:.4f}),"
        f" {s['queries_per_second']:,.0f} queries a second"
        for r, s in zip(recall, speed, strict=True)
    ]
    kind = {"given": "queries that were given", "kept": "queries that the index keeps",
            "assumed": "stored rows as queries"}[numbers["queries"]["kind"]]  # fmt: skip
    rows = [
        (
            f"{r['ef_search']}{' (default)' if r['is_default'] else ''}",
            f"{r['recall']:.4f}",
            f"{r['low']:.4f} to {r['high']:.4f}",
            f"{s['queries_per_second']:,.0f}",
            f"{s['batch_queries_per_second']:,.0f}",
        )
        for r, s in zip(recall, speed, strict=True)
    ]
    told = table(
        f"{numbers['queries']['count']:,} {kind}, k {k}",
        ("ef_search", "recall", "95 % interval", "queries/s, 1 thread",
         f"queries/s, {numbers['threads']} threads"),
        rows,
    )  # fmt: skip
    by_width = Series(
        "recall",
        [(r["ef_search"], r["recall"]) for r in recall],
        at,
        [(r["low"], r["high"]) for r in recall],
    )
    both = Series(
        "Vicinal",
        [(r["recall"], s["queries_per_second"]) for r, s in zip(recall, speed, strict=True)],
        at,
    )
    shares = numbers["shares"]
    bins = len(shares)
    names = [str(i) if bins == k + 1 else f"{i / bins:.0%}" for i in range(bins - 1)]
    groups = [*names, f"all {k}" if bins == k + 1 else "most"]
    return told + figures(
        figure(
            "Recall over search width",
            curves("Recall over search width", [by_width], "ef_search", "recall", x_log=True,
                   says=f"{rows[0][1]} at {rows[0][0]} to {rows[-1][1]} at {rows[-1][0]}"),
            "The band is the interval that holds the recall of all such queries at 95 %.",
        ),
        figure(
            "Speed against recall",
            curves("Speed against recall", [both], "recall", "queries a second", y_log=True,
                   says="; ".join(at)),
            "One query a call, one thread, fastest of three rounds; up and right is better.",
        ),
        figure(
            "Queries, by how much each finds",
            bars("Queries by neighbours found", groups, [("queries", shares)],
                 "true neighbours found", "queries", every=max(1, bins // 10),
                 says=f"{shares[-1]} of {sum(shares)} queries are in the last bar"),
            "At the default width. Many that find nothing mean lost regions or queries of another "
            "kind; few missing here and there are what approximate search is.",
        ),
    )  # fmt: skip


def _latency(numbers: dict[str, Any]) -> str:
    warm, cold, scan = default_speed(numbers), numbers["cold"], numbers["scan"]
    rows = [
        (name, *(duration(each[p]) for p in ("p50", "p95", "p99", "mean")), f"{each['calls']:,}")
        for name, each in (("warm", warm), ("cold", cold), ("exact scan", scan))
    ]
    told = table(
        f"One query a call, one thread, ef_search {warm['ef_search']}",
        ("searches", "half below", "95 % below", "99 % below", "mean", "calls"),
        rows,
    )
    width = numbers["speed"]
    lines = [
        Series(name, [(s["ef_search"], s[p] * 1e6) for s in width],
               [f"ef_search {s['ef_search']}: {duration(s[p])}" for s in width])
        for name, p in (("half below", "p50"), ("95 %", "p95"), ("99 %", "p99"))
    ]  # fmt: skip
    return told + figures(
        figure(
            "Warm searches",
            bars("Latency of warm searches", [short_time(e) for e in warm["edges"][:-1]],
                 [("calls", warm["histogram"])], "time of a call from", "calls", every=8,
                 says=f"half below {duration(warm['p50'])}, 99 % below {duration(warm['p99'])}"),
            "What is above three times the 95th percentile is in the last bar.",
        ),
        figure(
            "Cold searches",
            bars("Latency of cold searches", [short_time(e) for e in cold["edges"][:-1]],
                 [("calls", cold["histogram"])], "time of a call from", "calls", every=8,
                 says=f"half below {duration(cold['p50'])}, 99 % below {duration(cold['p99'])}"),
            "The first searches after opening. "
            + ("The system was asked to drop the file from memory" if
               cold["asked_system_to_drop_pages"] else "The file could not be dropped from memory")
            + f"; {size(cold['bytes_in_memory_before'])} of it were there when it was opened, "
            f"{size(cold['bytes_in_memory_after'])} afterwards.",
        ),
        figure(
            "Latency over search width",
            curves("Latency over search width", lines, "ef_search", "microseconds",
                   x_log=True, y_log=True, says="percentiles of one call at each width"),
            "Warm.",
        ),
    )  # fmt: skip


def _filters(numbers: dict[str, Any]) -> str:
    told = numbers["filters"]
    if not told:
        return ""
    names = {"scan": "scan of the allowed", "beam": "walk", "two_hop": "walk by two links",
             "scan_after_walk": "walk, then scan"}  # fmt: skip
    rows = [
        (
            f"{each['share']:.1%}",
            f"{each['rows']:,}",
            ", ".join(f"{names[plan]} {count}" for plan, count in each["plans"].items()) or "none",
            duration(each["p50"]),
            duration(each["p99"]),
            f"{each['recall']:.4f}",
        )
        for each in told
    ]
    return (
        "<p>Searches confined to rows drawn at random. Which plan is taken is decided for each "
        "query from how many rows are allowed.</p>"
    ) + table(
        "40 queries a line at the default width, one thread",
        ("allowed", "rows", "plan, queries", "half below", "99 % below", "recall"),
        rows,
    )


def _drift(numbers: dict[str, Any]) -> str:
    if not numbers["drift"]:
        return (
            "<p>It was never tuned: searches with <code>recall=</code> need "
            "<code>Index.tune</code> first.</p>"
        )
    rows = [
        (
            f"{each['recall_wanted']:g} of {each['k']}",
            str(each["ef_search"]),
            f"{each['rows_then']:,}",
            f"{each['then']:.4f}",
            f"{each['rows_now']:,}",
            f"{each['now']:.4f} ({each['now_low']:.4f} to {each['now_high']:.4f})",
            "tune again" if each["stale"] or each["now_high"] < each["recall_wanted"] else "holds",
        )
        for each in numbers["drift"]
    ]
    kind = numbers["drift"][0]["queries_now"]
    return table(
        "Measured now with "
        + ("queries as tune assumes them" if kind == "assumed" else f"the queries that were {kind}")
        + "; other queries than those it was tuned with find more or less",
        (
            "recall wanted",
            "ef_search",
            "rows then",
            "found then",
            "rows now",
            "found now",
            "verdict",
        ),
        rows,
    )


def _memory(numbers: dict[str, Any]) -> str:
    parts = numbers["memory"]
    names = [(n, parts[n]) for n in ("vectors", "codes", "graph", "ids", "id_strings") if parts[n]]
    whole = sum(value for _, value in names) or 1
    rows = [(name, size(value), f"{value / whole:.1%}") for name, value in names]
    rows.append(("resident now", size(parts["resident"]), ""))
    rows.append(("scratch of searches", size(parts["scratch"]), ""))
    sizes = sorted(numbers["structure"]["section_bytes"].items(), key=lambda each: -each[1])
    in_file = table("Sections of the file", ("section", "bytes"),
                    [(name, f"{value:,}") for name, value in sizes])  # fmt: skip
    plot = bars("Memory by part", [name for name, _ in names],
                [("bytes", [value for _, value in names])], "part", "bytes",
                says=", ".join(f"{name} {size(value)}" for name, value in names))  # fmt: skip
    return figures(
        figure("By part", plot, f"{size(numbers['index']['file_bytes'])} on disk.",
               table("Memory by part", ("part", "bytes", "share"), rows) + in_file)
    )  # fmt: skip


def _graph(numbers: dict[str, Any]) -> str:
    degrees, levels = numbers["structure"]["degrees"], numbers["structure"]["levels"]
    if degrees is None or not levels:
        return "<p>There is no graph: all rows are measured.</p>"
    out, into = degrees["out"], degrees["in"]
    names = [str(b["from"]) if b["from"] == b["to"] else f"{b['from']}+" for b in into]
    quantiles = table(
        "Links that lead to a row", ("share of rows", "links or fewer"),
        [(name, f"{value:,}") for name, value in degrees["in_quantiles"].items()],
    )  # fmt: skip
    level_rows = [
        (str(each["level"]), f"{each['rows']:,}", f"{each['expected']:,.1f}") for each in levels
    ]
    return figures(
        figure(
            "Links from a row",
            bars("Links from a row", [str(i) for i in range(len(out))], [("rows", out)],
                 "links on level 0", "rows", every=max(1, len(out) // 8),
                 says=f"{degrees['out_mean']:.1f} on average, at most {degrees['most_links']}"),
            f"{degrees['out_mean']:.1f} on average, at most {degrees['most_links']}.",
        ),
        figure(
            "Links to a row",
            bars("Links to a row", names, [("rows", [b["rows"] for b in into])],
                 "links on level 0, from", "rows", every=1 + len(into) // 9,
                 says=f"{degrees['in_none']} rows have none"),
            f"To {degrees['in_none']:,} of {degrees['rows']:,} rows no link of level 0 leads: "
            "searches hardly find them. The row that most links lead to has "
            f"{degrees['in_quantiles']['most']:,}.",
            quantiles,
        ),
        figure(
            "Rows of each level",
            bars("Rows of each level", [str(each["level"]) for each in levels],
                 [("there", [each["rows"] for each in levels]),
                  ("on average of such drawings", [each["expected"] for each in levels])],
                 "level", "rows", y_log=True,
                 says="; ".join(f"level {a}: {b} rows" for a, b, _ in level_rows)),
            "Levels are drawn; each has about M times fewer rows than the one below.",
            table("Rows of each level", ("level", "rows", "on average"), level_rows),
        ),
    )  # fmt: skip


def _distances(numbers: dict[str, Any]) -> str:
    told, structure = numbers["distances"], numbers["structure"]
    nearest = told["nearest"]
    rows = [("rows equal to an earlier one", f"{structure['copies']:,}"),
            ("rows that others equal", f"{structure['originals_of_copies']:,}")]  # fmt: skip
    if told["zero"] is not None:
        rows.append(("queries with a row at distance 0", percent(told["zero"])))
    if nearest["median"] is not None:
        rows.append(("nearest row of a query, median", f"{nearest['median']:.4g}"))
    if told.get("nearest_of_rows_median") is not None:
        rows.append(("nearest other row of a row, median", f"{told['nearest_of_rows_median']:.4g}"))
    codes = numbers["codes"]
    if codes is not None:
        rows += [
            ("codes: error of an estimate, median", f"{codes['median']:.3f} of the spread"),
            ("codes: error of an estimate, 95 % below", f"{codes['p95']:.3f} of the spread"),
            ("codes: true nearest among the nearest by estimate", percent(codes["same_nearest"])),
        ]
    plot = bars(
        "Distance of the nearest row", [f"{edge:.3g}" for edge in nearest["edges"][:-1]],
        [("queries", nearest["counts"])], "distance from", "queries", every=8,
        says=f"median {nearest['median']}",
    )  # fmt: skip
    return table("The spread is the standard deviation of the distances of a search's candidates",
                 ("what", "value"), rows) + figures(
        figure("Distance of the nearest row", plot, "True distances, as the index gives them.")
    )  # fmt: skip


def _parameters(numbers: dict[str, Any]) -> str:
    hidden = ("file", "resident", "tuning_stale")
    rows = [
        (name.replace("_", " "), f"{value:,}" if type(value) is int else str(value))
        for name, value in numbers["index"].items()
        if name not in hidden and value is not None
    ]
    return table("Parameters and counts", ("name", "value"), rows)


def _beside(numbers: dict[str, Any]) -> str:
    told = numbers.get("beside")
    if not told:
        return ""
    walks = [each for each in told if len(each["curve"]) > 1]
    default = default_recall(numbers)["ef_search"]

    def at(each: dict[str, Any]) -> dict[str, Any]:
        curve = each["curve"]
        found: dict[str, Any] = min(curve, key=lambda point: abs(point["ef_search"] - default))
        return found

    names = [each["name"] for each in told]
    points = [at(each) for each in told]

    def lines(x: str, y: str, of: Sequence[dict[str, Any]]) -> list[Series]:
        return [
            Series(each["name"], [(p[x], p[y]) for p in each["curve"]],
                   [f"{each['name']}, ef_search {p['ef_search']}: recall {p['recall']:.4f}, "
                    f"{p['queries_per_second']:,.0f} queries a second" for p in each["curve"]])
            for each in of
        ]  # fmt: skip

    rows = [
        (
            f"{each['name']} {each['version'] or ''}".strip(),
            "" if not p["ef_search"] else str(p["ef_search"]),
            f"{p['recall']:.4f}",
            f"{p['queries_per_second']:,.0f}",
            duration(p["p50"]),
            duration(p["p99"]),
            duration(each["build"]) if each["build"] else "",
        )
        for each in told
        for p in each["curve"]
    ]
    says = "; ".join(f"{row[0]} {row[1]}: recall {row[2]}, {row[3]} a second" for row in rows)
    same = f"ef_search {default}; brute force has none"
    return (
        "<p>The same rows, M, ef_construction and queries; one query a call on one thread. A width "
        "means something else to each library: compare at equal recall.</p>"
    ) + figures(
        figure("Speed against recall", curves("Speed against recall", lines(
            "recall", "queries_per_second", told), "recall", "queries a second", y_log=True,
            says=says), "Up and to the right is better.", table("All points",
            ("library", "ef_search", "recall", "queries/s", "half below", "99 % below", "build"),
            rows)),
        figure("Recall over search width", curves("Recall over search width", lines(
            "ef_search", "recall", walks), "ef_search", "recall", x_log=True, says=says),
            "The sweep of ef_search."),
        figure("Latency", bars("Latency", names, [("half below", [p["p50"] * 1e6 for p in points]),
            ("99 % below", [p["p99"] * 1e6 for p in points])], "", "microseconds", y_log=True,
            says=says), same),
        figure("Throughput", bars("Throughput", names, [("queries a second",
            [p["queries_per_second"] for p in points])], "", "queries a second", y_log=True,
            says=says), same),
        figure("Recall", bars("Recall", names, [("recall", [p["recall"] for p in points])], "",
            "recall", says=says), same),
        figure("Time to build", bars("Time to build", [e["name"] for e in walks], [("seconds",
            [e["build"] for e in walks])], "", "seconds",
            says="; ".join(f"{e['name']} {duration(e['build'])}" for e in walks)),
            f"{numbers['threads']} threads."),
    )  # fmt: skip
