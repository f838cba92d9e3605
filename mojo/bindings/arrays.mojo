"""Arrays of Python, through the buffer protocol and without a copy."""
from std.ffi import c_int, external_call
from std.sys import size_of

from bindings.python_api import Fail, Obj, fail, no_memory
from vicinal.system.memory import Ptr, at, release

comptime INT64 = 5
"""Array type code beyond the stored types: ids."""
comptime UINT32 = 6
"""The same for rows and links."""
comptime EITHER = 0
"""In place of a number of dimensions: one row of shape (columns,) or several of shape (rows, columns)."""
comptime FLOAT_KIND: UInt8 = 1
comptime SIGNED_KIND: UInt8 = 2
comptime UNSIGNED_KIND: UInt8 = 3


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
        if external_call["PyObject_GetBuffer", c_int](o, Int(buffer), c_int(flags)) != 0:
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
            external_call["PyBuffer_Release", NoneType](Int(buffer))
            release(buffer)
            raise fail(
                "ValueError",
                "native function wants an aligned array of %zd dimensions, item type %zd",
                dims,
                type,
            )
        self.buffer = buffer

    def __deinit__(deinit self):
        external_call["PyBuffer_Release", NoneType](Int(self.buffer))
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
