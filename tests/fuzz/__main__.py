"""Open and use mutated files, many of them; find crashes, hangs, odd errors and odd answers.

    python -m fuzz --files 100000 --jobs 2        # from tests/, on the installed library
    python -m fuzz --only 4711 --keep bad.vicinal # one file again, kept
    python -m fuzz --lying                        # only whole files that contradict themselves

With a C compiler on the machine every map gets a page before and behind it that nobody may touch.
Each job is a process of its own that says what it is about to do, so that one that dies or hangs is
known by its number; the work then goes on behind it.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import mmap
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

from fuzz.mutate import mutated
from fuzz.use import make_seeds, use

HANG = 20.0  # seconds that a file may take; a sound one takes a millisecond
ROOM = "/dev/shm" if os.path.isdir("/dev/shm") else None


def work(folder: str, first: int, step: int, until: int, seconds: float, lying: bool) -> int:
    """Be a job: use the files first, first + step, ...; what came of it goes to standard output."""
    faulthandler.enable()
    seeds = make_seeds(folder)
    tally: Counter[str] = Counter()
    deadline = time.monotonic() + seconds
    path = os.path.join(folder, "file")
    with open(os.path.join(folder, "number"), "r+b") as notes:
        number_now = mmap.mmap(notes.fileno(), 8)
        number = first
        while number < until and time.monotonic() < deadline:
            struct.pack_into("<q", number_now, 0, number)
            signal.setitimer(signal.ITIMER_REAL, HANG)  # nobody handles it: it ends the process
            with open(path, "wb") as file:
                file.write(mutated(seeds, number, lying=lying))
            try:
                use(path, tally, number)
            except Exception:
                signal.setitimer(signal.ITIMER_REAL, 0)
                print(json.dumps([number, traceback.format_exc()]), flush=True)
                return 3
            tally["files"] += 1
            number += step
        signal.setitimer(signal.ITIMER_REAL, 0)
        struct.pack_into("<q", number_now, 0, number)
    print(json.dumps(tally), flush=True)
    return 0


def guards(folder: str) -> dict[str, str]:
    """Compile what puts guard pages around maps; return the environment that preloads it."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return {}
    library = os.path.join(folder, "guard.so")
    source = Path(__file__).with_name("guard.c")
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", source, "-o", library], check=True)
    return {"LD_PRELOAD": " ".join(filter(None, (os.environ.get("LD_PRELOAD"), library)))}


def one_job(folder: str, environment: dict[str, str], *numbers: float) -> subprocess.Popen[str]:
    os.makedirs(folder, exist_ok=True)
    Path(folder, "number").write_bytes(struct.pack("<q", int(numbers[0])))
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "fuzz",
            "--job",
            folder,
            *(str(float(number)) for number in numbers),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def run(
    first: int, files: int, jobs: int, seconds: float, lying: bool = False
) -> tuple[Counter[str], list[str]]:
    """Run jobs until all files were used, going on behind each that ended one.

    Returns
    -------
    tuple
        What came of the files, by step, and a text for each finding.
    """
    total: Counter[str] = Counter()
    findings: list[str] = []
    with tempfile.TemporaryDirectory(prefix="vicinal-fuzz-", dir=ROOM) as folder:
        guarded = guards(folder)
        total["with guard pages"] = int(bool(guarded))
        deadline = time.monotonic() + seconds
        at = [first + job for job in range(jobs)]
        running = {
            job: one_job(f"{folder}/{job}", guarded, at[job], jobs, first + files, seconds, lying)
            for job in range(jobs)
        }
        while running:
            job, process = next(iter(running.items()))
            out, err = process.communicate()
            del running[job]
            (number,) = struct.unpack("<q", Path(folder, str(job), "number").read_bytes())
            if process.returncode == 0:
                total.update(json.loads(out.splitlines()[-1]))
                continue
            if process.returncode == 3:
                text = json.loads(out.splitlines()[-1])[1]
            else:
                text = f"exit status {process.returncode}\n{err[-6000:]}"
            findings.append(f"file {number}: {text}")
            # what a job had counted when it ended is lost, its files are not
            total["files"] += (number - at[job]) // jobs
            at[job] = number + jobs
            if len(findings) < 20:
                left = deadline - time.monotonic()
                running[job] = one_job(
                    f"{folder}/{job}", guarded, at[job], jobs, first + files, left, lying
                )
    return total, findings


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first file")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seconds", type=float, default=3600.0, help="the most that it may take")
    parser.add_argument("--only", type=int, help="use this one file in this process")
    parser.add_argument("--keep", type=Path, help="with --only: where to leave the file")
    parser.add_argument(
        "--lying", action="store_true", help="only files that contradict themselves"
    )
    parser.add_argument("--job", nargs=6, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        folder, *numbers = options.job
        first, step, until, seconds, lying = map(float, numbers)
        return work(folder, int(first), int(step), int(until), seconds, bool(lying))
    if options.only is not None:
        with tempfile.TemporaryDirectory(prefix="vicinal-fuzz-", dir=ROOM) as folder:
            data = mutated(make_seeds(folder), options.only, lying=options.lying)
            path = options.keep or Path(folder, "file")
            path.write_bytes(data)
            tally: Counter[str] = Counter()
            use(str(path), tally, options.only)
            print(dict(tally))
        return 0
    start = time.monotonic()
    total, findings = run(
        options.first, options.files, options.jobs, options.seconds, options.lying
    )
    for text in findings:
        print(text, "\n")
    for step, count in sorted(total.items()):
        print(f"{count:9,}  {step}")
    print(f"{len(findings)} findings in {time.monotonic() - start:.0f} s")
    return 1 if findings or total["files"] + len(findings) < options.files else 0


if __name__ == "__main__":
    sys.exit(main())
