"""Reads of a file that are asked for many at a time and awaited together: io_uring, by the system's own calls.

A ring is two queues in memory that the system shares: entries that say what to read, and results. One call hands over all that
was put into the first; results appear in the second, and nothing has to be called to find those that are there.

Source: J. Axboe, Efficient IO with io_uring (2019); layout and numbers are those of the system's header `linux/io_uring.h`.
"""
from std.atomic import Atomic, Ordering
from std.ffi import c_int, external_call

from vicinal.system.memory import (
    MAP_FAILED,
    PROT_READ_WRITE,
    Ptr,
    allocate_zeroed,
    at,
    missing,
    release,
)
from vicinal.system.pointer import RawPtr

comptime SETUP = 425
comptime ENTER = 426
comptime ENTRIES = 128
"""Reads that can be handed over at once."""
comptime RESULTS = 1024
"""Results that wait to be looked at; the system keeps more of them, and hands them on later."""
comptime PARAMETERS = 120
"""Bytes of what `SETUP` is told and tells."""
comptime SIZED_RESULTS: UInt32 = 1 << 3
"""Flag of `SETUP`: how many results there is room for is said."""
comptime NEEDED: UInt32 = 1 | 2
"""Features: both queues in one map, and no result is ever lost. Linux 5.5."""
comptime GET_RESULTS = 1
"""Flag of `ENTER`: waits for results."""
comptime AT_QUEUES = 0
comptime AT_ENTRIES = 0x10000000
comptime ENTRY = 64
"""Bytes of what says what to read."""
comptime RESULT = 16
comptime READ: UInt8 = 22
"""Operation that reads into memory. Linux 5.6."""
comptime SHARED: c_int = 1 | 0x8000
"""A map that is shared with the system, and filled at once."""
comptime NOT_IN_CHILDREN: c_int = 10
"""Advice that a child process shall not have some memory."""
comptime EINTR = 4


@fieldwise_init
struct Asked(TrivialRegisterPassable):
    """A read that was asked for."""

    var waiting: Ptr[Int]
    """Counts the reads that its owner waits for; one less when this one is done."""
    var wanted: Int
    """Bytes that it has to bring."""
    var whole: Bool
    """Whether it has brought them."""


struct Ring(Movable):
    """Two queues shared with the system; belongs to one thread at a time, and to the process that made it.
    """

    var file: c_int
    """What names it to the system, -1 where there is none."""
    var process: c_int
    """Who has opened it."""
    var queues: Int
    """Where the queues are."""
    var queue_bytes: Int
    var entries: Int
    """Where it is said what to read."""
    var entry_bytes: Int
    var tail: UInt32
    """Entries that were ever put in."""
    var handed: UInt32
    """Entries that were ever handed over."""
    var last_entry: UInt32
    """One less than the room for entries, which is a power of two."""
    var last_result: UInt32
    var at_tail: Int
    """Addresses of numbers in the queues."""
    var at_result_head: Int
    var at_result_tail: Int
    var results: Int

    def __init__(out self):
        """Makes one that is not open."""
        self.file = -1
        self.process = -1
        self.queues = 0
        self.queue_bytes = 0
        self.entries = 0
        self.entry_bytes = 0
        self.tail = 0
        self.handed = 0
        self.last_entry = 0
        self.last_result = 0
        self.at_tail = 0
        self.at_result_head = 0
        self.at_result_tail = 0
        self.results = 0

    def open(mut self) -> Bool:
        """Opens it; returns False if the system refuses it."""
        self.process = external_call["getpid", c_int]()
        var told = allocate_zeroed[UInt32](PARAMETERS // 4)
        if missing(told):
            return False
        told[unsafe_offset=1] = RESULTS
        told[unsafe_offset=2] = SIZED_RESULTS
        var file = c_int(
            external_call["syscall", Int, num_fixed_args=1](SETUP, ENTRIES, Int(told), 0)
        )
        if file >= 0 and told[unsafe_offset=5] & NEEDED == NEEDED and self._map(file, told):
            self.file = file
        elif file >= 0:
            _unmap_queue(self.queues, self.queue_bytes)
            _unmap_queue(self.entries, self.entry_bytes)
            _ = external_call["close", c_int](file)
        release(told)
        return self.file >= 0

    def __deinit__(deinit self):
        if self.file >= 0:
            if self.is_own():
                _unmap_queue(self.queues, self.queue_bytes)
                _unmap_queue(self.entries, self.entry_bytes)
            _ = external_call["close", c_int](self.file)

    @always_inline
    def is_own(self) -> Bool:
        """Tells whether this process has opened it, and not one that this is a child of: then its queues are not even mapped here.
        """
        return self.process == external_call["getpid", c_int]()

    def _map(mut self, file: c_int, told: Ptr[UInt32]) -> Bool:
        """Maps the queues and notes where everything is; returns False if the system refuses it."""
        # offsets of head, tail, mask, size, flags, dropped and the list of entries; then of results: head, tail, mask, size,
        # overflow and the results themselves
        var entries = told.unsafe_offset(10)
        var results = told.unsafe_offset(20)
        var size = told[unsafe_offset=0]
        self.queue_bytes = Int(
            max(
                entries[unsafe_offset=6] + 4 * size,
                results[unsafe_offset=5] + RESULT * told[unsafe_offset=1],
            )
        )
        self.entry_bytes = ENTRY * Int(size)
        self.queues = _map_queue(file, self.queue_bytes, AT_QUEUES)
        self.entries = _map_queue(file, self.entry_bytes, AT_ENTRIES)
        if self.queues == 0 or self.entries == 0:
            return False
        self.last_entry = at[UInt32](self.queues + Int(entries[unsafe_offset=2]))[]
        self.last_result = at[UInt32](self.queues + Int(results[unsafe_offset=2]))[]
        self.at_tail = self.queues + Int(entries[unsafe_offset=1])
        self.at_result_head = self.queues + Int(results[unsafe_offset=0])
        self.at_result_tail = self.queues + Int(results[unsafe_offset=1])
        self.results = self.queues + Int(results[unsafe_offset=5])
        var list = at[UInt32](self.queues + Int(entries[unsafe_offset=6]))
        for i in range(Int(size)):  # entries are handed over in the order in which they lie
            list[unsafe_offset=i] = UInt32(i)
        return True

    def read(mut self, file: c_int, offset: Int, bytes: Int, into: Int, asked: Ptr[Asked]) -> Bool:
        """Puts in a read; `hand_over` begins it. Returns False where there is no room before that.

        Safety:
            `into` and `asked` must stay where they are until the read is done.
        """
        if self.tail - self.handed > self.last_entry:
            return False
        var entry = self.entries + ENTRY * Int(self.tail & self.last_entry)
        var words = at[Int64](entry)
        for i in range(ENTRY // 8):
            words[unsafe_offset=i] = 0
        at[UInt8](entry)[] = READ
        at[Int32](entry + 4)[] = Int32(file)
        at[Int64](entry + 8)[] = Int64(offset)
        at[Int64](entry + 16)[] = Int64(into)
        at[UInt32](entry + 24)[] = UInt32(bytes)
        at[Int64](entry + 32)[] = Int64(Int(asked))
        asked[].waiting[] += 1
        self.tail += 1
        return True

    def hand_over(mut self):
        """Begins the reads that were put in. Those that the system refuses are done at once, and bring nothing.
        """
        while self.tail != self.handed:
            Atomic[UInt32].store[ordering=Ordering.RELEASE](
                at[UInt32](self.at_tail).start, self.tail
            )
            var taken = external_call["syscall", Int, num_fixed_args=1](
                ENTER, Int(self.file), Int(self.tail - self.handed), 0, 0, 0, 0
            )
            if taken > 0:
                self.handed += UInt32(taken)
            elif taken == 0 or _errno() != EINTR:
                for i in range(Int(self.tail - self.handed)):
                    var entry = (self.handed + UInt32(i)) & self.last_entry
                    var asked = at[Int64](self.entries + ENTRY * Int(entry) + 32)[]
                    at[Asked](Int(asked))[].waiting[] -= 1
                self.tail = self.handed
                Atomic[UInt32].store[ordering=Ordering.RELEASE](
                    at[UInt32](self.at_tail).start, self.tail
                )

    @always_inline
    def collect(mut self):
        """Looks at the results that are there."""
        var head = at[UInt32](self.at_result_head)[]
        var tail = Atomic[UInt32].load[ordering=Ordering.ACQUIRE](
            at[UInt32](self.at_result_tail).start
        )
        if head == tail:
            return
        while head != tail:
            var result = self.results + RESULT * Int(head & self.last_result)
            ref asked = at[Asked](Int(at[Int64](result)[]))[]
            asked.whole = Int(at[Int32](result + 8)[]) >= asked.wanted
            asked.waiting[] -= 1
            head += 1
        Atomic[UInt32].store[ordering=Ordering.RELEASE](at[UInt32](self.at_result_head).start, head)

    def wait(mut self, waiting: Ptr[Int]):
        """Waits until nothing is left of what somebody waits for."""
        self.collect()
        while waiting[] > 0:
            var rc = external_call["syscall", Int, num_fixed_args=1](
                ENTER, Int(self.file), 0, waiting[], GET_RESULTS, 0, 0
            )
            if rc < 0 and _errno() != EINTR:
                _ = external_call["sched_yield", c_int]()  # they come without being asked for, too
            self.collect()


def _map_queue(file: c_int, bytes: Int, offset: Int) -> Int:
    """Maps a queue; returns 0 if the system refuses it."""
    var address = external_call["mmap", Int](
        Int(0), bytes, PROT_READ_WRITE, SHARED, file, Int(offset)
    )
    if address == MAP_FAILED:
        return 0
    _ = external_call["madvise", c_int](address, bytes, NOT_IN_CHILDREN)
    return address


def _unmap_queue(address: Int, bytes: Int):
    if address != 0:
        _ = external_call["munmap", c_int](address, bytes)


def _errno() -> Int:
    return Int(external_call["__errno_location", RawPtr[c_int]]()[])


def rings_work() -> Bool:
    """Tells whether the system lets this process have a ring."""
    var ring = Ring()
    return ring.open()
