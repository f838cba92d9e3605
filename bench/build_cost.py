"""What does a build cost: time and counters a row, memory of each process, bytes read, by step?

    python bench/build_cost.py --data mixture:1000000 --folder F --out FILE
    python bench/build_cost.py --data mixture:2000000 --memory 1GB --folder F --out FILE
    python bench/build_cost.py --data sift-real-500k-b:100000 --parts 1 --folder F --out FILE

A set is one of `datasets.load`, or `mixture` or `mixture768` (`mixture.draw`, so many rows). Each
step (`plan`, `parts`, `join`; `add` for one part) is a process of its own on one thread, and
gives CPU and wall seconds, its peak memory and what it read from disk and files. Then recall@10 at
each ef. The line holds the CPU seconds of each part as well, and how long plan, parts and
join would take on 4 to 64 workers that are as fast as this one: parts go to whoever is free, the
largest first; of the join what all threads do is divided, the rest is not.

With `--seconds` it ends after about so many with exit status 75, and the same call goes on: parts
that are there are kept. The folder is removed at the end.
"""

from __future__ import annotations

import argparse
import ctypes
import heapq
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import datasets
import mixture
import vicinal
from vicinal import parts
from vicinal.parts import _join, _part, _sizes

EFS = (16, 32, 64, 128)
K, QUERIES = 10, 1000
WORKERS = (4, 8, 16, 32, 64)
UNFINISHED = 75
DIVIDED = ("encode", "sort", "search", "link_back", "fill", "repair")  # by all threads

Record = dict[str, Any]


class CacheMisses:
    """The processor's counter of cache misses, of this process; None where it does not count."""

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        attributes = (ctypes.c_uint64 * 16)()
        # PERF_TYPE_HARDWARE with the size of the structure; misses; of user code and children
        attributes[0], attributes[1] = 128 << 32, 3
        attributes[5] = 1 << 1 | 1 << 5 | 1 << 6
        number = {"x86_64": 298, "aarch64": 241}.get(os.uname().machine)
        self.file = -1
        if number is not None:
            self.file = libc.syscall(number, ctypes.byref(attributes), 0, -1, -1, 0)

    def read(self) -> int | None:
        """Return misses so far."""
        return int.from_bytes(os.read(self.file, 8), "little") if self.file >= 0 else None


def lines(name: str) -> list[str]:
    """Return what the system tells of this process."""
    return Path("/proc/self", name).read_text().splitlines()


def measured(work: Callable[[], Record]) -> Record:
    """Do some work and return what it says and what this process has taken for it."""
    misses = CacheMisses()
    wall, cpu = time.perf_counter(), time.process_time()
    told = work()
    told["cpu"] = round(time.process_time() - cpu, 2)
    told["wall"] = round(time.perf_counter() - wall, 2)
    told["cache_misses"] = misses.read()
    status = dict(line.split(":", 1) for line in lines("status"))
    told["peak_mb"] = round(int(status["VmHWM"].split()[0]) / 1024, 1)
    io = dict(line.split(": ") for line in lines("io"))
    told["read_mb"] = round(int(io["read_bytes"]) / 1e6, 1)
    told["asked_mb"] = round(int(io["rchar"]) / 1e6, 1)
    return told


def summed(stats: list[Record]) -> Record:
    """Add up what `Index.build_stats` tells of several indexes."""
    keys = ("rows", "distances", "hops", "selections", "prunes")
    whole: Record = {key: sum(one[key] for one in stats) for key in keys}
    whole["seconds"] = {
        phase: round(sum(one["seconds"][phase] for one in stats), 3)
        for phase in stats[0]["seconds"]
    }
    return whole


# ---- the steps, each in a process of its own


def add(folder: Path, options: argparse.Namespace) -> Record:
    """Build in one piece, however many rows there are."""
    _sizes.FEWEST_ROWS = sys.maxsize
    rows = np.load(folder / "rows.npy", mmap_mode="r")
    index = vicinal.Index(rows.shape[1], options.metric, seed=options.seed)
    index.add(rows, num_threads=1)
    index.save(folder / "index")
    return {"stats": summed([index.build_stats()])}


def plan(folder: Path, options: argparse.Namespace) -> Record:
    """Plan a build in parts."""
    parts.plan(
        folder / "rows.npy",
        folder / "scratch",
        metric=options.metric,
        parts=options.parts,
        memory=options.memory,
        seed=options.seed,
        num_threads=1,
    )
    return {}


def build_parts(folder: Path, options: argparse.Namespace) -> Record:
    """Build parts that are not there, as many as there is time for."""
    known = parts.Plan(folder / "scratch" / "plan")
    made: list[Any] = []
    new_index = _part.new_index

    def noted(*arguments: Any) -> Any:
        made.append(new_index(*arguments))
        return made[-1]

    _part.new_index = noted
    tasks, stats = {}, []
    end = time.monotonic() + options.seconds
    left = False
    for part in range(known.parts):
        if os.path.exists(known.part_path(part)):
            continue
        if time.monotonic() > end:
            left = True
            break
        start = time.process_time()
        parts.build_part(known.path, part)
        tasks[str(part)] = round(time.process_time() - start, 3)
        stats.append(made.pop().build_stats())
    return {"tasks": tasks, "stats": summed(stats) if stats else None, "left": left}


def join(folder: Path, options: argparse.Namespace) -> Record:
    """Join all parts."""
    told: Record = {}
    save = _join._persistence.save

    def noted(index: Any, *arguments: Any) -> None:
        told["stats"] = summed([index.build_stats()])
        save(index, *arguments)

    _join._persistence.save = noted
    parts.join(folder / "scratch" / "plan", folder / "index", num_threads=1)
    return told


def search(folder: Path, options: argparse.Namespace) -> Record:
    """Measure recall."""
    index = vicinal.open(folder / "index")
    queries = np.load(folder / "queries.npy")
    truth = np.load(folder / "truth.npy")
    found = {}
    for ef in EFS:
        ids = index.search(queries, K, ef_search=ef, num_threads=1).ids
        hits = [len(set(a) & set(b)) for a, b in zip(ids, truth, strict=True)]
        found[str(ef)] = round(float(np.mean(hits)) / K, 4)
    return {"recall": found}


def draw(folder: Path, options: argparse.Namespace) -> Record:
    """Write rows, queries and true neighbours."""
    name, _, count = options.data.partition(":")
    if name.startswith("mixture"):
        dim = int(name.removeprefix("mixture") or mixture.DIM)
        rows, queries = mixture.draw(int(count), QUERIES, 0, dim)
    else:
        data = datasets.load(name)
        rows = data.base[: int(count or len(data.base))].astype(np.float32)
        queries = data.queries[:QUERIES].astype(np.float32)
    truth = vicinal.exact_search(rows, queries, K, metric=options.metric, num_threads=1).ids
    np.save(folder / "queries.npy", queries)
    np.save(folder / "truth.npy", truth)
    np.save(folder / "rows.npy", rows)
    return {"rows": len(rows), "dim": rows.shape[1]}


STEPS = {
    "draw": draw,
    "add": add,
    "plan": plan,
    "parts": build_parts,
    "join": join,
    "search": search,
}


# ---- the whole


def makespan(tasks: list[float], workers: int) -> float:
    """Return when the last task ends if whoever is free takes the largest that is left."""
    ends = [0.0] * workers
    for task in sorted(tasks, reverse=True):
        heapq.heappush(ends, heapq.heappop(ends) + task)
    return max(ends)


def replayed(steps: Record) -> Record:
    """Return the seconds that the build would take with more workers."""
    tasks = list(steps["parts"]["tasks"].values())
    joined = steps["join"]
    divided = min(sum(joined["stats"]["seconds"][phase] for phase in DIVIDED), joined["cpu"])
    serial = steps["plan"]["cpu"] + joined["cpu"] - divided
    whole = serial + divided + sum(tasks)
    told = {"serial_share": round(serial / whole, 4)}
    for workers in WORKERS:
        seconds = serial + makespan(tasks, workers) + divided / workers
        told[str(workers)] = {"seconds": round(seconds, 2), "speedup": round(whole / seconds, 2)}
    return told


def together(before: Record | None, now: Record) -> Record:
    """Add what a further process has done of a step."""
    if before is None:
        return now
    stats = [one["stats"] for one in (before, now) if one.get("stats")]
    known = [one["cache_misses"] for one in (before, now)]
    return {
        "tasks": {**before["tasks"], **now["tasks"]},
        "stats": summed(stats) if stats else None,
        "left": now["left"],
        "cpu": round(before["cpu"] + now["cpu"], 2),
        "wall": round(before["wall"] + now["wall"], 2),
        "cache_misses": None if None in known else sum(known),
        "peak_mb": max(before["peak_mb"], now["peak_mb"]),
        "read_mb": round(before["read_mb"] + now["read_mb"], 1),
        "asked_mb": round(before["asked_mb"] + now["asked_mb"], 1),
    }


def line(options: argparse.Namespace, done: Record) -> Record:
    """Return the record of a build."""
    size = done["draw"]
    building = {step: done[step] for step in ("add", "plan", "parts", "join") if step in done}
    cpu = sum(step["cpu"] for step in building.values())
    rows = size["rows"]
    stats = [step["stats"] for step in building.values() if step.get("stats")]
    misses = [step["cache_misses"] for step in building.values()]
    record = {
        "kind": "build-cost",
        "data": options.data.partition(":")[0],
        "rows": rows,
        "dim": size["dim"],
        "seed": options.seed,
        "memory": options.memory,
        "parts": len(building["parts"]["tasks"]) if "parts" in building else 1,
        "cpu": round(cpu, 2),
        "wall": round(sum(step["wall"] for step in building.values()), 2),
        "cpu_us_a_row": round(cpu / rows * 1e6, 1),
        "vectors_a_cpu_second": round(rows / cpu),
        "distances_a_row": round(sum(one["distances"] for one in stats) / rows),
        "hops_a_row": round(sum(one["hops"] for one in stats) / rows, 1),
        "cache_misses_a_row": None if None in misses else round(sum(misses) / rows),
        "peak_mb": max(step["peak_mb"] for step in building.values()),
        "recall": done["search"]["recall"],
        "load": round(os.getloadavg()[0], 1),
    }
    if "parts" in building:
        record["join_share"] = round(building["join"]["cpu"] / cpu, 3)
        record["replayed"] = replayed(building)
    record["steps"] = building
    return record


def main() -> int:
    """Do all steps that are left, return the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True, help="SET or SET:ROWS; mixture:ROWS")
    parser.add_argument("--metric", help="by default the set's own")
    parser.add_argument("--memory")
    parser.add_argument("--parts", type=int, help="by default what build takes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--folder", type=Path, required=True, help="for rows, parts and the index")
    parser.add_argument("--keep", action="store_true", help="leave the folder, with the index")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    name, _, count = options.data.partition(":")
    if options.metric is None:
        options.metric = "l2" if name.startswith("mixture") else datasets.load(name).metric
    if options.step:
        print(json.dumps(measured(lambda: STEPS[options.step](options.folder, options))))
        return 0
    options.folder.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    state = options.folder / "done.json"
    done: Record = json.loads(state.read_text()) if state.exists() else {}
    few = options.parts is None and options.memory is None
    one = options.parts == 1 or (few and 0 < int(count or 0) < _sizes.FEWEST_ROWS)
    steps = ["draw", "add", "search"] if one else ["draw", "plan", "parts", "join", "search"]
    for step in steps:
        while step not in done or done[step].get("left"):
            spent = time.monotonic() - begun
            if spent > options.seconds:
                return UNFINISHED
            command = [sys.executable, __file__, *sys.argv[1:], "--step", step]
            if step == "parts":
                command += ["--seconds", str(options.seconds - spent)]
            told = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            done[step] = together(done.get(step), told)
            state.write_text(json.dumps(done))
    record = line(options, done)
    print(json.dumps({key: value for key, value in record.items() if key != "steps"}))
    if options.out is not None:
        with open(options.out, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
    if not options.keep:
        shutil.rmtree(options.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
