"""The GIL, released while the library works, and the watch that takes it now and then."""
from std.ffi import c_int, external_call

from bindings.python_api import Obj
from vicinal.system.clock import now
from vicinal.system.parallel import Watch

comptime LOOK_EVERY = 50_000_000
"""Nanoseconds between looks at signals and calls of `progress`."""


struct NoGil(Movable):
    """Releases the GIL while it lives. End its life by hand (`_ = gil^`) before any view is released.
    """

    var state: Int
    """What takes it again; 0 while it is held."""

    def __init__(out self, held: Bool = False):
        """Releases the GIL, unless it is to be `held` for work that takes less time than to release it and take it again.
        """
        self.state = 0
        if not held:
            self.release()

    def __deinit__(deinit self):
        self.take()

    @always_inline
    def release(mut self):
        """Releases the GIL."""
        self.state = external_call["PyEval_SaveThread", Int]()

    @always_inline
    def take(mut self):
        """Takes the GIL if it was released."""
        if self.state != 0:
            external_call["PyEval_RestoreThread", NoneType](self.state)
            self.state = 0


struct PythonWatch(Watch):
    """Lets Ctrl-C and the caller's `progress` end a long call that runs without the GIL."""

    var gil: NoGil
    """Released while the watch lives; taken for each look."""
    var progress: Obj
    """Callable `(done, total)`, or 0."""
    var total: Int
    """What `progress` is told as the total."""
    var offset: Int
    """Added to `done` for `progress`."""
    var next_look: Int
    """When to look again, in nanoseconds of the clock; 0 until the first question, which calls too short to be asked spare."""
    var raised: Bool
    """True once a Python exception has been set: the call must end and raise `Fail`."""
    var key: Int
    """A key of this thread whose destructor keeps it, see `look`; 0 until the first look."""

    def __init__(out self, progress: Obj, total: Int, held: Bool = False):
        """Releases the GIL, unless it is `held`, see `NoGil`; `progress` is 0 or a callable that outlives the watch.
        """
        self.progress = progress
        self.total = total
        self.offset = 0
        self.next_look = 0
        self.raised = False
        self.key = 0
        self.gil = NoGil(held)

    def __deinit__(deinit self):
        if self.key != 0:
            _ = external_call["pthread_key_delete", c_int](c_int(self.key - 1))

    def proceed(mut self, done: Int) -> Bool:
        """Looks at signals and reports progress, at most every 50 ms."""
        if self.raised:
            return False
        var time = now()
        if self.next_look == 0:
            self.next_look = time + LOOK_EVERY
        if time < self.next_look:
            return True
        self.look(done)
        self.next_look = now() + LOOK_EVERY
        return not self.raised

    def advance(mut self, base: Int):
        """Adds `base` to what `progress` is told from now on."""
        self.offset = base

    def conclude(mut self, done: Int) -> Bool:
        """Looks at signals and reports the end."""
        if not self.raised:
            self.offset = 0
            self.look(done)
        return not self.raised

    def look(mut self, done: Int):
        """Looks at signals and reports progress at once.

        When the interpreter ends, CPython before 3.14 ends a daemon thread that asks for the GIL, there and then: its stack would
        go, which other threads of this call work with. A destructor keeps the thread until the process is gone.
        """
        var held = self.gil.state == 0
        self.hold(1)
        self.gil.take()
        self.hold(0)
        self.raised = external_call["PyErr_CheckSignals", c_int]() != 0
        if not self.raised and self.progress != 0:
            var result = external_call["PyObject_CallFunction", Obj, num_fixed_args=2](
                self.progress, "nn".ptr(), min(max(done + self.offset, 0), self.total), self.total
            )
            if result == 0:
                self.raised = True
            else:
                external_call["Py_DecRef", NoneType](result)
        if not held:
            self.gil.release()

    def hold(mut self, value: Int):
        """Says whether the end of this thread would be the end of its stack as well; without a key it is left to luck.
        """
        if self.key == 0:
            var key = c_int(0)
            var made = external_call["pthread_key_create", c_int](
                Pointer(to=key).unsafe_origin_cast[MutUntrackedOrigin](), _stay
            )
            if made != 0:
                return
            self.key = Int(key) + 1
        _ = external_call["pthread_setspecific", c_int](c_int(self.key - 1), value)


def _stay(value: Int) abi("C") -> None:
    """Never returns."""
    while True:
        _ = external_call["pause", c_int]()
