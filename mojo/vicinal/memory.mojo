"""Memory straight from libc: aligned blocks, and columns that grow without ever moving.

The standard library's allocator would pull Modular's runtime into the extension; these calls do not.
"""
from std.ffi import c_int, external_call
from std.memory import unsafe_memset_zero
from std.sys import size_of

comptime Bytes = Pointer[UInt8, MutUntrackedOrigin]
comptime Ptr[T: AnyType] = Pointer[T, MutUntrackedOrigin]

comptime PROT_NONE: c_int = 0
comptime PROT_READ_WRITE: c_int = 3
comptime MAP_PRIVATE_ANONYMOUS_NORESERVE: c_int = 0x02 | 0x20 | 0x4000
comptime MADV_HUGEPAGE: c_int = 14
comptime HUGE_PAGE = 2 << 20
comptime SMALL_STEP = 64 << 10
comptime MAP_FAILED = -1


@always_inline
def at[T: AnyType](address: Int) -> Ptr[T]:
    """Makes a pointer of an address that is known not to be null.

    Safety:
        The address must point to valid memory for `T`.
    """
    return Ptr[T](unsafe_from_address=address)


def allocate[T: AnyType](count: Int) -> Ptr[T]:
    """Allocates `count` items on a 64-byte boundary, not initialised; ends the process if memory is out.

    For small pieces (scratch, tables); large arrays are `Column`s, which report failure instead.
    """
    var bytes = (max(count, 1) * size_of[T]() + 63) // 64 * 64
    var address = external_call["aligned_alloc", Int](64, bytes)
    if address == 0:
        external_call["abort", NoneType]()
    return at[T](address)


def allocate_zeroed[T: AnyType](count: Int) -> Ptr[T]:
    """Allocates `count` items on a 64-byte boundary with every byte zero."""
    var p = allocate[T](count)
    unsafe_memset_zero(p.unsafe_bitcast[UInt8](), max(count, 1) * size_of[T]())
    return p


def release[T: AnyType](p: Ptr[T]):
    """Gives back what `allocate` returned.

    Safety:
        The pointer must come from `allocate` and must not be used again.
    """
    external_call["free", NoneType](Int(p))


def physical_memory() -> Int:
    """Returns the bytes of memory that this machine has."""
    # _SC_PAGESIZE = 30 and _SC_PHYS_PAGES = 85 on Linux
    return external_call["sysconf", Int](c_int(30)) * external_call["sysconf", Int](c_int(85))


struct Column(Movable):
    """A large array at a fixed address: anonymous memory that grows in place, or part of a mapped file.

    Address space for the largest size that could ever be wanted is reserved at first use and made usable step by
    step, so a row never moves and a reader never sees a freed array. Kernels cannot tell the two kinds apart.
    """

    var address: Int
    """Start of the array; 0 while nothing was reserved."""
    var reserved: Int
    """Bytes of address space held; 0 for a view of memory that somebody else owns."""
    var usable: Int
    """Bytes that may be read and written."""

    def __init__(out self):
        """Makes an empty column that holds no memory."""
        self.address = 0
        self.reserved = 0
        self.usable = 0

    def __deinit__(deinit self):
        if self.reserved != 0:
            _ = external_call["munmap", c_int](self.address, self.reserved)

    @always_inline
    def ptr[T: AnyType](self) -> Ptr[T]:
        """Returns the start of the array as items of `T`.

        Safety:
            Only the first `usable` bytes may be touched.
        """
        return at[T](self.address)

    def view(mut self, address: Int, bytes: Int):
        """Makes the column a view of memory that somebody else owns (a mapped file)."""
        self.address = address
        self.usable = bytes
        self.reserved = 0

    def grow(mut self, bytes: Int) -> Bool:
        """Makes at least `bytes` usable, new ones zero; returns False when memory or address space is out.
        """
        if bytes <= self.usable:
            return True
        if self.address == 0 and not self._reserve(bytes):
            return False
        if bytes > self.reserved:
            return False
        # Steps of a quarter keep the number of system calls small; pages count as used only when touched.
        var step = HUGE_PAGE if bytes >= 2 * HUGE_PAGE else SMALL_STEP
        var target = min(
            (max(bytes, self.usable + self.usable // 4) + step - 1) // step * step, self.reserved
        )
        if external_call["mprotect", c_int](self.address, target, PROT_READ_WRITE) != 0:
            return False
        if target >= 2 * HUGE_PAGE:  # without huge pages it is only slower
            _ = external_call["madvise", c_int](self.address, target, MADV_HUGEPAGE)
        self.usable = target
        return True

    def _reserve(mut self, bytes: Int) -> Bool:
        """Reserves address space for twice the machine's memory, or what the system grants down to `bytes`.
        """
        var want = max(2 * physical_memory(), 4 * bytes)
        while want >= bytes:
            want = (want + HUGE_PAGE - 1) // HUGE_PAGE * HUGE_PAGE
            var raw = external_call["mmap", Int](
                Int(0),
                want + HUGE_PAGE,
                PROT_NONE,
                MAP_PRIVATE_ANONYMOUS_NORESERVE,
                c_int(-1),
                Int(0),
            )
            if raw != MAP_FAILED:
                var start = (raw + HUGE_PAGE - 1) // HUGE_PAGE * HUGE_PAGE
                if start > raw:
                    _ = external_call["munmap", c_int](raw, start - raw)
                if raw + HUGE_PAGE > start:
                    _ = external_call["munmap", c_int](start + want, raw + HUGE_PAGE - start)
                self.address = start
                self.reserved = want
                return True
            want //= 2
        return False
