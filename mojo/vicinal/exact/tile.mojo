"""Register tiles: all inner products of a panel of rows with a panel of queries.

Vectors are cut into 32-bit words: one float32, two int16 or four bytes. A panel of rows is stored word by word, so that one
vector register holds the same word of W rows, and a word of a query is broadcast: sums then lie side by side, one row in each
lane, and need no horizontal addition. Scheme: Goto and van de Geijn, "Anatomy of high-performance matrix multiplication"
(2008); the blocks here are chosen for a 32 KiB L1 and a 512 KiB L2 cache.
"""
from std.memory import bitcast
from std.sys import CompilationTarget

from vicinal.kernels.convert import to_float
from vicinal.kernels.distance import load_head
from vicinal.kernels.products import LIKE_SIGNS, QUADS, W, byte_dot, pair_dot
from vicinal.kernels.space import Rows
from vicinal.system.memory import Ptr

comptime PANEL_ROWS = 2 * W
"""Rows of a tile: two vectors of sums for each query."""
comptime PANEL_QUERIES = 6 if CompilationTarget.is_x86() and W < 16 else 8
"""Sums of a tile fill 12 of 16 vector registers, or 16 of 32; more gained nothing where it was measured (Zen 5, v4)."""
comptime TILE = PANEL_ROWS * PANEL_QUERIES
"""Sums of a tile."""
comptime BLOCK_ROWS = 128
"""Rows packed at a time."""
comptime BLOCK_WORDS = 256
"""Words packed at a time; a longer vector is taken in several blocks whose sums are added."""
comptime Sum[T: DType] = DType.float32 if T.is_floating_point() else DType.int32
"""Type of words and of sums for a stored type; 32-bit integer sums are exact modulo 2**32."""


@always_inline
def word_elements[T: DType]() -> Int:
    """Returns how many elements make a word."""
    return 1 if T.is_floating_point() else (4 if QUADS else 2)


@always_inline
def words_of[T: DType](dim: Int) -> Int:
    """Returns how many words make a vector."""
    return (dim + word_elements[T]() - 1) // word_elements[T]()


@always_inline
def block_words(words: Int) -> Int:
    """Returns how many words are packed at a time: about equal blocks, whole vectors but the last.
    """
    var blocks = (words + BLOCK_WORDS - 1) // BLOCK_WORDS
    return ((words + blocks - 1) // blocks + W - 1) // W * W


@always_inline
def load_words[T: DType, query: Bool](p: Ptr[Scalar[T]], first: Int, dim: Int) -> SIMD[Sum[T], W]:
    """Loads words first .. first+W-1 of a vector, zero elements past its end.

    Where quads want unlike signs, unsigned bytes of rows meet signed bytes of queries: int8 rows are raised by 128 and uint8
    queries lowered by 128 (`row_bias` and `query_bias` tell what that changes). Where one side is padded, the other is zero.

    Safety:
        `p` must have `dim` elements.
    """
    comptime N = word_elements[T]() * W
    # Halves stay integers until they are widened: where paths meet, the compiler would carry them from one to the other by
    # calls into a library.
    comptime Bits = DType.uint16 if T == DType.float16 or T == DType.bfloat16 else T
    var items = p.unsafe_bitcast[Scalar[Bits]]()
    var start = first * word_elements[T]()
    var bits: SIMD[Bits, N]
    if start + N <= dim:
        bits = items.unsafe_load[width=N](start)
    elif start < dim:
        bits = load_head[Bits, N](items.unsafe_offset(start), dim - start)
    else:
        return SIMD[Sum[T], W](0)
    comptime if T == DType.bfloat16:
        return bitcast[Sum[T], W](bits.cast[DType.uint32]() << 16)
    elif T.is_floating_point():
        return rebind[SIMD[Sum[T], W]](to_float(bitcast[T, N](bits)))
    elif QUADS:
        var bytes = bitcast[DType.uint8, N](bits)
        comptime if not LIKE_SIGNS and (T == DType.uint8) == query:
            bytes ^= 0x80
        return bitcast[Sum[T], W](bytes)
    else:
        return bitcast[Sum[T], W](bits.cast[DType.int16]())


def sum_elements[T: DType](p: Ptr[Scalar[T]], dim: Int) -> Int32:
    """Sums the elements of a vector of 8-bit integers.

    Safety:
        `p` must have `dim` elements.
    """
    comptime N = 4 * W
    var sums = SIMD[DType.int32, N](0)
    var i = 0
    while i + N <= dim:
        sums += p.unsafe_load[width=N](i).cast[DType.int32]()
        i += N
    if i < dim:
        sums += load_head[T, N](p.unsafe_offset(i), dim - i).cast[DType.int32]()
    return sums.reduce_add()


@always_inline
def row_bias[T: DType](row: Ptr[Scalar[T]], dim: Int) -> Int32:
    """Returns what a row's sums lack: x * q = x * (q - 128) + 128 * x, for quads of uint8."""
    comptime if QUADS and not LIKE_SIGNS and T == DType.uint8:
        return 128 * sum_elements(row, dim)
    else:
        return 0


@always_inline
def query_bias[T: DType](query: Ptr[Scalar[T]], dim: Int) -> Int32:
    """Returns what a query's sums lack: x * q = (x + 128) * q - 128 * q, for quads of int8."""
    comptime if QUADS and not LIKE_SIGNS and T == DType.int8:
        return -128 * sum_elements(query, dim)
    else:
        return 0


@always_inline
def _transpose[T: DType](mut v: Array[SIMD[T, W], W]):
    """Transposes W vectors of W lanes: log2(W) rounds of the perfect shuffle."""
    comptime rounds = 4 if W == 16 else (3 if W == 8 else 2)
    comptime for _ in range(rounds):
        var shuffled = Array[SIMD[T, W], W](fill=SIMD[T, W](0))
        comptime for i in range(W // 2):
            var both = v[i].interleave(v[i + W // 2])
            shuffled[2 * i] = rebind[SIMD[T, W]](both.slice[W]())
            shuffled[2 * i + 1] = rebind[SIMD[T, W]](both.slice[W, offset=W]())
        v = shuffled^


def pack_rows[
    T: DType, *, centred: Bool, scaled: Bool
](
    rows: Rows,
    begin: Int,
    count: Int,
    first: Int,
    words: Int,
    centre: Ptr[Float32],
    scales: Ptr[Float32],
    packed: Ptr[Scalar[Sum[T]]],
):
    """Packs words first .. first+words-1 of rows into panels of layout [panel][word][PANEL_ROWS].

    Args:
        rows: The rows.
        begin: First row of the block.
        count: Rows of the block, 1 to BLOCK_ROWS; the last panel is filled up with copies of the last one.
        first: First word, a multiple of W.
        words: Words to pack.
        centre: Subtracted from each row if `centred`; as long as a row, zero up to a multiple of W.
        scales: One factor per row of the block, applied if `scaled`.
        packed: Receives the panels, `words` rounded up to a multiple of W each.

    Safety:
        All rows must exist; `packed` must have room for BLOCK_ROWS x BLOCK_WORDS words.
    """
    var padded = (words + W - 1) // W * W
    for part in range((count + PANEL_ROWS - 1) // PANEL_ROWS * 2):
        var target = packed.unsafe_offset((part // 2) * padded * PANEL_ROWS + (part % 2) * W)
        for k in range(0, padded, W):
            var v = Array[SIMD[Sum[T], W], W](fill=SIMD[Sum[T], W](0))
            comptime for r in range(W):
                var i = min(part * W + r, count - 1)
                var loaded = load_words[T, False](rows.row[T](begin + i), first + k, rows.dim)
                comptime if centred:
                    loaded -= rebind[SIMD[Sum[T], W]](centre.unsafe_load[width=W](first + k))
                comptime if scaled:
                    loaded *= rebind[Scalar[Sum[T]]](scales[unsafe_offset=i])
                v[r] = loaded
            _transpose(v)
            comptime for word in range(W):
                target.unsafe_store((k + word) * PANEL_ROWS, v[word])


def pack_query[
    T: DType, Q: DType, *, centred: Bool
](
    query: Ptr[Scalar[Q]],
    dim: Int,
    scale: Float32,
    centre: Ptr[Float32],
    place: Int,
    panels: Int,
    packed: Ptr[Scalar[Sum[T]]],
):
    """Packs one query into its place: layout [block of words][panel][word][PANEL_QUERIES].

    Args:
        query: The elements: float32 for float types, else the stored type.
        dim: Their number.
        scale: Applied to float types.
        centre: Subtracted first if `centred`.
        place: Number of the query among those packed together.
        panels: Panels of all of them.
        packed: Receives the words.

    Safety:
        `packed` must have room for panels * PANEL_QUERIES * words_of[T](dim) words.
    """
    var words = words_of[T](dim)
    var block = block_words(words)
    for first in range(0, words, block):
        var here = min(block, words - first)
        var target = packed.unsafe_offset(
            PANEL_QUERIES * (panels * first + (place // PANEL_QUERIES) * here)
            + place % PANEL_QUERIES
        )
        for k in range(0, here, W):
            var v = rebind[SIMD[Sum[T], W]](load_words[Q, True](query, first + k, dim))
            comptime if centred:
                v -= rebind[SIMD[Sum[T], W]](centre.unsafe_load[width=W](first + k))
            comptime if T.is_floating_point():
                v *= rebind[Scalar[Sum[T]]](scale)
            for word in range(min(W, here - k)):
                target[unsafe_offset=(k + word) * PANEL_QUERIES] = v[word]


@always_inline
def _step[
    T: DType
](acc: SIMD[Sum[T], W], row: SIMD[Sum[T], W], query: SIMD[Sum[T], W]) -> SIMD[Sum[T], W]:
    """Adds the products of one word of W rows with one word of a query."""
    comptime if T.is_floating_point():
        return acc + row * query
    elif QUADS:
        comptime X = T if LIKE_SIGNS else DType.uint8
        comptime Y = T if LIKE_SIGNS else DType.int8
        return rebind[SIMD[Sum[T], W]](
            byte_dot(
                rebind[SIMD[DType.int32, W]](acc),
                bitcast[X, 4 * W](row),
                bitcast[Y, 4 * W](query),
            )
        )
    else:
        return rebind[SIMD[Sum[T], W]](
            pair_dot(
                rebind[SIMD[DType.int32, W]](acc),
                bitcast[DType.int16, 2 * W](row),
                bitcast[DType.int16, 2 * W](query),
            )
        )


@no_inline
def multiply[
    T: DType
](
    rows: Ptr[Scalar[Sum[T]]],
    queries: Ptr[Scalar[Sum[T]]],
    words: Int,
    sums: Ptr[Scalar[Sum[T]]],
    add: Bool,
):
    """Multiplies one panel of rows with one panel of queries.

    Args:
        rows: Packed rows.
        queries: Packed queries.
        words: Words of both.
        sums: Receives [PANEL_QUERIES][PANEL_ROWS] inner products.
        add: Whether to add them to what is there.

    Performance:
        262 of about 264 GFLOP/s in float32 on one Zen 5 core (v4), 1,040 G multiply-adds and adds in quads of bytes.

    Safety:
        The panels must have `words` words, `sums` room for TILE words.
    """
    comptime V = SIMD[Sum[T], W]
    var acc = Array[V, 2 * PANEL_QUERIES](fill=V(0))
    for k in range(words):
        var low = rows.unsafe_load[width=W](k * PANEL_ROWS)
        var high = rows.unsafe_load[width=W](k * PANEL_ROWS + W)
        comptime for i in range(PANEL_QUERIES):
            var word = V(queries[unsafe_offset=k * PANEL_QUERIES + i])
            acc[2 * i] = _step[T](acc[2 * i], low, word)
            acc[2 * i + 1] = _step[T](acc[2 * i + 1], high, word)
    if add:
        comptime for i in range(2 * PANEL_QUERIES):
            acc[i] += sums.unsafe_load[width=W](i * W)
    comptime for i in range(2 * PANEL_QUERIES):
        sums.unsafe_store(i * W, acc[i])
