"""Writers that are killed: what a collection, Chroma and LanceDB have afterwards.

    python bench/collection_kills.py --kills 15 --out bench/results/collection-kills.jsonl

A process upserts five documents at a time, each with the number of the call, and says so after each
call; every third call replaces five that are there. It is killed (-9) at a random moment, and a
fresh process looks: a call that had returned and is not there is lost, one that is there in part is
half-seen. Libraries take turns. LanceDB replaces by `merge_insert`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import os
import random
import shutil
import signal
import tempfile
import time
from typing import Any

import numpy as np

from collection import Chroma, Lance, Vicinal

DIM = 16


class VicinalKept(Vicinal):
    def everything(self) -> dict[str, int]:
        return {each.id: each.metadata["n"] for each in self.made.get()}


class ChromaKept(Chroma):
    def everything(self) -> dict[str, int]:
        found = self.made.get()
        return {id: item["n"] for id, item in zip(found["ids"], found["metadatas"], strict=True)}


class LanceKept(Lance):
    def upsert(self, ids: Any, rows: Any, texts: Any, metadata: Any) -> None:
        if self.made is None:
            super().upsert(ids, rows, texts, metadata)
            return
        items = [
            {"id": id, "vector": row, "text": text, "n": item["n"]}
            for id, row, text, item in zip(ids, rows, texts, metadata, strict=True)
        ]
        merge = self.made.merge_insert("id")
        merge.when_matched_update_all().when_not_matched_insert_all().execute(items)

    def everything(self) -> dict[str, int]:
        if self.made is None:
            return {}
        found = self.made.to_arrow().to_pydict()
        return dict(zip(found["id"], found["n"], strict=True))


LIBRARIES = {"vicinal": VicinalKept, "chroma": ChromaKept, "lancedb": LanceKept}


def ids_of(step: int) -> list[str]:
    """Return the documents that a call writes: new ones, or those of an earlier call."""
    first = step if step % 3 else max(0, step - 2)
    return [f"d{first * 5 + i}" for i in range(5)]


def apply(model: dict[str, int], step: int) -> dict[str, int]:
    return {**model, **dict.fromkeys(ids_of(step), step)}


def write(name: str, path: str, step: int, says: Any) -> None:
    made = LIBRARIES[name](path, DIM)
    says.send(-1)
    while True:
        rows = np.random.default_rng(step).standard_normal((5, DIM)).astype(np.float32)
        made.upsert(ids_of(step), rows, [f"text {step}"] * 5, [{"n": step}] * 5)
        says.send(step)
        step += 1


def look(name: str, path: str, says: Any) -> None:
    says.send(LIBRARIES[name](path, DIM).everything())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=1e9, help="no more rounds after these")
    parser.add_argument("--out", help="append to this file")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    names = [name for name, kind in LIBRARIES.items() if importlib.util.find_spec(kind.module)]
    folder = tempfile.mkdtemp(prefix="kills-")
    draw = random.Random(0)
    state = {name: [{}, 0] for name in names}
    count = {
        name: {"kills": 0, "calls": 0, "lost": 0, "half_seen": 0, "broken": 0} for name in names
    }
    end = time.monotonic() + options.seconds
    for _ in range(options.kills):
        if time.monotonic() > end:
            break
        pause = draw.random() * 0.5
        for name in names:
            model, step = state[name]
            path, told = os.path.join(folder, name), count[name]
            if told["broken"]:
                continue
            hears, says = context.Pipe(duplex=False)
            writer = context.Process(target=write, args=(name, path, step, says))
            writer.start()
            says.close()
            hears.recv()
            time.sleep(pause)
            os.kill(writer.pid, signal.SIGKILL)
            writer.join()
            told["kills"] += 1
            try:
                while True:
                    hears.recv()
                    model, step = apply(model, step), step + 1
                    told["calls"] += 1
            except EOFError:
                pass
            hears, says = context.Pipe(duplex=False)
            reader = context.Process(target=look, args=(name, path, says))
            reader.start()
            says.close()
            try:
                found = hears.recv()
            except EOFError:  # it could not be opened any more
                told["broken"] += 1
                continue
            reader.join()
            further = apply(model, step)
            if found == further:
                model, step = further, step + 1
            elif found != model:
                sure = {id: n for id, n in model.items() if further[id] == n}
                gone = any(found.get(id) != n for id, n in sure.items())
                told["lost" if gone else "half_seen"] += 1
                model, step = found, step + 1
            state[name] = [model, step]
    for name in names:
        line = json.dumps({"kind": "kills", "library": name, **count[name]})
        print(line)
        if options.out:
            with open(options.out, "a", encoding="utf-8") as file:
                file.write(line + "\n")
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
