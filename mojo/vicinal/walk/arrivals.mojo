"""Rows that a search has asked a ring for, and memory of its own that they arrive in, past the system's cache of the file."""
from std.ffi import c_int, external_call
from std.sys import size_of

from vicinal.system.memory import (
    MAP_FAILED,
    MAP_PRIVATE_ANONYMOUS_NORESERVE,
    PROT_READ_WRITE,
    Ptr,
    allocate,
    allocate_zeroed,
    missing,
    release,
)
from vicinal.system.uring import NOT_IN_CHILDREN, Asked, Ring

comptime FAULT = 0
"""Nothing is asked for: the system reads a page when it is touched."""
comptime ADVISE = 1
"""The system is told which pages are wanted soon."""
comptime RING = 2
"""Rows are read into memory of the search, by a ring."""
comptime MOST_ASKED = 128
"""Requests that may be under way for one search."""
comptime PLACES = 512
"""Candidates that may be asked for, the first of the beam; of others the system is told."""
comptime ROOM = 1 << 20
"""Bytes that may be on their way to one search; what is never used takes no memory."""


@fieldwise_init
struct RowFile(TrivialRegisterPassable):
    """How rows that are in a file are read."""

    var how: Int
    """FAULT, ADVISE or RING."""
    var file: c_int
    """The file, open for reads past the cache; -1 if it is not."""
    var base: Int
    """Address of the map of row 0 of the file."""
    var offset: Int
    """Where row 0 is in the file."""
    var grain: Int
    """What places in the file and numbers of bytes must be multiples of for reads past the cache."""

    @staticmethod
    def none() -> Self:
        """Returns that of an index that has none."""
        return Self(ADVISE, -1, 0, 0, 0)


struct Arrivals(Movable):
    """What one search has asked for. Its address must not change."""

    var ring: Ring
    """Open if this is the first of interleaved searches, which use it together."""
    var process: c_int
    """Who made it; a child has no use for it."""
    var asked: Ptr[Asked]
    """Requests made for the search under way."""
    var requests: Int
    """Their number."""
    var waiting: Ptr[Int]
    """Those of them that are not done. The ring counts there."""
    var brought_by: Ptr[UInt8]
    """Of each candidate the request that brings its row."""
    var places: Ptr[Int]
    """Of each candidate where its row arrives; 0 if it was not asked for here."""
    var until: Int
    """Candidates before it have been asked for, here or otherwise."""
    var room: Int
    """Memory that rows arrive in; 0 if there is none."""
    var used: Int
    """Bytes of it."""
    var touched: Int
    """Most bytes of it that were ever used: they take memory."""

    def __init__(out self):
        """Makes one, or one that has `failed`."""
        self.ring = Ring()
        self.process = external_call["getpid", c_int]()
        self.asked = allocate[Asked](MOST_ASKED)
        self.requests = 0
        self.waiting = allocate_zeroed[Int](1)
        self.until = 0
        self.brought_by = allocate[UInt8](PLACES)
        self.places = allocate[Int](PLACES)
        self.room = external_call["mmap", Int](
            Int(0), ROOM, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS_NORESERVE, c_int(-1), Int(0)
        )
        self.used = 0
        self.touched = 0
        if self.room == MAP_FAILED:
            self.room = 0
        else:  # a child has no use for it, and to copy what is being read into is not for the system to do
            _ = external_call["madvise", c_int](self.room, ROOM, NOT_IN_CHILDREN)

    @staticmethod
    def on_heap() -> Ptr[Arrivals]:
        """Makes one at an address of its own, or returns what `missing` knows."""
        var made = allocate[Arrivals](1)
        if not missing(made):
            made.unsafe_write(Arrivals())
        return made

    def __deinit__(deinit self):
        release(self.asked)
        release(self.brought_by)
        release(self.places)
        release(self.waiting)
        if self.room != 0 and self.process == external_call["getpid", c_int]():
            _ = external_call["munmap", c_int](self.room, ROOM)

    def failed(self) -> Bool:
        """Tells whether the system has refused a part: then rows are read by other means."""
        return (
            self.room == 0
            or missing(self.waiting)
            or missing(self.asked)
            or missing(self.places)
            or missing(self.brought_by)
        )

    @always_inline
    def begin(mut self):
        """Forgets what the search before has asked for."""
        self.requests = 0
        self.used = 0
        self.until = 0

    def ask(mut self, mut ring: Ring, file: c_int, offset: Int, bytes: Int, wanted: Int) -> Bool:
        """Puts in a request for bytes of the file, of which those behind the file's end do not come.

        Args:
            ring: The ring that is used.
            file: The file.
            offset: Where to read, a multiple of the grain.
            bytes: How much, the same.
            wanted: How many of them must come.

        Returns:
            False if there is no room for it.
        """
        if self.requests == MOST_ASKED or self.used + bytes > ROOM:
            return False
        var asked = self.asked.unsafe_offset(self.requests)
        asked[] = Asked(self.waiting, wanted, False)
        if not ring.read(file, offset, bytes, self.room + self.used, asked):
            ring.hand_over()
            if not ring.read(file, offset, bytes, self.room + self.used, asked):
                return False
        self.requests += 1
        self.used += bytes
        self.touched = max(self.touched, self.used)
        return True

    def bytes(self) -> Int:
        """Returns the bytes of memory that it takes."""
        var ring = self.ring.queue_bytes + self.ring.entry_bytes
        return (
            size_of[Arrivals]() + MOST_ASKED * size_of[Asked]() + 9 * PLACES + self.touched + ring
        )

    @always_inline
    def row(mut self, mut ring: Ring, candidate: Int) -> Int:
        """Waits for a candidate's row and returns where it is; 0 if it has not come this way."""
        if candidate >= self.until or self.places[unsafe_offset=candidate] == 0:
            return 0
        ref asked = self.asked[unsafe_offset=Int(self.brought_by[unsafe_offset=candidate])]
        if self.waiting[] != 0 and not asked.whole:
            ring.wait(self.waiting)
        return self.places[unsafe_offset=candidate] if asked.whole else 0
