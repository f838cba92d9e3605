"""`python -m vicinal`: the command line; of it `doctor` and `part` work without click.

`doctor` checks that the native code computes the right things here. `part` builds parts of an
index, for schedulers that start processes: docs/guide/many-machines.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from importlib.util import find_spec

from vicinal import _cpu, _levels, _self_test


def doctor() -> int:
    """Check the kernels of the loaded level, print a table, return the exit status."""
    info = _cpu.build_info()
    print(
        f"vicinal {info['version']}, CPU level {info['level']} (chosen by {info['chosen_by']}; "
        f"available: {', '.join(info['available'])}), compiled by Mojo {info['mojo']}\n"
    )
    outcomes = _self_test.check_kernels(_cpu.native)
    width = max(len(outcome.kernel) for outcome in outcomes)
    print(f"{'kernel':{width}}  cases  error / allowed  result")
    for outcome in outcomes:
        result = "MISMATCH" if outcome.problem else "ok"
        print(f"{outcome.kernel:{width}}  {outcome.cases:5}  {outcome.error:15.3f}  {result}")
    wrong = [outcome for outcome in outcomes if outcome.problem]
    print()
    for outcome in wrong:
        print(f"{outcome.kernel}: {outcome.problem}")
    if wrong:
        print(f"{len(wrong)} of {len(outcomes)} kernels are wrong on this machine")
        return 1
    print(f"all {len(outcomes)} kernels agree with the reference")
    return 0


def doctor_as_json() -> int:
    """Do the same, and print what was found as JSON."""
    outcomes = _self_test.check_kernels(_cpu.native)
    kernels = [outcome._asdict() for outcome in outcomes]
    wrong = sum(bool(outcome.problem) for outcome in outcomes)
    print(json.dumps({"build": _cpu.build_info(), "kernels": kernels, "wrong": wrong}))
    return 1 if wrong else 0


def doctor_of(level: str | None) -> int:
    """Do the same for a CPU level, or for all that are available; return the exit status."""
    if level is None:
        return doctor()
    available = _cpu.build_info()["available"]
    status = 0
    for each in available if level == "all" else [level]:
        # A level is chosen at import, once for a process.
        environment = {**os.environ, _cpu.VARIABLE: each}
        done = subprocess.run([sys.executable, "-m", "vicinal", "doctor"], env=environment)
        status = status or done.returncode
    return status


def part_of(plan: str, number: int | None, output: str | None, threads: int | None) -> int:
    """Build one part or all of a plan, or join them; print the paths and return the exit status."""
    from vicinal import parts

    try:
        if output is None:
            numbers = range(parts.Plan(plan).parts) if number is None else [number]
            for each in numbers:
                print(parts.build_part(plan, each, num_threads=threads or 1))
        else:
            parts.join(plan, output, num_threads=threads)
            print(output)
    except (OSError, ValueError) as error:
        print(f"part: {error}", file=sys.stderr)
        return 2 if type(error) is ValueError else 3
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] not in (["doctor"], ["part"]) and find_spec("click") is not None:
        from vicinal.cli import main as command_line

        command_line(given, "python -m vicinal")
    parser = argparse.ArgumentParser(
        prog="python -m vicinal", epilog="All other commands: pip install 'vicinal[cli]'"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser(
        "doctor",
        help="compare every native kernel with a plain reference; exit status 1 on a mismatch",
    )
    command.add_argument(
        "--level",
        choices=[*_levels.LEVELS, "all"],
        help="check this CPU level, or each that is available, in a process of its own",
    )
    command.add_argument("--json", action="store_true", help="print JSON; without --level")
    command = commands.add_parser("part", help="build a part of an index, see vicinal.parts")
    command.add_argument("plan", help="what vicinal.parts.plan returned")
    command.add_argument("number", type=int, nargs="?", help="which part; by default all")
    command.add_argument("--join", metavar="INDEX", help="join all parts to this file")
    command.add_argument("--threads", type=int, help="by default 1, to join all that there are")
    options = parser.parse_args(given)
    if options.command == "part":
        if options.join is not None and options.number is not None:
            parser.error("--join: expected no number")
        return part_of(options.plan, options.number, options.join, options.threads)
    if options.json and options.level:
        parser.error("--json: expected no --level")
    return doctor_as_json() if options.json else doctor_of(options.level)


if __name__ == "__main__":
    sys.exit(main())
