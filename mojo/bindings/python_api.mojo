"""CPython's C API by symbol name: errors, handles, buffers, the GIL.

Nothing here needs a Modular runtime library. `PyObject*` is a plain Int, 0 being NULL.
"""
from std.ffi import c_int, external_call
from std.sys import size_of

from vicinal.system.clock import now
from vicinal.system.memory import Ptr, allocate, allocate_zeroed, at, missing, release
from vicinal.system.parallel import Watch

comptime Obj = Int
comptime Args = Ptr[Int]
comptime FastFunction = def(Obj, Args, Int) abi("C") thin -> Obj
comptime INT64 = 5
"""Array type code beyond the stored types: ids."""
comptime UINT32 = 6
"""The same for rows and links."""
comptime EITHER = 0
"""In place of a number of dimensions: one row of shape (columns,) or several of shape (rows, columns)."""
comptime FLOAT_KIND: UInt8 = 1
comptime SIGNED_KIND: UInt8 = 2
comptime UNSIGNED_KIND: UInt8 = 3
comptime LOOK_EVERY = 50_000_000
"""Nanoseconds between looks at signals and calls of `progress`."""


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
](self_: Obj, args: Args, count: Int) abi("C") -> Obj:
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
    var capsule = external_call["PyCapsule_New", Obj](p, tag.ptr(), finish)
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


# ---- arrays


@fieldwise_init
struct PyBuffer(Movable):
    """CPython's Py_buffer."""

    var buf: Int
    var obj: Obj
    var len: Int
    var itemsize: Int
    var readonly: c_int
    var ndim: c_int
    var format: Int
    var shape: Int
    var strides: Int
    var suboffsets: Int
    var internal: Int


struct View(Movable):
    """A C-contiguous array of a known item type, through the buffer protocol and without a copy.

    Must be made and destroyed with the GIL held; the memory may be used without it in between.
    """

    var buffer: Ptr[PyBuffer]
    """On the heap, since some exporters point into it."""

    def __init__(out self, o: Obj, type: Int, dims: Int, *, writable: Bool = False) raises Fail:
        """Takes a view of `o`.

        Args:
            o: Any exporter of the buffer protocol.
            type: Code of a stored type (bfloat16 is exported as uint16), or INT64 or UINT32.
            dims: Dimensions wanted, 1 or 2, or EITHER.
            writable: Whether the memory will be written.

        Raises:
            ValueError or TypeError of another type, shape or layout.
        """
        # all checks on a local: a raise after the fields are set would run the destructor on a half-made object
        # not on a cache line: that takes longer than all the rest, three times in a search
        var address = external_call["malloc", Int](size_of[PyBuffer]())
        if address == 0:
            raise no_memory()
        var buffer = at[PyBuffer](address)
        var flags = 0x38 | 0x4 | (1 if writable else 0)  # C-contiguous, with format
        if external_call["PyObject_GetBuffer", c_int](o, buffer, c_int(flags)) != 0:
            release(buffer)
            raise Fail()
        var kind = FLOAT_KIND if type <= 1 else (
            UNSIGNED_KIND if type == 2 or type == 4 or type == UINT32 else SIGNED_KIND
        )
        var size = 4 if type == 0 or type == UINT32 else (
            2 if type <= 2 else (8 if type == INT64 else 1)
        )
        if (
            (
                Int(buffer[].ndim) != dims if dims != EITHER else Int(buffer[].ndim) < 1
                or Int(buffer[].ndim) > 2
            )
            or buffer[].itemsize != size
            or buffer[].buf % size != 0
            or _kind_of(buffer[].format) != kind
        ):
            external_call["PyBuffer_Release", NoneType](buffer)
            release(buffer)
            raise fail(
                "ValueError",
                "native function wants an aligned array of %zd dimensions, item type %zd",
                dims,
                type,
            )
        self.buffer = buffer

    def __deinit__(deinit self):
        external_call["PyBuffer_Release", NoneType](self.buffer)
        release(self.buffer)

    @always_inline
    def address(self) -> Int:
        """Returns the address of the first item."""
        return self.buffer[].buf

    @always_inline
    def dim(self, i: Int) -> Int:
        """Returns the length of dimension i."""
        return at[Int](self.buffer[].shape)[unsafe_offset=i]

    @always_inline
    def rows(self) -> Int:
        """Returns the number of rows, 1 for an array of one dimension."""
        return 1 if Int(self.buffer[].ndim) == 1 else self.dim(0)

    @always_inline
    def columns(self) -> Int:
        """Returns the length of a row."""
        return self.dim(Int(self.buffer[].ndim) - 1)


def _kind_of(format: Int) -> UInt8:
    """Returns the kind of a native-order one-letter struct format, 0 for any other."""
    var letters = at[UInt8](format)
    var letter = letters[]
    if letter == 60 or letter == 61 or letter == 64:  # < = @
        letters = letters.unsafe_offset(1)
        letter = letters[]
    if letter == 0 or letters[unsafe_offset=1] != 0:
        return 0
    if letter == 101 or letter == 102 or letter == 100:  # e f d
        return FLOAT_KIND
    if (
        letter == 98 or letter == 104 or letter == 105 or letter == 108 or letter == 113
    ):  # b h i l q
        return SIGNED_KIND
    if letter == 66 or letter == 72 or letter == 73 or letter == 76 or letter == 81:  # B H I L Q
        return UNSIGNED_KIND
    return 0


# ---- the GIL


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

    def add[
        f: def(Args, Int) thin raises Fail -> Obj
    ](mut self, name: StringLiteral, doc: StringLiteral):
        """Adds a function under a name."""
        comptime METH_FASTCALL = 0x80
        if self.count >= self.room:
            return
        self.table.unsafe_offset(self.count).unsafe_write(
            Method(Int(name.ptr()), fast[f], METH_FASTCALL, Int(doc.ptr()))
        )
        self.count += 1

    def module(self, name: StringLiteral) -> Obj:
        """Makes the module, or sets MemoryError and returns NULL."""
        # PyModuleDef, never freed; an object's header has 2 words more without a GIL
        var head = 7 if free_threaded() else 5
        var definition = allocate_zeroed[Int](head + 8)
        if missing(definition) or self.room == 0:
            return external_call["PyErr_NoMemory", Obj]()
        if head == 5:
            definition[unsafe_offset=0] = 1  # reference count; without a GIL CPython sets it
        definition[unsafe_offset=head] = Int(name.ptr())
        definition[unsafe_offset=head + 2] = -1  # no state per interpreter
        definition[unsafe_offset=head + 3] = Int(self.table)
        return external_call["PyModule_Create2", Obj](definition, c_int(1013))


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
