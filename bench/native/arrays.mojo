"""Vectors and ids out of files: .npy and the fvecs family, read whole and checked."""
from std.ffi import external_call
from std.sys import size_of

from files import describe
from vicinal.file.posix import InputFile
from vicinal.kernels.convert import from_float, to_float
from vicinal.kernels.distance import MAX_DIM
from vicinal.kernels.stored_type import STORED, STORED_TYPES
from vicinal.system.memory import Column, at

comptime ELEMENTS = [
    DType.float32,
    DType.float16,
    DType.float64,
    DType.int8,
    DType.uint8,
    DType.int16,
    DType.uint16,
    DType.int32,
    DType.uint32,
    DType.int64,
    DType.uint64,
]
"""Types that are read; `_read_body` has their names in the header of a .npy file."""
comptime BFLOAT16 = 2
"""Code of the stored type that no .npy file names: its bits come as uint16."""


struct Matrix(Movable):
    """Rows of one length and type, in C order."""

    var label: String
    """The option and the file it came from, for messages."""
    var dtype: DType
    """One of ELEMENTS, or the type that `stored_as` made."""
    var rows: Int
    var dim: Int
    var data: Column
    """The elements, on a page boundary."""

    def __init__(out self, label: String, dtype: DType, rows: Int, dim: Int):
        """Makes an array without memory."""
        self.label = label
        self.dtype = dtype
        self.rows = rows
        self.dim = dim
        self.data = Column()

    def make_room(mut self, bytes: Int) raises:
        """Gets memory."""
        if not self.data.grow(bytes):
            raise Error(t"{self.label}: no memory for {bytes} bytes")


def read_matrix(option: String, path: String) raises -> Matrix:
    """Reads a file of rows, by the ending of its name.

    Args:
        option: The option that named it, for messages.
        path: The file.

    Raises:
        Where the file cannot be read, is of another kind, has no row, or its size is not what its
        header promises.
    """
    var label = String(t"{option} {path}")
    var name = path
    var source = InputFile(Int(name.as_c_string_span().ptr()))
    _ = name^
    if not source.status.ok():
        raise Error(t"{label}: {describe(source.status)}")
    if path.endswith(".npy"):
        return _read_npy(source, label)
    if path.endswith(".fvecs"):
        return _read_vecs(source, label, DType.float32, 4)
    if path.endswith(".ivecs"):
        return _read_vecs(source, label, DType.int32, 4)
    if path.endswith(".bvecs"):
        return _read_vecs(source, label, DType.uint8, 1)
    raise Error(t"{label}: expected a name that ends in .npy, .fvecs, .ivecs or .bvecs")


def _read(source: InputFile, label: String, target: Int, bytes: Int, offset: Int) raises:
    var status = source.read_at(target, bytes, offset)
    if not status.ok():
        raise Error(t"{label}: {describe(status)}")


# ---- .npy


def _read_npy(source: InputFile, label: String) raises -> Matrix:
    var magic: List[UInt8] = [0x93, 78, 85, 77, 80, 89]  # and "NUMPY"
    var start = Column()
    if not start.grow(4096):
        raise Error(t"{label}: no memory for a header")
    _read(source, label, start.address, min(source.bytes, 12), 0)
    var bytes = start.ptr[UInt8]()
    var ours = source.bytes >= 12
    for i in range(6):
        ours = ours and bytes[unsafe_offset=i] == magic[i]
    if not ours:
        raise Error(t"{label}: expected a .npy file, but it does not begin like one")
    var version = Int(bytes[unsafe_offset=6])
    if version < 1 or version > 3:
        raise Error(t"{label}: expected .npy version 1, 2 or 3, got {version}")
    # the length of the header has two bytes in version 1, four from version 2 on
    var begin = 10 if version == 1 else 12
    var length = Int(bytes.unsafe_offset(8).unsafe_bitcast[UInt16]()[])
    if version > 1:
        length = Int(bytes.unsafe_offset(8).unsafe_bitcast[UInt32]()[])
    if begin + length > source.bytes:
        raise Error(t"{label}: truncated: the file ends inside its header")
    if not start.grow(length):
        raise Error(t"{label}: no memory for a header of {length} bytes")
    _read(source, label, start.address, length, begin)
    var text = List[UInt8]()
    for i in range(length):
        var byte = start.ptr[UInt8]()[unsafe_offset=i]
        if byte >= 128:
            raise Error(t"{label}: expected a plain header, got field names that are not ASCII")
        text.append(byte)
    return _read_body(source, label, String(unsafe_from_utf8=Span(text)), begin + length)


def _read_body(source: InputFile, label: String, header: String, offset: Int) raises -> Matrix:
    """Reads what the header of a .npy file describes."""
    var descr = _value(header, "descr", label)
    if not descr.startswith("'") and not descr.startswith('"'):
        raise Error(t"{label}: expected one type of element, got a structured one")
    var end = descr.find(String(descr[byte=0:1]), 1)
    if end < 0:
        raise Error(t"{label}: damaged header: no end of {descr}")
    var code = String(descr[byte=1:end])
    var codes: List[String] = [
        "<f4",
        "<f2",
        "<f8",
        "|i1",
        "|u1",
        "<i2",
        "<u2",
        "<i4",
        "<u4",
        "<i8",
        "<u8",
    ]
    var dtype = DType.bool
    var item = 0
    comptime for i in range(len(ELEMENTS)):
        comptime T = ELEMENTS[i]
        if code == codes[i]:
            dtype = T
            item = size_of[Scalar[T]]()
    if item == 0:
        raise Error(t"{label}: expected real numbers in little-endian order, got dtype '{code}'")
    if not _value(header, "fortran_order", label).startswith("False"):
        raise Error(
            t"{label}: expected C order, got Fortran order; save numpy.ascontiguousarray(...)"
        )
    var shape = _value(header, "shape", label)
    var close = shape.find(")")
    if not shape.startswith("(") or close < 0:
        raise Error(t"{label}: damaged header: no shape in it")
    var sizes = List[Int]()
    for part in shape[byte=1:close].split(","):
        var size = String(part.strip())
        if size:
            if not size.is_ascii_digit() or size.byte_length() > 18:
                raise Error(t"{label}: damaged header: {size} in the shape")
            sizes.append(Int(size))
    if len(sizes) != 2 or sizes[0] < 1 or sizes[1] < 1 or sizes[1] > MAX_DIM:
        raise Error(
            t"{label}: expected shape (rows, dim) with at least one row and dim from 1 to"
            t" {MAX_DIM}, got {shape[byte=: close + 1]}"
        )
    var body = source.bytes - offset
    # a division first: the product of what a damaged header says could overflow
    if sizes[0] > body // (sizes[1] * item):
        raise Error(
            t"{label}: truncated: {body} bytes of numbers, shape ({sizes[0]}, {sizes[1]}) of"
            t" {dtype} takes more"
        )
    if body != sizes[0] * sizes[1] * item:
        raise Error(
            t"{label}: {body} bytes of numbers, shape ({sizes[0]}, {sizes[1]}) of {dtype} takes"
            t" {sizes[0] * sizes[1] * item}"
        )
    var array = Matrix(label, dtype, sizes[0], sizes[1])
    array.make_room(body)
    _read(source, label, array.data.address, body, offset)
    return array^


def _value(header: String, key: String, label: String) raises -> String:
    """Returns the text behind a key of the dictionary in a header."""
    var at = header.find("'" + key + "'")
    if at < 0:
        at = header.find('"' + key + '"')
    if at < 0:
        raise Error(t"{label}: damaged header: no {key} in it")
    var rest = String(header[byte = at + key.byte_length() + 2 :].lstrip(" "))
    if not rest.startswith(":"):
        raise Error(t"{label}: damaged header: nothing behind {key}")
    return String(rest[byte=1:].lstrip(" "))


# ---- fvecs, ivecs, bvecs


def _read_vecs(source: InputFile, label: String, dtype: DType, item: Int) raises -> Matrix:
    """Reads vectors that each stand behind their dimension, an int32."""
    if source.bytes < 4:
        raise Error(t"{label}: truncated: expected at least one vector, got {source.bytes} bytes")
    var start = Column()
    if not start.grow(4):
        raise Error(t"{label}: no memory for a header")
    _read(source, label, start.address, 4, 0)
    var dim = start.ptr[Int32]()[]
    _ = start^
    if dim < 1 or dim > MAX_DIM:
        raise Error(
            t"{label}: expected a dimension from 1 to {MAX_DIM} in the first 4 bytes, got {dim}"
        )
    var bytes = Int(dim) * item
    if source.bytes % (4 + bytes) != 0:
        raise Error(
            t"{label}: truncated: {source.bytes} bytes are not whole vectors of dimension {dim},"
            t" {4 + bytes} bytes each"
        )
    var array = Matrix(label, dtype, source.bytes // (4 + bytes), Int(dim))
    array.make_room(source.bytes)
    _read(source, label, array.data.address, source.bytes, 0)
    for row in range(array.rows):
        var vector = array.data.address + row * (4 + bytes)
        var said = at[Int32](vector)[]
        if said != dim:
            raise Error(
                t"{label}: expected vectors of one dimension, got {dim} and, at row {row}, {said}"
            )
        # Moved together in place, each behind the one before: the two ranges may overlap.
        external_call["memmove", NoneType](array.data.address + row * bytes, vector + 4, bytes)
    return array^


# ---- other types


def own_type(array: Matrix) raises -> Int:
    """Returns the code of the stored type that an array has already.

    Raises:
        Where rows of its type cannot be stored as they are.
    """
    comptime for t in range(STORED_TYPES):
        comptime T = STORED[t]
        if array.dtype == T:
            return t
    raise Error(
        t"{array.label}: expected float32, float16, int8 or uint8 (or --dtype to convert to), got"
        t" {array.dtype}"
    )


def stored_as(var array: Matrix, dtype: Int) raises -> Matrix:
    """Returns the rows in a stored type: rounded to a float type, unchanged in an integer type.

    Args:
        array: The rows. uint16 ones are the bits of bfloat16 if that is wanted.
        dtype: Code of the stored type.

    Raises:
        Where a value has no place in an integer type.
    """
    comptime for t in range(STORED_TYPES):
        comptime T = STORED[t]
        if dtype == t:
            if array.dtype == T:
                return array^
            if t == BFLOAT16 and array.dtype == DType.uint16:
                array.dtype = T
                return array^
            var result = Matrix(array.label, T, array.rows, array.dim)
            result.make_room(array.rows * array.dim * size_of[Scalar[T]]())
            comptime for e in range(len(ELEMENTS)):
                comptime E = ELEMENTS[e]
                if array.dtype == E:
                    _convert[E, T](array, result)
            return result^
    raise Error(t"{array.label}: no stored type has the code {dtype}")


def _convert[E: DType, T: DType](array: Matrix, result: Matrix) raises:
    var source = array.data.ptr[Scalar[E]]()
    var target = result.data.ptr[Scalar[T]]()
    for i in range(array.rows * array.dim):
        var value = source[unsafe_offset=i]
        comptime if T.is_floating_point():
            comptime if E == DType.float16:
                target[unsafe_offset=i] = from_float[T, 1](to_float[E, 1](value))
            else:
                target[unsafe_offset=i] = from_float[T, 1](value.cast[DType.float32]())
        else:
            var real = value.cast[DType.float64]()
            comptime LOW = Scalar[T].MIN.cast[DType.float64]()
            comptime HIGH = Scalar[T].MAX.cast[DType.float64]()
            # false for NaN as well
            if not (real >= LOW and real <= HIGH and Float64(Int(real)) == real):
                raise Error(
                    t"{array.label}: expected whole numbers from {Scalar[T].MIN} to"
                    t" {Scalar[T].MAX} for {T}, got {real} at row {i // array.dim}"
                )
            target[unsafe_offset=i] = value.cast[T]()


def as_ids(var array: Matrix) raises -> Matrix:
    """Returns integers as int64.

    Raises:
        Where the array holds floats.
    """
    if array.dtype == DType.int64:
        return array^
    comptime for e in range(len(ELEMENTS)):
        comptime E = ELEMENTS[e]
        comptime if not E.is_floating_point():
            if array.dtype == E:
                var result = Matrix(array.label, DType.int64, array.rows, array.dim)
                result.make_room(array.rows * array.dim * 8)
                var source = array.data.ptr[Scalar[E]]()
                for i in range(array.rows * array.dim):
                    result.data.ptr[Int64]()[unsafe_offset=i] = source[unsafe_offset=i].cast[
                        DType.int64
                    ]()
                _ = array^  # a pointer into it does not keep it
                return result^
    raise Error(t"{array.label}: expected integers, got {array.dtype}")
