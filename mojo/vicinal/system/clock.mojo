"""The time, straight from libc."""
from std.ffi import c_int, external_call

comptime MONOTONIC: c_int = 1


def now() -> Int:
    """Returns a monotonic clock in nanoseconds; takes some 20 of them."""
    var time = SIMD[DType.int64, 2](0)
    _ = external_call["clock_gettime", c_int](MONOTONIC, Pointer(to=time))
    return Int(time[0]) * 1_000_000_000 + Int(time[1])
