"""Exact sums of products of small integers: what each CPU level has an instruction for, and the shortest way round where it has none.

| level | four bytes at once | neighbouring pairs |
|---|---|---|
| x86-64-v4 with VNNI | `vpdpbusd`, unsigned by signed | `vpdpwssd` |
| x86-64-v3, v2 | no: `pmaddubsw` sums two products in 16 bits, which suffices for values of 4 bits | `pmaddwd` |
| Arm with dot products | `udot`, `sdot`, both signs alike | widening |
| Neon | no: `umull` and `uadalp`, both signs alike | widening |

So x86 wants a row and a query of unlike signs, Arm wants them alike; see `LIKE_SIGNS`. All sums are taken modulo 2**32.
"""
from std.memory import bitcast
from std.sys import CompilationTarget, llvm_intrinsic, simd_width_of

comptime W = simd_width_of[DType.float32]()
"""Lanes of a float32 vector: 16, 8 or 4 for x86-64-v4, v3, v2; 4 for Neon."""
comptime ON_ARM = CompilationTarget.is_arm()
comptime VNNI = CompilationTarget._has_feature["avx512vnni"]() and W == 16
comptime DOT_PRODUCTS = ON_ARM and CompilationTarget._has_feature["dotprod"]()
comptime QUADS = VNNI or DOT_PRODUCTS
"""True where four products of bytes are added to a 32-bit sum at once."""
comptime LIKE_SIGNS = ON_ARM
"""True where bytes are best multiplied with bytes of the same type, False where one side should be unsigned and one signed.

An instruction for unlike signs (`usdot`) would save nothing: codes of 4 bits are of both kinds, exact queries are kept in the
type of the rows, and for estimates of 8 bits the shift of the rows costs one `eor` in 16 bytes.
"""
comptime Sums = SIMD[DType.int32, W]
comptime Pairs = SIMD[DType.int16, 2 * W]
comptime ByteVector[T: DType] = SIMD[T, 4 * W]
comptime MOST_SMALL = 8
"""How many results of `small_products` may be added up in 16 bits: 8 * 2 * 15 * 128 < 2**15."""


@always_inline
def pair_dot(acc: Sums, x: Pairs, y: Pairs) -> Sums:
    """Adds the products of neighbouring lanes, two at a time, to 32-bit sums.

    Performance:
        One `vpdpwssd` with AVX-512 VNNI, `pmaddwd` and an add on older x86; two multiplications, a permutation and adds elsewhere.
    """
    comptime if VNNI:
        return llvm_intrinsic["llvm.x86.avx512.vpdpwssd.512", Sums, has_side_effect=False](
            acc, x, y
        )
    elif CompilationTarget.has_avx2() and W == 8:
        return acc + llvm_intrinsic["llvm.x86.avx2.pmadd.wd", Sums, has_side_effect=False](x, y)
    elif CompilationTarget.is_x86() and W == 4:
        return acc + llvm_intrinsic["llvm.x86.sse2.pmadd.wd", Sums, has_side_effect=False](x, y)
    else:
        var products = x.cast[DType.int32]() * y.cast[DType.int32]()
        var halves = products.deinterleave()
        return acc + rebind[Sums](halves[0]) + rebind[Sums](halves[1])


@always_inline
def byte_dot[X: DType, Y: DType](acc: Sums, x: ByteVector[X], y: ByteVector[Y]) -> Sums:
    """Adds the products of bytes, signed or not, to 32-bit sums, in some order of the lanes.

    Performance:
        One instruction where `QUADS` and the signs are as `LIKE_SIGNS` wants them; four for like signs on older Arm.
        Elsewhere widening and two `pair_dot`, since on x86 a product of bytes and its neighbour overflow 16 bits.
    """
    comptime if VNNI and X == DType.uint8 and Y == DType.int8:
        return llvm_intrinsic["llvm.x86.avx512.vpdpbusd.512", Sums, has_side_effect=False](
            acc, x, y
        )
    elif VNNI and X == DType.int8 and Y == DType.uint8:
        return byte_dot(acc, y, x)
    elif DOT_PRODUCTS and X == Y:
        comptime name = "llvm.aarch64.neon.udot.v4i32.v16i8" if X == DType.uint8 else (
            "llvm.aarch64.neon.sdot.v4i32.v16i8"
        )
        return llvm_intrinsic[name, Sums, has_side_effect=False](acc, x, y)
    elif ON_ARM and X == Y:
        comptime Wide = DType.uint16 if X == DType.uint8 else DType.int16
        comptime name = "llvm.aarch64.neon.uaddlp.v4i32.v8i16" if X == DType.uint8 else (
            "llvm.aarch64.neon.saddlp.v4i32.v8i16"
        )
        var sums = acc
        comptime for half in range(2):
            var products = (
                x.slice[2 * W, offset=half * 2 * W]().cast[Wide]()
                * y.slice[2 * W, offset=half * 2 * W]().cast[Wide]()
            )
            sums += llvm_intrinsic[name, Sums, has_side_effect=False](products)
        return sums
    else:
        var sums = acc
        comptime for half in range(2):
            sums = pair_dot(
                sums,
                x.slice[2 * W, offset=half * 2 * W]().cast[DType.int16](),
                y.slice[2 * W, offset=half * 2 * W]().cast[DType.int16](),
            )
        return sums


@always_inline
def gap[T: DType](x: ByteVector[T], y: ByteVector[T]) -> ByteVector[DType.uint8]:
    """Returns the absolute differences of bytes, which fit unsigned bytes; for Arm."""
    comptime name = "llvm.aarch64.neon.uabd.v16i8" if T == DType.uint8 else (
        "llvm.aarch64.neon.sabd.v16i8"
    )
    return llvm_intrinsic[name, ByteVector[DType.uint8], has_side_effect=False](x, y)


@always_inline
def small_products(x: ByteVector[DType.uint8], y: ByteVector[DType.int8]) -> Pairs:
    """Multiplies values of 0 to 15 with signed bytes and sums two products in each lane of 16 bits.

    Performance:
        One `pmaddubsw`; on Arm `smull` and `smlal`.
    """
    comptime if CompilationTarget.has_avx2() and W == 8:
        return llvm_intrinsic["llvm.x86.avx2.pmadd.ub.sw", Pairs, has_side_effect=False](x, y)
    elif CompilationTarget.is_x86() and W == 4:
        return llvm_intrinsic["llvm.x86.ssse3.pmadd.ub.sw.128", Pairs, has_side_effect=False](x, y)
    else:
        var signed = bitcast[DType.int8, 4 * W](x)
        return (
            signed.slice[2 * W]().cast[DType.int16]() * y.slice[2 * W]().cast[DType.int16]()
            + signed.slice[2 * W, offset=2 * W]().cast[DType.int16]()
            * y.slice[2 * W, offset=2 * W]().cast[DType.int16]()
        )


@always_inline
def add_pairs(acc: Sums, v: Pairs) -> Sums:
    """Adds lanes of 16 bits, two at a time, to 32-bit sums."""
    comptime if ON_ARM:
        return acc + llvm_intrinsic[
            "llvm.aarch64.neon.saddlp.v4i32.v8i16", Sums, has_side_effect=False
        ](v)
    else:
        return pair_dot(acc, v, Pairs(1))


@always_inline
def small_dot(acc: Sums, x: ByteVector[DType.uint8], y: ByteVector[DType.int8]) -> Sums:
    """Adds the products of values of 0 to 15 with signed bytes to 32-bit sums, in some order of the lanes.

    Performance:
        One instruction where `QUADS`. Elsewhere several results of `small_products` are better added up before `add_pairs`.
    """
    comptime if QUADS:
        comptime X = DType.int8 if LIKE_SIGNS else DType.uint8  # such values are the same in both
        return byte_dot(acc, bitcast[X, 4 * W](x), y)
    else:
        return add_pairs(acc, small_products(x, y))


@always_inline
def add_lanes(a: Sums, b: Sums, c: Sums, d: Sums) -> SIMD[DType.int32, 4]:
    """Returns the sums of the lanes of four vectors: fewer instructions than one after the other.
    """
    comptime if CompilationTarget.has_avx2() and W == 8:
        comptime name = "llvm.x86.avx2.phadd.d"
        var ab = llvm_intrinsic[name, Sums, has_side_effect=False](a, b)
        var cd = llvm_intrinsic[name, Sums, has_side_effect=False](c, d)
        return llvm_intrinsic[name, Sums, has_side_effect=False](ab, cd).reduce_add[4]()
    else:
        return _fold(_fold(a, c), _fold(b, d)).reduce_add[4]()


@always_inline
def _fold(a: Sums, b: Sums) -> Sums:
    """Returns lanes of which the even ones sum to what those of `a` do, the odd ones to those of `b`.
    """
    var both = a.interleave(b)
    return rebind[Sums](both.slice[W]() + both.slice[W, offset=W]())
