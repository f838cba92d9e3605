"""A real index of a few rows, writers with lists of changes and searches beside them: scenarios for the schedule explorer.

Several writers take turns, as `Index` sees to it with its lock: whoever wants to write waits for it.

What a search returns must be what the index held at one version between its begin and its end, exactly: so the searches are wide
enough to meet every row.
"""
from std.math import nan

from explorer import Scenario, explorer, fail
from vicinal.exact.request import SearchRequest
from vicinal.index.invariants import SOUND, check_index
from vicinal.index.vector_index import Index
from vicinal.kernels.space import L2, MetricSpace
from vicinal.search.batch import SearchMany
from vicinal.system.memory import Ptr, allocate, release
from vicinal.system.outcome import DONE, Outcome
from vicinal.system.parallel import Unwatched, Watch
from vicinal.system.point import point, wait_point
from vicinal.update.add import do_change
from vicinal.update.consolidate import consolidate, prepare_change
from vicinal.update.transaction import Change
from vicinal.walk.readers import PATIENCE

comptime Float = MetricSpace[L2, DType.float32]
comptime DIM = 4
comptime ADD = 0
"""A new row."""
comptime UPDATE = 1
"""Another vector for an id, or a new row."""
comptime REMOVE = 2
comptime REFUSE = 3
"""An addition that ends at the last moment, when its row is linked."""
comptime REFUSE_UPDATE = 4
comptime BAD = 5
"""An addition of something that is not a number."""


@fieldwise_init
struct Step(ImplicitlyCopyable, Movable):
    """One change: what, the id, and where its vector is on a line."""

    var what: Int
    var id: Int
    var at: Int


@fieldwise_init
struct Given(Watch):
    """Goes on; keeps what was done, or not."""

    var keep: Bool

    def proceed(mut self, done: Int) -> Bool:
        """Goes on."""
        return True

    def advance(mut self, base: Int):
        """Takes no note."""
        pass

    def conclude(mut self, done: Int) -> Bool:
        """Decides."""
        return self.keep


struct World(Scenario):
    """Thread 0 writes, and so do those of `more`; the others search."""

    var index: Ptr[Index]
    var before: List[Step]
    """Changes of the beginning, when nobody searches."""
    var steps: List[Step]
    """Changes beside searches."""
    var more: List[List[Step]]
    """Changes of further writers."""
    var held: Bool
    """Whether a writer has its turn."""
    var searchers: Int
    var searches: Int
    """Searches of each."""
    var query: Int
    """Where the first search is; the next are 10 further on."""
    var k: Int
    var exact_below: Int
    var quantization: Int
    var first_version: Int
    var states: List[List[Step]]
    """What the index holds at each version from the first on."""

    def __init__(out self, var before: List[Step], var steps: List[Step]):
        """Makes one with a single search of all rows, by a walk."""
        self.index = allocate[Index](1)
        self.before = before^
        self.steps = steps^
        self.more = List[List[Step]]()
        self.held = False
        self.searchers = 1
        self.searches = 1
        self.query = 13
        self.k = 8
        self.exact_below = 1
        self.quantization = 1
        self.first_version = 0
        self.states = List[List[Step]]()

    def threads(self) -> Int:
        """The writers and the searchers."""
        return 1 + len(self.more) + self.searchers

    def begin(mut self):
        """Makes the index."""
        self.index.unsafe_write(Index(0, 0, DIM, 2, 20, 5, self.exact_below, self.quantization))
        self.held = False
        self.states.clear()
        self.states.append(List[Step]())
        self.first_version = self.version()
        for step in self.before:
            change(Pointer(to=self).unsafe_origin_cast[MutUntrackedOrigin](), step)

    def version(self) -> Int:
        """Returns the version that is committed."""
        return Int(self.index[].states.moment >> 32)

    @staticmethod
    def run(it: Ptr[Self], thread: Int):
        """Writes or searches."""
        var writers = 1 + len(it[].more)
        if thread == 0:
            for i in range(len(it[].steps)):
                take_turn(it, it[].steps[i])
        elif thread < writers:
            for i in range(len(it[].more[thread - 1])):
                take_turn(it, it[].more[thread - 1][i])
        else:
            for i in range(it[].searches):
                search(it, it[].query + 10 * (thread - writers + i))

    def end(mut self) -> String:
        """Looks at the index when all is quiet."""
        var it = Pointer(to=self).unsafe_origin_cast[MutUntrackedOrigin]()
        if explorer()[].wrong == "":
            search(it, 1)
            var watch = Unwatched()
            var broken = check_index(self.index[], watch)
            if broken != SOUND:
                fail(explorer(), "invariant " + String(broken) + " does not hold")
            for row in self.states[len(self.states) - 1]:
                search(it, row.at)
        self.index.unsafe_deinit_pointee()
        return ""


def expected(state: List[Step], step: Step) -> List[Step]:
    """Returns what an index holds after a change."""
    var after = List[Step]()
    for row in state:
        if row.id != step.id:
            after.append(row)
    if step.what != REMOVE:
        after.append(step)
    return after^


def take_turn(it: Ptr[World], step: Step):
    """Makes one change when no other writer is at work."""
    if len(it[].more) != 0:
        point["ask for the turn"]()
        while it[].held:
            _ = wait_point["wait for the writer"]()
            if explorer()[].wrong != "":
                return
        it[].held = True
    change(it, step)
    if len(it[].more) != 0:
        point["give the turn on"]()
        it[].held = False


def change(it: Ptr[World], step: Step):
    """Makes one change, with all that a caller from Python does."""
    ref index = it[].index[]
    var refused = step.what == REFUSE or step.what == REFUSE_UPDATE or step.what == BAD
    if not refused:
        it[].states.append(expected(it[].states[len(it[].states) - 1], step))
    prepare_change(index)
    var one = Change()
    var id = Int64(step.id)
    var row = Int64(0)
    var status: Outcome
    if step.what == REMOVE:
        row = Int64(index.row_of(id))
        status = one.begin_delete(
            index, Pointer(to=row).unsafe_origin_cast[MutUntrackedOrigin](), 1
        )
    else:
        status = one.begin_insert(
            index,
            Int(Pointer(to=id)),
            1,
            step.what == UPDATE or step.what == REFUSE_UPDATE,
        )
    if status != DONE:
        fail(explorer(), "a change does not begin: " + String(status))
        return
    if step.what != REMOVE:
        var vector = allocate[Float32](DIM)
        for i in range(DIM):
            vector[unsafe_offset=i] = Float32(step.at if i == 0 else 0)
        if step.what == BAD:
            vector[unsafe_offset=1] = nan[DType.float32]()
        var watch = Given(not refused)
        status = do_change(index, one, Int(vector), 1, watch)
        release(vector)
    if (status != DONE) != refused:
        fail(explorer(), "a change ends with " + String(status))
    if status != DONE:
        if one.linked:
            one.met = not index.wait_for(index.readers.retire(), PATIENCE)
        one.roll_back(index)
        return
    one.commit(index)
    one.finish(index)
    # not only when enough is due
    index.leftovers = index.leftovers or index.states.pending > index.unlinked.count
    var watch = Unwatched()
    if consolidate(index, 1, watch) != DONE:
        fail(explorer(), "nothing was taken out")
    _ = id
    _ = row


def search(it: Ptr[World], query: Int):
    """Searches once and compares the result with all versions between its begin and its end."""
    var k = it[].k
    var ids = allocate[Int64](k)
    var distances = allocate[Float32](k)
    var vector = allocate[Float32](DIM)
    for i in range(DIM):
        vector[unsafe_offset=i] = Float32(query if i == 0 else 0)
    var first = it[].version()
    var watch = Unwatched()
    var task = SearchMany[Unwatched](
        it[].index,
        SearchRequest(Int(vector), 1, k, 8, ids, distances, 1),
        Pointer(to=watch).unsafe_origin_cast[MutUntrackedOrigin](),
        DONE,
    )
    task.run[Float]()
    var last = it[].version()
    var found = False
    for version in range(first, last + 1):
        found = found or same(it[].states[version - it[].first_version], query, ids, distances, k)
    if not found:
        var text = String("a search for ") + String(query) + " in versions " + String(first)
        text += " to " + String(last) + " found"
        for i in range(k):
            if ids[unsafe_offset=i] >= 0:
                text += " " + String(ids[unsafe_offset=i]) + " at "
                text += String(distances[unsafe_offset=i]) + ","
        fail(explorer(), text)
    release(ids)
    release(distances)
    release(vector)


def same(state: List[Step], query: Int, ids: Ptr[Int64], distances: Ptr[Float32], k: Int) -> Bool:
    """Tells whether a result is the k nearest of a state; which of equally far ones come first is not looked at.
    """
    var count = 0
    while count < k and ids[unsafe_offset=count] >= 0:
        count += 1
    if count != min(k, len(state)):
        return False
    for i in range(count):
        var there = False
        for j in range(i):
            if ids[unsafe_offset=i] == ids[unsafe_offset=j]:
                return False
        var nearer = 0
        for row in state:
            var distance = Float32((row.at - query) ** 2)
            if row.id == Int(ids[unsafe_offset=i]):
                there = distance == distances[unsafe_offset=i]
            nearer += Int(distance < distances[unsafe_offset=i])
        if not there or nearer > i:
            return False
    return True
