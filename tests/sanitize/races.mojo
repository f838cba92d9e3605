"""For ThreadSanitizer: what runs side by side without a lock, as C functions, and one deliberate race.

Bare code only: the sanitizer does not bear Modular's run-time libraries. One space only: all of them take minutes to compile.
"""
from std.atomic import Atomic, Ordering

from vicinal.exact.request import SearchRequest
from vicinal.index.invariants import SOUND, check_index
from vicinal.index.vector_index import Index
from vicinal.kernels.space import L2, MetricSpace
from vicinal.search.batch import SearchMany
from vicinal.search.filter import CHOOSE, Filter, FilterChoice
from vicinal.search.filtered import search_filtered
from vicinal.search.range_search import RangeResult, search_range
from vicinal.system.memory import Ptr, allocate, allocate_zeroed, at, release
from vicinal.system.outcome import DONE, Outcome
from vicinal.system.parallel import Body, Team, Unwatched, Watch
from vicinal.update.add import DoChange
from vicinal.update.consolidate import consolidate, prepare_change
from vicinal.update.transaction import Change
from vicinal.walk.readers import PATIENCE, Readers
from vicinal.walk.scratch import DISTANCES

comptime Float = MetricSpace[L2, DType.float32]
comptime DIM = 24
comptime ROWS = 1500
comptime BATCH = 50
comptime SEARCHERS = 3
comptime K = 5
comptime ROUNDS = 12


def value(i: Int) -> Float32:
    """Draws one of 1000 values, always the same for a number."""
    var z = UInt64(i + 1) * 0x9E3779B97F4A7C15
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9
    return Float32(Int((z >> 33) % 1000))


@fieldwise_init
struct Beside(Body):
    """Worker 0 changes rows, call by call; the others search in different ways until it is done."""

    var index: Ptr[Index]
    var rows: Ptr[Float32]
    var done: Ptr[Int64]
    """Set when all changes are made."""
    var wrong: Ptr[Int64]
    """Answers that no state of the index gives, and changes that went wrong."""
    var own_ids: Bool

    def run(self, begin: Int, end: Int, worker: Int):
        """Does the parts begin .. end-1."""
        for part in range(begin, end):
            if part == 0:
                self.write()
            else:
                self.read(part)

    def write(self):
        """Adds all rows; then replaces, removes and adds some, calls that are refused in between; then most of them.
        """
        for first in range(0, ROWS, BATCH):
            self.add(first, BATCH)
        var watch = Unwatched()
        for round in range(ROUNDS):
            var first = round * 7 * BATCH % ROWS
            self.replace(first, BATCH)
            self.refuse(first)
            self.remove(first, BATCH)
            self.add(first, BATCH)
        self.remove(0, ROWS - 5 * BATCH)  # so many that the rest is linked anew
        self.add(0, ROWS - 5 * BATCH)
        # as a caller who comes back later, when searches that were under way have ended
        _ = consolidate(self.index[], 2, watch)
        Atomic[Int64].store[ordering=Ordering.RELEASE](self.done.start, 1)

    def id_of(self, i: Int) -> Int64:
        """Returns the id of row i."""
        return Int64(3 * i - 7) if self.own_ids else Int64(i)

    def ids(self, first: Int, count: Int) -> Ptr[Int64]:
        """Returns the ids of rows first .. first+count-1."""
        var ids = allocate[Int64](count)
        for i in range(count):
            ids[unsafe_offset=i] = self.id_of(first + i)
        return ids

    def add(self, first: Int, count: Int):
        """Adds rows by two threads; automatic ids are those that were there before only where all are added in order.
        """
        var ids = self.ids(first, count)
        var change = Change()
        var status = change.begin_insert(self.index[], Int(ids), count, False)
        self.end(change, status, first)
        release(ids)

    def replace(self, first: Int, count: Int):
        """Gives ids the vectors of rows before them."""
        var ids = self.ids(first, count)
        var change = Change()
        var status = change.begin_insert(self.index[], Int(ids), count, True)
        self.end(change, status, max(first - BATCH, 0))
        release(ids)

    def remove(self, first: Int, count: Int):
        """Removes rows."""
        ref index = self.index[]
        var rows = allocate[Int64](count)
        for i in range(count):
            rows[unsafe_offset=i] = Int64(index.row_of(self.id_of(first + i)))
        var change = Change()
        var status = change.begin_delete(index, rows, count)
        self.end(change, status, -1)
        release(rows)

    def refuse(self, first: Int):
        """Begins to replace rows and takes it back at the last moment, when all is linked."""
        ref index = self.index[]
        prepare_change(index)
        var ids = self.ids(first, BATCH)
        var change = Change()
        var status = change.begin_insert(index, Int(ids), BATCH, True)
        var watch = Refusing()
        _ = self.work(change, first, watch)
        if change.linked:
            change.met = not index.wait_for(index.readers.retire(), PATIENCE)
        change.roll_back(index)
        if status != DONE:
            _ = Atomic[Int64].fetch_add(self.wrong.start, 1)
        release(ids)

    def work[V: Watch](self, mut change: Change, first: Int, mut watch: V) -> Outcome:
        """Stores and links the rows of a change by two threads."""
        var task = DoChange[V](
            self.index,
            Pointer(to=change).unsafe_origin_cast[MutUntrackedOrigin](),
            Int(self.rows.unsafe_offset(first * DIM)),
            2,
            Pointer(to=watch).unsafe_origin_cast[MutUntrackedOrigin](),
            DONE,
        )
        task.run()
        return task.status

    def end(self, mut change: Change, begun: Outcome, first: Int):
        """Does the work of a change with rows from `first` on, or with none if that is negative, and lets it take effect.
        """
        ref index = self.index[]
        var status = begun
        var watch = Unwatched()
        if first >= 0 and status == DONE:
            status = self.work(change, first, watch)
        change.commit(index)
        change.finish(index)
        var after = consolidate(index, 2, watch)
        prepare_change(index)  # of the next
        if status != DONE or after != DONE:
            _ = Atomic[Int64].fetch_add(self.wrong.start, 1)

    def read(self, part: Int):
        """Searches plainly, with a filter, and within a radius, one query or many."""
        var ids = allocate[Int64](4 * K)
        var distances = allocate[Float32](4 * K)
        var round = 0
        while Atomic[Int64].load[ordering=Ordering.ACQUIRE](self.done.start) == 0 or round < 20:
            round += 1
            var count = 1 + 3 * (round & 1)
            var queries = Int(self.rows.unsafe_offset(((round * 7 + part) % (ROWS - 4)) * DIM))
            var status: Outcome
            if (round + part) % 3 == 0:
                status = self.search(
                    queries, count, 8 if round % 5 != 0 else 4 * ROWS, ids, distances
                )
            else:
                status = self.filtered(queries, count, (round + part) % 3 == 1, ids, distances)
            if status != DONE:
                _ = Atomic[Int64].fetch_add(self.wrong.start, 1)
            for i in range(count * K):
                var id = ids[unsafe_offset=i]
                var wrong = id < -7 or id >= 3 * ROWS
                for j in range(i // K * K, i):
                    wrong = wrong or (id >= 0 and id == ids[unsafe_offset=j])
                if wrong:
                    _ = Atomic[Int64].fetch_add(self.wrong.start, 1)
        release(ids)
        release(distances)

    def search(
        self, queries: Int, count: Int, ef: Int, ids: Ptr[Int64], distances: Ptr[Float32]
    ) -> Outcome:
        """Searches without a filter."""
        var watch = Unwatched()
        var task = SearchMany[Unwatched](
            self.index,
            SearchRequest(queries, count, K, ef, ids, distances, 1),
            Pointer(to=watch).unsafe_origin_cast[MutUntrackedOrigin](),
            DONE,
        )
        task.run[Float]()
        return task.status

    def filtered(
        self, queries: Int, count: Int, ranged: Bool, ids: Ptr[Int64], distances: Ptr[Float32]
    ) -> Outcome:
        """Searches among half of the rows, the nearest or all within a radius, of which the first few are returned.
        """
        ref index = self.index[]
        var watch = Unwatched()
        var pinned = index.readers.claim()
        var snapshot = index.snapshot()
        var filter = Filter(snapshot.visible.bound, snapshot.linked)
        var flags = allocate[UInt8](max(snapshot.live, 1))
        for i in range(snapshot.live):
            flags[unsafe_offset=i] = UInt8(i & 1)
        filter.allow_flags(flags, snapshot.live, snapshot.visible)
        release(flags)
        filter.prepare(index, snapshot, K, 8, CHOOSE)
        var which = allocate_zeroed[Int64](count)
        var request = SearchRequest(queries, count, K, 8, ids, distances, 1)
        var choice = FilterChoice(
            snapshot, Pointer(to=filter).unsafe_origin_cast[MutUntrackedOrigin](), which
        )
        var status: Outcome
        if ranged:
            var result = RangeResult(count)
            status = search_range(index, request, 1.0e6, choice, result, watch)
            for i in range(count * K):
                var found = i % K < result.total(i // K)
                ids[unsafe_offset=i] = result.ids[unsafe_offset=i // K].at(i % K)[] if found else -1
            _ = result^
        else:
            status = search_filtered(index, request, choice, watch)
        _ = filter^
        release(which)
        index.readers.release(pinned)
        return status


@fieldwise_init
struct Refusing(Watch):
    """Takes everything back at the last moment."""

    def proceed(mut self, done: Int) -> Bool:
        """Goes on."""
        return True

    def advance(mut self, base: Int):
        """Takes no note."""
        pass

    def conclude(mut self, done: Int) -> Bool:
        """Takes it back."""
        return False


def _beside(quantization: Int, own_ids: Bool) -> Int:
    """Changes rows beside searches; returns 0 if all went well."""
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
    var wrong = Int(state[unsafe_offset=8])
    if check_index(index[], watch) != SOUND:
        wrong += 1000
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
    """Claims scratches, writes to them and puts them back."""

    var readers: Ptr[Readers]

    def run(self, begin: Int, end: Int, worker: Int):
        """Does it end - begin times."""
        for _ in range(begin, end):
            var one = self.readers[].claim()
            var two = self.readers[].claim_unpinned()
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
struct GiveUp(Body):
    """Worker 0 replaces a thing and frees the old one when it may; the others read it."""

    var readers: Ptr[Readers]
    var place: Ptr[Int64]
    """The address of the thing."""
    var wrong: Ptr[Int64]

    def run(self, begin: Int, end: Int, worker: Int):
        """Does the parts begin .. end-1."""
        for part in range(begin, end):
            if part == 0:
                for i in range(2000):
                    self.replace(i)
            else:
                for _ in range(8000):
                    self.read()

    def replace(self, i: Int):
        """Puts another thing there."""
        var thing = allocate[Int64](2)
        thing[] = Int64(i)
        thing[unsafe_offset=1] = Int64(-i)
        var before = at[Int64](Int(self.place[]))
        Atomic[Int64].store[ordering=Ordering.RELEASE](self.place.start, Int64(Int(thing)))
        while not self.readers[].wait(self.readers[].retire()):
            pass
        before[] = 1
        release(before)

    def read(self):
        """Looks at it."""
        var scratch = self.readers[].claim()
        var thing = at[Int64](Int(Atomic[Int64].load[ordering=Ordering.ACQUIRE](self.place.start)))
        if thing[] != -thing[unsafe_offset=1]:
            _ = Atomic[Int64].fetch_add(self.wrong.start, 1)
        self.readers[].release(scratch)


@export
def epochs() abi("C") -> Int:
    """Frees what searches may have been at, with nothing but epochs to keep them apart."""
    var readers = Readers()
    var state = allocate_zeroed[Int64](16)
    state[] = Int64(Int(allocate_zeroed[Int64](2)))
    var team = Team(4)
    var watch = Unwatched()
    var work = GiveUp(
        Pointer(to=readers).unsafe_origin_cast[MutUntrackedOrigin](), state, state.unsafe_offset(8)
    )
    _ = team.run(4, 1, work, watch)
    _ = team^
    release(at[Int64](Int(state[])))
    var wrong = Int(state[unsafe_offset=8])
    release(state)
    _ = readers^
    return wrong


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
