"""A search of one level beside a plain best-first walk over lists: the same result, hops and distances."""
from std.random import random_si64, random_ui64, seed
from std.testing import TestSuite, assert_equal, assert_false, assert_true

from sample_graph import DIM, Sample, Stored
from vicinal.kernels.space import Query
from vicinal.system.memory import Ptr, allocate, release
from vicinal.walk.beam_search import search_level, start_beam_search
from vicinal.walk.visited import Visited

comptime ROWS = 700


@fieldwise_init
struct GrowableArray(Copyable, Movable):
    """What a walk has found: nodes by distance and number, and what that took."""

    var keys: List[Int]
    var nodes: List[Int]
    var hops: Int
    var distances: Int


def reference_walk(
    sample: Sample,
    query: Query,
    level: Int,
    bound: Int,
    start: Int,
    width: Int,
    nearby: Int = 0,
    far: Float32 = 0,
    least: Int = 0,
) -> GrowableArray:
    """Walks one level as Malkov and Yashunin's algorithm 2 has it: expands the nearest candidate, keeps the `width` nearest.

    Where `nearby` is given it ends before a candidate more than `far` times as far as number `nearby`, once `least` are
    expanded, and keeps none that is farther and not among the first `least`.
    """
    var seen = List[Bool](length=bound, fill=False)
    var keys: List[Int] = [key_of(sample, query, level, start)]
    var nodes: List[Int] = [start]
    var open: List[Bool] = [True]
    seen[start] = True
    var hops = 0
    var distances = 1
    var settled = max(nearby, least)
    while True:
        var limit = Float32.MAX
        var last = (Int.MAX, 0)
        var nearest = 0
        while nearest < len(nodes) and not open[nearest]:
            nearest += 1
        if nearest == len(nodes):
            return GrowableArray(keys^, nodes^, hops, distances)
        if nearby > 0 and len(nodes) >= nearby:
            limit = far * Stored.value(Int32(keys[nearby - 1]))
            if len(nodes) >= settled:
                last = (keys[settled - 1], nodes[settled - 1])
            if nearest >= settled and Stored.value(Int32(keys[nearest])) > limit:
                return GrowableArray(keys^, nodes^, hops, distances)
        open[nearest] = False
        hops += 1
        for link in sample.links(level, nodes[nearest]):
            if link >= bound or seen[link]:
                continue
            seen[link] = True
            distances += 1
            var key = key_of(sample, query, level, link)
            if Stored.value(Int32(key)) > limit and (key, link) > last:
                continue
            var place = len(nodes)
            while place > 0 and (key, link) < (keys[place - 1], nodes[place - 1]):
                place -= 1
            keys.insert(place, key)
            nodes.insert(place, link)
            open.insert(place, True)
            if len(nodes) > width:
                _ = keys.pop()
                _ = nodes.pop()
                _ = open.pop()


def key_of(sample: Sample, query: Query, level: Int, node: Int) -> Int:
    """Returns the key of a node, on level 0 a row, above it an ordinal."""
    var row = node if level == 0 else sample.graph.row_of(node)
    return Int(Stored.key(query, sample.rows(), row))


def made(M: Int) raises -> Sample:
    """Links random rows, some of them alike."""
    var sample = Sample(ROWS, M)
    for row in range(40):
        sample.copy_row(row, ROWS - 1 - 3 * row)
    sample.link_all(ROWS, 30)
    return sample^


def sparse(mut sample: Sample):
    """Makes searches note what they have seen in a table, as among millions of rows."""
    for i in range(Sample.WORKERS):
        sample.scratches[unsafe_offset=i][].visited.dense_nodes = 0


def ask(sample: Sample, into: Ptr[Int8], row: Int) -> Query:
    """Makes a query: a row if there is one of that number, else random values."""
    for i in range(DIM):
        into[unsafe_offset=i] = sample.values[unsafe_offset=row * DIM + i] if row >= 0 else Int8(
            random_si64(-128, 127)
        )
    return Query(Int(into), 1)


def compare(mut sample: Sample, wanted: GrowableArray) raises:
    """Compares what lies in the first scratch with what a reference found."""
    ref scratch = sample.scratches[][]
    assert_equal(scratch.beam.size, len(wanted.nodes))
    for i in range(scratch.beam.size):
        assert_equal(scratch.beam.node(i), wanted.nodes[i])
        assert_equal(Int(scratch.beam.key(i)), wanted.keys[i])
    assert_equal(scratch.hops, wanted.hops)
    assert_equal(scratch.distances, wanted.distances)


def test_level_0_agrees_with_the_reference() raises:
    seed(11)
    var values = allocate[Int8](DIM)
    for M in [2, 8, -8]:
        var sample = made(abs(M))
        if M < 0:
            sparse(sample)
        for width in [1, 2, 7, 64, 2 * ROWS]:
            for bound in [ROWS, ROWS // 2]:  # rows that the search may know of
                for number in range(12):
                    var query = ask(sample, values, number if number % 2 == 0 else -1)
                    var start = Int(random_ui64(0, UInt64(bound - 1)))
                    ref scratch = sample.scratches[][]
                    scratch.hops = 0
                    scratch.distances = 0
                    search_level[True](
                        sample.graph, sample.measured(), query, scratch, 0, bound, start, width
                    )
                    compare(sample, reference_walk(sample, query, 0, bound, start, width))
        _ = sample^
    release(values)


def test_upper_levels_agree_with_the_reference() raises:
    seed(12)
    var values = allocate[Int8](DIM)
    for M in [2, 4]:
        var sample = made(M)
        assert_true(sample.graph.top() >= 2)
        for level in range(1, sample.graph.top() + 1):
            var start = sample.graph.entry
            for width in [1, 5, 30]:
                for _ in range(6):
                    var query = ask(sample, values, -1)
                    ref scratch = sample.scratches[][]
                    scratch.hops = 0
                    scratch.distances = 0
                    search_level[False](
                        sample.graph,
                        sample.measured(),
                        query,
                        scratch,
                        level,
                        sample.graph.ordinals,
                        start,
                        width,
                    )
                    compare(
                        sample,
                        reference_walk(sample, query, level, sample.graph.ordinals, start, width),
                    )
        _ = sample^
    release(values)


def greedy(sample: Sample, query: Query, mut distances: Int, mut hops: Int) -> Int:
    """Descends to level 0: on each level goes to the nearest neighbour while there is a nearer one.
    """
    var nearest = sample.graph.entry
    var best = key_of(sample, query, 1, nearest)
    for level in range(sample.graph.top(), 0, -1):
        var moved = True
        while moved:
            moved = False
            hops += 1
            for link in sample.links(level, nearest):
                distances += 1
                var key = key_of(sample, query, 1, link)
                if key < best:
                    best = key
                    nearest = link
                    moved = True
    return sample.graph.row_of(nearest)


def test_a_whole_walk_agrees_with_the_reference() raises:
    """Two walks take turns, each in a scratch of its own, as batches do it."""
    seed(13)
    var values = allocate[Int8](2 * DIM)
    var sample = made(6)
    var graph = Pointer(to=sample.graph).unsafe_origin_cast[MutUntrackedOrigin]()
    for turn in range(6):
        var width = [1, 10, 100][turn % 3]
        if turn == 3:
            sparse(sample)
        for _ in range(10):
            var first = ask(sample, values, -1)
            var second = ask(sample, values.unsafe_offset(DIM), -1)
            for i in range(2):
                sample.scratches[unsafe_offset=i][].hops = 0
                sample.scratches[unsafe_offset=i][].distances = 0
            var one = start_beam_search(
                graph, sample.measured(), ROWS, first, sample.scratches[], width
            )
            var other = start_beam_search(
                graph, sample.measured(), ROWS, second, sample.scratches[unsafe_offset=1], 50
            )
            while one.collect():
                if other.collect():
                    other.measure()
                one.measure_apart()
            var hops = 0
            var distances = 0
            var start = greedy(sample, first, distances, hops)
            var wanted = reference_walk(sample, first, 0, ROWS, start, width)
            wanted.hops += hops
            wanted.distances += distances
            compare(sample, wanted)
    _ = sample^
    release(values)


def test_a_set_of_visited_nodes_agrees_with_a_list() raises:
    """Few nodes seen among many lie in a table, many in bytes; one search passes from the one to the other.
    """
    seed(15)
    var count = 200_000
    var visited = Visited()
    visited.dense_nodes = 1000
    var links = allocate[UInt32](64)
    var fresh = allocate[Int64](64)
    for steps in [10, 40, 400, 10, 3000, 100]:
        var seen = List[Bool](length=count + 1, fill=False)
        seen[count] = True
        visited.reset(count)
        assert_true(visited.sparse)
        for step in range(steps):
            for i in range(64):
                links[unsafe_offset=i] = UInt32(Int(random_ui64(0, UInt64(count))))
            links[unsafe_offset=5] = links[unsafe_offset=3]
            if visited.sparse and step % 2 == 0:
                var wanted = List[Int]()
                for i in range(64):
                    if not seen[Int(links[unsafe_offset=i])]:
                        wanted.append(Int(links[unsafe_offset=i]))
                        seen[Int(links[unsafe_offset=i])] = True
                assert_equal(visited.keep_first_visits(links, 64, fresh), len(wanted))
                for i in range(len(wanted)):
                    assert_equal(Int(fresh[unsafe_offset=i]), wanted[i])
            else:
                for i in range(64):
                    var node = Int(links[unsafe_offset=i])
                    assert_equal(visited.has_seen(node), seen[node])
                    assert_equal(visited.first_visit(node), not seen[node])
                    seen[node] = True
        assert_equal(visited.sparse, steps <= 100)
        visited.trim()
        assert_false(visited.failed)
        # bytes of the one, or places of the other, for the next search
        assert_true(visited.bytes() < 1 << 20)
    release(links)
    release(fresh)


def test_a_walk_that_ends_early_agrees_with_the_reference() raises:
    """The distance that ends it is 1.02 and 0.08 for each doubling from k, but at least 8, to the width; narrow walks go on.
    """
    seed(14)
    var values = allocate[Int8](DIM)
    var sample = made(6)
    var graph = Pointer(to=sample.graph).unsafe_origin_cast[MutUntrackedOrigin]()
    var saved = 0
    for width in [23, 24, 64, 100, 160]:
        for k in [1, 8, 10, 20, 60]:
            for _ in range(6):
                var query = ask(sample, values, -1)
                ref scratch = sample.scratches[][]
                scratch.hops = 0
                scratch.distances = 0
                var walk = start_beam_search(
                    graph, sample.measured(), ROWS, query, sample.scratches[], width
                )
                scratch.beam.end_early(k)
                while walk.collect():
                    walk.measure()
                var nearby = max(k, 8)
                var doublings = 0
                while nearby << (doublings + 1) <= width:
                    doublings += 1
                # between two powers of 2 by a straight line
                var part = Float64(width) / Float64(nearby << doublings) - 1
                var far = 1.02 + 0.08 * (Float64(doublings) + part)
                assert_true(
                    width < 3 * nearby or abs(Float64(scratch.beam.far) - far) < 0.002,
                    "far",
                )
                var hops = 0
                var distances = 0
                var start = greedy(sample, query, distances, hops)
                var whole = reference_walk(sample, query, 0, ROWS, start, width)
                var wanted = reference_walk(
                    sample,
                    query,
                    0,
                    ROWS,
                    start,
                    width,
                    nearby if width >= 3 * nearby else 0,
                    scratch.beam.far,
                    width // 2,
                )
                saved += whole.distances - wanted.distances
                wanted.hops += hops
                wanted.distances += distances
                compare(sample, wanted)
    assert_true(saved > 0)
    _ = sample^
    release(values)


def test_a_walk_that_ends_by_distance_agrees_with_the_reference() raises:
    """It ends before a candidate so many times as far as the k nearest, once as many as asked for are expanded.
    """
    seed(15)
    var values = allocate[Int8](DIM)
    var sample = made(6)
    var graph = Pointer(to=sample.graph).unsafe_origin_cast[MutUntrackedOrigin]()
    var saved = 0
    for held in [12, 40, 150]:
        for k in [1, 10]:
            for far in [Float32(1), Float32(1.1), Float32(1.5)]:
                for least in [0, 20]:
                    var query = ask(sample, values, -1)
                    ref scratch = sample.scratches[][]
                    scratch.hops = 0
                    scratch.distances = 0
                    var walk = start_beam_search(
                        graph, sample.measured(), ROWS, query, sample.scratches[], held
                    )
                    scratch.beam.end_beyond(k, far, least)
                    while walk.collect():
                        walk.measure()
                    var hops = 0
                    var distances = 0
                    var start = greedy(sample, query, distances, hops)
                    var whole = reference_walk(sample, query, 0, ROWS, start, held)
                    var wanted = reference_walk(
                        sample, query, 0, ROWS, start, held, max(k, 8), far, least
                    )
                    saved += whole.distances - wanted.distances
                    wanted.hops += hops
                    wanted.distances += distances
                    compare(sample, wanted)
    assert_true(saved > 0)
    _ = sample^
    release(values)


def main() raises:
    TestSuite.discover_tests[__functions_in_module()]().run()
