"""A random rotation in O(n log n): sign flips and Hadamard transforms, for any dimension.

A transform wants a power of two; instead of padding to the next one, each round transforms a window of the largest power of two
that fits, at the front and at the back by turns, so that every element takes part. Rounds and windows follow the fast
rotation of the RaBitQ library; the order of a transform's outputs is immaterial and chosen for speed. The arithmetic is
the same on every CPU level, so that codes made on one machine serve on another.
"""
from std.math import sqrt

from vicinal.system.hash import mix
from vicinal.system.memory import Ptr, allocate, missing, release

comptime ROUNDS = 4
comptime PAIR = 32
"""Floats of the two vectors that take part in the steps inside vectors; fixed for all CPU levels."""
comptime HALF = PAIR // 2
comptime LEAST = 64
"""Dimensions are padded with zeros to a multiple of it."""


def padded_dim(dim: Int) -> Int:
    """Returns the dimension that a rotation works in."""
    return (dim + LEAST - 1) // LEAST * LEAST


struct Rotation(Movable):
    """An orthogonal matrix drawn from a seed."""

    var size: Int
    """Dimension, a multiple of LEAST."""
    var window: Int
    """The largest power of two in it."""
    var signs: Ptr[Float32]
    """ROUNDS x size factors of 1 and -1."""

    def __init__(out self, dim: Int, seed: Int):
        """Draws the signs."""
        self.size = padded_dim(dim)
        self.window = LEAST
        while self.window * 2 <= self.size:
            self.window *= 2
        self.signs = allocate[Float32](ROUNDS * self.size)
        for i in range(0 if missing(self.signs) else ROUNDS * self.size):
            self.signs[unsafe_offset=i] = 1 if mix(seed, i) & 1 == 0 else -1

    def __deinit__(deinit self):
        release(self.signs)

    def failed(self) -> Bool:
        """Tells whether memory was refused: nothing may be rotated then."""
        return missing(self.signs)

    def rotate(self, v: Ptr[Float32]):
        """Rotates a vector in place.

        Safety:
            `v` must have `size` elements on a 64-byte boundary.
        """
        var scale = SIMD[DType.float32, HALF](1 / sqrt(Float32(self.window)))
        for round in range(ROUNDS):
            var signs = self.signs.unsafe_offset(round * self.size)
            var start = 0 if round % 2 == 0 else self.size - self.window
            for i in range(0, self.size, HALF):
                var x = v.unsafe_load[width=HALF](i) * signs.unsafe_load[width=HALF](i)
                var inside = i >= start and i < start + self.window
                v.unsafe_store(i, x * scale if inside else x)
            _hadamard(v.unsafe_offset(start), self.window)


@always_inline
def _hadamard(v: Ptr[Float32], size: Int):
    """Transforms `size` floats, a power of two of at least PAIR, without scaling."""
    for i in range(0, size, PAIR):
        var x = v.unsafe_load[width=PAIR](i)
        comptime for _ in range(5):  # log2(PAIR)
            var halves = x.deinterleave()
            x = (halves[0] + halves[1]).join(halves[0] - halves[1])
        v.unsafe_store(i, x)
    var reach = PAIR
    while reach < size:
        for block in range(0, size, 2 * reach):
            for i in range(block, block + reach, HALF):
                var a = v.unsafe_load[width=HALF](i)
                var b = v.unsafe_load[width=HALF](i + reach)
                v.unsafe_store(i, a + b)
                v.unsafe_store(i + reach, a - b)
        reach *= 2
