"""The links that parts have made of their rows, gathered for a range of rows at a time.

A part's rows are in order, so what it has linked of a range lies together: where it is in a file, one piece is read. Memory for all of it
is never wanted, and a file that shrinks meanwhile is an error, not a fault of a map.
"""
from std.sys import size_of

from vicinal.file.posix import EIO, ENOMEM, InputFile, Status
from vicinal.system.memory import Ptr, allocate, missing, no_block, release

comptime RANGE = 1 << 14
"""Rows of which lists are gathered at once."""


@fieldwise_init
struct PartLinks(TrivialRegisterPassable):
    """What one part has linked."""

    var rows: Ptr[UInt32]
    """Its rows, ascending."""
    var count: Int
    """Rows of the part."""
    var links: Ptr[UInt32]
    """The block of each on level 0; links are rows, those that do not exist are passed over. Not used if they are in a file."""
    var path: Int
    """Address of the name of the file that holds the blocks, NUL-terminated; 0 if they are in memory."""
    var offset: Int
    """Where the blocks begin in the file."""


struct PartLists(Movable):
    """The blocks of some rows in all parts."""

    var parts: Ptr[PartLinks]
    var count: Int
    """Parts."""
    var rows: Int
    """Rows of the index."""
    var width: Int
    """Slots of a block."""
    var first: Int
    """The first row whose blocks are here."""
    var next: Ptr[Int]
    """For each part the first of its rows that was not gathered yet."""
    var starts: Ptr[UInt32]
    """For each row of the range its first entry in `blocks`, and one past the last."""
    var blocks: Ptr[Int]
    """Addresses of blocks, those of a row in the order of parts."""
    var copies: Ptr[UInt32]
    """Blocks that were read from files."""
    var failed: Bool
    """Whether memory was refused."""
    var broken: Bool
    """Whether a part names a row that does not exist, or one twice."""
    var unread: Int
    """A part that could not be read, -1 if there is none."""

    def __init__(out self, parts: Ptr[PartLinks], count: Int, rows: Int, width: Int):
        """Looks through the parts.

        Args:
            parts: The parts.
            count: Their number.
            rows: Rows of the index.
            width: Slots of a block.
        """
        self.parts = parts
        self.count = count
        self.rows = rows
        self.width = width
        self.first = 0
        self.next = allocate[Int](max(count, 1))
        self.starts = allocate[UInt32](RANGE + 1)
        self.blocks = no_block[Int]()
        self.copies = no_block[UInt32]()
        self.failed = missing(self.next) or missing(self.starts)
        self.broken = False
        self.unread = -1
        for p in range(0 if self.failed else count):
            self.next[unsafe_offset=p] = 0
            var last = -1
            for i in range(parts[unsafe_offset=p].count):
                var row = Int(parts[unsafe_offset=p].rows[unsafe_offset=i])
                self.broken = self.broken or row <= last or row >= rows
                last = row

    def __deinit__(deinit self):
        release(self.next)
        release(self.starts)
        release(self.blocks)
        release(self.copies)

    def gather(mut self, first: Int) -> Bool:
        """Gathers the blocks of rows `first` .. first + RANGE - 1; ranges must come in order.

        Returns:
            False if memory was refused or a part could not be read.
        """
        self.first = first
        var here = min(RANGE, self.rows - first)
        for row in range(here + 1):
            self.starts[unsafe_offset=row] = 0
        var copied = 0
        for p in range(self.count):
            var begin = self.next[unsafe_offset=p]
            var end = self._end_of(p, first + here)
            for i in range(begin, end):
                self.starts[unsafe_offset=self._row(p, i) + 1] += 1
            copied += end - begin if self.parts[unsafe_offset=p].path != 0 else 0
        for row in range(here):
            self.starts[unsafe_offset=row + 1] += self.starts[unsafe_offset=row]
        release(self.blocks)
        release(self.copies)
        self.blocks = allocate[Int](max(Int(self.starts[unsafe_offset=here]), 1))
        self.copies = allocate[UInt32](max(copied * self.width, 1))
        if missing(self.blocks) or missing(self.copies):
            self.failed = True
            return False
        copied = 0
        for p in range(self.count):
            var begin = self.next[unsafe_offset=p]
            var end = self._end_of(p, first + here)
            var blocks = self.parts[unsafe_offset=p].links.unsafe_offset(begin * self.width)
            if self.parts[unsafe_offset=p].path != 0 and begin < end:
                blocks = self.copies.unsafe_offset(copied * self.width)
                if not self._read(p, begin, end, blocks):
                    return False
                copied += end - begin
            for i in range(begin, end):
                var row = self._row(p, i)
                var place = Int(self.starts[unsafe_offset=row])
                self.blocks[unsafe_offset=place] = Int(
                    blocks.unsafe_offset((i - begin) * self.width)
                )
                self.starts[unsafe_offset=row] += 1
            self.next[unsafe_offset=p] = end
        for row in range(here, 0, -1):  # each start has become the end
            self.starts[unsafe_offset=row] = self.starts[unsafe_offset=row - 1]
        self.starts[] = 0
        return True

    def _row(self, p: Int, i: Int) -> Int:
        """Returns which of the range row i of a part is."""
        return Int(self.parts[unsafe_offset=p].rows[unsafe_offset=i]) - self.first

    def _end_of(self, p: Int, until: Int) -> Int:
        """Returns where the rows of a part end that come before a row."""
        ref part = self.parts[unsafe_offset=p]
        var i = self.next[unsafe_offset=p]
        while i < part.count and Int(part.rows[unsafe_offset=i]) < until:
            i += 1
        return i

    def _read(mut self, p: Int, begin: Int, end: Int, into: Ptr[UInt32]) -> Bool:
        """Reads the blocks of rows begin .. end-1 of a part."""
        var block = self.width * size_of[UInt32]()
        var offset = self.parts[unsafe_offset=p].offset + begin * block
        var bytes = (end - begin) * block
        var file = InputFile(self.parts[unsafe_offset=p].path)
        var status = file.status
        if status.ok():
            status = Status.system(EIO)
            if offset + bytes <= file.bytes:
                status = file.read_at(Int(into), bytes, offset)
        _ = file^
        if not status.ok():
            self.unread = p
            self.failed = status.a == ENOMEM
        return status.ok()
