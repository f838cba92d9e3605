"""Commands that search: search, recall, bench, trace, why-not."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from typing import Any

import click
import numpy as np

import vicinal
from vicinal.cli._shared import (
    USAGE,
    emit,
    failure,
    given_ids,
    index_option,
    json_option,
    may_write,
    one_vector,
    open_index,
    open_queries,
    output_option,
    talk,
    threads_option,
)
from vicinal.vectors_io._write import table_of_result, texts, whole_file

__all__ = ["COMMANDS"]

_RESULTS = ("npy", "npz", "parquet", "jsonl")


def _query_options(function: Any) -> Any:
    for option in (
        click.option("--query-vectors", help='Array of the queries; "test" of an HDF5 file.'),
        click.option("--queries", type=click.Path(), help="A file of queries."),
    ):
        function = option(function)
    return function


@click.command()
@index_option
@_query_options
@click.option("--vector", help="One query: numbers, or - for stdin.")
@click.option("-k", type=int, default=10, show_default=True, help="Neighbours of each query.")
@click.option("--ef", type=int, help="Search width.")
@click.option("--recall", type=float, help="In place of --ef: a recall tuned for.")
@click.option("--filter-ids", type=click.Path(), help="File of ids that may be found.")
@output_option(False, "File for the results: .npy (ids), .npz, .parquet or .jsonl.")
@click.option("--distances", type=click.Path(), help="A .npy file for the distances.")
@threads_option
@json_option
def search(
    file: str,
    queries: str | None,
    query_vectors: str | None,
    vector: str | None,
    k: int,
    ef: int | None,
    recall: float | None,
    filter_ids: str | None,
    output: str | None,
    force: bool,
    distances: str | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Find the k nearest vectors of each query in the index in FILE.

    Without -o a line for each neighbour: query, id, distance. With --json a line for each query.
    """
    if (queries is None) == (vector is None):
        raise click.UsageError("expected either --queries or --vector")
    kind = None if output is None else output.rpartition(".")[2].lower()
    if kind is not None and kind not in _RESULTS:
        raise failure(f"-o: expected a file .{', .'.join(_RESULTS)}, got {output}", USAGE)
    for path in (output, distances):
        if path is not None:
            may_write(path, force)
    index = open_index(file)
    options: dict[str, Any] = {"ef_search": ef, "recall": recall, "num_threads": threads}
    if filter_ids is not None:
        options["filter"] = given_ids(index, (), filter_ids)
    if vector is not None:
        batches: Any = [one_vector(vector).reshape(1, -1)]
    else:
        source = open_queries(str(queries), query_vectors)
        batches = (vectors for vectors, _ in source.pieces(10_000))
    found: list[vicinal.SearchResult] = []
    start = 0
    for batch in batches:
        result = index.search(batch, k, **options)
        if output is None and distances is None:
            _print(result, start, as_json)
        else:
            found.append(result)
        start += len(batch)
    if output is None and distances is None:
        return
    ids = np.concatenate([r.ids for r in found]) if found else np.empty((0, k), np.int64)
    far = np.concatenate([r.distances for r in found]) if found else np.empty((0, k), "f4")
    if output is not None:
        _write(output, str(kind), ids, far)
    if distances is not None:
        with whole_file(distances) as stream:
            np.lib.format.write_array(stream, far, allow_pickle=False)
    talk(f"{len(ids)} queries, {k} neighbours each")
    if as_json:
        emit(True, {"queries": len(ids), "k": k, "output": output, "distances": distances})


def _lines(ids: Any, distances: Any, start: int) -> Any:
    for query, (names, far) in enumerate(zip(ids, distances, strict=True), start):
        there = np.isfinite(far)
        yield query, names[there].tolist(), far[there].tolist()


def _print(found: vicinal.SearchResult, start: int, as_json: bool) -> None:
    for query, names, far in _lines(found.ids, found.distances, start):
        if as_json:
            click.echo(json.dumps({"query": query, "ids": names, "distances": far}))
        else:
            for name, distance in zip(names, far, strict=True):
                click.echo(f"{query}\t{name}\t{distance:.6g}")


def _write(path: str, kind: str, ids: Any, distances: Any) -> None:
    with whole_file(path) as file:
        if kind == "jsonl":
            for query, names, far in _lines(ids, distances, 0):
                line = json.dumps({"query": query, "ids": names, "distances": far})
                file.write(line.encode() + b"\n")
            return
        if kind == "parquet":
            table = table_of_result(ids, distances)
            from vicinal.vectors_io._source import extra

            extra("pyarrow.parquet", "arrow", "a Parquet file").write_table(table, file)
            return
        if ids.dtype.kind == "O":
            ids = texts(np.where(np.isfinite(distances), ids, ""))
        if kind == "npy":
            np.lib.format.write_array(file, ids, allow_pickle=False)
        else:
            np.savez(file, ids=ids, distances=distances)


@click.command()
@index_option
@_query_options
@click.option("--truth", type=click.Path(), help="True ids, nearest first (.npy, .ivecs, .ibin …).")
@click.option("--truth-vectors", help='Array of the truth; "neighbors" of an HDF5 file.')
@click.option("-k", type=int, default=10, show_default=True)
@click.option("--ef", type=int, help="Search width.")
@click.option("--sample", type=int, default=1000, show_default=True, help="Queries to measure.")
@threads_option
@json_option
def recall(
    file: str,
    queries: str | None,
    query_vectors: str | None,
    truth: str | None,
    truth_vectors: str | None,
    k: int,
    ef: int | None,
    sample: int,
    threads: int | None,
    as_json: bool,
) -> None:
    """Measure the share of the true neighbours that searches find.

    Without --queries stored rows are looked for, without --truth it is computed.
    """
    index = open_index(file)
    asked = _read_queries(queries, query_vectors)
    if truth is None:
        measured = index.measure_recall(asked, k, sample, ef_search=ef, num_threads=threads)
        emit(
            as_json,
            dataclasses.asdict(measured),
            [
                f"recall@{k} {measured.recall:.4f} ({measured.low:.4f} to {measured.high:.4f}), "
                f"ef_search {measured.ef_search}, {measured.sample} queries"
            ],
        )
        return
    if asked is None:
        raise click.UsageError("--truth: expected --queries as well")
    true = _read_truth(truth, truth_vectors, len(asked), k)
    found = index.search(asked, k, ef_search=ef, num_threads=threads)
    share = vicinal.recall_at_k(found.ids, true)
    width = index.ef_search if ef is None else ef
    emit(
        as_json,
        {"recall": share, "k": k, "ef_search": width, "sample": len(asked)},
        [f"recall@{k} {share:.4f}, ef_search {width}, {len(asked)} queries"],
    )


def _read_queries(path: str | None, name: str | None) -> Any:
    if path is None:
        return None
    with open_queries(path, name) as source:
        return source.read()


def _read_truth(path: str, name: str | None, queries: int, k: int) -> Any:
    from vicinal.vectors_io._open import format_of

    if name is None and format_of(path) == "hdf5":
        name = "neighbors"
    with vicinal.read_vectors(path, name) as source:
        if len(source) != queries or source.shape[1] < k:
            raise failure(
                f"{path}: expected true ids of shape ({queries}, {k} or more), got {source.shape}",
                USAGE,
            )
        return source.read()


@click.command()
@index_option
@_query_options
@click.option("--truth", type=click.Path(), help="True ids; computed if not given.")
@click.option("--truth-vectors", help='Array of the truth; "neighbors" of an HDF5 file.')
@click.option("-k", type=int, default=10, show_default=True)
@click.option("--ef", "widths", default="16,32,64,128", show_default=True, help="Search widths.")
@click.option("--sample", type=int, default=1000, show_default=True, help="Queries to use.")
@click.option("--repeats", type=int, default=3, show_default=True, help="Runs; the median counts.")
@threads_option
@json_option
def bench(
    file: str,
    queries: str | None,
    query_vectors: str | None,
    truth: str | None,
    truth_vectors: str | None,
    k: int,
    widths: str,
    sample: int,
    repeats: int,
    threads: int | None,
    as_json: bool,
) -> None:
    """Measure recall and speed at several search widths, on this machine.

    Without --queries stored rows are searched for, which are easier to find than new ones.
    """
    index = open_index(file)
    asked = _read_queries(queries, query_vectors)
    if asked is None:
        ids = index.ids
        some = np.random.default_rng(0).choice(len(ids), min(sample, len(ids)), replace=False)
        asked = index.get(ids[np.sort(some)])
    true = None
    if truth is not None:
        true = _read_truth(truth, truth_vectors, len(asked), k)[:sample]
    asked = asked[:sample]
    if true is None:
        # a search that wide is answered by a scan
        true = index.search(asked, k, ef_search=2**31 - 1, num_threads=threads).ids
    try:
        chosen = [int(width) for width in widths.split(",")]
    except ValueError:
        raise failure(
            f"--ef: expected whole numbers, commas between, got {widths}", USAGE
        ) from None
    lines, results = [f"{'ef':>6} {'recall':>8} {'queries/s':>11}"], []
    for width in chosen:
        seconds = []
        for _ in range(repeats):
            begin = time.perf_counter()
            found = index.search(asked, k, ef_search=width, num_threads=threads)
            seconds.append(time.perf_counter() - begin)
        share = _shared(found.ids, true)
        speed = len(asked) / sorted(seconds)[len(seconds) // 2]
        results.append({"ef_search": width, "recall": share, "queries_per_second": speed})
        lines.append(f"{width:6} {share:8.4f} {speed:11.0f}")
    used = threads or vicinal.get_num_threads()
    talk(f"{len(asked)} queries, k {k}, {used} threads, {os.cpu_count()} cores")
    emit(as_json, {"k": k, "queries": len(asked), "threads": used, "results": results}, lines)


def _shared(found: Any, true: Any) -> float:
    if found.dtype.kind != "O":
        return vicinal.recall_at_k(found, true)
    k = found.shape[1]
    hits = [len({*a} & {*b[:k]} - {None}) for a, b in zip(found, true, strict=True)]
    there = sum(name is not None for names in true for name in names[:k])
    return sum(hits) / max(1, there)


def _one_query(vector: str | None, queries: str | None, name: str | None, number: int) -> Any:
    if (vector is None) == (queries is None):
        raise click.UsageError("expected either --queries or --vector")
    if vector is not None:
        return one_vector(vector)
    with open_queries(str(queries), name) as source:
        if not 0 <= number < len(source):
            raise failure(f"--number: expected 0 to {len(source) - 1}, got {number}", USAGE)
        return next(source[number : number + 1].pieces(1))[0][0]


def _one_query_options(function: Any) -> Any:
    for option in (
        click.option("--ef", type=int, help="Search width."),
        click.option("-k", type=int, default=10, show_default=True),
        click.option("--vector", help="The query: numbers, or - for stdin."),
        click.option("--number", default=0, show_default=True, help="Which query of the file."),
    ):
        function = option(function)
    return _query_options(function)


@click.command()
@index_option
@_one_query_options
@json_option
def trace(
    file: str,
    queries: str | None,
    query_vectors: str | None,
    number: int,
    vector: str | None,
    k: int,
    ef: int | None,
    as_json: bool,
) -> None:
    """Show the way of one search through the graph, step by step."""
    index = open_index(file)
    walk = index.trace(_one_query(vector, queries, query_vectors, number), k, ef_search=ef)
    steps = [
        {
            "number": step.number,
            "level": step.level,
            "id": step.id,
            "distance": step.distance,
            "measured": len(step.measured.ids),
            "kept": len(step.beam.ids),
            "evicted": len(step.evicted.ids),
            "visited": step.visited,
        }
        for step in walk
    ]
    summary = {
        name: getattr(walk, name)
        for name in ("k", "ef_search", "width", "scanned", "estimated", "reranked", "rows")
    }
    found = {"ids": walk.result.ids.tolist(), "distances": walk.result.distances.tolist()}
    head = f"{'step':>5} {'level':>5} {'measured':>8} {'kept':>5} {'distance':>11}  id"
    lines = [repr(walk), head]
    for step in steps:
        lines.append(
            f"{step['number']:5} {step['level']:5} {step['measured']:8} {step['kept']:5} "
            f"{step['distance']:11.5g}  {step['id']}"
        )
    emit(as_json, {**summary, "steps": steps, "result": found}, lines)


@click.command("why-not")
@index_option
@click.argument("id")
@_one_query_options
@json_option
def why_not(
    file: str,
    id: str,
    queries: str | None,
    query_vectors: str | None,
    number: int,
    vector: str | None,
    k: int,
    ef: int | None,
    as_json: bool,
) -> None:
    """Say why a search does not find ID, or that it does."""
    index = open_index(file)
    (name,) = given_ids(index, (id,), None)
    query = _one_query(vector, queries, query_vectors, number)
    told = index.why_not(query, name, k, ef_search=ef)
    emit(as_json, {**dataclasses.asdict(told), "said": str(told)}, [str(told)])


@click.command()
@index_option
@click.option("--radius", type=float, required=True, help="Largest distance that counts.")
@click.option("--exact", is_flag=True, help="Measure all pairs.")
@threads_option
@json_option
def duplicates(file: str, radius: float, exact: bool, threads: int | None, as_json: bool) -> None:
    """Put rows of the index in FILE within a distance of each other into groups, one a line."""
    index = open_index(file)
    groups = index.duplicates(radius, exact=exact, num_threads=threads)
    told = [group.tolist() for group in groups]
    lines = ("\t".join(map(str, group)) for group in told)
    emit(as_json, {"file": file, "groups": told, "share_found": groups.share_found}, lines)
    talk(f"{len(told)} groups; {groups.share_found:.4g} of the pairs found")


COMMANDS = (search, recall, bench, trace, why_not, duplicates)
