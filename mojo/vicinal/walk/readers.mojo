"""Who reads at the moment: searches pin an epoch, and what a writer takes away stays until no search that may meet it is left.

A search claims a scratch, which carries its pin: the epoch that it began in. A writer that has made something unreachable for new
searches calls `retire`, which begins a new epoch and returns the number of the one that ended. Once every pin is younger than
that (`passed`), no search is left that began before, and the thing may be freed or written over. Searches never wait and never
start again; writers wait for them for a bounded time, then postpone what they wanted to free.

Why no pin is missed: a search writes its pin, then reads the epoch again and pins anew until it is still the same; a writer
begins the new epoch, then reads the pins. All four are sequentially consistent, so if the writer does not see the pin, the search
sees the new epoch, and with it that the thing is gone.

Source: epoch-based reclamation, K. Fraser, Practical lock-freedom (2004), section 5.2.3.
"""
from std.atomic import Atomic, Ordering, fence
from std.ffi import c_int, external_call

from vicinal.system.clock import now
from vicinal.system.memory import Ptr, allocate_zeroed, at, missing, release
from vicinal.system.point import EXPLORED, all_seen, may_be_late, point, wait_point
from vicinal.walk.scratch import Scratch, discard

comptime IDLE: Int64 = 0
"""The pin of a scratch that nobody uses."""
comptime UNPINNED: Int64 = Int64.MAX
"""The pin of a scratch that is in use by somebody who reads nothing that could be freed."""
comptime FIRST_EPOCH: Int64 = 1
comptime PATIENCE = 200_000_000
"""Nanoseconds that a writer waits for older searches before it postpones what it wanted to free."""
comptime TURNS = 64
"""Looks at the pins between which a writer lets other threads run, before it begins to sleep."""
comptime NAP = 100_000
"""Nanoseconds that it sleeps between looks from then on."""
comptime COUNTS = 7
"""Numbers counted by scratches: queries answered, walks, scans, distances, hops, requests for parts of a file, bytes of these."""


struct Readers(Movable):
    """The scratches of one index: a list that only grows, taken from and put back without a lock.
    """

    var words: Ptr[Int64]
    """The epoch, and a cache line later the address of the newest scratch."""

    def __init__(out self):
        """Makes a list of none."""
        self.words = allocate_zeroed[Int64](16)
        if not missing(self.words):
            self.words[] = FIRST_EPOCH

    def failed(self) -> Bool:
        """Tells whether memory was refused: nothing may be claimed then."""
        return missing(self.words)

    def __deinit__(deinit self):
        var address = 0 if self.failed() else Int(self.words[unsafe_offset=8])
        while address != 0:
            var scratch = at[Scratch](address)
            address = Int(scratch[].next)
            discard(scratch)
        release(self.words)

    @always_inline
    def epoch(self) -> Int64:
        """Returns the present epoch."""
        return Atomic[Int64].load[ordering=Ordering.SEQUENTIAL](self.words.start)

    @always_inline
    def newest(self) -> Int:
        """Returns the address of the newest scratch, 0 if there is none."""
        return Int(Atomic[Int64].load[ordering=Ordering.ACQUIRE](self.words.unsafe_offset(8).start))

    def claim(self) -> Ptr[Scratch]:
        """Takes a scratch, a new one if none is idle, and pins the present epoch; or returns what `missing` knows.
        """
        return self._claim(self.epoch())

    def claim_unpinned(self) -> Ptr[Scratch]:
        """Takes a scratch for work that holds nothing back: a writer's own, or one under another's pin; or returns what `missing`
        knows.
        """
        return self._claim(UNPINNED)

    def claim_many(self, scratches: Ptr[Ptr[Scratch]], count: Int, group: Int) -> Bool:
        """Takes scratches, the first of each group with a pin, or none if `group` is 0.

        Returns:
            False when memory is out: then none is taken.
        """
        for i in range(count if not missing(scratches) else 0):
            var pinned = group != 0 and i % group == 0
            scratches[unsafe_offset=i] = self.claim() if pinned else self.claim_unpinned()
            if missing(scratches[unsafe_offset=i]):
                self.release_many(scratches, i)
                return False
        return not missing(scratches)

    def release_many(self, scratches: Ptr[Ptr[Scratch]], count: Int):
        """Puts scratches back."""
        for i in range(count):
            self.release(scratches[unsafe_offset=i])

    def _claim(self, pin: Int64) -> Ptr[Scratch]:
        var address = self.newest()
        while address != 0:
            var scratch = at[Scratch](address)
            var idle = IDLE
            point["claim a scratch"]()
            all_seen["claim a scratch"](others=True)
            if Atomic[Int64].load[ordering=Ordering.RELAXED](
                scratch[].pin_address().start
            ) == IDLE and Atomic[Int64].compare_exchange[
                success_ordering=Ordering.SEQUENTIAL, failure_ordering=Ordering.RELAXED
            ](
                scratch[].pin_address().start, idle, pin
            ):
                may_be_late["claim a scratch late"](scratch[].pin_address(), IDLE)
                self._settle(scratch, pin)
                return scratch
            address = Int(scratch[].next)
        var scratch = Scratch.on_heap()
        if missing(scratch):
            return scratch
        Atomic[Int64].store[ordering=Ordering.RELAXED](scratch[].pin_address().start, pin)
        var head = self.words.unsafe_offset(8)
        var before = Atomic[Int64].load[ordering=Ordering.RELAXED](head.start)
        while True:
            scratch[].next = before
            point["add a scratch"]()
            if Atomic[Int64].compare_exchange[
                success_ordering=Ordering.SEQUENTIAL, failure_ordering=Ordering.RELAXED
            ](head.start, before, Int64(Int(scratch))):
                break
        self._settle(scratch, pin)
        return scratch

    @always_inline
    def _settle(self, scratch: Ptr[Scratch], pin: Int64):
        """Pins anew until the epoch pinned is the present one."""
        var pinned = pin
        while pinned != UNPINNED:
            point["read the epoch again"]()
            all_seen["read the epoch again"]()
            var epoch = self.epoch()
            if epoch == pinned:
                break
            point["pin anew"]()
            Atomic[Int64].store[ordering=Ordering.SEQUENTIAL](scratch[].pin_address().start, epoch)
            fence[Ordering.SEQUENTIAL]()
            pinned = epoch

    @always_inline
    def renew(self, scratch: Ptr[Scratch]):
        """Pins the present epoch in place of an older one: what the search has met before may be gone from now on.
        """
        self._settle(
            scratch, Atomic[Int64].load[ordering=Ordering.RELAXED](scratch[].pin_address().start)
        )

    @always_inline
    def release(self, scratch: Ptr[Scratch]):
        """Puts a scratch back, and buffers of unusual size with it."""
        scratch[].trim()
        point["unpin"]()
        all_seen["unpin"]()
        Atomic[Int64].store[ordering=Ordering.RELEASE](scratch[].pin_address().start, IDLE)

    def retire(self) -> Int64:
        """Begins a new epoch and returns the number of the one that ended; see `passed`."""
        point["begin an epoch"]()
        return Atomic[Int64].fetch_add[ordering=Ordering.SEQUENTIAL](self.words.start, 1)

    def passed(self, epoch: Int64) -> Bool:
        """Tells whether every search that began in an epoch or before has ended."""
        fence[Ordering.SEQUENTIAL]()
        var address = self.newest()
        while address != 0:
            var scratch = at[Scratch](address)
            point["look at a pin"]()
            var pin = Atomic[Int64].load[ordering=Ordering.SEQUENTIAL](
                scratch[].pin_address().start
            )
            if pin != IDLE and pin <= epoch:
                return False
            address = Int(scratch[].next)
        return True

    def wait(self, epoch: Int64, patience: Int = PATIENCE) -> Bool:
        """Waits until `passed`, for so many nanoseconds at most; the GIL must not be held, since searches may need it to end.

        Returns:
            Whether they have passed.
        """
        if self.passed(epoch):
            return True
        comptime if EXPLORED:
            while wait_point["wait for searches"]():
                if self.passed(epoch):
                    return True
            return False
        var until = now() + patience
        var looks = 0
        while now() < until:
            if looks < TURNS:
                _ = external_call["sched_yield", c_int]()
            else:
                _ = external_call["usleep", c_int](c_int(NAP // 1000))
            looks += 1
            if self.passed(epoch):
                return True
        return False

    def forget(self):
        """Takes all pins off in a child process, right after the fork: the threads that would have done so stayed behind.

        Their scratches are not used again.
        """
        var address = self.newest()
        while address != 0:
            var scratch = at[Scratch](address)
            if Atomic[Int64].load[ordering=Ordering.RELAXED](scratch[].pin_address().start) != IDLE:
                Atomic[Int64].store[ordering=Ordering.RELAXED](
                    scratch[].pin_address().start, UNPINNED
                )
            address = Int(scratch[].next)

    def bytes(self) -> Int:
        """Returns the bytes of memory that the scratches take."""
        var sum = 0
        var address = self.newest()
        while address != 0:
            var scratch = at[Scratch](address)
            sum += Int(
                Atomic[Int64].load[ordering=Ordering.RELAXED](scratch[].bytes_address().start)
            )
            address = Int(scratch[].next)
        return sum

    def count(self, which: Int) -> Int:
        """Returns one of the numbers that scratches count, over all of them; searches under way may be in it in part.
        """
        var sum = 0
        var address = self.newest()
        while address != 0:
            sum += at[Scratch](address)[].counted(which)
            address = Int(at[Scratch](address)[].next)
        return sum
