"""Run the tests of extras, each folder of tests/extras in an environment of its own.

    python tools/test_extras.py                # build a wheel of this tree, test it with all extras
    python tools/test_extras.py files          # one folder
    python tools/test_extras.py --tree files   # the package of the tree, as it was compiled there

A folder with a `requirements.txt` is one. Environments lie in build/extras and are made again when
their requirements change. What the core is tested in (.venv) has none of these packages.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS = ROOT / "tests" / "extras"
BUILD = ROOT / "build" / "extras"
RUNNERS = ("pytest>=8", "hypothesis>=6.100")


def call(*command: object, **environment: str) -> None:
    """Run a command; CalledProcessError if it fails."""
    subprocess.run([str(part) for part in command], check=True, env={**os.environ, **environment})


def environment_of(name: str) -> Path:
    """Return the Python of an extra's environment, with what its tests need."""
    folder = BUILD / name
    python = folder / "bin" / "python"
    wanted = TESTS / name / "requirements.txt"
    digest = hashlib.sha256(wanted.read_bytes() + repr((RUNNERS, sys.version)).encode()).hexdigest()
    stamp = folder / "stamp"
    if not stamp.exists() or stamp.read_text() != digest:
        print(f"== environment {folder.relative_to(ROOT)}", flush=True)
        venv.create(folder, clear=True, with_pip=True)
        pip = (python, "-m", "pip", "--disable-pip-version-check", "install", "-q")
        call(*pip, "numpy", *RUNNERS, "-r", wanted)
        stamp.write_text(digest)
    return python


def wheel() -> Path:
    """Build a wheel of this tree; the compiler's work is kept from before."""
    for old in BUILD.glob("*.whl"):
        old.unlink()
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    call(*pip, "wheel", "-q", "--no-build-isolation", "--no-deps", "-w", BUILD, ROOT)
    return next(BUILD.glob("*.whl"))


def main() -> int:
    """Run all tests that were asked for; exit status 1 if any fail."""
    parser = argparse.ArgumentParser(description=__doc__)
    known = sorted(path.parent.name for path in TESTS.glob("*/requirements.txt"))
    parser.add_argument("names", nargs="*", help=f"of {', '.join(known)}; all by default")
    parser.add_argument("--tree", action="store_true", help="test python/vicinal itself")
    options = parser.parse_args()
    unknown = set(options.names) - set(known)
    if unknown:
        parser.error(f"no such extra: {', '.join(sorted(unknown))}")
    BUILD.mkdir(parents=True, exist_ok=True)
    package = None if options.tree else wheel()
    status = 0
    for name in options.names or known:
        start = time.monotonic()
        python = environment_of(name)
        more = {}
        if package is None:
            more["PYTHONPATH"] = str(ROOT / "python")
        else:
            pip = (python, "-m", "pip", "--disable-pip-version-check", "install", "-q")
            call(*pip, "--force-reinstall", "--no-deps", package)
        print(f"== tests of {name}", flush=True)
        done = subprocess.run(
            [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(TESTS / name)],
            env={**os.environ, **more},
        )
        status = status or done.returncode
        print(f"== {name}: {time.monotonic() - start:.0f} s", flush=True)
    return min(status, 1)


if __name__ == "__main__":
    sys.exit(main())
