"""`python -m vicinal doctor`: check that the native code computes the right things here."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

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


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m vicinal")
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
    options = parser.parse_args(arguments)
    if options.level is None:
        return doctor()
    available = _cpu.build_info()["available"]
    status = 0
    for level in available if options.level == "all" else [options.level]:
        # A level is chosen at import, once for a process.
        environment = {**os.environ, _cpu.VARIABLE: level}
        done = subprocess.run([sys.executable, "-m", "vicinal", "doctor"], env=environment)
        status = status or done.returncode
    return status


if __name__ == "__main__":
    sys.exit(main())
