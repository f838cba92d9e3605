"""Threads: a team of workers that lives for one call. The only file that starts threads.

Nothing survives the call, so a process may fork, several callers may work at once and calls may nest.
"""
from std.atomic import Atomic, Ordering
from std.bit import pop_count
from std.ffi import c_int, external_call
from std.memory import MutOpaquePointer
from std.sys import CompilationTarget, llvm_intrinsic

from vicinal.system.atomics import store_release, load_acquire
from vicinal.system.memory import Ptr, allocate, allocate_zeroed, at, missing, no_block, release

comptime Entry = def(MutOpaquePointer[MutUntrackedOrigin]) abi("C") thin -> Int
comptime MAX_THREADS = 256
comptime LINE = 8
"""64-bit words of a cache line."""
comptime SPINS = 400
"""Looks at what is waited for before a thread sleeps, 10 to 20 us in all: building has thousands of regions of a few hundred
microseconds, and to wake a thread takes tens."""


trait Body:
    """Work that is cut into pieces."""

    def run(self, begin: Int, end: Int, worker: Int):
        """Does items begin .. end-1; `worker` numbers the scratch that it may use, 0 being the caller's own.
        """
        ...


trait Watch:
    """Looks in between pieces of a long call."""

    def proceed(mut self, done: Int) -> Bool:
        """Tells whether to go on; called by the thread that made the call, with the items handed out so far.
        """
        ...

    def advance(mut self, base: Int):
        """Says that the counts of `proceed` now start at `base` of the whole."""
        ...

    def conclude(mut self, done: Int) -> Bool:
        """Tells whether to keep what was done, now that all of it is; the last chance to take it back.
        """
        ...


struct Unwatched(Watch):
    """Always goes on."""

    def __init__(out self):
        """Makes a watch that sees nothing."""
        pass

    def proceed(mut self, done: Int) -> Bool:
        """Goes on."""
        return True

    def advance(mut self, base: Int):
        """Takes no note."""
        pass

    def conclude(mut self, done: Int) -> Bool:
        """Keeps it."""
        return True


comptime Piece = def(Int, Int, Int, Int) thin -> None
"""Does items of the work at an address: from one on, up to another, by a worker."""
comptime Question = def(Int, Int) thin -> Bool
"""Asks the watch at an address whether to go on."""


def _run_piece[F: Body](body: Int, begin: Int, end: Int, worker: Int):
    at[F](body)[].run(begin, end, worker)


def _proceed[V: Watch](watch: Int, done: Int) -> Bool:
    return at[V](watch)[].proceed(done)


@fieldwise_init
struct Job(TrivialRegisterPassable):
    """One parallel region as a worker sees it; compiled once, whatever the work."""

    var body: Int
    """Address of the work."""
    var run: Piece
    var next: Ptr[Int64]
    """Shared counter: first item not handed out."""
    var count: Int
    """Items in all."""
    var grain: Int
    """Items of a piece."""

    @always_inline
    def take(self) -> Int:
        """Takes the next piece and returns its first item, `count` or more when there is none."""
        return Int(
            Atomic[Int64].fetch_add[ordering=Ordering.RELAXED](self.next.start, Int64(self.grain))
        )

    def work(self, worker: Int):
        """Does pieces until none is left."""
        while True:
            var begin = self.take()
            if begin >= self.count:
                return
            self.run(self.body, begin, min(begin + self.grain, self.count), worker)


def _run_job(job: MutOpaquePointer[MutUntrackedOrigin]) abi("C") -> Int:
    # the worker's number rides behind the job
    var number = job.unsafe_bitcast[Int]()
    at[Job](number[unsafe_offset=1])[].work(number[unsafe_offset=0])
    return 0


def _no_job(job: MutOpaquePointer[MutUntrackedOrigin]) abi("C") -> Int:
    return 0


struct Shared(Movable):
    """What a team's threads share; lives on the heap and never moves."""

    var mutex: Ptr[UInt64]
    var start: Ptr[UInt64]
    var done: Ptr[UInt64]
    var generation: Int
    var entry: Entry
    var job: Int
    var left: Int
    var stop: Bool
    var members: Ptr[Member]
    var threads: Ptr[UInt64]
    var started: Int
    """Threads besides the caller."""
    var tried: Bool
    """Whether they were started, as many as the system granted."""

    def __init__(out self):
        # zero bytes are initialised pthread objects on Linux; none is larger than 64 bytes
        self.mutex = allocate_zeroed[UInt64](2 * LINE)
        self.start = allocate_zeroed[UInt64](2 * LINE)
        self.done = allocate_zeroed[UInt64](2 * LINE)
        self.generation = 0
        self.entry = _no_job
        self.job = 0
        self.left = 0
        self.stop = False
        self.members = no_block[Member]()
        self.threads = no_block[UInt64]()
        self.started = 0
        self.tried = False

    def failed(self) -> Bool:
        """Tells whether memory was refused: no thread may be started then."""
        return missing(self.mutex) or missing(self.start) or missing(self.done)

    def __deinit__(deinit self):
        # glibc's oldest condition variables, to which a symbol without version binds, hold memory of their own
        if not self.failed():
            _ = external_call["pthread_cond_destroy", c_int](Int(self.start))
            _ = external_call["pthread_cond_destroy", c_int](Int(self.done))
        release(self.mutex)
        release(self.start)
        release(self.done)
        release(self.members)
        release(self.threads)

    def start_threads(mut self, count: Int):
        """Starts so many threads, or as many as the system grants."""
        self.tried = True
        self.members = allocate[Member](count)
        self.threads = allocate[UInt64](count)
        if self.failed() or missing(self.members) or missing(self.threads):
            return
        var me = Pointer(to=self).unsafe_origin_cast[MutUntrackedOrigin]()
        var entry: Entry = _member
        while self.started < count:
            var member = self.members.unsafe_offset(self.started)
            member.unsafe_write(Member(self.started + 1, 0, me))
            if (
                external_call["pthread_create", c_int](
                    Int(self.threads.unsafe_offset(self.started)), Int(0), entry, Int(member)
                )
                != 0
            ):
                return
            self.started += 1

    def lock(self):
        """Enters the section that guards these fields."""
        _ = external_call["pthread_mutex_lock", c_int](Int(self.mutex))

    def unlock(self):
        """Leaves the guarded section."""
        _ = external_call["pthread_mutex_unlock", c_int](Int(self.mutex))


@fieldwise_init
struct Member(TrivialRegisterPassable):
    """What one thread of a team knows: its number, the job's address and the shared state."""

    var number: Int
    var job: Int
    var shared: Ptr[Shared]


@always_inline
def _rest():
    """Lets a processor's other thread go first for a moment."""
    comptime if CompilationTarget.is_x86():
        llvm_intrinsic["llvm.x86.sse2.pause", NoneType]()
    else:
        llvm_intrinsic["llvm.aarch64.hint", NoneType](Int32(1))


def _member(arg: MutOpaquePointer[MutUntrackedOrigin]) abi("C") -> Int:
    var me = arg.unsafe_bitcast[Member]()
    var shared = me[].shared
    var known = 0
    while True:
        for _ in range(SPINS):
            if load_acquire(shared[].generation) != known:
                break
            _rest()
        shared[].lock()
        while shared[].generation == known and not shared[].stop:
            _ = external_call["pthread_cond_wait", c_int](Int(shared[].start), Int(shared[].mutex))
        known = shared[].generation
        var stop = shared[].stop
        var entry = shared[].entry
        me[].job = shared[].job
        shared[].unlock()
        if stop:
            return 0
        _ = entry(arg)
        shared[].lock()
        store_release(shared[].left, shared[].left - 1)
        if shared[].left == 0:
            _ = external_call["pthread_cond_signal", c_int](Int(shared[].done))
        shared[].unlock()


struct Team(Movable):
    """Worker threads for the length of one call; the caller is worker 0.

    They are started when there is first something to share: small calls, which have nothing, start none.
    """

    var shared: Ptr[Shared]
    """Made only if there may be threads besides the caller; a team of one costs nothing."""
    var others: Int
    """Threads besides the caller, at most."""

    def __init__(out self, size: Int):
        """Makes a team of `size`, of which the system may grant fewer."""
        self.others = max(0, min(size, MAX_THREADS) - 1)
        self.shared = no_block[Shared]()
        if self.others == 0:
            return
        var shared = allocate[Shared](1)
        if missing(shared):
            self.others = 0
            return
        shared.unsafe_write(Shared())
        self.shared = shared

    def __deinit__(deinit self):
        if missing(self.shared):
            return
        if self.shared[].started != 0:
            self._stop()
        self.shared.unsafe_deinit_pointee()
        release(self.shared)

    def _started(self) -> Int:
        """Starts the threads unless that was done, and returns how many there are."""
        if self.others == 0:
            return 0
        if not self.shared[].tried:
            self.shared[].start_threads(self.others)
        return self.shared[].started

    def _stop(self):
        """Ends the threads."""
        self.shared[].lock()
        self.shared[].stop = True
        store_release(self.shared[].generation, self.shared[].generation + 1)
        _ = external_call["pthread_cond_broadcast", c_int](Int(self.shared[].start))
        self.shared[].unlock()
        for i in range(self.shared[].started):
            _ = external_call["pthread_join", c_int](self.shared[].threads[unsafe_offset=i], Int(0))

    @always_inline
    def size(self) -> Int:
        """Returns the number of workers, the caller included."""
        return self.others + 1

    def run[F: Body, V: Watch](self, count: Int, grain: Int, body: F, mut watch: V) -> Bool:
        """Runs `body` over items 0 .. count-1 in pieces of `grain`, on all workers.

        Args:
            count: Items in all.
            grain: Items of a piece; pieces are handed out in order, to whoever is free.
            body: The work; must not touch Python objects and cannot raise.
            watch: Asked by the calling thread before each of its pieces but the very first.

        Returns:
            False if `watch` ended the region early: then some pieces were not done.
        """
        return self._run(
            Int(Pointer(to=body)), _run_piece[F], count, grain, Int(Pointer(to=watch)), _proceed[V]
        )

    @no_inline
    def _run(
        self, body: Int, piece: Piece, count: Int, grain: Int, watch: Int, proceed: Question
    ) -> Bool:
        var next = Int64(0)
        var job = Job(
            body,
            piece,
            Pointer(to=next).unsafe_mut_cast[True]().unsafe_origin_cast[MutUntrackedOrigin](),
            count,
            max(grain, 1),
        )
        var shared_work = count > job.grain and self._started() != 0
        if shared_work:
            self.shared[].lock()
            self.shared[].entry = _run_job
            self.shared[].job = Int(Pointer(to=job))
            self.shared[].left = self.shared[].started
            store_release(self.shared[].generation, self.shared[].generation + 1)
            _ = external_call["pthread_cond_broadcast", c_int](Int(self.shared[].start))
            self.shared[].unlock()
        var finished = True
        while True:
            var begin = job.take()
            if begin >= count:
                break
            if begin > 0 and not proceed(watch, begin):
                finished = False
                Atomic[Int64].store[ordering=Ordering.RELAXED](job.next.start, Int64(count))
                break
            piece(body, begin, min(begin + job.grain, count), 0)
        if shared_work:
            for _ in range(SPINS):
                if load_acquire(self.shared[].left) == 0:
                    break
                _rest()
            self.shared[].lock()
            while self.shared[].left != 0:
                _ = external_call["pthread_cond_wait", c_int](
                    Int(self.shared[].done), Int(self.shared[].mutex)
                )
            self.shared[].unlock()
        _ = job  # the others have read it until now
        _ = next
        return finished


def usable_cores() -> Int:
    """Returns how many cores this process may run on (its affinity mask counts, a cgroup's quota does not).
    """
    var mask = allocate_zeroed[UInt64](128)
    if missing(mask):
        return 1
    var rc = external_call["sched_getaffinity", c_int](c_int(0), Int(1024), Int(mask))
    var cores = 0
    if rc >= 0:
        for i in range(128):
            cores += Int(pop_count(mask[unsafe_offset=i]))
    release(mask)
    return max(cores, 1)
