"""Whether rows hold the same bytes, and a hash of them."""
from std.ffi import c_int, external_call

from vicinal.kernels.space import Rows
from vicinal.system.memory import at

comptime HASH_FACTOR: UInt64 = 0x9E3779B97F4A7C15
comptime HASH_LANES = 4


@always_inline
def same_row(stored: Rows, a: Int, b: Int) -> Bool:
    """Tells whether two stored rows hold the same bytes."""
    return (
        external_call["memcmp", c_int](
            stored.base + a * stored.stride, stored.base + b * stored.stride, stored.stride
        )
        == 0
    )


def hash_row(stored: Rows, row: Int) -> UInt32:
    """Returns a hash of the bytes of a row."""
    return hash_bytes(stored.base + row * stored.stride, stored.stride)


def hash_bytes(address: Int, size: Int) -> UInt32:
    """Returns a hash of some bytes: words multiplied and mixed, several chains side by side."""
    var words = at[UInt64](address)
    var state = SIMD[DType.uint64, HASH_LANES](1, 2, 3, 4) * HASH_FACTOR
    var count = size // 8
    var i = 0
    while i + HASH_LANES <= count:
        state = (state ^ words.unsafe_load[width=HASH_LANES](i)) * HASH_FACTOR
        state ^= state >> 29
        i += HASH_LANES
    var sum = UInt64(0)
    comptime for lane in range(HASH_LANES):
        sum = (sum ^ state[lane]) * HASH_FACTOR
        sum ^= sum >> 31
    var bytes = at[UInt8](address)
    for j in range(8 * i, size):
        sum = (sum ^ bytes[unsafe_offset=j].cast[DType.uint64]()) * HASH_FACTOR
        sum ^= sum >> 32
    return UInt32(sum & 0xFFFFFFFF)
