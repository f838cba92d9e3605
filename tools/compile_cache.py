"""Keep what was compiled, so that demo, tests, sanitizers and ablations compile nothing twice.

An entry is a folder `NAME-DIGEST` of `build/cache`, or of the folder that the environment variable
VICINAL_CACHE names. The digest covers all that the content follows from: the text of the sources,
the options, the compiler's release. An entry is made beside its place and renamed into it, under a
lock: processes that want the same wait for the first, and one that was interrupted leaves nothing
that could be taken for whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

KEPT = 20  # entries of one name
KEPT_SECONDS = 14 * 86400  # since an entry was last asked for
UNFINISHED_SECONDS = 86400


def folder() -> Path:
    """Return the folder of the cache."""
    return Path(os.environ.get("VICINAL_CACHE") or ROOT / "build" / "cache")


def digest(paths: Iterable[Path], base: Path, *facts: object) -> str:
    """Digest the names below `base` and the content of files, and everything else that matters."""
    total = hashlib.sha256(repr(facts).encode())
    for path in sorted(paths):
        total.update(path.relative_to(base).as_posix().encode() + b"\0")
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


class Changed(RuntimeError):
    """The sources changed while they were compiled: what was made belongs to no digest."""


def entry(name: str, key: Callable[[], str], make: Callable[[Path], None]) -> tuple[Path, bool]:
    """Return the folder of an entry, and whether it was made now.

    Parameters
    ----------
    name : str
        What it is; entries of one name are versions of one thing.
    key : callable
        Returns the digest of all that the content follows from.
    make : callable
        Fills a new folder. If it raises, nothing is kept.

    Raises
    ------
    Changed
        If `key` returns something else once the entry is made.
    """
    kept = folder()
    kept.mkdir(parents=True, exist_ok=True)
    before = key()
    place = kept / f"{name}-{before[:32]}"
    made = False
    with _locked(kept / f".{place.name}.lock"):
        if not place.is_dir():
            with tempfile.TemporaryDirectory(prefix=".making-", dir=kept) as work:
                content = Path(work) / "content"
                content.mkdir()
                make(content)
                if key() != before:
                    raise Changed(f"{name}: the sources changed while they were compiled")
                content.rename(place)
            made = True
        os.utime(place)
    if made:
        _forget(kept, name)
    return place, made


def drop(place: Path) -> None:
    """Remove an entry, at once for all who look for it."""
    gone = Path(tempfile.mkdtemp(prefix=".making-", dir=place.parent))
    with contextlib.suppress(FileNotFoundError):
        place.rename(gone / "content")
    shutil.rmtree(gone, ignore_errors=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    while True:
        with open(path, "a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # Whoever held it before has removed the file: then this is a lock that nobody sees.
            try:
                current = os.stat(path).st_ino == os.fstat(file.fileno()).st_ino
            except FileNotFoundError:
                continue
            if current:
                try:
                    yield
                finally:
                    path.unlink()
                return


def _forget(kept: Path, name: str) -> None:
    """Remove entries that have not been asked for in a long time, and what was left half-made."""

    def age(path: Path) -> float:
        try:
            return time.time() - path.stat().st_mtime
        except FileNotFoundError:
            return 0.0

    entries = [path for path in kept.iterdir() if not path.name.startswith(".")]
    same = sorted((path for path in entries if path.name.rpartition("-")[0] == name), key=age)
    for path in {*same[KEPT:], *(path for path in entries if age(path) > KEPT_SECONDS)}:
        drop(path)
    for path in kept.glob(".making-*"):
        if age(path) > UNFINISHED_SECONDS:
            shutil.rmtree(path, ignore_errors=True)
