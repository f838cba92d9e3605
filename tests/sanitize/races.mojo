"""For ThreadSanitizer: what runs side by side without a lock, as C functions, and one deliberate race.

Bare code only: the sanitizer does not bear Modular's run-time libraries. One space only: all of them take minutes to compile.
"""
from std.atomic import Atomic, Ordering

from vicinal.add import DoChange
from vicinal.change import Change
from vicinal.check import check_graph
from vicinal.index import Index
from vicinal.memory import Ptr, allocate, allocate_zeroed, release
from vicinal.parallel import Body, Team, Unwatched
from vicinal.queries import SearchMany
from vicinal.readers import Readers
from vicinal.scratch import DISTANCES
from vicinal.space import L2, Of

comptime Float = Of[L2, DType.float32]
comptime DIM = 24
comptime ROWS = 1500
comptime BATCH = 50
comptime SEARCHERS = 3
comptime K = 5


def value(i: Int) -> Float32:
    """Draws one of 1000 values, always the same for a number."""
    var z = UInt64(i + 1) * 0x9E3779B97F4A7C15
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9
    return Float32(Int((z >> 33) % 1000))


@fieldwise_init
struct Beside(Body):
    """Worker 0 adds rows, batch by batch; the others search until it is done."""

    var index: Ptr[Index]
    var rows: Ptr[Float32]
    var done: Ptr[Int64]
    """Set when all rows are added."""
    var wrong: Ptr[Int64]
    """Answers that no state of the index gives."""
    var own_ids: Bool

    def run(self, begin: Int, end: Int, worker: Int):
        """Does the parts begin .. end-1."""
        for part in range(begin, end):
            if part == 0:
                self.write()
            else:
                self.read(part)

    def write(self):
        """Adds all rows, each batch by two threads."""
        var watch = Unwatched()
        var ids = allocate[Int64](BATCH)
        for first in range(0, ROWS, BATCH):
            for i in range(BATCH):
                ids[unsafe_offset=i] = Int64(3 * (first + i) - 7)
            var change = Change()
            var status = change.take(self.index[], Int(ids) if self.own_ids else 0, BATCH, False)
            var task = DoChange[Unwatched](
                self.index,
                Pointer(to=change).unsafe_origin_cast[MutUntrackedOrigin](),
                Int(self.rows.unsafe_offset(first * DIM)),
                2,
                Pointer(to=watch).unsafe_origin_cast[MutUntrackedOrigin](),
                0,
            )
            task.run[Float]()
            status += task.status
            change.commit(self.index[])
            change.finish(self.index[])
            if status != 0:
                _ = Atomic[Int64].fetch_add(self.wrong, 1)
        release(ids)
        Atomic[Int64].store[ordering=Ordering.RELEASE](self.done, 1)

    def read(self, part: Int):
        """Searches one query or many, narrow and wide."""
        var watch = Unwatched()
        var ids = allocate[Int64](4 * K)
        var distances = allocate[Float32](4 * K)
        var round = 0
        while Atomic[Int64].load[ordering=Ordering.ACQUIRE](self.done) == 0 or round < 20:
            round += 1
            var count = 1 + 3 * (round & 1)
            var queries = self.rows.unsafe_offset(((round * 7 + part) % (ROWS - 4)) * DIM)
            var task = SearchMany[Unwatched](
                self.index,
                Int(queries),
                count,
                K,
                8 if round % 5 != 0 else 4 * ROWS,
                ids,
                distances,
                1,
                Pointer(to=watch).unsafe_origin_cast[MutUntrackedOrigin](),
                0,
            )
            task.run[Float]()
            var status = task.status
            for i in range(count * K):
                var id = Int(ids[unsafe_offset=i])
                var known = id >= -7 and id < 3 * ROWS
                if status != 0 or not known:
                    _ = Atomic[Int64].fetch_add(self.wrong, 1)
        release(ids)
        release(distances)


def _beside(quantization: Int, own_ids: Bool) -> Int:
    """Adds beside searches; returns 0 if all went well."""
    var rows = allocate[Float32](ROWS * DIM)
    for i in range(ROWS * DIM):
        # every fifth row is one of ten
        var row = i // DIM
        rows[unsafe_offset=i] = value(i if row % 5 != 0 else i % DIM + row // 5 % 10)
    var state = allocate_zeroed[Int64](16)
    var index = allocate[Index](1)
    # the graph begins with the third batch, while searches are under way
    index.unsafe_write(Index(0, 0, DIM, 6, 20, 5, 3 * BATCH, quantization))
    var team = Team(1 + SEARCHERS)
    var watch = Unwatched()
    var work = Beside(index, rows, state, state.unsafe_offset(8), own_ids)
    _ = team.run(1 + SEARCHERS, 1, work, watch)
    _ = team^
    var wrong = Int(state[unsafe_offset=8]) + check_graph(
        index[].graph, ROWS, False, index[].copies.count
    )
    index.unsafe_deinit_pointee()
    release(index)
    release(state)
    release(rows)
    return wrong


@export
def beside_rows() abi("C") -> Int:
    """Walks on the stored rows."""
    return _beside(1, False)


@export
def beside_codes() abi("C") -> Int:
    """Walks on codes, which are made while searches are under way."""
    return _beside(4, True)


@fieldwise_init
struct TakeAndPut(Body):
    """Takes scratches, writes to them and puts them back."""

    var readers: Ptr[Readers]

    def run(self, begin: Int, end: Int, worker: Int):
        """Does it end - begin times."""
        for _ in range(begin, end):
            var one = self.readers[].claim()
            var two = self.readers[].claim()
            one[].distances += 1
            two[].distances += 1
            self.readers[].release(one)
            self.readers[].release(two)


@export
def scratches() abi("C") -> Int:
    """Passes scratches between four threads; returns 0 if none was in two hands."""
    var readers = Readers()
    var team = Team(4)
    var watch = Unwatched()
    var work = TakeAndPut(Pointer(to=readers).unsafe_origin_cast[MutUntrackedOrigin]())
    _ = team.run(20_000, 50, work, watch)
    _ = team^
    var uses = readers.count(DISTANCES)
    _ = readers^
    return uses - 2 * 20_000


@fieldwise_init
struct Count(Body):
    """Counts without an atomic operation, which loses some."""

    var place: Ptr[Int64]

    def run(self, begin: Int, end: Int, worker: Int):
        """Adds end - begin, one by one."""
        for _ in range(begin, end):
            self.place[] += 1


@export
def race() abi("C") -> Int:
    """Must be reported: shows that the sanitizer is awake."""
    var place = allocate_zeroed[Int64](8)
    var team = Team(4)
    var watch = Unwatched()
    _ = team.run(5_000_000, 20, Count(place), watch)
    _ = team^
    release(place)
    return 0
