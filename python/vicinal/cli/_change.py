"""Commands that write an index: build, add, remove, tune, compact, merge."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

import vicinal
from vicinal.cli._shared import (
    emit,
    given_ids,
    index_option,
    index_parameters,
    json_option,
    may_write,
    open_index,
    open_queries,
    open_source,
    output_option,
    progress,
    source_options,
    talk,
    threads_option,
)

__all__ = ["COMMANDS"]

_IN_PLACE = "Index to write; FILE itself by default."


def _target(file: str, output: str | None, force: bool) -> str:
    """Return where the changed index goes: where it came from, or to a file that is new."""
    if output is None:
        return file
    may_write(output, force)
    return output


def _saved(index: vicinal.Index, path: str, as_json: bool, **more: Any) -> None:
    index.save(path)
    emit(
        as_json,
        {"file": path, "rows": len(index), **more},
        [f"{path}: {len(index)} rows of {index.dim} {index.dtype}, {index.metric}"],
    )


@click.command()
@click.argument("source", type=click.Path())
@output_option()
@source_options
@index_parameters
@threads_option
@json_option
def build(
    source: str,
    output: str,
    force: bool,
    metric: str | None,
    dtype: str | None,
    quantization: str,
    m: int,
    ef_construction: int,
    seed: int,
    threads: int | None,
    as_json: bool,
    **reading: Any,
) -> None:
    """Make an index of the vectors in SOURCE."""
    may_write(output, force)
    with open_source(source, **reading) as vectors:
        talk(f"{source}: {vectors.shape[0]} x {vectors.shape[1]} {vectors.dtype}")
        index = vicinal.build(
            vectors,
            metric=metric,
            dtype=dtype,
            quantization=None if quantization.lower() == "none" else quantization,
            M=m,
            ef_construction=ef_construction,
            seed=seed,
            num_threads=threads,
            progress=progress(),
        )
    may_write(output, force)
    _saved(index, output, as_json)


@click.command()
@index_option
@click.argument("source", type=click.Path())
@output_option(False, _IN_PLACE)
@source_options
@click.option(
    "--on-conflict",
    type=click.Choice(["error", "update", "skip"]),
    default="error",
    show_default=True,
    help="What to do about ids that are there already.",
)
@threads_option
@json_option
def add(
    file: str,
    source: str,
    output: str | None,
    force: bool,
    on_conflict: str,
    threads: int | None,
    as_json: bool,
    **reading: Any,
) -> None:
    """Add the vectors in SOURCE to the index in FILE; all of them, or none."""
    target = _target(file, output, force)
    index = open_index(file, "copy")
    before = len(index)
    with open_source(source, **reading) as vectors:
        index.add(vectors, on_conflict=on_conflict, num_threads=threads, progress=progress())
    _saved(index, target, as_json, added=len(index) - before)


@click.command()
@index_option
@click.argument("ids", nargs=-1)
@click.option("--ids-file", type=click.Path(), help="A .npy file, or text with an id on each line.")
@click.option("--missing", type=click.Choice(["error", "ignore"]), default="error")
@output_option(False, _IN_PLACE)
@threads_option
@json_option
def remove(
    file: str,
    ids: tuple[str, ...],
    ids_file: str | None,
    missing: str,
    output: str | None,
    force: bool,
    threads: int | None,
    as_json: bool,
) -> None:
    """Remove IDS from the index in FILE; all of them, or none."""
    if not ids and ids_file is None:
        raise click.UsageError("expected ids, or --ids-file")
    target = _target(file, output, force)
    index = open_index(file, "copy")
    before = len(index)
    index.remove(given_ids(index, ids, ids_file), missing=missing, num_threads=threads)
    _saved(index, target, as_json, removed=before - len(index))


@click.command()
@index_option
@click.option("--recall", type=float, default=0.95, show_default=True)
@click.option("-k", type=int, default=10, show_default=True)
@click.option("--queries", type=click.Path(), help="Queries as they will come; stored rows if not.")
@click.option("--sample", type=int, default=1000, show_default=True)
@output_option(False, _IN_PLACE)
@threads_option
@json_option
def tune(
    file: str,
    recall: float,
    k: int,
    queries: str | None,
    sample: int,
    output: str | None,
    force: bool,
    threads: int | None,
    as_json: bool,
) -> None:
    """Find the least search width that reaches a recall, and keep it in FILE."""
    target = _target(file, output, force)
    index = open_index(file, "copy")
    found = index.tune(recall, k, _all_of(queries), sample=sample, num_threads=threads)
    index.save(target)
    measured = found.measured
    emit(
        as_json,
        {"file": target, **dataclasses.asdict(found)},
        [
            f"ef_search {found.ef_search}: recall@{k} {measured.recall:.4f} "
            f"({measured.low:.4f} to {measured.high:.4f}), {measured.sample} queries"
            + ("" if found.held is None else f"; ends at {found.far:.3f} times the k-th distance")
        ],
    )


def _all_of(path: str | None) -> Any:
    if path is None:
        return None
    with open_queries(path, None) as source:
        return source.read()


@click.command()
@index_option
@output_option(False, _IN_PLACE)
@threads_option
@json_option
def compact(file: str, output: str | None, force: bool, threads: int | None, as_json: bool) -> None:
    """Build the index in FILE anew, in as little room as it needs."""
    target = _target(file, output, force)
    index = open_index(file, "copy")
    index.compact(num_threads=threads, progress=progress())
    _saved(index, target, as_json)


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path())
@output_option()
@threads_option
@json_option
def merge(
    files: tuple[str, ...], output: str, force: bool, threads: int | None, as_json: bool
) -> None:
    """Make one index of several FILES that have no id in common."""
    if len(files) < 2:
        raise click.UsageError("expected two files or more")
    may_write(output, force)
    index = vicinal.merge(*(open_index(file) for file in files), num_threads=threads)
    may_write(output, force)
    _saved(index, output, as_json)


COMMANDS = (build, add, remove, tune, compact, merge)
