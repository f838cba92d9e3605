"""Strings that name rows: every string has a number, and the number is the id that the rest of the index knows."""
from std.ffi import c_int, external_call

from vicinal.system.crc import crc32c
from vicinal.system.hash import mix
from vicinal.system.memory import Column, Ptr, allocate, at, missing, no_block, release
from vicinal.system.pointer import copy_items

comptime FREE: UInt32 = 0xFFFFFFFF
comptime MAX_STRINGS = 0x7FFFFFF0
comptime NO_NUMBER = -1
comptime DAMAGED = -2
"""A file's offsets do not ascend inside its text."""
comptime NO_ROOM = -3
"""There is no memory for the table."""


struct StringTable(Movable):
    """All strings in one text, where each begins, and a hash table of numbers that finds them.

    The table is made when somebody first looks for a string: an index that was just opened has read nothing of it.
    Not safe for use by several threads at once: the caller sees to it.
    """

    var used: Bool
    """Whether rows are named by strings; everything else means nothing otherwise."""
    var text: Column
    """UTF-8 of all strings, one behind the other."""
    var offsets: Column
    """Int64: where each string begins, and where the last one ends."""
    var count: Int
    """Strings: numbers 0 .. count-1."""
    var bytes: Int
    """Bytes of text that may be read."""
    var table: Ptr[UInt32]
    """Numbers, or FREE."""
    var room: Int
    """Places in the table, a power of two, at least twice the strings held; 0 while there is no table."""
    var held: Int
    """Strings in the table: numbers 0 .. held-1."""

    def __init__(out self):
        """Makes the strings of an index that has none."""
        self.used = False
        self.text = Column()
        self.offsets = Column()
        self.count = 0
        self.bytes = 0
        self.table = no_block[UInt32]()
        self.room = 0
        self.held = 0

    def __deinit__(deinit self):
        release(self.table)

    def memory(self) -> Int:
        """Returns the bytes of memory that text, offsets and table take."""
        return self.text.memory() + self.offsets.memory() + self.room * 4

    @always_inline
    def begin(self, number: Int) -> Int:
        """Returns where a string begins; that of number `count` is where the last one ends."""
        if self.offsets.address == 0:
            return 0
        return Int(self.offsets.ptr[Int64]()[unsafe_offset=number])

    def valid(self, number: Int) -> Bool:
        """Tells whether a number has a string that lies inside the text, whatever a damaged file says.
        """
        if number < 0 or number >= self.count:
            return False
        var begin = self.begin(number)
        var end = self.begin(number + 1)
        return 0 <= begin and begin <= end and end <= self.bytes

    def find(mut self, address: Int, length: Int) -> Int:
        """Returns the number of a string, NO_NUMBER for one that is not there, DAMAGED or NO_ROOM.
        """
        if self.held < self.count:
            var status = self._hold()
            if status != 0:
                return status
        if self.room == 0:
            return NO_NUMBER
        var place = hash(address, length) & (self.room - 1)
        while True:
            var number = self.table[unsafe_offset=place]
            if number == FREE:
                return NO_NUMBER
            if self._equal(Int(number), address, length):
                return Int(number)
            place = (place + 1) & (self.room - 1)

    def add(mut self, address: Int, length: Int) -> Int:
        """Returns the number of a string, a new one if it is not there; NO_ROOM when memory or numbers are out, or DAMAGED.
        """
        var number = self.find(address, length)
        if number != NO_NUMBER:
            return number
        number = self.count
        var end = self.begin(number)
        if (
            number >= MAX_STRINGS
            or not self.text.grow(max(end + length, 1))
            or not self.offsets.grow((number + 2) * 8)
        ):
            return NO_ROOM
        copy_items(dest=at[UInt8](self.text.address + end), src=at[UInt8](address), count=length)
        self.offsets.ptr[Int64]()[unsafe_offset=number + 1] = Int64(end + length)
        self.bytes = end + length
        self.count = number + 1
        if self._hold() == NO_ROOM:
            self.shrink(number)
            return NO_ROOM
        return number

    def shrink(mut self, until: Int):
        """Forgets strings until .. count-1, the last one first, which leaves the table as it was before them.
        """
        while self.count > until:
            self.count -= 1
            if self.held > self.count:
                var begin = self.begin(self.count)
                var place = hash(self.text.address + begin, self.begin(self.count + 1) - begin) & (
                    self.room - 1
                )
                while self.table[unsafe_offset=place] != UInt32(self.count):
                    place = (place + 1) & (self.room - 1)
                self.table[unsafe_offset=place] = FREE
                self.held = self.count
            self.bytes = self.begin(self.count)

    def _equal(self, number: Int, address: Int, length: Int) -> Bool:
        var begin = self.begin(number)
        if self.begin(number + 1) - begin != length:
            return False
        if length == 0:
            return True
        return external_call["memcmp", c_int](self.text.address + begin, address, length) == 0

    def _hold(mut self) -> Int:
        """Takes all strings into the table; returns 0, or DAMAGED or NO_ROOM, and takes none then.
        """
        for number in range(self.held, self.count):
            if not self.valid(number):
                return DAMAGED
        if 2 * self.count > self.room:
            var room = 64
            while room < 2 * self.count:
                room *= 2
            var table = allocate[UInt32](room)
            if missing(table):
                return NO_ROOM
            release(self.table)
            self.table = table
            self.room = room
            self.held = 0
            for i in range(room):
                self.table[unsafe_offset=i] = FREE
        for number in range(self.held, self.count):
            hold(self.table, self.room, self, number)
        self.held = self.count
        return 0


@always_inline
def hold(table: Ptr[UInt32], room: Int, strings: StringTable, number: Int):
    """Puts a string that is valid and not there into a table with a free place."""
    var begin = strings.begin(number)
    var place = hash(strings.text.address + begin, strings.begin(number + 1) - begin) & (room - 1)
    while table[unsafe_offset=place] != FREE:
        place = (place + 1) & (room - 1)
    table[unsafe_offset=place] = UInt32(number)


@always_inline
def hash(address: Int, length: Int) -> Int:
    """Returns a hash of bytes."""
    return Int(mix(length, Int(crc32c(address, length))))
