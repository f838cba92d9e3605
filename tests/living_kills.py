"""Writers of a living file that are killed (-9), again and again, beside readers that follow it.

    PYTHONPATH=python:tests python tests/living_kills.py FOLDER --kills 1000

One file lives through all of it. A child opens it, adds, updates and removes rows, flushes, makes
checkpoints and closes, in an order that follows from the number of the step, and says before and
after each what it does. It is killed at a random moment; then the file is opened and compared, id
by id and byte by byte, with what the steps lead to: all that a flush had returned for must be
there, and what is there must be a state between two steps. Meanwhile readers follow the file and
note which states they see. Prints one line of JSON; an AssertionError says what was wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import time
import warnings

import numpy as np

import vicinal
from vicinal.living import checkpoint, lock

DIM = 12
TAG = -1  # the id of a row that holds the number of the step
READERS = 2
BEGUN, DONE, FLUSHED = b"bdf"

Model = dict[int, bytes]


def row_of(step: int, place: int) -> np.ndarray:
    return np.random.default_rng((step, place)).standard_normal(DIM).astype(np.float32)


def tag(step: int) -> np.ndarray:
    return np.full(DIM, step, np.float32)


def digest(model: Model) -> str:
    made = hashlib.blake2b(digest_size=12)
    for id in sorted(model):
        made.update(id.to_bytes(8, "little", signed=True) + model[id])
    return made.hexdigest()


class Step:
    """What a step does, from its number and what is there."""

    def __init__(self, number: int, model: Model) -> None:
        draw = random.Random(number)
        present = sorted(id for id in model if id != TAG)
        self.number = number
        self.kind = draw.choice("aaaauurrfffck" if len(present) > 30 else "aaaafffc")
        if self.kind == "k" and draw.random() < 0.7:
            self.kind = "f"
        count = draw.choice((1, 1, 1, 5, 40))
        if self.kind == "a":
            self.ids = [number * 100 + i for i in range(count)]
        elif self.kind in "ur":
            self.ids = draw.sample(present, min(count, len(present) // 2))
        else:
            self.ids = []

    def rows(self) -> np.ndarray:
        return np.array([row_of(self.number, i) for i in range(len(self.ids))])

    def model(self, model: Model) -> Model:
        """Return what is there afterwards; the tag is changed in a step of its own."""
        if self.kind in "au":
            new = {id: row.tobytes() for id, row in zip(self.ids, self.rows(), strict=True)}
            return {**model, **new, TAG: tag(self.number).tobytes()}
        if self.kind == "r":
            kept = {id: row for id, row in model.items() if id not in self.ids}
            return kept
        return model


def apply(index: vicinal.LivingIndex, step: Step, path: str) -> vicinal.LivingIndex:
    if step.kind in "au":
        rows = np.concatenate([step.rows(), tag(step.number)[None]])
        index.add(rows, ids=[*step.ids, TAG], on_conflict="update")
    elif step.kind == "r":
        index.remove(step.ids)
    elif step.kind == "f":
        index.flush()
    elif step.kind == "c":
        index.checkpoint()
    else:
        index.close(checkpoint=step.number % 2 == 0)
        index = vicinal.open(path, mode="rw")
    return index


def write(path: str, number: int, model: Model, says: int) -> None:
    index = vicinal.open(path, mode="rw")
    os.write(says, b"o")
    while True:
        step = Step(number, model)
        os.write(says, b"b")
        index = apply(index, step, path)
        os.write(says, b"f" if step.kind in "fck" else b"d")
        model = step.model(model)
        number += 1


def content(index: object) -> Model:
    ids = index.ids  # type: ignore[attr-defined]
    rows = index.get(ids)  # type: ignore[attr-defined]
    return {id: row.tobytes() for id, row in zip(ids.tolist(), rows, strict=True)}


def read(path: str, says: int) -> None:
    """Follow the file and tell each state that is seen, until the pipe closes."""
    follower = vicinal.open(path, follow=True)
    seen = ""
    query = np.zeros(DIM, np.float32)
    while True:
        found = follower.search(query, 5)
        assert (found.ids >= TAG).all()
        view = follower._tail.view
        follower._turn.acquire()  # the state must stand still while it is read
        try:
            view = follower._tail.view
            ids = [id for id in view.base.ids.tolist() if view.gone is None or id not in view.gone]
            model = {id: row.tobytes() for id, row in zip(ids, view.base.get(ids), strict=True)}
            for id, key in view.live.items():
                model[id] = view.fresh.get([key])[0].tobytes()
        finally:
            follower._turn.release()
        now = digest(model)
        if now != seen:
            seen = now
            os.write(says, now.encode() + b"\n")
        time.sleep(0.002)


def fork(work: object, *arguments: object) -> tuple[int, int]:
    """Start a child that calls `work` with the end of a pipe; return it and the other end."""
    hears, says = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(hears)
        try:
            work(*arguments, says)  # type: ignore[operator]
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(3)
        os._exit(0)
    os.close(says)
    return child, hears


def drained(file: int) -> bytes:
    pieces = []
    while piece := os.read(file, 65536):
        pieces.append(piece)
    os.close(file)
    return b"".join(pieces)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pause", type=float, default=0.08, help="longest life, in seconds")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # forking beside threads of NumPy's
    path = os.path.join(options.folder, "killed.vicinal")
    vicinal.Index(DIM, M=8, ef_construction=40).save(path)
    draw = random.Random(options.seed)
    number, model = 0, Model()
    flushed = {digest(model)}  # states that readers may see
    kinds: dict[str, int] = {}
    told = {
        "kills": 0,
        "steps": 0,
        "lost_unflushed": 0,
        "by_fork": 0,
        "reader_states": 0,
        "rows": 0,
    }
    readers = [fork(read, path) for _ in range(READERS)]
    small = checkpoint._SMALL
    for turn in range(options.kills):
        checkpoint._SMALL = 0 if turn % 2 else small  # every second writer forks to write
        told["by_fork"] += turn % 2
        writer, hears = fork(write, path, number, model)
        first = os.read(hears, 1)
        assert first == b"o", "a writer could not open the file"
        until = time.perf_counter() + draw.random() * options.pause
        while time.perf_counter() < until:
            time.sleep(0.0005)
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
        said = drained(hears)
        # the states that the steps lead to, from the last one that is sure to be there
        states = [model]
        sure = 0
        for mark in said:
            if mark == BEGUN:
                step = Step(number, model)
                kinds[step.kind] = kinds.get(step.kind, 0) + 1
                states.append(step.model(model))
                model, number = states[-1], number + 1
                if step.kind in "fck":
                    flushed.add(digest(model))
            elif mark == FLUSHED:
                sure = len(states) - 1
        told["kills"] += 1
        told["steps"] += len(states) - 1
        index = vicinal.open(path, mode="rw")
        found = content(index)
        matches = [i for i, state in enumerate(states) if state == found]
        assert matches, f"kill {turn}: what is there is no state between two steps"
        assert matches[-1] >= sure, f"kill {turn}: step {matches[-1]} of {sure} that were flushed"
        told["lost_unflushed"] += len(states) - 1 - matches[-1]
        index.check()
        if turn % 10 == 0:
            index.flush()
        index._log._abandoned.detach()  # left as by a kill, without a checkpoint
        index._log.journal.close()
        for each in list(lock._held.values()):
            each.release()
        flushed.add(digest(found))  # opening has made sure that it is on the disk
        model = found
    for reader, _ in readers:
        assert os.waitpid(reader, os.WNOHANG)[0] == 0, "a reader has died"
        os.kill(reader, signal.SIGKILL)
        os.waitpid(reader, 0)
    for _, hears in readers:
        for line in drained(hears).decode().split("\n"):
            if len(line) == 24:
                told["reader_states"] += 1
                assert line in flushed, "a reader saw what was never there"
    left = sorted(os.listdir(options.folder))
    assert set(left) <= {
        "killed.vicinal",
        "killed.vicinal.journal",
        "killed.vicinal.lock",
        "killed.vicinal.checkpoint",
    }, left
    vicinal.open(path, mode="rw").close()
    assert os.listdir(options.folder) == ["killed.vicinal"]
    alone = vicinal.open(path, verify=True)
    assert content(alone) == model
    alone.check()
    told["rows"] = len(alone)
    print(json.dumps({**told, "kinds": kinds}))


if __name__ == "__main__":
    main()
