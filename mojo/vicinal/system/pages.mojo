"""What the system is told about memory that is mapped from a file: what is read where, what is wanted soon, what must stay."""
from std.atomic import Atomic, Ordering
from std.ffi import c_int, external_call

from vicinal.system.memory import HUGE_PAGE, MADV_HUGEPAGE, allocate, at, missing, release
from vicinal.system.pointer import zero_items

comptime AS_USUAL: c_int = 0
"""Advice that takes back what was said before about how pages are read."""
comptime RANDOM: c_int = 1
"""Advice for pages that are read here and there: nothing else is read along with them."""
comptime WANTED: c_int = 3
"""Advice to begin reading pages; does not wait for them."""
comptime UNWANTED: c_int = 4
"""Advice to take pages of a shared map from this process; the file and its cache keep them."""
comptime POPULATE_READ: c_int = 22
"""Advice to read pages and map them, and to wait for it; Linux 5.14."""
comptime SC_PAGESIZE: c_int = 30
comptime LOOKED_AT = 1 << 16
"""Pages that the system is asked about at once."""
comptime READ_AHEAD = 128 << 10
"""Bytes that a system reads ahead at least, as devices are set up; advice for more may be cut to that."""
comptime AROUND = (2 << 20) + (64 << 10)
"""Where one page is read, the system maps what of the block of 64 KiB around it is in its cache, since Linux 6.18 with all of the large
folios, of up to 2 MiB each, that these pages are parts of."""
comptime AHEAD = 2 << 20
"""Bytes between what workers read and what they ask for: some milliseconds of a disk, and little where memory is limited."""
comptime MOST_WANTED = 1 << 20
"""Bytes of one piece of advice to read; the system takes longer to begin with more."""


def page_bytes() -> Int:
    """Returns the bytes of a page."""
    return external_call["sysconf", Int](SC_PAGESIZE)


def advise(address: Int, bytes: Int, advice: c_int) -> Bool:
    """Gives advice about all pages that hold some bytes; returns whether the system has taken it.

    Safety:
        The pages must be those of a map: `UNWANTED` would empty others.
    """
    if bytes <= 0:
        return True
    var page = page_bytes()
    var start = address // page * page
    return external_call["madvise", c_int](start, address + bytes - start, advice) == 0


def want(address: Int, bytes: Int):
    """Begins to read the pages of some bytes; a long piece in short ones, of longer ones the system may read the beginning only.
    """
    for first in range(0, bytes, READ_AHEAD):
        _ = advise(address + first, min(READ_AHEAD, bytes - first), WANTED)


def lock(address: Int, bytes: Int) -> Bool:
    """Keeps the pages of some bytes in memory until they are unmapped; returns False if the system refuses it.
    """
    if bytes <= 0:
        return True
    var page = page_bytes()
    var start = address // page * page
    return external_call["mlock", c_int](start, address + bytes - start) == 0


def unlock(address: Int, bytes: Int):
    """Takes `lock` back."""
    if bytes > 0:
        var page = page_bytes()
        var start = address // page * page
        _ = external_call["munlock", c_int](start, address + bytes - start)


def read_in(address: Int, bytes: Int):
    """Reads the pages of some bytes and waits until they are there.

    Safety:
        The bytes must be readable.
    """
    # asked for first: the system would read much else along with a page that it meets by chance
    want(address, bytes)
    if advise(address, bytes, POPULATE_READ):
        return
    for place in range(address, address + bytes, page_bytes()):
        _ = Atomic[UInt8].load[ordering=Ordering.RELAXED](at[UInt8](place).start)


def bytes_in_memory(address: Int, bytes: Int) -> Int:
    """Returns how many of some mapped bytes are in memory, by whole pages; -1 when memory for the answer is out.
    """
    var page = page_bytes()
    var start = address // page * page
    var pages = (address + bytes - start + page - 1) // page
    var there = allocate[UInt8](LOOKED_AT)
    if missing(there):
        return -1
    var sum = 0
    for first in range(0, pages, LOOKED_AT):
        var here = min(LOOKED_AT, pages - first)
        zero_items(there, here)
        _ = external_call["mincore", c_int](start + first * page, here * page, Int(there))
        for i in range(here):
            sum += Int(there[unsafe_offset=i] & 1)
    release(there)
    return min(sum * page, bytes)


def ask_ahead(base: Int, bytes: Int, begin: Int, end: Int):
    """Asks for bytes some way ahead of begin .. end-1, which are about to be read, of `bytes` that workers read piece by piece.

    Called for every piece it asks for each byte once.
    """
    if begin < AHEAD:
        want(base + begin, min(end, bytes) - begin)
    want(base + begin + AHEAD, min(end, bytes - AHEAD) - begin)


@fieldwise_init
struct PageUse(TrivialRegisterPassable):
    """What whoever reads a mapped array, item by item, does about its pages.

    Pages of a map count as memory of the process while they are there. So where a bound on memory is to be kept, whoever has read some
    takes them out of the process again; the system's cache may keep them.
    """

    var on_disk: Bool
    """Whether items may have to be read from disk: then they are asked for first."""
    var first: Int
    """Address from which on pages are given back."""
    var end: Int
    """Address of the first byte behind them; `first` if none are. What is between is a map of a file that nobody writes to."""

    @staticmethod
    def in_memory() -> Self:
        """Returns that there is nothing to be done."""
        return Self(False, 0, 0)

    @always_inline
    def ask_for(self, base: Int, item: Int, count: Int, begin: Int, end: Int):
        """Asks for items some way behind begin .. end-1, which are about to be read.

        Args:
            base: Where item 0 is.
            item: Bytes of an item.
            count: All items.
            begin: The first that is read.
            end: One past the last.
        """
        if self.on_disk:
            ask_ahead(base, count * item, begin * item, end * item)

    @always_inline
    def have_read(self, base: Int, item: Int, begin: Int, end: Int):
        """Gives back the pages of items begin .. end-1, and what came along with them."""
        if self.first != self.end and begin < end:
            self._give_back(base + begin * item, base + end * item)

    @no_inline
    def _give_back(self, begin: Int, end: Int):
        var first = max(begin - AROUND, self.first)
        _ = advise(first, min(end + AROUND, self.end) - first, UNWANTED)

    def give_back_all(self):
        """Gives back all pages."""
        _ = advise(self.first, self.end - self.first, UNWANTED)


@fieldwise_init
struct ReadAhead(TrivialRegisterPassable):
    """Asks for bytes that are read in order some way ahead of who reads them.

    Where nothing is on disk it does nothing.
    """

    var base: Int
    """Where the bytes begin."""
    var bytes: Int
    """All of them."""
    var asked: Int
    """So many from the beginning have been asked for; all of them where none is on disk."""

    @staticmethod
    def of(base: Int, bytes: Int, on_disk: Bool) -> Self:
        """Returns one for bytes that are read from the beginning."""
        return Self(base, bytes, 0 if on_disk else bytes)

    @always_inline
    def reach(mut self, offset: Int):
        """Says that bytes up to an offset are about to be read."""
        if offset + MOST_WANTED > self.asked and self.asked < self.bytes:
            self._ask()

    @no_inline
    def _ask(mut self):
        var more = min(MOST_WANTED, self.bytes - self.asked)
        want(self.base + self.asked, more)
        self.asked += more


def ask_for_huge_pages(address: Int, bytes: Int):
    """Asks that memory of the allocator should lie on huge pages where it fills them: fewer misses of what maps addresses, and fewer
    pages to clear. Whether the system grants it changes nothing else.
    """
    var start = (address + HUGE_PAGE - 1) // HUGE_PAGE * HUGE_PAGE
    var end = (address + bytes) // HUGE_PAGE * HUGE_PAGE
    if end > start:
        _ = external_call["madvise", c_int](start, end - start, MADV_HUGEPAGE)
