"""A schedule explorer: runs the threads of a small scenario in every order that has few preemptions.

The threads are stacks of their own inside one thread of the system, so that exactly one runs at a time and a schedule can be
repeated exactly. The code under test says where a switch matters (`system/point.mojo`). Schedules are searched depth first, without
memory of states, up to a bound of preemptions: switches away from a thread that could have gone on.

Where there are too many orders for that, `draw` runs as many as are asked for, each drawn by a seed, and `pause` stops a thread at one of
its points until the others have ended or wait for it.

Sources: M. Musuvathi et al., "Finding and reproducing Heisenbugs in concurrent programs" (CHESS, OSDI 2008), for the search by
preemptions; S. Burckhardt et al., "A randomized scheduler with probabilistic guarantees of finding bugs" (ASPLOS 2010), for the
thought that few of them find most faults.
"""
from std.ffi import _Global, c_int, external_call
from std.os import abort

from vicinal.system.hash import mix
from vicinal.system.memory import Ptr, allocate, at
from vicinal.system.point import BROKEN, HOOK, LATE, RECLAIM, SEEN, STEP, TOUCH, WAIT

comptime STACK = 1 << 20
"""Bytes of a thread's stack."""
comptime CONTEXT = 8192
"""Bytes that hold a `ucontext_t` of any machine."""
comptime MOST_THREADS = 4
comptime MOST_STEPS = 100_000
"""Steps after which a schedule counts as one that never ends."""
comptime MAIN = MOST_THREADS
"""The number of the context that starts a schedule and gets control back at its end."""
comptime NOBODY = -1
comptime UNKNOWN = -2
"""The thread of a decision that is only known by its number."""
comptime IDLE_WAITS = 200
"""Waits one after the other, with no step between them, after which all who can run are taken to wait for the thread that is paused."""
comptime ROWS = 64
"""Rows whose fate is watched."""
comptime Entry = def(Int32, Int32) abi("C") thin -> None
comptime Run = def(Int, Int) thin -> None


trait Scenario(Movable):
    """A few threads around one state."""

    def threads(self) -> Int:
        """Returns how many threads there are."""
        ...

    def begin(mut self):
        """Makes the state of a new schedule."""
        ...

    @staticmethod
    def run(it: Ptr[Self], thread: Int):
        """Does the work of one thread, which sees through a pointer what others do."""
        ...

    def end(mut self) -> String:
        """Gives the state up; returns what was wrong, or nothing."""
        ...


@fieldwise_init
struct Choice(Copyable, Movable):
    """One decision of a schedule."""

    var name: Int
    """Where it was made."""
    var thread: Int
    """The thread that was running."""
    var chosen: Int
    var free: Int
    """Choices that cost no preemption; they come first."""
    var count: Int
    """Choices in all."""
    var spent: Int
    """Preemptions before it."""


@fieldwise_init
struct Late(Copyable, Movable):
    """A store that others do not see yet."""

    var thread: Int
    var place: Int
    var value: Int64


struct Explorer(Movable):
    """The scheduler and its search."""

    var bound: Int
    """Most preemptions of a schedule."""
    var choices: List[Choice]
    """The schedule under way."""
    var depth: Int
    """Decisions of it that have been made."""
    var spent: Int
    """Preemptions so far."""
    var threads: Int
    var current: Int
    var ended: List[Bool]
    var steps: Int
    var all_steps: Int
    """Steps of all schedules."""
    var schedules: Int
    """Schedules explored."""
    var waits: Int
    """Times that a thread was told to wait no longer, in all schedules."""
    var wrong: String
    """The first thing found wrong in this schedule."""
    var contexts: List[Int]
    var stacks: List[Int]
    var fates: List[Int]
    """What became of each row: RECLAIM, or 0."""
    var scenario: Int
    var body: Run
    var active: Bool
    """Whether hooks are heard; not while a scenario begins and ends."""
    var outcome_of: Bool
    """Whether each step is printed."""
    var late: List[Late]
    """Stores that only their own thread is to see."""
    var break_rule: String
    """The rule that is to be broken, where the sources ask for it."""
    var asked: Int
    """Times that they asked for this one."""
    var drawn: UInt64
    """Chance, for schedules that are drawn; 0 for those that are searched."""
    var rarely: UInt64
    """A thread that could go on is preempted at one point in so many."""
    var victim: Int
    """The thread that is to be paused, or NOBODY."""
    var pause_at: Int
    """At which of its points."""
    var victim_steps: Int
    """Points that it has come to."""
    var paused: Bool
    """Whether it stands still."""
    var idle: Int
    """Waits since the last step."""
    var stalled: Int
    """Schedules in which the others could not end without it."""

    def __init__(out self, bound: Int):
        """Makes an explorer for schedules with so many preemptions."""
        self.bound = bound
        self.choices = List[Choice]()
        self.depth = 0
        self.spent = 0
        self.threads = 0
        self.current = 0
        self.ended = List[Bool](length=MOST_THREADS, fill=False)
        self.steps = 0
        self.all_steps = 0
        self.schedules = 0
        self.waits = 0
        self.wrong = ""
        self.contexts = List[Int]()
        self.stacks = List[Int]()
        for _ in range(MOST_THREADS + 1):
            self.contexts.append(external_call["calloc", Int](Int(1), Int(CONTEXT)))
        for _ in range(MOST_THREADS):
            self.stacks.append(external_call["aligned_alloc", Int](Int(64), Int(STACK)))
        self.fates = List[Int](length=ROWS, fill=0)
        self.scenario = 0
        self.body = _no_body
        self.active = False
        self.outcome_of = False
        self.late = List[Late]()
        self.break_rule = ""
        self.asked = 0
        self.drawn = 0
        self.rarely = 1
        self.victim = NOBODY
        self.pause_at = 0
        self.victim_steps = 0
        self.paused = False
        self.idle = 0
        self.stalled = 0

    def __deinit__(deinit self):
        for address in self.contexts:
            external_call["free", NoneType](address)
        for address in self.stacks:
            external_call["free", NoneType](address)

    def schedule(self) -> String:
        """Returns the schedule under way: for each decision that was not the first choice its number and the choice.
        """
        var text = String("[")
        for i in range(len(self.choices)):
            if self.choices[i].chosen != 0:
                text += (", " if text != "[" else "") + String(i) + ", "
                text += String(self.choices[i].chosen)
        return text + "]"


def new_explorer(bound: Int) -> Ptr[Explorer]:
    """Makes an explorer for schedules with so many preemptions."""
    var it = allocate[Explorer](1)
    it.unsafe_write(Explorer(bound))
    return it


def explore[S: Scenario](it: Ptr[Explorer], scenario: Ptr[S]) raises -> String:
    """Runs every schedule within the bound, until one goes wrong.

    Returns:
        What went wrong and the schedule that shows it; nothing if all went well.
    """
    it[].choices.clear()
    while True:
        _run(it, scenario)
        if it[].wrong != "":
            return it[].wrong + "; schedule " + it[].schedule()
        while len(it[].choices) != 0:
            ref last = it[].choices[len(it[].choices) - 1]
            if last.chosen + 1 < last.count:
                last.chosen += 1
                break
            _ = it[].choices.pop()
        if len(it[].choices) == 0:
            return ""


def replay[S: Scenario](it: Ptr[Explorer], scenario: Ptr[S], schedule: List[Int]) raises -> String:
    """Runs one schedule, as `explore` named it, and prints each step; returns what went wrong."""
    it[].choices.clear()
    for i in range(0, len(schedule), 2):
        while len(it[].choices) <= schedule[i]:
            # names and counts are filled in on the way
            it[].choices.append(Choice(0, UNKNOWN, 0, 0, 0, 0))
        it[].choices[schedule[i]].chosen = schedule[i + 1]
    it[].outcome_of = True
    _run(it, scenario)
    it[].outcome_of = False
    return it[].wrong


def draw[
    S: Scenario
](it: Ptr[Explorer], scenario: Ptr[S], first: Int, schedules: Int) raises -> String:
    """Runs schedules drawn by seeds from the first on; returns as `explore` does."""
    for seed in range(first, first + schedules):
        it[].choices.clear()
        it[].drawn = UInt64(mix(1, seed)) | 1
        it[].rarely = UInt64(1) << UInt64(1 + seed % 6)
        _run(it, scenario)
        it[].drawn = 0
        if it[].wrong != "":
            return it[].wrong + "; seed " + String(seed) + ", schedule " + it[].schedule()
    return ""


def pause[
    S: Scenario
](it: Ptr[Explorer], scenario: Ptr[S], victim: Int, seeds: Int) raises -> String:
    """Pauses a thread at each of its points in turn, in schedules drawn by so many seeds for each; returns as `explore` does.

    It goes on when the others have ended, or when nobody can go on without it, which `stalled` counts.
    """
    it[].victim = victim
    it[].pause_at = 0
    var reached = True
    while reached:
        reached = False
        for seed in range(seeds):
            it[].choices.clear()
            it[].drawn = UInt64(mix(2, seed)) | 1
            it[].rarely = 8
            _run(it, scenario)
            it[].drawn = 0
            reached = reached or it[].victim_steps > it[].pause_at
            if it[].wrong != "":
                return it[].wrong + "; paused at its point " + String(it[].pause_at)
        it[].pause_at += 1
    it[].victim = NOBODY
    return ""


# ---- the scheduler, on the stacks of the threads. All of it goes through an untracked pointer: the state changes in the
# middle of a function, when other threads run.


def _run[S: Scenario](it: Ptr[Explorer], scenario: Ptr[S]) raises:
    """Runs one schedule from its first step to its last."""
    var me = STATE.get_or_create_ptr()
    me[] = Int(it)
    HOOK.get_or_create_ptr()[] = _heard
    it[].depth = 0
    it[].spent = 0
    it[].steps = 0
    it[].victim_steps = 0
    it[].paused = False
    it[].idle = 0
    it[].wrong = ""
    it[].scenario = Int(scenario)
    it[].body = _call_body[S]
    for i in range(ROWS):
        it[].fates[i] = 0
    scenario[].begin()
    it[].threads = scenario[].threads()
    for i in range(it[].threads):
        it[].ended[i] = False
        var context = it[].contexts[i]
        _ = external_call["getcontext", c_int](context)
        # uc_link, then the stack's address, flags and size; the same on x86-64 and AArch64
        at[Int](context)[unsafe_offset=1] = it[].contexts[MAIN]
        at[Int](context)[unsafe_offset=2] = it[].stacks[i]
        at[Int](context)[unsafe_offset=4] = STACK
        var entry: Entry = _begin
        external_call["makecontext", NoneType, num_fixed_args=3](
            context, entry, Int32(2), Int32(i), Int32(0)
        )
    it[].active = True
    it[].current = _other(it, -1, _choose(it, Int("start".ptr()), -1, it[].threads, it[].threads))
    _ = external_call["swapcontext", c_int](it[].contexts[MAIN], it[].contexts[it[].current])
    it[].active = False
    it[].schedules += 1
    it[].all_steps += it[].steps
    var found = scenario[].end()
    if it[].wrong == "":
        it[].wrong = found
    if it[].wrong == "" and it[].depth != len(it[].choices):
        it[].wrong = "a schedule was not repeated as it was"
    HOOK.get_or_create_ptr()[] = _nothing_heard


def _choose(it: Ptr[Explorer], name: Int, thread: Int, free: Int, count: Int) -> Int:
    """Makes the next decision: the one that is to be repeated, or the first choice."""
    var most = count if it[].spent < it[].bound or it[].drawn != 0 else free
    if it[].depth == len(it[].choices):
        var first = _drawn(it, free, most) if it[].drawn != 0 else 0
        it[].choices.append(Choice(name, thread, first, free, most, it[].spent))
    ref choice = it[].choices[it[].depth]
    if choice.thread == UNKNOWN:
        choice = Choice(name, thread, choice.chosen, free, most, it[].spent)
    if (
        choice.name != name
        or choice.thread != thread
        or choice.free != free
        or choice.count != most
    ):
        fail(it, "a schedule was not repeated as it was")
        return 0
    var chosen = choice.chosen
    if chosen >= free:
        it[].spent += 1
    if it[].outcome_of:
        print(
            it[].depth,
            ": thread ",
            thread,
            " at '",
            text_of(name),
            "'",
            "" if chosen == 0 else " -> choice " + String(chosen),
            sep="",
        )
    it[].depth += 1
    return chosen


def _drawn(it: Ptr[Explorer], free: Int, count: Int) -> Int:
    """Draws a choice: one that costs nothing most of the time."""
    var luck = it[].drawn
    luck ^= luck << 13
    luck ^= luck >> 7
    luck ^= luck << 17
    it[].drawn = luck
    luck >>= 8
    if free < count and luck % it[].rarely == 0:
        return free + Int((luck >> 8) % UInt64(count - free))
    return Int((luck >> 8) % UInt64(free))


def _runs(it: Ptr[Explorer], thread: Int) -> Bool:
    """Tells whether a thread can be chosen."""
    return not it[].ended[thread] and not (it[].paused and thread == it[].victim)


def _other(it: Ptr[Explorer], thread: Int, number: Int) -> Int:
    """Returns the thread of a number among those that can run, `thread` left out."""
    var left = number
    for i in range(it[].threads):
        if i != thread and _runs(it, i):
            if left == 0:
                return i
            left -= 1
    return MAIN


def _others(it: Ptr[Explorer], thread: Int) -> Int:
    var count = 0
    for i in range(it[].threads):
        count += Int(i != thread and _runs(it, i))
    return count


def _switch(it: Ptr[Explorer], thread: Int):
    """Lets another thread run; returns when this one is to go on."""
    var me = it[].current
    it[].current = thread
    _ = external_call["swapcontext", c_int](it[].contexts[me], it[].contexts[thread])


def step(it: Ptr[Explorer], name: Int):
    """A thread is at a point."""
    it[].steps += 1
    if it[].steps > MOST_STEPS:
        fail(it, "does not end")
        return
    var me = it[].current
    it[].idle = 0
    var others = _others(it, me)
    if me == it[].victim:
        it[].victim_steps += 1
        if it[].victim_steps == it[].pause_at + 1 and others != 0:
            it[].paused = True
            _switch(it, _other(it, me, _choose(it, name, me, others, others)))
            return
    if others == 0:
        return
    var chosen = _choose(it, name, me, 1, 1 + others)
    if chosen != 0:
        _switch(it, _other(it, me, chosen - 1))


def wait(it: Ptr[Explorer], name: Int) -> Int:
    """A thread waits: others run, or it is told that its patience is over; neither is a preemption.
    """
    it[].steps += 1
    if it[].steps > MOST_STEPS:
        fail(it, "does not end")
        return 0
    var me = it[].current
    it[].idle += 1
    if it[].paused and it[].idle > IDLE_WAITS:
        it[].stalled += 1
        it[].paused = False
        _switch(it, it[].victim)
        return 1
    var others = _others(it, me)
    if others == 0:
        it[].waits += 1
        return 0
    var chosen = _choose(it, name, me, 1 + others, 1 + others)
    if chosen == others:
        it[].waits += 1
        return 0
    _switch(it, _other(it, me, chosen))
    return 1


def leave(it: Ptr[Explorer]):
    """A thread has ended."""
    var me = it[].current
    show(it, me)
    it[].ended[me] = True
    if it[].paused and _others(it, me) == 0:
        it[].paused = False
    var others = _others(it, me)
    var next = MAIN
    if others == 1:
        next = _other(it, me, 0)
    elif others > 1:
        next = _other(it, me, _choose(it, Int("end of a thread".ptr()), me, others, others))
    _switch(it, next)


def delay(it: Ptr[Explorer], name: Int, place: Int, before: Int):
    """A thread has made a store that others may see late: they do, or not, for the price of a preemption.
    """
    if _others(it, it[].current) == 0 or _choose(it, name, it[].current, 1, 2) == 0:
        return
    var word = at[Int64](place)
    it[].late.append(Late(it[].current, place, word[]))
    word[] = Int64(before)


def show(it: Ptr[Explorer], thread: Int):
    """Stores of a thread, or of all if that is negative, are seen."""
    var i = 0
    while i < len(it[].late):
        if thread < 0 or it[].late[i].thread == thread:
            at[Int64](it[].late[i].place)[] = it[].late[i].value
            _ = it[].late.pop(i)
        else:
            i += 1


def fail(it: Ptr[Explorer], text: String):
    """Notes the first thing that is wrong."""
    if it[].wrong == "":
        it[].wrong = text


def fate(it: Ptr[Explorer], what: Int, name: Int, row: Int):
    """A row is read, given up or written anew."""
    if row < 0 or row >= ROWS:
        fail(it, text_of(name) + ": there is no row " + String(row))
    elif what == TOUCH:
        if it[].fates[row] == RECLAIM:
            fail(it, text_of(name) + ": row " + String(row) + " was given up")
    else:
        it[].fates[row] = what if what == RECLAIM else 0


comptime STATE = _Global["vicinal.explorer", _nowhere]
"""The address of the explorer that runs."""


def _nowhere() -> Int:
    return 0


def _no_body(scenario: Int, thread: Int):
    pass


def _call_body[S: Scenario](scenario: Int, thread: Int):
    S.run(at[S](scenario), thread)


def explorer() -> Ptr[Explorer]:
    """Returns the explorer that runs."""
    try:
        return at[Explorer](STATE.get_or_create_ptr()[])
    except:
        abort()


def _begin(thread: Int32, unused: Int32) abi("C"):
    var it = explorer()
    it[].body(it[].scenario, Int(thread))
    leave(it)


def _nothing_heard(what: Int, name: Int, a: Int, b: Int) -> Int:
    return 0


def _heard(what: Int, name: Int, a: Int, b: Int) -> Int:
    var it = explorer()
    if not it[].active:
        return 0
    if what == STEP:
        step(it, name)
        return 1
    if what == WAIT:
        return wait(it, name)
    if what == LATE:
        delay(it, name, a, b)
        return 1
    if what == SEEN:
        show(it, it[].current if a == 0 else -1)
        return 1
    if what == BROKEN:
        var asked = text_of(name) == it[].break_rule
        it[].asked += Int(asked)
        return Int(asked)
    fate(it, what, name, a)
    return 1


def text_of(name: Int) -> String:
    """Returns the text at an address."""
    return String(unsafe_from_utf8_ptr=at[UInt8](name).start)
