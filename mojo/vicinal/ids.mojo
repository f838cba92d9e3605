"""From a user's id to a row: nothing at all while ids are 0, 1, 2, ..., a hash table of row numbers otherwise."""
from vicinal.graph import mix
from vicinal.memory import Ptr, allocate, release

comptime FREE: UInt32 = 0xFFFFFFFF


struct IdMap(Movable):
    """Open addressing with linear probing; the table holds rows, the ids themselves stay in their column.

    Not safe for use by several threads at once: the caller sees to it.
    """

    var table: Ptr[UInt32]
    """Rows, or FREE."""
    var room: Int
    """Places in the table, a power of two, at least twice the rows held; 0 while there is no table."""
    var held: Int
    """Rows held: 0 .. held-1."""

    def __init__(out self):
        """Makes a map without a table."""
        self.table = allocate[UInt32](1)
        self.room = 0
        self.held = 0

    def __deinit__(deinit self):
        release(self.table)

    def find(self, ids: Ptr[Int64], id: Int64) -> Int:
        """Returns the row of an id among the rows held, or -1."""
        if self.room == 0:
            return -1
        var place = Int(mix(0, Int(id))) & (self.room - 1)
        while True:
            var row = self.table[unsafe_offset=place]
            if row == FREE:
                return -1
            if ids[unsafe_offset=Int(row)] == id:
                return Int(row)
            place = (place + 1) & (self.room - 1)

    def extend(mut self, ids: Ptr[Int64], until: Int) -> Int:
        """Takes in rows held .. until-1.

        Returns:
            -1 when done, or the first row whose id is there already: then no row was taken in.
        """
        self._make_room(ids, until)
        var before = self.held
        while self.held < until:
            var id = ids[unsafe_offset=self.held]
            if self.find(ids, id) >= 0:
                var clash = self.held
                self.shrink(ids, before)
                return clash
            self._place(id, self.held)
            self.held += 1
        return -1

    def shrink(mut self, ids: Ptr[Int64], until: Int):
        """Forgets rows until .. held-1, the last one first, which leaves the table as it was before them.
        """
        while self.held > until:
            self.held -= 1
            var place = Int(mix(0, Int(ids[unsafe_offset=self.held]))) & (self.room - 1)
            while self.table[unsafe_offset=place] != UInt32(self.held):
                place = (place + 1) & (self.room - 1)
            self.table[unsafe_offset=place] = FREE

    def _place(self, id: Int64, row: Int):
        var place = Int(mix(0, Int(id))) & (self.room - 1)
        while self.table[unsafe_offset=place] != FREE:
            place = (place + 1) & (self.room - 1)
        self.table[unsafe_offset=place] = UInt32(row)

    def _make_room(mut self, ids: Ptr[Int64], rows: Int):
        if 2 * rows <= self.room:
            return
        var room = 64
        while room < 2 * rows:
            room *= 2
        release(self.table)
        self.table = allocate[UInt32](room)
        self.room = room
        for i in range(room):
            self.table[unsafe_offset=i] = FREE
        for row in range(self.held):
            self._place(ids[unsafe_offset=row], row)
