"""Files for Python: how a status crosses over, and the checksum."""
from bindings.python_api import INT64, Args, Fail, Obj, View, as_int, fail, from_int, need
from std.memory import bitcast

from vicinal.crc import crc32c as checksum
from vicinal.file import Status
from vicinal.memory import at

comptime BYTE = 4
"""Array type code of unsigned bytes."""
comptime STATUS_WORDS = 5


struct StatusOut(Movable):
    """The int64 array of five words in which Python gets a `Status`: code, a, b, and the name."""

    var view: View
    """The caller's array."""

    def __init__(out self, o: Obj) raises Fail:
        """Takes a view of the array.

        Raises:
            ValueError of another type or length.
        """
        var view = View(o, INT64, 1, writable=True)
        if view.dim(0) != STATUS_WORDS:
            raise fail(
                "ValueError", "status: expected %zd words, got %zd", STATUS_WORDS, view.dim(0)
            )
        self.view = view^

    def put(self, status: Status):
        """Writes a status."""
        var words = at[Int64](self.view.address())
        words[unsafe_offset=0] = Int64(status.code)
        words[unsafe_offset=1] = Int64(status.a)
        words[unsafe_offset=2] = Int64(status.b)
        var name = bitcast[DType.int64, 2](status.name)
        words[unsafe_offset=3] = name[0]
        words[unsafe_offset=4] = name[1]


def crc32c(args: Args, count: Int) raises Fail -> Obj:
    """Implements crc32c(buffer, start) -> int: the CRC-32C of bytes that follow those summed in `start`.
    """
    need(count, 2)
    var start = as_int(args[unsafe_offset=1])
    if start < 0 or start > Int(UInt32.MAX):
        raise fail("ValueError", "start: expected 32 bits, got %zd", start)
    var view = View(args[unsafe_offset=0], BYTE, 1)
    var sum = checksum(view.address(), view.dim(0), UInt32(start))
    _ = view^
    return from_int(Int(sum))
