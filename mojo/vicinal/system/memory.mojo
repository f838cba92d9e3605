"""Memory straight from libc, every refusal of which is told: aligned blocks, and columns that grow under their readers.

The standard library's allocator would pull Modular's runtime into the extension; these calls do not.
"""
from std.atomic import Atomic, Ordering
from std.ffi import c_int, external_call
from std.sys import size_of

from vicinal.system.pointer import Around, Ptr, RawPtr, copy_items, zero_items

comptime Bytes = Ptr[UInt8]
comptime LINE = 64
"""Bytes of a cache line, and the boundary of every block."""
comptime NO_BLOCK = 64
"""Stands for the address of memory that there is none of; a pointer cannot be null."""
comptime PROT_NONE: c_int = 0
comptime PROT_READ_WRITE: c_int = 3
comptime MAP_PRIVATE_ANONYMOUS_NORESERVE: c_int = 0x02 | 0x20 | 0x4000
comptime MADV_HUGEPAGE: c_int = 14
comptime RLIMIT_AS: c_int = 9
comptime HUGE_PAGE = 2 << 20
comptime STEP = 64 << 10
"""What maps are multiples of; no machine's pages are larger."""
comptime MAP_FAILED = -1
comptime MAPPED_FROM = 1 << 20
"""Columns of fewer bytes are blocks of the allocator, so that thousands of small indexes need few maps: a process may have 65,530.
"""
comptime GROWTH = 16
"""Addresses that a mapped column reserves, in multiples of its bytes: it moves once in so many doublings that it hardly matters."""
comptime LARGE_GROWTH = 64
comptime LARGE = 1 << 30
"""From so many bytes on it reserves more: to move it would double the memory of the process for a while."""
comptime LARGEST = 1 << 47
"""Bytes that no column can have: all addresses of a process."""
comptime LIMITED_GROWTH = 2
"""The same where the process has a limit of addresses, which others need as well."""


@always_inline
def at[T: AnyType](address: Int) -> Ptr[T]:
    """Makes a pointer of an address that is known not to be null.

    Safety:
        The address must point to valid memory for `T`.
    """
    return Ptr[T](unsafe_from_address=address)


@always_inline
def no_block[T: AnyType]() -> Ptr[T]:
    """Returns the pointer that stands for no memory at all; nothing can be read there."""
    return Ptr[T](RawPtr[T](unsafe_from_address=NO_BLOCK), Around(NO_BLOCK, NO_BLOCK))


@always_inline
def missing[T: AnyType](p: Ptr[T]) -> Bool:
    """Tells whether a pointer leads to no memory: that of an allocation that failed, or of none."""
    return Int(p) == NO_BLOCK


def allocate[T: AnyType](count: Int) -> Ptr[T]:
    """Allocates `count` items on a 64-byte boundary, not initialised.

    Returns:
        Their address, or where memory is out what `missing` knows; `release` takes either.
    """
    var bytes = (max(count, 1) * size_of[T]() + LINE - 1) // LINE * LINE
    var address = external_call["aligned_alloc", Int](LINE, bytes)
    if address == 0:
        return no_block[T]()
    return Ptr[T](RawPtr[T](unsafe_from_address=address), Around(address, address + bytes))


def allocate_zeroed[T: AnyType](count: Int) -> Ptr[T]:
    """Allocates as `allocate` does, with every byte zero."""
    var p = allocate[T](count)
    if not missing(p):
        zero_items(p.unsafe_bitcast[UInt8](), max(count, 1) * size_of[T]())
    return p


def release[T: AnyType](p: Ptr[T]):
    """Gives back what `allocate` returned.

    Safety:
        The pointer must come from `allocate` or `no_block` and must not be used again.
    """
    if not missing(p):
        external_call["free", NoneType](Int(p))


@fieldwise_init
struct Retired(TrivialRegisterPassable):
    """Memory that a column has moved out of; the first words of a block of the allocator."""

    var next: Int
    """Address of the one that was retired before it, or 0."""
    var address: Int
    var reserved: Int
    """See `Column`, as for the address."""


struct Column(Movable):
    """A large array that grows under its readers: memory of its own, or part of a mapped file.

    A small column is a block of the allocator; a larger one has address space for many times its bytes, which is made usable
    step by step. So it seldom outgrows its place. When it does, its content is copied to a new place that is announced, and the
    old place is *retired*: it stays as it is, and whoever took the address before reads on there, until `free_retired`. Rows
    that were there before are the same in both places, since no row is written while a reader may meet it; where more than
    new rows is written under readers (links, rings of copies, stamps, marks), those in the old place go on seeing what was there
    when it was retired. The writer must take the address anew after `grow`; a reader must read how many rows there are
    before it takes the address. Kernels cannot tell the kinds of columns apart.
    """

    var address: Int
    """Start of the array; 0 while there is no memory."""
    var reserved: Int
    """Bytes held, usable or not; 0 for a view of memory that somebody else owns."""
    var usable: Int
    """Bytes that may be read and written."""
    var retired: Int
    """Address of the `Retired` that was retired last, or 0."""
    var retired_bytes: Int
    """Bytes that were usable there."""

    def __init__(out self):
        """Makes an empty column that holds no memory."""
        self.address = 0
        self.reserved = 0
        self.usable = 0
        self.retired = 0
        self.retired_bytes = 0

    def __deinit__(deinit self):
        _free_all(self.retired)
        _free(self.address, self.reserved)

    @always_inline
    def ptr[T: AnyType](self) -> Ptr[T]:
        """Returns the start of the array as items of `T`.

        Safety:
            Only the first `usable` bytes may be touched.
        """
        return at[T](
            Int(
                Atomic[Int64].load[ordering=Ordering.ACQUIRE](
                    Pointer(to=self.address)
                    .unsafe_mut_cast[True]()
                    .unsafe_bitcast[Int64]()
                    .unsafe_origin_cast[MutUntrackedOrigin]()
                )
            )
        )

    def view(mut self, address: Int, bytes: Int):
        """Makes the column a view of memory that somebody else owns (a mapped file)."""
        self.address = address
        self.usable = bytes
        self.reserved = 0

    def own(mut self) -> Bool:
        """Replaces a view by a copy in memory of the column's own; returns False, and changes nothing, when memory is out.

        Nobody may be reading the column.
        """
        if self.reserved != 0:
            return True
        var copy = Column()
        if self.usable != 0:
            if not copy.grow(self.usable):
                return False
            copy_items(dest=copy.ptr[UInt8](), src=self.ptr[UInt8](), count=self.usable)
        self = copy^
        return True

    def memory(self) -> Int:
        """Returns the bytes of memory that the column takes, retired ones included; anybody may ask at any time.
        """
        return self.usable + self.retired_bytes

    def free_retired(mut self):
        """Gives back what the column has moved out of.

        Safety:
            No reader may be left that took the address before.
        """
        _free_all(self.retired)
        self.retired = 0
        self.retired_bytes = 0

    def grow(mut self, bytes: Int) -> Bool:
        """Makes at least `bytes` usable, new ones zero; a cache line behind them may be read as well.

        Returns:
            False when memory or address space is out, or for a view; the column is as it was then.
        """
        if bytes <= self.usable:
            return True
        if self.address != 0 and self.reserved == 0:
            return False
        if bytes <= self.reserved - LINE:  # a map: a small block is usable from the beginning
            return self._open(bytes)
        return bytes <= LARGEST and self._move(bytes)

    def _open(mut self, bytes: Int) -> Bool:
        """Makes more of a map usable."""
        # Steps of a quarter keep the number of system calls small; pages count as used only when touched.
        var step = HUGE_PAGE if bytes >= 2 * HUGE_PAGE else STEP
        var most = self.reserved - LINE
        var target = min(_up(max(bytes, self.usable + self.usable // 4), step), most)
        if not _make_usable(self.address, target + LINE):
            target = min(_up(bytes, STEP), most)
            if not _make_usable(self.address, target + LINE):
                return False
        if target >= 2 * HUGE_PAGE:  # without huge pages it is only slower
            _ = external_call["madvise", c_int](self.address, target + LINE, MADV_HUGEPAGE)
        self.usable = target
        return True

    def _move(mut self, bytes: Int) -> Bool:
        """Goes to a larger place, the first one included."""
        var left = no_block[Retired]()
        if self.address != 0:
            left = allocate[Retired](1)
            if missing(left):
                return False
        var new = Column()
        if not new._take_place(bytes, self.address == 0):
            release(left)
            return False
        if self.address != 0:
            copy_items(dest=at[UInt8](new.address), src=at[UInt8](self.address), count=self.usable)
            left[] = Retired(self.retired, self.address, self.reserved)
            self.retired = Int(left)
            self.retired_bytes += self.usable
        # whoever learns of more rows than there were sees this address
        Atomic[Int64].store[ordering=Ordering.RELEASE](
            Pointer(to=self.address).unsafe_bitcast[Int64](), Int64(new.address)
        )
        self.reserved = new.reserved
        self.usable = new.usable
        new.reserved = 0  # it is this column's now
        return True

    def _take_place(mut self, bytes: Int, first: Bool) -> Bool:
        """Takes a new place; a small one just large enough the first time and with room to double later.
        """
        var small = _up(bytes if first else 2 * bytes, LINE) + LINE
        if small < MAPPED_FROM:
            var block = allocate_zeroed[UInt8](small)
            if missing(block):
                return False
            self.address = Int(block)
            self.reserved = small
            self.usable = small - LINE
            return True
        return self._reserve(bytes) and self._open(bytes)

    def _reserve(mut self, bytes: Int) -> Bool:
        """Reserves address space for what the column may become, or what the system grants down to `bytes`.
        """
        var least = max(_up(bytes + LINE, STEP), MAPPED_FROM)
        var want = _up(least * _growth(bytes), HUGE_PAGE)
        while True:
            # whole huge pages, but for the last try
            var slack = HUGE_PAGE if want > least else 0
            var raw = external_call["mmap", Int](
                Int(0),
                want + slack,
                PROT_NONE,
                MAP_PRIVATE_ANONYMOUS_NORESERVE,
                c_int(-1),
                Int(0),
            )
            if raw != MAP_FAILED:
                var start = _up(raw, HUGE_PAGE) if slack != 0 else raw
                if start > raw:
                    _ = external_call["munmap", c_int](raw, start - raw)
                if raw + slack > start:
                    _ = external_call["munmap", c_int](start + want, raw + slack - start)
                self.address = start
                self.reserved = want
                return True
            if want == least:
                return False
            want = max(_up(want // 2, STEP), least)


@always_inline
def _up(bytes: Int, step: Int) -> Int:
    """Rounds up to a multiple of `step`."""
    return (bytes + step - 1) // step * step


def _make_usable(address: Int, bytes: Int) -> Bool:
    """Makes pages readable and writable."""
    return external_call["mprotect", c_int](address, bytes, PROT_READ_WRITE) == 0


def _growth(bytes: Int) -> Int:
    """Returns how many times its bytes a column reserves."""
    var limits = SIMD[DType.uint64, 2](UInt64.MAX)
    if external_call["getrlimit", c_int](RLIMIT_AS, Pointer(to=limits)) == 0:
        if limits[0] != UInt64.MAX:
            return LIMITED_GROWTH
    return LARGE_GROWTH if bytes >= LARGE else GROWTH


def _free(address: Int, reserved: Int):
    """Gives back a place; nothing if it is somebody else's."""
    if reserved >= MAPPED_FROM:
        _ = external_call["munmap", c_int](address, reserved)
    elif reserved != 0:
        external_call["free", NoneType](address)


def _free_all(newest: Int):
    """Gives back retired places and what tells of them."""
    var place = newest
    while place != 0:
        var left = at[Retired](place)
        var next = left[].next
        _free(left[].address, left[].reserved)
        release(left)
        place = next
