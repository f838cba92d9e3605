"""Signals at any moment, and writers that meet: what must neither hang nor leave a lock held."""

from __future__ import annotations

import dis
import faulthandler
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from functools import cache, partial
from types import CodeType, FrameType
from typing import Any

import numpy as np
import pytest

import vicinal

ROWS = np.random.default_rng(0).standard_normal((40, 4)).astype(np.float32)

# After these CPython looks whether a signal came; which of them there are depends on its version.
LOOKS = ("CALL", "CALL_KW", "CALL_METHOD", "CALL_FUNCTION", "CALL_FUNCTION_KW", "CALL_FUNCTION_EX")
LOOKS += ("RESUME", "JUMP_BACKWARD", "JUMP_ABSOLUTE")


# Files whose moments are tried: those that hold locks and call the native code.
TRACED = ("index.py", "_updates.py", "_merge.py", "_persistence.py", "_stats.py", "_state.py")
TRACED += (
    "_deferred.py",
    "_writer_lock.py",
    "_progress.py",
    "_string_ids.py",
    "_file_status.py",
    "contextlib.py",
)


@pytest.fixture(autouse=True)
def _end_what_hangs() -> Iterator[None]:
    """End the test run, with all stacks, should a test of these wait for ever."""
    faulthandler.dump_traceback_later(60, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@cache
def instructions(code: CodeType) -> dict[int, tuple[str, int]]:
    """Return the names of instructions by their places, and where each goes on if it raises."""
    table = getattr(dis, "_parse_exception_table", lambda _: ())(code)
    return {
        each.offset: (
            each.opname,
            next((part.target for part in table if part.start <= each.offset < part.end), -1),
        )
        for each in dis.get_instructions(code)
    }


class At:
    """Does something at one moment of a call: before its n-th instruction in Python.

    A signal handler runs between two instructions. `exactly` counts only the instructions before
    which CPython looks for signals, as an exception that a handler raises can come there alone.
    """

    def __init__(self, moment: int, act: Callable[[], object], exactly: bool = False) -> None:
        self.left = moment
        self.act = act
        self.exactly = exactly
        self.before: dict[FrameType, tuple[str, int]] = {}

    @property
    def done(self) -> bool:
        return self.left < 0

    def __enter__(self) -> At:
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if self.done or not frame.f_code.co_filename.endswith(TRACED):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            before, raising = self.before.get(frame, ("", -1))
            here = self.before[frame] = instructions(frame.f_code)[frame.f_lasti]
            # what a signal raises belongs to the instruction before, what is raised here to this
            if not self.exactly or (before in LOOKS and raising == here[1]):
                self.left -= 1
                if self.done:
                    self.before.clear()
                    self.act()
        return self._trace


Pair = tuple[vicinal.Index, vicinal.Index]


def pair() -> Pair:
    """Make an index and one that can be merged into it."""
    index, other = vicinal.Index(4), vicinal.Index(4)
    index.add(ROWS[:20])
    other.add(ROWS[20:], ids=np.arange(100, 120))
    return index, other


def fill_block(index: vicinal.Index) -> None:
    with index.bulk() as bulk:
        bulk.add(ROWS[:2])


WRITES: dict[str, Callable[[vicinal.Index, vicinal.Index], object]] = {
    "add": lambda index, _: index.add(ROWS[:2]),
    "bulk": lambda index, _: fill_block(index),
    "update": lambda index, _: index.update(ROWS[:2], [3, 4]),
    "remove": lambda index, _: index.remove([3, 4]),
    "compact": lambda index, _: index.compact(),
    "merge": lambda index, other: index.merge(other),
    "check": lambda index, _: index.check(),
    "copy": lambda index, _: index.copy(),
}


def moments(
    write: str, act: Callable[[vicinal.Index], object], exactly: bool = False
) -> Iterator[tuple[vicinal.Index, BaseException | None]]:
    """Repeat a call, with something done at its first moment, then its second, to its last.

    Yields the index and what the call raised, whose traceback keeps all its frames alive.
    """
    moment = 0
    while True:
        index, other = pair()
        raised: BaseException | None = None
        with At(moment, partial(act, index), exactly) as at:
            try:
                WRITES[write](index, other)
            except BaseException as error:
                raised = error
        if not at.done:
            assert raised is None and moment >= 10
            return
        yield index, raised
        moment += 1


def from_elsewhere(call: Callable[[], object]) -> None:
    """Make a call in another thread, which has to end."""
    ended: list[object] = []
    thread = threading.Thread(target=lambda: ended.append(call()), daemon=True)
    thread.start()
    thread.join(20)
    assert ended


@pytest.mark.parametrize("write", WRITES)
def test_a_signal_handler_may_write_or_is_told_that_it_cannot(write: str) -> None:
    """Autosave in a handler, whatever the moment: it ends, and so does the call it interrupts."""
    outcomes: list[str] = []

    def handler(index: vicinal.Index) -> None:
        try:
            index.check()
            outcomes.append("written")
        except RuntimeError as error:
            assert str(error).startswith("index: its progress function must not write to it, nor")
            outcomes.append("refused")

    for index, raised in moments(write, handler):
        assert raised is None
        index.check()
    assert set(outcomes) == {"written", "refused"}


def content(index: vicinal.Index) -> tuple[list[int], list[list[float]]]:
    """Return all that the vectors of an index are."""
    assert len(index) == len(index.ids) and all(each in index for each in index.ids)
    return index.ids.tolist(), index.get(index.ids).tolist()


# the file of a copy is closed with its last reference if Ctrl-C comes before its `with`
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("write", WRITES)
def test_ctrl_c_at_any_moment_changes_all_or_nothing_and_leaves_no_lock(write: str) -> None:
    index, other = pair()
    before = content(index)
    WRITES[write](index, other)
    after = content(index)
    seen = []

    def press(_: vicinal.Index) -> None:
        raise KeyboardInterrupt

    for index, raised in moments(write, press, exactly=True):
        assert isinstance(raised, KeyboardInterrupt)
        found = content(index)
        assert found in (before, after)
        seen.append(found == before)
        index.check()
        from_elsewhere(index.check)
    # nothing is undone that has taken effect
    assert seen == sorted(seen, reverse=True)


# ---- threads that meet


class Meeting:
    """Two threads, each inside the progress function of its own index at the same time."""

    def __init__(self) -> None:
        self.here = threading.Barrier(2)

    def write(self, mine: vicinal.Index, write: Callable[[], object], errors: list[str]) -> None:
        """Add to an index, and write to another one while both threads are at it."""

        def progress(done: int, total: int) -> None:
            self.here.wait(20)
            try:
                write()
            except RuntimeError as error:
                errors.append(str(error))
            self.here.wait(20)

        mine.add(ROWS[:2], progress=progress)


def test_two_progress_functions_that_write_to_each_other_are_refused() -> None:
    index, other = pair()
    errors: list[str] = []
    meeting = Meeting()
    threads = [
        threading.Thread(target=meeting.write, args=(a, b.check, errors), daemon=True)
        for a, b in ((index, other), (other, index))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert len(errors) == 2 and all(
        error.startswith("index: another thread is writing to it; who writes") for error in errors
    )
    assert (len(index), len(other)) == (22, 22)


@pytest.mark.parametrize("into_mine", [False, True])
def test_a_progress_function_that_meets_a_merge_does_not_wait_for_it(into_mine: bool) -> None:
    """One thread is inside an index and wants the other, a second one merges the two."""
    index, other = pair()
    errors: list[str] = []
    inside, merging = threading.Event(), threading.Event()

    def progress(done: int, total: int) -> None:
        if not inside.is_set():
            inside.set()
            assert merging.wait(20)
            for _ in range(200):  # the merge waits for the end of this call
                other.add(ROWS[:1])

    def merge() -> None:
        assert inside.wait(20)
        merging.set()
        if into_mine:
            index.merge(other)
        else:
            other.merge(index)

    thread = threading.Thread(target=merge, daemon=True)
    thread.start()
    try:
        index.add(ROWS[:2], ids=[5000, 5001], progress=progress)
    except RuntimeError as error:  # the merge looked at the lock at that moment
        errors.append(str(error))
    thread.join(30)
    assert not thread.is_alive()
    assert len(errors) <= 1


@pytest.mark.parametrize("_", range(20))
def test_merges_into_each_other_do_not_wait_for_each_other(_: int) -> None:
    """Crossing merges end; of ids that are in both by then the second is refused."""
    index, other = pair()
    start = threading.Barrier(2)
    refused: list[str] = []

    def merge(a: vicinal.Index, b: vicinal.Index) -> None:
        start.wait(20)
        try:
            a.merge(b)
        except ValueError as error:
            refused.append(str(error))

    threads = [
        threading.Thread(target=merge, args=each, daemon=True)
        for each in ((index, other), (other, index))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert sorted((len(index), len(other))) == [20, 40] and len(refused) == 1


def test_a_progress_function_may_write_to_an_index_that_is_free() -> None:
    index, other = pair()
    index.add(ROWS[:2], progress=lambda done, total: other.add(ROWS[:1]))
    assert len(index) == 22 and len(other) > 20


# ---- Ctrl-C inside native code

PRESS_AT_RANDOM = """
    import os, random, signal, sys, threading, time
    import numpy as np, vicinal

    rng = np.random.default_rng(0)
    rows = rng.standard_normal((6000, 64), dtype=np.float32)
    strings = sys.argv[1] == "str"
    def names(numbers):
        return [f"n{i}" for i in numbers] if strings else list(numbers)
    index = vicinal.Index(64, M=4, ef_construction=8, ids=sys.argv[1])
    index.add(rows, names(range(6000)))

    def content():
        assert len(index) == len(index.ids) and all(each in index for each in index.ids[::97])
        return dict(zip(index.ids.tolist(), index.get(index.ids)[:, 0].tolist()))

    added = names(range(10_000, 10_600))
    written = {
        "add": (added, rows[:600]),
        "update": (names(range(600)), -rows[:600]),
        "back": (names(range(600)), rows[:600]),
        "upsert": (names(range(300, 900)), -rows[:600]),
    }
    calls = {
        "add": lambda: index.add(rows[:600], added),
        "remove": lambda: index.remove(added),
        "update": lambda: index.update(-rows[:600], names(range(600))),
        "back": lambda: index.update(rows[:600], names(range(600))),
        "upsert": lambda: index.add(-rows[:600], names(range(300, 900)), on_conflict="update"),
    }
    random.seed(int(sys.argv[2]))
    pressed = ended = 0
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for _ in range(40):
        for name, call in calls.items():
            before = content()
            if name == "add" and len(before) > 6000:
                continue
            if name == "remove" and len(before) == 6000:
                continue
            try:
                signal.setitimer(signal.ITIMER_REAL, 0)
                signal.signal(signal.SIGALRM, signal.default_int_handler)
                signal.setitimer(signal.ITIMER_REAL, random.random() * 0.12)
                call()
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                signal.setitimer(signal.ITIMER_REAL, 0)
                pressed += 1
            after = content()
            new = dict(before)
            if name == "remove":
                for each in added:
                    del new[each]
            else:
                which, values = written[name]
                new.update(zip(which, values[:, 0].tolist()))
            assert after in (before, new), name
            ended += after != before
    index.check()
    assert pressed and ended, (pressed, ended)
    print("sound")
"""


@pytest.mark.parametrize("kind", ["int64", "str"])
def test_ctrl_c_inside_a_change_leaves_it_whole_or_undone(kind: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PRESS_AT_RANDOM), kind, "1"],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.returncode, done.stdout) == (0, "sound\n"), done.stderr
