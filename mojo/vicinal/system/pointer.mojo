"""Pointers whose subscripts assertions check; without assertions they are the address and nothing else, and compile to the same code.
"""
from std.memory import unsafe_memcpy, unsafe_memset_zero
from std.sys import size_of
from std.sys.defines import get_defined_string

comptime RawPtr[T: AnyType] = Pointer[T, MutUntrackedOrigin]
"""What the standard library and C take."""
comptime CHECKED = get_defined_string["ASSERT", "safe"]() == "all"
"""Whether this build checks subscripts."""


trait Extent(TrivialRegisterPassable):
    """What is known of the memory around an address."""

    def __init__(out self, begin: Int, end: Int):
        """Knows that the memory is that from one address up to another."""
        ...

    def holds(self, address: Int, bytes: Int) -> Bool:
        """Tells whether all of some bytes are in it."""
        ...


struct Unknown(Extent):
    """Nothing: takes no room, and no time."""

    @always_inline
    def __init__(out self, begin: Int, end: Int):
        """Forgets it."""
        pass

    @always_inline
    def holds(self, address: Int, bytes: Int) -> Bool:
        """Believes it."""
        return True


struct Known(Extent):
    """Where the memory begins and ends."""

    var begin: Int
    var end: Int

    def __init__(out self, begin: Int, end: Int):
        """Keeps both."""
        self.begin = begin
        self.end = end

    def holds(self, address: Int, bytes: Int) -> Bool:
        """Tells whether all of some bytes are in it."""
        return self.begin <= address and address + bytes <= self.end


comptime Around: Extent = Known if CHECKED else Unknown


struct Ptr[T: AnyType](Equatable, Intable, TrivialRegisterPassable):
    """The address of an item, or of the first of many, in memory that somebody else frees.

    Where it comes from an allocation its extent is known, and follows it through offsets and casts.
    """

    var start: RawPtr[Self.T]
    var around: Around

    @implicit
    @always_inline
    def __init__(out self, start: RawPtr[Self.T]):
        """Makes one of a pointer of which nothing else is known."""
        self.start = start
        self.around = Around(0, Int.MAX)

    @always_inline
    def __init__(out self, start: RawPtr[Self.T], around: Around):
        """Makes one of a pointer into memory of a known extent."""
        self.start = start
        self.around = around

    @always_inline
    def __init__(out self, *, unsafe_from_address: Int):
        """Makes one of an address."""
        self.start = RawPtr[Self.T](unsafe_from_address=unsafe_from_address)
        self.around = Around(0, Int.MAX)

    @always_inline
    def __int__(self) -> Int:
        """Returns the address."""
        return Int(self.start)

    @always_inline
    def __eq__(self, other: Self) -> Bool:
        """Tells whether both are of the same address."""
        return Int(self.start) == Int(other.start)

    @always_inline
    def __ne__(self, other: Self) -> Bool:
        """Tells whether they are of different addresses."""
        return Int(self.start) != Int(other.start)

    @always_inline
    def _check(self, i: Int, count: Int = 1):
        debug_assert(
            self.around.holds(Int(self.start) + i * size_of[Self.T](), count * size_of[Self.T]()),
            "a subscript is beyond the memory that was allocated",
        )

    @always_inline
    def __getitem__(self) -> ref[MutUntrackedOrigin] Self.T:
        """Returns the item."""
        self._check(0)
        return self.start[]

    @always_inline
    def __getitem__(self, i: Int) -> ref[MutUntrackedOrigin] Self.T:
        """Returns item i."""
        self._check(i)
        return self.start[unsafe_offset=i]

    @always_inline
    def __getitem__(self, *, unsafe_offset: Int) -> ref[MutUntrackedOrigin] Self.T:
        """Returns item i."""
        self._check(unsafe_offset)
        return self.start[unsafe_offset=unsafe_offset]

    @always_inline
    def unsafe_offset(self, i: Int) -> Self:
        """Returns the address of item i."""
        return Self(self.start.unsafe_offset(i), self.around)

    @always_inline
    def of(self, count: Int) -> Self:
        """Returns the same address, from which so many items may be touched."""
        var begin = Int(self.start)
        return Self(self.start, Around(begin, begin + count * size_of[Self.T]()))

    @always_inline
    def unsafe_bitcast[U: AnyType](self) -> Ptr[U]:
        """Returns the same address as one of other items."""
        return Ptr[U](self.start.unsafe_bitcast[U](), self.around)

    @always_inline
    def unsafe_write(self, var value: Self.T) where conforms_to(Self.T, Movable):
        """Moves a value to memory that holds none."""
        self._check(0)
        self.start.unsafe_write(value^)

    @always_inline
    def unsafe_deinit_pointee(self) where conforms_to(Self.T, Deinitable):
        """Ends the life of what is there."""
        self.start.unsafe_deinit_pointee()

    @always_inline
    def unsafe_load[
        dtype: DType, //, width: Int = 1
    ](self, i: Int = 0) -> SIMD[dtype, width] where Self.T == Scalar[dtype]:
        """Returns items i .. i + width - 1."""
        self._check(i, width)
        return self.start.unsafe_bitcast[Scalar[dtype]]().unsafe_load[width=width](i)

    @always_inline
    def unsafe_store(self, i: Int, value: SIMD) where Self.T == Scalar[value.dtype]:
        """Writes as many items from i on as the value has."""
        self._check(i, size_of[type_of(value)]() // size_of[Self.T]())
        self.start.unsafe_bitcast[Scalar[value.dtype]]().unsafe_store(i, value)


@always_inline
def copy_items[T: Copyable](*, dest: Ptr[T], src: Ptr[T], count: Int):
    """Copies items; the two places must not overlap."""
    dest._check(0, count)
    src._check(0, count)
    unsafe_memcpy(dest=dest.start, src=src.start, count=count)


@always_inline
def zero_items[T: AnyType](dest: Ptr[T], count: Int):
    """Sets every byte of items to zero."""
    dest._check(0, count)
    unsafe_memset_zero(dest.start, count)
