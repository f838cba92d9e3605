"""The scenarios, by name: how often each is preempted in a quick look and in a long one, and which broken rules it must notice."""
from std.atomic import Atomic, Ordering

from explorer import Scenario
from small_world import ADD, BAD, REFUSE, REFUSE_UPDATE, REMOVE, UPDATE, Step, World
from vicinal.system.memory import Ptr, allocate
from vicinal.system.point import point, reclaims, touches
from vicinal.walk.readers import Readers

comptime SCAN = 1000
"""Rows below which everything is scanned."""


struct Pins(Scenario):
    """A writer replaces a thing, and again; searches are at the thing that they have found, which must not be given up meanwhile.
    """

    var readers: Readers
    var thing: Int64
    var searchers: Int

    def __init__(out self, searchers: Int):
        """Makes one with so many searchers."""
        self.readers = Readers()
        self.thing = 0
        self.searchers = searchers

    def threads(self) -> Int:
        """The writer and the searchers."""
        return 1 + self.searchers

    def begin(mut self):
        """Makes a list with an idle scratch, which the first searcher claims; another one makes its own.
        """
        self.readers = Readers()
        self.readers.release(self.readers.claim())
        self.thing = 0

    @staticmethod
    def run(it: Ptr[Self], thread: Int):
        """Replaces or reads."""
        var place = Pointer(to=it[].thing).unsafe_origin_cast[MutUntrackedOrigin]()
        if thread == 0:
            for i in range(2):
                var before = Int(it[].thing)
                point["replace"]()
                Atomic[Int64].store[ordering=Ordering.RELEASE](place, Int64(i + 1))
                if it[].readers.wait(it[].readers.retire()):
                    reclaims["give up"](before)
            return
        for _ in range(2):
            var scratch = it[].readers.claim()
            it[].readers.renew(scratch)
            for _ in range(2):
                point["find"]()
                var thing = Int(Atomic[Int64].load[ordering=Ordering.ACQUIRE](place))
                point["read"]()
                touches["read"](thing)
            it[].readers.release(scratch)

    def end(mut self) -> String:
        """Nothing is left to look at."""
        return ""


def rows(count: Int) -> List[Step]:
    """Returns additions of rows 1 .. count at 10, 20 and so on."""
    var all = List[Step]()
    for i in range(count):
        all.append(Step(ADD, i + 1, 10 * (i + 1)))
    return all^


def ring() -> List[Step]:
    """Returns additions of a row and of four that are equal."""
    return [
        Step(ADD, 1, 10),
        Step(ADD, 2, 20),
        Step(ADD, 3, 20),
        Step(ADD, 4, 20),
        Step(ADD, 5, 20),
    ]


def with_free_row() -> List[Step]:
    """Returns changes that leave the place of row 2 to be used again."""
    var all = rows(4)
    all.append(Step(REMOVE, 2, 0))
    return all^


def names() -> List[String]:
    """Returns the names of all scenarios of a small world."""
    return [
        "add",
        "add to a scan",
        "first graph",
        "replace",
        "replace, the nearest wanted",
        "remove, the nearest wanted",
        "remove from a scan",
        "remove",
        "remove and use again",
        "remove most",
        "refuse, then add",
        "refuse in a place used again",
        "refuse in a place used again, then add",
        "refuse to replace",
        "no number",
        "last of a ring",
        "first of a ring",
        "middle of a ring",
        "original of a ring",
        "whole ring",
        "codes replaced",
        "codes replaced, a place used again",
        "two searches",
    ]


def writers() -> List[String]:
    """Returns the names of the scenarios of three writers and a search: too many orders to search them all.
    """
    return [
        "three that add",
        "three that add, replace and remove",
        "three that add and refuse",
        "three at one ring",
        "three of a first graph",
    ]


def world_of_writers(name: String) raises -> World:
    """Makes the scenario of three writers of a name."""
    if name == "three that add":
        var one = World(rows(3), [Step(ADD, 9, 15), Step(ADD, 10, 35)])
        one.more = [[Step(ADD, 11, 16), Step(ADD, 12, 5)], [Step(ADD, 13, 17)]]
        return one^
    if name == "three that add, replace and remove":
        var one = World(rows(4), [Step(ADD, 9, 15), Step(REMOVE, 9, 0)])
        one.more = [[Step(UPDATE, 2, 16), Step(UPDATE, 2, 36)], [Step(REMOVE, 3, 0)]]
        one.searches = 2
        return one^
    if name == "three that add and refuse":
        var one = World(with_free_row(), [Step(REFUSE, 9, 12), Step(ADD, 9, 12)])
        one.more = [[Step(ADD, 10, 17), Step(BAD, 11, 1)], [Step(REFUSE_UPDATE, 3, 18)]]
        return one^
    if name == "three at one ring":
        var one = World(ring(), [Step(REMOVE, 2, 0), Step(ADD, 9, 20)])
        one.more = [[Step(REMOVE, 4, 0)], [Step(UPDATE, 5, 20)]]
        one.k = 10
        return one^
    if name == "three of a first graph":
        var one = World(rows(2), [Step(ADD, 9, 15)])
        one.more = [[Step(ADD, 10, 16)], [Step(ADD, 11, 17), Step(REMOVE, 11, 0)]]
        one.exact_below = 4
        return one^
    raise Error("no scenario of that name: " + name)


def world(name: String) raises -> World:
    """Makes the scenario of a name."""
    if name.startswith("three "):
        return world_of_writers(name)
    if name == "add":
        return World(rows(3), [Step(ADD, 9, 15)])
    if name == "add to a scan":
        var one = World(rows(3), [Step(ADD, 9, 15), Step(ADD, 10, 16)])
        one.exact_below = SCAN
        return one^
    if name == "first graph":
        var one = World(rows(2), [Step(ADD, 9, 15), Step(ADD, 10, 16)])
        one.exact_below = 3
        return one^
    if name == "replace":
        return World(rows(3), [Step(UPDATE, 2, 15)])
    if name == "replace, the nearest wanted":
        var one = World(rows(4), [Step(UPDATE, 3, 32)])
        one.k = 1
        one.query = 33
        return one^
    if name == "remove, the nearest wanted":
        var one = World(rows(4), [Step(REMOVE, 3, 0)])
        one.k = 1
        one.query = 33
        return one^
    if name == "remove from a scan":
        var one = World(rows(3), [Step(REMOVE, 1, 0), Step(REMOVE, 2, 0)])
        one.exact_below = SCAN
        return one^
    if name == "remove":
        return World(rows(3), [Step(REMOVE, 2, 0)])
    if name == "remove and use again":
        return World(rows(3), [Step(REMOVE, 2, 0), Step(ADD, 9, 16)])
    if name == "remove most":
        return World(rows(3), [Step(REMOVE, 2, 0), Step(REMOVE, 3, 0)])
    if name == "refuse, then add":
        return World(rows(3), [Step(REFUSE, 9, 12), Step(ADD, 10, 17)])
    if name == "refuse in a place used again":
        return World(with_free_row(), [Step(REFUSE, 9, 12)])
    if name == "refuse in a place used again, then add":
        return World(with_free_row(), [Step(REFUSE, 9, 12), Step(ADD, 10, 17)])
    if name == "refuse to replace":
        return World(rows(3), [Step(REFUSE_UPDATE, 2, 12), Step(UPDATE, 2, 17)])
    if name == "no number":
        return World(rows(3), [Step(BAD, 9, 12), Step(ADD, 10, 17)])
    if name == "last of a ring":
        return World(ring(), [Step(REMOVE, 5, 0)])
    if name == "first of a ring":
        var one = World(ring(), [Step(REMOVE, 3, 0)])
        one.k = 3
        one.query = 23
        return one^
    if name == "middle of a ring":
        return World(ring(), [Step(REMOVE, 4, 0), Step(ADD, 9, 20)])
    if name == "original of a ring":
        return World(ring(), [Step(REMOVE, 2, 0), Step(UPDATE, 3, 20)])
    if name == "whole ring":
        var before: List[Step] = [Step(ADD, 1, 10), Step(ADD, 2, 20), Step(ADD, 3, 20)]
        before.append(Step(REMOVE, 2, 0))
        return World(before^, [Step(REMOVE, 3, 0)])
    if name == "codes replaced":
        # whole numbers have exact codes, until one comes that they cannot hold
        var one = World(rows(3), [Step(ADD, 9, 300)])
        one.quantization = 0
        return one^
    if name == "codes replaced, a place used again":
        var one = World(with_free_row(), [Step(ADD, 9, 300)])
        one.quantization = 0
        return one^
    if name == "two searches":
        var one = World(rows(2), [Step(UPDATE, 2, 15)])
        one.searchers = 2
        return one^
    raise Error("no scenario of that name: " + name)


def on_heap[S: Scenario](var scenario: S) -> Ptr[S]:
    """Makes a scenario at an address of its own."""
    var it = allocate[S](1)
    it.unsafe_write(scenario^)
    return it
