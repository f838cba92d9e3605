"""From a user's id to a row: nothing at all while ids are 0, 1, 2, ..., a hash table of row numbers otherwise."""
from vicinal.system.hash import mix
from vicinal.system.memory import Ptr, allocate, missing, no_block, release

comptime NOBODY: UInt32 = 0xFFFFFFFF


struct IdMap(Movable):
    """Open addressing with linear probing; the table holds rows, the ids themselves stay in their column.

    Not safe for use by several threads at once: the caller sees to it.
    """

    var table: Ptr[UInt32]
    """Rows, or NOBODY."""
    var room: Int
    """Places in the table, a power of two, at least twice the rows held; 0 while there is no table."""
    var held: Int
    """Rows held."""

    def __init__(out self):
        """Makes a map without a table."""
        self.table = no_block[UInt32]()
        self.room = 0
        self.held = 0

    def __deinit__(deinit self):
        release(self.table)

    def find(self, ids: Ptr[Int64], id: Int64) -> Int:
        """Returns the row of an id among the rows held, or -1."""
        if self.room == 0:
            return -1
        var row = self.table[unsafe_offset=self._place_of(ids, id)]
        return -1 if row == NOBODY else Int(row)

    def insert(mut self, ids: Ptr[Int64], row: Int) -> Bool:
        """Takes in a row; returns False, and changes nothing, if its id is there already.

        Preconditions:
            There is room, see `make_room`.
        """
        var place = self._place_of(ids, ids[unsafe_offset=row])
        if self.table[unsafe_offset=place] != NOBODY:
            return False
        self.table[unsafe_offset=place] = UInt32(row)
        self.held += 1
        return True

    def replace(mut self, ids: Ptr[Int64], row: Int):
        """Makes a row the one that its id, which must be there, leads to."""
        self.table[unsafe_offset=self._place_of(ids, ids[unsafe_offset=row])] = UInt32(row)

    def erase(mut self, ids: Ptr[Int64], row: Int):
        """Forgets a row that is held.

        Rows behind the gap move up if their search passes through it, so that no mark has to stay behind and the table never
        fills with them. Source: Knuth, The Art of Computer Programming, volume 3, section 6.4, algorithm R.
        """
        var gap = self._place_of(ids, ids[unsafe_offset=row])
        var mask = self.room - 1
        var place = gap
        while True:
            place = (place + 1) & mask
            var other = self.table[unsafe_offset=place]
            if other == NOBODY:
                break
            var home = Int(mix(0, Int(ids[unsafe_offset=Int(other)]))) & mask
            # its search passes through the gap, unless it begins behind it
            if (place - home) & mask >= (place - gap) & mask:
                self.table[unsafe_offset=gap] = other
                gap = place
        self.table[unsafe_offset=gap] = NOBODY
        self.held -= 1

    def make_room(mut self, ids: Ptr[Int64], rows: Int) -> Bool:
        """Makes the table large enough for so many rows; returns False, and changes nothing, when memory is out.
        """
        if 2 * rows <= self.room:
            return True
        var room = 64
        while room < 2 * rows:
            room *= 2
        var old = self.table
        var places = self.room
        var table = allocate[UInt32](room)
        if missing(table):
            return False
        self.table = table
        self.room = room
        for i in range(room):
            self.table[unsafe_offset=i] = NOBODY
        for i in range(places):
            var row = old[unsafe_offset=i]
            if row != NOBODY:
                self.table[unsafe_offset=self._place_of(ids, ids[unsafe_offset=Int(row)])] = row
        release(old)
        return True

    def clear(mut self):
        """Forgets all rows and gives the table back."""
        release(self.table)
        self.table = no_block[UInt32]()
        self.room = 0
        self.held = 0

    @always_inline
    def _place_of(self, ids: Ptr[Int64], id: Int64) -> Int:
        """Returns the place of an id, or the empty one where it would be put."""
        var place = Int(mix(0, Int(id))) & (self.room - 1)
        while True:
            var row = self.table[unsafe_offset=place]
            if row == NOBODY or ids[unsafe_offset=Int(row)] == id:
                return place
            place = (place + 1) & (self.room - 1)
