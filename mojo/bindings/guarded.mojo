"""Functions of one index take turns where there is no GIL to see to it.

What ids lead to, the states of rows and the strings that numbers stand for are read and changed with the GIL held, in steps that release
it for nothing but long work. A CPython without a GIL has a lock of each object with the same manner: `PyCriticalSection_Begin` takes
it, `PyEval_SaveThread` lets it go while a thread does long work, and no two threads can wait for each other (PEP 703). So each function
whose first argument is an index runs in such a section of it; what needs none, a search without a filter, does not ask for it.
"""
from std.ffi import c_int, external_call

from bindings.handles import TAG
from bindings.python_api import Args, Fail, Methods, Obj, fast, free_threaded
from vicinal.system.memory import at
from vicinal.system.pointer import RawPtr

comptime BeginSection = def(Int, Obj) abi("C") thin -> None
comptime EndSection = def(Int) abi("C") thin -> None
comptime SetGil = def(Obj, Int) abi("C") thin -> c_int
comptime STATE_WORDS = 3
"""What the module keeps: the addresses of functions that a CPython with a GIL may not have."""
comptime SECTION_WORDS = 8
"""Room for a PyCriticalSection, which has two in CPython 3.13 and 3.14."""


def in_section[
    f: def(Args, Int) thin raises Fail -> Obj
](module: Obj, args: RawPtr[Int], count: Int) abi("C") -> Obj:
    """Wraps a function as `fast` does, in a section of the index that is its first argument, if that is one.
    """
    if count == 0 or external_call["PyCapsule_IsValid", c_int](args[], TAG.ptr()) == 0:
        return fast[f](module, args, count)
    var state = external_call["PyModule_GetState", Int](module)
    var section = SIMD[DType.int64, SECTION_WORDS](0)
    var address = Int(Pointer(to=section))
    at[BeginSection](state)[](address, args[])
    var result = fast[f](module, args, count)
    at[EndSection](state + 8)[](address)
    _ = section
    return result


struct Table(Movable):
    """The methods of the module, as this CPython needs them."""

    var methods: Methods
    var sections: Bool
    """Whether there is no GIL, and locks of objects in its place."""
    var begin: Int
    """Address of PyCriticalSection_Begin."""
    var end: Int

    def __init__(out self, room: Int):
        """Makes a table for `room` methods."""
        self.methods = Methods(room)
        self.sections = False
        self.begin = 0
        self.end = 0
        if free_threaded():
            self.begin = _address("PyCriticalSection_Begin")
            self.end = _address("PyCriticalSection_End")
            self.sections = self.begin != 0 and self.end != 0

    def add[
        f: def(Args, Int) thin raises Fail -> Obj
    ](mut self, name: StringLiteral, doc: StringLiteral):
        """Adds a function under a name; without a GIL those of one index take turns."""
        if self.sections:
            self.methods.add(name, doc, in_section[f])
        else:
            self.methods.add(name, doc, fast[f])

    def add_alone[
        f: def(Args, Int) thin raises Fail -> Obj
    ](mut self, name: StringLiteral, doc: StringLiteral):
        """Adds a function that needs no turns."""
        self.methods.add(name, doc, fast[f])

    def module(self, name: StringLiteral) -> Obj:
        """Makes the module, or sets MemoryError and returns NULL; says that it needs no GIL if so.
        """
        var made = self.methods.module(name, STATE_WORDS * 8 if self.sections else -1)
        if made == 0 or not self.sections:
            return made
        var state = external_call["PyModule_GetState", Int](made)
        at[Int](state)[] = self.begin
        at[Int](state)[unsafe_offset=1] = self.end
        at[Int](state)[unsafe_offset=2] = _address("PyUnstable_Module_SetGIL")
        if at[Int](state)[unsafe_offset=2] != 0:
            # 1 is Py_MOD_GIL_NOT_USED
            if at[SetGil](state + 16)[](made, 1) < 0:
                external_call["Py_DecRef", NoneType](made)
                return 0
        return made


def _address(name: StringLiteral) -> Int:
    """Returns the address of a function of this CPython, 0 if it has none of that name."""
    return external_call["dlsym", Int](Int(0), name.ptr())
