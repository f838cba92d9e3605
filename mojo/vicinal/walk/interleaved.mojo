"""Several walks under way in one thread: each waits for memory while the others work."""
from vicinal.kernels.space import Measure
from vicinal.system.memory import Ptr
from vicinal.walk.beam_search import Walk
from vicinal.walk.scratch import Scratch

comptime LANES = 4
"""Walks that one thread has under way at once, at most."""
comptime CACHED = 4 << 20
"""Codes and links of no more bytes stay near enough to a core that other walks need not fill the wait."""


def lanes_for(bytes: Int) -> Int:
    """Returns how many walks to have under way over links and rows of so many bytes."""
    return 1 if bytes <= CACHED else LANES


trait Errands:
    """What walks are made for: how one starts and what is done with what it has found."""

    comptime S: Measure
    comptime Note: TrivialRegisterPassable
    """What is remembered of a walk until it is done."""

    def nothing(self) -> Self.Note:
        """Returns a note that stands for none."""
        ...

    def idle(self, scratch: Ptr[Scratch]) -> Walk[Self.S, True]:
        """Returns a walk that is never made."""
        ...

    def start(self, number: Int, scratch: Ptr[Scratch], mut note: Self.Note) -> Walk[Self.S, True]:
        """Starts the walk of item `number`."""
        ...

    def finish(self, note: Self.Note, mut scratch: Scratch):
        """Uses the beam that the walk has left in its scratch."""
        ...


def run_errands[
    E: Errands
](errands: E, begin: Int, end: Int, scratches: Ptr[Ptr[Scratch]], lanes: Int):
    """Does items begin .. end-1, up to `lanes` at a time.

    Args:
        errands: The work.
        begin: The first item.
        end: One past the last.
        scratches: One for each lane.
        lanes: Walks under way at once, 1 to LANES.
    """
    comptime if E.S.by_fours:  # on stored rows it would be code for no gain
        if lanes == 1:  # a walk that is alone stays in registers
            var note = errands.nothing()
            for number in range(begin, end):
                var walk = errands.start(number, scratches[], note)
                while walk.collect():
                    walk.measure()
                errands.finish(note, scratches[][])
            return
    var active = min(lanes, end - begin)
    var walks_room = Array[Walk[E.S, True], LANES](fill=errands.idle(scratches[]))
    var notes_room = Array[E.Note, LANES](fill=errands.nothing())
    var walks = (
        Pointer(to=walks_room)
        .unsafe_bitcast[Walk[E.S, True]]()
        .unsafe_origin_cast[MutUntrackedOrigin]()
    )
    var notes = (
        Pointer(to=notes_room).unsafe_bitcast[E.Note]().unsafe_origin_cast[MutUntrackedOrigin]()
    )
    var next = begin
    for lane in range(active):
        walks[unsafe_offset=lane] = errands.start(
            next, scratches[unsafe_offset=lane], notes[unsafe_offset=lane]
        )
        next += 1
    while active > 0:
        var lane = 0
        while lane < active:
            if walks[unsafe_offset=lane].collect():
                lane += 1
                continue
            var scratch = walks[unsafe_offset=lane].scratch
            errands.finish(notes[unsafe_offset=lane], scratch[])
            if next < end:
                walks[unsafe_offset=lane] = errands.start(next, scratch, notes[unsafe_offset=lane])
                next += 1
            else:  # the last lane takes this one's place
                active -= 1
                walks[unsafe_offset=lane] = walks[unsafe_offset=active]
                notes[unsafe_offset=lane] = notes[unsafe_offset=active]
        for lane in range(active):
            walks[unsafe_offset=lane].measure()
    _ = walks_room
    _ = notes_room
