"""The command `report`."""

from __future__ import annotations

from typing import Any

import click

from vicinal.cli._shared import (
    USAGE,
    emit,
    failure,
    index_option,
    json_option,
    may_write,
    open_queries,
    output_option,
    talk,
    threads_option,
)
from vicinal.vectors_io._write import whole_file

__all__ = ["COMMANDS"]


@click.command()
@index_option
@output_option(help="Page to write, .html.")
@click.option("--queries", type=click.Path(), help="A file of queries.")
@click.option("--query-vectors", help='Array of the queries; "test" of an HDF5 file.')
@click.option("-k", type=int, default=10, show_default=True, help="Neighbours of each query.")
@click.option("--ef", "widths", default="16,32,64,128,256,512", show_default=True, help="Widths.")
@click.option("--sample", type=int, default=500, show_default=True, help="Queries to measure.")
@click.option("--against", help="Libraries to build and measure beside: hnswlib,faiss,usearch.")
@threads_option
@json_option
def report(
    file: str,
    output: str,
    force: bool,
    queries: str | None,
    query_vectors: str | None,
    k: int,
    widths: str,
    sample: int,
    against: str | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Write a page about the index in FILE: recall, speed, memory, and where it is weak."""
    from vicinal.report import measure, page
    from vicinal.report._findings import findings

    may_write(output, force)
    try:
        chosen = [int(width) for width in widths.split(",")]
    except ValueError:
        raise failure(
            f"--ef: expected whole numbers, commas between, got {widths}", USAGE
        ) from None
    asked: Any = None
    if queries is not None:
        with open_queries(queries, query_vectors) as source:
            asked = source.read()
    numbers = measure(
        file,
        asked,
        k,
        widths=chosen,
        sample=sample,
        num_threads=threads,
        against=[name for name in (against or "").split(",") if name],
        progress=talk,
    )
    with whole_file(output) as target:
        target.write(page(numbers).encode("utf-8"))
    told = findings(numbers)
    emit(
        as_json,
        {
            "file": file,
            "output": output,
            "verdict": told[0].level,
            "findings": [each._asdict() for each in told],
        },
        [f"{each.level}: {each.text}" for each in told],
    )


COMMANDS = (report,)
