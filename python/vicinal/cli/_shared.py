"""What all commands share: exit codes, output, options, files in and out."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from typing import Any, NoReturn, TypeVar

import click
import numpy as np

import vicinal
from vicinal.errors import FormatError
from vicinal.vectors_io import RowError, VectorSource, read_vectors

__all__ = [
    "UNREADABLE",
    "USAGE",
    "WRONG",
    "Commands",
    "emit",
    "failure",
    "given_ids",
    "index_option",
    "may_write",
    "open_index",
    "open_queries",
    "output_option",
    "progress",
    "source_options",
    "talk",
]

# Exit codes; 0 is success.
WRONG = 1  # something was found that is not as it must be
USAGE = 2
UNREADABLE = 3  # a file cannot be read or written, or is damaged
INTERRUPTED = 130
CLOSED_PIPE = 141  # what a shell reports of a program that ends on SIGPIPE

F = TypeVar("F", bound=Callable[..., Any])


class _Misuse(click.ClickException):
    exit_code = USAGE


class _Unreadable(click.ClickException):
    exit_code = UNREADABLE


def failure(message: str, exit_code: int) -> click.ClickException:
    """Return an exception that ends the command with a message on stderr and an exit code."""
    return (_Misuse if exit_code == USAGE else _Unreadable)(message)


def _pipe_closed() -> NoReturn:
    # what is left in the buffers goes nowhere, and must not be an error at exit
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
    except (OSError, ValueError, AttributeError):
        pass
    raise click.exceptions.Exit(CLOSED_PIPE)


class Commands(click.Group):
    """A group of commands whose exceptions become exit codes."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; errors that a user can cause become messages."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except BrokenPipeError:
            _pipe_closed()
        except (RowError, FormatError) as error:
            raise failure(str(error), UNREADABLE) from error
        except OSError as error:
            if error.errno == errno.EPIPE:
                _pipe_closed()
            where = f": {os.fsdecode(error.filename)}" if error.filename else ""
            raise failure(f"{error.strerror or error}{where}", UNREADABLE) from error
        except MemoryError as error:
            raise failure(f"out of memory: {error}", UNREADABLE) from error
        except KeyError as error:
            raise failure(str(error.args[0] if error.args else error), USAGE) from error
        except (ValueError, TypeError, ImportError) as error:
            raise failure(str(error), USAGE) from error

    def main(
        self,
        args: Any = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **more: Any,
    ) -> Any:
        """Run and end the process with the exit code; see `click.Command.main`."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, False, **more)
        try:
            code = super().main(args, prog_name, complete_var, False, **more)
        except click.Abort:
            click.echo("vicinal: interrupted; files are as they were", err=True)
            sys.exit(INTERRUPTED)
        except click.ClickException as error:
            error.show()
            sys.exit(error.exit_code)
        sys.exit(code if isinstance(code, int) else 0)


# ---- output: results to stdout, everything else to stderr


def talk(text: str) -> None:
    """Say something that is no result."""
    click.echo(text, err=True)


def emit(as_json: bool, data: dict[str, Any], lines: Iterable[str] | None = None) -> None:
    """Print a result: one JSON object, or lines for people ("name  value" by default)."""
    if as_json:
        click.echo(json.dumps(_plain(data)))
        return
    if lines is None:
        flat = list(_flat(_plain(data)))
        width = max((len(name) for name, _ in flat), default=0)
        lines = [f"{name:{width}}  {value}" for name, value in flat]
    for line in lines:
        click.echo(line)


def _flat(data: dict[str, Any], before: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in data.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield before + name, value


def _plain(value: Any) -> Any:
    """Return what JSON has a form for."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def progress() -> bool:
    """Tell whether a bar is wanted: on a terminal, if tqdm is there."""
    return sys.stderr.isatty() and find_spec("tqdm") is not None


# ---- options


def json_option(function: F) -> F:
    """Add --json."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def threads_option(function: F) -> F:
    """Add --threads."""
    return click.option(
        "--threads",
        type=click.IntRange(1),
        envvar="VICINAL_THREADS",
        help="Threads to use; all cores by default.",
    )(function)


def index_option(function: F) -> F:
    """Add the argument FILE, an index."""
    return click.argument("file", type=click.Path())(function)


def output_option(required: bool = True, help: str = "Index to write.") -> Callable[[F], F]:
    """Add -o and --force."""

    def add(function: F) -> F:
        function = click.option(
            "--force", is_flag=True, help="Replace the file if there is one of that name."
        )(function)
        return click.option("-o", "--output", type=click.Path(), required=required, help=help)(
            function
        )

    return add


def source_options(function: F) -> F:
    """Add what says how to read a file of vectors."""
    options: tuple[Any, ...] = (
        click.option("--vectors", help="Array, column or data set with the vectors, if several."),
        click.option("--ids", help="Column or array with the ids, or a .npy file of them."),
        click.option("--format", help="Format of the file, whatever its name."),
        click.option("--dim", type=int, help="Values in a row of a raw file."),
        click.option("--raw-dtype", help="Type of the values of a raw file."),
    )
    for option in reversed(options):
        function = option(function)
    return function


def index_parameters(function: F) -> F:
    """Add what an index is made with."""
    options: tuple[Any, ...] = (
        click.option(
            "--metric",
            help="l2, ip or cosine; by default what the file names, else l2.",
        ),
        click.option("--dtype", help="Stored type; by default that of the file, or float32."),
        click.option("--quantization", default="auto", show_default=True),
        click.option("--M", "m", type=int, default=16, show_default=True, help="Links."),
        click.option("--ef-construction", type=int, default=200, show_default=True),
        click.option("--seed", type=int, default=0, show_default=True),
    )
    for option in reversed(options):
        function = option(function)
    return function


# ---- files


def may_write(path: str, force: bool) -> None:
    """Refuse to write over a file unless asked to."""
    if not force and os.path.lexists(path):
        raise failure(f"{path} is there already; --force replaces it", USAGE)
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise failure(f"no such folder: {folder}", UNREADABLE)


def open_index(path: str, mode: str = "r", verify: bool = False) -> vicinal.Index:
    """Open an index."""
    return vicinal.open(path, mode=mode, verify=verify)


def open_source(
    path: str,
    vectors: str | None = None,
    ids: str | None = None,
    format: str | None = None,
    dim: int | None = None,
    raw_dtype: str | None = None,
) -> VectorSource:
    """Open a file of vectors."""
    return read_vectors(path, vectors, ids, format=format, dim=dim, dtype=raw_dtype)


def open_queries(path: str, name: str | None, format: str | None = None) -> VectorSource:
    """Open a file of queries; of an HDF5 file those that are called "test"."""
    from vicinal.vectors_io._open import format_of

    if name is None and format_of(path, format) == "hdf5":
        name = "test"
    return read_vectors(path, name, format=format)


def one_vector(text: str) -> Any:
    """Return a query given as JSON or as numbers with spaces or commas between; "-" is stdin."""
    if text == "-":
        text = sys.stdin.read()
    text = text.strip()
    try:
        values = json.loads(text) if text.startswith("[") else text.replace(",", " ").split()
        return np.array(values, np.float32)
    except (ValueError, RecursionError):
        raise failure(
            "--vector: expected numbers, as a JSON list or with spaces between", USAGE
        ) from None


def given_ids(index: vicinal.Index, names: Iterable[str], path: str | None) -> Any:
    """Return ids from arguments and from a file: .npy, or lines of text; "-" is stdin."""
    found: list[Any] = list(names)
    if path is not None and path.endswith(".npy"):
        from vicinal.vectors_io._open import _given

        if found:
            raise failure("ids: expected either a .npy file or ids", USAGE)
        return _given(path)
    if path is not None:
        with click.open_file(path, encoding="utf-8") as file:
            found += [line for line in file.read().splitlines() if line.strip()]
    if index.stats()["ids"] == "str":
        return found
    try:
        return [int(name) for name in found]
    except ValueError as error:
        raise failure(f"ids: expected whole numbers: {error}", USAGE) from None
