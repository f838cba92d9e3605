"""Places where a schedule matters: between two steps that other threads may see, or that see what others do.

With `-D EXPLORE`, which only tests give, each is a call to a scheduler that lets one thread run at a time and decides here
which one it is (`tests/schedules/explorer.mojo`). Without it nothing is left of them.
"""
from std.ffi import _Global
from std.sys import is_defined

from vicinal.system.memory import Ptr

comptime EXPLORED = is_defined["EXPLORE"]()
"""Whether this is a build for the schedule explorer."""
comptime Hook = def(Int, Int, Int, Int) thin -> Int
"""What a scheduler provides: told what happens, where (the address of a name that ends with NUL), and two numbers."""
comptime STEP = 0
"""A step that others may see is about to happen."""
comptime WAIT = 1
"""The thread waits for others; the answer is 0 when it is to wait no longer."""
comptime TOUCH = 2
"""A row is read, with all that belongs to it."""
comptime RECLAIM = 3
"""A row is given up: nobody may touch it from here on."""
comptime REUSE = 4
"""A row that was given up is written anew."""
comptime LATE = 5
"""A store was made that others may see late."""
comptime SEEN = 6
"""Stores of this thread are seen by all from here on."""
comptime BROKEN = 7
"""A question: whether a rule is to be broken."""
comptime HOOK = _Global["vicinal.point", _first_hook]
"""The scheduler; tests set it."""


def _no_scheduler(what: Int, name: Int, a: Int, b: Int) -> Int:
    return 0


def _first_hook() -> Hook:
    return _no_scheduler


@always_inline
def _call[what: Int, name: StaticString](a: Int, b: Int = 0) -> Int:
    try:
        return HOOK.get_or_create_ptr()[](what, Int(name.unsafe_ptr()), a, b)
    except:
        return 0


@always_inline
def point[name: StaticString]():
    """Says that a step is about to happen that others may see, or that sees what others do."""
    comptime if EXPLORED:
        _ = _call[STEP, name](0)


@always_inline
def wait_point[name: StaticString]() -> Bool:
    """Lets others go on; returns False when patience is over. Without a scheduler it is the caller who knows that.
    """
    comptime if EXPLORED:
        return _call[WAIT, name](0) != 0
    return True


@always_inline
def touches[name: StaticString](row: Int):
    """Says that a row is being read."""
    comptime if EXPLORED:
        _ = _call[TOUCH, name](row)


@always_inline
def reclaims[name: StaticString](row: Int):
    """Says that nobody reads a row any more."""
    comptime if EXPLORED:
        _ = _call[RECLAIM, name](row)


@always_inline
def reuses[name: StaticString](row: Int):
    """Says that a row holds something new."""
    comptime if EXPLORED:
        _ = _call[REUSE, name](row)


@always_inline
def may_be_late[name: StaticString](place: Ptr[Int64], before: Int64):
    """Says that the store just made to a word may be seen by others after what this thread reads next, as processors allow that:
    `before` is what they see until `all_seen`. On AArch64 a compare-and-swap made of two instructions is such a store.
    """
    comptime if EXPLORED:
        _ = _call[LATE, name](Int(place), Int(before))


@always_inline
def all_seen[name: StaticString](others: Bool = False):
    """Says that this thread is at a sequentially consistent operation, or at one that releases: its stores are seen first.

    With `others` those of all threads are, since a word cannot be swapped while another thread's store to it is on its way.
    """
    comptime if EXPLORED:
        _ = _call[SEEN, name](Int(others))


@always_inline
def broken[name: StaticString]() -> Bool:
    """Tells whether a test wants a rule to be broken; only sources that a test has changed ask."""
    comptime if EXPLORED:
        return _call[BROKEN, name](0) != 0
    return False
