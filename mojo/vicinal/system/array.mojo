"""A list that grows as needed and can be sorted: results of which nobody knows how many there will be."""
from std.ffi import external_call

from vicinal.system.memory import Ptr, at

comptime RADIX_FROM = 256
"""Items from which on sorting byte by byte is faster."""


struct GrowableArray(Movable):
    """64-bit items; says when memory is out instead of ending the process."""

    var items: Int
    """Address of the items, 0 while there is no room for any."""
    var size: Int
    var room: Int
    var full: Bool
    """True once memory was out: items have been lost."""

    def __init__(out self):
        """Makes an empty list."""
        self.items = 0
        self.size = 0
        self.room = 0
        self.full = False

    def __deinit__(deinit self):
        external_call["free", NoneType](self.items)

    @always_inline
    def at(self, i: Int) -> Ptr[Int64]:
        """Returns the place of item i."""
        return at[Int64](self.items + 8 * i)

    @always_inline
    def push(mut self, item: Int64):
        """Appends an item."""
        if self.size == self.room:
            self.grow()
            if self.full:
                return
        self.at(self.size)[] = item
        self.size += 1

    @no_inline
    def grow(mut self):
        """Doubles the room."""
        var room = max(2 * self.room, 64)
        var items = external_call["realloc", Int](self.items, room * 8)
        if items == 0:
            self.full = True
            return
        self.items = items
        self.room = room

    def sort(mut self):
        """Sorts the items: heapsort, which needs no memory, for few, else byte by byte."""
        if self.size >= RADIX_FROM and self._sort_bytes():
            return
        for i in range(self.size // 2 - 1, -1, -1):
            self._sink(i, self.size)
        for last in range(self.size - 1, 0, -1):
            var largest = self.at(0)[]
            self.at(0)[] = self.at(last)[]
            self.at(last)[] = largest
            self._sink(0, last)

    def _sort_bytes(mut self) -> Bool:
        """Sorts by the lowest byte, then the next, and so on; returns False when there is no memory for a copy.
        """
        var other = external_call["malloc", Int](self.size * 8)
        if other == 0:
            return False
        var source = at[Int64](self.items)
        var target = at[Int64](other)
        for byte in range(8):
            var shift = Int64(8 * byte)
            var flip = 128 if byte == 7 else 0  # the sign
            var starts = Array[Int, 256](fill=0)
            for i in range(self.size):
                starts[Int((source[unsafe_offset=i] >> shift) & 255) ^ flip] += 1
            if starts[Int((source[] >> shift) & 255) ^ flip] == self.size:
                continue  # all are alike here
            var before = 0
            for value in range(256):
                var here = starts[value]
                starts[value] = before
                before += here
            for i in range(self.size):
                var item = source[unsafe_offset=i]
                var value = Int((item >> shift) & 255) ^ flip
                target[unsafe_offset=starts[value]] = item
                starts[value] += 1
            swap(source, target)
        if Int(source) != self.items:
            for i in range(self.size):
                target[unsafe_offset=i] = source[unsafe_offset=i]
        external_call["free", NoneType](other)
        return True

    @always_inline
    def _sink(mut self, start: Int, size: Int):
        var item = self.at(start)[]
        var place = start
        while 2 * place + 1 < size:
            var child = 2 * place + 1
            if child + 1 < size:
                child += Int(self.at(child + 1)[] > self.at(child)[])
            if self.at(child)[] <= item:
                break
            self.at(place)[] = self.at(child)[]
            place = child
        self.at(place)[] = item
