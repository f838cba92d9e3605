"""The checksum of files for Python: what tests compare with a reference."""
from bindings.python_api import Args, Fail, Obj, View, as_int, fail, from_int, need

from vicinal.crc import crc32c as checksum

comptime BYTE = 4
"""Array type code of unsigned bytes."""


def crc32c(args: Args, count: Int) raises Fail -> Obj:
    """Implements crc32c(buffer, start) -> int: `start` is the sum of what came before, or 0."""
    need(count, 2)
    var start = as_int(args[unsafe_offset=1])
    if start < 0 or start > Int(UInt32.MAX):
        raise fail("ValueError", "start: expected 32 bits, got %zd", start)
    var view = View(args[unsafe_offset=0], BYTE, 1)
    var sum = checksum(view.address(), view.dim(0), UInt32(start))
    _ = view^
    return from_int(Int(sum))
