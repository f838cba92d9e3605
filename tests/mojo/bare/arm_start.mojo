"""Makes `checks.mojo` a program for aarch64 that needs no library, so that an emulator alone can run it.

Holds the entry point, and of libc what one thread needs, made of system calls. What only further threads would call is left out
and must not be reached.
"""
from std.ffi import external_call
from std.memory import Pointer
from std.sys import inlined_assembly

comptime Bytes = Pointer[UInt8, MutUntrackedOrigin]
comptime HEADER = 64
"""Bytes before a block of memory; the first eight hold its size."""
comptime ROOM = 64
"""Numbers that the checks may hand out."""


@always_inline
def system_call(
    number: Int, a: Int, b: Int = 0, c: Int = 0, d: Int = 0, e: Int = 0, f: Int = 0
) -> Int:
    """Asks Linux for something."""
    return inlined_assembly[
        "svc #0",
        Int,
        constraints="={x0},{x8},{x0},{x1},{x2},{x3},{x4},{x5},~{memory}",
        has_side_effect=True,
    ](number, a, b, c, d, e, f)


@export
def mmap(
    address: Int, bytes: Int, protection: Int32, flags: Int32, fd: Int32, offset: Int
) abi("C") -> Int:
    """Maps memory; like the others here it returns -1 for any error."""
    var got = system_call(222, address, bytes, Int(protection), Int(flags), Int(fd), offset)
    return -1 if got < 0 else got


@export
def munmap(address: Int, bytes: Int) abi("C") -> Int32:
    """Gives mapped memory back."""
    return Int32(system_call(215, address, bytes))


@export
def mprotect(address: Int, bytes: Int, protection: Int32) abi("C") -> Int32:
    """Makes memory usable."""
    return Int32(system_call(226, address, bytes, Int(protection)))


@export
def madvise(address: Int, bytes: Int, advice: Int32) abi("C") -> Int32:
    """Advises on the use of memory."""
    return Int32(system_call(233, address, bytes, Int(advice)))


@export
def sysconf(name: Int32) abi("C") -> Int:
    """Returns the size of a page, and pages for a gigabyte of memory."""
    return 4096 if name == 30 else 1 << 18


@export
def clock_gettime(clock: Int32, time: Int) abi("C") -> Int32:
    """Reads a clock."""
    return Int32(system_call(113, Int(clock), time))


@export
def abort() abi("C"):
    """Ends the program as a failure."""
    _ = system_call(93, 134)


@export
def aligned_alloc(alignment: Int, bytes: Int) abi("C") -> Int:
    """Allocates memory on a boundary of 64 bytes."""
    var base = mmap(0, bytes + HEADER, 3, 0x22, -1, 0)
    if base == -1:
        return 0
    Pointer[Int, MutUntrackedOrigin](unsafe_from_address=base)[] = bytes
    return base + HEADER


@export
def free(address: Int) abi("C"):
    """Gives back what `aligned_alloc` returned."""
    if address != 0:
        var base = address - HEADER
        var bytes = Pointer[Int, MutUntrackedOrigin](unsafe_from_address=base)[]
        _ = munmap(base, bytes + HEADER)


@export
def realloc(address: Int, bytes: Int) abi("C") -> Int:
    """Moves a block to one of another size."""
    var moved = aligned_alloc(HEADER, bytes)
    if address != 0 and moved != 0:
        var old = Pointer[Int, MutUntrackedOrigin](unsafe_from_address=address - HEADER)[]
        _ = memcpy(moved, address, min(old, bytes))
        free(address)
    return moved


@export
def memset(address: Int, value: Int32, bytes: Int) abi("C") -> Int:
    """Fills memory; stores are volatile, or the compiler would make a call of this function of them.
    """
    var p = Bytes(unsafe_from_address=address)
    for i in range(bytes):
        p.unsafe_store[volatile=True](i, UInt8(value & 255))
    return address


@export
def memcpy(target: Int, source: Int, bytes: Int) abi("C") -> Int:
    """Copies memory."""
    var p = Bytes(unsafe_from_address=target)
    var q = Bytes(unsafe_from_address=source)
    for i in range(bytes):
        p.unsafe_store[volatile=True](i, q[unsafe_offset=i])
    return target


@export
def memcmp(a: Int, b: Int, bytes: Int) abi("C") -> Int32:
    """Compares memory."""
    var p = Bytes(unsafe_from_address=a)
    var q = Bytes(unsafe_from_address=b)
    for i in range(bytes):
        if p[unsafe_offset=i] != q[unsafe_offset=i]:
            return Int32(p[unsafe_offset=i]) - Int32(q[unsafe_offset=i])
    return 0


@export
def _start() abi("C"):
    """Runs the checks and writes the numbers to standard output as they lie in memory."""
    var room = aligned_alloc(HEADER, ROOM * 8)
    var count = external_call["run_checks", Int](room)
    var written = system_call(64, 1, room, count * 8)
    _ = system_call(93, 0 if written == count * 8 else 1)
