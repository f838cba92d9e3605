"""The command `mcp`."""

from __future__ import annotations

import os

import click

from vicinal.cli._shared import USAGE, failure, talk

__all__ = ["COMMANDS"]

_KEY = "VICINAL_API_KEY"


@click.command()
@click.argument("folder", type=click.Path())
@click.option("--read-only", is_flag=True, help="Offer no tool that changes anything.")
@click.option("--collection", help="Serve this collection alone.")
@click.option("--embed", help="Function that makes vectors of texts: package.module:function.")
@click.option("--embed-command", help="Program that makes vectors of texts: JSON in, JSON out.")
@click.option("--analyzer", help="How texts of new collections become words.")
@click.option("--http", "address", help="Serve HTTP at HOST:PORT; otherwise stdin and stdout.")
@click.option(
    "--max-bytes",
    type=click.IntRange(1000),
    default=50_000,
    show_default=True,
    help="Bytes of documents in an answer.",
)
@click.option(
    "--max-text", type=click.IntRange(1), default=4000, show_default=True,
    help="Characters of a text in an answer.",
)  # fmt: skip
def mcp(
    folder: str,
    read_only: bool,
    collection: str | None,
    embed: str | None,
    embed_command: str | None,
    analyzer: str | None,
    address: str | None,
    max_bytes: int,
    max_text: int,
) -> None:
    """Serve the collections in FOLDER to language models, over the Model Context Protocol."""
    from vicinal.mcp import Folder, embed_by_command, embed_by_name, make_server, serve_http

    if embed is not None and embed_command is not None:
        raise failure("--embed: expected no --embed-command as well", USAGE)
    function = None
    if embed is not None:
        function = embed_by_name(embed)
    elif embed_command is not None:
        function = embed_by_command(embed_command)
    served = Folder(folder, read_only=read_only, only=collection, embed=function, analyzer=analyzer)
    try:
        server = make_server(served, max_bytes=max_bytes, max_text=max_text)
        if address is None:
            server.run("stdio")
            return
        host, colon, port = address.rpartition(":")
        if not colon or not port.isdigit() or int(port) > 65535:
            raise failure(f"--http: expected HOST:PORT, got {address}", USAGE)
        # taken out of the environment: programs that are run need not know it
        key = os.environ.pop(_KEY, None) or None
        serve_http(
            server, host.strip("[]"), int(port), key, lambda where: talk(f"listening on {where}")
        )
    finally:
        served.close()


COMMANDS = (mcp,)
