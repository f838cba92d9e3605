"""What threads share that link rows side by side: slots, tickets, and the moments at which calls are seen.

A call becomes visible in two steps. Its word in `stamps` is 0, then LINKED, then the moment from which on it is seen; that is one more
than the present one, and whoever meets LINKED, a reader too, sets it. So what a snapshot holds is decided once, and nobody waits for a
writer that stopped between the two.
"""
from std.atomic import Atomic, Ordering
from std.ffi import c_int, external_call

from vicinal.graph.links import EMPTY, Graph
from vicinal.system.memory import Ptr

comptime LINKED = Int64.MAX
"""The word of a call whose rows are linked, and for which no moment was chosen."""
comptime LINE = 8
"""Words of a cache line."""

# what is counted, a line for each worker
comptime RETRIES = 0
comptime LOST = 1
comptime DOUBLES = 2
comptime FLICKERS = 3
comptime SET = 4
comptime COUNTERS = 8

# where a thread stops
comptime NOWHERE = 0
comptime AFTER_OWN_LINKS = 1
comptime AMONG_LINKS_BACK = 2
comptime WHILE_PRUNING = 3
comptime BEFORE_COMMIT = 4
comptime HALF_VISIBLE = 5


@always_inline
def swap_slot(block: Ptr[UInt32], i: Int, before: UInt32, after: UInt32) -> Bool:
    """Changes a slot if it still holds what was read."""
    var expected = before
    return Atomic[UInt32].compare_exchange[
        success_ordering=Ordering.SEQUENTIAL, failure_ordering=Ordering.ACQUIRE, weak=False
    ](block.unsafe_offset(i).start, expected, after)


@always_inline
def swap_word(place: Ptr[Int64], before: Int64, after: Int64) -> Int64:
    """Changes a word if it holds what was read; returns what it held."""
    var expected = before
    _ = Atomic[Int64].compare_exchange[
        success_ordering=Ordering.SEQUENTIAL, failure_ordering=Ordering.SEQUENTIAL, weak=False
    ](place.start, expected, after)
    return expected


@always_inline
def word(place: Ptr[Int64]) -> Int64:
    """Reads a word."""
    return Atomic[Int64].load[ordering=Ordering.SEQUENTIAL](place.start)


@fieldwise_init
struct Shared(TrivialRegisterPassable):
    """What the threads share."""

    var places: Ptr[UInt32]
    """The rows; their blocks are empty, no link leads to them."""
    var count: Int
    var batch: Int
    """Rows of a call."""
    var words: Ptr[Int64]
    """A line each: the next row that nobody has taken, rows linked, the present moment, whether a thread has stopped."""
    var stamps: Ptr[Int64]
    """A word for each call."""
    var present: Ptr[UInt32]
    """A line for each worker: the row that it links."""
    var counters: Ptr[Int64]
    """COUNTERS for each worker."""
    var workers: Int
    var picks: Ptr[UInt32]
    """For each worker (MAX_LEVEL + 2) * PICKS."""
    var copies: Ptr[UInt32]
    """For each worker three blocks."""
    var stop_at: Int
    """Where the thread stops that links the row in the middle, until all others are done."""

    @always_inline
    def next(self) -> Ptr[Int64]:
        """Returns where the next ticket is."""
        return self.words

    @always_inline
    def done(self) -> Ptr[Int64]:
        """Returns where rows that are linked are counted."""
        return self.words.unsafe_offset(LINE)

    @always_inline
    def clock(self) -> Ptr[Int64]:
        """Returns where the present moment is."""
        return self.words.unsafe_offset(2 * LINE)

    @always_inline
    def stopped(self) -> Ptr[Int64]:
        """Returns the mark of a thread that has stopped."""
        return self.words.unsafe_offset(3 * LINE)

    @always_inline
    def add(self, worker: Int, what: Int):
        """Counts something."""
        self.counters[unsafe_offset=worker * COUNTERS + what] += 1

    def stop(self, step: Int, ticket: Int):
        """Stops the thread if it is the one that shall, until the others have linked all other calls.
        """
        if step != self.stop_at or ticket < self.count // 2 or word(self.stopped()) != 0:
            return
        if swap_word(self.stopped(), 0, 1) != 0:
            return
        while Int(word(self.done())) + self.batch < self.count:
            _ = external_call["sched_yield", c_int]()

    def commit(self, call: Int):
        """Makes a call visible."""
        var stamp = self.stamps.unsafe_offset(call)
        Atomic[Int64].store[ordering=Ordering.SEQUENTIAL](stamp.start, LINKED)
        self.stop(HALF_VISIBLE, call * self.batch)
        var moment = word(self.clock()) + 1
        var held = swap_word(stamp, LINKED, moment)
        if held != LINKED:  # a reader has chosen it
            moment = held
        while True:
            var now = word(self.clock())
            if now >= moment or swap_word(self.clock(), now, moment) == now:
                return

    def sees(self, call: Int, moment: Int64) -> Bool:
        """Tells whether a snapshot of a moment holds a call."""
        var stamp = self.stamps.unsafe_offset(call)
        var held = word(stamp)
        if held == LINKED:
            held = swap_word(stamp, LINKED, moment + 1)
            if held == LINKED:
                return False
        return held != 0 and held <= moment


def raise_entry(mut graph: Graph, ordinal: Int):
    """Makes an ordinal the entry point unless another reaches as high."""
    var place = (
        Pointer(to=graph.entry).unsafe_bitcast[Int64]().unsafe_origin_cast[MutUntrackedOrigin]()
    )
    while True:
        var entry = Atomic[Int64].load[ordering=Ordering.ACQUIRE](place)
        if graph.level_of(ordinal) <= graph.level_of(Int(entry)):
            return
        var expected = entry
        if Atomic[Int64].compare_exchange[
            success_ordering=Ordering.SEQUENTIAL, failure_ordering=Ordering.ACQUIRE, weak=False
        ](place, expected, Int64(ordinal)):
            return


def close_holes(graph: Graph):
    """Moves links to the front of their blocks; nobody may be writing."""
    for row in range(graph.linked):
        close_block(graph.links(0, row), graph.cap(0))
    for ordinal in range(graph.ordinals):
        for level in range(1, graph.level_of(ordinal) + 1):
            close_block(graph.links(level, ordinal), graph.cap(level))


def close_block(block: Ptr[UInt32], cap: Int):
    """Does it for one block."""
    var used = 0
    for i in range(cap):
        var held = block[unsafe_offset=i]
        if held != EMPTY:
            block[unsafe_offset=used] = held
            used += 1
    for i in range(used, cap):
        block[unsafe_offset=i] = EMPTY
