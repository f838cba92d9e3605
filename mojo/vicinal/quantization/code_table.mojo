"""Compressed codes of stored rows: which kind, how a row is encoded, how a query is prepared to meet it.

`U8` codes are the rows themselves as 8-bit integers and lose nothing. `SQ8` codes round each element to 8 bits with one
scale a row, `RABITQ4` codes rotate first and keep 4 bits: both estimate distances, without bias, from the residual o of a row
to a common centre. With code values u, middle m and the residual rebuilt as u - m up to a factor, <o, p> is estimated by
<u - m, p> |o|^2 / <u - m, o>. For l2 and cosine p is the residual of the query; for ip it is the query itself.

Sources: RaBitQ (SIGMOD 2024, arXiv:2405.12497), its extension to several bits (arXiv:2409.09913).
"""
from vicinal.kernels.convert import to_float
from vicinal.kernels.distance import sum_floats
from vicinal.kernels.metric import SquaredDifference
from vicinal.kernels.products import W
from vicinal.kernels.space import COSINE, IP, L2, Rows
from vicinal.kernels.stored_type import is_float
from vicinal.quantization.code_products import CODE_LINE
from vicinal.quantization.code_space import (
    QUERY_TURN,
    EstimateConstants,
    ExactConstants,
    PreparedEstimate,
    PreparedExact,
)
from vicinal.quantization.code_centre import find_centre
from vicinal.quantization.rotation import Rotation, padded_dim
from vicinal.system.atomics import load_acquire
from vicinal.system.memory import (
    NO_BLOCK,
    Column,
    Ptr,
    allocate,
    allocate_zeroed,
    at,
    missing,
    no_block,
    release,
)
from vicinal.system.pages import PageUse

comptime NO_CODES = 0
"""No codes: the stored rows are walked on."""
comptime U8 = 1
comptime SQ8 = 2
comptime RABITQ4 = 3
comptime KINDS_OF_CODES = 4
comptime V = SIMD[DType.float32, W]
comptime TRIES = 12
"""Scales tried for a rotated row; more change the mean cosine between row and code by less than 1e-4."""


struct Codes(Movable):
    """Codes of the rows of one index, with what it takes to make more of them."""

    var kind: Int
    """NO_CODES, EXACT, SCALED or ROTATED."""
    var metric: Int
    var dtype: Int
    """Type of the stored rows."""
    var dim: Int
    """Elements of a row."""
    var walked: Int
    """Elements that estimating codes hold: all, or the first so many."""
    var stride: Int
    """Bytes of a code, a multiple of CODE_LINE."""
    var bytes: Column
    """The codes; empty if the stored rows serve as their own exact codes."""
    var constants: Column
    """`ExactConstants` or `EstimateConstants` of each row."""
    var centre: Ptr[Float32]
    """Common centre of estimating codes, `padded_dim(dim)` elements, zero behind `dim`."""
    var reach: Float32
    """Squared distance from the centre up to which estimates serve a query; for farther ones, which lie among rows that estimates
    cannot tell apart, stored rows are measured."""
    var rotation: Rotation
    """Used by ROTATED only."""
    var count: Int
    """Rows encoded: 0 .. count-1."""
    var checked: Int
    """Rows that there were when estimates were last looked at on a sample."""
    var fit: Bool
    """Whether they were good enough then; rows are linked on estimates only if so."""
    var older: Int
    """Address of the codes that these replaced, which searches under way may still read; 0 for none."""
    var retired: Int64
    """The epoch in which searches may have begun to walk on them, once they are replaced."""

    def __init__(
        out self, kind: Int, metric: Int, dtype: Int, dim: Int, seed: Int, walk_dim: Int = 0
    ):
        """Makes codes of a kind, of no rows yet, with the centre at the origin; of all elements, or of the first `walk_dim`.
        """
        self.kind = kind
        self.metric = metric
        self.dtype = dtype
        self.dim = dim
        self.walked = walk_dim if walk_dim != 0 else dim
        self.stride = code_stride(kind, self.walked)
        self.bytes = Column()
        self.constants = Column()
        self.centre = allocate_zeroed[Float32](padded_dim(dim))
        self.reach = Float32.MAX
        self.rotation = Rotation(self.walked if kind == RABITQ4 else 1, seed)
        self.count = 0
        self.checked = 0
        self.fit = False
        self.older = 0
        self.retired = 0

    def __deinit__(deinit self):
        release(self.centre)

    @always_inline
    def in_place(self) -> Bool:
        """Tells whether the stored rows are their own codes."""
        return self.kind == U8 and not is_float(self.dtype) and self.dim >= CODE_LINE

    @always_inline
    def rows(self, stored: Rows) -> Rows:
        """Returns the codes as kernels see them."""
        var constants = load_acquire(self.constants.address)
        if self.in_place():
            return Rows(stored.base, stored.stride, self.stride, constants)
        var dim = self.stride if self.kind == U8 else padded_dim(self.walked)
        return Rows(load_acquire(self.bytes.address), self.stride, dim, constants)

    def memory(self) -> Int:
        """Returns the bytes of memory that codes and constants take."""
        return self.bytes.memory() + self.constants.memory()

    def free_retired(mut self):
        """Gives back what the columns have moved out of; see `Column.free_retired`."""
        self.bytes.free_retired()
        self.constants.free_retired()

    def grow(mut self, rows: Int) -> Bool:
        """Makes room for `rows` rows; returns False when memory is out."""
        return self.constants.grow(rows * 8) and (
            self.in_place() or self.bytes.grow(rows * self.stride)
        )

    def query_bytes(self) -> Int:
        """Returns the bytes of a prepared query: header, then one byte a dimension."""
        return CODE_LINE + (self.stride * 2 if self.kind == RABITQ4 else self.stride)

    def failed(self) -> Bool:
        """Tells whether memory was refused when the codes were made: they are of no use then."""
        return missing(self.centre) or self.rotation.failed()

    def centre_on[
        T: DType
    ](
        mut self, stored: Rows, states: Int, count: Int, pages: PageUse = PageUse.in_memory()
    ) -> Bool:
        """Finds the centre and the reach of estimating codes from the rows that are there; returns False when memory is out.
        """
        if self.kind <= U8:
            return True
        if not find_centre[T](stored, states, count, self.centre, self.reach, pages):
            return False
        if (
            self.metric == COSINE and self.reach >= 4
        ):  # vectors of unit length are no farther from any mean
            self.reach = Float32.MAX
        return True

    @always_inline
    def serve(self, query: Ptr[Float32]) -> Bool:
        """Tells whether estimates serve a query, of unit length for cosine. With ip how long it is changes no order.
        """
        if self.metric == IP or self.reach == Float32.MAX:
            return True
        return (
            sum_floats[SquaredDifference, DType.float32, DType.float32](
                query, self.centre, self.dim
            )
            <= self.reach
        )

    @always_inline
    def strays(self, row: Int) -> Bool:
        """Tells whether a row, which is encoded, lies where estimates do not serve."""
        if self.kind <= U8 or self.metric == IP or self.reach == Float32.MAX:
            return False
        return self.constants.ptr[EstimateConstants]()[unsafe_offset=row].add > self.reach

    def encode[T: DType](self, stored: Rows, row: Int, work: Ptr[Float32]):
        """Encodes one row.

        Args:
            stored: The rows.
            row: Which.
            work: Room for `padded_dim(dim)` floats on a 64-byte boundary.

        Safety:
            `grow` must have made room.
        """
        if self.kind == U8:
            self._encode_exact[T](stored.row[T](row), row)
        else:
            self._encode_estimate[T](stored.row[T](row), row, work)

    def _encode_exact[T: DType](self, p: Ptr[Scalar[T]], row: Int):
        var sum = Int32(0)
        var squared = Int32(0)
        for i in range(self.dim):
            var x = _whole[T](p[unsafe_offset=i])
            sum += x
            squared += x * x
        if not self.in_place():
            var code = self.bytes.ptr[UInt8]().unsafe_offset(row * self.stride)
            for i in range(self.dim):
                code[unsafe_offset=i] = _whole[T](p[unsafe_offset=i]).cast[DType.uint8]()
            for i in range(self.dim, self.stride):
                code[unsafe_offset=i] = 0
        var shift = 128 * sum if T != DType.int8 else -128 * sum
        if self.metric == L2:
            shift = squared - 2 * shift
        self.constants.ptr[ExactConstants]()[unsafe_offset=row] = ExactConstants(shift, squared)

    def _encode_estimate[T: DType](self, p: Ptr[Scalar[T]], row: Int, work: Ptr[Float32]):
        var size = padded_dim(self.walked)
        for i in range(self.walked):
            var x = to_float[T, 1](p[unsafe_offset=i])
            work[unsafe_offset=i] = x - self.centre[unsafe_offset=i]
        for i in range(self.walked, size):
            work[unsafe_offset=i] = 0
        # of elements that codes do not hold the products count as 0, which they are on average, the squares as they are
        var rest = Float32(0)
        for i in range(self.walked, self.dim):
            var o = to_float[T, 1](p[unsafe_offset=i]) - self.centre[unsafe_offset=i]
            rest += o * o
        if self.kind == RABITQ4:
            self.rotation.rotate(work)
        var largest = V(0)
        var squared = V(0)
        for i in range(0, size, W):
            var o = work.unsafe_load[width=W](i)
            largest = max(largest, abs(o))
            squared += o * o
        var norm2 = squared.reduce_add()
        var reach = largest.reduce_max()
        var levels = Float32(15) if self.kind == RABITQ4 else Float32(255)
        var middle = levels / 2
        var step = reach / middle if reach > 0 else Float32(1)
        if self.kind == RABITQ4 and reach > 0:
            step = _best_step(work, size, step, levels)
        var along = V(0)
        var code = self.bytes.ptr[UInt8]().unsafe_offset(row * self.stride)
        for i in range(0, self.stride, W):
            code.unsafe_store(i, SIMD[DType.uint8, W](0))
        for i in range(0, size, W):
            var o = work.unsafe_load[width=W](i)
            var u = _quantise(o, step, levels)
            along += (u - V(middle)) * o
            var bytes = u.cast[DType.int32]().cast[DType.uint8]()
            if self.kind == RABITQ4:
                # dimensions 0..63 of each 128 in the low halves of a line, 64..127 in the high halves
                var place = code.unsafe_offset(i // 128 * CODE_LINE + i % CODE_LINE)
                var low = place.unsafe_load[width=W](0)
                place.unsafe_store(0, low | (bytes if i % 128 < CODE_LINE else bytes << 4))
            else:
                code.unsafe_store(i, bytes)
        var product = along.reduce_add()
        var unbias = norm2 / product if product > 0 else Float32(0)
        # ip: -<x, q> is -<o, q> - <c, q>, of which the second is the same for all rows
        var constants = EstimateConstants(0, -unbias)
        if self.metric != IP:
            constants = EstimateConstants(norm2 + rest, -2 * unbias)
        self.constants.ptr[EstimateConstants]()[unsafe_offset=row] = constants

    def prepare[Q: DType](self, query: Ptr[Scalar[Q]], prepared: Ptr[UInt8], work: Ptr[Float32]):
        """Prepares a query.

        Args:
            query: `dim` elements, float32 for float rows and the stored type for integers; of unit length for cosine;
                for exact codes of float rows whole numbers from 0 to 255.
            prepared: Room for `query_bytes()` on a 64-byte boundary.
            work: Room for `padded_dim(dim)` floats on a 64-byte boundary; exact codes need none.
        """
        if self.kind == U8:
            self._prepare_exact[Q](query, prepared)
            return
        var size = padded_dim(self.walked)
        for i in range(self.walked):
            # for ip the query itself: a centre much longer than it would take all of its 8 bits
            var origin = Float32(0) if self.metric == IP else self.centre[unsafe_offset=i]
            work[unsafe_offset=i] = query[unsafe_offset=i].cast[DType.float32]() - origin
        for i in range(self.walked, size):
            work[unsafe_offset=i] = 0
        if self.kind == RABITQ4:
            self.rotation.rotate(work)
        var largest = V(0)
        for i in range(0, size, W):
            largest = max(largest, abs(work.unsafe_load[width=W](i)))
        var reach = largest.reduce_max()
        var scale = reach / 127 if reach > 0 else Float32(1)
        var inverse = V(1 / scale) if scale > 1e-30 else V(0)
        var bytes = prepared.unsafe_offset(CODE_LINE)
        var sum = SIMD[DType.int32, W](0)
        var squares = SIMD[DType.int32, W](0)
        for i in range(0, size, W):
            var q = _round(work.unsafe_load[width=W](i) * inverse)
            sum += q
            squares += q * q
            bytes.unsafe_store(i, q.cast[DType.int8]().cast[DType.uint8]())
        for i in range(size, self.query_bytes() - CODE_LINE, W):
            bytes.unsafe_store(i, SIMD[DType.uint8, W](0))
        var middle = Float32(7.5) if self.kind == RABITQ4 else Float32(127.5)
        var total = sum.reduce_add()
        prepared.unsafe_bitcast[PreparedEstimate]()[] = PreparedEstimate(
            scale,
            middle * Float32(total),
            0,
            total,
            Float32(squares.reduce_add()) * (scale * scale),
        )

    def _prepare_exact[T: DType](self, query: Ptr[Scalar[T]], prepared: Ptr[UInt8]):
        var bytes = prepared.unsafe_offset(CODE_LINE)
        var squared = Int32(0)
        for i in range(self.dim):
            var q = _whole(query[unsafe_offset=i])
            squared += q * q
            bytes[unsafe_offset=i] = q.cast[DType.uint8]() ^ QUERY_TURN
        for i in range(self.dim, self.stride):
            bytes[unsafe_offset=i] = 0
        prepared.unsafe_bitcast[PreparedExact]()[] = PreparedExact(squared)


@always_inline
def _whole[T: DType](x: Scalar[T]) -> Int32:
    """Converts a whole number."""
    comptime if T.is_floating_point():
        return to_float[T, 1](x).cast[DType.int32]()
    else:
        return x.cast[DType.int32]()


def codes_on_heap(
    kind: Int, metric: Int, dtype: Int, dim: Int, seed: Int, walk_dim: Int = 0
) -> Ptr[Codes]:
    """Makes codes at an address of their own, or returns what `missing` knows; `drop_codes` ends them.
    """
    var codes = allocate[Codes](1)
    if missing(codes):
        return codes
    codes.unsafe_write(Codes(kind, metric, dtype, dim, seed, walk_dim))
    if codes[].failed():
        drop_codes(codes)
        return no_block[Codes]()
    return codes


def drop_codes(codes: Ptr[Codes]):
    """Destroys and frees codes that live on the heap."""
    if missing(codes):
        return
    codes.unsafe_deinit_pointee()
    release(codes)


def drop_all_codes(address: Int):
    """Destroys and frees codes and those that they replaced."""
    var next = address if address != NO_BLOCK else 0
    while next != 0:
        var codes = at[Codes](next)
        next = codes[].older
        drop_codes(codes)


def code_stride(kind: Int, dim: Int) -> Int:
    """Returns the bytes of a code."""
    if kind == RABITQ4:
        return (dim + 127) // 128 * CODE_LINE
    return (dim + CODE_LINE - 1) // CODE_LINE * CODE_LINE


@always_inline
def _round(v: V) -> SIMD[DType.int32, W]:
    """Rounds values within -127.5 .. 127.5 to the nearest integer."""
    return (v + V(128.5)).cast[DType.int32]() - 128


@always_inline
def _quantise(o: V, step: Float32, levels: Float32) -> V:
    """Returns the code value of each element: the interval of width `step` that it lies in, the middle one being at 0.
    """
    var u = (o * V(1 / step) + V((levels + 1) / 2)).cast[DType.int32]().cast[DType.float32]()
    return max(V(0), min(u, V(levels)))


def _best_step(o: Ptr[Float32], size: Int, widest: Float32, levels: Float32) -> Float32:
    """Finds the step whose code points most nearly along the residual: the cosine between them is largest.
    """
    var best = widest
    var best_cosine = Float32(0)
    for i in range(TRIES):
        var step = widest * (1 - Float32(i) * 0.06)
        var along = V(0)
        var squared = V(0)
        for j in range(0, size, W):
            var x = o.unsafe_load[width=W](j)
            var u = _quantise(x, step, levels) - V(levels / 2)
            along += u * x
            squared += u * u
        var product = along.reduce_add()
        var cosine = product * product / squared.reduce_add()
        if product > 0 and cosine > best_cosine:
            best_cosine = cosine
            best = step
    return best


def is_bytes[T: DType](p: Ptr[Scalar[T]], count: Int) -> Bool:
    """Tells whether all elements are whole numbers from 0 to 255."""
    var i = 0
    while i + W <= count:
        if not _whole_bytes[W](to_float[T, W](p.unsafe_load[width=W](i))).reduce_and():
            return False
        i += W
    while i < count:
        if not _whole_bytes[1](to_float[T, 1](p[unsafe_offset=i])):
            return False
        i += 1
    return True


@always_inline
def _whole_bytes[n: Int](x: SIMD[DType.float32, n]) -> SIMD[DType.bool, n]:
    """Tells which elements are whole numbers from 0 to 255; not NaN."""
    var within = max(SIMD[DType.float32, n](0), min(x, SIMD[DType.float32, n](255)))
    return within.cast[DType.int32]().cast[DType.float32]().eq(x)
