"""Rows that are stored as codes and nothing else: the least value, a step, and a whole number of steps for each element.

What a row decodes to is `least + step * u`, and all that is said of the row is said of that. With 8 bits u is 0 to 255 and lies in
a byte; with 4 bits it is 0 to 15, elements 0..15 of each 32 in the low halves of 16 bytes and elements 16..31 in the high ones. The
two floats stand before the codes, so that a row is read as one piece. Nothing is learnt from other rows: which rows come first, how
many and from where changes no code.

With 8 bits the steps divide the range of the row. With 4 bits ranges narrower than that are tried, and the two floats are then the
ones that fit the codes best (least squares). Rows of whole numbers that lie within as many steps lose nothing.
"""
from std.math import floor, sqrt

from vicinal.kernels.distance import head, load_head
from vicinal.kernels.metric import Metric
from vicinal.kernels.products import W
from vicinal.system.memory import Ptr
from vicinal.system.pointer import zero_items

comptime V = SIMD[DType.float32, W]
comptime HEADER = 8
"""Bytes of the two floats."""
comptime GROUP = 32
"""Elements whose 4-bit codes lie in 16 bytes; rows of 8-bit codes are padded to half as many."""
comptime UNROLL = 4
comptime TRIES = 12
"""Ranges tried for 4 bits, each 6 % of the first narrower: on three real sets more gained nothing."""
comptime NARROWER = 0.06
comptime LARGEST_WHOLE: Float32 = 4194304
"""Whole numbers up to it, and sums of them and a byte, are exact."""


def code_row_stride(dim: Int, bits: Int) -> Int:
    """Returns the bytes of a row: the two floats, then whole groups."""
    if bits == 4:
        return HEADER + (dim + GROUP - 1) // GROUP * 16
    return HEADER + (dim + 15) // 16 * 16


@always_inline
def _codes[bits: Int](row: Ptr[UInt8], i: Int) -> V:
    """Returns the codes of elements i .. i + W - 1, i a multiple of W, as floats; W divides 16."""
    comptime if bits == 8:
        var bytes = row.unsafe_load[width=W](HEADER + i)
        return bytes.cast[DType.int32]().cast[DType.float32]()
    else:
        var bytes = row.unsafe_load[width=W](HEADER + i // GROUP * 16 + i % 16)
        var nibbles = (bytes >> (UInt8(i % GROUP) >> 4 << 2)) & 15
        return nibbles.cast[DType.int32]().cast[DType.float32]()


@always_inline
def sum_coded[Rule: Metric, bits: Int](query: Ptr[Float32], row: Ptr[UInt8], dim: Int) -> Float32:
    """Sums the metric's steps over a query and what a row decodes to, in the order of `distance.sum_floats`.

    Safety:
        The query must have `dim` elements, the row `code_row_stride` bytes.
    """
    var floats = row.unsafe_bitcast[Float32]()
    var least = V(floats[unsafe_offset=0])
    var step = V(floats[unsafe_offset=1])
    var acc = Array[V, UNROLL](fill=V(0))
    var i = 0
    while i + UNROLL * W <= dim:
        comptime for u in range(UNROLL):
            acc[u] = Rule.step_float(
                acc[u],
                query.unsafe_load[width=W](i + u * W),
                least + step * _codes[bits](row, i + u * W),
            )
        i += UNROLL * W
    while i + W <= dim:
        acc[0] = Rule.step_float(
            acc[0], query.unsafe_load[width=W](i), least + step * _codes[bits](row, i)
        )
        i += W
    if i < dim:
        acc[1] = Rule.step_float(
            acc[1],
            load_head[DType.float32, W](query.unsafe_offset(i), dim - i),
            head[W](dim - i).select(least + step * _codes[bits](row, i), V(0)),
        )
    return ((acc[0] + acc[1]) + (acc[2] + acc[3])).reduce_add()


def decode_row[bits: Int](row: Ptr[UInt8], dim: Int, into: Ptr[Float32]):
    """Writes what a row decodes to.

    Safety:
        The row must have `code_row_stride` bytes, `into` room for `dim` floats.
    """
    var floats = row.unsafe_bitcast[Float32]()
    var least = V(floats[unsafe_offset=0])
    var step = V(floats[unsafe_offset=1])
    var i = 0
    while i + W <= dim:
        into.unsafe_store(i, least + step * _codes[bits](row, i))
        i += W
    if i < dim:
        var rest = least + step * _codes[bits](row, i)
        for j in range(dim - i):
            into[unsafe_offset=i + j] = rest[j]


def encode_row[bits: Int, unit: Bool](values: Ptr[Float32], dim: Int, row: Ptr[UInt8]):
    """Writes the code of a row, whole: equal values give equal bytes.

    Parameters:
        bits: 4 or 8.
        unit: Whether the row is of unit length and what it decodes to has to be, too.

    Args:
        values: `dim` finite elements.
        dim: Their number.
        row: Room for `code_row_stride` bytes.
    """
    comptime LEVELS = 255 if bits == 8 else 15
    var low = values[unsafe_offset=0]
    var high = low
    var whole = True
    for i in range(dim):
        var x = values[unsafe_offset=i]
        low = min(low, x)
        high = max(high, x)
        whole = whole and floor(x) == x
    whole = whole and max(abs(low), abs(high)) <= LARGEST_WHOLE and high - low <= Float32(LEVELS)
    zero_items(row, code_row_stride(dim, bits))
    var least = low
    var step = Float32(1) if whole else (high - low) / Float32(LEVELS)
    var fitted = False
    comptime if bits == 4:
        if not whole and step > 0:
            fitted = _narrow(values, dim, low, high, least, step)
    _write[bits](values, dim, least, step, row)
    if fitted:
        var fit = _Fit(values, dim, least, step)
        if fit.slope > 0:
            least = fit.least()
            step = fit.slope
    comptime if unit:
        var squared = Float64(0)
        for i in range(dim):
            var x = (least + step * Float32(_code[bits](row, i))).cast[DType.float64]()
            squared += x * x
        if squared > 0:
            var scale = 1 / sqrt(squared)
            least = Float32(least.cast[DType.float64]() * scale)
            step = Float32(step.cast[DType.float64]() * scale)
    var floats = row.unsafe_bitcast[Float32]()
    floats[unsafe_offset=0] = least
    floats[unsafe_offset=1] = step


@always_inline
def _quantised(x: Float32, least: Float32, step: Float32, levels: Int) -> Int:
    """Returns the number of the step that is nearest to a value, 0 if all values are the same."""
    if step <= 0:
        return 0
    var place = (x - least) / step + Float32(0.5)
    return Int(max(Float32(0), min(place, Float32(levels))))


@always_inline
def _code[bits: Int](row: Ptr[UInt8], i: Int) -> Int:
    """Returns one code."""
    comptime if bits == 8:
        return Int(row[unsafe_offset=HEADER + i])
    else:
        var both = row[unsafe_offset=HEADER + i // GROUP * 16 + i % 16]
        return Int(both >> 4 if i % GROUP >= 16 else both & 15)


def _write[
    bits: Int
](values: Ptr[Float32], dim: Int, least: Float32, step: Float32, row: Ptr[UInt8]):
    """Writes the codes into a row of zeros."""
    for i in range(dim):
        var u = UInt8(_quantised(values[unsafe_offset=i], least, step, 255 if bits == 8 else 15))
        comptime if bits == 8:
            row[unsafe_offset=HEADER + i] = u
        else:
            row[unsafe_offset=HEADER + i // GROUP * 16 + i % 16] |= u << 4 if i % GROUP >= 16 else u


struct _Fit(TrivialRegisterPassable):
    """The line that fits the values best, given 4-bit codes of some range."""

    var slope: Float32
    var mean_value: Float64
    var mean_code: Float64
    var lost: Float64
    """Sum of the squares that it is off by."""

    def __init__(out self, values: Ptr[Float32], dim: Int, least: Float32, step: Float32):
        """Finds it for the codes of a range."""
        var n = Float64(dim)
        var codes = Float64(0)
        var sum = Float64(0)
        for i in range(dim):
            codes += Float64(_quantised(values[unsafe_offset=i], least, step, 15))
            sum += values[unsafe_offset=i].cast[DType.float64]()
        self.mean_code = codes / n
        self.mean_value = sum / n
        var both = Float64(0)
        var spread = Float64(0)
        var all = Float64(0)
        for i in range(dim):
            var u = Float64(_quantised(values[unsafe_offset=i], least, step, 15)) - self.mean_code
            var x = values[unsafe_offset=i].cast[DType.float64]() - self.mean_value
            both += u * x
            spread += u * u
            all += x * x
        self.slope = Float32(both / spread) if spread > 0 else 0
        self.lost = all - both * both / spread if spread > 0 else all

    def least(self) -> Float32:
        """Returns the value of code 0."""
        return Float32(self.mean_value - self.slope.cast[DType.float64]() * self.mean_code)


def _narrow(
    values: Ptr[Float32],
    dim: Int,
    low: Float32,
    high: Float32,
    mut least: Float32,
    mut step: Float32,
) -> Bool:
    """Finds the range of 4-bit codes that loses least; False if the whole range loses nothing worth a better fit.
    """
    var whole = _Fit(values, dim, least, step)
    var mean = Float32(whole.mean_value)
    # what these codes hold already, as when decoded rows are added anew, stays as it is
    var exact = True
    for i in range(dim):
        var x = values[unsafe_offset=i]
        var decoded = least + step * Float32(_quantised(x, least, step, 15))
        exact = exact and abs(decoded - x) <= 1e-3 * step
    if exact:
        return False
    var lost = whole.lost
    for i in range(1, TRIES):
        var share = 1 - Float32(i) * NARROWER
        var from_ = mean + (low - mean) * share
        var width = (high - low) * share / 15
        if width <= 0:
            break
        var fit = _Fit(values, dim, from_, width)
        if fit.lost < lost:
            lost = fit.lost
            least = from_
            step = width
    return True
