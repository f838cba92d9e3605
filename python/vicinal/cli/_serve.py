"""Commands about the server: serve, key. What they need is imported when they are called."""

from __future__ import annotations

import os
from typing import Any

import click

from vicinal.cli._shared import USAGE, emit, failure, json_option, talk

__all__ = ["COMMANDS"]


def _read_limits(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> dict[str, float]:
    """Return limits given as NAME=NUMBER."""
    from vicinal.server.settings import Limits

    known = Limits.__dataclass_fields__
    found: dict[str, float] = {}
    for value in values:
        name, _, number = value.partition("=")
        name = name.replace("-", "_")
        if name not in known:
            raise click.BadParameter(f"expected one of {', '.join(known)}, got {name!r}")
        try:
            limit = float(number)
        except ValueError:
            raise click.BadParameter(f"{name}: expected a number, got {number!r}") from None
        if not name.endswith("_seconds"):
            if not limit.is_integer():
                raise click.BadParameter(f"{name}: expected a whole number, got {number!r}")
            limit = int(limit)
        found[name] = limit
    return found


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path())
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=6333, show_default=True, help="0: a free one."
)
@click.option("--keys", type=click.Path(), help="File of keys, of lines that `vicinal key` makes.")
@click.option(
    "--limit",
    "limits",
    metavar="NAME=NUMBER",
    multiple=True,
    callback=_read_limits,
    help="Of what one request may ask for; may be given several times.",
)
@click.option("--text-field", help="Key of payloads that searches by words look at.")
@click.option(
    "--checkpoint-rows",
    type=click.IntRange(1),
    default=10_000,
    show_default=True,
    help="Changed documents of a collection that are saved in the background.",
)
@click.option("--open-metrics", is_flag=True, help="Show /metrics without a key.")
@click.option("--tls-certificate", type=click.Path(), help="PEM file: HTTPS.")
@click.option("--tls-key", type=click.Path(), help="PEM file of its private key.")
@click.option(
    "--stop-seconds",
    type=click.IntRange(1),
    default=30,
    show_default=True,
    help="How long requests may go on after SIGTERM.",
)
def serve(
    folder: str,
    host: str,
    port: int,
    keys: str | None,
    limits: dict[str, float],
    text_field: str | None,
    checkpoint_rows: int,
    open_metrics: bool,
    tls_certificate: str | None,
    tls_key: str | None,
    stop_seconds: int,
) -> None:
    """Serve the collections in DIR over HTTP, to clients of Qdrant and by an API of our own."""
    from vicinal.server import Limits, Settings, require_packages

    require_packages()
    from vicinal.server.auth import keys_from, read_keys
    from vicinal.server.serve import serve as run

    if (tls_certificate is None) != (tls_key is None):
        raise failure("--tls-certificate: expected it together with --tls-key", USAGE)
    known = (*(read_keys(keys) if keys is not None else ()), *keys_from(os.environ))
    given: dict[str, Any] = limits
    settings = Settings(
        folder,
        keys=known,
        limits=Limits(**given),
        text_field=text_field,
        open_metrics=open_metrics,
        checkpoint_rows=checkpoint_rows,
    )
    run(settings, host, port, tls_certificate, tls_key, stop_seconds, told=talk)


@click.command()
@click.option("--read", "read_only", is_flag=True, help="A key that may only read.")
@json_option
def key(read_only: bool, as_json: bool) -> None:
    """Make a key for `vicinal serve`: the key goes to stderr, a line for --keys to stdout."""
    from vicinal.server.auth import digest, new_key

    made = new_key()
    line = f"{'read' if read_only else 'write'} {digest(made)}"
    if not as_json:
        talk(f"key: {made}")
    emit(as_json, {"key": made, "line": line}, [line])


COMMANDS = (serve, key)
