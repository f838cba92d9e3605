"""Commands that look: info, verify, doctor, version, completion."""

from __future__ import annotations

import dataclasses
import os
import sys
from typing import Any

import click

import vicinal
from vicinal import _levels, _residence
from vicinal.cli._shared import USAGE, WRONG, emit, failure, index_option, json_option, open_index
from vicinal.errors import CorruptError

__all__ = ["COMMANDS"]


@click.command()
@index_option
@json_option
def info(file: str, as_json: bool) -> None:
    """Tell what the index in FILE is: rows, parameters, codes, bytes of each part."""
    index = open_index(file)
    told: dict[str, Any] = dict(index.stats())
    for name in ("read_only", "filtered"):  # of this process, not of the file
        del told[name]
    told["tuned"] = [dataclasses.asdict(tuning) for tuning in told["tuned"]]
    parts = index.memory_usage()
    for name in ("scratch", "borrowed", "total"):
        del parts[name]
    emit(
        as_json,
        {
            "file": file,
            "rows": len(index),
            "attributes": dict(index.attributes),
            **told,
            "file_bytes": os.stat(file).st_size,
            "bytes": parts,
            "resident_bytes": _residence.needs(index._handle),
        },
    )


@click.command()
@index_option
@json_option
def verify(file: str, as_json: bool) -> None:
    """Compare every byte of FILE with its checksums, and check the graph; exit code 1 if wrong."""
    problem = None
    rows = None
    try:
        index = open_index(file, verify=True)
        index.check()
        rows = len(index)
    except CorruptError as error:
        problem = str(error)
    except RuntimeError as error:
        problem = f"{file}: {error}"
    said = f"{file}: {rows} rows, every byte is as it was written" if problem is None else problem
    emit(as_json, {"file": file, "ok": problem is None, "rows": rows, "problem": problem}, [said])
    if problem is not None:
        raise click.exceptions.Exit(WRONG)


@click.command()
@click.option(
    "--level",
    type=click.Choice([*_levels.LEVELS, "all"]),
    help="Check this CPU level, or each that is available, in a process of its own.",
)
@json_option
def doctor(level: str | None, as_json: bool) -> None:
    """Compare every native kernel with a plain reference; exit code 1 on a mismatch."""
    from vicinal import __main__

    if as_json and level is not None:
        raise failure("--json: expected no --level", USAGE)
    code = __main__.doctor_as_json() if as_json else __main__.doctor_of(level)
    raise click.exceptions.Exit(code)


@click.command()
@click.argument("rows", type=int)
@click.argument("dim", type=int)
@click.option(
    "--metric", default="l2", show_default=True, help="l2, ip, cosine, hamming or jaccard."
)
@click.option("--dtype", default="float32", show_default=True, help="What a value is stored as.")
@click.option("-M", "M", type=int, default=16, show_default=True, help="Links of a row.")
@click.option("--time", "as_time", is_flag=True, help="Also measure how long a build takes here.")
@json_option
def estimate(
    rows: int, dim: int, metric: str, dtype: str, M: int, as_time: bool, as_json: bool
) -> None:
    """Tell what an index of ROWS vectors of DIM values will take, in bytes, without building it."""
    told = vicinal.estimate(rows, dim, metric, dtype, M)
    fields = dataclasses.asdict(told)
    if as_time:
        fields["build_seconds"] = dataclasses.asdict(told.build_time())
    emit(as_json, fields)


@click.command()
@json_option
def version(as_json: bool) -> None:
    """Tell the versions of vicinal, its native code and Python."""
    told = {**vicinal.build_info(), "python": sys.version.split()[0]}
    emit(as_json, told, [f"vicinal {vicinal.__version__}"])


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what makes SHELL complete commands: `eval "$(vicinal completion bash)"`."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is None:
        raise failure(f"{shell}: this version of click has no completion for it", USAGE)
    root = ctx.find_root()
    click.echo(kind(root.command, {}, "vicinal", "_VICINAL_COMPLETE").source())


COMMANDS = (info, verify, doctor, estimate, version, completion)
