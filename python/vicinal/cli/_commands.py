"""The table of commands; each module of commands adds its own to it."""

from __future__ import annotations

import click

import vicinal
from vicinal.cli import _answer, _change, _inspect, _mcp, _report, _serve, _transfer
from vicinal.cli._shared import Commands

__all__ = ["commands"]

_HELP = """Nearest-neighbour indexes in one file each: build, search, look inside.

Results go to stdout, everything else to stderr. Exit codes: 0 fine, 1 something is not as it must
be (verify, doctor), 2 wrong usage, 3 a file cannot be read or written or is damaged, 130
interrupted. Nothing is overwritten without --force, but for the index that a command changes; a
file is whole or as it was. VICINAL_COMMAND_OPTION in the environment gives an option's default.
"""


@click.group(
    cls=Commands,
    help=_HELP,
    context_settings={"auto_envvar_prefix": "VICINAL", "help_option_names": ["-h", "--help"]},
)
@click.version_option(vicinal.__version__, prog_name="vicinal")
def commands() -> None:
    """Everything begins here."""


for _module in (_change, _answer, _inspect, _mcp, _report, _serve, _transfer):
    for _command in _module.COMMANDS:
        commands.add_command(_command)
