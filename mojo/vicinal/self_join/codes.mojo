"""Rows as signed bytes around their mean: what pairs are compared by before a few of them are measured.

One step serves all elements, so that the squared distance of two codes is that of their rows but for rounding, in units of the
step. It is exact in 32 bits: for no more than MOST_ELEMENTS elements it is below 2**31.
"""
from std.atomic import Atomic
from std.math import floor

from vicinal.kernels.convert import to_float
from vicinal.kernels.distance import load_head
from vicinal.kernels.inspect_row import inspect_row, to_unit
from vicinal.kernels.products import LIKE_SIGNS, QUADS, W
from vicinal.kernels.space import COSINE, Rows, Space
from vicinal.quantization.code_centre import find_centre
from vicinal.system.memory import Ptr, allocate, allocate_zeroed, missing, no_block, release
from vicinal.system.outcome import DONE, FINE, NO_MEMORY, STOPPED, Outcome
from vicinal.system.pages import ask_for_huge_pages
from vicinal.system.prefetch import CACHE_LINE, prefetch_line
from vicinal.system.parallel import Body, Team, Watch

comptime MOST_ELEMENTS = 32768
"""Elements of a row, at most: 32768 * 254**2 < 2**31."""
comptime LARGEST: Float32 = 127
comptime RAISED = QUADS and not LIKE_SIGNS
"""Whether tiles multiply the codes of one side raised by 128."""
comptime SAMPLED_BYTES = 8 << 20
comptime SAMPLED = 2048
"""Rows from which centre and step are found, and the memory that a copy of them may take."""
comptime BINS = 1024
comptime STEPS_TRIED = 40
"""Each 10 % less than the one before."""
comptime PIECE = 256


struct Codes(Movable):
    """The codes of all rows, and what makes distances of products."""

    var codes: Ptr[Int8]
    """One row after the other, each on a cache line and filled up with zeros."""
    var squared: Ptr[Int32]
    """Of each row the sum of the squares of its code."""
    var raised: Ptr[Int32]
    """The same as `squared`, and where tiles raise the other row's code by 128 what that adds to a distance."""
    var norms: Ptr[Float32]
    """Reciprocal norms as `inspect_row` finds them; for cosine alone."""
    var count: Int
    var dim: Int
    var stride: Int
    var failed: Bool
    """Whether memory was refused; nothing may be done with it then."""

    def __init__(out self, count: Int, dim: Int, with_norms: Bool):
        """Makes room for so many rows."""
        self.count = count
        self.dim = dim
        self.stride = (dim + 63) // 64 * 64
        self.codes = allocate[Int8](count * self.stride)
        self.squared = allocate[Int32](count)
        self.raised = allocate[Int32](count)
        self.norms = allocate[Float32](count) if with_norms else no_block[Float32]()
        self.failed = (
            missing(self.codes)
            or missing(self.squared)
            or missing(self.raised)
            or (with_norms and missing(self.norms))
        )
        if not self.failed:
            ask_for_huge_pages(Int(self.codes), count * self.stride)

    def __deinit__(deinit self):
        release(self.codes)
        release(self.squared)
        release(self.raised)
        release(self.norms)

    @always_inline
    def row(self, row: Int) -> Ptr[Int8]:
        """Returns the code of a row."""
        return self.codes.unsafe_offset(row * self.stride)

    @always_inline
    def ask(self, row: Int):
        """Asks for a code before it is wanted."""
        var address = Int(self.row(row))
        for offset in range(0, self.stride, CACHE_LINE):
            prefetch_line(address + offset)
        prefetch_line(Int(self.raised.unsafe_offset(row)))
        prefetch_line(Int(self.squared.unsafe_offset(row)))

    def finish(self, row: Int):
        """Finds the sums of a row whose code is written."""
        var code = self.row(row)
        comptime N = 2 * W
        var squares = SIMD[DType.int32, N](0)
        var sums = SIMD[DType.int32, N](0)
        for i in range(0, self.stride, N):
            var c = code.unsafe_load[width=N](i).cast[DType.int32]()
            squares += c * c
            sums += c
        var squared = squares.reduce_add()
        self.squared[unsafe_offset=row] = squared
        comptime if RAISED:
            self.raised[unsafe_offset=row] = squared + 256 * sums.reduce_add()
        else:
            self.raised[unsafe_offset=row] = squared

    def encode[S: Space, V: Watch](mut self, rows: Rows, team: Team, mut watch: V) -> Outcome:
        """Checks all rows and writes their codes.

        Args:
            rows: The rows as they were given, as many as there is room for.
            team: Workers; the codes do not depend on them.
            watch: May end the call early.

        Returns:
            DONE, STOPPED, NO_MEMORY, or 8 * row + kind of the first row that `inspect_row` refuses.
        """
        var verdict = Int64.MAX
        var refused = Pointer(to=verdict).unsafe_origin_cast[MutUntrackedOrigin]()
        var inspect = Inspect[S](rows, self.norms, refused)
        var status = DONE
        if not team.run(self.count, PIECE, inspect, watch):
            status = STOPPED
        elif verdict != Int64.MAX:
            status = Outcome(Int(verdict))
        else:
            var scale = Scale.of_sample[S](rows, self.norms, self.count)
            if scale.failed:
                status = NO_MEMORY
            else:
                var here = Pointer(to=self).unsafe_origin_cast[MutUntrackedOrigin]()
                var encode = Encode[S](rows, here, scale.centre, 1 / scale.step)
                if not team.run(self.count, PIECE, encode, watch):
                    status = STOPPED
            _ = scale^
        return status


@fieldwise_init
struct Inspect[S: Space](Body):
    """Looks at all rows."""

    var rows: Rows
    var norms: Ptr[Float32]
    var verdict: Ptr[Int64]

    def run(self, begin: Int, end: Int, worker: Int):
        """Looks at rows begin .. end-1."""
        for row in range(begin, end):
            var norm = Float32(1)
            var found = inspect_row[Self.S, Self.S.T](
                self.rows.row[Self.S.T](row), self.rows.dim, norm
            )
            if found != FINE:
                Atomic[Int64].min(self.verdict.start, Int64(row * 8 + found))
                return
            comptime if Self.S.metric == COSINE:
                self.norms[unsafe_offset=row] = norm


@fieldwise_init
struct Encode[S: Space](Body):
    """Writes the codes."""

    var rows: Rows
    var codes: Ptr[Codes]
    var centre: Ptr[Float32]
    """As long as a row filled up to a multiple of W."""
    var per_step: Float32

    def run(self, begin: Int, end: Int, worker: Int):
        """Writes those of rows begin .. end-1."""
        ref codes = self.codes[]
        for row in range(begin, end):
            var given = self.rows.row[Self.S.T](row)
            var code = codes.row(row)
            var norm = Float32(1)
            comptime if Self.S.metric == COSINE:
                norm = codes.norms[unsafe_offset=row]
            var i = 0
            while i + W <= codes.dim:
                var x = to_float[Self.S.T, W](given.unsafe_load[width=W](i))
                code.unsafe_store(i, self.coded(x, norm, i))
                i += W
            if i < codes.dim:
                var x = to_float[Self.S.T, W](
                    load_head[Self.S.T, W](given.unsafe_offset(i), codes.dim - i)
                )
                code.unsafe_store(i, self.coded(x, norm, i))
            for j in range(codes.dim, codes.stride):
                code[unsafe_offset=j] = 0
            codes.finish(row)

    @always_inline
    def coded(self, x: SIMD[DType.float32, W], norm: Float32, i: Int) -> SIMD[DType.int8, W]:
        """Returns the codes of elements from i on."""
        var v = x
        comptime if Self.S.metric == COSINE:
            v = v * norm if norm > 0 else v * -Float32(1 << 40) * norm
        v = (v - self.centre.unsafe_load[width=W](i)) * self.per_step
        v = floor(
            max(min(v, SIMD[DType.float32, W](LARGEST)), SIMD[DType.float32, W](-LARGEST)) + 0.5
        )
        return v.cast[DType.int32]().cast[DType.int8]()


struct Scale(Movable):
    """Where codes have their zero, and how much one of them is."""

    var centre: Ptr[Float32]
    var step: Float32
    var failed: Bool

    def __init__(out self):
        """Makes one of no use yet."""
        self.centre = no_block[Float32]()
        self.step = 1
        self.failed = True

    def __deinit__(deinit self):
        release(self.centre)

    @staticmethod
    def of_sample[S: Space](rows: Rows, norms: Ptr[Float32], count: Int) -> Scale:
        """Finds both from rows at even distances, those far from all others left out."""
        var dim = rows.dim
        var scale = Scale()
        scale.centre = allocate_zeroed[Float32]((dim + W - 1) // W * W)
        var taken = min(count, SAMPLED, max(64, SAMPLED_BYTES // (4 * dim)))
        var sample = allocate[Float32](taken * dim)
        if not missing(scale.centre) and not missing(sample):
            for s in range(taken):
                var row = s * count // taken
                var given = rows.row[S.T](row)
                var copy = sample.unsafe_offset(s * dim)
                for i in range(dim):
                    copy[unsafe_offset=i] = to_float[S.T, 1](given[unsafe_offset=i])
                    comptime if S.metric == COSINE:
                        copy[unsafe_offset=i] = to_unit(
                            copy[unsafe_offset=i], norms[unsafe_offset=row]
                        )
            var reach = Float32.MAX
            var copies = Rows(Int(sample), 4 * dim, dim, 0)
            if find_centre[DType.float32](copies, 0, taken, scale.centre, reach):
                scale.step = step_of(sample, taken, dim, scale.centre, reach)
                scale.failed = False
        release(sample)
        return scale^


def step_of(
    sample: Ptr[Float32], taken: Int, dim: Int, centre: Ptr[Float32], reach: Float32
) -> Float32:
    """Returns the step that loses least, by the squares of what rounding and cutting off take from the elements of a sample.

    Args:
        sample: Rows.
        taken: Their number, at least 1.
        dim: Elements of each.
        centre: What is taken off.
        reach: Squared distance from the centre up to which rows count.
    """
    var largest = Float32(0)
    var counts = Array[Int64, BINS](fill=0)
    for fill in range(2):
        for s in range(taken):
            var row = sample.unsafe_offset(s * dim)
            var squared = Float32(0)
            var most = Float32(0)
            for i in range(dim):
                var x = row[unsafe_offset=i] - centre[unsafe_offset=i]
                squared += x * x
                most = max(most, abs(x))
            if squared > reach:
                continue
            if fill == 0:
                largest = max(largest, most)
            else:
                for i in range(dim):
                    var x = abs(row[unsafe_offset=i] - centre[unsafe_offset=i])
                    counts[min(BINS - 1, Int(x / largest * BINS))] += 1
        if largest <= 0:
            return 1  # all are one
    var best = largest / LARGEST
    var lost = Float64.MAX
    var limit = Float64(1)
    for _ in range(STEPS_TRIED):
        var step = limit / 127
        var sum = Float64(0)
        for b in range(BINS):
            var x = (Float64(b) + 0.5) / BINS
            var beyond = max(x - limit, 0)
            sum += Float64(counts[b]) * (beyond * beyond + (step * step / 12 if beyond == 0 else 0))
        if sum < lost:
            lost = sum
            best = largest * Float32(step)
        limit *= 0.9
    return best if best > 0 else Float32(1)
