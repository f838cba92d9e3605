"""Commands that move vectors: convert and export."""

from __future__ import annotations

from typing import Any

import click

import vicinal
from vicinal.cli._shared import (
    USAGE,
    emit,
    failure,
    index_option,
    index_parameters,
    json_option,
    may_write,
    open_index,
    open_source,
    output_option,
    progress,
    source_options,
    talk,
    threads_option,
)
from vicinal.vectors_io import FORMATS, write_vectors
from vicinal.vectors_io._foreign import LIBRARIES, open_foreign
from vicinal.vectors_io._open import format_of

__all__ = ["COMMANDS"]


@click.command()
@index_option
@output_option(True, f"File of vectors: .{', .'.join(FORMATS)}.")
@click.option("--ids", type=click.Path(), help="A .npy file for the ids.")
@json_option
def export(file: str, output: str, force: bool, ids: str | None, as_json: bool) -> None:
    """Write the vectors of the index in FILE to a file of vectors.

    .npz, .safetensors, .parquet, .feather and .hdf5 files hold the ids as well.
    """
    for path in (output, ids):
        if path is not None:
            may_write(path, force)
    index = open_index(file)
    write_vectors(output, index, ids_path=ids)
    emit(
        as_json,
        {"file": output, "rows": len(index), "ids": ids},
        [f"{output}: {len(index)} rows of {index.dim}"],
    )


@click.command()
@click.argument("source", type=click.Path())
@output_option(True, "Index to write, or a file of vectors if its name says so.")
@click.option("--from", "library", type=click.Choice(LIBRARIES), help="Whose index SOURCE is.")
@source_options
@index_parameters
@threads_option
@json_option
def convert(
    source: str,
    output: str,
    force: bool,
    library: str | None,
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
    """Take vectors and ids out of another library's index, or out of a file of vectors.

    Another library's index is opened by that library, which has to be installed, and which trusts
    the file: convert only files of your own. Its graph is left behind: an index is built anew.
    """
    may_write(output, force)
    if library is None:
        opened = open_source(source, **reading)
    else:
        if any(reading[name] for name in ("vectors", "ids", "format", "raw_dtype")):
            raise failure("--from: expected none of the options for files of vectors", USAGE)
        opened = open_foreign(source, library, metric=metric, dim=reading["dim"])
        for note in opened.notes:
            talk(note)
    with opened:
        if format_of(output) is not None:
            write_vectors(output, opened)
            rows = len(opened)
        else:
            index = vicinal.build(
                opened,
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
            index.save(output)
            rows = len(index)
    emit(
        as_json,
        {"file": output, "rows": rows, "from": library or opened.format},
        [f"{output}: {rows} rows of {opened.shape[1]}"],
    )


COMMANDS = (export, convert)
