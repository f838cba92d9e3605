"""Stored types: their codes in files and calls, and the bytes that rows of them take."""
from vicinal.kernels.row_codes import code_row_stride

comptime PACKED = 4
"""The stored type of packed bits."""
comptime STORED = [DType.float32, DType.float16, DType.bfloat16, DType.int8, DType.uint8]
"""Stored types; the position is the code used in files and calls."""
comptime STORED_TYPES = 5
comptime CODED_8 = 7
"""The stored type of rows of which 8-bit codes alone are kept, given and asked for as float32; see `kernels/row_codes.mojo`."""
comptime CODED_4 = 8
"""The same with 4 bits."""


@always_inline
def dtype_code[T: DType]() -> Int:
    """Returns the position of a stored type in `STORED`, or -1."""
    comptime for code in range(len(STORED)):
        comptime if STORED[code] == T:
            return code
    return -1


def item_bytes(dtype: Int) -> Int:
    """Returns the bytes of one element of a stored type, as it is given."""
    var given = given_type(dtype)
    return 4 if given == 0 else (2 if given <= 2 else 1)


def is_coded(dtype: Int) -> Bool:
    """Tells whether rows of a stored type are codes alone."""
    return dtype >= CODED_8


def given_type(dtype: Int) -> Int:
    """Returns the type in which rows of a stored type are given and returned: itself, or float32 for codes.
    """
    return 0 if is_coded(dtype) else dtype


def asked_type(dtype: Int) -> Int:
    """Returns the type in which queries are given: float32 for float types, else the stored type.
    """
    return 0 if is_float(dtype) else dtype


def is_float(dtype: Int) -> Bool:
    """Tells whether what is stored as a type is given and asked for as floats."""
    return dtype <= 2 or is_coded(dtype)


def row_stride(dim: Int, dtype: Int) -> Int:
    """Returns the bytes from one stored row to the next.

    Long rows start on a cache line, so that no vector load straddles two, and end with zeros; short rows are packed to save
    memory. Integer rows of a line or more are padded too: they serve as their own codes.
    """
    if is_coded(dtype):
        return code_row_stride(dim, 8 if dtype == CODED_8 else 4)
    var bytes = dim * item_bytes(dtype)
    return bytes if bytes < (256 if is_float(dtype) else 64) else (bytes + 63) // 64 * 64
