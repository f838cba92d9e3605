"""The common centre of estimating codes, which a few rows far from all others must not move, and how far around it they serve.

The error of an estimate grows with the distances of row and query from the centre. So a row of any size does no harm to queries
near the others, as long as the centre is theirs: it is estimated coarsely, but as what it is, far away. A query out there is near
such rows, which estimates do not tell apart; it walks on the stored rows.
"""
from vicinal.kernels.convert import to_float
from vicinal.kernels.distance import sum_floats
from vicinal.kernels.metric import SquaredDifference
from vicinal.kernels.space import Rows
from vicinal.quantization.sampled_rows import SampledRows
from vicinal.rows.row_states import stays
from vicinal.system.memory import Ptr, allocate, allocate_zeroed, missing, release
from vicinal.system.pages import PageUse

comptime SAMPLE = 4096
"""Rows that the centre is found from: at least so many, and less than twice as many, if there are."""
comptime FAR = 16
"""A row is far if its squared distance from the centre is so many times the median: four times as far as most. Rows of 32 and
more dimensions of one heap hardly ever are twice as far."""
comptime FEW = 16
"""Far rows are left out if they are no more than one in so many; more are not strays but a part of the data."""
comptime ROUNDS = 8
"""Times that far rows are looked for, around a better centre each time; strays of very different sizes want some."""


def find_centre[
    T: DType
](
    stored: Rows,
    states: Int,
    count: Int,
    centre: Ptr[Float32],
    mut reach: Float32,
    pages: PageUse = PageUse.in_memory(),
) -> Bool:
    """Finds the mean of a sample of rows, a few far ones left out.

    Args:
        stored: The rows.
        states: Address of their states, 0 if none has any; rows that do not stay take no part.
        count: Their number.
        centre: Receives the mean.
        reach: Set to the squared distance from it up to which rows are not far; to the largest number if many are.
        pages: What is done about pages of the rows; of rows on disk those of the sample are read once.

    Returns:
        False when memory is out.
    """
    var step = max(count // SAMPLE, 1)
    var room = count // step + 1
    var rows = allocate[UInt32](room)
    var far = allocate[Float32](2 * room)
    var sums = allocate_zeroed[Float64](stored.dim)
    var there = not (missing(rows) or missing(far) or missing(sums))
    if there:
        var taken = 0
        for row in range(0, count, step):
            if stays(states, row):
                rows[unsafe_offset=taken] = UInt32(row)
                far[unsafe_offset=taken] = 0
                taken += 1
        if pages.on_disk:
            var sampled = SampledRows(stored, rows, taken, pages)
            there = not missing(sampled.copy)
            for i in range(taken):
                rows[unsafe_offset=i] = UInt32(i)
            if there:
                _find[T](sampled.rows, rows, taken, far, sums, centre, reach)
            _ = sampled^
        else:
            _find[T](stored, rows, taken, far, sums, centre, reach)
    release(rows)
    release(far)
    release(sums)
    return there


def _find[
    T: DType
](
    stored: Rows,
    rows: Ptr[UInt32],
    taken: Int,
    far: Ptr[Float32],
    sums: Ptr[Float64],
    centre: Ptr[Float32],
    mut reach: Float32,
):
    """Does it for the rows listed; `far` has room for twice as many, and all begin as near."""
    var whole = Float32.MAX
    var left_out = 0
    reach = whole
    for _ in range(ROUNDS):
        _mean[T](stored, rows, taken, far, reach, sums, centre)
        if taken == 0:
            return
        var sorted = far.unsafe_offset(taken)
        for i in range(taken):
            far[unsafe_offset=i] = sum_floats[SquaredDifference, DType.float32, T](
                centre, stored.row[T](Int(rows[unsafe_offset=i])), stored.dim
            )
            sorted[unsafe_offset=i] = far[unsafe_offset=i]
        var before = left_out
        reach = FAR * _median(sorted, taken)
        left_out = 0
        for i in range(taken):
            left_out += Int(far[unsafe_offset=i] > reach)
        if left_out == before:
            break
    if left_out * FEW > taken:
        reach = whole
        _mean[T](stored, rows, taken, far, whole, sums, centre)
    elif reach == 0:  # most rows are one
        reach = whole


def _mean[
    T: DType
](
    stored: Rows,
    rows: Ptr[UInt32],
    taken: Int,
    far: Ptr[Float32],
    reach: Float32,
    sums: Ptr[Float64],
    centre: Ptr[Float32],
):
    """Finds the mean of the rows that are within reach."""
    var dim = stored.dim
    for i in range(dim):
        sums[unsafe_offset=i] = 0
    var near = 0
    for i in range(taken):
        if far[unsafe_offset=i] > reach:
            continue
        near += 1
        var p = stored.row[T](Int(rows[unsafe_offset=i]))
        for j in range(dim):
            sums[unsafe_offset=j] += to_float[T, 1](p[unsafe_offset=j]).cast[DType.float64]()
    for i in range(dim):
        centre[unsafe_offset=i] = Float32(sums[unsafe_offset=i] / Float64(max(near, 1)))


def _median(values: Ptr[Float32], count: Int) -> Float32:
    """Returns the value in the middle of some, which are put into another order."""
    var low = 0
    var high = count - 1
    var middle = count // 2
    while low < high:
        var pivot = values[unsafe_offset=(low + high) >> 1]
        var i = low
        var j = high
        while i <= j:
            while values[unsafe_offset=i] < pivot:
                i += 1
            while values[unsafe_offset=j] > pivot:
                j -= 1
            if i <= j:
                var other = values[unsafe_offset=i]
                values[unsafe_offset=i] = values[unsafe_offset=j]
                values[unsafe_offset=j] = other
                i += 1
                j -= 1
        if middle <= j:
            high = j
        elif middle >= i:
            low = i
        else:
            break
    return values[unsafe_offset=middle]
