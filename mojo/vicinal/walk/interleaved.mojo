"""Several searches interleaved in one thread: each waits for memory while the others work."""
from vicinal.kernels.measure_rows import HopDistance
from vicinal.system.memory import Ptr
from vicinal.walk.beam_search import Walk
from vicinal.walk.scratch import Scratch

comptime MAX_SEARCHES = 4
"""Most walks that one thread of a build interleaves."""
comptime MEMORY_SEARCHES = 2
"""Searches that one thread interleaves where all is in memory: four marked and sorted so much that each found less of its own in the
core's cache, and took up to 1.14 times as long (docs/measurements/ablations.md)."""
comptime DISK_SEARCHES = 8
"""The same where each waits for a disk, which serves many requests at once sooner than few after each other."""
comptime MOST_SEARCHES = DISK_SEARCHES
comptime CACHED = 4 << 20
"""Up to so many bytes of codes and links the index stays in the core's cache, and interleaving gains nothing."""


def walks_in_flight(bytes: Int, most: Int) -> Int:
    """Returns how many walks to interleave over links and rows of so many bytes: one, or `most`."""
    return 1 if bytes <= CACHED else most


trait InterleavedSearches:
    """How a search starts and what is done with what it has found."""

    comptime M: HopDistance
    """What measures the hops."""
    comptime W: Walk
    comptime State: TrivialRegisterPassable
    """What is remembered of a search until it is done."""

    def no_state(self) -> Self.State:
        """Returns a placeholder for a state that is not in use."""
        ...

    def no_search(self, scratch: Ptr[Scratch]) -> Self.W:
        """Returns a placeholder for a search that is not in use."""
        ...

    def start(self, number: Int, scratch: Ptr[Scratch], mut note: Self.State) -> Self.W:
        """Starts the walk of item `number`."""
        ...

    def wait(self, note: Self.State, mut scratch: Scratch) -> Bool:
        """Tells whether it is worth doing others' walks before `finish` of this one: what it needs was asked for from disk.
        """
        return False

    def has_come(self, note: Self.State, mut scratch: Scratch) -> Bool:
        """Tells whether what was asked for is known to be there."""
        return False

    def finish(self, walk: Self.W, note: Self.State, mut scratch: Scratch):
        """Uses the beam that the walk has left in its scratch."""
        ...


def run_interleaved[
    E: InterleavedSearches
](errands: E, begin: Int, end: Int, scratches: Ptr[Ptr[Scratch]], lanes: Int):
    """Does items begin .. end-1, up to `lanes` at a time.

    Args:
        errands: The work.
        begin: The first item.
        end: One past the last.
        scratches: One for each lane.
        lanes: Walks under way at once, 1 to MOST_SEARCHES.
    """
    if lanes == 1:  # a walk that is alone stays in registers
        var note = errands.no_state()
        for number in range(begin, end):
            var walk = errands.start(number, scratches[], note)
            while walk.collect[E.M]():
                walk.measure[E.M]()
            errands.finish(walk, note, scratches[][])
        return
    var active = min(lanes, end - begin)
    var walks_room = Array[E.W, MOST_SEARCHES](fill=errands.no_search(scratches[]))
    var notes_room = Array[E.State, MOST_SEARCHES](fill=errands.no_state())
    var walks = (
        Pointer(to=walks_room).unsafe_bitcast[E.W]().unsafe_origin_cast[MutUntrackedOrigin]()
    )
    var notes = (
        Pointer(to=notes_room).unsafe_bitcast[E.State]().unsafe_origin_cast[MutUntrackedOrigin]()
    )
    var next = begin
    for lane in range(active):
        walks[unsafe_offset=lane] = errands.start(
            next, scratches[unsafe_offset=lane], notes[unsafe_offset=lane]
        )
        next += 1
    var waits = Array[Bool, MOST_SEARCHES](fill=False)
    var waiting = 0
    var oldest = 0  # the lane that has waited longest, if none was served out of turn
    while active > 0:
        var lane = 0
        while lane < active:
            if waits[lane]:
                # it goes on when all has come, or when no walk is left to be done meanwhile
                if (waiting < active or lane != oldest) and not errands.has_come(
                    notes[unsafe_offset=lane], walks[unsafe_offset=lane].own()[]
                ):
                    lane += 1
                    continue
                waits[lane] = False
                waiting -= 1
                if lane == oldest:
                    oldest = (lane + 1) % active
            elif walks[unsafe_offset=lane].collect[E.M]():
                lane += 1
                continue
            elif active > 1 and errands.wait(
                notes[unsafe_offset=lane], walks[unsafe_offset=lane].own()[]
            ):
                waits[lane] = True
                waiting += 1
                continue
            var scratch = walks[unsafe_offset=lane].own()
            errands.finish(walks[unsafe_offset=lane], notes[unsafe_offset=lane], scratch[])
            if next < end:
                walks[unsafe_offset=lane] = errands.start(next, scratch, notes[unsafe_offset=lane])
                next += 1
            else:  # the last lane takes this one's place
                active -= 1
                walks[unsafe_offset=lane] = walks[unsafe_offset=active]
                notes[unsafe_offset=lane] = notes[unsafe_offset=active]
                waits[lane] = waits[active]
                oldest = oldest % max(active, 1)
        for lane in range(active):
            if not waits[lane]:
                walks[unsafe_offset=lane].measure[E.M]()
    _ = walks_room
    _ = notes_room
