"""The table of ids equals a dictionary, a team does every item exactly once."""
from std.atomic import Atomic
from std.random import random_si64, random_ui64, seed
from std.testing import TestSuite, assert_equal, assert_false, assert_true
from std.time import sleep

from vicinal.rows.id_map import NOBODY, IdMap
from vicinal.system.memory import Ptr, allocate, allocate_zeroed, release
from vicinal.system.parallel import MAX_THREADS, Body, Team, Unwatched, Watch, usable_cores
from vicinal.walk.readers import Readers
from vicinal.walk.scratch import Scratch


def random_id(scarce: Bool) -> Int64:
    """Returns an id of all, or of few."""
    if not scarce:
        return random_si64(Int64.MIN, Int64.MAX)
    if random_ui64(0, 1) == 0:
        return random_si64(-500, 500)
    return Int64.MAX - random_si64(0, 500)


def compare(map: IdMap, ids: Ptr[Int64], wanted: Dict[Int64, Int]) raises:
    """Looks for all ids that are in the dictionary and for others."""
    assert_equal(map.held, len(wanted))
    for item in wanted.items():
        assert_equal(map.find(ids, item.key), item.value)
        assert_equal(ids[unsafe_offset=item.value], item.key)
    for _ in range(20):
        var id = random_id(True)
        assert_equal(map.find(ids, id), wanted.get(id, -1))


def test_ids_equal_a_dictionary() raises:
    """Rows come and go in any order; some ids lead to another row afterwards."""
    seed(1)
    comptime ROOM = 1500
    for busy in [20, 400, ROOM]:  # rows that are held at most
        var ids = allocate[Int64](ROOM)
        var map = IdMap()
        var wanted = Dict[Int64, Int]()
        var row_taken = List[Bool](length=ROOM, fill=False)
        var clashes = 0
        var erased = 0
        for step in range(6000):
            var row = Int(random_ui64(0, UInt64(min(2 * busy, ROOM) - 1)))
            if row_taken[row]:
                map.erase(ids, row)
                _ = wanted.pop(ids[unsafe_offset=row])
                row_taken[row] = False
                erased += 1
                ids[unsafe_offset=row] = random_id(True)  # what is not held is not looked at
            elif len(wanted) < busy:
                var id = random_id(step % 3 != 0)
                ids[unsafe_offset=row] = id
                if id not in wanted:
                    assert_true(map.make_room(ids, map.held + 1) and map.insert(ids, row))
                    wanted[id] = row
                    row_taken[row] = True
                else:
                    assert_false(map.insert(ids, row))
                    clashes += 1
                    if step % 2 == 0:
                        row_taken[wanted[id]] = False
                        map.replace(ids, row)
                        wanted[id] = row
                        row_taken[row] = True
            if step % 100 == 0:
                compare(map, ids, wanted)
        assert_true(clashes > 10 and erased > 1000)
        for row in range(ROOM):
            if row_taken[row]:
                map.erase(ids, row)
        wanted.clear()
        compare(map, ids, wanted)
        for place in range(map.room):  # nothing stays behind
            assert_equal(map.table[unsafe_offset=place], NOBODY)
        release(ids)


def test_ids_in_a_row() raises:
    """Ids that are row numbers but for one: what an index holds that was given its own numbers."""
    comptime COUNT = 70_000
    var ids = allocate[Int64](COUNT)
    var map = IdMap()
    for row in range(COUNT):
        ids[unsafe_offset=row] = Int64(row) + 1
        assert_true(map.make_room(ids, map.held + 1) and map.insert(ids, row))
    for row in range(COUNT):
        assert_equal(map.find(ids, Int64(row) + 1), row)
    assert_equal(map.find(ids, 0), -1)
    assert_equal(map.find(ids, Int64(COUNT) + 1), -1)
    for row in range(0, COUNT, 2):
        map.erase(ids, row)
    for row in range(COUNT):
        assert_equal(map.find(ids, Int64(row) + 1), row if row % 2 == 1 else -1)
    assert_equal(map.held, COUNT // 2)
    map.clear()
    assert_equal(map.find(ids, 2), -1)
    release(ids)


@fieldwise_init
struct FilterStatistics(Body, TrivialRegisterPassable):
    """Counts how often each item is done, and what pieces it gets."""

    var times: Ptr[Int64]
    var wrong: Ptr[Int64]
    """Pieces that are empty or too large, and workers that do not exist."""
    var grain: Int
    var workers: Int

    def run(self, begin: Int, end: Int, worker: Int):
        """Counts items begin .. end-1."""
        if begin >= end or end - begin > self.grain or worker < 0 or worker >= self.workers:
            _ = Atomic[Int64].fetch_add(self.wrong.start, 1)
        for i in range(begin, end):
            _ = Atomic[Int64].fetch_add(self.times.unsafe_offset(i).start, 1)


@fieldwise_init
struct SlowTally(Body):
    """Counts after a while; the caller is the faster one."""

    var times: Ptr[Int64]

    def run(self, begin: Int, end: Int, worker: Int):
        """Counts items begin .. end-1."""
        sleep(0.0002 if worker == 0 else 0.002)
        for i in range(begin, end):
            _ = Atomic[Int64].fetch_add(self.times.unsafe_offset(i).start, 1)


@fieldwise_init
struct TallyInTeams(Body):
    """Counts with a team for each piece."""

    var filter_statistics: FilterStatistics
    var size: Int
    """Of each of those teams."""

    def run(self, begin: Int, end: Int, worker: Int):
        """Counts items begin .. end-1."""
        var watch = Unwatched()
        var team = Team(self.size)
        var inner = FilterStatistics(
            self.filter_statistics.times.unsafe_offset(begin),
            self.filter_statistics.wrong,
            1,
            team.size(),
        )
        if not team.run(end - begin, 1, inner, watch):
            _ = Atomic[Int64].fetch_add(self.filter_statistics.wrong.start, 1)


struct Limited(Watch):
    """Ends a region when it has been asked so many times, and notes what it was told."""

    var left: Int
    var asked: Int
    var outcome_of: Int
    """Items handed out, at the last question."""
    var wrong: Int

    def __init__(out self, left: Int):
        """Makes the watch."""
        self.left = left
        self.asked = 0
        self.outcome_of = 0
        self.wrong = 0

    def proceed(mut self, done: Int) -> Bool:
        """Counts down."""
        self.wrong += Int(done <= self.outcome_of)
        self.outcome_of = done
        self.asked += 1
        self.left -= 1
        return self.left >= 0

    def advance(mut self, base: Int):
        """Takes no note."""
        pass

    def conclude(mut self, done: Int) -> Bool:
        """Keeps what was done."""
        return True


def check_region(team: Team, count: Int, grain: Int) raises:
    """Runs one region and counts."""
    var times = allocate_zeroed[Int64](count + 1)
    var watch = Limited(Int.MAX)
    # a grain below 1 counts as 1
    var filter_statistics = FilterStatistics(
        times, times.unsafe_offset(count), max(grain, 1), team.size()
    )
    assert_true(team.run(count, grain, filter_statistics, watch))
    for i in range(count):
        assert_equal(times[unsafe_offset=i], 1)
    assert_equal(times[unsafe_offset=count], 0)
    assert_equal(watch.wrong, 0)
    assert_true(watch.outcome_of < max(count, 1))
    if team.size() == 1:  # asked before each piece but the first
        assert_equal(watch.asked, max(0, (count + max(grain, 1) - 1) // max(grain, 1) - 1))
    release(times)


def test_every_item_is_done_once() raises:
    for size in [-1, 0, 1, 2, 3, 8]:
        var team = Team(size)
        assert_equal(team.size(), max(size, 1))
        for count in [0, 1, 2, 7, 100, 1000]:
            for grain in [-1, 0, 1, 3, 64, 5000]:
                for _ in range(3):  # one team, many regions
                    check_region(team, count, grain)


def test_threads_start_when_there_is_something_to_share() raises:
    var team = Team(3)
    check_region(team, 5, 5)
    check_region(team, 0, 1)
    assert_equal(team.shared[].started, 0)
    check_region(team, 5, 1)
    assert_equal(team.shared[].started, 2)
    check_region(team, 5, 1)
    assert_equal(team.shared[].started, 2)


def test_the_caller_waits_for_the_others() raises:
    comptime COUNT = 12
    var team = Team(3)
    for left in [3, 1000]:  # also when the region is ended early
        var times = allocate_zeroed[Int64](COUNT)
        var watch = Limited(left)
        _ = team.run(COUNT, 1, SlowTally(times), watch)
        var counted = List[Int64]()
        for i in range(COUNT):
            counted.append(times[unsafe_offset=i])
        sleep(0.01)
        for i in range(COUNT):
            assert_equal(times[unsafe_offset=i], counted[i])
        release(times)


def test_more_threads_than_there_may_be() raises:
    var team = Team(10 * MAX_THREADS)
    assert_true(team.size() <= MAX_THREADS)
    check_region(team, 10_000, 7)


def test_teams_inside_teams() raises:
    comptime COUNT = 40
    for size in [1, 3]:
        for inner in [1, 2, 4]:
            var times = allocate_zeroed[Int64](COUNT + 1)
            var watch = Unwatched()
            var filter_statistics = FilterStatistics(times, times.unsafe_offset(COUNT), 1, inner)
            assert_true(Team(size).run(COUNT, 9, TallyInTeams(filter_statistics, inner), watch))
            for i in range(COUNT):
                assert_equal(times[unsafe_offset=i], 1)
            assert_equal(times[unsafe_offset=COUNT], 0)
            release(times)


def test_a_watch_ends_a_region() raises:
    comptime COUNT = 400
    for size in [1, 2, 4]:
        var team = Team(size)
        for left in [0, 1, 5, 30, 10_000]:
            for grain in [1, 8]:
                var times = allocate_zeroed[Int64](COUNT + 1)
                var watch = Limited(left)
                var filter_statistics = FilterStatistics(
                    times, times.unsafe_offset(COUNT), grain, team.size()
                )
                var finished = team.run(COUNT, grain, filter_statistics, watch)
                var done = 0
                for i in range(COUNT):
                    assert_true(times[unsafe_offset=i] <= 1)
                    done += Int(times[unsafe_offset=i])
                assert_equal(times[unsafe_offset=COUNT], 0)
                # true if and only if all of it was done
                assert_equal(finished, done == COUNT)
                assert_equal(finished, watch.left >= 0)
                if size == 1:
                    assert_equal(done, min((left + 1) * grain, COUNT))
                release(times)
                check_region(team, COUNT, grain)  # the team goes on


@fieldwise_init
struct Borrow(Body):
    """Takes scratches; two who hold the same one would see each other's marks."""

    var readers: Ptr[Readers]
    var wrong: Ptr[Int64]

    def run(self, begin: Int, end: Int, worker: Int):
        """Takes one for each item."""
        for i in range(begin, end):
            var scratch = self.readers[].claim()
            scratch[].hops = i
            scratch[].beam.reset(3 + i % 5)
            if scratch[].hops != i or scratch[].beam.limit != 3 + i % 5:
                _ = Atomic[Int64].fetch_add(self.wrong.start, 1)
            self.readers[].release(scratch)


def test_each_scratch_is_given_to_one() raises:
    var readers = Readers()
    var taken = List[Ptr[Scratch]]()
    for i in range(70):
        taken.append(readers.claim())
        for j in range(i):
            assert_true(Int(taken[i]) != Int(taken[j]))
    for i in range(len(taken)):
        readers.release(taken[i])
    for _ in range(len(taken)):  # none is made anew as long as there are others
        var again = Int(readers.claim())
        var known = False
        for j in range(len(taken)):
            known = known or Int(taken[j]) == again
        assert_true(known)
    for i in range(len(taken)):
        readers.release(taken[i])
    var wrong = allocate_zeroed[Int64](1)
    var watch = Unwatched()
    var borrow = Borrow(Pointer(to=readers).unsafe_origin_cast[MutUntrackedOrigin](), wrong)
    assert_true(Team(4).run(20_000, 10, borrow, watch))
    assert_equal(wrong[], 0)
    release(wrong)
    _ = readers^


def test_nothing_passes_a_search_that_began_before() raises:
    var readers = Readers()
    assert_true(readers.passed(readers.retire()), "nobody reads")
    var first = readers.claim()
    var worker = readers.claim_unpinned()
    var before = readers.retire()
    var second = readers.claim()
    var after = readers.retire()
    assert_false(readers.passed(before))
    assert_false(readers.wait(before, 1000))
    readers.renew(first)  # it begins anew, and has let go of what it saw
    assert_true(readers.passed(before))
    assert_false(readers.passed(after), "the second one is there still")
    readers.release(second)
    assert_true(readers.passed(after))
    assert_false(readers.passed(readers.retire()), "the first one is, too")
    readers.forget()  # as after a fork
    assert_true(readers.passed(readers.retire()))
    readers.release(first)
    readers.release(worker)
    _ = readers^


def test_wide_searches_leave_no_memory_behind() raises:
    var readers = Readers()
    var scratch = readers.claim()
    readers.release(scratch)
    var usual = readers.bytes()
    assert_true(usual > 0)
    scratch = readers.claim()
    scratch[].beam.reset(1_000_000)
    scratch[].pruning_candidates.reset(1_000_000)
    readers.release(scratch)
    assert_equal(readers.bytes(), usual)
    _ = readers^


def test_cores() raises:
    assert_true(usable_cores() >= 1)


def main() raises:
    TestSuite.discover_tests[__functions_in_module()]().run()
