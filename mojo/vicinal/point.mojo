"""Places where a schedule matters: between two steps that other threads may see, or that see what others do.

With `-D EXPLORE`, which only tests give, each is a call to a scheduler that lets one thread run at a time and decides here
which one it is (`tests/mojo/explorer.mojo`). Without it nothing is left of them.
"""
from std.ffi import _Global
from std.sys import is_defined

comptime EXPLORED = is_defined["EXPLORE"]()
"""Whether this is a build for the schedule explorer."""
comptime Hook = def(Int, Int, Int) thin -> Int
"""What a scheduler provides: told what happens, where in the source (address of a NUL-terminated name), and a row or an address.
"""
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


def _no_scheduler(what: Int, name: Int, value: Int) -> Int:
    return 0


def _first_hook() -> Hook:
    return _no_scheduler


comptime HOOK = _Global["vicinal.point", _first_hook]
"""The scheduler; tests set it."""


@always_inline
def _call[what: Int, name: StaticString](value: Int) -> Int:
    try:
        return HOOK.get_or_create_ptr()[](what, Int(name.unsafe_ptr()), value)
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
