"""CPython's C API by symbol name: values, errors, handles, the module.

Nothing here needs a Modular runtime library. `PyObject*` is a plain Int, 0 being NULL.
"""
from std.ffi import c_int, external_call

from vicinal.system.memory import Ptr, allocate, allocate_zeroed, at, missing, release
from vicinal.system.pointer import RawPtr

comptime Obj = Int
comptime Args = Ptr[Int]
comptime FastFunction = def(Obj, RawPtr[Int], Int) abi("C") thin -> Obj


struct Fail(TrivialRegisterPassable):
    """Means that a Python exception is set; has no fields, so raising it allocates nothing."""

    def __init__(out self):
        """Makes the mark."""
        pass


def fail(kind: StringLiteral, format: StringLiteral, a: Int = 0, b: Int = 0) -> Fail:
    """Sets a built-in exception; `format` may print the two integers with %zd."""
    var builtins = external_call["PyEval_GetBuiltins", Obj]()
    var exception = external_call["PyDict_GetItemString", Obj](builtins, kind.ptr())
    _ = external_call["PyErr_Format", Obj, num_fixed_args=2](exception, format.ptr(), a, b)
    return Fail()


def no_memory() -> Fail:
    """Sets MemoryError, which takes no memory itself."""
    _ = external_call["PyErr_NoMemory", Obj]()
    return Fail()


def fast[
    f: def(Args, Int) thin raises Fail -> Obj
](self_: Obj, args: RawPtr[Int], count: Int) abi("C") -> Obj:
    """Wraps a raising Mojo function for CPython's METH_FASTCALL."""
    try:
        return f(args, count)
    except:
        return 0


def need(count: Int, wanted: Int) raises Fail:
    """Raises TypeError unless a call has the wanted number of arguments."""
    if count != wanted:
        raise fail("TypeError", "native function takes %zd arguments, got %zd", wanted, count)


def as_int(o: Obj) raises Fail -> Int:
    """Converts a Python int that fits 64 bits."""
    var value = external_call["PyLong_AsSsize_t", Int](o)
    if value == -1 and external_call["PyErr_Occurred", Obj]() != 0:
        raise Fail()
    return value


def is_int(o: Obj) -> Bool:
    """Tells whether an object is an integer."""
    return external_call["PyIndex_Check", c_int](o) != 0


def as_float(o: Obj) raises Fail -> Float64:
    """Converts a Python float."""
    var value = external_call["PyFloat_AsDouble", Float64](o)
    if value == -1 and external_call["PyErr_Occurred", Obj]() != 0:
        raise Fail()
    return value


def from_int(value: Int) -> Obj:
    """Makes a Python int."""
    return external_call["PyLong_FromSsize_t", Obj](value)


def from_float(value: Float64) -> Obj:
    """Makes a Python float."""
    return external_call["PyFloat_FromDouble", Obj](value)


def none() -> Obj:
    """Returns a new reference to None."""
    return external_call["Py_BuildValue", Obj, num_fixed_args=1]("".ptr())


def is_none(o: Obj) -> Bool:
    """Tells whether an object is None."""
    var it = none()
    external_call["Py_DecRef", NoneType](it)
    return o == it


def tuple_size(o: Obj) raises Fail -> Int:
    """Returns the length of a tuple."""
    var size = external_call["PyTuple_Size", Int](o)
    if size < 0:
        raise Fail()
    return size


def tuple_item(o: Obj, i: Int) raises Fail -> Obj:
    """Returns item i of a tuple, which keeps its reference."""
    var item = external_call["PyTuple_GetItem", Obj](o, i)
    if item == 0:
        raise Fail()
    return item


def path_bytes(o: Obj) raises Fail -> Int:
    """Returns the address of the NUL-terminated bytes of a `bytes` object, which must outlive their use.
    """
    var address = external_call["PyBytes_AsString", Int](o)
    if address == 0:
        raise Fail()
    return address


# ---- handles: a capsule that owns one heap value


def capsule_new[T: Movable & Deinitable, tag: StringLiteral](var value: T) raises Fail -> Obj:
    """Moves a value into a capsule that destroys it with its last reference."""
    var p = allocate[T](1)
    if missing(p):
        raise no_memory()
    p.unsafe_write(value^)
    var finish: def(Obj) abi("C") thin -> None = _capsule_free[T, tag]
    var capsule = external_call["PyCapsule_New", Obj](Int(p), tag.ptr(), finish)
    if capsule == 0:
        p.unsafe_deinit_pointee()
        release(p)
        raise Fail()
    return capsule


def _capsule_free[T: Movable & Deinitable, tag: StringLiteral](capsule: Obj) abi("C") -> None:
    var p = at[T](external_call["PyCapsule_GetPointer", Int](capsule, tag.ptr()))
    p.unsafe_deinit_pointee()
    release(p)
    capsule_keep(capsule, 0)


def capsule_keep(capsule: Obj, o: Obj):
    """Keeps an object, or none if it is 0, as long as the capsule, in place of the one kept before.

    A new capsule keeps nothing; must be called with the GIL held.
    """
    var before = external_call["PyCapsule_GetContext", Obj](capsule)
    if o != 0:
        external_call["Py_IncRef", NoneType](o)
    _ = external_call["PyCapsule_SetContext", c_int](capsule, o)
    if before != 0:
        external_call["Py_DecRef", NoneType](before)


def capsule_get[T: Movable & Deinitable, tag: StringLiteral](o: Obj) raises Fail -> Ptr[T]:
    """Returns the value of a capsule; ValueError for anything else."""
    var address = external_call["PyCapsule_GetPointer", Int](o, tag.ptr())
    if address == 0:
        raise Fail()
    return at[T](address)


# ---- the module


@fieldwise_init
struct Method(Movable):
    """CPython's PyMethodDef."""

    var name: Int
    var function: FastFunction
    var flags: Int
    var doc: Int


struct Methods(Movable):
    """The method table of a module; lives as long as the process."""

    var table: Ptr[Method]
    var count: Int
    var room: Int

    def __init__(out self, room: Int):
        """Makes a table for `room` methods."""
        # zero bytes end the table
        self.table = allocate_zeroed[Int](4 * (room + 1)).unsafe_bitcast[Method]()
        self.count = 0
        self.room = 0 if missing(self.table) else room

    def add(mut self, name: StringLiteral, doc: StringLiteral, function: FastFunction):
        """Adds a function under a name."""
        comptime METH_FASTCALL = 0x80
        if self.count >= self.room:
            return
        self.table.unsafe_offset(self.count).unsafe_write(
            Method(Int(name.ptr()), function, METH_FASTCALL, Int(doc.ptr()))
        )
        self.count += 1

    def module(self, name: StringLiteral, state: Int) -> Obj:
        """Makes the module with so many bytes of state, -1 for none, or sets MemoryError and returns NULL.
        """
        # PyModuleDef, never freed; an object's header has 2 words more without a GIL
        var head = 7 if free_threaded() else 5
        var definition = allocate_zeroed[Int](head + 8)
        if missing(definition) or self.room == 0:
            return external_call["PyErr_NoMemory", Obj]()
        if head == 5:
            definition[unsafe_offset=0] = 1  # reference count; without a GIL CPython sets it
        definition[unsafe_offset=head] = Int(name.ptr())
        definition[unsafe_offset=head + 2] = state
        definition[unsafe_offset=head + 3] = Int(self.table)
        return external_call["PyModule_Create2", Obj](Int(definition), c_int(1013))


def free_threaded() -> Bool:
    """Tells whether this CPython was built to run without a GIL, which its ABI flags say with a `t`.
    """
    var flags = external_call["PySys_GetObject", Obj]("abiflags".ptr())
    var text = external_call["PyUnicode_AsUTF8", Int](flags) if flags != 0 else 0
    if text == 0:
        external_call["PyErr_Clear", NoneType]()
        return False
    var letters = at[UInt8](text)
    var i = 0
    while letters[unsafe_offset=i] != 0:
        if letters[unsafe_offset=i] == 116:
            return True
        i += 1
    return False
