"""Ask auditwheel and twine about what is in dist: tags that fit, metadata that registries take.

    python tools/check_release.py dist

auditwheel looks at the symbols of each native module, as tests/python/test_packaging.py does by
itself: two opinions. It must be able to give each wheel the tag that it carries, or an older one.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

TAG = re.compile(r"manylinux_(\d+)_(\d+)_(x86_64|aarch64)")


def glibc(text: str) -> tuple[int, int]:
    """Return the version of glibc that a tag stands for."""
    found = TAG.search(text)
    if found is None:
        raise ValueError(f"no manylinux tag in {text!r}")
    return int(found[1]), int(found[2])


def verdict(wheel: str, said: str) -> str | None:
    """Return what is wrong with a wheel, by its name and by what `auditwheel show` said."""
    consistent = re.search(r'consistent with\s+the\s+following\s+platform\s+tag:\s+"([^"]+)"', said)
    if consistent is None:
        return f"{wheel}: auditwheel said no tag:\n{said}"
    if glibc(consistent[1]) > glibc(wheel):
        return f"{wheel}: auditwheel gives it {consistent[1]}"
    return None


def main(folder: Path) -> int:
    """Check all files; exit status 1 if one is wrong or there is none."""
    wheels, sources = sorted(folder.glob("*.whl")), sorted(folder.glob("*.tar.gz"))
    if not wheels:
        print(f"{folder}: no wheels; make wheels makes them")
        return 1
    status = 0
    for wheel in wheels:
        done = subprocess.run(
            [sys.executable, "-m", "auditwheel", "show", str(wheel)], capture_output=True, text=True
        )
        wrong = verdict(wheel.name, done.stdout) if done.returncode == 0 else done.stderr
        print(wrong or f"{wheel.name}: auditwheel agrees")
        status |= wrong is not None
    files = [str(path) for path in (*wheels, *sources)]
    status |= subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *files]
    ).returncode
    return min(status, 1)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "dist")))
